//! How values become words of a message, and come back only when the words are such values.

use super::WORDS;
use crate::{Endpoint, Errno};

/// A value that takes one word of a message.
pub trait Word: Sized {
    /// The word.
    fn to_word(self) -> u64;
    /// The value, or `None` when the word is not one.
    fn from_word(word: u64) -> Option<Self>;
}

/// A value that takes any number of words of a message, one after the other: a [`Word`], a
/// structure of such values ([`crate::fields!`]), or several of these.
pub trait Fields: Sized {
    /// How many.
    const WORDS: usize;
    /// What a structure's parts are called and what they are, for documents.
    const PARTS: &'static [(&'static str, &'static str)] = &[];
    /// Puts the value into the words from `at` on.
    fn put(self, words: &mut [u64; WORDS], at: usize);
    /// The value in the words from `at` on, or `None` when they are not one.
    fn take(words: &[u64; WORDS], at: usize) -> Option<Self>;
}

/// Values that [`crate::fields!`] declares. A message may carry several of them in an array.
pub trait Structure: Fields + Copy {}

impl<T: Word> Fields for T {
    const WORDS: usize = 1;
    #[inline(always)]
    fn put(self, words: &mut [u64; WORDS], at: usize) {
        words[at] = self.to_word();
    }
    #[inline(always)]
    fn take(words: &[u64; WORDS], at: usize) -> Option<Self> {
        T::from_word(words[at])
    }
}

impl Fields for () {
    const WORDS: usize = 0;
    #[inline(always)]
    fn put(self, _: &mut [u64; WORDS], _: usize) {}
    #[inline(always)]
    fn take(_: &[u64; WORDS], _: usize) -> Option<Self> {
        Some(())
    }
}

impl<T: Structure, const N: usize> Fields for [T; N] {
    const WORDS: usize = N * T::WORDS;
    #[inline(always)]
    fn put(self, words: &mut [u64; WORDS], at: usize) {
        for (n, value) in self.into_iter().enumerate() {
            value.put(words, at + n * T::WORDS);
        }
    }
    #[inline(always)]
    fn take(words: &[u64; WORDS], at: usize) -> Option<Self> {
        let mut values = [T::take(words, at)?; N];
        for (n, value) in values.iter_mut().enumerate() {
            *value = T::take(words, at + n * T::WORDS)?;
        }
        Some(values)
    }
}

/// Up to sixteen bytes of text, zero padded.
impl Fields for [u8; 16] {
    const WORDS: usize = 2;
    #[inline(always)]
    fn put(self, words: &mut [u64; WORDS], at: usize) {
        let text = u128::from_le_bytes(self);
        words[at] = text as u64;
        words[at + 1] = (text >> 64) as u64;
    }
    #[inline(always)]
    fn take(words: &[u64; WORDS], at: usize) -> Option<Self> {
        let text = u128::from(words[at]) | u128::from(words[at + 1]) << 64;
        Some(text.to_le_bytes())
    }
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
    #[inline(always)]
    fn to_word(self) -> u64 {
        self as u64
    }
    #[inline(always)]
    fn from_word(word: u64) -> Option<Self> {
        match word {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

impl Word for Endpoint {
    #[inline(always)]
    fn to_word(self) -> u64 {
        self.0 as u64
    }
    #[inline(always)]
    fn from_word(word: u64) -> Option<Self> {
        u32::from_word(word).map(Endpoint)
    }
}

/// A status carried as a field: 0 or a negated errno.
impl Word for Result<(), Errno> {
    #[inline(always)]
    fn to_word(self) -> u64 {
        match self {
            Ok(()) => 0,
            Err(errno) => errno.to_word(),
        }
    }
    #[inline(always)]
    fn from_word(word: u64) -> Option<Self> {
        Some(crate::errno::result_from_word(word).map(|_| ()))
    }
}

/// Two 32-bit values in one word, the first in the low half.
impl Word for (u32, u32) {
    #[inline(always)]
    fn to_word(self) -> u64 {
        self.0 as u64 | (self.1 as u64) << 32
    }
    #[inline(always)]
    fn from_word(word: u64) -> Option<Self> {
        Some((word as u32, (word >> 32) as u32))
    }
}

/// Two endpoints in one word, the first in the low half.
impl Word for (Endpoint, Endpoint) {
    #[inline(always)]
    fn to_word(self) -> u64 {
        (self.0.0, self.1.0).to_word()
    }
    #[inline(always)]
    fn from_word(word: u64) -> Option<Self> {
        let (first, second) = Word::from_word(word)?;
        Some((Endpoint(first), Endpoint(second)))
    }
}

/// Up to eight bytes of text, zero padded.
impl Word for [u8; 8] {
    #[inline(always)]
    fn to_word(self) -> u64 {
        u64::from_le_bytes(self)
    }
    #[inline(always)]
    fn from_word(word: u64) -> Option<Self> {
        Some(word.to_le_bytes())
    }
}

/// Declares a structure whose fields are [`Fields`], in order.
#[macro_export]
macro_rules! fields {
    (
        $(#[$meta:meta])*
        pub struct $name:ident { $( $(#[$fmeta:meta])* pub $field:ident : $ty:ty ),* $(,)? }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name { $( $(#[$fmeta])* pub $field: $ty ),* }

        impl $crate::message::fields::Structure for $name {}

        impl $crate::message::Fields for $name {
            const WORDS: usize = 0 $( + <$ty as $crate::message::Fields>::WORDS )*;
            const PARTS: &'static [(&'static str, &'static str)] =
                &[$( (stringify!($field), stringify!($ty)) ),*];

            #[inline(always)]
            #[allow(unused_mut, unused_variables, unused_assignments)]
            fn put(self, words: &mut [u64; $crate::message::WORDS], at: usize) {
                let mut at = at;
                $(
                    $crate::message::Fields::put(self.$field, words, at);
                    at += <$ty as $crate::message::Fields>::WORDS;
                )*
            }

            #[inline(always)]
            #[allow(unused_mut, unused_variables, unused_assignments)]
            fn take(words: &[u64; $crate::message::WORDS], at: usize) -> Option<Self> {
                let mut at = at;
                $(
                    let $field = <$ty as $crate::message::Fields>::take(words, at)?;
                    at += <$ty as $crate::message::Fields>::WORDS;
                )*
                Some($name { $($field),* })
            }
        }
    };
}
