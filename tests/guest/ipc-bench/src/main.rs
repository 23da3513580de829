//! What the kernel costs: boots in VM's place, makes a server and a Linux process in its own
//! address space, and measures traps, messages and copies between them.
//!
//! It prints one line a figure, `bench NAME OPERATIONS TICKS VISITS`, on the log and ends the machine. Under QEMU's
//! `-icount shift=0` a tick of the TSC is one guest instruction.
#![cfg_attr(guest_image, no_std, no_main)]

use abi::grant::{Cpf, GRANT_INVALID, GrantEntry};
use abi::kernel::{
    Kcall, PRIV_COPY_ANY, PRIV_LINUX, PRIV_MAGIC, PRIV_PHYSICAL, Privileges, SafeCopy,
};
use abi::{Class, Endpoint, Message};
use core::arch::global_asm;
use core::fmt::Write;
use rt::{ipc, kernel, log};

/// Operations of one measurement.
const OPERATIONS: u64 = 2000;
/// The peer ends the measurement of Linux calls when it sees this number.
const LAST_CALL: u64 = 39;
const STACK: usize = 64 * 1024;

#[repr(C, align(4096))]
struct Stacks([u8; 3 * STACK]);
static mut STACKS: Stacks = Stacks([0; 3 * STACK]);
#[repr(C, align(4096))]
struct Buffer([u8; 8192]);
static mut SOURCE: Buffer = Buffer([1; 8192]);
static mut TARGET: Buffer = Buffer([0; 8192]);
static mut GRANTS: [GrantEntry; 1] = [GrantEntry::FREE; 1];

rt::boot_entry!(main, "bench");

global_asm!(
    // The Linux process: rdi calls of number 39, then it stops for good with number 0.
    ".globl linux_loop",
    "linux_loop:",
    "mov rbx, rdi",
    "2:",
    "mov eax, {call}",
    "syscall",
    "dec rbx",
    "jnz 2b",
    "xor eax, eax",
    "syscall",
    "ud2",
    call = const LAST_CALL,
);

unsafe extern "C" {
    static linux_loop: u8;
}

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

/// Runs `operation` and reports its ticks and kernel visits.
fn measure(name: &str, mut operation: impl FnMut()) {
    operation();
    let visits = check("counters", kernel::counters()).visits;
    let start = ticks();
    for _ in 0..OPERATIONS {
        operation();
    }
    report(
        name,
        ticks() - start,
        check("counters", kernel::counters()).visits - visits - 1,
    );
}

fn report(name: &str, ticks: u64, visits: u64) {
    let mut line = log::Line::new();
    let _ = write!(line, "bench {name} {OPERATIONS} {ticks} {visits}");
    kernel::log(line.text());
}

/// Another process in this address space.
fn spawn(name: &str, linux: bool, stack: usize, rip: u64, argument: u64) -> Endpoint {
    let who = check("create", kernel::proc_create(name, linux));
    let own = check("info", kernel::proc_info(Endpoint::VM.slot()));
    let privileges = Privileges {
        kcalls: !0,
        peers: [!0; 4],
        irqs: 0,
        flags: PRIV_LINUX,
    };
    check(
        "privileges",
        kernel::proc_priv(
            who,
            &if linux {
                Privileges::default()
            } else {
                privileges
            },
        ),
    );
    check("address space", kernel::set_address_space(who, own.cr3));
    let top = &raw const STACKS as u64 + (stack * STACK) as u64;
    check("start", kernel::proc_start(who, rip, top - 8, argument));
    who
}

/// A server that echoes calls.
extern "C" fn echo() -> ! {
    let mut received = check("receive", ipc::receive());
    loop {
        let reply = Message {
            kind: 0,
            words: received.message.words,
        };
        received = check("reply_receive", ipc::reply_receive(received.source, reply));
    }
}

/// A server in PM's slot that answers Linux calls, and tells the bench when they are over.
extern "C" fn answer() -> ! {
    let mut received = check("receive", ipc::receive());
    loop {
        if received.class == Class::Linux && received.message.kind == LAST_CALL {
            received = check(
                "reply_receive",
                ipc::reply_receive(received.source, Message::new(7)),
            );
            continue;
        }
        check("notify", ipc::notify(Endpoint::VM));
        received = check("receive", ipc::receive());
    }
}

fn main() -> ! {
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
    let peer = spawn("echo", false, 1, echo as *const () as u64, 0);
    let server = spawn("pm", false, 2, answer as *const () as u64, 0);
    assert!(
        peer == Endpoint::RS && server == Endpoint::PM,
        "the first slots are the core servers'"
    );

    measure("null", kernel::null);
    let request = Message {
        kind: 1,
        words: [1, 2, 3, 4, 5, 6, 7],
    };
    let reply = check("call", ipc::call_raw(peer, request));
    assert!(reply.words == request.words, "a message arrives unchanged");
    measure("call", || {
        let _ = ipc::call_raw(peer, request);
    });

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
    let args = [&raw const GRANTS as u64, 1, 0, 0, 0];
    check("grants", kernel::kcall(Kcall::SetGrants, args));
    for (name, len) in [("safecopy-64", 64), ("safecopy-4096", 4096)] {
        let copy = SafeCopy {
            granter: Endpoint::VM.0,
            grant: 0,
            offset: 0,
            address: &raw const SOURCE as u64,
            len,
            to_grant: 1,
        };
        measure(name, || {
            check(
                "safecopy",
                kernel::kcall(Kcall::SafeCopy, [&raw const copy as u64, 0, 0, 0, 0]),
            );
        });
    }
    // SAFETY: nobody writes the target now.
    let last = unsafe { (&raw const TARGET.0[4095]).read_volatile() };
    assert!(last == 1, "a copy moves its bytes");

    let start = ticks();
    let visits = check("counters", kernel::counters()).visits;
    let program = &raw const linux_loop as u64;
    spawn("linux", true, 3, program, OPERATIONS);
    let ended = check("receive", ipc::receive());
    assert!(
        ended.class == Class::Notify && ended.source == server,
        "the Linux process ran to its end"
    );
    report(
        "linux-null",
        ticks() - start,
        check("counters", kernel::counters()).visits - visits,
    );
    kernel::power_off(0)
}
