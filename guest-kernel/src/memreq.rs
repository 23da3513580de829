//! Memory requests: what parked copies wait for. VM takes them one by one and answers each.

use crate::counters::{COUNTERS, add};
use crate::process::{self, Process};
use crate::sched::unblock;
use crate::transfer::Outcome;
use crate::{copy, grant, lab};
use abi::kernel::{At, MemoryRequest, rts};
use abi::message::Word;
use abi::trace;
use abi::{Endpoint, Errno, sabotage};

/// [`abi::kernel::Kcall::MemreqGet`].
pub fn next_memory_request(caller: &'static Process, to: At<MemoryRequest>) -> Outcome {
    let waiting = process::all().filter(|process| process.flags.get() & rts::MEMREQ != 0);
    for process in waiting {
        let Some(mut parked) = process.parked.get().filter(|parked| !parked.fetched) else {
            continue;
        };
        let request = MemoryRequest {
            requestor: process.endpoint.get().0,
            target: parked.target.0,
            address: parked.address,
            len: parked.len,
            write: parked.write as u64,
            soft: parked.soft as u64,
        };
        copy::write_struct(caller.cr3.get(), to.address, &request)?;
        parked.fetched = true;
        process.parked.set(Some(parked));
        return Ok(());
    }
    Err(Errno::ENOENT.into())
}

/// [`abi::kernel::Kcall::MemreqReply`]: on success the requestor makes its call again, from
/// the trap instruction that its rip still points at.
pub fn memory_request_done(requestor: Endpoint, result: Result<(), Errno>) -> Outcome {
    let process = process::find(requestor)?;
    let parked = match process.parked.take() {
        Some(parked) if process.flags.get() & rts::MEMREQ != 0 => parked,
        _ => return Err(Errno::EINVAL.into()),
    };
    if result.is_ok() && lab::sabotaged(sabotage::CALL_NOT_REPEATED) {
        process.regs.rax.set(0);
    } else if result.is_ok() {
        process.regs.rip.set(abi::kernel::TRAMPOLINE_TRAP);
    } else if parked.soft {
        // Whatever VM says: a copy that may fail fails like any other, with its mark. Without
        // the mark it starts anew, and the grant table is made resident on the way.
        add(&COUNTERS.soft_faults, 1);
        if parked
            .mark
            .is_some_and(|mark| grant::set_mark(&mark).is_err())
        {
            process.regs.rip.set(abi::kernel::TRAMPOLINE_TRAP);
        } else {
            process.regs.rax.set(Errno::EFAULT.to_word());
        }
    } else {
        // Memory that is there and does not come is no mistake of the caller's.
        let unreadable = result == Err(Errno::EIO);
        let failure = parked.failure.filter(|_| !unreadable);
        process
            .regs
            .rax
            .set(failure.map_or(result.to_word(), Errno::to_word));
    }
    let word = process.regs.rax.get();
    lab::note(|| trace::Resumed {
        by: Endpoint::VM,
        copier: requestor,
        status: if result.is_ok() { 0 } else { word },
    });
    unblock(process, rts::MEMREQ);
    Ok(())
}
