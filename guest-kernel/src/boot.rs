//! From `boot_start` to the first process: the PVH start info, memory, the archive, VM.

use crate::arch::layout::{Gate, KERNEL_BASE};
use crate::arch::{apic, fpu, gate, layout, machine};
use crate::facts::{self, command_line, read};
use crate::global::Single;
use crate::{
    clock, direct_map, fatal, inspect, ipc, lab, lifecycle, memory, plan, process, sched, transfer,
    trap,
};
use abi::boot::{
    ARCHIVE_MAGIC, ArchiveHeader, CMDLINE_ALLOCATIONS, CMDLINE_DETERMINISTIC, CMDLINE_LAB,
    CMDLINE_PLAN, CMDLINE_TRACE, CMDLINE_TSC, KIND_FLAT,
};
use abi::kernel::{
    BootInfo, HOLE, Kcall, PHYSICAL_MAX, PRIV_COPY_ANY, PRIV_LINUX, PRIV_PHYSICAL, Privileges,
    Span, VM_WINDOW, rts,
};
use abi::policy::CopyPolicy;
use abi::role::Role;
use abi::sabotage::of_command_line;
use abi::{Endpoint, PAGE, page_down};
use core::cell::Cell;
use zerocopy::FromBytes;

/// `hvm_start_info`, version 1 (Xen's public/arch-x86/hvm/start_info.h).
#[derive(Clone, Copy, FromBytes)]
#[repr(C)]
struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    modules: u32,
    module_list: u64,
    command_line: u64,
    rsdp: u64,
    memory_map: u64,
    memory_map_entries: u32,
    reserved: u32,
}

const START_INFO_MAGIC: u32 = 0x336e_c578;
/// Where RAM may be.
const RAM: [(u64, u64); 2] = [(0, HOLE.start), (HOLE.end, PHYSICAL_MAX)];
/// Below this lie the loader's structures and the PC's holes.
const LOW_MEMORY: u64 = 1 << 20;

/// Page tables that map VM: PML4, PDPT, PD and one PT for each 2 MiB of its image.
#[repr(C, align(4096))]
struct Tables([Cell<[u64; 512]>; 3 + VM_PTS]);
const VM_PTS: usize = 8;
static VM_TABLES: Single<Tables> = Single::of(Tables([const { Cell::new([0; 512]) }; 3 + VM_PTS]));

unsafe extern "C" {
    static pdpt_physical: u8;
}

/// The text after `key` in the command line, up to a blank.
fn option(key: &str) -> Option<&'static [u8]> {
    let words = command_line().split(|&b| b == b' ' || b == b'\n');
    words
        .filter_map(|word| word.strip_prefix(key.as_bytes()))
        .next_back()
}

fn number(text: &[u8], radix: u32) -> Option<u64> {
    u64::from_str_radix(core::str::from_utf8(text).ok()?, radix).ok()
}

/// The kernel's start, on its own stack and address space.
#[unsafe(no_mangle)]
extern "C" fn kernel_main(start_info: u64, gate_word: u64) -> ! {
    let gate = if gate_word == 0 {
        Gate::Direct
    } else {
        Gate::Deprivileged
    };
    gate::init(gate);
    // The loader's structures are read before RAM's size is known.
    memory::set_ram_ends(HOLE.start, 0);
    let start: StartInfo = read(start_info);
    if start.magic != START_INFO_MAGIC || start.modules == 0 {
        fatal!(
            "not a PVH boot with a module: magic {:#x}, {} modules",
            start.magic,
            start.modules
        );
    }
    read_command_line(start.command_line);
    let lab = option(CMDLINE_LAB).and_then(|text| number(text.strip_prefix(b"0x")?, 16));
    if let Some(lab) = lab.filter(|&lab| lab < HOLE.end && lab.is_multiple_of(PAGE)) {
        machine::set_lab(lab);
    }
    // Where CPL0 is interpreted the kernel at CPL3 sees another CPUID; the entry code has looked.
    let interpreted = match gate_word {
        0 => {
            machine::has_lab()
                && core::arch::x86_64::__cpuid(abi::lab::GATE_CPUID_LEAF).ebx
                    & abi::lab::GATE_INTERPRETED
                    != 0
        }
        word => word == 1,
    };
    if !interpreted && let Some(what) = fpu::lacks() {
        machine::log(&[abi::lab::LACKS_LINE.as_bytes(), b" ", what.as_bytes()]);
        machine::power_off(abi::lab::POWEROFF_PANIC);
    }
    let (archive, archive_len, _, _): (u64, u64, u64, u64) = read(start.module_list);
    let (low_end, high_end) = ram_ends(&start);
    memory::set_ram_ends(low_end, 0);

    transfer::set_policy(CopyPolicy::of_command_line(command_line()));
    process::init();
    ipc::init();
    apic::init();
    let khz = option(CMDLINE_TSC)
        .and_then(|text| number(text, 10))
        .filter(|&khz| khz > 0);
    let hz = khz.map_or_else(|| apic::calibrate(clock::tsc), |khz| khz * 1000);
    let hz = clock::init(hz, option(CMDLINE_DETERMINISTIC).is_some());
    let allocations = option(CMDLINE_ALLOCATIONS).is_some();
    lab::init(
        option(CMDLINE_TRACE),
        of_command_line(command_line()),
        allocations,
    );
    plan::init(option(CMDLINE_PLAN).unwrap_or_default());
    fpu::init(
        gate,
        interpreted && gate == Gate::Direct,
        !clock::is_virtual(),
    );
    sched::init();

    let header: ArchiveHeader = read(archive);
    if header.magic != ARCHIVE_MAGIC || !archive.is_multiple_of(PAGE) {
        fatal!("the module at {archive:#x} is not a boot archive");
    }
    let tables = direct_map::bytes(high_end);
    let areas = place_areas(&start, archive, archive_len, tables);
    direct_map::extend(areas.1 - tables, high_end);
    memory::set_ram_ends(low_end, high_end);
    facts::set_info(BootInfo {
        free: free_ranges(&start, archive, archive_len, areas),
        ram_bytes: ram(&start).map(|(from, to)| to - from).sum(),
        gate: gate_word,
        tsc_hz: hz,
        tsc_start: clock::start(),
        modules: header.count,
        archive: Span {
            start: archive,
            end: archive + archive_len,
        },
        xsave_bytes: fpu::size() as u64,
        xfeatures: fpu::components(),
        lab: lab::physical(),
        deciding: lab::deciding() as u64,
        sabotage: lab::sabotage(),
    });
    start_vm();
    inspect::publish();
    gate::drop_identity_map();
    trap::leave_lab()
}

fn read_command_line(physical: u64) {
    // Below a MiB nothing is given away, elsewhere the line's page is not.
    let kept = LOW_MEMORY.max(page_down(physical) + PAGE);
    let len = PAGE.min(kept - physical);
    // SAFETY: see above, and `free_ranges`.
    let Some(bytes) = (unsafe { memory::kept(physical, len) }) else {
        return;
    };
    let len = bytes.iter().position(|&b| b == 0).unwrap_or(0);
    facts::set_command_line(&bytes[..len]);
}

/// RAM ranges of the memory map, page aligned, without what is never used as such.
fn ram(start: &StartInfo) -> impl Iterator<Item = (u64, u64)> + use<> {
    let (map, entries) = (start.memory_map, start.memory_map_entries as u64);
    (0..entries.min(128)).flat_map(move |i| {
        let [from, len, kind]: [u64; 3] = read(map + i * 24);
        RAM.into_iter().filter_map(move |(least, most)| {
            let (from, to) = (
                from.max(least).checked_add(PAGE - 1)? & !(PAGE - 1),
                from.saturating_add(len).min(most),
            );
            (kind as u32 == 1 && from < to).then_some((from, page_down(to)))
        })
    })
}

/// Where RAM below and behind the hole ends; 0 where there is none.
fn ram_ends(start: &StartInfo) -> (u64, u64) {
    let (mut low, mut high) = (0, 0);
    for (_, end) in ram(start) {
        let which = if end <= HOLE.start {
            &mut low
        } else {
            &mut high
        };
        *which = end.max(*which);
    }
    (low, high)
}

/// Room for the FPU areas, and for `tables` bytes of page tables behind them: right behind the kernel, or anywhere it
/// fits.
fn place_areas(start: &StartInfo, archive: u64, archive_len: u64, tables: u64) -> (u64, u64) {
    let bytes = fpu::bytes().next_multiple_of(PAGE);
    // The frames that are left are the same on every host.
    let bytes = if clock::is_virtual() {
        bytes.max(process::MAX_PROCESSES as u64 * PAGE)
    } else {
        bytes
    };
    let free = free_ranges(start, archive, archive_len, (0, 0));
    let fits = |range: &&Span| range.end <= HOLE.start && range.len() >= bytes + tables;
    let Some(&Span { start: from, .. }) = free.iter().find(fits) else {
        fatal!("not enough memory for {bytes} bytes of FPU state: give the guest more (--mem)")
    };
    memory::clear(from, bytes / PAGE);
    fpu::set_areas(layout::PHYSICAL_BASE + from);
    (from, from + bytes + tables)
}

/// RAM without what is in use, ascending.
fn free_ranges(start: &StartInfo, archive: u64, archive_len: u64, areas: (u64, u64)) -> [Span; 8] {
    let page_of = |at: u64| (page_down(at), page_down(at) + PAGE);
    let used = [
        (0, LOW_MEMORY),
        memory::kernel_image(),
        (archive, (archive + archive_len).next_multiple_of(PAGE)),
        areas,
        page_of(start.module_list),
        page_of(start.command_line),
        page_of(start.memory_map),
    ];
    let mut free = [Span::EMPTY; 8];
    let mut n = 0;
    for (mut at, end) in ram(start) {
        while at < end && n < free.len() {
            if let Some(&(_, to)) = used.iter().find(|&&(from, to)| from <= at && at < to) {
                at = to;
                continue;
            }
            let stop = used
                .iter()
                .map(|&(from, _)| from)
                .filter(|&from| from > at)
                .fold(end, u64::min);
            free[n] = Span {
                start: at,
                end: stop,
            };
            n += 1;
            at = stop;
        }
    }
    free
}

/// Maps VM's flat image where it lies and makes it the first process.
fn start_vm() {
    let entry = match facts::module(0) {
        Ok(entry) if entry.kind == KIND_FLAT && entry.len == entry.memory_len => entry,
        _ => fatal!("the archive does not start with VM's flat image"),
    };
    let page_count = entry.len.div_ceil(PAGE);
    let first_table = entry.address >> 21;
    let last_table = (entry.address + entry.len - 1) >> 21;
    if !entry.address.is_multiple_of(PAGE)
        || last_table >= 512
        || last_table - first_table >= VM_PTS as u64
    {
        fatal!(
            "VM's image at {:#x} ({} bytes) does not fit its page tables",
            entry.address,
            entry.len
        );
    }
    let physical = |table: &Cell<[u64; 512]>| table.as_ptr() as u64 - KERNEL_BASE;
    let [root, pdpt, directory, pages @ ..] = &VM_TABLES.0;
    let put = |table: &Cell<[u64; 512]>, index: u64, entry: u64| {
        table.as_array_of_cells()[index as usize & 511].set(entry);
    };
    put(root, 0, physical(pdpt) | 0x67);
    let window = &raw const pdpt_physical as u64 - KERNEL_BASE;
    put(root, VM_WINDOW >> 39, window | 0x67 | 1 << 63);
    put(pdpt, 0, physical(directory) | 0x67);
    for table in first_table..=last_table {
        let page_table = &pages[(table - first_table) as usize];
        put(directory, table, physical(page_table) | 0x67);
    }
    let image = facts::info().archive.start + entry.offset;
    for page in 0..page_count {
        let at = (entry.address >> 12) + page;
        let page_table = &pages[((at >> 9) - first_table) as usize];
        put(page_table, at, (image + page * PAGE) | 0x67);
    }
    gate::fill_upper_half(&root.as_array_of_cells()[256..], false);
    let root = physical(root);
    let Ok(vm) = lifecycle::create(*b"vm\0\0\0\0\0\0\0\0\0\0\0\0\0\0", Role::Vm) else {
        fatal!("no process slot for VM")
    };
    if vm.endpoint.get() != Endpoint::VM {
        fatal!("VM is not the first process");
    }
    vm.cr3.set(root);
    vm.priority.set(0);
    vm.privileges.set(vm_privileges());
    vm.set_entry(entry.entry, 0, 0);
    sched::unblock(vm, rts::STOPPED | rts::NO_SPACE);
}

/// What VM may do. RS gives the others theirs.
fn vm_privileges() -> Privileges {
    let calls = [
        Kcall::ProcCreate,
        Kcall::ProcPriv,
        Kcall::ProcStart,
        Kcall::ProcInfo,
        Kcall::ProcPriority,
        Kcall::SetAddressSpace,
        Kcall::MemreqGet,
        Kcall::MemreqReply,
        Kcall::FlushSelf,
        Kcall::VirCopy,
        Kcall::Memset,
        Kcall::SetGrants,
        Kcall::Time,
        Kcall::SetTimer,
        Kcall::Log,
        Kcall::PowerOff,
        Kcall::BootInfo,
        Kcall::ModuleRead,
        Kcall::ModuleInfo,
        Kcall::Counters,
        Kcall::CommandLine,
        Kcall::FrameRestore,
        Kcall::LabServing,
        Kcall::LabStage,
        Kcall::LabAllocates,
        Kcall::LabAllocation,
    ];
    Privileges {
        kcalls: calls.iter().fold(0, |bits, call| bits | call.bit()),
        peers: [
            1 << Endpoint::RS.slot() | 1 << Endpoint::PM.slot() | 1 << Endpoint::VFS.slot(),
            0,
            0,
            0,
        ],
        irqs: 0,
        flags: PRIV_COPY_ANY | PRIV_PHYSICAL | PRIV_LINUX,
    }
}
