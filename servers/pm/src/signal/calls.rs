//! The Linux calls about signals.

use super::action::Action;
use super::frame;
use super::info::{Info, SI_TKILL, SI_USER};
use super::set::{SIGCONT, SOVEREIGN, SigSet, is_signal};
use crate::calls::{Caller, Outcome};
use crate::server::Pm;
use crate::sleep;
use crate::system::System;
use crate::table::{Call, Halt, PM_PID};
use abi::message::WORDS;
use abi::proto::pm;
use abi::{Endpoint, Errno};
use linux_raw_sys::general as linux;

const SIGSET_BYTES: u64 = 8;

fn check_size(bytes: u64) -> Result<(), Errno> {
    if bytes == SIGSET_BYTES {
        Ok(())
    } else {
        Err(Errno::EINVAL)
    }
}

fn signal_number(word: u64) -> Result<i32, Errno> {
    let signal = word as i32;
    if signal == 0 || is_signal(signal) {
        Ok(signal)
    } else {
        Err(Errno::EINVAL)
    }
}

impl<S: System> Pm<S> {
    fn may_signal(&self, caller: Caller, pid: u32, signal: i32) -> Result<(), Errno> {
        let me = self.table.process(caller.pid).ok_or(Errno::ESRCH)?;
        let target = self.table.process(pid).ok_or(Errno::ESRCH)?;
        let same_session = signal == SIGCONT && me.session == target.session;
        if same_session || me.ids.may_signal(&target.ids) {
            Ok(())
        } else {
            Err(Errno::EPERM)
        }
    }

    fn info_from(&self, caller: Caller, signal: i32, code: i32) -> Info {
        let user = self.ids(caller.pid).map_or(0, |ids| ids.user.real);
        Info::from_process(signal, code, caller.pid, user)
    }

    /// kill(pid, signal).
    pub fn kill(&mut self, caller: Caller, pid: u64, signal: u64) -> Result<u64, Errno> {
        let signal = signal_number(signal)?;
        let info = self.info_from(caller, signal, SI_USER);
        let group = match pid as i32 {
            // PM itself takes no signals.
            pid if pid == PM_PID as i32 => {
                return if signal == 0 && self.is_root(caller.pid) {
                    Ok(0)
                } else {
                    Err(Errno::EPERM)
                };
            }
            pid if pid > 0 => {
                let pid = pid as u32;
                self.may_signal(caller, pid, signal)?;
                if signal != 0 {
                    self.send_process(pid, info)?;
                }
                return Ok(0);
            }
            -1 => None,
            0 => Some(self.table.process(caller.pid).map_or(0, |p| p.group)),
            i32::MIN => return Err(Errno::ESRCH),
            pid => Some(pid.unsigned_abs()),
        };
        let targets = self.table.select(|process| match group {
            Some(group) => process.group == group,
            None => process.pid != caller.pid,
        });
        let mut result = Err(Errno::ESRCH);
        for &pid in &targets {
            match self.may_signal(caller, pid, signal) {
                Ok(()) => {
                    result = Ok(0);
                    // The caller last, so that the others get it even if it dies.
                    if signal != 0 && pid != caller.pid {
                        let _ = self.send_process(pid, info);
                    }
                }
                Err(errno) if result.is_err() => result = Err(errno),
                Err(_) => {}
            }
        }
        if signal != 0 && targets.contains(&caller.pid) && result.is_ok() {
            self.send_process(caller.pid, info)?;
        }
        result
    }

    /// tkill(tid, signal), tgkill(group, tid, signal).
    pub fn tgkill(
        &mut self,
        caller: Caller,
        group: Option<u64>,
        tid: u64,
        signal: u64,
    ) -> Result<u64, Errno> {
        if tid as i32 <= 0 || group.is_some_and(|group| group as i32 <= 0) {
            return Err(Errno::EINVAL);
        }
        let signal = signal_number(signal)?;
        let info = self.info_from(caller, signal, SI_TKILL);
        self.signal_thread(caller, group, tid, info, signal)
    }

    fn signal_thread(
        &mut self,
        caller: Caller,
        group: Option<u64>,
        tid: u64,
        info: Info,
        signal: i32,
    ) -> Result<u64, Errno> {
        let slot = self.table.slot_of_tid(tid as u32).ok_or(Errno::ESRCH)?;
        let pid = self.table.thread(slot).map_or(0, |thread| thread.pid);
        if group.is_some_and(|group| group as u32 != pid) {
            return Err(Errno::ESRCH);
        }
        self.may_signal(caller, pid, signal)?;
        if signal != 0 {
            self.send_thread(slot, info)?;
        }
        Ok(0)
    }

    /// rt_sigqueueinfo(pid, signal, info), rt_tgsigqueueinfo(group, tid, signal, info).
    pub fn rt_sigqueueinfo(
        &mut self,
        caller: Caller,
        group: Option<u64>,
        id: u64,
        signal: u64,
        info: u64,
    ) -> Result<u64, Errno> {
        let words = self.read_words(caller.who, info)?;
        let signal = signal_number(signal)?;
        let info = Info(words).with_signal(signal);
        // Nobody may pretend to be kill or the system, except to himself.
        if (info.code() >= 0 || info.code() == SI_TKILL) && id as u32 != caller.pid {
            return Err(Errno::EPERM);
        }
        if group.is_some() {
            return self.signal_thread(caller, group, id, info, signal);
        }
        let pid = id as u32;
        self.may_signal(caller, pid, signal)?;
        if signal != 0 {
            self.send_process(pid, info)?;
        }
        Ok(0)
    }

    /// rt_sigaction(signal, new, old, size).
    pub fn rt_sigaction(&mut self, caller: Caller, a: [u64; WORDS]) -> Result<u64, Errno> {
        check_size(a[3])?;
        let signal = a[0] as i32;
        if !is_signal(signal) || (a[1] != 0 && SOVEREIGN.has(signal)) {
            return Err(Errno::EINVAL);
        }
        let process = self.table.process(caller.pid).ok_or(Errno::ESRCH)?;
        let old = process.actions.get(signal);
        if a[1] != 0 {
            let new = Action::from_words(self.read_words(caller.who, a[1])?);
            let process = self.table.process_mut(caller.pid).ok_or(Errno::ESRCH)?;
            process.actions.set(signal, new);
            if process.actions.dropped().has(signal) {
                self.discard(caller.pid, SigSet::of(&[signal]));
            }
        }
        self.write_words_opt(caller.who, a[2], old.to_words())?;
        Ok(0)
    }

    /// rt_sigprocmask(how, new, old, size).
    pub fn rt_sigprocmask(&mut self, caller: Caller, a: [u64; WORDS]) -> Result<u64, Errno> {
        check_size(a[3])?;
        let new = match a[1] {
            0 => None,
            address => {
                let [bits] = self.read_words(caller.who, address)?;
                Some(SigSet(bits).minus(SOVEREIGN))
            }
        };
        let thread = self.table.thread_mut(caller.slot).ok_or(Errno::ESRCH)?;
        let old = thread.blocked;
        if let Some(new) = new {
            thread.blocked = match a[0] as u32 {
                linux::SIG_BLOCK => old.union(new),
                linux::SIG_UNBLOCK => old.minus(new),
                linux::SIG_SETMASK => new,
                _ => return Err(Errno::EINVAL),
            };
        }
        self.write_words_opt(caller.who, a[2], [old.0])?;
        Ok(0)
    }

    /// rt_sigpending(set, size).
    pub fn rt_sigpending(&mut self, caller: Caller, a: [u64; WORDS]) -> Result<u64, Errno> {
        if a[1] > SIGSET_BYTES {
            return Err(Errno::EINVAL);
        }
        let thread = self.table.thread(caller.slot).ok_or(Errno::ESRCH)?;
        let process = self.table.process(caller.pid).ok_or(Errno::ESRCH)?;
        let pending = thread.pending.set().union(process.pending.set());
        let bytes = pending.and(thread.blocked).0.to_le_bytes();
        self.write_bytes(caller.who, a[0], &bytes[..a[1] as usize])?;
        Ok(0)
    }

    /// rt_sigsuspend(mask, size).
    pub fn rt_sigsuspend(&mut self, caller: Caller, a: [u64; WORDS]) -> Result<Outcome, Errno> {
        check_size(a[1])?;
        let [bits] = self.read_words(caller.who, a[0])?;
        let thread = self.table.thread_mut(caller.slot).ok_or(Errno::ESRCH)?;
        thread.saved_mask = Some(thread.blocked);
        thread.blocked = SigSet(bits).minus(SOVEREIGN);
        Ok(Outcome::Hold(Call::Pause, None))
    }

    /// ppoll and pselect6, which wait at VFS: the mask for as long as they wait.
    pub fn swap_mask(&mut self, request: pm::SwapMask) -> Result<(), Errno> {
        if let Some(slot) = self.table.slot_of(request.who) {
            if let Some(thread) = self.table.thread_mut(slot) {
                thread.saved_mask.get_or_insert(thread.blocked);
                thread.blocked = SigSet(request.mask).minus(SOVEREIGN);
            }
            self.attend(slot);
        }
        Ok(())
    }

    /// Such a call is over. A thread that has been stopped for a signal gets its mask back
    /// when that has been dealt with.
    pub fn restore_mask(&mut self, who: Endpoint) {
        let slot = self.table.slot_of(who);
        if let Some(thread) = slot.and_then(|slot| self.table.thread_mut(slot))
            && thread.halt == Halt::Running
            && let Some(mask) = thread.saved_mask.take()
        {
            thread.blocked = mask;
        }
    }

    /// rt_sigtimedwait(set, info, timeout, size).
    pub fn rt_sigtimedwait(&mut self, caller: Caller, a: [u64; WORDS]) -> Result<Outcome, Errno> {
        check_size(a[3])?;
        let [bits] = self.read_words(caller.who, a[0])?;
        let set = SigSet(bits).minus(SOVEREIGN);
        let timeout = match a[2] {
            0 => None,
            address => Some(sleep::duration(self.read_words(caller.who, address)?)?),
        };
        let thread = self.table.thread_mut(caller.slot).ok_or(Errno::ESRCH)?;
        let taken = match thread.pending.set().and(set).first() {
            Some(signal) => thread.pending.take(signal),
            None => {
                let process = self.table.process_mut(caller.pid).ok_or(Errno::ESRCH)?;
                let first = process.pending.set().and(set).first();
                first.and_then(|signal| process.pending.take(signal))
            }
        };
        if let Some(info) = taken {
            if a[1] != 0 {
                self.write_bytes(caller.who, a[1], &info.to_bytes())?;
            }
            return Ok(Outcome::Done(Ok(info.signal() as u64)));
        }
        if timeout == Some(0) {
            return Err(Errno::EAGAIN);
        }
        let now = self.sys.now();
        let deadline = timeout.map(|timeout| now.saturating_add(timeout));
        Ok(Outcome::Hold(
            Call::SignalWait { set, info: a[1] },
            deadline,
        ))
    }

    /// A thread gets the signal that it waits for.
    pub(super) fn finish_signal_wait(&mut self, slot: usize, place: u64, info: Info) {
        let Some(who) = self.table.thread(slot).map(|thread| thread.endpoint) else {
            return;
        };
        let result = if place == 0 {
            Ok(())
        } else {
            self.write_bytes(who, place, &info.to_bytes())
        };
        self.finish_call(slot, result.map(|()| info.signal() as u64));
    }

    /// sigaltstack(new, old).
    pub fn sigaltstack(&mut self, caller: Caller, a: [u64; WORDS]) -> Result<u64, Errno> {
        let sp = self.sys.registers(caller.who)?.rsp;
        let new = match a[0] {
            0 => None,
            address => Some(self.read_words::<3>(caller.who, address)?),
        };
        let thread = self.table.thread_mut(caller.slot).ok_or(Errno::ESRCH)?;
        let old = thread.altstack;
        let on = frame::on_altstack(old, sp);
        if let Some(new) = new {
            if on {
                return Err(Errno::EPERM);
            }
            thread.altstack = frame::altstack_of(new)?;
        }
        let [base, flags, size] = frame::altstack_words(old);
        let on = if on { linux::SS_ONSTACK as u64 } else { 0 };
        self.write_words_opt(caller.who, a[1], [base, flags | on, size])?;
        Ok(0)
    }
}
