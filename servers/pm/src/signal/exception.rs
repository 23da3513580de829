//! Processor exceptions and unrepairable page faults become signals.

use super::info::{self, Info};
use super::set::{SIGFPE, SIGILL, SIGKILL, is_signal};
use crate::server::Pm;
use crate::system::System;
use crate::table::Halt;
use abi::kernel::{Exception, PageFault, StopState, USER_END, vector};
use abi::proto::pm::FaultSignal;
use abi::{Endpoint, Errno, Message};

/// What a program learns of a page fault: of the kernel's half, like on Linux, not what is there.
fn error_code(fault: &FaultSignal) -> u64 {
    let told = fault.error & (PageFault::WRITE | PageFault::USER | PageFault::FETCH);
    if fault.addr >= USER_END {
        told | PageFault::PRESENT
    } else {
        told | fault.error & PageFault::PRESENT
    }
}

impl<S: System> Pm<S> {
    /// A thread's instruction raised an exception; it waits for the answer.
    pub fn exception(&mut self, who: Endpoint, exception: Exception) {
        let Some(slot) = self.table.slot_of(who) else {
            self.sys.reply(who, Message::error(Errno::EFAULT));
            return;
        };
        // No other signal's handler has been put before the instruction meanwhile: until now the
        // thread was busy ([`StopState::Busy`]). Anything but 0 leaves it stopped; resuming it is up to the delivery.
        self.sys.reply(who, Message::error(Errno::EFAULT));
        let (signal, mut code) = info::of_exception(exception.vector);
        if matches!(exception.vector, 16 | 19)
            && let Ok(area) = self.sys.fpu(who)
        {
            code = info::float_code(exception.vector, &area);
        }
        let address = if signal == SIGFPE || signal == SIGILL || exception.vector == vector::DEBUG {
            exception.rip
        } else {
            0
        };
        if let Some(thread) = self.table.thread_mut(slot) {
            thread.trap = (exception.vector, exception.code, 0);
            thread.halt = Halt::Stopped;
        }
        self.force(slot, Info::fault(signal, code, address));
        self.act(slot);
    }

    /// VM cannot repair a page fault; the thread stands at the instruction.
    pub fn fault(&mut self, fault: FaultSignal) {
        let Some(slot) = self.table.slot_of(fault.who) else {
            return;
        };
        if !is_signal(fault.signal) {
            return;
        }
        if fault.signal == SIGKILL {
            if let Some(thread) = self.table.thread(slot) {
                let pid = thread.pid;
                self.terminate(pid, SIGKILL);
            }
            return;
        }
        // A handler may have taken the thread away from the instruction meanwhile.
        if matches!(self.sys.stop(fault.who), Err(_) | Ok((StopState::Busy, _))) {
            return;
        }
        if let Some(thread) = self.table.thread_mut(slot) {
            thread.trap = (vector::PAGE_FAULT, error_code(&fault), fault.addr);
            thread.halt = Halt::Stopped;
        }
        self.force(slot, Info::fault(fault.signal, fault.code, fault.addr));
        self.act(slot);
    }
}
