//! Messages: a kind and seven words, carried in registers, so that they never fault.
//!
//! [`fields`] says how values become words, [`request`] what can be sent and how it is answered,
//! [`serve`] what a server makes of what it received. [`crate::protocol!`] declares all three at once.
//!
//! Why so: docs/decisions/028-interfaces.md.

use crate::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub mod fields;
mod protocol;
pub mod request;
pub mod serve;

pub use fields::{Fields, Word};
pub use request::{
    ANSWER, Answer, Asker, Caller, Request, answer_message, answer_result, answered_status,
    is_answer, reply_message, reply_result, transaction,
};
pub use serve::{Handled, Serve, Server};

/// Words a message carries beside its kind.
pub const WORDS: usize = 7;

/// A message as it travels: `kind` in rdx, `words` in r8 r9 r10 r12 r13 r14 r15.
///
/// In a request the kind names the operation. In a reply to a `call` it is the status word:
/// 0, or a negated [`Errno`].
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Message {
    /// Operation of a request; status word of a reply.
    pub kind: u64,
    /// The fields, one word each.
    pub words: [u64; WORDS],
}

impl Message {
    /// A message of `kind` with zero words.
    pub const fn new(kind: u64) -> Message {
        Message {
            kind,
            words: [0; WORDS],
        }
    }

    /// The reply that carries only a failure.
    pub const fn error(errno: Errno) -> Message {
        Message::new(errno.to_word())
    }
}

/// What a received message is. The kernel sets it; a sender cannot forge it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum Class {
    /// From `call`: the sender is blocked until it gets a reply.
    Call = 1,
    /// From `send`: one way, the sender was blocked until now.
    Send = 2,
    /// From `post`: one way, out of the sender's outbox.
    Post = 3,
    /// From `notify`: no contents but the source.
    Notify = 4,
    /// From the kernel; `words[0]` holds the bits of [`crate::kernel::KernelNotify`].
    Kernel = 5,
    /// A Linux system call: `kind` is its number, words 0..6 its arguments. The sender is
    /// blocked until a reply, whose status word becomes its rax.
    Linux = 6,
    /// A page fault of the source (to VM), encoded as [`crate::kernel::PageFault`]. The
    /// source is blocked until a reply: status 0 resumes it, any other leaves it stopped.
    PageFault = 7,
    /// Another processor exception of the source (to PM for Linux processes, RS for
    /// services), encoded as [`crate::kernel::Exception`]. Replied to like a page fault.
    Exception = 8,
}

impl Class {
    /// The class with this number.
    pub const fn from_word(word: u64) -> Option<Class> {
        Some(match word {
            1 => Class::Call,
            2 => Class::Send,
            3 => Class::Post,
            4 => Class::Notify,
            5 => Class::Kernel,
            6 => Class::Linux,
            7 => Class::PageFault,
            8 => Class::Exception,
            _ => return None,
        })
    }

    /// Whether the source waits for a reply.
    pub const fn wants_reply(self) -> bool {
        matches!(
            self,
            Class::Call | Class::Linux | Class::PageFault | Class::Exception
        )
    }
}
