//! The memory of a tracee: words by PEEK and POKE, and what /proc/PID/mem and debuggers need beyond
//! what the process itself may do.
//!
//! A word is first copied as any server copies: absent pages are repaired. Where that is refused,
//! VM is asked to look at, or change, the process's own page in spite of its protection
//! ([`vm::Force`]): a breakpoint in text gets a copy of the page that is nobody else's.

use crate::server::Pm;
use crate::system::System;
use abi::kernel::USER_END;
use abi::proto::pm::DebugCopy;
use abi::proto::vm;
use abi::{Endpoint, Errno, PAGE};
use alloc::vec;

/// Bytes of a word.
const WORD: u64 = 8;
/// A page that is there may be gone again when VM comes to it.
const ATTEMPTS: usize = 8;

impl<S: System> Pm<S> {
    /// PTRACE_PEEKTEXT, PTRACE_PEEKDATA.
    pub(super) fn peek_word(&mut self, slot: usize, address: u64) -> Result<u64, Errno> {
        let who = self.table.thread(slot).ok_or(Errno::ESRCH)?.endpoint;
        let mut bytes = [0; WORD as usize];
        self.read_forced(who, address, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// PTRACE_POKETEXT, PTRACE_POKEDATA.
    pub(super) fn poke_word(&mut self, slot: usize, address: u64, value: u64) -> Result<(), Errno> {
        let who = self.table.thread(slot).ok_or(Errno::ESRCH)?.endpoint;
        self.write_forced(who, address, &value.to_le_bytes())
    }

    /// See [`DebugCopy`].
    pub fn debug_copy(&mut self, granter: Endpoint, r: DebugCopy) -> Result<(), Errno> {
        if r.len > PAGE {
            return Err(Errno::EINVAL);
        }
        let (process, thread) = self.by_any_id(r.pid)?;
        // A zombie has no memory any more.
        let who = thread.ok_or(Errno::ESRCH)?.endpoint;
        if process.space != r.image || process.set_id_exec {
            return Err(Errno::ESRCH);
        }
        let mut bytes = vec![0; r.len as usize];
        if r.write {
            self.sys.fetch(granter, r.grant.to_read(), &mut bytes)?;
            return self.write_forced(who, r.address, &bytes);
        }
        self.read_forced(who, r.address, &mut bytes)?;
        self.sys.store(granter, r.grant.to_write(), &bytes)
    }

    /// Reads memory whatever its protection is; `EIO` where there is none.
    pub(super) fn read_forced(
        &mut self,
        who: Endpoint,
        address: u64,
        bytes: &mut [u8],
    ) -> Result<(), Errno> {
        if self.read_bytes(who, address, bytes).is_ok() {
            return Ok(());
        }
        for (at, piece) in pieces(address, bytes.len())? {
            let Some(part) = bytes.get_mut(piece) else {
                return Err(Errno::EIO);
            };
            let value = self.force_word(who, at, part.len(), None)?;
            part.copy_from_slice(&value.to_le_bytes()[..part.len()]);
        }
        Ok(())
    }

    /// Writes memory, private memory whatever its protection is; `EIO` where that cannot be.
    pub(super) fn write_forced(
        &mut self,
        who: Endpoint,
        address: u64,
        bytes: &[u8],
    ) -> Result<(), Errno> {
        if self.write_bytes(who, address, bytes).is_ok() {
            return Ok(());
        }
        for (at, piece) in pieces(address, bytes.len())? {
            let part = bytes.get(piece).ok_or(Errno::EIO)?;
            let mut word = [0; WORD as usize];
            word[..part.len()].copy_from_slice(part);
            self.force_word(who, at, part.len(), Some(u64::from_le_bytes(word)))?;
        }
        Ok(())
    }

    fn force_word(
        &mut self,
        who: Endpoint,
        address: u64,
        len: usize,
        value: Option<u64>,
    ) -> Result<u64, Errno> {
        let request = vm::Force {
            who,
            address,
            len: len as u64,
            write: value.is_some(),
            value: value.unwrap_or(0),
        };
        for _ in 0..ATTEMPTS {
            match self.sys.call(Endpoint::VM, request) {
                Ok(forced) => return Ok(forced.value),
                // A page of a file: it comes as for any copy.
                Err(Errno::EAGAIN) => {
                    let mut byte = [0];
                    self.read_bytes(who, address, &mut byte)
                        .map_err(|_| Errno::EIO)?;
                }
                Err(_) => break,
            }
        }
        Err(Errno::EIO)
    }
}

/// The parts of a range that lie in one page and are at most a word: address, and place in a
/// buffer.
fn pieces(
    address: u64,
    len: usize,
) -> Result<impl Iterator<Item = (u64, core::ops::Range<usize>)>, Errno> {
    let end = address.checked_add(len as u64).ok_or(Errno::EIO)?;
    if end > USER_END {
        return Err(Errno::EIO);
    }
    let mut at = address;
    Ok(core::iter::from_fn(move || {
        let n = (PAGE - at % PAGE).min(WORD).min(end - at);
        let from = (at - address) as usize;
        let here = at;
        at += n;
        (n > 0).then_some((here, from..from + n as usize))
    }))
}
