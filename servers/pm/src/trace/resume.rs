//! Going on from a stop.

use super::{After, Mode, Stopped, Why, event_code};
use crate::calls::Caller;
use crate::server::Pm;
use crate::signal::action::Effect;
use crate::signal::info::{Info, SI_USER};
use crate::signal::set::{SIGSTOP, SIGTRAP};
use crate::system::System;
use crate::table::{Call, Halt};
use abi::kernel::resume;
use linux_raw_sys::ptrace as linux;

impl<S: System> Pm<S> {
    /// PTRACE_CONT and its relatives: the tracee leaves its stop, with `signal`.
    pub(super) fn resume_tracee(&mut self, slot: usize, mode: Mode, signal: i32) {
        let stop = self.leave_stop(slot, mode);
        let after = self.trace_mut(slot).and_then(|trace| trace.after.take());
        self.complete(slot, after);
        if self.table.thread(slot).is_some() {
            self.go_on_with(slot, stop, signal);
        }
    }

    /// The stop is over; how it goes on is known.
    pub(super) fn leave_stop(&mut self, slot: usize, mode: Mode) -> Option<Stopped> {
        let trace = self.trace_mut(slot)?;
        let stop = trace.stop.take()?;
        trace.mode = mode;
        trace.exit_due = stop.is_inside() && mode != Mode::Run;
        Some(stop)
    }

    /// Does the rest of the call in which an event stopped the thread.
    pub(super) fn complete(&mut self, slot: usize, after: Option<After>) {
        let Some(thread) = self.table.thread(slot) else {
            return;
        };
        let (who, pid) = (thread.endpoint, thread.pid);
        match after {
            Some(After::Return(value)) => self.finish_call(slot, Ok(value)),
            Some(After::Vfork(child)) => {
                let waits = self
                    .table
                    .process(child)
                    .is_some_and(|child| child.vfork_parent == Some(who));
                if waits {
                    self.await_vfork(slot, child);
                } else {
                    // The child was faster.
                    self.vfork_is_done(slot, child);
                }
            }
            Some(After::Exit(code, group)) => {
                let caller = Caller { slot, pid, who };
                if group {
                    self.exit_process(pid, (code as u32 & 0xff) << 8);
                } else {
                    self.end_one_thread(caller, code);
                }
            }
            Some(After::Killed(signal)) => self.terminate(pid, signal),
            None => {}
        }
    }

    fn await_vfork(&mut self, slot: usize, child: u32) {
        if let Some(thread) = self.table.thread_mut(slot) {
            thread.call = Some(Call::Vfork { child });
        }
    }

    /// A vfork's child lets its parent go on, which may be an event of its own.
    pub(crate) fn vfork_is_done(&mut self, slot: usize, child: u32) {
        let event = linux::PTRACE_EVENT_VFORK_DONE;
        if let Some(thread) = self.table.thread_mut(slot)
            && let Some(trace) = thread.trace.as_deref_mut()
            && trace.wants(event)
        {
            trace.event = Some((event, child as u64));
            trace.after = Some(After::Return(child as u64));
            thread.call = Some(Call::Event);
            return;
        }
        self.finish_call(slot, Ok(child as u64));
    }

    /// What the end of `stop` leads to, with the signal that the tracer gives.
    pub(super) fn go_on_with(&mut self, slot: usize, stop: Option<Stopped>, signal: i32) {
        match stop.map(|stop| stop.why) {
            Some(Why::Entry | Why::Exit) if signal != 0 => {
                if let Some(thread) = self.table.thread_mut(slot) {
                    thread.pending.add(Info::kernel(signal));
                }
            }
            Some(Why::Signal) if signal != 0 => {
                let given = stop.and_then(|stop| stop.info);
                if !self.inject(slot, given, signal) {
                    return;
                }
            }
            _ => {}
        }
        if stop.is_some_and(|stop| stop.why == Why::Entry) {
            self.run(slot);
            self.attend(slot);
        } else {
            self.act(slot);
        }
    }

    /// The tracer lets a signal through, this one or another. `false`: that ended or stopped
    /// the thread.
    fn inject(&mut self, slot: usize, given: Option<Info>, signal: i32) -> bool {
        let Some(thread) = self.table.thread(slot) else {
            return false;
        };
        let (pid, blocked) = (thread.pid, thread.blocked.has(signal));
        let tracer = thread.trace.as_ref().map_or(0, |trace| trace.tracer);
        let info = match given {
            Some(info) if info.signal() == signal => info,
            _ => {
                let user = self.ids(tracer).map_or(0, |ids| ids.user.real);
                Info::from_process(signal, SI_USER, tracer, user)
            }
        };
        if blocked {
            if let Some(thread) = self.table.thread_mut(slot) {
                thread.pending.add(info);
            }
            return true;
        }
        let Some(process) = self.table.process(pid) else {
            return false;
        };
        let group = process.group;
        match process.actions.effect(signal) {
            Effect::Ignore => true,
            Effect::Terminate => self.dies(slot, signal),
            Effect::Stop if signal != SIGSTOP && self.is_orphaned(group) => true,
            Effect::Stop => {
                if self.is_job_stopped(pid) {
                    // Another stop of a tracee that went on in spite of the first.
                    if let Some(trace) = self.trace_mut(slot) {
                        trace.notify = true;
                    }
                } else {
                    self.stop_process(pid, signal);
                }
                self.table.thread(slot).is_some()
            }
            Effect::Handle(_) => {
                self.run_handler(slot, info);
                let step = self.trace(slot).is_some_and(|t| t.mode == Mode::Step);
                if step && self.table.thread(slot).is_some() {
                    self.enter_trap(slot, Why::Handler, SIGTRAP as u32);
                }
                true
            }
        }
    }

    /// A signal is to kill a tracee's process. `true`: it stops for that first.
    fn dies(&mut self, slot: usize, signal: i32) -> bool {
        let Some(thread) = self.table.thread_mut(slot) else {
            return false;
        };
        let pid = thread.pid;
        match thread.trace.as_deref_mut() {
            Some(trace) if trace.wants(linux::PTRACE_EVENT_EXIT) => {
                trace.message = signal as u64;
                trace.after = Some(After::Killed(signal));
                let event = linux::PTRACE_EVENT_EXIT;
                self.enter_trap(slot, Why::Event(event), event_code(event));
                true
            }
            _ => {
                self.terminate(pid, signal);
                false
            }
        }
    }

    /// Lets a halted thread run.
    pub(crate) fn run(&mut self, slot: usize) {
        let Some(thread) = self.table.thread_mut(slot) else {
            return;
        };
        thread.halt = Halt::Running;
        let who = thread.endpoint;
        let how = match thread.trace.as_deref() {
            None => 0,
            Some(trace) if trace.exit_due => resume::EXIT,
            Some(trace) if trace.mode == Mode::Run => 0,
            Some(trace) => {
                if trace.mode == Mode::Step {
                    self.step(slot);
                }
                resume::ENTRY
            }
        };
        self.sys.resume(who, how);
    }
}
