//! ptrace(2).

use super::attach::options;
use super::regset::{NT_PRFPREG, NT_PRSTATUS};
use super::{Mode, Why};
use crate::calls::Caller;
use crate::info::{ARCH_GET_FS, ARCH_GET_GS, ARCH_SET_FS, ARCH_SET_GS};
use crate::server::Pm;
use crate::signal::info::{Info, SIGINFO_BYTES};
use crate::signal::set::{SIGKILL, SIGNALS, SOVEREIGN, SigSet};
use crate::system::System;
use abi::Errno;
use abi::message::WORDS;
use linux_raw_sys::ptrace as linux;

/// Words of the bases in user_regs_struct.
const FS_BASE: usize = 21;
const GS_BASE: usize = 22;

/// A signal to go on with.
fn signal(data: u64) -> Result<i32, Errno> {
    if data <= SIGNALS as u64 {
        Ok(data as i32)
    } else {
        Err(Errno::EIO)
    }
}

impl<S: System> Pm<S> {
    /// ptrace(request, pid, address, data).
    pub fn ptrace(&mut self, caller: Caller, a: [u64; WORDS]) -> Result<u64, Errno> {
        let [request, tid, address, data, ..] = a;
        let request = u32::try_from(request).map_err(|_| Errno::EIO)?;
        match request {
            linux::PTRACE_TRACEME => return self.trace_me(caller),
            linux::PTRACE_ATTACH => return self.trace_other(caller, tid, None),
            linux::PTRACE_SEIZE => {
                if address != 0 {
                    return Err(Errno::EIO);
                }
                let options = options(data).map_err(|_| Errno::EIO)?;
                return self.trace_other(caller, tid, Some(options));
            }
            _ => {}
        }
        let slot = self.table.slot_of_tid(tid as u32).ok_or(Errno::ESRCH)?;
        let trace = self.trace(slot).ok_or(Errno::ESRCH)?;
        if trace.tracer != caller.pid {
            return Err(Errno::ESRCH);
        }
        let needs_stop = !matches!(request, linux::PTRACE_KILL | linux::PTRACE_INTERRUPT);
        if needs_stop && !trace.is_stopped() {
            return Err(Errno::ESRCH);
        }
        match request {
            linux::PTRACE_CONT => self.go(slot, Mode::Run, data),
            linux::PTRACE_SYSCALL => self.go(slot, Mode::Syscall, data),
            linux::PTRACE_SINGLESTEP => self.go(slot, Mode::Step, data),
            linux::PTRACE_DETACH => {
                let signal = signal(data)?;
                self.detach(slot, signal)
            }
            linux::PTRACE_KILL => {
                self.send_thread(slot, Info::kernel(SIGKILL))?;
                Ok(0)
            }
            linux::PTRACE_INTERRUPT => self.interrupt_tracee(slot),
            linux::PTRACE_LISTEN => self.listen(slot),
            _ => self.look(caller, slot, request, address, data),
        }
    }

    fn go(&mut self, slot: usize, mode: Mode, data: u64) -> Result<u64, Errno> {
        let signal = signal(data)?;
        self.resume_tracee(slot, mode, signal);
        Ok(0)
    }

    fn interrupt_tracee(&mut self, slot: usize) -> Result<u64, Errno> {
        let trace = self.trace_mut(slot).ok_or(Errno::ESRCH)?;
        if !trace.seized {
            return Err(Errno::EIO);
        }
        trace.interrupt = true;
        self.end_listening(slot);
        self.attend(slot);
        Ok(0)
    }

    fn listen(&mut self, slot: usize) -> Result<u64, Errno> {
        let trace = self.trace_mut(slot).ok_or(Errno::ESRCH)?;
        let seized = trace.seized;
        let Some(stop) = trace.stop.as_mut().filter(|s| seized && s.why == Why::Job) else {
            return Err(Errno::EIO);
        };
        stop.listening = true;
        if trace.is_due() {
            self.end_listening(slot);
            self.attend(slot);
        }
        Ok(0)
    }

    /// What a listening tracee listens for has come: it may enter its next stop.
    pub(crate) fn end_listening(&mut self, slot: usize) {
        if let Some(trace) = self.trace_mut(slot)
            && trace.stop.is_some_and(|stop| stop.listening)
        {
            trace.stop = None;
        }
    }

    /// The requests that leave the tracee where it is.
    fn look(
        &mut self,
        caller: Caller,
        slot: usize,
        request: u32,
        address: u64,
        data: u64,
    ) -> Result<u64, Errno> {
        match request {
            linux::PTRACE_PEEKTEXT | linux::PTRACE_PEEKDATA => {
                let word = self.peek_word(slot, address)?;
                self.write_words(caller.who, data, [word])?;
            }
            linux::PTRACE_POKETEXT | linux::PTRACE_POKEDATA => {
                self.poke_word(slot, address, data)?
            }
            linux::PTRACE_PEEKUSR => {
                let word = self.peek_user(slot, address)?;
                self.write_words(caller.who, data, [word])?;
            }
            linux::PTRACE_POKEUSR => self.poke_user(slot, address, data)?,
            linux::PTRACE_GETREGS => self.get_set(caller, slot, NT_PRSTATUS, data)?,
            linux::PTRACE_SETREGS => self.set_set(caller, slot, NT_PRSTATUS, data)?,
            linux::PTRACE_GETFPREGS => self.get_set(caller, slot, NT_PRFPREG, data)?,
            linux::PTRACE_SETFPREGS => self.set_set(caller, slot, NT_PRFPREG, data)?,
            linux::PTRACE_GETREGSET => self.get_regset(caller, slot, address, data)?,
            linux::PTRACE_SETREGSET => self.set_regset(caller, slot, address, data)?,
            linux::PTRACE_SETOPTIONS | linux::PTRACE_OLDSETOPTIONS => {
                let options = options(data)?;
                self.trace_mut(slot).ok_or(Errno::ESRCH)?.options = options;
            }
            linux::PTRACE_GETEVENTMSG => {
                let message = self.trace(slot).map_or(0, |trace| trace.message);
                self.write_words(caller.who, data, [message])?;
            }
            linux::PTRACE_GETSIGINFO => {
                let info = self.stop_info(slot)?;
                self.write_bytes(caller.who, data, &info.to_bytes())?;
            }
            linux::PTRACE_SETSIGINFO => {
                self.stop_info(slot)?;
                let info = Info(self.read_words(caller.who, data)?);
                let stop = self.trace_mut(slot).and_then(|trace| trace.stop.as_mut());
                stop.ok_or(Errno::EINVAL)?.info = Some(info);
            }
            linux::PTRACE_PEEKSIGINFO => return self.peek_pending(caller, slot, address, data),
            linux::PTRACE_GETSIGMASK | linux::PTRACE_SETSIGMASK if address != 8 => {
                return Err(Errno::EINVAL);
            }
            linux::PTRACE_GETSIGMASK => {
                let thread = self.table.thread(slot).ok_or(Errno::ESRCH)?;
                let mask = thread.saved_mask.unwrap_or(thread.blocked);
                self.write_words(caller.who, data, [mask.0])?;
            }
            linux::PTRACE_SETSIGMASK => {
                let [mask] = self.read_words(caller.who, data)?;
                let thread = self.table.thread_mut(slot).ok_or(Errno::ESRCH)?;
                thread.blocked = SigSet(mask).minus(SOVEREIGN);
                thread.saved_mask = None;
            }
            linux::PTRACE_ARCH_PRCTL => self.trace_bases(caller, slot, data, address)?,
            linux::PTRACE_GET_SYSCALL_INFO => {
                return self.get_syscall_info(caller, slot, address, data);
            }
            _ => return Err(Errno::EIO),
        }
        Ok(0)
    }

    /// The siginfo of the stop; a group stop has none.
    fn stop_info(&self, slot: usize) -> Result<Info, Errno> {
        let stop = self.trace(slot).and_then(|trace| trace.stop);
        stop.and_then(|stop| stop.info).ok_or(Errno::EINVAL)
    }

    /// PTRACE_PEEKSIGINFO: pending signals from an offset on; how many were written.
    fn peek_pending(
        &mut self,
        caller: Caller,
        slot: usize,
        request: u64,
        place: u64,
    ) -> Result<u64, Errno> {
        // u64 off, u32 flags, s32 nr.
        let [offset, what] = self.read_words(caller.who, request)?;
        let (flags, count) = (what as u32, (what >> 32) as i32);
        if flags & !linux::PTRACE_PEEKSIGINFO_SHARED != 0 || count < 0 {
            return Err(Errno::EINVAL);
        }
        let thread = self.table.thread(slot).ok_or(Errno::ESRCH)?;
        let pending = if flags & linux::PTRACE_PEEKSIGINFO_SHARED != 0 {
            let process = self.table.process(thread.pid).ok_or(Errno::ESRCH)?;
            &process.pending
        } else {
            &thread.pending
        };
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let infos: alloc::vec::Vec<Info> = pending
            .infos()
            .skip(from)
            .take(count as usize)
            .copied()
            .collect();
        for (n, info) in infos.iter().enumerate() {
            let at = place.wrapping_add((n * SIGINFO_BYTES) as u64);
            match self.write_bytes(caller.who, at, &info.to_bytes()) {
                Ok(()) => {}
                Err(_) if n > 0 => return Ok(n as u64),
                Err(errno) => return Err(errno),
            }
        }
        Ok(infos.len() as u64)
    }

    /// PTRACE_ARCH_PRCTL.
    fn trace_bases(
        &mut self,
        caller: Caller,
        slot: usize,
        code: u64,
        place: u64,
    ) -> Result<(), Errno> {
        let code = u32::try_from(code).map_err(|_| Errno::EINVAL)?;
        let mut words = self.user_registers(slot)?;
        let at = match code {
            ARCH_SET_FS | ARCH_GET_FS => FS_BASE,
            ARCH_SET_GS | ARCH_GET_GS => GS_BASE,
            _ => return Err(Errno::EINVAL),
        };
        if matches!(code, ARCH_GET_FS | ARCH_GET_GS) {
            return self.write_words(caller.who, place, [words[at]]);
        }
        words[at] = place;
        self.set_user_registers(slot, &words)
            .map_err(|_| Errno::EPERM)
    }
}
