//! How tracing ends: by the tracer's wish, with the tracer, with the tracee.

use super::{Ghost, Mode, Trace};
use crate::server::Pm;
use crate::signal::info::Info;
use crate::signal::set::{SIGCHLD, SIGKILL};
use crate::system::System;
use crate::table::Halt;
use abi::Errno;
use alloc::vec::Vec;
use linux_raw_sys::general as nr;
use linux_raw_sys::ptrace as linux;

impl<S: System> Pm<S> {
    /// PTRACE_DETACH: it goes on with `signal`, untraced.
    pub(super) fn detach(&mut self, slot: usize, signal: i32) -> Result<u64, Errno> {
        self.unstep(slot);
        // Its last stop ends as it does for any tracee, and then nobody looks any more.
        let stop = self.leave_stop(slot, Mode::Run);
        let after = self.trace_mut(slot).and_then(|trace| trace.after.take());
        self.unlink(slot);
        self.complete(slot, after);
        if self.table.thread(slot).is_some() {
            self.go_on_with(slot, stop, signal);
        }
        Ok(0)
    }

    /// The thread is not traced any more; what it stops for is what any thread does.
    fn unlink(&mut self, slot: usize) -> Option<Trace> {
        self.table
            .thread_mut(slot)?
            .trace
            .take()
            .map(|trace| *trace)
    }

    /// A tracer is gone: its tracees go on, or die with it.
    pub(crate) fn release_tracees(&mut self, tracer: u32) {
        if !self.has_traced(tracer) {
            return;
        }
        let ghosts = self.table.take_ghosts(|ghost| ghost.tracer == tracer);
        for ghost in ghosts.iter().filter(|ghost| ghost.is_leader()) {
            self.tell_parent_of_end(ghost.pid, ghost.status);
        }
        for process in self.table.processes_mut() {
            process.traced_by = process.traced_by.filter(|&by| by != tracer);
        }
        for slot in self.tracees(tracer) {
            let Some(trace) = self.trace(slot) else {
                continue;
            };
            let (kill, stopped) = (trace.has(linux::PTRACE_O_EXITKILL), trace.stop.is_some());
            let Some(thread) = self.table.thread(slot) else {
                continue;
            };
            let (pid, who, halt) = (thread.pid, thread.endpoint, thread.halt);
            if kill {
                self.terminate(pid, SIGKILL);
            } else if stopped {
                let signal = self.signal_at(slot);
                let _ = self.detach(slot, signal);
            } else {
                self.unstep(slot);
                self.unlink(slot);
                if halt == Halt::Running {
                    // It may stand before a call, or at the end of one.
                    self.sys.resume(who, 0);
                }
                self.attend(slot);
            }
        }
    }

    /// The signal of a signal-delivery stop, which a tracer that dies lets through.
    fn signal_at(&self, slot: usize) -> i32 {
        let stop = self.trace(slot).and_then(|trace| trace.stop);
        match stop {
            Some(stop) if stop.why == super::Why::Signal => stop.code as i32,
            _ => 0,
        }
    }

    /// Whether a process ever traced anybody; most did not, and need not look for tracees.
    fn has_traced(&self, pid: u32) -> bool {
        self.table
            .process(pid)
            .is_some_and(|process| process.tracer)
    }

    /// The slots of the threads that a process traces.
    pub(crate) fn tracees(&self, tracer: u32) -> Vec<usize> {
        if !self.has_traced(tracer) {
            return Vec::new();
        }
        self.table
            .slots()
            .filter(|&slot| self.trace(slot).is_some_and(|t| t.tracer == tracer))
            .collect()
    }

    /// A thread ends, or with its last one a process. Its tracer is told by wait; of a leader's
    /// end only with the process's.
    pub(crate) fn leave_ghost(&mut self, slot: usize, status: u32) {
        let Some(thread) = self.table.thread(slot) else {
            return;
        };
        let (tid, pid) = (thread.tid, thread.pid);
        let Some(tracer) = thread.trace.as_ref().map(|trace| trace.tracer) else {
            return;
        };
        let Some(process) = self.table.process_mut(pid) else {
            return;
        };
        if tid == pid {
            process.traced_by = Some(tracer);
            return;
        }
        let ghost = Ghost::new(process, tid, tracer, status);
        self.raise_ghost(ghost);
    }

    /// A process ended whose first thread was traced. `true`: its parent hears of it when the
    /// tracer, somebody else, has.
    pub(crate) fn leave_leader_ghost(&mut self, pid: u32, status: u32) -> bool {
        let Some(process) = self.table.process(pid) else {
            return false;
        };
        let Some(tracer) = process.traced_by.filter(|&tracer| tracer != process.parent) else {
            return false;
        };
        if self
            .table
            .process(tracer)
            .is_none_or(|tracer| tracer.is_zombie())
        {
            return false;
        }
        let ghost = Ghost::new(process, pid, tracer, status);
        self.raise_ghost(ghost);
        true
    }

    fn raise_ghost(&mut self, ghost: Ghost) {
        self.table.add_ghost(ghost);
        self.tell_tracer_of_end(ghost);
    }

    fn tell_tracer_of_end(&mut self, ghost: Ghost) {
        let (code, value) = match ghost.status & 0x7f {
            0 => (nr::CLD_EXITED, ghost.status >> 8),
            signal => (nr::CLD_KILLED, signal),
        };
        let mut info = Info::from_process(SIGCHLD, code as i32, ghost.tid, ghost.uid);
        info.0[3] = value as u64;
        self.wake_waiters(ghost.tracer);
        let _ = self.send_process(ghost.tracer, info);
    }

    /// The tracer has waited for a ghost.
    pub(crate) fn lay_ghost(&mut self, tid: u32) {
        for ghost in self.table.take_ghosts(|ghost| ghost.tid == tid) {
            if ghost.is_leader() {
                self.tell_parent_of_end(ghost.pid, ghost.status);
            }
        }
    }
}
