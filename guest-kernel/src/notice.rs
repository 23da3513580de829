//! Delivery to who receives, and the kernel's own notifications.

use crate::counters::{COUNTERS, add};
use crate::process::{self, Process};
use crate::sched::unblock;
use abi::kernel::{KernelNotify, rts};
use abi::{Class, Endpoint, Message};

/// In [`Process::notices`], beside the kernel's own: [`Process::notified`] is not empty.
pub const NOTIFIED: u64 = 1 << 31;

/// Hands a message to a process that receives.
#[inline(always)]
pub fn deliver(to: &'static Process, source: Endpoint, class: Class, message: &Message) {
    to.regs.rax.set(0);
    to.regs.rdi.set(source.0 as u64);
    to.regs.rsi.set(class as u64);
    to.set_message(message);
    add(&COUNTERS.messages, 1);
    unblock(to, rts::RECEIVING);
}

/// A notification from the kernel to a server, if it lives.
pub fn notice(to: Endpoint, bits: KernelNotify) {
    if let Ok(to) = process::find(to) {
        notice_process(to, bits);
    }
}

/// A notification from the kernel.
pub fn notice_process(to: &'static Process, bits: KernelNotify) {
    to.notices.set(to.notices.get() | bits.bits());
    if to.flags.get() & rts::RECEIVING != 0 && to.filter.get() == Endpoint::ANY {
        let message = take_notices(to).message();
        deliver(to, Endpoint::KERNEL, Class::Kernel, &message);
    }
}

/// The kernel's notifications for `to`, which it has had then.
pub fn take_notices(to: &Process) -> KernelNotify {
    let notices = to.notices.get();
    to.notices.set(notices & NOTIFIED);
    KernelNotify::from_bits_retain(notices & !NOTIFIED)
}

/// Tells PM that `process` has stopped at a call.
pub fn stopped(process: &Process) {
    process.stopped_unread.set(true);
    notice(Endpoint::PM, KernelNotify::STOPPED);
}
