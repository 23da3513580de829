//! From the boot information to a running RS.

use abi::boot::{self, ArchiveEntry, KIND_FLAT, RUN_MAGIC, RunHeader, run_flags};
use abi::kernel::{
    BootInfo, Kcall, PHYSICAL_MAX, PROGRAMS_MEMORY_MIN, Privileges, SERVICES_MEMORY, USER_END,
    VM_WINDOW,
};
use abi::policy::CopyPolicy;
use abi::proto::vm::Prot;
use abi::role::Role;
use abi::trace::Control;
use abi::{Endpoint, Errno, PAGE};
use alloc::vec::Vec;
use core::cell::OnceCell;
use rt::kernel;
use vm::frames::{Claim, Frames};
use vm::lab::Lab;
use vm::region::{Flags, Region};
use vm::server::Server;
use vm::table;
use vm::window::{Frame, Window};
use zerocopy::IntoBytes;

struct Global(OnceCell<Frames>);

// SAFETY: VM has one thread.
unsafe impl Sync for Global {}

static FRAMES: Global = Global(OnceCell::new());

/// RS's stack, bytes.
const RS_STACK: u64 = 256 << 10;

/// The largest piece that VM's heap gets when programs and services have used up their shares,
/// bytes: more than VM notes of what a few hundred processes may wait for.
const OWN_MAX: usize = 256 << 10;

/// More heap: frames in a row, through the window.
fn grow_heap(bytes: usize, least: bool) -> Option<usize> {
    let frames = FRAMES.0.get()?;
    let count = u32::try_from((bytes as u64).div_ceil(PAGE)).ok()?;
    let first = frames.take_own(count).or_else(|| {
        let claim = frames.claim();
        frames.set_claim(Claim::Own);
        let last = (least && bytes <= OWN_MAX)
            .then(|| frames.take_own(count))
            .flatten();
        frames.set_claim(claim);
        last
    })?;
    Some(frames.window().page(first) as usize)
}

/// A piece of the heap is free again.
fn shrink_heap(base: usize, bytes: usize) {
    if let Some(frames) = FRAMES.0.get() {
        let address = base as u64 - VM_WINDOW;
        frames.release_own(Frame::at(address), (bytes as u64 / PAGE) as u32);
    }
}

/// Takes over memory and starts RS.
pub fn boot() -> Result<Server, Errno> {
    let info = kernel::boot_info()?;
    let frames = take_memory(&info)?;
    rt::heap::set_source(grow_heap, shrink_heap);
    let run = run_flags()?;
    let mut server = Server::new(frames, run & run_flags::VM_SANITY != 0);
    server.deadlocks = copy_policy()? == CopyPolicy::Transparent;
    // SAFETY: the structure lies in the kernel's image, which the window shows and nobody moves;
    // it is read volatile only.
    let control = (info.lab != 0).then(|| unsafe {
        &*frames
            .window()
            .page(Frame::at(info.lab))
            .add((info.lab % PAGE) as usize)
            .cast::<Control>()
    });
    server.pool.lab = Lab::new(control, info.sabotage);
    if info.sabotage & abi::sabotage::CLAIM_IGNORED != 0 {
        server.pool.frames.ignore_claims();
    }
    if kernel::allocations_are_watched() {
        server.pool.frames.set_watch(Some(|wanted, bytes| {
            kernel::allocation(wanted, bytes as u64)
        }));
    }
    start_rs(&mut server, &info)?;
    Ok(server)
}

fn copy_policy() -> Result<CopyPolicy, Errno> {
    let mut line = [0; 4096];
    let len = kernel::command_line(&mut line)?;
    Ok(CopyPolicy::of_command_line(&line[..len.min(line.len())]))
}

fn take_memory(info: &BootInfo) -> Result<&'static Frames, Errno> {
    let ends = info.free.iter().map(|range| range.end);
    let limit = ends
        .chain([info.archive.end])
        .max()
        .unwrap_or(0)
        .min(PHYSICAL_MAX);
    let needed = SERVICES_MEMORY + PROGRAMS_MEMORY_MIN;
    if info.free_bytes() < needed {
        panic!(
            "memory is too small: {} KiB are free behind the kernel, {} are needed; give the machine more (--mem)",
            info.free_bytes() / 1024,
            needed / 1024
        );
    }
    // SAFETY: the kernel maps all physical memory there for VM alone, for ever.
    let window = unsafe { Window::new(VM_WINDOW as *mut u8, limit) };
    let free = info.free.map(|range| (range.start, range.end));
    // SAFETY: the kernel lists these ranges as free.
    let frames = unsafe { Frames::new(window, &free) }.ok_or(Errno::ENOMEM)?;
    Ok(FRAMES.0.get_or_init(|| frames))
}

fn run_flags() -> Result<u32, Errno> {
    let Ok((index, _)) = kernel::module_find(boot::names::RUN) else {
        return Ok(0);
    };
    let mut header = RunHeader::default();
    let len = kernel::module_read(index, 0, header.as_mut_bytes())?;
    if len < size_of::<RunHeader>() || header.magic != RUN_MAGIC {
        return Ok(0);
    }
    Ok(header.flags)
}

fn start_rs(server: &mut Server, info: &BootInfo) -> Result<(), Errno> {
    let (_, image) = kernel::module_find(boot::names::RS)?;
    if image.kind != KIND_FLAT || image.len != image.memory_len {
        return Err(Errno::ENOEXEC);
    }
    let rs = kernel::proc_create(boot::names::RS, Role::Rs)?;
    if rs != Endpoint::RS {
        return Err(Errno::EBUSY);
    }
    server.new_space(rs, true)?;
    load(server, rs, info, &image)?;
    let sp = make_stack(server, rs)?;
    let mut effects = Vec::new();
    server.take_effects(&mut effects);
    crate::perform(&mut effects);
    kernel::proc_priv(rs, &rs_privileges())?;
    kernel::proc_start(rs, image.entry, sp, 0)
}

/// Copies RS's flat image out of the archive, which keeps it for a restart.
fn load(
    server: &mut Server,
    rs: Endpoint,
    info: &BootInfo,
    image: &ArchiveEntry,
) -> Result<(), Errno> {
    let len = abi::page_up(image.len).ok_or(Errno::ENOEXEC)?;
    let end = vm::space::check_range(image.address, len)?;
    let (space, pool) = server.space(rs)?;
    let region = Region::anonymous(image.address, end, Prot::all(), Flags::empty());
    space.map(pool, region)?;
    space.populate(pool, image.address, end, false)?;
    let source = Frame::at(info.archive.start + image.offset);
    for n in 0..len / PAGE {
        let entry = table::get(pool.frames, space.top, image.address + n * PAGE);
        pool.window()
            .copy(Frame(source.0 + n as u32), table::frame(entry));
    }
    Ok(())
}

/// RS's stack with its argument block; the stack pointer.
fn make_stack(server: &mut Server, rs: Endpoint) -> Result<u64, Errno> {
    let (end, start) = (USER_END, USER_END - RS_STACK);
    let (space, pool) = server.space(rs)?;
    let prot = Prot::READ | Prot::WRITE;
    space.map(pool, Region::anonymous(start, end, prot, Flags::empty()))?;
    space.populate(pool, start, end, true)?;
    // argc, argv[0], end of argv, end of the environment, auxiliary vector; the name.
    let sp = end - 64;
    let block = [
        1,
        end - 8,
        0,
        0,
        0,
        0,
        0,
        u64::from_le_bytes(*b"rs\0\0\0\0\0\0"),
    ];
    let frame = table::frame(table::get(pool.frames, space.top, end - PAGE));
    for (n, word) in block.iter().enumerate() {
        let offset = (sp % PAGE) as usize + n * 8;
        pool.window().write(frame, offset, &word.to_le_bytes());
    }
    Ok(sp)
}

/// RS may do everything but VM's part, and gives the others what they need.
fn rs_privileges() -> Privileges {
    let ours = Kcall::SetAddressSpace.bit() | Kcall::MemreqGet.bit() | Kcall::MemreqReply.bit();
    Privileges {
        kcalls: !ours,
        peers: [u64::MAX; 4],
        irqs: u32::MAX,
        flags: u32::MAX,
    }
}
