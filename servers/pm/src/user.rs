//! Copies between PM and the memory of processes: the one place that decides about absent
//! pages.
//!
//! Every copy is first tried without waiting. Only when that meets an absent page does PM let
//! the kernel ask VM and wait for the repair. The wait cannot deadlock: a page-in needs VM,
//! VFS and a file system, and none of them ever waits for PM (VFS *posts* what it has to
//! tell PM, even at the end of an exec).

use crate::server::Pm;
use crate::system::System;
use abi::kernel::user_range;
use abi::{Endpoint, Errno};

/// What a program is told of memory that cannot be reached: there is none for a page of it, or it
/// is a bad address.
fn unreachable(errno: Errno) -> Errno {
    match errno {
        Errno::ENOMEM => errno,
        _ => Errno::EFAULT,
    }
}

impl<S: System> Pm<S> {
    /// Copies bytes from a process.
    pub fn read_bytes(
        &mut self,
        who: Endpoint,
        address: u64,
        buffer: &mut [u8],
    ) -> Result<(), Errno> {
        user_range(address, buffer.len() as u64)?;
        match self.sys.read(who, address, buffer, false) {
            Err(Errno::EFAULT) => self.sys.read(who, address, buffer, true),
            other => other,
        }
        .map_err(unreachable)
    }

    /// Copies bytes to a process.
    pub fn write_bytes(&mut self, who: Endpoint, address: u64, buffer: &[u8]) -> Result<(), Errno> {
        user_range(address, buffer.len() as u64)?;
        match self.sys.write(who, address, buffer, false) {
            Err(Errno::EFAULT) => self.sys.write(who, address, buffer, true),
            other => other,
        }
        .map_err(unreachable)
    }

    /// Reads `N` 64-bit words, which is what most of Linux's structures are.
    pub fn read_words<const N: usize>(
        &mut self,
        who: Endpoint,
        address: u64,
    ) -> Result<[u64; N], Errno> {
        let mut words = [0; N];
        let mut bytes = [[0u8; 8]; N];
        self.read_bytes(who, address, bytes.as_flattened_mut())?;
        for (word, bytes) in words.iter_mut().zip(bytes) {
            *word = u64::from_le_bytes(bytes);
        }
        Ok(words)
    }

    /// Writes 64-bit words.
    pub fn write_words<const N: usize>(
        &mut self,
        who: Endpoint,
        address: u64,
        words: [u64; N],
    ) -> Result<(), Errno> {
        let bytes = words.map(u64::to_le_bytes);
        self.write_bytes(who, address, bytes.as_flattened())
    }

    /// [`Pm::write_words`] unless the pointer is null.
    pub fn write_words_opt<const N: usize>(
        &mut self,
        who: Endpoint,
        address: u64,
        words: [u64; N],
    ) -> Result<(), Errno> {
        if address == 0 {
            return Ok(());
        }
        self.write_words(who, address, words)
    }

    /// Reads a 32-bit word.
    pub fn read_u32(&mut self, who: Endpoint, address: u64) -> Result<u32, Errno> {
        let mut bytes = [0; 4];
        self.read_bytes(who, address, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// Writes a 32-bit word.
    pub fn write_u32(&mut self, who: Endpoint, address: u64, value: u32) -> Result<(), Errno> {
        self.write_bytes(who, address, &value.to_le_bytes())
    }

    /// [`Pm::write_u32`] unless the pointer is null.
    pub fn write_u32_opt(&mut self, who: Endpoint, address: u64, value: u32) -> Result<(), Errno> {
        if address == 0 {
            return Ok(());
        }
        self.write_u32(who, address, value)
    }
}
