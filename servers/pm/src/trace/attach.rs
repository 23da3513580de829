//! How tracing begins: by the tracee's wish, by the tracer's, by birth.

use super::Trace;
use crate::calls::Caller;
use crate::server::Pm;
use crate::signal::info::Info;
use crate::signal::set::SIGSTOP;
use crate::system::System;
use crate::table::PM_PID;
use abi::Errno;
use alloc::boxed::Box;
use linux_raw_sys::general as nr;
use linux_raw_sys::ptrace as linux;

/// The options that are understood. There is no seccomp to trace.
const OPTIONS: u32 = linux::PTRACE_O_TRACESYSGOOD
    | linux::PTRACE_O_TRACEFORK
    | linux::PTRACE_O_TRACEVFORK
    | linux::PTRACE_O_TRACECLONE
    | linux::PTRACE_O_TRACEEXEC
    | linux::PTRACE_O_TRACEVFORKDONE
    | linux::PTRACE_O_TRACEEXIT
    | linux::PTRACE_O_TRACESECCOMP
    | linux::PTRACE_O_EXITKILL;

/// The options in a word; `EINVAL` where one is unknown.
pub fn options(word: u64) -> Result<u32, Errno> {
    if word & !(OPTIONS as u64) != 0 {
        return Err(Errno::EINVAL);
    }
    Ok(word as u32)
}

impl<S: System> Pm<S> {
    /// PTRACE_TRACEME.
    pub(super) fn trace_me(&mut self, caller: Caller) -> Result<u64, Errno> {
        let parent = self.parent_of(caller.pid);
        let traced = self.trace(caller.slot).is_some();
        if traced || parent == PM_PID {
            return Err(Errno::EPERM);
        }
        self.link(caller.slot, parent, caller.pid);
        Ok(0)
    }

    /// PTRACE_ATTACH, or with options PTRACE_SEIZE.
    pub(super) fn trace_other(
        &mut self,
        caller: Caller,
        tid: u64,
        seize: Option<u32>,
    ) -> Result<u64, Errno> {
        if tid as u32 == PM_PID {
            return Err(Errno::EPERM);
        }
        let Some(slot) = self.table.slot_of_tid(tid as u32) else {
            // A zombie is there, and cannot be traced any more.
            let zombie = self.table.process(tid as u32).is_some();
            return Err(if zombie { Errno::EPERM } else { Errno::ESRCH });
        };
        let pid = self.table.thread(slot).map_or(0, |thread| thread.pid);
        if pid == caller.pid {
            return Err(Errno::EPERM);
        }
        self.may_access(caller, pid)?;
        if self.trace(slot).is_some() {
            return Err(Errno::EPERM);
        }
        self.link(slot, caller.pid, caller.pid);
        let stopped = self.is_job_stopped(pid);
        if let Some(trace) = self.trace_mut(slot) {
            trace.seized = seize.is_some();
            trace.options = seize.unwrap_or(0);
            trace.notify = stopped;
        }
        if seize.is_none() {
            self.send_thread(slot, Info::kernel(SIGSTOP))?;
        }
        self.attend(slot);
        Ok(0)
    }

    /// Who traces the first thread of a process.
    pub(crate) fn tracer_of_leader(&self, pid: u32) -> Option<u32> {
        let slot = self.table.slot_of_tid(pid)?;
        self.trace(slot).map(|trace| trace.tracer)
    }

    fn link(&mut self, slot: usize, tracer: u32, by: u32) {
        let privileged = self.is_root(by);
        let Some(process) = self.table.process_mut(tracer) else {
            return;
        };
        process.tracer = true;
        if let Some(thread) = self.table.thread_mut(slot) {
            thread.trace = Some(Box::new(Trace::new(tracer, privileged)));
        }
    }

    /// A thread was made by `caller`: whether it is traced like its maker, and what its maker
    /// stops for.
    pub(crate) fn trace_child(&mut self, caller: Caller, child: usize, flags: u64) -> Option<u32> {
        let trace = self.trace(caller.slot)?;
        let has = |flag: u32| flags & flag as u64 != 0;
        let event = if has(nr::CLONE_VFORK) {
            linux::PTRACE_EVENT_VFORK
        } else if flags & 0xff == crate::signal::set::SIGCHLD as u64 {
            linux::PTRACE_EVENT_FORK
        } else {
            linux::PTRACE_EVENT_CLONE
        };
        let event = (trace.wants(event) && !has(nr::CLONE_UNTRACED)).then_some(event);
        if event.is_none() && !has(nr::CLONE_PTRACE) {
            return None;
        }
        let seized = trace.seized;
        let born = Trace {
            seized,
            options: trace.options,
            interrupt: seized,
            ..Trace::new(trace.tracer, trace.privileged)
        };
        if let Some(thread) = self.table.thread_mut(child) {
            thread.trace = Some(Box::new(born));
            if !seized {
                thread.pending.add(Info::new(SIGSTOP, 0));
            }
        }
        event
    }
}
