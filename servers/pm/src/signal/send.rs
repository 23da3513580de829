//! Raising signals: to a thread, a process, a group; stopping and continuing.

use super::action::flags;
use super::info::{ChildReport, Info, SI_TIMER, SI_USER};
use super::pending::queued_most;
use super::set::{SIGCHLD, SIGCONT, SIGHUP, SIGKILL, SIGRTMIN, STOPS, SigSet};
use crate::server::Pm;
use crate::system::System;
use crate::table::{Call, Halt, JobEvent, PM_PID};
use abi::Errno;
use alloc::vec::Vec;
use linux_raw_sys::general as linux;

impl<S: System> Pm<S> {
    /// Whether job control has stopped the process.
    pub fn is_job_stopped(&self, pid: u32) -> bool {
        self.table
            .process(pid)
            .is_some_and(|process| process.stopped.is_some())
    }

    /// Whether no member of the group has a parent in the same session but another group:
    /// nobody who could continue it.
    pub fn is_orphaned(&self, group: u32) -> bool {
        !self.table.processes().any(|member| {
            member.group == group
                && !member.is_zombie()
                && self
                    .table
                    .process(member.parent)
                    .is_some_and(|parent| parent.group != group && parent.session == member.session)
        })
    }

    /// Raises a signal for a process as a whole. A process that is gone is no error.
    pub fn send_process(&mut self, pid: u32, info: Info) -> Result<(), Errno> {
        self.send(pid, None, info)
    }

    /// Raises a signal for one thread.
    pub fn send_thread(&mut self, slot: usize, info: Info) -> Result<(), Errno> {
        let Some(thread) = self.table.thread(slot) else {
            return Err(Errno::ESRCH);
        };
        self.send(thread.pid, Some(slot), info)
    }

    fn send(&mut self, pid: u32, only: Option<usize>, info: Info) -> Result<(), Errno> {
        let signal = info.signal();
        let Some(process) = self.table.process_mut(pid) else {
            return Err(Errno::ESRCH);
        };
        if process.is_zombie() || process.threads.is_empty() {
            return Ok(());
        }
        if signal == SIGKILL {
            self.terminate(pid, SIGKILL);
            return Ok(());
        }
        if signal == SIGCONT {
            self.discard(pid, STOPS);
            // Queued first: its handler is to see the call that the stop interrupted.
            let result = self.queue(pid, only, info);
            self.continue_process(pid);
            result.map(|taker| self.attend_if(taker))
        } else {
            if STOPS.has(signal) {
                self.discard(pid, SigSet::of(&[SIGCONT]));
            }
            self.queue(pid, only, info)
                .map(|taker| self.attend_if(taker))
        }
    }

    fn attend_if(&mut self, slot: Option<usize>) {
        if let Some(slot) = slot {
            self.attend(slot);
        }
    }

    /// Queues a signal, unless it is dropped or somebody waits for exactly it; the thread
    /// that should take it now.
    fn queue(&mut self, pid: u32, only: Option<usize>, info: Info) -> Result<Option<usize>, Errno> {
        let signal = info.signal();
        let Some(process) = self.table.process(pid) else {
            return Ok(None);
        };
        let threads = process.threads.clone();
        // Who may take it, in order of preference.
        let dropped = process.actions.dropped().has(signal);
        let candidates: Vec<usize> = match only {
            Some(slot) => [slot].into(),
            None => threads,
        };
        let blocks = |pm: &Pm<S>, slot: usize| {
            pm.table
                .thread(slot)
                .is_some_and(|thread| thread.blocked.has(signal))
        };
        // A tracer sees even what is ignored.
        let seen = candidates
            .first()
            .is_some_and(|&slot| self.trace(slot).is_some());
        if dropped && !seen && !candidates.first().is_some_and(|&slot| blocks(self, slot)) {
            return Ok(None);
        }
        for &slot in &candidates {
            if let Some(Call::SignalWait { set, info: place }) =
                self.table.thread(slot).and_then(|thread| thread.call)
                && set.has(signal)
            {
                self.finish_signal_wait(slot, place, info);
                return Ok(None);
            }
        }
        let mut info = info;
        // Standard signals of the system, of timers and of kill(2) are never too many.
        let room = match signal >= SIGRTMIN {
            true => self.may_queue_more(pid) && self.may_queue(pid),
            false => info.code() >= 0 || info.code() == SI_TIMER || self.may_queue_more(pid),
        };
        if !room && signal >= SIGRTMIN && info.code() != SI_USER {
            return Err(Errno::EAGAIN);
        }
        let queue = match only {
            Some(slot) => self.table.thread_mut(slot).map(|t| &mut t.pending),
            None => self.table.process_mut(pid).map(|p| &mut p.pending),
        };
        if !room {
            // It is pending, once, and nothing is known of its sender.
            if queue.as_ref().is_some_and(|queue| queue.set().has(signal)) {
                return Ok(candidates.iter().copied().find(|&slot| !blocks(self, slot)));
            }
            info = Info::new(signal, SI_USER);
        }
        if !queue.is_some_and(|queue| queue.add(info)) {
            return Err(Errno::EAGAIN);
        }
        Ok(candidates.iter().copied().find(|&slot| !blocks(self, slot)))
    }

    /// Whether one more queued signal of a process is within what the machine may have, of which
    /// the last eighth is for root's processes.
    fn may_queue(&self, pid: u32) -> bool {
        let threads = self
            .table
            .slots()
            .filter_map(|slot| self.table.thread(slot));
        let of_threads: usize = threads.map(|thread| thread.pending.len()).sum();
        let of_processes: usize = self.table.processes().map(|p| p.pending.len()).sum();
        let most = queued_most(self.boot.memory);
        let kept = if self.is_root(pid) { 0 } else { most / 8 };
        ((of_threads + of_processes) as u64) < most - kept
    }

    /// Drops pending signals of a process and its threads.
    pub fn discard(&mut self, pid: u32, signals: SigSet) {
        let Some(process) = self.table.process_mut(pid) else {
            return;
        };
        process.pending.discard(signals);
        for slot in process.threads.clone() {
            if let Some(thread) = self.table.thread_mut(slot) {
                thread.pending.discard(signals);
            }
        }
    }

    /// Raises a signal for every process of a group. `false` when there is none.
    pub fn send_group(&mut self, group: u32, info: Info) -> bool {
        let members = self
            .table
            .select(|process| process.group == group && !process.is_zombie());
        for &pid in &members {
            let _ = self.send_process(pid, info);
        }
        !members.is_empty()
    }

    /// Stops a process (job control).
    pub fn stop_process(&mut self, pid: u32, signal: i32) {
        let Some(process) = self.table.process_mut(pid) else {
            return;
        };
        if process.stopped.is_some() || process.is_zombie() {
            return;
        }
        process.stopped = Some(signal);
        let parent = process.parent;
        // A parent that traces it sees its stops as those of a tracee.
        let traced = self.tracer_of_leader(pid) == Some(parent);
        let Some(process) = self.table.process_mut(pid) else {
            return;
        };
        if !traced {
            process.job_event = Some(JobEvent::Stopped(signal));
        }
        for slot in process.threads.clone() {
            if let Some(trace) = self.trace_mut(slot) {
                trace.notify = true;
                self.attend_tracee(slot);
            } else {
                self.halt(slot);
            }
        }
        if !traced {
            self.tell_parent_of_job(pid, linux::CLD_STOPPED as i32, signal);
        }
    }

    /// Continues a process that job control stopped.
    pub fn continue_process(&mut self, pid: u32) {
        let Some(process) = self.table.process_mut(pid) else {
            return;
        };
        if process.stopped.take().is_none() {
            return;
        }
        process.job_event = Some(JobEvent::Continued);
        let threads = process.threads.clone();
        self.tell_parent_of_job(pid, linux::CLD_CONTINUED as i32, SIGCONT);
        for slot in threads {
            if let Some(trace) = self.trace_mut(slot) {
                // A tracee goes on when its tracer says so; a seized one tells that it could.
                trace.notify = trace.seized;
                if trace.seized {
                    self.end_listening(slot);
                    self.attend_tracee(slot);
                }
            } else if self.table.thread(slot).map(|thread| thread.halt) == Some(Halt::Stopped) {
                self.act(slot);
            }
        }
    }

    fn tell_parent_of_job(&mut self, pid: u32, code: i32, status: i32) {
        let Some(parent) = self.table.process(pid).map(|process| process.parent) else {
            return;
        };
        if parent == PM_PID {
            return;
        }
        self.wake_waiters(parent);
        let quiet = self
            .table
            .process(parent)
            .is_none_or(|parent| parent.actions.get(SIGCHLD).has(flags::NOCLDSTOP));
        if !quiet && let Some(info) = self.child_info(pid, code, status) {
            let _ = self.send_process(parent, info);
        }
    }

    /// SIGCHLD's siginfo about a process.
    pub fn child_info(&mut self, pid: u32, code: i32, status: i32) -> Option<Info> {
        let ticks = self.cpu_ns(pid) / crate::info::TICK_NS;
        let process = self.table.process(pid)?;
        Some(Info::child(ChildReport {
            pid,
            uid: process.ids.user.real,
            code,
            status,
            ticks,
        }))
    }

    /// A process ended: groups that lost the last process that could continue them, and have
    /// stopped members, are told to go on.
    pub fn release_orphaned(&mut self, groups: Vec<u32>) {
        for group in groups {
            let stopped = self
                .table
                .processes()
                .any(|process| process.group == group && process.stopped.is_some());
            if stopped && self.is_orphaned(group) {
                self.send_group(group, Info::kernel(SIGHUP));
                self.send_group(group, Info::kernel(SIGCONT));
            }
        }
    }
}
