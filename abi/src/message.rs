//! Messages: a kind and seven words, carried in registers, so that they never fault.

use crate::role::Roles;
use crate::senders::Mode;
use crate::{Endpoint, Errno};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

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

/// A value that fits a message word and checks itself on arrival.
pub trait Word: Sized {
    /// The word.
    fn to_word(self) -> u64;
    /// The value, or `None` when the word is not one.
    fn from_word(word: u64) -> Option<Self>;
}

macro_rules! word_ints {
    ($($t:ty)*) => {$(
        impl Word for $t {
            #[inline(always)]
            fn to_word(self) -> u64 { self as u64 }
            #[inline(always)]
            fn from_word(word: u64) -> Option<Self> {
                let value = word as $t;
                (value as u64 == word).then_some(value)
            }
        }
    )*};
}
word_ints!(u8 u16 u32 u64 usize i32 i64);

impl Word for bool {
    fn to_word(self) -> u64 {
        self as u64
    }
    fn from_word(word: u64) -> Option<Self> {
        match word {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

impl Word for Endpoint {
    fn to_word(self) -> u64 {
        self.0 as u64
    }
    fn from_word(word: u64) -> Option<Self> {
        u32::from_word(word).map(Endpoint)
    }
}

/// A status carried as a field (posted answers have no reply status): 0 or a negated errno.
impl Word for Result<(), Errno> {
    fn to_word(self) -> u64 {
        match self {
            Ok(()) => 0,
            Err(errno) => errno.to_word(),
        }
    }
    fn from_word(word: u64) -> Option<Self> {
        Some(crate::errno::result_from_word(word).map(|_| ()))
    }
}

/// Two 32-bit values in one word, the first in the low half.
impl Word for (u32, u32) {
    fn to_word(self) -> u64 {
        self.0 as u64 | (self.1 as u64) << 32
    }
    fn from_word(word: u64) -> Option<Self> {
        Some((word as u32, (word >> 32) as u32))
    }
}

/// Up to eight bytes of text, zero padded.
impl Word for [u8; 8] {
    fn to_word(self) -> u64 {
        u64::from_le_bytes(self)
    }
    fn from_word(word: u64) -> Option<Self> {
        Some(word.to_le_bytes())
    }
}

/// A typed request: one kind, one encoding.
pub trait Request: Sized {
    /// The kind word.
    const KIND: u64;
    /// For traces and error messages.
    const NAME: &'static str;
    /// How it is sent.
    const MODE: Mode;
    /// Who may send it.
    const SENDERS: Roles;
    /// What a successful `call` returns.
    type Reply: Reply;
    /// The message that carries `self`.
    fn encode(self) -> Message;
    /// The request in a message of [`Self::KIND`], or `None` when a word is out of range.
    fn decode(message: &Message) -> Option<Self>;
}

/// The words of a successful reply.
pub trait Reply: Sized {
    /// The reply's words.
    fn into_words(self) -> [u64; WORDS];
    /// The reply in these words, or `None` when one is out of range.
    fn from_words(words: &[u64; WORDS]) -> Option<Self>;
}

impl Reply for () {
    #[inline(always)]
    fn into_words(self) -> [u64; WORDS] {
        [0; WORDS]
    }
    #[inline(always)]
    fn from_words(_: &[u64; WORDS]) -> Option<Self> {
        Some(())
    }
}

/// The reply message for `result`.
pub fn reply_message<R: Reply>(result: Result<R, Errno>) -> Message {
    match result {
        Ok(reply) => Message {
            kind: 0,
            words: reply.into_words(),
        },
        Err(errno) => Message::error(errno),
    }
}

/// What a reply message says.
pub fn reply_result<R: Reply>(message: &Message) -> Result<R, Errno> {
    crate::errno::result_from_word(message.kind)?;
    R::from_words(&message.words).ok_or(Errno::EIO)
}

/// Declares the requests of one protocol.
///
/// `#[from(VFS, RS)] call` or `post` before a request's name says who may send it, by the sets of
/// [`Roles`], and how. Every server asks `admit` before it decodes anything.
///
/// Each request becomes a struct with [`Request`]; its fields travel one word each, in order
/// (at most seven, checked at compile time). `-> Type { fields }` declares the reply struct as well;
/// `-> Type` alone names one declared elsewhere; without it the reply is `()`. The module
/// also gets `name(kind)` for traces, `RULES`, and `admit`.
#[macro_export]
macro_rules! protocol {
    (
        base = $base:expr;
        $(
            $(#[doc = $doc:expr])*
            #[from($($from:ident),+)]
            $mode:ident $name:ident = $op:literal { $( $(#[$fdoc:meta])* $field:ident : $ty:ty ),* $(,)? }
            $( -> $reply:ident $( { $( $(#[$rdoc:meta])* $rfield:ident : $rty:ty ),* $(,)? } )? )?
            ;
        )*
    ) => {
        /// The kinds of this protocol are `BASE + 1 ..= BASE + 255`.
        pub const BASE: u64 = $base;

        $(
            $(#[doc = $doc])*
            #[doc = concat!("\n\nSent by `", stringify!($mode), "` from: ", stringify!($($from),+), ".")]
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub struct $name { $( $(#[$fdoc])* pub $field: $ty ),* }

            impl $crate::message::Request for $name {
                const KIND: u64 = BASE + $op;
                const NAME: &'static str = stringify!($name);
                const MODE: $crate::senders::Mode = $crate::protocol!(@mode $mode);
                const SENDERS: $crate::role::Roles =
                    $crate::role::Roles::of_all(&[$($crate::role::Roles::$from),+]);
                type Reply = $crate::protocol!(@reply $($reply)?);

                #[inline(always)]
                #[allow(unused_mut, unused_variables, unused_assignments)]
                fn encode(self) -> $crate::message::Message {
                    let mut message = $crate::message::Message::new(Self::KIND);
                    const { $crate::protocol!(@check $($field)*) };
                    let mut i = 0;
                    $(
                        message.words[i] = $crate::message::Word::to_word(self.$field);
                        i += 1;
                    )*
                    message
                }

                #[inline(always)]
                #[allow(unused_mut, unused_variables, unused_assignments)]
                fn decode(message: &$crate::message::Message) -> Option<Self> {
                    let mut i = 0;
                    $(
                        let $field = <$ty as $crate::message::Word>::from_word(message.words[i])?;
                        i += 1;
                    )*
                    Some($name { $($field),* })
                }
            }

            $($(
                #[doc = concat!("The reply to [`", stringify!($name), "`].")]
                #[derive(Clone, Copy, Debug, PartialEq, Eq)]
                pub struct $reply { $( $(#[$rdoc])* pub $rfield: $rty ),* }

                impl $crate::message::Reply for $reply {
                    #[inline(always)]
                    #[allow(unused_assignments)]
                    fn into_words(self) -> [u64; $crate::message::WORDS] {
                        let mut words = [0; $crate::message::WORDS];
                        let mut i = 0;
                        $( words[i] = $crate::message::Word::to_word(self.$rfield); i += 1; )*
                        words
                    }
                    #[inline(always)]
                    #[allow(unused_assignments)]
                    fn from_words(words: &[u64; $crate::message::WORDS]) -> Option<Self> {
                        let mut i = 0;
                        $(
                            let $rfield = <$rty as $crate::message::Word>::from_word(words[i])?;
                            i += 1;
                        )*
                        Some($reply { $($rfield),* })
                    }
                }
            )?)?
        )*

        /// What stands here of each message.
        pub const RULES: &[$crate::senders::Rule] = &[$(
            $crate::senders::Rule {
                kind: <$name as $crate::message::Request>::KIND,
                name: stringify!($name),
                mode: <$name as $crate::message::Request>::MODE,
                senders: <$name as $crate::message::Request>::SENDERS,
            },
        )*];

        static GATES: $crate::senders::Gates = $crate::senders::Gates::new(BASE, RULES);

        /// Whether `source` may send a message of this kind in this way.
        #[inline]
        pub fn admit(
            source: $crate::Endpoint,
            class: $crate::Class,
            kind: u64,
        ) -> Result<(), $crate::senders::Refusal> {
            GATES.admit(source, class, kind)
        }

        /// What is read from a message of this protocol, written again.
        #[cfg(test)]
        pub fn again(message: &$crate::message::Message) -> Option<$crate::message::Message> {
            $(
                if message.kind == <$name as $crate::message::Request>::KIND {
                    let read = <$name as $crate::message::Request>::decode(message)?;
                    return Some($crate::message::Request::encode(read));
                }
            )*
            None
        }

        /// The request's name, for traces.
        pub const fn name(kind: u64) -> Option<&'static str> {
            match kind.wrapping_sub(BASE) {
                $( $op => Some(stringify!($name)), )*
                _ => None,
            }
        }
    };
    (@mode call) => { $crate::senders::Mode::Call };
    (@mode post) => { $crate::senders::Mode::Post };
    (@reply) => { () };
    (@reply $reply:ident) => { $reply };
    (@check $($field:ident)*) => {
        {
            let fields: &[&str] = &[$(stringify!($field)),*];
            assert!(fields.len() <= $crate::message::WORDS, "more fields than words")
        }
    };
}
