//! Messages: delivery, queues, outboxes, replies.
//!
//! A receiver's queue links *nodes*. Node `i < MAX_PROCESSES` is the blocked sender in slot
//! `i`, whose message is still in its registers; the others hold posted messages.

use crate::counters::{COUNTERS, add};
use crate::global::Global;
use crate::lab;
use crate::notice::{NOTIFIED, deliver, notice_process, stopped, take_notices};
use crate::process::{self, MAX_PROCESSES, NIL, Process};
use crate::sched::{block, unblock};
use crate::transfer::{self, Stop};
use abi::kernel::{Ipc, KernelNotify, OUTBOX_CAPACITY, along_copies, rts};
use abi::trace::Decision;
use abi::{Class, Endpoint, Errno, Message};
use core::cell::Cell;

/// Posted messages in flight, all processes together.
pub const POSTS: usize = 1024;
const NODES: usize = MAX_PROCESSES + POSTS;

/// A posted message. The VMM reads it (`inspect`).
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Post {
    source: Endpoint,
    pub(crate) message: Message,
}

/// What stands behind each node in its queue, or in the list of free posts.
static NEXT: Global<[u16; NODES]> = Global::new([NIL; NODES]);
static POOL: Global<[Post; POSTS]> = Global::new(
    [Post {
        source: Endpoint::NONE,
        message: Message::new(0),
    }; POSTS],
);
static FREE: Global<u16> = Global::new(NIL);

#[inline(always)]
fn next(node: u16) -> &'static Cell<u16> {
    &NEXT.row()[(node as usize).min(NODES - 1)]
}

/// The message of a node that is a posted one.
#[inline(always)]
fn post_of(node: u16) -> &'static Cell<Post> {
    &POOL.row()[(node as usize).wrapping_sub(MAX_PROCESSES) % POSTS]
}

/// The links of the nodes and the posted messages, for `inspect`.
pub fn tables() -> (*const u16, *const Post) {
    (NEXT.as_ptr().cast(), POOL.as_ptr().cast())
}

/// Links the free posts. Boot.
pub fn init() {
    for node in MAX_PROCESSES..NODES {
        next(node as u16).set(if node + 1 < NODES {
            node as u16 + 1
        } else {
            NIL
        });
    }
    FREE.set(MAX_PROCESSES as u16);
}

#[inline(always)]
fn enqueue(to: &'static Process, node: u16) {
    next(node).set(NIL);
    if to.queue_head.get() == NIL {
        to.queue_head.set(node);
    } else {
        next(to.queue_tail.get()).set(node);
    }
    to.queue_tail.set(node);
}

/// Takes `node` out of `to`'s queue, wherever it stands.
fn dequeue(to: &'static Process, node: u16) {
    let (mut previous, mut at) = (NIL, to.queue_head.get());
    while at != NIL && at != node {
        (previous, at) = (at, next(at).get());
    }
    if at == NIL {
        return;
    }
    let after = next(node).get();
    if previous == NIL {
        to.queue_head.set(after);
    } else {
        next(previous).set(after);
    }
    if after == NIL {
        to.queue_tail.set(previous);
    }
}

#[inline(always)]
fn receives_from(to: &'static Process, source: Endpoint) -> bool {
    to.flags.get() & rts::RECEIVING != 0
        && (to.filter.get() == Endpoint::ANY || to.filter.get() == source)
}

/// Sends what `from` has to say as `class` to `to`: delivers or queues, and blocks `from`.
#[inline(always)]
fn start_send(from: &'static Process, to: &'static Process, class: Class) {
    from.class.set(class);
    from.peer.set(to.endpoint.get());
    if receives_from(to, from.endpoint.get()) {
        let message = from.outgoing();
        deliver(to, from.endpoint.get(), class, &message);
        sent(from);
    } else {
        enqueue(to, from.index() as u16);
        block(from, rts::SENDING);
    }
}

/// `from`'s message was taken: it waits for the answer, or goes on.
#[inline(always)]
fn sent(from: &'static Process) {
    match from.class.get() {
        Class::PageFault | Class::Exception => block(from, rts::FAULTING),
        class if class.wants_reply() => block(from, rts::AWAIT_REPLY),
        _ => from.regs.rax.set(0),
    }
    unblock(from, rts::SENDING);
}

/// A Linux call, page fault or exception of `from`, sent on its behalf. A dead server leaves
/// the process blocked for ever, which only the death of a core server can cause.
#[inline(always)]
pub fn send_event(from: &'static Process, to: Endpoint, class: Class) -> Result<(), Errno> {
    let to = process::find(to)?;
    // A page fault has a record of its own.
    if class != Class::PageFault {
        lab::message(from.endpoint.get(), to.endpoint.get(), class, || {
            message_of(from, class)
        });
    }
    start_send(from, to, class);
    Ok(())
}

/// [`send_event`] of a Linux call that brings something along.
#[inline(never)]
pub fn send_bringing(from: &'static Process, to: Endpoint, brings: u8) -> Result<(), Errno> {
    let to = process::find(to)?;
    lab::message(from.endpoint.get(), to.endpoint.get(), Class::Linux, || {
        message_of(from, Class::Linux)
    });
    from.brings.set(brings);
    if receives_from(to, from.endpoint.get()) {
        from.class.set(Class::Linux);
        from.peer.set(to.endpoint.get());
        deliver_bringing(from, to);
    } else {
        start_send(from, to, Class::Linux);
    }
    Ok(())
}

/// Delivers a Linux call and what it brings along.
#[inline(never)]
fn deliver_bringing(from: &'static Process, to: &'static Process) {
    let mut message = from.outgoing();
    transfer::bring(from, to, &mut message);
    from.brings.set(0);
    deliver(to, from.endpoint.get(), Class::Linux, &message);
    sent(from);
}

/// What `from` says as `class`.
fn message_of(from: &'static Process, class: Class) -> Message {
    from.class.set(class);
    from.outgoing()
}

/// An IPC trap of the current process.
#[inline(always)]
pub fn trap(caller: &'static Process, op: u64) {
    const CALL: u64 = Ipc::Call as u64;
    const SEND: u64 = Ipc::Send as u64;
    const RECEIVE: u64 = Ipc::Receive as u64;
    const REPLY: u64 = Ipc::Reply as u64;
    const REPLY_RECEIVE: u64 = Ipc::ReplyReceive as u64;
    const NOTIFY: u64 = Ipc::Notify as u64;
    const POST: u64 = Ipc::Post as u64;
    const POST_RECEIVE: u64 = Ipc::PostReceive as u64;
    const COPY_POST_RECEIVE: u64 = Ipc::CopyPostReceive as u64;

    let peer = Endpoint(caller.regs.rdi.get() as u32);
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
        Ok(()) if caller.flags.get() == 0 => caller.regs.rax.set(0),
        Ok(()) => {}
        Err(errno) => caller.regs.rax.set(errno.to_word()),
    }
}

/// [`Ipc::CopyPostReceive`]. A caller that is parked makes the whole trap again.
#[inline(never)]
fn copy_post_receive(caller: &'static Process, peer: Endpoint) {
    let copies = along_copies(caller.regs.rsi.get());
    match transfer::safecopy_vector(caller, copies) {
        Ok(()) => {}
        Err(Stop::Failed(errno)) => return caller.regs.rax.set(errno.to_word()),
        Err(Stop::Parked) => return,
    }
    if post(caller, peer) == Err(Errno::EAGAIN) {
        return caller.regs.rax.set(Errno::EAGAIN.to_word());
    }
    caller.regs.rsi.set(Endpoint::ANY.0 as u64);
    receive(caller);
}

#[inline(always)]
fn call(caller: &'static Process, peer: Endpoint, class: Class) -> Result<(), Errno> {
    let to = process::find(peer).map_err(|_| Errno::EDEADSRCDST)?;
    if !caller.may_send_to(to.index()) {
        return Err(Errno::EPERM);
    }
    if core::ptr::eq(caller, to) {
        return Err(Errno::EDEADLK);
    }
    lab::message(caller.endpoint.get(), to.endpoint.get(), class, || {
        caller.message()
    });
    start_send(caller, to, class);
    Ok(())
}

/// Answers `peer`, if it waits for `caller`.
#[inline(always)]
fn reply(caller: &'static Process, peer: Endpoint, message: &Message) -> Result<(), Errno> {
    let to = process::find(peer)?;
    if to.flags.get() & (rts::AWAIT_REPLY | rts::FAULTING) == 0
        || to.peer.get() != caller.endpoint.get()
    {
        return Err(Errno::ESRCH);
    }
    add(&COUNTERS.messages, 1);
    lab::reply(caller.endpoint.get(), to, message);
    answer(to, message);
    Ok(())
}

/// Ends `to`'s wait with this answer.
#[inline(always)]
fn answer(to: &'static Process, message: &Message) {
    match to.class.get() {
        Class::Call => {
            to.regs.rax.set(0);
            to.set_message(message);
        }
        Class::Linux => to.regs.rax.set(message.kind),
        _ => {
            if message.kind != 0 {
                to.flags.set(to.flags.get() | rts::STOPPED);
            }
        }
    }
    to.peer.set(Endpoint::NONE);
    unblock(to, rts::AWAIT_REPLY | rts::FAULTING);
    if to.tell_when_stopped.get() {
        to.tell_when_stopped.set(false);
        stopped(to);
    }
}

/// Receives for the current process, or blocks it.
#[inline(always)]
fn receive(caller: &'static Process) {
    let filter = Endpoint(caller.regs.rsi.get() as u32);
    if filter == Endpoint::ANY {
        if caller.notices.get() != 0 {
            return receive_notices(caller);
        }
        let node = caller.queue_head.get();
        if node != NIL {
            if lab::deciding() {
                let node = decide_message(caller);
                dequeue(caller, node);
                return take(caller, node);
            }
            caller.queue_head.set(next(node).get());
            return take(caller, node);
        }
    } else if let Some(node) = find_from(caller, filter) {
        dequeue(caller, node);
        return take(caller, node);
    }
    caller.filter.set(filter);
    block(caller, rts::RECEIVING);
}

/// The message to take when order is a decision: the oldest of one of the senders.
#[inline(never)]
fn decide_message(to: &'static Process) -> u16 {
    // The oldest of each sender, oldest first: those that no older one of the same stands before.
    let oldest = |n: usize| {
        let (mut node, mut left) = (to.queue_head.get(), n);
        while node != NIL {
            if find_from(to, source_of(node)) == Some(node) {
                if left == 0 {
                    break;
                }
                left -= 1;
            }
            node = next(node).get();
        }
        node
    };
    let count = (0..).take_while(|&n| oldest(n) != NIL).count();
    let choice = lab::decide(Decision::Message, count, |n| source_of(oldest(n)));
    oldest(choice)
}

/// What needs no queue: the kernel's notices first, then one process's notification.
#[inline(never)]
fn receive_notices(caller: &'static Process) {
    let notices = take_notices(caller);
    if !notices.is_empty() {
        return deliver(caller, Endpoint::KERNEL, Class::Kernel, &notices.message());
    }
    let mut notified = caller.notified.iter().enumerate();
    let Some((word, bits)) = notified.find(|(_, bits)| bits.get() != 0) else {
        return;
    };
    let bit = bits.get().trailing_zeros() as usize;
    bits.set(bits.get() & (bits.get() - 1));
    forget_empty(caller);
    let source = process::slot(word * 64 + bit).endpoint.get();
    deliver(caller, source, Class::Notify, &Message::default())
}

/// Clears [`NOTIFIED`] when no notification is left.
fn forget_empty(process: &'static Process) {
    if process.notified.iter().all(|bits| bits.get() == 0) {
        process.notices.set(process.notices.get() & !NOTIFIED);
    }
}

fn source_of(node: u16) -> Endpoint {
    if (node as usize) < MAX_PROCESSES {
        process::slot(node as usize).endpoint.get()
    } else {
        post_of(node).get().source
    }
}

fn find_from(to: &'static Process, source: Endpoint) -> Option<u16> {
    let mut node = to.queue_head.get();
    while node != NIL && source_of(node) != source {
        node = next(node).get();
    }
    (node != NIL).then_some(node)
}

/// Delivers a node that has been taken off the queue.
#[inline(always)]
fn take(to: &'static Process, node: u16) {
    if (node as usize) < MAX_PROCESSES {
        let from = process::slot(node as usize);
        if from.brings.get() != 0 {
            return deliver_bringing(from, to);
        }
        let message = from.outgoing();
        deliver(to, from.endpoint.get(), from.class.get(), &message);
        sent(from);
        return;
    }
    let Post { source, message } = post_of(node).get();
    release_post(node);
    deliver(to, source, Class::Post, &message);
}

/// Frees a posted node and tells its owner if it waits for room.
fn release_post(node: u16) {
    next(node).set(FREE.get());
    FREE.set(node);
    if let Ok(owner) = process::find(post_of(node).get().source) {
        owner.posted.set(owner.posted.get() - 1);
        if owner.outbox_full.get() && owner.posted.get() as usize <= OUTBOX_CAPACITY / 2 {
            owner.outbox_full.set(false);
            notice_process(owner, KernelNotify::OUTBOX);
        }
    }
}

#[inline(always)]
fn post(caller: &'static Process, peer: Endpoint) -> Result<(), Errno> {
    let to = process::find(peer).map_err(|_| Errno::EDEADSRCDST)?;
    if !caller.may_send_to(to.index()) {
        return Err(Errno::EPERM);
    }
    let message = caller.message();
    if receives_from(to, caller.endpoint.get()) {
        lab::message(
            caller.endpoint.get(),
            to.endpoint.get(),
            Class::Post,
            || message,
        );
        deliver(to, caller.endpoint.get(), Class::Post, &message);
        return Ok(());
    }
    let node = FREE.get();
    if node == NIL || caller.posted.get() as usize >= OUTBOX_CAPACITY {
        caller.outbox_full.set(true);
        return Err(Errno::EAGAIN);
    }
    lab::message(
        caller.endpoint.get(),
        to.endpoint.get(),
        Class::Post,
        || message,
    );
    FREE.set(next(node).get());
    post_of(node).set(Post {
        source: caller.endpoint.get(),
        message,
    });
    caller.posted.set(caller.posted.get() + 1);
    enqueue(to, node);
    Ok(())
}

fn notify(caller: &'static Process, peer: Endpoint) -> Result<(), Errno> {
    let to = process::find(peer).map_err(|_| Errno::EDEADSRCDST)?;
    let index = caller.index();
    if !caller.may_send_to(to.index()) {
        return Err(Errno::EPERM);
    }
    lab::message(
        caller.endpoint.get(),
        to.endpoint.get(),
        Class::Notify,
        Message::default,
    );
    if receives_from(to, caller.endpoint.get()) {
        deliver(
            to,
            caller.endpoint.get(),
            Class::Notify,
            &Message::default(),
        );
    } else {
        let word = &to.notified[index >> 6 & 3];
        word.set(word.get() | 1 << (index & 63));
        to.notices.set(to.notices.get() | NOTIFIED);
    }
    Ok(())
}

/// Takes back a message that `from` has queued and that nobody has received.
pub fn withdraw(from: &'static Process) {
    if from.flags.get() & rts::SENDING != 0 {
        if let Ok(to) = process::find(from.peer.get()) {
            dequeue(to, from.index() as u16);
        }
        from.peer.set(Endpoint::NONE);
        from.brings.set(0);
        unblock(from, rts::SENDING);
    }
}

/// `dead` is going: nobody may wait for it, and nothing of it stays queued.
pub fn disconnect(dead: &'static Process) {
    withdraw(dead);
    while dead.queue_head.get() != NIL {
        let node = dead.queue_head.get();
        dead.queue_head.set(next(node).get());
        if (node as usize) < MAX_PROCESSES {
            let from = process::slot(node as usize);
            from.regs.rax.set(Errno::EDEADSRCDST.to_word());
            from.peer.set(Endpoint::NONE);
            from.brings.set(0);
            unblock(from, rts::SENDING);
        } else {
            release_post(node);
        }
    }
    let (slot, endpoint) = (dead.index(), dead.endpoint.get());
    for other in process::living().filter(|other| other.index() != slot) {
        let word = &other.notified[slot >> 6 & 3];
        word.set(word.get() & !(1 << (slot & 63)));
        forget_empty(other);
        drop_posts(other, endpoint);
        if other.flags.get() & rts::AWAIT_REPLY != 0 && other.peer.get() == endpoint {
            match other.class.get() {
                Class::Linux => answer(other, &Message::error(Errno::EIO)),
                _ => {
                    other.regs.rax.set(Errno::EDEADSRCDST.to_word());
                    other.peer.set(Endpoint::NONE);
                    unblock(other, rts::AWAIT_REPLY);
                }
            }
        } else if other.flags.get() & rts::RECEIVING != 0 && other.filter.get() == endpoint {
            other.regs.rax.set(Errno::EDEADSRCDST.to_word());
            unblock(other, rts::RECEIVING);
        }
    }
}

fn drop_posts(to: &'static Process, source: Endpoint) {
    while let Some(node) = find_post_from(to, source) {
        dequeue(to, node);
        release_post(node);
    }
}

fn find_post_from(to: &'static Process, source: Endpoint) -> Option<u16> {
    let mut node = to.queue_head.get();
    while node != NIL && ((node as usize) < MAX_PROCESSES || post_of(node).get().source != source) {
        node = next(node).get();
    }
    (node != NIL).then_some(node)
}
