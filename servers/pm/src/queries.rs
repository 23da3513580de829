//! What other servers ask about processes.

use crate::server::Pm;
use crate::system::System;
use crate::table::{Process, Thread};
use abi::kernel::rts;
use abi::proto::pm::{
    FoundPid, FoundPidOf, FoundTid, NameOf, NextPid, NextTid, PidOf, PmFigures, ProcessFigures,
    ProcessName, ProcessOf,
};
use abi::{Endpoint, Errno};

impl<S: System> Pm<S> {
    /// The process with this id, or the one of the thread with this id; and that thread, or the
    /// process's first.
    pub(crate) fn by_any_id(&self, id: u32) -> Result<(&Process, Option<&Thread>), Errno> {
        let thread = self
            .table
            .slot_of_tid(id)
            .and_then(|slot| self.table.thread(slot));
        let pid = thread.map_or(id, |thread| thread.pid);
        let process = self.table.process(pid).ok_or(Errno::ESRCH)?;
        let first = process
            .threads
            .first()
            .and_then(|&slot| self.table.thread(slot));
        Ok((process, thread.or(first)))
    }

    /// The state letter of /proc/PID/stat, or of task/TID's.
    fn state_of(&mut self, id: u32) -> Result<char, Errno> {
        let (process, thread) = self.by_any_id(id)?;
        if process.is_zombie() {
            return Ok('Z');
        }
        if let Some(trace) = thread.and_then(|thread| thread.trace.as_ref()) {
            if trace.stop.is_some() {
                return Ok('t');
            }
        } else if process.stopped.is_some() {
            return Ok('T');
        }
        let slots = match thread {
            Some(thread) if thread.tid != process.pid => alloc::vec![thread.endpoint.slot()],
            _ => process.threads.clone(),
        };
        let waits = rts::SENDING | rts::AWAIT_REPLY | rts::RECEIVING;
        let running = slots.iter().any(|&slot| {
            self.sys
                .info(slot)
                .is_some_and(|info| info.flags & waits == 0)
        });
        Ok(if running { 'R' } else { 'S' })
    }

    /// See [`ProcessOf`].
    pub fn process_of(&mut self, request: ProcessOf) -> Result<ProcessFigures, Errno> {
        let state = self.state_of(request.pid)?;
        let pid = self.by_any_id(request.pid)?.0.pid;
        let cpu_ns = self.cpu_ns(pid);
        let (process, thread) = self.by_any_id(request.pid)?;
        let private = thread.map_or(0, |thread| thread.pending.set().0);
        Ok(ProcessFigures {
            who: thread.map_or(Endpoint::NONE, |thread| thread.endpoint),
            parent_group: (process.parent, process.group),
            session_state: (process.session, state as u32),
            ids: (process.ids.user.effective, process.ids.group.effective),
            cpu_ns,
            start_ns: process.start_ns,
            pending: process.pending.set().0 | private,
        })
    }

    /// See [`NextPid`].
    pub fn next_pid(&mut self, request: NextPid) -> Result<FoundPid, Errno> {
        let pid = self.table.first_from(request.pid).ok_or(Errno::ESRCH)?;
        Ok(FoundPid { pid })
    }

    /// See [`NextTid`].
    pub fn next_tid(&mut self, request: NextTid) -> Result<FoundTid, Errno> {
        let process = self.table.process(request.pid).ok_or(Errno::ESRCH)?;
        let tids = process
            .threads
            .iter()
            .filter_map(|&slot| self.table.thread(slot))
            .map(|thread| thread.tid);
        let tid = tids.filter(|&tid| tid >= request.from).min();
        Ok(FoundTid {
            tid: tid.ok_or(Errno::ESRCH)?,
        })
    }

    /// See [`PidOf`].
    pub fn pid_of(&mut self, request: PidOf) -> Result<FoundPidOf, Errno> {
        let slot = self.table.slot_of(request.who).ok_or(Errno::ESRCH)?;
        let thread = self.table.thread(slot).ok_or(Errno::ESRCH)?;
        Ok(FoundPidOf { pid: thread.pid })
    }

    /// See [`NameOf`].
    pub fn name_of(&mut self, request: NameOf) -> Result<ProcessName, Errno> {
        let (process, thread) = self.by_any_id(request.pid)?;
        let other = thread.filter(|thread| thread.tid != process.pid);
        let name = other.map_or(process.name, |thread| thread.name);
        let trace = thread.and_then(|thread| thread.trace.as_ref());
        Ok(ProcessName {
            name,
            blocked: thread.map_or(0, |thread| thread.blocked.0),
            ignored: process.actions.ignored().0,
            caught: process.actions.caught().0,
            threads: process.threads.len() as u64,
            tracer: trace.map_or(0, |trace| trace.tracer),
        })
    }

    /// See [`abi::proto::pm::PmCounters`].
    pub fn counters(&mut self) -> PmFigures {
        let zombies = self.table.processes().filter(|p| p.is_zombie()).count();
        PmFigures {
            processes: self.table.processes().count() as u64,
            zombies: zombies as u64,
            forks: self.forks,
            epoch_ns: self.boot.epoch_ns,
        }
    }
}
