//! Posting that cannot fail for lack of room: what the kernel's outbox does not take waits
//! here, in order, until [`flush`].

use crate::cell::Single;
use crate::ipc;
use abi::{Endpoint, Errno, Message, Request};
use alloc::collections::VecDeque;

static WAITING: Single<VecDeque<(Endpoint, Message)>> = Single::new(VecDeque::new());

/// Posts `request` to `to`, now or later. A dead peer's messages are dropped.
pub fn post<R: Request>(to: Endpoint, request: R) {
    post_message(to, request.encode());
}

/// The untyped form of [`post`].
pub fn post_message(to: Endpoint, message: Message) {
    let mut waiting = WAITING.borrow();
    if !waiting.is_empty() || ipc::post_raw(to, message) == Err(Errno::EAGAIN) {
        waiting.push_back((to, message));
    }
}

/// Posts what waits, as far as it goes. Call it on [`abi::kernel::KernelNotify::OUTBOX`].
pub fn flush() {
    let mut waiting = WAITING.borrow();
    while let Some(&(to, message)) = waiting.front() {
        if ipc::post_raw(to, message) == Err(Errno::EAGAIN) {
            return;
        }
        waiting.pop_front();
    }
}

/// Whether nothing waits: a post that goes straight to the kernel overtakes nothing.
pub fn is_empty() -> bool {
    WAITING.borrow().is_empty()
}
