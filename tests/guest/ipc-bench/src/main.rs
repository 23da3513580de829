//! What the kernel costs: boots in VM's place, makes servers and a Linux process in its own
//! address space, and measures traps, messages and copies between them.
//!
//! It prints one line a figure, `bench NAME OPERATIONS TICKS USER VISITS`, on the log and ends
//! the machine. OPERATIONS make a batch, TICKS are those of the fastest batch, USER those of
//! the same instructions at user level without their traps: TICKS less USER is the kernel's
//! part, the trap instructions included. VISITS are those of a batch. Under QEMU's
//! `-icount shift=0` a tick of the TSC is one guest instruction.
//!
//! The test matrix lives here as well: its rows G and K in VM's place ([`rows`]), its rows M in
//! RS's ([`memory`]).
#![cfg_attr(guest_image, no_std, no_main)]

mod loops;
mod memory;
mod rows;

use abi::grant::{Cpf, GRANT_INVALID, GrantEntry};
use abi::kernel::{
    Ipc, Kcall, PRIV_COPY_ANY, PRIV_LINUX, PRIV_MAGIC, PRIV_PHYSICAL, Privileges, SafeCopy,
    answered,
};
use abi::role::Role;
use abi::{Class, Endpoint, Errno};
use core::fmt::Write;
use core::sync::atomic::{AtomicU64, Ordering};
use loops::{Registers, Target};
use rt::{ipc, kernel, log};

/// Operations of one batch.
const OPERATIONS: u64 = 64;
/// Batches; the fastest counts, because hosts are busy and interrupts come.
const BATCHES: u64 = 30;
const STACK: usize = 64 * 1024;

#[repr(C, align(4096))]
struct Stacks([u8; 3 * STACK]);
static mut STACKS: Stacks = Stacks([0; 3 * STACK]);
#[repr(C, align(4096))]
struct Buffer([u8; 8192]);
/// The heap of an image that is VM itself.
#[repr(C, align(4096))]
struct Heap([u8; 128 << 10]);
static mut HEAP: Heap = Heap([0; 128 << 10]);
/// Bytes of it that are taken.
static TAKEN: AtomicU64 = AtomicU64::new(0);
static mut SOURCE: Buffer = Buffer([1; 8192]);
static mut TARGET: Buffer = Buffer([0; 8192]);
static mut GRANTS: [GrantEntry; 1] = [GrantEntry::FREE; 1];
/// The Linux process's top-level page table.
#[repr(C, align(4096))]
struct Table([u64; 512]);
static mut LINUX_TABLE: Table = Table([0; 512]);
/// The Linux process's fastest batch.
static LINUX_TICKS: AtomicU64 = AtomicU64::new(0);

rt::boot_entry!(main, "bench");

fn ticks() -> u64 {
    // SAFETY: RDTSC works at CPL3 on every host we run on.
    unsafe { core::arch::x86_64::_rdtsc() }
}

fn check<T, E: core::fmt::Debug>(what: &str, result: Result<T, E>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{what}: {error:?}"),
    }
}

/// Ticks of the fastest batch.
fn fastest(mut batch: impl FnMut()) -> u64 {
    let timed = |_| {
        let start = ticks();
        batch();
        ticks() - start
    };
    (0..BATCHES).map(timed).min().unwrap_or(0)
}

/// Ticks of a batch of a server's user-mode instructions.
fn serving() -> u64 {
    fastest(|| loops::serve(Target::Nothing, OPERATIONS))
}

fn visits() -> u64 {
    check("counters", kernel::counters()).visits
}

/// Measures batches of one trap. `elsewhere`: user-mode ticks of whoever answers a batch.
fn measure(name: &str, registers: &Registers, elsewhere: u64) {
    let user = fastest(|| loops::repeat(registers, Target::Nothing, OPERATIONS));
    let before = visits();
    loops::repeat(registers, Target::Kernel, OPERATIONS);
    // Asking is a visit, too.
    let visits = visits() - before - 1;
    let ticks = fastest(|| loops::repeat(registers, Target::Kernel, OPERATIONS));
    report(name, ticks, user + elsewhere, visits);
}

fn report(name: &str, ticks: u64, user: u64, visits: u64) {
    let mut line = log::Line::new();
    let _ = write!(line, "bench {name} {OPERATIONS} {ticks} {user} {visits}");
    kernel::log(line.text());
}

/// A second top-level table over this address space's lower half: the kernel's half of a program
/// differs from a service's.
fn second_table(first: u64) -> u64 {
    let table = &raw mut LINUX_TABLE;
    let lower = (abi::kernel::VM_WINDOW + (first & !0xfff)) as *const u64;
    // SAFETY: the table in use, seen through the window; the second is not in use yet.
    unsafe { lower.copy_to_nonoverlapping(table.cast(), 256) };
    // SAFETY: the entry of a page of this image.
    unsafe { rows::entry(table as u64).read_volatile() & abi::page_table::ADDRESS }
}

/// Another process in this address space.
fn spawn(name: &str, role: Role, stack: usize, entry: extern "C" fn() -> !) -> Endpoint {
    let who = check("create", kernel::proc_create(name, role));
    let own = check("info", kernel::proc_info(Endpoint::VM.slot()));
    let privileges = Privileges {
        kcalls: !0,
        peers: [!0; 4],
        irqs: 0,
        flags: PRIV_LINUX | PRIV_COPY_ANY,
    };
    let given = kernel::proc_priv(who, &privileges);
    match role {
        Role::Program => assert_eq!(given, Err(Errno::EPERM), "a program has no privileges"),
        _ => check("privileges", given),
    }
    let table = match role {
        Role::Program => second_table(own.cr3),
        _ => own.cr3,
    };
    check("address space", kernel::set_address_space(who, table));
    let top = &raw const STACKS as u64 + (stack * STACK) as u64;
    let rip = entry as *const () as u64;
    check("start", kernel::proc_start(who, rip, top - 8, 0));
    who
}

/// A server that echoes calls.
extern "C" fn echo() -> ! {
    loop {
        loops::serve(Target::Kernel, u64::MAX);
    }
}

/// A server in PM's slot that answers the batches of the Linux process, and tells the bench
/// that they are over when one more call comes.
extern "C" fn answer() -> ! {
    loops::serve(Target::Kernel, BATCHES * OPERATIONS + 1);
    check("notify", ipc::notify(Endpoint::VM));
    loop {
        check("receive", ipc::receive());
    }
}

/// The Linux process.
extern "C" fn linux() -> ! {
    let ticks = fastest(|| loops::linux(OPERATIONS));
    LINUX_TICKS.store(ticks, Ordering::Relaxed);
    // Nobody answers this one.
    loop {
        loops::linux(1);
    }
}

/// Memory for the heap ([`rt::heap::GrowFn`]).
fn grow_heap(bytes: usize, _least: bool) -> Option<usize> {
    let taken = TAKEN.fetch_add(bytes as u64, Ordering::Relaxed) as usize;
    let fits = taken + bytes <= size_of::<Heap>();
    fits.then(|| &raw const HEAP as usize + taken)
}

fn main() -> ! {
    if memory::wanted() {
        memory::direct();
    }
    // The processes of this image share its memory: what the heap sets aside it has before there
    // are others, who could only ask VM, which is this one.
    rt::heap::set_source(grow_heap, |_, _| ());
    assert!(rt::heap::ready(), "the reserve fits");
    let everything = Privileges {
        kcalls: !0,
        peers: [!0; 4],
        irqs: 0,
        flags: PRIV_COPY_ANY | PRIV_PHYSICAL | PRIV_LINUX | PRIV_MAGIC,
    };
    check(
        "own privileges",
        kernel::proc_priv(Endpoint::VM, &everything),
    );
    if rows::wanted() {
        let helper = spawn("helper", Role::Rs, 1, rows::helper);
        rows::page_for_ever(helper, spawn("second", Role::Pm, 2, rows::second));
    }
    let peer = spawn("echo", Role::Rs, 1, echo);
    let server = spawn("pm", Role::Pm, 2, answer);
    assert!(
        peer == Endpoint::RS && server == Endpoint::PM,
        "the first slots are the core servers'"
    );

    let null = Registers {
        rax: Kcall::Null as u64,
        ..Registers::default()
    };
    measure("null", &null, 0);

    let request = abi::Message {
        kind: 1,
        words: [1, 2, 3, 4, 5, 6, 7],
    };
    let reply = check("call", ipc::call_raw(peer, request));
    assert!(reply.words == request.words, "a message arrives unchanged");
    let call = Registers {
        rax: Ipc::Call as u64,
        rdi: peer.0.into(),
        rdx: request.kind,
        r8: 1,
        ..Registers::default()
    };
    measure("call", &call, serving());

    // A grant of the whole target to ourselves, copied through.
    let entry = GrantEntry {
        flags: (Cpf::USED | Cpf::VALID | Cpf::DIRECT | Cpf::READ | Cpf::WRITE | Cpf::TRY).bits(),
        grantee: Endpoint::VM.0,
        start: &raw const TARGET as u64,
        len: 8192,
        faulted: GRANT_INVALID,
        ..GrantEntry::FREE
    };
    // SAFETY: one thread at a time runs in this space; the kernel only reads the entry.
    unsafe { (&raw mut GRANTS).write([entry]) };
    let args = [&raw const GRANTS as u64, 1];
    // SAFETY: the table is a static.
    let set = unsafe { kernel::trap(Kcall::SetGrants, 2, &args) };
    check("grants", answered::<()>(set));
    for (name, len) in [("safecopy-64", 64), ("safecopy-4096", 4096)] {
        let copy = SafeCopy {
            granter: Endpoint::VM.0,
            grant: 0,
            offset: 0,
            address: &raw const SOURCE as u64,
            len,
            to_grant: 1,
        };
        let at = &raw const copy as u64;
        // SAFETY: what is copied to is a static that nobody has borrowed.
        let copied = unsafe { kernel::trap(Kcall::SafeCopy, 1, &[at]) };
        check("safecopy", answered::<()>(copied));
        let registers = Registers {
            rax: Kcall::SafeCopy as u64,
            rdi: at,
            ..Registers::default()
        };
        measure(name, &registers, 0);
    }
    // SAFETY: nobody writes the target now.
    let last = unsafe { (&raw const TARGET.0[4095]).read_volatile() };
    assert!(last == 1, "a copy moves its bytes");

    let user = serving() + fastest(|| loops::linux_user(OPERATIONS));
    let before = visits();
    spawn("linux", Role::Program, 3, linux);
    let ended = check("receive", ipc::receive());
    assert!(
        ended.class == Class::Notify && ended.source == server,
        "the Linux process ran to its end"
    );
    // All batches, and a few visits around them that rounding takes away.
    let visits = (visits() - before) / BATCHES;
    report(
        "linux-null",
        LINUX_TICKS.load(Ordering::Relaxed),
        user,
        visits,
    );
    kernel::power_off(0)
}
