//! Linux calls: which server gets which, and what happens before one is sent.

use crate::faults::exception;
use crate::global::Global;
use crate::ipc;
use crate::notice::stopped;
use crate::process::{Calls, Process};
use crate::sched;
use abi::kernel::vector::UNDEFINED;
use abi::kernel::{Brings, LinuxRoute, rts};
use abi::{Class, Endpoint, Errno};

static ROUTES: Global<[u8; 512]> = Global::new([LinuxRoute::Pm as u8; 512]);

/// Replaces the Linux routing table.
pub fn set_routes(routes: &[u8; 512]) {
    ROUTES.set(*routes);
}

/// A program's `syscall`.
#[inline(always)]
pub fn linux_call(caller: &'static Process) {
    let number = caller.regs.rax.get();
    caller.regs.orig_rax.set(number);
    if caller.calls.get() != Calls::Linux {
        return other_call(caller);
    }
    send_call(caller, number);
}

/// A `syscall` that no server gets, or not yet.
#[inline(never)]
fn other_call(caller: &'static Process) {
    if !caller.linux() {
        return exception(caller, UNDEFINED, 0);
    }
    caller.entering.set(true);
    caller.regs.rax.set(Errno::ENOSYS.to_word());
    sched::block(caller, rts::STOPPED);
    stopped(caller);
}

/// `process` goes on with the call before which it stands. When that is one that cannot be made
/// it has ended.
#[inline(never)]
pub fn enter_call(process: &'static Process) {
    let number = process.regs.orig_rax.get();
    if number != u64::MAX {
        send_call(process, number);
    } else if process.tell_when_stopped.take() {
        stopped(process);
    }
}

/// Sends the Linux call in `caller`'s registers to its server.
#[inline(always)]
fn send_call(caller: &'static Process, number: u64) {
    let route = match number {
        0..512 => ROUTES.at(number as usize),
        _ => LinuxRoute::Pm as u8,
    };
    let server = match LinuxRoute::of(route) {
        LinuxRoute::Vfs => Endpoint::VFS,
        LinuxRoute::Vm => Endpoint::VM,
        LinuxRoute::Pm | LinuxRoute::None => Endpoint::PM,
    };
    let sent = match Brings::of_route(route) {
        0 => ipc::send_event(caller, server, Class::Linux),
        brings => ipc::send_bringing(caller, server, brings),
    };
    if sent.is_err() {
        caller.regs.rax.set(Errno::ENOSYS.to_word());
    }
}
