//! Sets of registers by PTRACE_GETREGSET and its older relatives.

use super::registers::{BYTES, WORDS};
use crate::calls::Caller;
use crate::server::Pm;
use crate::signal::frame::{HEADER_END, LEGACY_BYTES, checked_fpu};
use crate::system::System;
use abi::{Errno, PAGE};
use alloc::vec;
use alloc::vec::Vec;

/// The general registers.
pub const NT_PRSTATUS: u64 = 1;
/// x87 and SSE, as FXSAVE writes them.
pub const NT_PRFPREG: u64 = 2;
/// All vector state, as XSAVE writes it.
pub const NT_X86_XSTATE: u64 = 0x202;

/// Where the XSAVE area names the state components that there are (software bytes).
const XCR0: usize = 464;
/// Where its header names those that it holds.
const XSTATE_BV: usize = 512;

impl<S: System> Pm<S> {
    /// The bytes of a set.
    pub(super) fn register_set(&mut self, slot: usize, set: u64) -> Result<Vec<u8>, Errno> {
        let who = self.table.thread(slot).ok_or(Errno::ESRCH)?.endpoint;
        match set {
            NT_PRSTATUS => {
                let words = self.user_registers(slot)?.map(u64::to_le_bytes);
                Ok(words.as_flattened().to_vec())
            }
            NT_PRFPREG => {
                let mut area = self.sys.fpu(who)?;
                area.truncate(LEGACY_BYTES);
                Ok(area)
            }
            NT_X86_XSTATE => {
                let mut area = self.sys.fpu(who)?;
                if area.len() < HEADER_END {
                    return Err(Errno::ENODEV);
                }
                area[XCR0..XCR0 + 8].copy_from_slice(&self.sys.xfeatures().to_le_bytes());
                Ok(area)
            }
            _ => Err(Errno::EINVAL),
        }
    }

    /// Replaces the first bytes of a set.
    pub(super) fn set_register_set(
        &mut self,
        slot: usize,
        set: u64,
        bytes: &[u8],
    ) -> Result<(), Errno> {
        let who = self.table.thread(slot).ok_or(Errno::ESRCH)?.endpoint;
        if set == NT_PRSTATUS {
            let mut words: [u64; WORDS] = self.user_registers(slot)?;
            let (new, _) = bytes.as_chunks::<8>();
            for (word, bytes) in words.iter_mut().zip(new) {
                *word = u64::from_le_bytes(*bytes);
            }
            return self.set_user_registers(slot, &words);
        }
        let old = self.sys.fpu(who)?;
        let ours = old.len();
        let mut area = old;
        let limit = match set {
            NT_PRFPREG => LEGACY_BYTES,
            // Linux takes nothing less than the whole.
            NT_X86_XSTATE if ours >= HEADER_END && bytes.len() == ours => ours,
            NT_X86_XSTATE if ours < HEADER_END => return Err(Errno::ENODEV),
            NT_X86_XSTATE => return Err(Errno::EFAULT),
            _ => return Err(Errno::EINVAL),
        };
        let n = bytes.len().min(limit);
        area[..n].copy_from_slice(&bytes[..n]);
        if ours >= HEADER_END
            && let Some(holds) = area.get_mut(XSTATE_BV..XSTATE_BV + 8)
        {
            let mut features = u64::from_le_bytes(holds.try_into().unwrap_or_default());
            if set == NT_PRFPREG {
                features |= 3;
            } else if features & !self.sys.xfeatures() != 0 {
                return Err(Errno::EINVAL);
            }
            holds.copy_from_slice(&features.to_le_bytes());
        }
        let xfeatures = self.sys.xfeatures();
        let area = checked_fpu(area, ours, xfeatures, true).ok_or(Errno::EINVAL)?;
        self.sys.set_fpu(who, &area).map_err(|_| Errno::EIO)
    }

    /// PTRACE_GETREGSET: as much of a set as fits the iovec, whose length is then what that was.
    pub(super) fn get_regset(
        &mut self,
        caller: Caller,
        slot: usize,
        set: u64,
        iovec: u64,
    ) -> Result<(), Errno> {
        let [base, len] = self.read_words(caller.who, iovec)?;
        let bytes = self.register_set(slot, set)?;
        check(len)?;
        let n = (bytes.len() as u64).min(len) as usize;
        self.write_bytes(caller.who, base, &bytes[..n])?;
        self.write_words(caller.who, iovec.wrapping_add(8), [n as u64])
    }

    /// PTRACE_SETREGSET.
    pub(super) fn set_regset(
        &mut self,
        caller: Caller,
        slot: usize,
        set: u64,
        iovec: u64,
    ) -> Result<(), Errno> {
        let [base, len] = self.read_words(caller.who, iovec)?;
        let whole = self.register_set(slot, set)?.len() as u64;
        check(len)?;
        let mut bytes = vec![0; len.min(whole).min(4 * PAGE) as usize];
        self.read_bytes(caller.who, base, &mut bytes)?;
        self.set_register_set(slot, set, &bytes)?;
        self.write_words(caller.who, iovec.wrapping_add(8), [bytes.len() as u64])
    }

    /// PTRACE_GETREGS, PTRACE_GETFPREGS: the whole set.
    pub(super) fn get_set(
        &mut self,
        caller: Caller,
        slot: usize,
        set: u64,
        place: u64,
    ) -> Result<(), Errno> {
        let bytes = self.register_set(slot, set)?;
        self.write_bytes(caller.who, place, &bytes)
            .map_err(|_| Errno::EIO)
    }

    /// PTRACE_SETREGS, PTRACE_SETFPREGS.
    pub(super) fn set_set(
        &mut self,
        caller: Caller,
        slot: usize,
        set: u64,
        place: u64,
    ) -> Result<(), Errno> {
        let len = if set == NT_PRSTATUS {
            BYTES as usize
        } else {
            LEGACY_BYTES
        };
        let mut bytes = vec![0; len];
        self.read_bytes(caller.who, place, &mut bytes)
            .map_err(|_| Errno::EIO)?;
        self.set_register_set(slot, set, &bytes)
    }
}

/// A set is read and written by words.
fn check(len: u64) -> Result<(), Errno> {
    if len.is_multiple_of(8) {
        Ok(())
    } else {
        Err(Errno::EINVAL)
    }
}
