//! The end of threads and processes.

use crate::calls::{Caller, Outcome};
use crate::server::Pm;
use crate::signal::action::flags;
use crate::signal::info::{Info, SI_USER};
use crate::signal::set::SIGCHLD;
use crate::system::System;
use crate::table::{PM_PID, PROGRAM_PID, Process};
use crate::trace::Ghost;
use abi::Endpoint;
use abi::proto::{vfs, vm};
use alloc::vec::Vec;
use linux_raw_sys::general as linux;

/// Most entries of a robust futex list that are followed (as Linux).
const ROBUST_MAX: usize = 2048;

impl<S: System> Pm<S> {
    /// exit: of one thread, or of the process with its last one.
    pub fn exit_thread_call(&mut self, caller: Caller, code: u64) -> Outcome {
        if !self.stops_before_exit(caller.slot, code, false) {
            self.end_one_thread(caller, code);
        }
        Outcome::Answered
    }

    /// Ends one thread, and with the last one the process.
    pub(crate) fn end_one_thread(&mut self, caller: Caller, code: u64) {
        let status = (code as u32 & 0xff) << 8;
        let last = self
            .table
            .process(caller.pid)
            .is_none_or(|process| process.threads.len() <= 1);
        if last {
            return self.exit_process(caller.pid, status);
        }
        self.leave_ghost(caller.slot, status);
        self.end_thread(caller.slot);
        // A signal for the process that this thread was to take goes to another.
        let rest = self.table.process(caller.pid).map(|p| p.threads.clone());
        for slot in rest.unwrap_or_default() {
            self.attend(slot);
        }
    }

    /// exit_group.
    pub fn exit_group(&mut self, caller: Caller, code: u64) -> Outcome {
        if !self.stops_before_exit(caller.slot, code, true) {
            self.exit_process(caller.pid, (code as u32 & 0xff) << 8);
        }
        Outcome::Answered
    }

    /// The end of a process by a signal.
    pub fn terminate(&mut self, pid: u32, signal: i32) {
        self.exit_process(pid, signal as u32 & 0x7f);
    }

    /// Takes a thread out of the world: VM, VFS, the kernel, the table.
    pub(crate) fn end_thread(&mut self, slot: usize) {
        let Some(thread) = self.table.thread(slot) else {
            return;
        };
        let (who, pid) = (thread.endpoint, thread.pid);
        let waits_for_us = thread.call.is_some() || self.current == Some(slot);
        if !waits_for_us {
            // It must not run once its memory is gone.
            let _ = self.sys.stop(who);
        }
        let shared = self.table.process(pid).is_some_and(|process| {
            let others = |other: &Process| {
                other.pid != pid && other.space == process.space && !other.threads.is_empty()
            };
            process.threads.len() > 1 || self.table.processes().any(others)
        });
        self.release_locks(slot);
        if shared {
            self.clear_tid(slot);
        }
        let cpu = self.thread_cpu_ns(who);
        if let Some(process) = self.table.process_mut(pid) {
            process.dead_cpu_ns += cpu;
        }
        self.futexes.remove(slot);
        if let Some(thread) = self.table.remove_thread(slot)
            && let Some(timer) = thread.timer
        {
            self.timers.cancel(timer);
        }
        let _ = self.sys.call(Endpoint::VM, vm::Exit { who });
        let _ = self.sys.call(Endpoint::VFS, vfs::Exit { who });
        self.sys.destroy(who);
    }

    /// What other threads of the same memory wait for: the thread's id word.
    fn clear_tid(&mut self, slot: usize) {
        let Some(thread) = self.table.thread(slot) else {
            return;
        };
        let (who, pid, place) = (thread.endpoint, thread.pid, thread.clear_tid);
        let space = self.table.process(pid).map_or(0, |process| process.space);
        if place != 0 && self.write_u32(who, place, 0).is_ok() {
            self.futex_wake(who, space, place, 1, u32::MAX);
        }
    }

    /// The locks that a thread held when it died; they may be in memory that it shared with
    /// other processes.
    fn release_locks(&mut self, slot: usize) {
        let Some(thread) = self.table.thread(slot) else {
            return;
        };
        let (who, pid, tid) = (thread.endpoint, thread.pid, thread.tid);
        let head = thread.robust_list;
        let space = self.table.process(pid).map_or(0, |process| process.space);
        if head != 0
            && let Ok([mut entry, offset, pending]) = self.read_words(who, head)
        {
            for _ in 0..ROBUST_MAX {
                if entry & !1 == head || entry == 0 {
                    break;
                }
                let next = self.read_words::<1>(who, entry & !1);
                if entry != pending {
                    self.abandon_lock(who, space, (entry & !1).wrapping_add(offset), tid);
                }
                let Ok([next]) = next else {
                    break;
                };
                entry = next;
            }
            if pending & !1 != 0 {
                self.abandon_lock(who, space, (pending & !1).wrapping_add(offset), tid);
            }
        }
    }

    fn abandon_lock(&mut self, who: Endpoint, space: u64, address: u64, tid: u32) {
        let Ok(word) = self.read_u32(who, address) else {
            return;
        };
        if word & linux::FUTEX_TID_MASK != tid {
            return;
        }
        let left = word & linux::FUTEX_WAITERS | linux::FUTEX_OWNER_DIED;
        if self.write_u32(who, address, left).is_ok() && word & linux::FUTEX_WAITERS != 0 {
            self.futex_wake(who, space, address, 1, u32::MAX);
        }
    }

    /// Ends a process: its threads go, its children get a new parent, its parent hears of it.
    pub fn exit_process(&mut self, pid: u32, status: u32) {
        let Some(process) = self.table.process_mut(pid) else {
            return;
        };
        if process.is_zombie() {
            return;
        }
        process.status = Some(status);
        process.stopped = None;
        process.job_event = None;
        let (group, session) = (process.group, process.session);
        for slot in process.threads.clone() {
            self.leave_ghost(slot, status);
            self.end_thread(slot);
        }
        self.release_tracees(pid);
        self.drop_timers(pid);
        if let Some(process) = self.table.process_mut(pid) {
            process.pending.clear();
        }
        self.release_vfork_parent(pid);
        if pid == PROGRAM_PID {
            self.end_machine(status);
            return;
        }
        if self.ending.is_some() {
            return;
        }
        self.end_session(pid);
        let told = self.death_signals(pid);
        let groups = self.orphan_children(pid, group, session);
        if !self.leave_leader_ghost(pid, status) {
            self.tell_parent_of_end(pid, status);
        }
        self.release_orphaned(groups);
        for (child, info) in told {
            let _ = self.send_process(child, info);
        }
    }

    /// What the children of `pid` want to get when it ends, as from itself: as far as it may send that.
    fn death_signals(&self, pid: u32) -> Vec<(u32, Info)> {
        let Some(parent) = self.table.process(pid) else {
            return Vec::new();
        };
        let children = self.table.select(|process| {
            process.parent == pid
                && process.death_signal != 0
                && !process.is_zombie()
                && parent.ids.may_signal(&process.ids)
        });
        let user = parent.ids.user.real;
        let info = |child| {
            let signal = self.table.process(child)?.death_signal;
            let info = Info::from_process(signal, SI_USER, pid, user);
            Some((child, info))
        };
        children.into_iter().filter_map(info).collect()
    }

    /// Gives the children of `pid` to PM, which reaps them silently. Returns the groups that
    /// lose a bond with this end: one between a parent and a child of the same session but
    /// another group. (A group that never had one was orphaned before, and stays as it is.)
    fn orphan_children(&mut self, pid: u32, group: u32, session: u32) -> Vec<u32> {
        let mut groups = Vec::new();
        let parent = self.table.process(self.parent_of(pid));
        if parent.is_some_and(|parent| parent.session == session && parent.group != group) {
            groups.push(group);
        }
        for child in self.table.select(|process| process.parent == pid) {
            let Some(process) = self.table.process_mut(child) else {
                continue;
            };
            process.parent = PM_PID;
            let bond = process.session == session && process.group != group;
            if bond && !groups.contains(&process.group) {
                groups.push(process.group);
            }
            let awaited = |ghost: &Ghost| ghost.pid == child && ghost.is_leader();
            if process.is_zombie() && !self.table.ghosts().iter().any(awaited) {
                self.table.remove_process(child);
            }
        }
        groups
    }

    /// A process ended and its tracer, if there was one, knows.
    pub(crate) fn tell_parent_of_end(&mut self, pid: u32, status: u32) {
        let parent = self.parent_of(pid);
        let traced = self
            .table
            .process(pid)
            .is_some_and(|p| p.traced_by == Some(parent));
        let Some(process) = self.table.process(parent) else {
            // PM's own child, or an orphan.
            self.table.remove_process(pid);
            return;
        };
        let exit_signal = self.table.process(pid).map_or(0, |p| p.exit_signal);
        let reaps = !traced && exit_signal == SIGCHLD && process.actions.reaps_children();
        let silent =
            reaps && !process.actions.get(SIGCHLD).has(flags::NOCLDWAIT) || exit_signal == 0;
        let (code, value) = match status & 0x7f {
            0 => (linux::CLD_EXITED, status >> 8),
            signal => (linux::CLD_KILLED, signal),
        };
        let info = self.child_info(pid, code as i32, value as i32);
        if reaps {
            self.table.remove_process(pid);
        }
        // A waiter is answered first: its result is in place when the handler runs.
        self.wake_waiters(parent);
        if !silent && let Some(info) = info {
            let _ = self.send_process(parent, info.with_signal(exit_signal));
        }
    }
}
