//! Who may look at whom: Linux's ptrace_may_access.

use crate::calls::Caller;
use crate::ids::{Ids, Triple};
use crate::server::Pm;
use crate::system::System;
use abi::{Endpoint, Errno};

impl Triple {
    fn all(&self, id: u32) -> bool {
        [self.real, self.effective, self.saved] == [id; 3]
    }
}

/// Whether a process with these ids may trace one with those of `target`: all of the target's ids
/// are its own, or it is root.
pub fn may_trace(ids: &Ids, target: &Ids) -> bool {
    ids.is_root() || target.user.all(ids.user.real) && target.group.all(ids.group.real)
}

impl<S: System> Pm<S> {
    /// `EPERM` unless `caller` may read and change process `pid`.
    pub fn may_access(&self, caller: Caller, pid: u32) -> Result<(), Errno> {
        if caller.pid == pid {
            return Ok(());
        }
        let ids = self.ids(caller.pid)?;
        let target = self.table.process(pid).ok_or(Errno::ESRCH)?;
        let open = target.dumpable && !target.set_id_exec;
        if may_trace(ids, &target.ids) && (open || ids.is_root()) {
            Ok(())
        } else {
            Err(Errno::EPERM)
        }
    }

    /// Whether an exec of the process may give it other ids: not if somebody traces it who could
    /// not become what it becomes. VFS asks; until the exec is over nobody may begin to.
    pub fn may_set_id(&mut self, slot: usize) -> Result<(), Errno> {
        let thread = self.table.thread(slot).ok_or(Errno::ESRCH)?;
        let pid = thread.pid;
        let watched = thread.trace.as_ref().is_some_and(|trace| !trace.privileged);
        if watched && !self.is_root(pid) {
            return Err(Errno::EPERM);
        }
        let process = self.table.process_mut(pid).ok_or(Errno::ESRCH)?;
        process.set_id_exec = true;
        Ok(())
    }

    /// That exec failed.
    pub fn set_id_over(&mut self, who: Endpoint) {
        let pid = self
            .table
            .slot_of(who)
            .and_then(|slot| self.table.thread(slot))
            .map(|thread| thread.pid);
        if let Some(process) = pid.and_then(|pid| self.table.process_mut(pid)) {
            process.set_id_exec = false;
        }
    }
}
