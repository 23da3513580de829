//! IPC traps: messages in registers (abi, `Ipc`).

use abi::kernel::{self, Ipc, SafeCopy, TRAMPOLINE_TRAP};
use abi::message::request::{Called, Post};
use abi::message::{reply_message, reply_result};
use abi::{Class, Endpoint, Errno, Fields, Message, Request, errno};
use core::arch::asm;

/// A message as it arrived.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// Who sent it; the kernel vouches for it.
    pub source: Endpoint,
    /// What it is.
    pub class: Class,
    /// Its contents.
    pub message: Message,
}

/// One IPC trap: status, then what was received.
#[inline(always)]
fn trap(op: Ipc, peer: Endpoint, filter: Endpoint, message: &mut Message) -> (u64, u64, u64) {
    trap_word(op, peer, filter.0 as u64, message)
}

/// [`trap`] with a word of the operation's own as rsi.
#[inline(always)]
fn trap_word(op: Ipc, peer: Endpoint, rsi: u64, message: &mut Message) -> (u64, u64, u64) {
    let (status, source, class): (u64, u64, u64);
    // SAFETY: the trap changes only the registers named here (abi, `Ipc`), and touches no
    // memory of ours but what `copy_post_receive` vouches for. rcx and r11 are clobbered by the trap instruction.
    unsafe {
        asm!(
            "mov rcx, {entry}",
            "call rcx",
            entry = const TRAMPOLINE_TRAP as i64,
            inlateout("rax") op as u64 => status,
            inlateout("rdi") peer.0 as u64 => source,
            inlateout("rsi") rsi => class,
            inlateout("rdx") message.kind,
            inlateout("r8") message.words[0],
            inlateout("r9") message.words[1],
            inlateout("r10") message.words[2],
            inlateout("r12") message.words[3],
            inlateout("r13") message.words[4],
            inlateout("r14") message.words[5],
            inlateout("r15") message.words[6],
            out("rcx") _,
            out("r11") _,
        );
    }
    (status, source, class)
}

/// What arrived. Before anybody looks at it the heap's reserve is full, or is known not to be.
fn received(status: u64, source: u64, class: u64, message: Message) -> Result<Received, Errno> {
    crate::heap::refill();
    errno::result_from_word(status)?;
    let class = Class::from_word(class).ok_or(Errno::EIO)?;
    Ok(Received {
        source: Endpoint(source as u32),
        class,
        message,
    })
}

/// Sends `message` to `to` and waits for the reply message. Fails only when it could not be
/// delivered or the peer died.
#[inline]
pub fn call_raw(to: Endpoint, mut message: Message) -> Result<Message, Errno> {
    let (status, _, _) = trap(Ipc::Call, to, Endpoint::NONE, &mut message);
    errno::result_from_word(status)?;
    Ok(message)
}

/// Calls `to`: the typed form of [`call_raw`].
#[inline]
pub fn call<R: Request<How: Called>>(to: Endpoint, request: R) -> Result<R::Reply, Errno> {
    reply_result(&call_raw(to, request.encode())?)
}

/// Sends one way; blocks until received.
pub fn send<R: Request<How = Post>>(to: Endpoint, request: R) -> Result<(), Errno> {
    let mut message = request.encode();
    let (status, _, _) = trap(Ipc::Send, to, Endpoint::NONE, &mut message);
    errno::result_from_word(status).map(|_| ())
}

/// Waits for any message.
#[inline]
pub fn receive() -> Result<Received, Errno> {
    receive_from(Endpoint::ANY)
}

/// Waits for a message from `from`.
#[inline]
pub fn receive_from(from: Endpoint) -> Result<Received, Errno> {
    let mut message = Message::default();
    let (status, source, class) = trap(Ipc::Receive, Endpoint::NONE, from, &mut message);
    received(status, source, class, message)
}

/// Answers a process that waits for this server.
#[inline]
pub fn reply_raw(to: Endpoint, mut message: Message) -> Result<(), Errno> {
    let (status, _, _) = trap(Ipc::Reply, to, Endpoint::NONE, &mut message);
    errno::result_from_word(status).map(|_| ())
}

/// Answers a call.
#[inline]
pub fn reply<T: Fields>(to: Endpoint, result: Result<T, Errno>) -> Result<(), Errno> {
    reply_raw(to, reply_message(result))
}

/// Answers a Linux call, page fault or exception: only a status word.
#[inline]
pub fn reply_status(to: Endpoint, result: Result<u64, Errno>) -> Result<(), Errno> {
    reply_raw(to, Message::new(errno::result_to_word(result)))
}

/// [`reply_raw`] and [`receive`] in one kernel visit.
#[inline]
pub fn reply_receive(to: Endpoint, mut message: Message) -> Result<Received, Errno> {
    let (status, source, class) = trap(Ipc::ReplyReceive, to, Endpoint::ANY, &mut message);
    received(status, source, class, message)
}

/// Sets this process's notification at `to`.
pub fn notify(to: Endpoint) -> Result<(), Errno> {
    let mut message = Message::default();
    let (status, _, _) = trap(Ipc::Notify, to, Endpoint::NONE, &mut message);
    errno::result_from_word(status).map(|_| ())
}

/// Posts without blocking; `EAGAIN` when the outbox is full (see [`crate::outbox`]).
#[inline]
pub fn post_raw(to: Endpoint, mut message: Message) -> Result<(), Errno> {
    let (status, _, _) = trap(Ipc::Post, to, Endpoint::NONE, &mut message);
    errno::result_from_word(status).map(|_| ())
}

/// [`post_raw`] and [`receive`] in one kernel visit; `EAGAIN` without receiving when the
/// outbox is full.
#[inline]
pub fn post_receive(to: Endpoint, mut message: Message) -> Result<Received, Errno> {
    let (status, source, class) = trap(Ipc::PostReceive, to, Endpoint::ANY, &mut message);
    received(status, source, class, message)
}

/// The copies `along`, then [`post_receive`], in one kernel visit. `EAGAIN` when all was copied and the outbox is full;
/// any other error is the copies', and nothing was posted.
///
/// # Safety
/// As for [`crate::copy::safecopy_vector`].
pub unsafe fn copy_post_receive(
    along: &[SafeCopy],
    to: Endpoint,
    mut message: Message,
) -> Result<Received, Errno> {
    let word = kernel::along(along.as_ptr() as u64, along.len());
    let (status, source, class) = trap_word(Ipc::CopyPostReceive, to, word, &mut message);
    received(status, source, class, message)
}
