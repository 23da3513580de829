//! The lives of processes: made, started, stopped, ended. Who may ask is decided before (`kcall`).

use crate::ipc;
use crate::lab;
use crate::linux;
use crate::process::{self, Calls, Process};
use crate::sched::{self, block, unblock};
use crate::transfer::Outcome;
use abi::kernel::{Registers, StopState, USER_END, resume, rts};
use abi::role::Role;
use abi::trace;
use abi::{Class, Endpoint, Errno};

/// A new process: stopped, without address space. `EAGAIN` when there is no slot.
pub fn create(name: [u8; 16], role: Role) -> Result<&'static Process, Errno> {
    let process = process::take_slot(name, role)?;
    lab::named(process);
    Ok(process)
}

/// [`abi::kernel::Kcall::ProcFork`]: the child's endpoint.
pub fn fork(parent: &'static Process) -> Outcome<Endpoint> {
    if !parent.linux() {
        return Err(Errno::EPERM.into());
    }
    sched::release_of(parent);
    let child = create(parent.name.get(), Role::Program)?;
    child.regs.set(Registers {
        rax: 0,
        orig_rax: u64::MAX,
        ..parent.regs.get()
    });
    child.priority.set(parent.priority.get());
    child.fpu.get().copy(parent.fpu.get());
    Ok(child.endpoint.get())
}

/// [`abi::kernel::Kcall::ProcExit`]: nobody waits for it any more, and its slot is free.
pub fn exit(process: &'static Process) {
    let who = process.endpoint.get();
    ipc::disconnect(process);
    for other in process::all() {
        // VM's answer about a dead target will come; the requestor only learns of it there.
        let parked = other.parked.get();
        if parked.is_some_and(|parked| parked.target == who && !parked.fetched) {
            other.parked.set(None);
            other.regs.rax.set(Errno::ESRCH.to_word());
            unblock(other, rts::MEMREQ);
        }
    }
    lab::note(|| trace::Exit { who });
    sched::forget(process);
    process.parked.set(None);
    process.deadline.set(0);
    process.serving.set(0);
    process.cr3.set(0);
    let generation = process.generation.get();
    process.generation.set(generation.wrapping_add(1));
    process.endpoint.set(process::NOBODY);
}

/// [`abi::kernel::Kcall::ProcStart`].
pub fn start(process: &'static Process, rip: u64, rsp: u64, rdi: u64) -> Outcome {
    if rip >= USER_END {
        return Err(Errno::EINVAL.into());
    }
    ipc::withdraw(process);
    sched::discard(process);
    process.set_entry(rip, rsp, rdi);
    process.peer.set(Endpoint::NONE);
    process.tell_when_stopped.set(false);
    process.stopped_unread.set(false);
    process.entering.set(false);
    if process.linux() {
        process.calls.set(Calls::Linux);
    }
    unblock(process, !(rts::NO_SPACE | rts::FREE));
    Ok(())
}

/// [`abi::kernel::Kcall::ProcStop`]: what it was found at ([`StopState`]).
pub fn stop(process: &'static Process) -> (StopState, Endpoint) {
    block(process, rts::STOPPED);
    if process.entering.get() {
        return (StopState::Entering, Endpoint(0));
    }
    let busy = || (StopState::Busy, process.peer.get());
    let flags = process.flags.get();
    let event = flags & (rts::FAULTING | rts::SENDING) != 0;
    if event && process.class.get() == Class::Exception {
        return busy();
    }
    if event && process.class.get() == Class::PageFault {
        return (StopState::Faulting, Endpoint(0));
    }
    if flags & rts::SENDING != 0 {
        ipc::withdraw(process);
        process.regs.rax.set(Errno::ERESTARTNOINTR.to_word());
    } else if flags & rts::AWAIT_REPLY != 0 {
        process.tell_when_stopped.set(true);
        return busy();
    }
    (StopState::Boundary, Endpoint(0))
}

/// [`abi::kernel::Kcall::ProcResume`].
#[inline(never)]
pub fn resume(process: &'static Process, how: u64) {
    process.tell_when_stopped.set(how & resume::EXIT != 0);
    process.stopped_unread.set(false);
    if process.linux() {
        process.calls.set(match how & resume::ENTRY {
            0 => Calls::Linux,
            _ => Calls::Traced,
        });
    }
    if process.entering.take() {
        linux::enter_call(process);
    }
    // What is to stop at the end of a call is stopped already: until then it waits anyway.
    if how & resume::EXIT == 0 {
        unblock(process, rts::STOPPED);
    }
}
