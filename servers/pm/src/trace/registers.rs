//! The registers of a stopped thread as Linux's user_regs_struct and struct user have them.

use crate::orders::{set_user, user};
use crate::server::Pm;
use crate::system::System;
use abi::Errno;
use abi::kernel::{Registers, USER_END};

/// Words of user_regs_struct.
pub const WORDS: usize = 27;
/// Its bytes.
pub const BYTES: u64 = WORDS as u64 * 8;
/// Bytes of struct user.
const USER_BYTES: u64 = 928;
/// Where the debug registers are in it.
const DEBUG: u64 = 848;
/// One past them.
const DEBUG_END: u64 = DEBUG + 8 * 8;
/// The debug register that enables breakpoints.
const CONTROL: usize = 7;

const USER_CS: u64 = 0x33;
const USER_SS: u64 = 0x2b;
/// CF PF AF ZF SF TF DF OF NT RF AC: what a tracer may change (Linux's FLAG_MASK).
const FLAGS: u64 = 0x5_4dd5;

/// user_regs_struct of these registers.
pub fn to_user(r: &Registers) -> [u64; WORDS] {
    let mut words = [0; WORDS];
    let (first, others) = words.split_at_mut(17);
    first.copy_from_slice(&user(r));
    let rest = [USER_CS, r.rflags, r.rsp, USER_SS, r.fs_base, r.gs_base];
    others[..6].copy_from_slice(&rest);
    words
}

/// The registers that user_regs_struct describes; `old` has what a tracer cannot change. `EIO`
/// for addresses and selectors that no program has.
pub fn from_user(words: &[u64; WORDS], old: &Registers) -> Result<Registers, Errno> {
    let [
        first @ ..,
        cs,
        flags,
        rsp,
        ss,
        fs_base,
        gs_base,
        ds,
        es,
        fs,
        gs,
    ] = words;
    let none = [ds, es, fs, gs].iter().all(|&&selector| selector == 0);
    let far = [fs_base, gs_base].iter().any(|&&base| base >= USER_END);
    if (*cs, *ss) != (USER_CS, USER_SS) || !none || far {
        return Err(Errno::EIO);
    }
    let mut new = *old;
    set_user(&mut new, first);
    new.rflags = old.rflags & !FLAGS | flags & FLAGS;
    (new.rsp, new.fs_base, new.gs_base) = (*rsp, *fs_base, *gs_base);
    Ok(new)
}

impl<S: System> Pm<S> {
    /// user_regs_struct of a thread.
    pub(super) fn user_registers(&mut self, slot: usize) -> Result<[u64; WORDS], Errno> {
        let who = self.table.thread(slot).ok_or(Errno::ESRCH)?.endpoint;
        Ok(to_user(&self.sys.registers(who)?))
    }

    /// Replaces them.
    pub(super) fn set_user_registers(
        &mut self,
        slot: usize,
        words: &[u64; WORDS],
    ) -> Result<(), Errno> {
        let who = self.table.thread(slot).ok_or(Errno::ESRCH)?.endpoint;
        let old = self.sys.registers(who)?;
        let new = from_user(words, &old)?;
        self.sys.set_registers(who, &new).map_err(|_| Errno::EIO)
    }

    /// PTRACE_PEEKUSER.
    pub(super) fn peek_user(&mut self, slot: usize, offset: u64) -> Result<u64, Errno> {
        let index = (offset / 8) as usize;
        match offset {
            _ if !offset.is_multiple_of(8) || offset >= USER_BYTES => Err(Errno::EIO),
            ..BYTES => Ok(self.user_registers(slot)?[index]),
            DEBUG..DEBUG_END => Ok(self
                .trace(slot)
                .map_or(0, |trace| trace.debug[index - DEBUG as usize / 8])),
            _ => Ok(0),
        }
    }

    /// PTRACE_POKEUSER. Of the debug registers the addresses are kept; enabling one is
    /// `EOPNOTSUPP`, because not every host gives its guests hardware breakpoints.
    pub(super) fn poke_user(&mut self, slot: usize, offset: u64, value: u64) -> Result<(), Errno> {
        let index = (offset / 8) as usize;
        match offset {
            _ if !offset.is_multiple_of(8) || offset >= USER_BYTES => Err(Errno::EIO),
            ..BYTES => {
                let mut words = self.user_registers(slot)?;
                words[index] = value;
                self.set_user_registers(slot, &words)
            }
            DEBUG..DEBUG_END => {
                let register = index - DEBUG as usize / 8;
                // Bits 0 to 7 enable breakpoints 0 to 3.
                if register == CONTROL && value & 0xff != 0 {
                    return Err(Errno::EOPNOTSUPP);
                }
                if register < 4 && value >= USER_END {
                    return Err(Errno::EINVAL);
                }
                let trace = self.trace_mut(slot).ok_or(Errno::ESRCH)?;
                trace.debug[register] = value;
                Ok(())
            }
            _ => Err(Errno::EIO),
        }
    }
}
