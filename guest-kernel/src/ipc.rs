//! Messages: delivery, queues, outboxes, replies.
//!
//! A receiver's queue links *nodes*. Node `i < MAX_PROCESSES` is the blocked sender in slot
//! `i`, whose message is still in its registers; the others hold posted messages.

use crate::global::Global;
use crate::lab;
use crate::process::{self, MAX_PROCESSES, NIL, Process};
use crate::sched::{self, block, unblock};
use crate::transfer::{self, Stop};
use abi::kernel::{Ipc, KernelNotify, OUTBOX_CAPACITY, along_parts, rts};
use abi::trace::Decision;
use abi::{Class, Endpoint, Errno, Message};

/// Posted messages in flight, all processes together.
pub const POSTS: usize = 1024;
/// In [`Process::notices`], beside the kernel's own: `notified` is not empty.
const NOTIFIED: u64 = 1 << 31;
const NODES: usize = MAX_PROCESSES + POSTS;

/// A posted message. The VMM reads it (`inspect`).
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Post {
    source: Endpoint,
    pub(crate) message: Message,
}

static mut NEXT: [u16; NODES] = [NIL; NODES];
static mut POOL: [Post; POSTS] = [Post {
    source: Endpoint::NONE,
    message: Message {
        kind: 0,
        words: [0; 7],
    },
}; POSTS];
static FREE: Global<u16> = Global::new(NIL);

#[inline(always)]
fn next(node: u16) -> &'static mut u16 {
    // SAFETY: single thread of control; nodes come from this module and are in range.
    unsafe { &mut *(&raw mut NEXT).cast::<u16>().add(node as usize) }
}

#[inline(always)]
fn post_of(node: u16) -> &'static mut Post {
    // SAFETY: as in `next`; the node is a posted one.
    unsafe {
        &mut *(&raw mut POOL)
            .cast::<Post>()
            .add(node as usize - MAX_PROCESSES)
    }
}

/// The links of the nodes and the posted messages, for `inspect`.
pub fn tables() -> (*const u16, *const Post) {
    ((&raw const NEXT).cast(), (&raw const POOL).cast())
}

/// Links the free posts. Boot.
pub fn init() {
    for node in MAX_PROCESSES..NODES {
        *next(node as u16) = if node + 1 < NODES {
            node as u16 + 1
        } else {
            NIL
        };
    }
    FREE.set(MAX_PROCESSES as u16);
}

#[inline(always)]
fn enqueue(to: &mut Process, node: u16) {
    *next(node) = NIL;
    if to.queue.0 == NIL {
        to.queue.0 = node;
    } else {
        *next(to.queue.1) = node;
    }
    to.queue.1 = node;
}

/// Takes `node` out of `to`'s queue, wherever it stands.
fn dequeue(to: &mut Process, node: u16) {
    let (mut previous, mut at) = (NIL, to.queue.0);
    while at != NIL && at != node {
        (previous, at) = (at, *next(at));
    }
    if at == NIL {
        return;
    }
    let after = *next(node);
    if previous == NIL {
        to.queue.0 = after;
    } else {
        *next(previous) = after;
    }
    if after == NIL {
        to.queue.1 = previous;
    }
}

/// Hands a message to a process that receives.
#[inline(always)]
fn deliver(to: &mut Process, source: Endpoint, class: Class, message: &Message) {
    to.regs.rax = 0;
    to.regs.rdi = source.0 as u64;
    to.regs.rsi = class as u64;
    to.set_message(message);
    sched::counters().messages += 1;
    unblock(to, rts::RECEIVING);
}

#[inline(always)]
fn receives_from(to: &Process, source: Endpoint) -> bool {
    to.flags & rts::RECEIVING != 0 && (to.filter == Endpoint::ANY || to.filter == source)
}

/// Sends what `from` has to say as `class` to `to`: delivers or queues, and blocks `from`.
#[inline(always)]
fn start_send(from: &mut Process, to: &mut Process, class: Class) {
    from.class = class;
    from.peer = to.endpoint;
    if receives_from(to, from.endpoint) {
        let message = from.outgoing();
        deliver(to, from.endpoint, class, &message);
        sent(from);
    } else {
        enqueue(to, from.index() as u16);
        block(from, rts::SENDING);
    }
}

/// `from`'s message was taken: it waits for the answer, or goes on.
#[inline(always)]
fn sent(from: &mut Process) {
    match from.class {
        Class::PageFault | Class::Exception => block(from, rts::FAULTING),
        class if class.wants_reply() => block(from, rts::AWAIT_REPLY),
        _ => from.regs.rax = 0,
    }
    unblock(from, rts::SENDING);
}

/// A Linux call, page fault or exception of `from`, sent on its behalf. A dead server leaves
/// the process blocked for ever, which only the death of a core server can cause.
#[inline(always)]
pub fn send_event(from: &mut Process, to: Endpoint, class: Class) -> Result<(), Errno> {
    let to = process::find(to)?;
    // A page fault has a record of its own.
    if class != Class::PageFault {
        lab::message(from.endpoint, to.endpoint, class, || {
            message_of(from, class)
        });
    }
    start_send(from, to, class);
    Ok(())
}

/// [`send_event`] of a Linux call that brings something along.
#[inline(never)]
pub fn send_bringing(from: &mut Process, to: Endpoint, brings: u8) -> Result<(), Errno> {
    let to = process::find(to)?;
    lab::message(from.endpoint, to.endpoint, Class::Linux, || {
        message_of(from, Class::Linux)
    });
    from.brings = brings;
    if receives_from(to, from.endpoint) {
        (from.class, from.peer) = (Class::Linux, to.endpoint);
        deliver_bringing(from, to);
    } else {
        start_send(from, to, Class::Linux);
    }
    Ok(())
}

/// Delivers a Linux call and what it brings along.
#[inline(never)]
fn deliver_bringing(from: &mut Process, to: &mut Process) {
    let mut message = from.outgoing();
    transfer::bring(from, to, &mut message);
    from.brings = 0;
    deliver(to, from.endpoint, Class::Linux, &message);
    sent(from);
}

/// What `from` says as `class`.
fn message_of(from: &mut Process, class: Class) -> Message {
    from.class = class;
    from.outgoing()
}

/// An IPC trap of the current process.
#[inline(always)]
pub fn trap(caller: &mut Process, op: u64) {
    const CALL: u64 = Ipc::Call as u64;
    const SEND: u64 = Ipc::Send as u64;
    const RECEIVE: u64 = Ipc::Receive as u64;
    const REPLY: u64 = Ipc::Reply as u64;
    const REPLY_RECEIVE: u64 = Ipc::ReplyReceive as u64;
    const NOTIFY: u64 = Ipc::Notify as u64;
    const POST: u64 = Ipc::Post as u64;
    const POST_RECEIVE: u64 = Ipc::PostReceive as u64;
    const COPY_POST_RECEIVE: u64 = Ipc::CopyPostReceive as u64;

    let peer = Endpoint(caller.regs.rdi as u32);
    let result = match op {
        CALL => call(caller, peer, Class::Call),
        REPLY_RECEIVE => {
            let message = caller.message();
            let _ = reply(caller, peer, &message);
            return receive(caller);
        }
        RECEIVE => return receive(caller),
        REPLY => {
            let message = caller.message();
            reply(caller, peer, &message)
        }
        POST => post(caller, peer),
        POST_RECEIVE => match post(caller, peer) {
            Err(Errno::EAGAIN) => Err(Errno::EAGAIN),
            _ => return receive(caller),
        },
        COPY_POST_RECEIVE => return copy_post_receive(caller, peer),
        SEND => call(caller, peer, Class::Send),
        NOTIFY => notify(caller, peer),
        _ => Err(Errno::ENOSYS),
    };
    match result {
        Ok(()) if caller.flags == 0 => caller.regs.rax = 0,
        Ok(()) => {}
        Err(errno) => caller.regs.rax = errno.to_word(),
    }
}

/// [`Ipc::CopyPostReceive`]. A caller that is parked makes the whole trap again.
#[inline(never)]
fn copy_post_receive(caller: &mut Process, peer: Endpoint) {
    let (address, count) = along_parts(caller.regs.rsi);
    match transfer::safecopy_vector(caller, address, count) {
        Ok(_) => {}
        Err(Stop::Failed(errno)) => return caller.regs.rax = errno.to_word(),
        Err(Stop::Parked) => return,
    }
    if post(caller, peer) == Err(Errno::EAGAIN) {
        return caller.regs.rax = Errno::EAGAIN.to_word();
    }
    caller.regs.rsi = Endpoint::ANY.0 as u64;
    receive(caller);
}

#[inline(always)]
fn call(caller: &mut Process, peer: Endpoint, class: Class) -> Result<(), Errno> {
    let to = process::find(peer).map_err(|_| Errno::EDEADSRCDST)?;
    if !caller.may_send_to(to.index()) {
        return Err(Errno::EPERM);
    }
    if core::ptr::eq(caller, to) {
        return Err(Errno::EDEADLK);
    }
    lab::message(caller.endpoint, to.endpoint, class, || caller.message());
    start_send(caller, to, class);
    Ok(())
}

/// Answers `peer`, if it waits for `caller`.
#[inline(always)]
fn reply(caller: &mut Process, peer: Endpoint, message: &Message) -> Result<(), Errno> {
    let to = process::find(peer)?;
    if to.flags & (rts::AWAIT_REPLY | rts::FAULTING) == 0 || to.peer != caller.endpoint {
        return Err(Errno::ESRCH);
    }
    sched::counters().messages += 1;
    lab::reply(caller.endpoint, to, message);
    answer(to, message);
    Ok(())
}

/// Ends `to`'s wait with this answer.
#[inline(always)]
fn answer(to: &mut Process, message: &Message) {
    match to.class {
        Class::Call => {
            to.regs.rax = 0;
            to.set_message(message);
        }
        Class::Linux => to.regs.rax = message.kind,
        _ => {
            if message.kind != 0 {
                to.flags |= rts::STOPPED;
            }
        }
    }
    to.peer = Endpoint::NONE;
    unblock(to, rts::AWAIT_REPLY | rts::FAULTING);
    if to.tell_when_stopped {
        to.tell_when_stopped = false;
        to.stopped_unread = true;
        notice(Endpoint::PM, KernelNotify::STOPPED);
    }
}

/// Receives for the current process, or blocks it.
#[inline(always)]
fn receive(caller: &mut Process) {
    let filter = Endpoint(caller.regs.rsi as u32);
    if filter == Endpoint::ANY {
        if caller.notices != 0 {
            return receive_notices(caller);
        }
        let node = caller.queue.0;
        if node != NIL {
            if lab::deciding() {
                let node = decide_message(caller);
                dequeue(caller, node);
                return take(caller, node);
            }
            caller.queue.0 = *next(node);
            return take(caller, node);
        }
    } else if let Some(node) = find_from(caller, filter) {
        dequeue(caller, node);
        return take(caller, node);
    }
    caller.filter = filter;
    block(caller, rts::RECEIVING);
}

/// The message to take when order is a decision: the oldest of one of the senders.
#[inline(never)]
fn decide_message(to: &Process) -> u16 {
    // The oldest of each sender, oldest first: those that no older one of the same stands before.
    let oldest = |n: usize| {
        let (mut node, mut left) = (to.queue.0, n);
        while node != NIL {
            if find_from(to, source_of(node)) == Some(node) {
                if left == 0 {
                    break;
                }
                left -= 1;
            }
            node = *next(node);
        }
        node
    };
    let count = (0..).take_while(|&n| oldest(n) != NIL).count();
    let choice = lab::decide(Decision::Message, count, |n| source_of(oldest(n)));
    oldest(choice)
}

/// What needs no queue: the kernel's notices first, then one process's notification.
#[inline(never)]
fn receive_notices(caller: &mut Process) {
    let mut message = Message::default();
    message.words[0] = caller.notices & !NOTIFIED;
    caller.notices &= NOTIFIED;
    if message.words[0] != 0 {
        return deliver(caller, Endpoint::KERNEL, Class::Kernel, &message);
    }
    let set = caller
        .notified
        .iter_mut()
        .enumerate()
        .find(|(_, bits)| **bits != 0);
    let Some((word, bits)) = set else { return };
    let bit = bits.trailing_zeros() as usize;
    *bits &= *bits - 1;
    forget_empty(caller);
    let source = process::slot(word * 64 + bit).endpoint;
    deliver(caller, source, Class::Notify, &message)
}

/// Clears [`NOTIFIED`] when no notification is left.
fn forget_empty(process: &mut Process) {
    if process.notified.iter().all(|&bits| bits == 0) {
        process.notices &= !NOTIFIED;
    }
}

fn source_of(node: u16) -> Endpoint {
    if (node as usize) < MAX_PROCESSES {
        process::slot(node as usize).endpoint
    } else {
        post_of(node).source
    }
}

fn find_from(to: &Process, source: Endpoint) -> Option<u16> {
    let mut node = to.queue.0;
    while node != NIL && source_of(node) != source {
        node = *next(node);
    }
    (node != NIL).then_some(node)
}

/// Delivers a node that has been taken off the queue.
#[inline(always)]
fn take(to: &mut Process, node: u16) {
    if (node as usize) < MAX_PROCESSES {
        let from = process::slot(node as usize);
        if from.brings != 0 {
            return deliver_bringing(from, to);
        }
        let message = from.outgoing();
        deliver(to, from.endpoint, from.class, &message);
        sent(from);
        return;
    }
    let Post { source, message } = *post_of(node);
    release_post(node);
    deliver(to, source, Class::Post, &message);
}

/// Frees a posted node and tells its owner if it waits for room.
fn release_post(node: u16) {
    *next(node) = FREE.get();
    FREE.set(node);
    if let Ok(owner) = process::find(post_of(node).source) {
        owner.posted.0 -= 1;
        if owner.posted.1 && owner.posted.0 as usize <= OUTBOX_CAPACITY / 2 {
            owner.posted.1 = false;
            notice_process(owner, KernelNotify::OUTBOX);
        }
    }
}

#[inline(always)]
fn post(caller: &mut Process, peer: Endpoint) -> Result<(), Errno> {
    let to = process::find(peer).map_err(|_| Errno::EDEADSRCDST)?;
    if !caller.may_send_to(to.index()) {
        return Err(Errno::EPERM);
    }
    let message = caller.message();
    if receives_from(to, caller.endpoint) {
        lab::message(caller.endpoint, to.endpoint, Class::Post, || message);
        deliver(to, caller.endpoint, Class::Post, &message);
        return Ok(());
    }
    let node = FREE.get();
    if node == NIL || caller.posted.0 as usize >= OUTBOX_CAPACITY {
        caller.posted.1 = true;
        return Err(Errno::EAGAIN);
    }
    lab::message(caller.endpoint, to.endpoint, Class::Post, || message);
    FREE.set(*next(node));
    *post_of(node) = Post {
        source: caller.endpoint,
        message,
    };
    caller.posted.0 += 1;
    enqueue(to, node);
    Ok(())
}

fn notify(caller: &mut Process, peer: Endpoint) -> Result<(), Errno> {
    let to = process::find(peer).map_err(|_| Errno::EDEADSRCDST)?;
    let index = caller.index();
    if !caller.may_send_to(to.index()) {
        return Err(Errno::EPERM);
    }
    lab::message(
        caller.endpoint,
        to.endpoint,
        Class::Notify,
        Message::default,
    );
    if receives_from(to, caller.endpoint) {
        deliver(to, caller.endpoint, Class::Notify, &Message::default());
    } else {
        to.notified[index >> 6] |= 1 << (index & 63);
        to.notices |= NOTIFIED;
    }
    Ok(())
}

/// A notification from the kernel to a server, if it lives.
pub fn notice(to: Endpoint, bits: KernelNotify) {
    if let Ok(to) = process::find(to) {
        notice_process(to, bits);
    }
}

/// A notification from the kernel.
pub fn notice_process(to: &mut Process, bits: KernelNotify) {
    to.notices |= bits.bits();
    if to.flags & rts::RECEIVING != 0 && to.filter == Endpoint::ANY {
        let mut message = Message::default();
        message.words[0] = to.notices & !NOTIFIED;
        to.notices &= NOTIFIED;
        deliver(to, Endpoint::KERNEL, Class::Kernel, &message);
    }
}

/// Takes back a message that `from` has queued and that nobody has received.
pub fn withdraw(from: &mut Process) {
    if from.flags & rts::SENDING != 0 {
        if let Ok(to) = process::find(from.peer) {
            dequeue(to, from.index() as u16);
        }
        from.peer = Endpoint::NONE;
        from.brings = 0;
        unblock(from, rts::SENDING);
    }
}

/// `dead` is going: nobody may wait for it, and nothing of it stays queued.
pub fn disconnect(dead: &mut Process) {
    withdraw(dead);
    while dead.queue.0 != NIL {
        let node = dead.queue.0;
        dead.queue.0 = *next(node);
        if (node as usize) < MAX_PROCESSES {
            let from = process::slot(node as usize);
            from.regs.rax = Errno::EDEADSRCDST.to_word();
            from.peer = Endpoint::NONE;
            from.brings = 0;
            unblock(from, rts::SENDING);
        } else {
            release_post(node);
        }
    }
    let (slot, endpoint) = (dead.index(), dead.endpoint);
    for other in (1..process::used())
        .filter(|&i| i != slot)
        .map(process::slot)
    {
        if other.flags & rts::FREE != 0 {
            continue;
        }
        other.notified[slot >> 6] &= !(1 << (slot & 63));
        forget_empty(other);
        drop_posts(other, endpoint);
        if other.flags & rts::AWAIT_REPLY != 0 && other.peer == endpoint {
            match other.class {
                Class::Linux => answer(other, &Message::error(Errno::EIO)),
                _ => {
                    other.regs.rax = Errno::EDEADSRCDST.to_word();
                    other.peer = Endpoint::NONE;
                    unblock(other, rts::AWAIT_REPLY);
                }
            }
        } else if other.flags & rts::RECEIVING != 0 && other.filter == endpoint {
            other.regs.rax = Errno::EDEADSRCDST.to_word();
            unblock(other, rts::RECEIVING);
        }
    }
}

fn drop_posts(to: &mut Process, source: Endpoint) {
    while let Some(node) = find_post_from(to, source) {
        dequeue(to, node);
        release_post(node);
    }
}

fn find_post_from(to: &Process, source: Endpoint) -> Option<u16> {
    let mut node = to.queue.0;
    while node != NIL && ((node as usize) < MAX_PROCESSES || post_of(node).source != source) {
        node = *next(node);
    }
    (node != NIL).then_some(node)
}
