//! Delivery: from a pending signal to a handler, a stop or the end.
//!
//! [`Pm::attend`] is called whenever a thread may have something to take. It brings the
//! thread to an instruction boundary, at once or (when another server holds its Linux call)
//! as soon as that server lets go; [`Pm::act`] then takes signals until there is none left
//! and lets the thread go on.

use super::action::{Effect, flags};
use super::frame::{self, Delivery};
use super::info::Info;
use super::set::{SIGSEGV, SIGSTOP, SOVEREIGN, SigSet};
use crate::server::Pm;
use crate::system::System;
use crate::table::{AltStack, Call, Halt};
use crate::trace::Stopped;
use abi::kernel::{Registers, StopState};
use abi::proto::vfs;
use abi::{Endpoint, Errno};
use linux_raw_sys::general as linux;

/// How the Linux call that these registers are at the end of was cut short by a signal. A call's number is an `int`, as
/// far as a tracer makes one.
pub fn interruption(registers: &Registers) -> Option<Errno> {
    let codes = [
        Errno::ERESTARTSYS,
        Errno::ERESTARTNOINTR,
        Errno::ERESTARTNOHAND,
        Errno::ERESTART_RESTARTBLOCK,
    ];
    let is = |code: &Errno| registers.rax == code.to_word();
    codes
        .into_iter()
        .find(|code| registers.orig_rax as i32 != -1 && is(code))
}

/// Whether the call that was cut short had a deadline that VFS keeps ([`vfs::Resume`]).
fn is_vfs_with_deadline(registers: &Registers) -> bool {
    interruption(registers) == Some(Errno::ERESTART_RESTARTBLOCK)
        && registers.orig_rax as u32 == linux::__NR_poll
}

/// Makes the thread enter its Linux call again: back over the two-byte `syscall`.
pub fn restart(registers: &mut Registers) {
    let of_pm =
        registers.rax == Errno::ERESTART_RESTARTBLOCK.to_word() && !is_vfs_with_deadline(registers);
    registers.rax = match of_pm {
        false => registers.orig_rax,
        true => linux::__NR_restart_syscall as u64,
    };
    registers.rip = registers.rip.wrapping_sub(2);
    registers.orig_rax = u64::MAX;
}

impl<S: System> Pm<S> {
    /// The signal that the thread would take next.
    fn next_signal(&self, slot: usize) -> Option<i32> {
        let thread = self.table.thread(slot)?;
        let process = self.table.process(thread.pid)?;
        let private = thread.pending.set().minus(thread.blocked);
        let shared = process.pending.set().minus(thread.blocked);
        private.first().or_else(|| shared.first())
    }

    /// Whether the thread has a signal to take.
    pub fn has_signal(&self, slot: usize) -> bool {
        self.next_signal(slot).is_some()
    }

    fn take_signal(&mut self, slot: usize, signal: i32) -> Option<Info> {
        let thread = self.table.thread_mut(slot)?;
        if let Some(info) = thread.pending.take(signal) {
            return Some(info);
        }
        let pid = thread.pid;
        self.table.process_mut(pid)?.pending.take(signal)
    }

    /// The next signal that leads to something; drops those that do not.
    fn peek(&mut self, slot: usize) -> Option<(i32, Effect)> {
        loop {
            let signal = self.next_signal(slot)?;
            let pid = self.table.thread(slot)?.pid;
            let process = self.table.process(pid)?;
            let effect = process.actions.effect(signal);
            // A group that nobody could continue does not stop by the keyboard.
            let in_vain =
                effect == Effect::Stop && signal != SIGSTOP && self.is_orphaned(process.group);
            if effect == Effect::Ignore || in_vain {
                self.take_signal(slot, signal);
                continue;
            }
            return Some((signal, effect));
        }
    }

    /// Stops a thread in the kernel. `false`: its Linux call at another server must end
    /// first, and [`Pm::stopped`] will hear of it.
    pub(crate) fn halt(&mut self, slot: usize) -> bool {
        let Some(thread) = self.table.thread(slot) else {
            return false;
        };
        let (who, held) = (thread.endpoint, thread.call.is_some());
        if thread.halt != Halt::Running {
            return thread.halt == Halt::Stopped;
        }
        let (halt, server) = match self.sys.stop(who) {
            Ok((StopState::Busy, server)) if !held => (Halt::Stopping, server),
            Ok((state, _)) => {
                self.note_entry(slot, state);
                (Halt::Stopped, Endpoint::NONE)
            }
            Err(_) => return false,
        };
        if server == Endpoint::VFS {
            self.sys.post(Endpoint::VFS, vfs::Interrupt { who });
        }
        if let Some(thread) = self.table.thread_mut(slot) {
            thread.halt = halt;
        }
        halt == Halt::Stopped
    }

    /// Lets a thread that may have a signal to take do so.
    pub fn attend(&mut self, slot: usize) {
        // The thread whose call is being handled is looked at again when it is answered.
        if self.current == Some(slot) {
            return;
        }
        if self.trace(slot).is_some() {
            return self.attend_tracee(slot);
        }
        let Some((signal, effect)) = self.peek(slot) else {
            return;
        };
        let Some(thread) = self.table.thread(slot) else {
            return;
        };
        let (pid, halt, call) = (thread.pid, thread.halt, thread.call);
        if self.is_held_back(slot) {
            return;
        }
        if effect == Effect::Terminate {
            self.terminate(pid, signal);
            return;
        }
        if matches!(call, Some(Call::Vfork { .. })) || halt == Halt::Stopping {
            return;
        }
        if call.is_some() && halt == Halt::Running && matches!(effect, Effect::Handle(_)) {
            // Answered before it is stopped, it is at a boundary already. It cannot run in
            // between: it has the lower priority, and PM does not wait.
            self.interrupt_call(slot);
        }
        if self.halt(slot) {
            self.act(slot);
        }
    }

    /// The kernel says that a thread that was busy when it was stopped is not any more, or that
    /// a tracee stopped at a call.
    pub fn stopped(&mut self, who: Endpoint) {
        let Some(slot) = self.table.slot_of(who) else {
            return;
        };
        let Some(thread) = self.table.thread(slot) else {
            return;
        };
        let at_call = thread.halt == Halt::Running && thread.trace.is_some();
        if thread.halt != Halt::Stopping && !at_call {
            return;
        }
        // It may be news of an earlier stop.
        let state = match self.sys.stop(who) {
            Ok((state, _)) if state != StopState::Busy => state,
            _ => return,
        };
        self.note_entry(slot, state);
        if let Some(thread) = self.table.thread_mut(slot) {
            thread.halt = Halt::Stopped;
        }
        self.act(slot);
    }

    /// A tracee that stands before a call has that to report.
    fn note_entry(&mut self, slot: usize, state: StopState) {
        if state == StopState::Entering
            && let Some(trace) = self.trace_mut(slot)
        {
            trace.at_entry = true;
        }
    }

    /// Takes signals until none is left, then lets the thread go on. The thread is stopped.
    pub fn act(&mut self, slot: usize) {
        loop {
            let Some(thread) = self.table.thread(slot) else {
                return;
            };
            let (pid, held, vfork) = (
                thread.pid,
                thread.call.is_some(),
                matches!(thread.call, Some(Call::Vfork { .. })),
            );
            if self.is_held_back(slot) || self.stops(slot) {
                return;
            }
            if self.trace(slot).is_some() && !vfork {
                if let Some(signal) = self.next_signal(slot) {
                    return self.stop_for_signal(slot, signal, held);
                }
                if !self.go_on(slot, held) {
                    return;
                }
                continue;
            }
            match self.peek(slot) {
                Some((signal, Effect::Terminate)) => {
                    self.terminate(pid, signal);
                    return;
                }
                Some((signal, Effect::Stop)) => {
                    self.take_signal(slot, signal);
                    self.stop_process(pid, signal);
                    return;
                }
                Some((signal, Effect::Handle(_))) if !vfork => {
                    if held {
                        self.interrupt_call(slot);
                    }
                    if let Some(info) = self.take_signal(slot, signal) {
                        self.run_handler(slot, info);
                    }
                }
                _ => {
                    if !self.go_on(slot, held) {
                        return;
                    }
                }
            }
        }
    }

    /// A tracee takes a signal: what comes of it is its tracer's to say.
    fn stop_for_signal(&mut self, slot: usize, signal: i32, held: bool) {
        if held {
            self.interrupt_call(slot);
        }
        if let Some(info) = self.take_signal(slot, signal) {
            self.enter(slot, Stopped::signal(info));
        }
    }

    /// Resumes a stopped thread that has no signal to take. `true`: it has one after all.
    fn go_on(&mut self, slot: usize, held: bool) -> bool {
        let Some(thread) = self.table.thread_mut(slot) else {
            return false;
        };
        let who = thread.endpoint;
        if !held {
            if let Some(mask) = thread.saved_mask.take() {
                thread.blocked = mask;
                if self.has_signal(slot) {
                    return true;
                }
            }
            if let Ok(mut registers) = self.sys.registers(who)
                && interruption(&registers).is_some()
            {
                if is_vfs_with_deadline(&registers) {
                    self.sys.post(Endpoint::VFS, vfs::Resume { who });
                }
                restart(&mut registers);
                let _ = self.sys.set_registers(who, &registers);
            }
        }
        self.run(slot);
        false
    }

    /// Puts a frame for the handler of a signal on the thread's stack. Without a place for
    /// it the thread gets SIGSEGV instead.
    pub(crate) fn run_handler(&mut self, slot: usize, info: Info) {
        let signal = info.signal();
        if self.push_frame(slot, &info).is_none() {
            match self.table.thread(slot) {
                Some(thread) if signal == SIGSEGV => {
                    let pid = thread.pid;
                    self.terminate(pid, SIGSEGV);
                }
                _ => self.force(slot, Info::kernel(SIGSEGV)),
            }
        }
    }

    fn push_frame(&mut self, slot: usize, info: &Info) -> Option<()> {
        let signal = info.signal();
        let thread = self.table.thread(slot)?;
        let (who, pid, altstack, trap) =
            (thread.endpoint, thread.pid, thread.altstack, thread.trap);
        let mask = thread.saved_mask.unwrap_or(thread.blocked);
        let action = self.table.process(pid)?.actions.get(signal);

        let mut registers = self.sys.registers(who).ok()?;
        match interruption(&registers) {
            Some(Errno::ERESTARTNOINTR) => restart(&mut registers),
            Some(Errno::ERESTARTSYS) if action.has(flags::RESTART) => restart(&mut registers),
            Some(_) => registers.rax = Errno::EINTR.to_word(),
            None => {}
        }
        let fpu = self.sys.fpu(who).ok()?;
        let frame = frame::build(Delivery {
            registers: &registers,
            action,
            info,
            mask,
            altstack,
            trap,
            fpu,
            xfeatures: self.sys.xfeatures(),
        })?;
        self.write_bytes(who, frame.address, &frame.bytes).ok()?;
        self.sys.set_registers(who, &frame.registers).ok()?;

        let thread = self.table.thread_mut(slot)?;
        thread.saved_mask = None;
        let mut blocked = thread.blocked.union(action.mask);
        if !action.has(flags::NODEFER) {
            blocked = blocked.with(signal);
        }
        thread.blocked = blocked.minus(SOVEREIGN);
        if altstack.flags & linux::SS_AUTODISARM != 0 {
            thread.altstack = AltStack::default();
        }
        if action.has(flags::RESETHAND) {
            let actions = &mut self.table.process_mut(pid)?.actions;
            let mut once = action;
            once.handler = 0;
            actions.set(signal, once);
        }
        Some(())
    }

    /// Raises a signal that the thread's own instruction caused: blocking or ignoring it does
    /// not help, it then kills.
    pub fn force(&mut self, slot: usize, info: Info) {
        let signal = info.signal();
        let one = SigSet::of(&[signal]);
        let Some(thread) = self.table.thread_mut(slot) else {
            return;
        };
        let blocked = thread.blocked.has(signal);
        thread.blocked = thread.blocked.minus(one);
        thread.pending.add(info);
        let pid = thread.pid;
        if let Some(process) = self.table.process_mut(pid)
            && (blocked || process.actions.ignored().has(signal))
        {
            process.actions.set(signal, Default::default());
        }
    }
}
