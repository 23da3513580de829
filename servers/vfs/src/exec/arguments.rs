//! Argument and environment strings, in one piece of memory.

use crate::user::Pages;
use abi::Errno;
use alloc::vec::Vec;
use libexec::stack::{Budget, STRING_MAX};
use rt::charge::{Charge, Payer};

/// Strings without their NULs.
#[derive(Clone, Default)]
pub struct Strings {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl Strings {
    /// From any strings.
    pub fn new<'a>(strings: impl Iterator<Item = &'a [u8]>) -> Strings {
        let mut all = Strings::default();
        for string in strings {
            all.bytes.extend_from_slice(string);
            all.ends.push(all.bytes.len() as u32);
        }
        all
    }

    /// Reads a null-terminated list of pointers to strings; a null list is empty. `charge`
    /// grows by what they take, here and in the frame. `E2BIG`, `ENOMEM`.
    pub async fn read(
        pages: &mut Pages,
        list: u64,
        budget: &mut Budget,
        charge: &mut Charge,
        payer: Payer,
    ) -> Result<Strings, Errno> {
        let mut all = Strings::default();
        if list == 0 {
            return Ok(all);
        }
        for index in 0u64.. {
            let at = list.checked_add(index * 8).ok_or(Errno::EFAULT)?;
            let pointer = pages.word(at).await?;
            if pointer == 0 {
                break;
            }
            let start = all.bytes.len();
            let max = budget.left().min(STRING_MAX) as usize;
            pages.string(pointer, max, &mut all.bytes).await?;
            let len = (all.bytes.len() - start) as u64;
            budget.add(len)?;
            if !charge.resize(payer, charge.amount() + 2 * (len + 1 + 8)) {
                return Err(Errno::ENOMEM);
            }
            all.ends.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
            all.ends.push(all.bytes.len() as u32);
        }
        Ok(all)
    }

    /// The strings.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> + Clone {
        (0..self.ends.len()).map(|i| {
            let start = if i == 0 { 0 } else { self.ends[i - 1] };
            &self.bytes[start as usize..self.ends[i] as usize]
        })
    }

    /// Puts other strings in the place of the first. `E2BIG` is found when the frame is
    /// built.
    pub fn replace_first(&mut self, front: &[&[u8]]) {
        let rest = self.iter().skip(1);
        *self = Strings::new(front.iter().copied().chain(rest));
    }
}
