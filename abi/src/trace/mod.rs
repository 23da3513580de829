//! The absence laboratory's shared memory: what the kernel counts, traces and asks, and what
//! the VMM answers.
//!
//! [`Control`] lies in the kernel's image. The kernel announces it at boot
//! ([`crate::lab::CONTROL`]) and the VMM fills in its half before the first process runs. With
//! [`Control::on`] 0 the kernel spends a load and a branch at each place.
//!
//! * A **record** ([`Record`]) says what happened ([`Event`]). Records go to a ring and into a hash.
//! * A **point** is a record at which the world may be changed. Points are numbered; at the
//!   number in [`Control::ask`] the kernel leaves to the VMM ([`crate::lab::POINT`]).
//! * A **decision** is a choice among things that may all happen next. Decisions are numbered,
//!   too, and [`Control::mode`] makes them.

mod record;

pub use record::*;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `Control::magic`.
pub const CONTROL_MAGIC: u64 = u64::from_le_bytes(*b"CONTROL1");
/// `Control::ask` when no point is wanted.
pub const NEVER: u64 = u64::MAX;
/// Records in the ring. The kernel leaves to the VMM when it is full.
pub const RING: usize = 1024;
/// Frames that can be withdrawn at one time.
pub const WITHDRAWN: usize = 8;
/// In `Control::withdrawn`: the frame comes back at some time, without being asked for.
pub const WITHDRAWN_COMES: u64 = 1;
/// Choices that differ from the first, in a list.
pub const CHOICES: usize = 256;

/// See the module. All words little endian.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Control {
    /// [`CONTROL_MAGIC`].
    pub magic: u64,

    // -- the VMM's half
    /// 1: count, trace and ask.
    pub on: u64,
    /// The point to leave at; [`NEVER`].
    pub ask: u64,
    /// How decisions are made: a [`Mode`].
    pub mode: u64,
    /// Seed of [`Mode::Random`] and [`Mode::Priorities`].
    pub seed: u64,
    /// The decisions that those make, `[start, end)`; outside it is the first choice.
    pub window: [u64; 2],
    /// Deliberate defects, a bit of [`crate::sabotage`] each.
    pub sabotage: u64,
    /// How many of `choices` count.
    pub choice_count: u64,
    /// [`Mode::List`]: the decision's number in the low half, the choice in the high half,
    /// ascending.
    pub choices: [u64; CHOICES],
    /// How many of `withdrawn` count.
    pub withdrawn_count: u64,
    /// Physical addresses of frames that are not there, whatever page tables say;
    /// [`WITHDRAWN_COMES`] is added where a frame will come by itself.
    pub withdrawn: [u64; WITHDRAWN],
    /// At a point of the kind [`Kind::Allocation`]: what becomes of it, a [`Refusal`]. The kernel
    /// takes it.
    pub refuse: u64,

    // -- the kernel's half
    /// Points passed: the number of the next one.
    pub points: u64,
    /// Decisions made.
    pub decisions: u64,
    /// Records written; the newest is `ring[(records - 1) % RING]`.
    pub records: u64,
    /// Hash of all records, see [`mix`].
    pub hash: u64,
    /// Virtual time when VM last asked for a frame, ns.
    pub time: u64,
    /// Physical address of the ring: [`RING`] [`Record`]s.
    pub ring: u64,
    /// Where a page fault of the kernel is an ordinary value: the copy routines' instructions,
    /// `[start, end)`.
    pub guarded: [u64; 2],
}

impl Control {
    /// Everything off.
    pub const OFF: Control = Control {
        magic: CONTROL_MAGIC,
        on: 0,
        ask: NEVER,
        mode: Mode::First as u64,
        seed: 0,
        window: [0, u64::MAX],
        sabotage: 0,
        choice_count: 0,
        choices: [0; CHOICES],
        withdrawn_count: 0,
        withdrawn: [0; WITHDRAWN],
        refuse: 0,
        points: 0,
        decisions: 0,
        records: 0,
        hash: 0,
        time: 0,
        ring: 0,
        guarded: [0; 2],
    };
}

/// How decisions are made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum Mode {
    /// There are none: whoever comes first by priority and age. What happens without a lab.
    First = 0,
    /// At random, from the seed and the decision's number.
    Random = 1,
    /// The one with the highest of random priorities, some of which change at random moments
    /// (PCT: Burckhardt et al., "A randomized scheduler with probabilistic guarantees", 2010).
    Priorities = 2,
    /// The first, except where the list says otherwise.
    List = 3,
}

/// Bytes of a name in [`Serving`].
pub const SERVING_NAME: usize = 24;

/// What a server is doing and for whom: it keeps this where it told the kernel
/// ([`crate::kernel::Kcall::LabServing`]), and the kernel looks when it records what the server does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Serving {
    /// Endpoint of the process that is served.
    pub client: u32,
    /// Number of its Linux call; for anything else the kind of the message; [`NO_CALL`].
    pub call: u32,
    /// The file: [`Serving::file`]; 0 is none.
    pub file: u64,
    /// Its name without a path, cut, zero padded.
    pub name: [u8; SERVING_NAME],
}

/// `Serving::call` of a server that serves nobody.
pub const NO_CALL: u32 = u32::MAX;

impl Serving {
    /// Nobody.
    pub const NOBODY: Serving = Serving {
        client: crate::Endpoint::NONE.0,
        call: NO_CALL,
        file: 0,
        name: [0; SERVING_NAME],
    };

    /// Names a file by device and inode.
    pub const fn file(dev: u64, ino: u64) -> u64 {
        dev << 40 | ino & ((1 << 40) - 1)
    }
}

/// What is about to be allocated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum Wanted {
    /// A small block of a heap, which the reserve serves when VM has nothing.
    Small = 1,
    /// A large block of a heap: whole pages.
    Large = 2,
    /// What a heap's reserve may lack, before a message is looked at.
    Reserve = 3,
    /// Frames of VM for a program.
    Program = 4,
    /// Frames of VM for a service, and for what must go on.
    Service = 5,
}

impl Wanted {
    /// All of them.
    pub const ALL: [Wanted; 5] = [
        Wanted::Small,
        Wanted::Large,
        Wanted::Reserve,
        Wanted::Program,
        Wanted::Service,
    ];
}

/// What becomes of an allocation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u64)]
pub enum Refusal {
    /// It is made.
    #[default]
    No = 0,
    /// There is nothing for it.
    Once = 1,
    /// Memory is used up: there is nothing for it, nor for any later one that needs more than what
    /// is given back meanwhile.
    Exhausted = 2,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Refusal; 3] = [Refusal::No, Refusal::Once, Refusal::Exhausted];

    /// The one of this number; [`Refusal::No`] of others.
    pub const fn of(number: u64) -> Refusal {
        match number {
            1 => Refusal::Once,
            2 => Refusal::Exhausted,
            _ => Refusal::No,
        }
    }
}

/// Where a frame is that the laboratory took away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum Restored {
    /// It stays away.
    Away = 0,
    /// It is there.
    There = 1,
    /// It will come, but is not there yet.
    Later = 2,
}

/// Steps of an exec.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum Stage {
    /// The old program's memory goes.
    Clear = 1,
    /// Memory comes: of the file, or zeroes.
    Map = 2,
    /// A part of the file is copied.
    Copy = 3,
    /// Access changes.
    Protect = 4,
    /// The stack comes, and what it begins with.
    Stack = 5,
    /// The new program is about to run.
    Start = 6,
}

impl Stage {
    /// All of them.
    pub const ALL: [Stage; 6] = [
        Stage::Clear,
        Stage::Map,
        Stage::Copy,
        Stage::Protect,
        Stage::Stack,
        Stage::Start,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Stage::Clear => "clear",
            Stage::Map => "map",
            Stage::Copy => "copy",
            Stage::Protect => "protect",
            Stage::Stack => "stack",
            Stage::Start => "start",
        }
    }
}

/// What a decision is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum Decision {
    /// Which process runs.
    Process = 0,
    /// Which message is received.
    Message = 1,
    /// Which task of a server goes on.
    Task = 2,
}

/// The hash of a trace and one more record. Order matters.
pub const fn mix(mut hash: u64, record: &Record) -> u64 {
    const PRIME: u64 = 0x9e37_79b9_7f4a_7c15;
    let w = &record.words;
    let words = [record.time, record.what, w[0], w[1], w[2], w[3], w[4], w[5]];
    let mut i = 0;
    while i < words.len() {
        hash = (hash ^ words[i]).wrapping_mul(PRIME);
        hash ^= hash >> 29;
        i += 1;
    }
    hash
}

/// A pseudo-random number for this seed and index (the SplitMix64 finalizer).
pub const fn random(seed: u64, index: u64) -> u64 {
    let mut z = seed ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_their_numbers() {
        for number in 0..=u8::MAX {
            if let Some(kind) = Kind::of(number) {
                assert_eq!(kind as u8, number);
            }
        }
        assert_eq!(size_of::<Record>(), 64);
        // It fills a record beside the server's endpoint.
        assert_eq!(size_of::<Serving>(), 5 * 8);
    }

    #[test]
    fn the_hash_depends_on_order_and_content() {
        let record = |word| Record {
            words: [word; 6],
            ..Record::default()
        };
        let (a, b) = (record(1), record(2));
        assert_ne!(mix(mix(0, &a), &b), mix(mix(0, &b), &a));
        assert_ne!(mix(0, &a), mix(0, &b));
    }
}
