//! What kernel calls are made of: values, and memory of the caller's that the kernel reads or writes.
//!
//! A caller says [`In`], [`Out`] and the like, which are made of references and so are memory that it may hand
//! out; the kernel hears [`At`], [`Row`] and [`Span`], which are numbers until it has looked.

use crate::errno::result_from_word;
use crate::kernel::StopState;
use crate::message::{Fields, Word};
use crate::{Endpoint, Errno};
use core::cell::Cell;
use core::marker::PhantomData;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// An argument of a kernel call.
pub trait Argument {
    /// What the kernel hears of it.
    type Heard: Fields;
    /// The same, without what it borrows.
    fn said(self) -> Self::Heard;
}

impl<T: Fields> Argument for T {
    type Heard = T;
    #[inline(always)]
    fn said(self) -> T {
        self
    }
}

/// A value of the caller's that the kernel reads.
#[derive(Clone, Copy, Debug)]
pub struct In<'a, T>(&'a T);

impl<'a, T: IntoBytes + Immutable> In<'a, T> {
    /// This one.
    #[inline(always)]
    pub const fn of(value: &'a T) -> Self {
        In(value)
    }
}

impl<'a, T: IntoBytes> In<'a, Cell<T>> {
    /// This one, which the kernel reads again and again while it changes.
    #[inline(always)]
    pub const fn watched(value: &'a Cell<T>) -> Self {
        In(value)
    }
}

impl<T> Argument for In<'_, T> {
    type Heard = At<T>;
    #[inline(always)]
    fn said(self) -> At<T> {
        At::new(&raw const *self.0 as u64)
    }
}

/// A value of the caller's that the kernel writes.
#[derive(Debug)]
pub struct Out<'a, T>(&'a mut T);

impl<'a, T: FromBytes> Out<'a, T> {
    /// This one.
    #[inline(always)]
    pub const fn to(value: &'a mut T) -> Self {
        Out(value)
    }
}

impl<T> Argument for Out<'_, T> {
    type Heard = At<T>;
    #[inline(always)]
    fn said(self) -> At<T> {
        At::new(&raw mut *self.0 as u64)
    }
}

/// Values of the caller's that the kernel reads.
#[derive(Clone, Copy, Debug)]
pub struct InRow<'a, T>(&'a [T]);

impl<'a, T: IntoBytes + Immutable> InRow<'a, T> {
    /// These.
    #[inline(always)]
    pub const fn of(values: &'a [T]) -> Self {
        InRow(values)
    }
}

impl<T> Argument for InRow<'_, T> {
    type Heard = Row<T>;
    #[inline(always)]
    fn said(self) -> Row<T> {
        Row {
            first: At::new(self.0.as_ptr() as u64),
            count: self.0.len() as u64,
        }
    }
}

/// Bytes of the caller's that the kernel reads.
#[derive(Clone, Copy, Debug)]
pub struct InBytes<'a>(pub &'a [u8]);

impl Argument for InBytes<'_> {
    type Heard = Span;
    #[inline(always)]
    fn said(self) -> Span {
        Span {
            address: self.0.as_ptr() as u64,
            len: self.0.len() as u64,
        }
    }
}

/// Bytes of the caller's that the kernel writes.
#[derive(Debug)]
pub struct OutBytes<'a>(pub &'a mut [u8]);

impl Argument for OutBytes<'_> {
    type Heard = Span;
    #[inline(always)]
    fn said(self) -> Span {
        Span {
            address: self.0.as_mut_ptr() as u64,
            len: self.0.len() as u64,
        }
    }
}

/// Where the caller says that it has a `T`.
#[derive(Debug)]
pub struct At<T> {
    /// The address, which may be anything.
    pub address: u64,
    what: PhantomData<fn() -> T>,
}

impl<T> Clone for At<T> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for At<T> {}

impl<T> At<T> {
    /// A `T` is said to be here.
    #[inline(always)]
    pub const fn new(address: u64) -> Self {
        At {
            address,
            what: PhantomData,
        }
    }
}

impl<T> Fields for At<T> {
    const WORDS: usize = 1;
    #[inline(always)]
    fn put(self, words: &mut [u64; crate::message::WORDS], at: usize) {
        words[at] = self.address;
    }
    #[inline(always)]
    fn take(words: &[u64; crate::message::WORDS], at: usize) -> Option<Self> {
        Some(At::new(words[at]))
    }
}

/// Where the caller says that it has several `T`s, one behind the other.
#[derive(Clone, Copy, Debug)]
pub struct Row<T> {
    first: At<T>,
    /// How many.
    pub count: u64,
}

impl<T> Row<T> {
    /// The `n`-th.
    #[inline(always)]
    pub const fn at(&self, n: u64) -> At<T> {
        let before = n.wrapping_mul(size_of::<T>() as u64);
        At::new(self.first.address.wrapping_add(before))
    }

    /// So many are said to be here.
    pub const fn new(address: u64, count: u64) -> Self {
        Row {
            first: At::new(address),
            count,
        }
    }
}

impl<T> Fields for Row<T> {
    const WORDS: usize = 2;
    #[inline(always)]
    fn put(self, words: &mut [u64; crate::message::WORDS], at: usize) {
        words[at] = self.first.address;
        words[at + 1] = self.count;
    }
    #[inline(always)]
    fn take(words: &[u64; crate::message::WORDS], at: usize) -> Option<Self> {
        Some(Row::new(words[at], words[at + 1]))
    }
}

crate::fields! {
    /// Where the caller says that it has bytes.
    pub struct Span {
        /// The first.
        pub address: u64,
        /// How many.
        pub len: u64,
    }
}

/// What a kernel call returns where it does not fail.
pub trait Answer: Sized {
    /// As a word.
    fn to_register(self) -> u64;
    /// From one; `None` when the word is not such a value.
    fn of_register(word: u64) -> Option<Self>;
}

impl Answer for () {
    #[inline(always)]
    fn to_register(self) -> u64 {
        0
    }
    #[inline(always)]
    fn of_register(_: u64) -> Option<()> {
        Some(())
    }
}

impl<T: Word> Answer for T {
    #[inline(always)]
    fn to_register(self) -> u64 {
        self.to_word()
    }
    #[inline(always)]
    fn of_register(word: u64) -> Option<T> {
        T::from_word(word)
    }
}

/// What a call that returned `word` has come to.
#[inline(always)]
pub fn answered<T: Answer>(word: u64) -> Result<T, Errno> {
    T::of_register(result_from_word(word)?).ok_or(Errno::EIO)
}

/// What [`super::calls::ProcStop`] found, and for [`StopState::Busy`] the server.
impl Word for (StopState, Endpoint) {
    #[inline(always)]
    fn to_word(self) -> u64 {
        self.0 as u64 | u64::from(self.1.0) << 8
    }
    #[inline(always)]
    fn from_word(word: u64) -> Option<Self> {
        let state = match word & 0xff {
            0 => StopState::Boundary,
            1 => StopState::Busy,
            2 => StopState::Faulting,
            3 => StopState::Entering,
            _ => return None,
        };
        Some((state, Endpoint::from_word(word >> 8)?))
    }
}
