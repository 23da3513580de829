//! The main loop of every server. What is on the way of each message is inlined into it: a message that is handed from
//! function to function by value is copied at each.

use crate::cell::Single;
use crate::ipc::{self, Received};
use crate::outbox;
use abi::kernel::KernelNotify;
use abi::message::Handled;
use abi::proto::rs::Started;
use abi::senders::{Refusal, Refused};
use abi::{Class, Endpoint, Errno, Message};

static REFUSED: Single<Refused> = Single::new(Refused::new());

/// A message that leaves together with the next receive: a visit of the kernel is what costs most.
#[derive(Clone, Copy, Debug)]
pub enum Last {
    /// A post.
    Post(Endpoint, Message),
    /// A reply.
    Reply(Endpoint, Message),
}

impl Last {
    /// What goes back to the sender of a message.
    #[inline(always)]
    fn answer(received: &Received, message: Message) -> Last {
        match received.class.wants_reply() {
            true => Last::Reply(received.source, message),
            false => Last::Post(received.source, message),
        }
    }

    /// It leaves now.
    #[inline(always)]
    pub fn leave(self) {
        match self {
            Last::Post(to, message) => outbox::post_message(to, message),
            Last::Reply(to, message) => {
                // A caller that died needs no answer.
                let _ = ipc::reply_raw(to, message);
            }
        }
    }
}

/// Sends what is left to send, and waits for the next message.
#[inline(always)]
pub fn receive(last: Option<Last>) -> Result<Received, Errno> {
    match last {
        Some(Last::Reply(to, message)) => ipc::reply_receive(to, message),
        Some(Last::Post(to, message)) if outbox::is_empty() => {
            match ipc::post_receive(to, message) {
                Err(Errno::EAGAIN) => outbox::post_message(to, message),
                // The peer is dead: its messages are dropped.
                Err(_) => {}
                received => return received,
            }
            ipc::receive()
        }
        Some(last) => {
            last.leave();
            ipc::receive()
        }
        None => ipc::receive(),
    }
}

/// What a server does with what it receives.
pub trait Service {
    /// Serves a message: one of the protocols by their `serve` functions, a Linux call or a fault.
    fn serve(&mut self, received: &Received) -> Handled;

    /// The kernel has something to say, beside that the outbox has room.
    fn notified(&mut self, bits: KernelNotify) {
        let _ = bits;
    }

    /// What happens between two messages, and the next one.
    #[inline(always)]
    fn receive(&mut self, last: Option<Last>) -> Result<Received, Errno> {
        receive(last)
    }

    /// Deals with a message, and what is left to send then.
    #[inline(always)]
    fn take(&mut self, received: &Received) -> Option<Last> {
        take(self, received)
    }
}

/// [`Service::take`]: notes what the kernel says, serves everything else.
#[inline(always)]
pub fn take(service: &mut (impl Service + ?Sized), received: &Received) -> Option<Last> {
    if received.class == Class::Kernel {
        service.notified(noted(&received.message));
        return None;
    }
    let handled = service.serve(received);
    note(received, &handled);
    let message = handled.answer?;
    Some(Last::answer(received, message))
}

/// What the kernel says. Posts that wait for room in the outbox are made.
pub fn noted(message: &Message) -> KernelNotify {
    let bits = KernelNotify::of(message);
    if bits.contains(KernelNotify::OUTBOX) {
        outbox::flush();
    }
    bits
}

/// Says in the log that no function of the server saw a message, if that is so.
#[inline(always)]
pub fn note(received: &Received, handled: &Handled) {
    if let Some(refusal) = handled.refused {
        note_refused(received, refusal);
    }
}

#[cold]
fn note_refused(received: &Received, refusal: Refusal) {
    let mut refused = REFUSED.borrow();
    if let Some(line) = refused.note(received.source, &received.message, refusal) {
        crate::log!("{line}");
    }
}

/// Tells RS what became of a service's start, and serves for ever.
pub fn start(made: Result<impl Service, Errno>) -> ! {
    let status = made
        .as_ref()
        .map_or_else(|errno| -i64::from(errno.0), |_| 0);
    outbox::post(Endpoint::RS, Started { status });
    match made {
        Ok(mut service) => run(&mut service),
        // RS ends a service that gave up.
        Err(_) => run(&mut Nothing),
    }
}

struct Nothing;

impl Service for Nothing {
    fn serve(&mut self, received: &Received) -> Handled {
        Handled::refused(received.class, Refusal::Unknown)
    }
}

/// Serves for ever.
#[inline(always)]
pub fn run(service: &mut (impl Service + ?Sized)) -> ! {
    let mut last = None;
    loop {
        last = turn(service, last);
    }
}

/// Serves until `ready` has something; what is left to send is sent then.
pub fn until<S: Service + ?Sized, T>(
    service: &mut S,
    mut ready: impl FnMut(&mut S) -> Option<T>,
) -> T {
    let mut last: Option<Last> = None;
    loop {
        if let Some(found) = ready(service) {
            if let Some(last) = last {
                last.leave();
            }
            return found;
        }
        last = turn(service, last);
    }
}

/// One message. A receive that failed has nothing to say about any.
#[inline(always)]
fn turn(service: &mut (impl Service + ?Sized), last: Option<Last>) -> Option<Last> {
    let received = service.receive(last).ok()?;
    service.take(&received)
}
