//! What other servers ask about processes.

use crate::server::Pm;
use crate::system::System;
use abi::Errno;
use abi::kernel::rts;
use abi::proto::pm::{
    FoundPid, FoundPidOf, NameOf, NextPid, PidOf, PmFigures, ProcessFigures, ProcessName, ProcessOf,
};

fn halves(name: [u8; 16]) -> ([u8; 8], [u8; 8]) {
    let (mut first, mut second) = ([0; 8], [0; 8]);
    first.copy_from_slice(&name[..8]);
    second.copy_from_slice(&name[8..]);
    (first, second)
}

impl<S: System> Pm<S> {
    /// The state letter of /proc/PID/stat.
    fn state_of(&mut self, pid: u32) -> char {
        let Some(process) = self.table.process(pid) else {
            return 'X';
        };
        if process.is_zombie() {
            return 'Z';
        }
        let traced = |&slot: &usize| self.trace(slot).is_some_and(|t| t.stop.is_some());
        if process.threads.iter().any(traced) {
            return 't';
        }
        if process.stopped.is_some() {
            return 'T';
        }
        let slots = process.threads.clone();
        let waits = rts::SENDING | rts::AWAIT_REPLY | rts::RECEIVING;
        let running = slots.iter().any(|&slot| {
            self.sys
                .info(slot)
                .is_some_and(|info| info.flags & waits == 0)
        });
        if running { 'R' } else { 'S' }
    }

    /// See [`ProcessOf`].
    pub fn process_of(&mut self, request: ProcessOf) -> Result<ProcessFigures, Errno> {
        let state = self.state_of(request.pid);
        let cpu_ns = self.cpu_ns(request.pid);
        let process = self.table.process(request.pid).ok_or(Errno::ESRCH)?;
        let thread = process
            .threads
            .first()
            .and_then(|&slot| self.table.thread(slot));
        let private = thread.map_or(0, |thread| thread.pending.set().0);
        Ok(ProcessFigures {
            who: thread.map_or(abi::Endpoint::NONE, |thread| thread.endpoint),
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

    /// See [`PidOf`].
    pub fn pid_of(&mut self, request: PidOf) -> Result<FoundPidOf, Errno> {
        let slot = self.table.slot_of(request.who).ok_or(Errno::ESRCH)?;
        let thread = self.table.thread(slot).ok_or(Errno::ESRCH)?;
        Ok(FoundPidOf { pid: thread.pid })
    }

    /// See [`NameOf`].
    pub fn name_of(&mut self, request: NameOf) -> Result<ProcessName, Errno> {
        let process = self.table.process(request.pid).ok_or(Errno::ESRCH)?;
        let (name, name2) = halves(process.name);
        let blocked = process
            .threads
            .first()
            .and_then(|&slot| self.table.thread(slot))
            .map_or(0, |thread| thread.blocked.0);
        Ok(ProcessName {
            name,
            name2,
            blocked,
            ignored: process.actions.ignored().0,
            caught: process.actions.caught().0,
            threads: process.threads.len() as u64,
            tracer: self.tracer_of_leader(request.pid).unwrap_or(0),
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
