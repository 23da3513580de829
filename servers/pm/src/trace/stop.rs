//! Which stop is next, and telling the tracer.

use super::{After, Mode, Stopped, TRAP_BRKPT, Trace, Why, event_code};
use crate::server::Pm;
use crate::signal::action::flags;
use crate::signal::info::{Info, SI_USER};
use crate::signal::set::{SIGCHLD, SIGTRAP};
use crate::system::System;
use crate::table::{Call, Halt};
use linux_raw_sys::general as nr;
use linux_raw_sys::ptrace as linux;

/// Trap flag: an exception after one instruction.
const TRAP_FLAG: u64 = 1 << 8;

impl<S: System> Pm<S> {
    /// How a thread is traced.
    pub(crate) fn trace(&self, slot: usize) -> Option<&Trace> {
        self.table.thread(slot)?.trace.as_deref()
    }

    /// How a thread is traced.
    pub(crate) fn trace_mut(&mut self, slot: usize) -> Option<&mut Trace> {
        self.table.thread_mut(slot)?.trace.as_deref_mut()
    }

    /// Whether a thread may not go on whatever signals it has: it is in a stop, or job control
    /// stopped it.
    pub(crate) fn is_held_back(&self, slot: usize) -> bool {
        match self.trace(slot) {
            Some(trace) => trace.stop.is_some(),
            None => self
                .table
                .thread(slot)
                .is_some_and(|thread| self.is_job_stopped(thread.pid)),
        }
    }

    /// [`Pm::attend`] of a tracee: brings it to a stop if it has a reason for one.
    pub(crate) fn attend_tracee(&mut self, slot: usize) {
        let Some(thread) = self.table.thread(slot) else {
            return;
        };
        let Some(trace) = thread.trace.as_deref() else {
            return;
        };
        let (halt, call) = (thread.halt, thread.call);
        let vfork = matches!(call, Some(Call::Vfork { .. }));
        let wanted = trace.is_due() || self.has_signal(slot);
        if trace.stop.is_some() || !wanted || vfork || halt == Halt::Stopping {
            return;
        }
        if call.is_some_and(|call| call != Call::Event) && halt == Halt::Running {
            self.interrupt_call(slot);
        }
        if self.halt(slot) {
            self.act(slot);
        }
    }

    /// Enters the stop that is next, if there is one. `true`: the thread stays stopped. The
    /// thread is halted, and not in a stop that it may leave.
    pub(crate) fn stops(&mut self, slot: usize) -> bool {
        let Some(thread) = self.table.thread(slot) else {
            return true;
        };
        let (who, held, pid) = (thread.endpoint, thread.call, thread.pid);
        let signal = self.table.process(pid).and_then(|process| process.stopped);
        let Some(trace) = self.trace_mut(slot) else {
            return false;
        };
        if trace.stop.is_some() {
            return true;
        }
        if core::mem::take(&mut trace.at_entry) {
            if trace.mode == Mode::Step {
                // A step across a call: its end is the end of the step. What the call copies
                // (fork) is not to have the flag.
                trace.exit_due = true;
                self.unstep(slot);
                self.run(slot);
                return true;
            }
            trace.message = linux::PTRACE_EVENTMSG_SYSCALL_ENTRY as u64;
            self.enter_call_stop(slot, Why::Entry);
            return true;
        }
        if let Some((event, message)) = trace.event.take() {
            trace.message = message;
            self.enter_trap(slot, Why::Event(event), event_code(event));
            return true;
        }
        if trace.exit_due && held.is_none() {
            trace.exit_due = false;
            trace.message = linux::PTRACE_EVENTMSG_SYSCALL_EXIT as u64;
            if trace.mode != Mode::Step {
                self.enter_call_stop(slot, Why::Exit);
                return true;
            }
            let rip = self.sys.registers(who).map_or(0, |registers| registers.rip);
            self.force(slot, Info::fault(SIGTRAP, TRAP_BRKPT, rip));
            return false;
        }
        let job = core::mem::take(&mut trace.interrupt) | core::mem::take(&mut trace.notify);
        if job && (trace.seized || signal.is_some()) {
            let signal = signal.unwrap_or(SIGTRAP) as u32;
            if trace.seized {
                self.enter_trap(slot, Why::Job, signal | linux::PTRACE_EVENT_STOP << 8);
            } else {
                self.enter(slot, Stopped::new(Why::Job, signal, None));
            }
            return true;
        }
        false
    }

    fn enter_call_stop(&mut self, slot: usize, why: Why) {
        let good = self
            .trace(slot)
            .is_some_and(|trace| trace.has(linux::PTRACE_O_TRACESYSGOOD));
        let code = SIGTRAP as u32 | if good { 0x80 } else { 0 };
        self.enter_trap(slot, why, code);
    }

    /// Enters a stop that is no signal's; its siginfo says what it is.
    pub(super) fn enter_trap(&mut self, slot: usize, why: Why, code: u32) {
        let Some(thread) = self.table.thread(slot) else {
            return;
        };
        let (tid, pid) = (thread.tid, thread.pid);
        let user = self.ids(pid).map_or(0, |ids| ids.user.real);
        let info = Info::from_process((code & 0x7f) as i32, code as i32, tid, user);
        self.enter(slot, Stopped::new(why, code, Some(info)));
    }

    /// Enters a stop and tells the tracer.
    pub(crate) fn enter(&mut self, slot: usize, stop: Stopped) {
        self.unstep(slot);
        let Some(thread) = self.table.thread_mut(slot) else {
            return;
        };
        let (tid, pid) = (thread.tid, thread.pid);
        let Some(trace) = thread.trace.as_deref_mut() else {
            return;
        };
        trace.stop = Some(stop);
        let tracer = trace.tracer;
        self.wake_waiters(tracer);
        let quiet = self
            .table
            .process(tracer)
            .is_none_or(|tracer| tracer.actions.get(SIGCHLD).has(flags::NOCLDSTOP));
        let code = match stop.why {
            Why::Job => nr::CLD_STOPPED,
            _ => nr::CLD_TRAPPED,
        };
        let status = (stop.code & 0x7f) as i32;
        if !quiet && let Some(info) = self.child_info(pid, code as i32, status) {
            let mut info = info;
            info.0[2] = info.0[2] & !0xffff_ffff | tid as u64;
            let _ = self.send_process(tracer, info);
        }
    }

    /// An event of the thread whose call is being handled: it stops in the call, and does
    /// `after` when it goes on.
    pub(crate) fn event_in_call(&mut self, slot: usize, event: (u32, u64), after: After) {
        if let Some(trace) = self.trace_mut(slot) {
            trace.event = Some(event);
            trace.after = Some(after);
        }
        self.hold(slot, Call::Event, None);
        if self.halt(slot) {
            self.act(slot);
        }
    }

    /// A tracee executes its new program: it stops for that as its options say, and before the
    /// first instruction.
    pub(crate) fn stop_after_exec(&mut self, slot: usize, old_tid: u32) {
        let Some(thread) = self.table.thread(slot) else {
            return;
        };
        let (who, pid) = (thread.endpoint, thread.pid);
        let Some(trace) = self.trace_mut(slot) else {
            return;
        };
        trace.at_entry = false;
        if trace.wants(linux::PTRACE_EVENT_EXEC) {
            trace.event = Some((linux::PTRACE_EVENT_EXEC, old_tid as u64));
        } else if !trace.seized {
            let user = self.ids(pid).map_or(0, |ids| ids.user.real);
            let trap = Info::from_process(SIGTRAP, SI_USER, pid, user);
            if let Some(thread) = self.table.thread_mut(slot) {
                thread.pending.add(trap);
            }
        }
        // What the tracer sees of the call.
        if let Ok(mut registers) = self.sys.registers(who) {
            registers.orig_rax = nr::__NR_execve as u64;
            let _ = self.sys.set_registers(who, &registers);
        }
        if self.halt(slot) {
            self.act(slot);
        }
    }

    /// A tracee is about to end. `true`: it stops first.
    pub(crate) fn stops_before_exit(&mut self, slot: usize, code: u64, group: bool) -> bool {
        let wanted = self
            .trace(slot)
            .is_some_and(|trace| trace.wants(linux::PTRACE_EVENT_EXIT));
        if wanted {
            let status = (code & 0xff) << 8;
            let event = (linux::PTRACE_EVENT_EXIT, status);
            self.event_in_call(slot, event, After::Exit(code, group));
        }
        wanted
    }

    /// Takes our trap flag back.
    pub(crate) fn unstep(&mut self, slot: usize) {
        let Some(thread) = self.table.thread_mut(slot) else {
            return;
        };
        let who = thread.endpoint;
        let Some(trace) = thread.trace.as_deref_mut() else {
            return;
        };
        if core::mem::take(&mut trace.stepping)
            && let Ok(mut registers) = self.sys.registers(who)
        {
            registers.rflags &= !TRAP_FLAG;
            let _ = self.sys.set_registers(who, &registers);
        }
    }

    /// Sets the trap flag of a thread that is about to make a step.
    pub(super) fn step(&mut self, slot: usize) {
        let Some(who) = self.table.thread(slot).map(|thread| thread.endpoint) else {
            return;
        };
        let Ok(mut registers) = self.sys.registers(who) else {
            return;
        };
        if registers.rflags & TRAP_FLAG == 0 {
            registers.rflags |= TRAP_FLAG;
            let done = self.sys.set_registers(who, &registers).is_ok();
            if let Some(trace) = self.trace_mut(slot) {
                trace.stepping = done;
            }
        }
    }
}
