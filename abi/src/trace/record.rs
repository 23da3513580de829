//! Records: what happened, each kind declared once.

use crate::Endpoint;
use crate::message::{Class, Fields, WORDS, Word};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Decision, Refusal, Restored, SERVING_NAME, Stage, Wanted};

/// One record, a cache line.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(64))]
pub struct Record {
    /// Virtual time, ns.
    pub time: u64,
    /// A [`Kind`] in the low byte; above it the number of the point or decision, from bit 8.
    pub what: u64,
    /// What the kind declares ([`Event`]).
    pub words: [u64; RECORD_WORDS],
}

/// Words of a record beside time, kind and number.
pub const RECORD_WORDS: usize = 6;

/// What a record of one kind tells, in types.
pub trait Told: Sized {
    /// The kind.
    const KIND: Kind;
    /// The words of the record.
    fn words(self) -> [u64; RECORD_WORDS];
    /// What they say, or `None` when they make no sense.
    fn read(words: &[u64; RECORD_WORDS]) -> Option<Self>;
}

/// Declares the kinds of records: `point` for those at which the world may be changed, a number, and the fields, each with the
/// word where it begins. Words without a field are 0.
macro_rules! records {
    ($(
        $(#[doc = $doc:expr])*
        $mode:ident $name:ident = $number:literal {
            $( $(#[doc = $fdoc:expr])* $at:literal $field:ident : $ty:ty ),* $(,)?
        };
    )*) => {
        /// The kinds of records.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum Kind {
            $( $(#[doc = $doc])* $name = $number, )*
        }

        impl Kind {
            /// The kind of this number.
            pub const fn of(number: u8) -> Option<Kind> {
                match number {
                    $( $number => Some(Kind::$name), )*
                    _ => None,
                }
            }

            /// Whether records of this kind are points.
            pub const fn is_point(self) -> bool {
                match self {
                    $( Kind::$name => records!(@point $mode), )*
                }
            }
        }

        /// What a record tells.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Event {
            $( $(#[doc = $doc])* $name($name), )*
        }

        impl Record {
            /// What it tells; `None` where there is no such kind, or the words make no sense.
            pub fn event(&self) -> Option<Event> {
                match self.kind()? {
                    $( Kind::$name => $name::read(&self.words).map(Event::$name), )*
                }
            }
        }

        $(
            $(#[doc = $doc])*
            #[derive(Clone, Copy, PartialEq, Eq, Debug)]
            pub struct $name {
                $( $(#[doc = $fdoc])* pub $field: $ty, )*
            }

            impl Told for $name {
                const KIND: Kind = Kind::$name;

                fn words(self) -> [u64; RECORD_WORDS] {
                    const ENDS: &[usize] = &[$( $at + <$ty as Fields>::WORDS ),*];
                    const { assert!(fit(ENDS), "more fields than words") };
                    let mut words = [0; WORDS];
                    $( self.$field.put(&mut words, $at); )*
                    core::array::from_fn(|n| words[n])
                }

                fn read(words: &[u64; RECORD_WORDS]) -> Option<Self> {
                    let words: [u64; WORDS] =
                        core::array::from_fn(|n| words.get(n).copied().unwrap_or(0));
                    Some($name { $( $field: Fields::take(&words, $at)?, )* })
                }
            }
        )*
    };
    (@point point) => { true };
    (@point note) => { false };
}

const fn fit(ends: &[usize]) -> bool {
    let mut n = 0;
    while n < ends.len() {
        if ends[n] > RECORD_WORDS {
            return false;
        }
        n += 1;
    }
    true
}

records! {
    /// A copy is about to start. An endpoint `NONE` is physical memory.
    point Copy = 1 {
        /// Who copies.
        0 copier: Endpoint,
        /// Whose memory it is: source and target.
        1 ends: (Endpoint, Endpoint),
        /// Address at the source.
        2 source: u64,
        /// Address at the target.
        3 target: u64,
        /// Bytes.
        4 len: u64,
        /// It fails at an absent page (TRY).
        5 may_fail: bool,
    };
    /// A fill is about to start.
    point Fill = 2 {
        /// Who fills.
        0 filler: Endpoint,
        /// `NONE`, and whose memory it is.
        1 ends: (Endpoint, Endpoint),
        /// Address.
        3 target: u64,
        /// Bytes.
        4 len: u64,
        /// It fails at an absent page (TRY).
        5 may_fail: bool,
    };
    /// A copy or fill met an absent page.
    note Absent = 3 {
        /// Who copies or fills.
        0 copier: Endpoint,
        /// Whose page.
        1 whose: Endpoint,
        /// Its address.
        2 address: u64,
        /// Bytes done before it.
        3 done: u64,
        /// It is the target's page.
        4 in_target: bool,
        /// What follows.
        5 then: Then,
    };
    /// A process faulted.
    point Fault = 4 {
        /// Which.
        0 who: Endpoint,
        /// Where.
        2 address: u64,
        /// The processor's error code.
        3 code: u64,
        /// The instruction.
        4 rip: u64,
    };
    /// A message was sent.
    note Message = 5 {
        /// What, from whom to whom.
        0 sent: Sent,
    };
    /// VM sends or receives a message by `call` or `post`.
    point Request = 6 {
        /// What, from whom to whom.
        0 sent: Sent,
    };
    /// A call was answered.
    note Reply = 7 {
        /// Class of the question and kind of the answer, for faults and Linux calls its status; from server to client.
        0 sent: Sent,
    };
    /// Somebody else runs.
    note Switch = 8 {
        /// Before and after.
        1 ends: (Endpoint, Endpoint),
        /// Entries into the kernel since boot.
        2 visits: u64,
    };
    /// A decision.
    note Choice = 9 {
        /// Who was chosen.
        1 chosen: Endpoint,
        /// Among how many.
        2 choices: u64,
        /// Which of them.
        3 choice: u64,
        /// About what.
        4 about: Decision,
    };
    /// A process's name.
    note Process = 10 {
        /// Which.
        0 who: Endpoint,
        /// The name, zero padded.
        2 name: [u8; 16],
        /// It runs Linux programs.
        4 linux: bool,
    };
    /// A process is gone.
    note Exit = 11 {
        /// Which.
        0 who: Endpoint,
    };
    /// VM answered for a parked copier.
    note Resumed = 12 {
        /// VM.
        0 by: Endpoint,
        /// Whom for.
        1 copier: Endpoint,
        /// 0 or a negated errno.
        2 status: u64,
    };
    /// Time passed while nobody could run.
    note Idle = 13 {
        /// How much, ns.
        2 ns: u64,
    };
    /// An entry of a grant table is about to be read.
    point Grant = 14 {
        /// Who uses the grant.
        0 user: Endpoint,
        /// Whose table.
        1 granter: Endpoint,
        /// The grant's id.
        2 id: u32,
        /// The entry's address.
        3 entry: u64,
    };
    /// A step of an exec is about to be made or queued.
    point Exec = 15 {
        /// Who makes it.
        0 who: Endpoint,
        /// Whose program.
        1 target: Endpoint,
        /// Which step.
        2 stage: Stage,
        /// First address of what it is about.
        3 address: u64,
        /// Bytes of it; 0 of nothing.
        4 len: u64,
    };
    /// A server does something for somebody else than before ([`super::Serving`]).
    note Serves = 16 {
        /// The server.
        0 server: Endpoint,
        /// Whom it serves, and with what call.
        1 client_and_call: (u32, u32),
        /// The file.
        2 file: u64,
        /// Its name.
        3 name: [u8; SERVING_NAME],
    };
    /// A server is about to allocate memory that may be refused.
    point Allocation = 17 {
        /// The server.
        0 who: Endpoint,
        /// What.
        2 wanted: Wanted,
        /// Bytes.
        3 len: u64,
    };
}

/// Class and kind of a message, or class of a question and status of its answer, in a word: the
/// class in the low byte, and what fits of the kind above it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// The class, if there is such a class.
    pub class: Option<Class>,
    /// The kind, or the status. Its highest byte is lost.
    pub kind: u64,
}

impl Head {
    /// Of a message.
    pub const fn new(class: Class, kind: u64) -> Head {
        Head {
            class: Some(class),
            kind,
        }
    }
}

impl Word for Head {
    fn to_word(self) -> u64 {
        self.class.map_or(0xff, |class| class as u64) | self.kind << 8
    }
    fn from_word(word: u64) -> Option<Head> {
        Some(Head {
            class: Class::from_word(word & 0xff),
            kind: word >> 8,
        })
    }
}

crate::fields! {
    /// A message, as far as a record has room for it.
    pub struct Sent {
        /// Class and kind.
        pub head: Head,
        /// Sender and receiver.
        pub ends: (Endpoint, Endpoint),
        /// Its first words.
        pub words: [u64; 4],
    }
}

impl Sent {
    /// Of `message`.
    pub fn new(class: Class, ends: (Endpoint, Endpoint), message: &crate::Message) -> Sent {
        Sent {
            head: Head::new(class, message.kind),
            ends,
            words: core::array::from_fn(|n| message.words[n]),
        }
    }

    /// The message again. Words that the record had no room for are 0.
    pub fn message(&self) -> crate::Message {
        let mut message = crate::Message::new(self.head.kind);
        message.words[..4].copy_from_slice(&self.words);
        message
    }

    /// The request that it is, if it is an `R`. Fields that the record had no room for are 0.
    pub fn request<R: crate::Request>(&self) -> Option<R> {
        R::decode(&self.message())
    }

    /// The number of the question that it is, or answers.
    pub fn transaction(&self) -> u64 {
        crate::message::transaction(&self.message())
    }

    /// The number of the Linux call that it is.
    pub fn linux_call(&self) -> Option<u64> {
        (self.head.class == Some(Class::Linux)).then_some(self.head.kind)
    }
}

impl Fields for [u64; 4] {
    const WORDS: usize = 4;
    fn put(self, words: &mut [u64; WORDS], at: usize) {
        words[at..at + 4].copy_from_slice(&self);
    }
    fn take(words: &[u64; WORDS], at: usize) -> Option<Self> {
        Some(core::array::from_fn(|n| words[at + n]))
    }
}

/// Text, zero padded.
impl Fields for [u8; SERVING_NAME] {
    const WORDS: usize = SERVING_NAME / 8;
    fn put(self, words: &mut [u64; WORDS], at: usize) {
        for (n, bytes) in self.as_chunks().0.iter().enumerate() {
            words[at + n] = u64::from_le_bytes(*bytes);
        }
    }
    fn take(words: &[u64; WORDS], at: usize) -> Option<Self> {
        let mut text = [0; SERVING_NAME];
        for (n, bytes) in text.as_chunks_mut().0.iter_mut().enumerate() {
            *bytes = words[at + n].to_le_bytes();
        }
        Some(text)
    }
}

/// What follows an absent page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum Then {
    /// The copy fails.
    Fails = 0,
    /// It fails, and its grant is marked.
    Marks = 1,
    /// The copier is parked.
    Parks = 2,
}

macro_rules! numbered {
    ($($name:ty: $all:expr;)*) => {$(
        impl Word for $name {
            fn to_word(self) -> u64 {
                self as u64
            }
            fn from_word(word: u64) -> Option<Self> {
                $all.into_iter().find(|&value| value as u64 == word)
            }
        }
    )*};
}
numbered! {
    Then: [Then::Fails, Then::Marks, Then::Parks];
    Decision: [Decision::Process, Decision::Message, Decision::Task];
    Stage: Stage::ALL;
    Wanted: Wanted::ALL;
    Refusal: Refusal::ALL;
    Restored: [Restored::Away, Restored::There, Restored::Later];
}

impl Record {
    /// Its kind, if there is such a kind.
    pub const fn kind(&self) -> Option<Kind> {
        Kind::of((self.what & 0xff) as u8)
    }

    /// Number of the point or decision.
    pub const fn number(&self) -> u64 {
        self.what >> 8
    }

    /// The message that was sent, if that is what it tells.
    pub fn sent(&self) -> Option<Sent> {
        match self.event()? {
            Event::Message(Message { sent }) | Event::Request(Request { sent }) => Some(sent),
            _ => None,
        }
    }
}

impl Event {
    /// Who does it, if it is a point.
    pub const fn actor(&self) -> Option<Endpoint> {
        Some(match self {
            Event::Copy(copy) => copy.copier,
            Event::Fill(fill) => fill.filler,
            Event::Fault(fault) => fault.who,
            Event::Request(request) => request.sent.ends.0,
            Event::Grant(grant) => grant.user,
            Event::Exec(exec) => exec.who,
            Event::Allocation(allocation) => allocation.who,
            _ => return None,
        })
    }
}

/// Two endpoints in a word, the first in the low half.
pub const fn pair(first: u32, second: u32) -> u64 {
    first as u64 | (second as u64) << 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Request as _;

    #[test]
    fn what_is_written_is_read() {
        let absent = Absent {
            copier: Endpoint(9),
            whose: Endpoint(40),
            address: 0x5000,
            done: 12,
            in_target: true,
            then: Then::Parks,
        };
        let record = Record {
            what: Kind::Absent as u64,
            words: absent.words(),
            ..Record::default()
        };
        assert_eq!(record.words, [9, 40, 0x5000, 12, 1, 2]);
        assert_eq!(record.event(), Some(Event::Absent(absent)));
        // What is neither yes nor no says nothing.
        let forged = Record {
            words: [9, 40, 0x5000, 12, 2, 2],
            ..record
        };
        assert_eq!(forged.event(), None);
        let name = *b"a name of twenty-four b.";
        let serves = Serves {
            server: Endpoint(3),
            client_and_call: (40, 0),
            file: 7,
            name,
        };
        assert_eq!(Serves::read(&serves.words()), Some(serves));
    }

    #[test]
    fn a_message_is_read_as_far_as_it_goes() {
        let mut message = crate::Message::new(crate::proto::vfs::PageIn::KIND);
        message.words = [7, 1, 2, 3, 4, 5, 6];
        let ends = (Endpoint::VM, Endpoint::VFS);
        let sent = Sent::new(Class::Post, ends, &message);
        let read: crate::proto::vfs::PageIn = sent.request().unwrap();
        assert_eq!((sent.transaction(), read.dev, read.ino), (7, 1, 2));
        assert_eq!((read.offset, read.before), (3, 0));
        assert_eq!(sent.request::<crate::proto::vm::Munmap>(), None);
    }
}
