//! Who may look at whom: Linux's ptrace_may_access.

use crate::calls::Caller;
use crate::ids::{Ids, Triple};
use crate::server::Pm;
use crate::system::System;
use crate::table::Process;
use abi::proto::pm::{
    Credentials, CredentialsOf, GroupOf, MayLook, Privileges, PrivilegesOf, SupplementaryGroup,
};
use abi::{Endpoint, Errno};
use linux_raw_sys::general as linux;

impl Triple {
    fn all(&self, id: u32) -> bool {
        [self.real, self.effective, self.saved] == [id; 3]
    }
}

/// Whether a process with these ids, which acts as this user and group, may look at `target`: root
/// may; others when all of the target's ids are those, and it is dumpable.
fn may_trace(ids: &Ids, (user, group): (u32, u32), target: &Process) -> bool {
    let open = target.dumpable && !target.set_id_exec;
    ids.is_root() || open && target.ids.user.all(user) && target.ids.group.all(group)
}

impl<S: System> Pm<S> {
    /// `EPERM` unless `caller` may read and change process `pid`: by its real ids, as who a set-id
    /// program works for.
    pub fn may_access(&self, caller: Caller, pid: u32) -> Result<(), Errno> {
        let ids = self.ids(caller.pid)?;
        let target = self.table.process(pid).ok_or(Errno::ESRCH)?;
        let real = (ids.user.real, ids.group.real);
        if caller.pid == pid || may_trace(ids, real, target) {
            Ok(())
        } else {
            Err(Errno::EPERM)
        }
    }

    /// See [`MayLook`].
    pub fn may_look(&self, request: MayLook) -> Result<(), Errno> {
        let slot = self.table.slot_of(request.who).ok_or(Errno::ESRCH)?;
        let pid = self.table.thread(slot).ok_or(Errno::ESRCH)?.pid;
        let ids = self.ids(pid)?;
        let target = self.by_any_id(request.pid)?.0;
        let effective = (ids.user.effective, ids.group.effective);
        if pid == target.pid || may_trace(ids, effective, target) {
            Ok(())
        } else {
            Err(Errno::EACCES)
        }
    }

    /// See [`CredentialsOf`].
    pub fn credentials_of(&self, request: CredentialsOf) -> Result<Credentials, Errno> {
        let process = self.by_any_id(request.pid)?.0;
        let (user, group) = (process.ids.user, process.ids.group);
        let most = process.limits.soft(linux::RLIMIT_SIGPENDING);
        let queued = self.queued_of(user.real);
        let word = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        Ok(Credentials {
            users: (user.real, user.effective),
            groups: (group.real, group.effective),
            saved: (user.saved, group.saved),
            // While a set-id program is put in place there is neither the old image nor the new.
            image: match process.threads.is_empty() || process.set_id_exec {
                true => 0,
                false => process.space,
            },
            queued: (word(queued as u64), word(most)),
            dumpable: process.dumpable,
        })
    }

    /// See [`PrivilegesOf`].
    pub fn privileges_of(&self, request: PrivilegesOf) -> Result<Privileges, Errno> {
        let process = self.by_any_id(request.pid)?.0;
        let sets = process.ids.capabilities;
        Ok(Privileges {
            effective: sets.effective,
            permitted: sets.permitted,
            inheritable: sets.inheritable,
            file_ids: (process.ids.file_user, process.ids.file_group),
            no_new: process.no_new_privileges,
        })
    }

    /// See [`GroupOf`].
    pub fn supplementary_group(&self, request: GroupOf) -> Result<SupplementaryGroup, Errno> {
        let groups = &self.by_any_id(request.pid)?.0.ids.groups;
        let group = groups.get(request.index as usize).copied();
        let group = group.ok_or(Errno::ENOENT)?;
        Ok(SupplementaryGroup { group })
    }

    /// Whether an exec of the process may give it other ids: not if it renounced that, and not if
    /// somebody traces it who could not become what it becomes. VFS asks; until the exec is over
    /// nobody may begin to.
    pub fn may_set_id(&mut self, slot: usize) -> Result<(), Errno> {
        let thread = self.table.thread(slot).ok_or(Errno::ESRCH)?;
        let pid = thread.pid;
        let watched = thread.trace.as_ref().is_some_and(|trace| !trace.privileged);
        if watched && !self.is_root(pid) {
            return Err(Errno::EPERM);
        }
        let process = self.table.process_mut(pid).ok_or(Errno::ESRCH)?;
        if process.no_new_privileges {
            return Err(Errno::EPERM);
        }
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
