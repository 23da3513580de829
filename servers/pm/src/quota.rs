//! Limits that PM itself enforces: processes and queued signals of a user, CPU time.

use crate::itimers::CPU_TICK;
use crate::limits::INFINITY;
use crate::server::Pm;
use crate::signal::set::{SIGKILL, SIGXCPU};
use crate::sleep::SECOND;
use crate::system::System;
use crate::timers::Event;
use abi::Errno;
use linux_raw_sys::general as linux;

impl<S: System> Pm<S> {
    /// How many processes and threads a real user has; one that was not waited for is one, too.
    pub(crate) fn tasks_of(&self, user: u32) -> u64 {
        let own = self.table.processes().filter(|p| p.ids.user.real == user);
        own.map(|process| process.threads.len().max(1) as u64).sum()
    }

    /// `EAGAIN` when the user of a process has as many as RLIMIT_NPROC says. Root's may have more,
    /// and so may what acts as root.
    pub(crate) fn check_processes(&self, pid: u32) -> Result<(), Errno> {
        let Some(process) = self.table.process(pid) else {
            return Err(Errno::ESRCH);
        };
        let user = process.ids.user.real;
        let most = process.limits.soft(linux::RLIMIT_NPROC);
        if user == 0 || self.is_root(pid) || self.tasks_of(user) < most {
            Ok(())
        } else {
            Err(Errno::EAGAIN)
        }
    }

    /// Whether the user of a process has more than its RLIMIT_NPROC and `beyond`.
    pub(crate) fn exceeds_processes(&self, pid: u32, beyond: u64) -> bool {
        let Some(process) = self.table.process(pid) else {
            return false;
        };
        let user = process.ids.user.real;
        let most = process.limits.soft(linux::RLIMIT_NPROC);
        user != 0 && most != INFINITY && self.tasks_of(user) > most.saturating_add(beyond)
    }

    /// How many signals are queued for processes of a real user.
    pub(crate) fn queued_of(&self, user: u32) -> usize {
        let own = self.table.processes().filter(|p| p.ids.user.real == user);
        own.map(|process| {
            let threads = process.threads.iter();
            let of_threads = threads.filter_map(|&slot| self.table.thread(slot));
            let private: usize = of_threads.map(|thread| thread.pending.len()).sum();
            private + process.pending.len()
        })
        .sum()
    }

    /// Whether one more signal for a process is within its RLIMIT_SIGPENDING.
    pub(crate) fn may_queue_more(&self, pid: u32) -> bool {
        let Some(process) = self.table.process(pid) else {
            return false;
        };
        let most = process.limits.soft(linux::RLIMIT_SIGPENDING);
        most == INFINITY || (self.queued_of(process.ids.user.real) as u64) < most
    }

    /// RLIMIT_CPU is new, or inherited: looks when it can be used up at the earliest.
    pub(crate) fn watch_cpu(&mut self, pid: u32) {
        let Some(process) = self.table.process_mut(pid) else {
            return;
        };
        let old = process.timers.cpu_limit.take();
        let [soft, hard] = process.limits.pair(linux::RLIMIT_CPU);
        if let Some(key) = old {
            self.timers.cancel(key);
        }
        let most = soft.min(hard);
        if most == INFINITY {
            return;
        }
        // CPU time passes at most as fast as time. What runs out while nothing runs waits.
        let left = most.saturating_mul(SECOND).saturating_sub(self.cpu_ns(pid));
        let deadline = self.sys.now().saturating_add(left.max(CPU_TICK));
        let key = self.timers.add(deadline, Event::CpuLimit(pid));
        if let Some(process) = self.table.process_mut(pid) {
            process.timers.cpu_limit = Some(key);
        }
    }

    /// SIGXCPU at the soft limit and at each second after it, SIGKILL at the hard one.
    pub(crate) fn cpu_limit_due(&mut self, pid: u32) {
        let used = self.cpu_ns(pid) / SECOND;
        let Some(process) = self.table.process_mut(pid) else {
            return;
        };
        process.timers.cpu_limit = None;
        let [soft, hard] = process.limits.pair(linux::RLIMIT_CPU);
        if process.is_zombie() {
            return;
        }
        let signal = if used >= hard {
            Some(SIGKILL)
        } else if used >= soft {
            process.limits.raise_soft(linux::RLIMIT_CPU);
            Some(SIGXCPU)
        } else {
            None
        };
        self.watch_cpu(pid);
        if let Some(signal) = signal {
            self.raise(pid, signal);
        }
    }
}
