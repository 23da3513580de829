//! The way in for messages: what the protocols refuse goes no further.

use crate::cell::Single;
use crate::ipc::{self, Received};
use abi::senders::Refused;
use abi::{Class, Message};

static REFUSED: Single<Refused> = Single::new(Refused::new());

/// Whether the sender may send this ([`abi::proto::admit`]). What is refused is dealt with: a
/// call is answered, anything else dropped, with a line in the log. Messages that are not of the
/// protocols (Linux calls, faults, the kernel's notifications) pass.
pub fn admits(received: &Received) -> bool {
    let Received {
        source,
        class,
        message,
    } = received;
    if !matches!(class, Class::Call | Class::Post | Class::Send) {
        return true;
    }
    let Err(refusal) = abi::proto::admit(*source, *class, message.kind) else {
        return true;
    };
    if *class == Class::Call {
        // A caller that died needs no answer.
        let _ = ipc::reply_raw(*source, Message::error(refusal.errno()));
    }
    if let Some(line) = REFUSED.borrow().note(*source, message, refusal) {
        crate::log!("{line}");
    }
    false
}
