//! Grants: one process's permission for another to copy to or from a range.
//!
//! A grant is an entry of a table in the granter's memory; the
//! kernel reads it at each use. Ids are an index in bits 0..20 and a per-slot sequence
//! number in bits 20..31, which advances at revoke, so that a stale id is refused.

use crate::message::Word;
use crate::{Errno, low};
use core::marker::PhantomData;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

bitflags::bitflags! {
    /// Flags of a grant entry. "Read" means that the grantee may read.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Cpf: u32 {
        /// The grantee may read.
        const READ = 0x1;
        /// The grantee may write.
        const WRITE = 0x2;
        /// A fault fails the copy and marks the entry; VM is not asked.
        const TRY = 0x10;
        /// The entry is in use.
        const USED = 0x100;
        /// A range of the granter's own memory.
        const DIRECT = 0x200;
        /// A part of a grant that the granter received.
        const INDIRECT = 0x400;
        /// A range of a third process's memory (VFS only).
        const MAGIC = 0x800;
        /// The entry is published.
        const VALID = 0x1000;
    }
}

/// What a grantee may do with the memory behind a grant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Read: data flows from the memory (`write(2)`).
    Read,
    /// Write: data flows into the memory (`read(2)`).
    Write,
    /// Both (`ioctl(2)`).
    Both,
}

impl Access {
    /// As bits of an entry.
    pub const fn bits(self) -> Cpf {
        match self {
            Access::Read => Cpf::READ,
            Access::Write => Cpf::WRITE,
            Access::Both => Cpf::READ.union(Cpf::WRITE),
        }
    }

    /// Whether the memory changes, so that it must be repaired for writing.
    pub const fn writes(self) -> bool {
        !matches!(self, Access::Read)
    }
}

/// An [`Access`] as a type.
pub trait Direction: Copy + core::fmt::Debug {
    /// Which.
    const ACCESS: Access;
}

macro_rules! directions {
    ($($(#[$doc:meta])* $name:ident = $access:ident, $to:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum $name {}
        impl Direction for $name {
            const ACCESS: Access = Access::$access;
        }
        #[doc = concat!("The id of a grant with [`Access::", stringify!($access), "`].")]
        pub type $to = GrantTo<$name>;
    )*};
}

directions! {
    /// [`Access::Read`].
    Reading = Read, ToRead;
    /// [`Access::Write`].
    Writing = Write, ToWrite;
    /// [`Access::Both`], where the request says which of them it is.
    Either = Both, ToEither;
}

/// The id of a grant as operations carry it: the type says what whoever hears it does with the memory, so that a
/// server cannot fill what it was lent to read. The kernel believes none of that: it looks at the entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GrantTo<D> {
    id: i32,
    direction: PhantomData<fn() -> D>,
}

impl<D> GrantTo<D> {
    /// No grant.
    pub const NONE: Self = Self::new(GRANT_INVALID);

    /// The grant of this id.
    pub const fn new(id: i32) -> Self {
        GrantTo {
            id,
            direction: PhantomData,
        }
    }

    /// Its id.
    pub const fn id(&self) -> i32 {
        self.id
    }

    /// Whether it is a grant at all: [`split`] takes it.
    pub const fn is_some(&self) -> bool {
        self.id >= 0
    }
}

impl ToEither {
    /// Of a request that reads.
    pub const fn to_read(self) -> ToRead {
        GrantTo::new(self.id)
    }

    /// Of a request that writes.
    pub const fn to_write(self) -> ToWrite {
        GrantTo::new(self.id)
    }
}

impl<D> Word for GrantTo<D> {
    #[inline(always)]
    fn to_word(self) -> u64 {
        self.id.to_word()
    }
    #[inline(always)]
    fn from_word(word: u64) -> Option<Self> {
        i32::from_word(word).map(GrantTo::new)
    }
}

/// No grant.
pub const GRANT_INVALID: i32 = -1;
/// Bits of the index in an id.
pub const INDEX_BITS: u32 = 20;
/// Largest sequence number.
pub const SEQUENCE_MAX: u32 = 2047;
/// Longest chain of indirect grants.
pub const MAX_INDIRECT: usize = 5;

/// One entry, 48 bytes. `flags` is written last when publishing and first when revoking.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GrantEntry {
    /// [`Cpf`].
    pub flags: u32,
    /// Sequence number that ids of this entry must carry.
    pub sequence: u32,
    /// Who may use it (or [`crate::Endpoint::ANY`]).
    pub grantee: u32,
    /// Direct: unused. Indirect: the previous granter. Magic: the subject process.
    pub subject: u32,
    /// First byte (direct, magic), or the previous granter's grant id (indirect).
    pub start: u64,
    /// Bytes (direct, magic).
    pub len: u64,
    /// Written by the kernel when a copy failed softly: the id that was used; else
    /// [`GRANT_INVALID`].
    pub faulted: i32,
    /// Zero.
    pub reserved: u32,
    /// Zero.
    pub reserved2: u64,
}

const _: () = assert!(size_of::<GrantEntry>() == 48);

impl GrantEntry {
    /// A free entry.
    pub const FREE: GrantEntry = GrantEntry {
        flags: 0,
        sequence: 0,
        grantee: 0,
        subject: 0,
        start: 0,
        len: 0,
        faulted: GRANT_INVALID,
        reserved: 0,
        reserved2: 0,
    };
}

/// A grant id: `index | sequence << 20`, never negative.
pub const fn id(index: usize, sequence: u32) -> i32 {
    let index = low(index as u64) & ((1 << INDEX_BITS) - 1);
    (index | (sequence & SEQUENCE_MAX) << INDEX_BITS).cast_signed()
}

/// Index and sequence of an id; `EINVAL` when negative.
pub const fn split(id: i32) -> Result<(usize, u32), Errno> {
    if id < 0 {
        return Err(Errno::EINVAL);
    }
    let id = id.cast_unsigned();
    Ok(((id & ((1 << INDEX_BITS) - 1)) as usize, id >> INDEX_BITS))
}
