//! Users, groups, process groups and sessions.

use crate::calls::Caller;
use crate::capabilities::Capabilities;
use crate::server::Pm;
use crate::system::System;
use abi::message::WORDS;
use abi::proto::vfs;
use abi::{Endpoint, Errno, capability};
use alloc::rc::Rc;
use alloc::vec::Vec;
use linux_raw_sys::general as nr;
use rt::room;

/// Most supplementary groups (Linux: NGROUPS_MAX).
const GROUPS_MAX: u64 = 65536;
/// Of them, copied at once.
const GROUPS_AT_ONCE: usize = 1024;

/// Real, effective and saved id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Triple {
    /// Real.
    pub real: u32,
    /// Effective.
    pub effective: u32,
    /// Saved.
    pub saved: u32,
}

impl Triple {
    /// All three the same.
    pub const fn new(id: u32) -> Triple {
        Triple {
            real: id,
            effective: id,
            saved: id,
        }
    }

    /// exec: the effective id of the image, which is the saved one, too.
    pub fn adopt(&mut self, effective: u32) {
        self.effective = effective;
        self.saved = effective;
    }

    /// Whether it acts as who it is.
    pub fn is_own(&self) -> bool {
        self.effective == self.real
    }

    /// Whether it is one of the three.
    pub fn has(&self, id: u32) -> bool {
        id == self.real || id == self.effective || id == self.saved
    }

    /// setuid, setgid.
    fn set(&mut self, id: u32, privileged: bool) -> Result<(), Errno> {
        if privileged {
            *self = Triple::new(id);
        } else if id == self.real || id == self.saved {
            self.effective = id;
        } else {
            return Err(Errno::EPERM);
        }
        Ok(())
    }

    /// setreuid, setregid; `u32::MAX` leaves an id alone.
    fn set_pair(&mut self, real: u32, effective: u32, privileged: bool) -> Result<(), Errno> {
        let old = *self;
        if real != u32::MAX {
            if !privileged && real != old.real && real != old.effective {
                return Err(Errno::EPERM);
            }
            self.real = real;
        }
        if effective != u32::MAX {
            if !privileged && !old.has(effective) {
                *self = old;
                return Err(Errno::EPERM);
            }
            self.effective = effective;
        }
        if real != u32::MAX || (effective != u32::MAX && effective != old.real) {
            self.saved = self.effective;
        }
        Ok(())
    }

    /// setresuid, setresgid.
    fn set_all(&mut self, ids: [u32; 3], privileged: bool) -> Result<(), Errno> {
        let old = *self;
        if !privileged && ids.iter().any(|&id| id != u32::MAX && !old.has(id)) {
            return Err(Errno::EPERM);
        }
        let pick = |new, old| if new == u32::MAX { old } else { new };
        *self = Triple {
            real: pick(ids[0], old.real),
            effective: pick(ids[1], old.effective),
            saved: pick(ids[2], old.saved),
        };
        Ok(())
    }
}

/// The ids of a process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ids {
    /// User.
    pub user: Triple,
    /// Group.
    pub group: Triple,
    /// Supplementary groups; a child has the same ones.
    pub groups: Rc<Vec<u32>>,
    /// User in whose name files are looked at: the effective one but for setfsuid(2).
    pub file_user: u32,
    /// Group likewise.
    pub file_group: u32,
    /// What of root's rights it has.
    pub capabilities: Capabilities,
}

impl Ids {
    /// A process of this user and group.
    pub fn new(user: u32, group: u32) -> Ids {
        Ids {
            user: Triple::new(user),
            group: Triple::new(group),
            groups: Rc::default(),
            file_user: user,
            file_group: group,
            capabilities: Capabilities::of_program(Triple::new(user), 0),
        }
    }

    /// exec: the effective ids of the new program.
    pub fn adopt(&mut self, user: u32, group: u32) {
        self.user.adopt(user);
        self.group.adopt(group);
        (self.file_user, self.file_group) = (user, group);
        self.capabilities = Capabilities::of_program(self.user, self.capabilities.inheritable);
    }

    /// Whether it has a capability of [`abi::capability`].
    pub fn capable(&self, capability: u64) -> bool {
        self.capabilities.effective & capability != 0
    }

    /// setfsuid: the answer is the old id, whatever comes of it.
    fn set_file_user(&mut self, id: u32) -> u32 {
        let old = self.file_user;
        let may = self.user.has(id) || id == old || self.capable(capability::SETUID);
        if id != u32::MAX && may {
            self.file_user = id;
            self.capabilities.file_user_changed(old, id);
        }
        old
    }

    /// setfsgid: likewise.
    fn set_file_group(&mut self, id: u32) -> u32 {
        let old = self.file_group;
        let may = self.group.has(id) || id == old || self.capable(capability::SETGID);
        if id != u32::MAX && may {
            self.file_group = id;
        }
        old
    }

    /// Whether the process may do what only root may.
    pub fn is_root(&self) -> bool {
        self.user.effective == 0
    }

    /// Whether a process with these ids may do what concerns how one with those of `target` runs:
    /// its own effective user is one that the target is, or it is root.
    pub fn may_schedule(&self, target: &Ids) -> bool {
        let mine = self.user.effective;
        self.is_root() || mine == target.user.real || mine == target.user.effective
    }

    /// Whether all ids of `target` are these real ones, or these are root's (prlimit(2)).
    pub fn is_all_of(&self, target: &Ids) -> bool {
        let all = |triple: Triple, id| triple == Triple::new(id);
        let same = all(target.user, self.user.real) && all(target.group, self.group.real);
        same || self.is_root()
    }

    /// Whether a process with these ids may signal one with those of `target`.
    pub fn may_signal(&self, target: &Ids) -> bool {
        let mine = [self.user.real, self.user.effective];
        self.is_root() || mine.contains(&target.user.real) || mine.contains(&target.user.saved)
    }
}

impl<S: System> Pm<S> {
    /// The ids of a process.
    pub fn ids(&self, pid: u32) -> Result<&Ids, Errno> {
        self.table
            .process(pid)
            .map(|process| &process.ids)
            .ok_or(Errno::ESRCH)
    }

    /// Whether the process is root's.
    pub fn is_root(&self, pid: u32) -> bool {
        self.ids(pid).is_ok_and(Ids::is_root)
    }

    /// getuid, setuid and all their relatives.
    pub fn ids_call(&mut self, caller: Caller, call: u32, a: [u64; WORDS]) -> Result<u64, Errno> {
        let ids = self.ids(caller.pid)?;
        let (user, group) = (ids.user, ids.group);
        let all = [a[0] as u32, a[1] as u32, a[2] as u32];
        let [first, second, _] = all;
        match call {
            nr::__NR_getuid => return Ok(user.real as u64),
            nr::__NR_geteuid => return Ok(user.effective as u64),
            nr::__NR_getgid => return Ok(group.real as u64),
            nr::__NR_getegid => return Ok(group.effective as u64),
            nr::__NR_getresuid | nr::__NR_getresgid => {
                let ids = if call == nr::__NR_getresuid {
                    user
                } else {
                    group
                };
                self.write_u32(caller.who, a[0], ids.real)?;
                self.write_u32(caller.who, a[1], ids.effective)?;
                self.write_u32(caller.who, a[2], ids.saved)?;
                return Ok(0);
            }
            nr::__NR_getgroups => return self.getgroups(caller, a),
            nr::__NR_setgroups => return self.setgroups(caller, a),
            _ => {}
        }
        let (old_user, old_group) = (ids.file_user, ids.file_group);
        let may_user = ids.capable(capability::SETUID);
        let may_group = ids.capable(capability::SETGID);
        let Some(process) = self.table.process_mut(caller.pid) else {
            return Err(Errno::ESRCH);
        };
        let ids = &mut process.ids;
        match call {
            nr::__NR_setuid => ids.user.set(valid(first)?, may_user)?,
            nr::__NR_setgid => ids.group.set(valid(first)?, may_group)?,
            nr::__NR_setreuid => ids.user.set_pair(first, second, may_user)?,
            nr::__NR_setregid => ids.group.set_pair(first, second, may_group)?,
            nr::__NR_setresuid => ids.user.set_all(all, may_user)?,
            nr::__NR_setresgid => ids.group.set_all(all, may_group)?,
            nr::__NR_setfsuid | nr::__NR_setfsgid => {}
            _ => return Err(Errno::ENOSYS),
        }
        // The answer of these is the old id; with the others the file system ids follow the
        // effective ones.
        let answer = match call {
            nr::__NR_setfsuid => ids.set_file_user(first),
            nr::__NR_setfsgid => ids.set_file_group(first),
            nr::__NR_setuid | nr::__NR_setreuid | nr::__NR_setresuid => {
                ids.file_user = ids.user.effective;
                ids.capabilities.users_changed(user, ids.user);
                0
            }
            _ => {
                ids.file_group = ids.group.effective;
                0
            }
        };
        // What it learned with other ids is not for those who share the new ones.
        if (ids.user.effective, ids.group.effective) != (user.effective, group.effective)
            || (ids.file_user, ids.file_group) != (old_user, old_group)
        {
            process.dumpable = false;
            process.death_signal = 0;
        }
        if process.ids.user.real != user.real {
            // Not counted is what it brings along itself.
            let threads = process.threads.len() as u64;
            let crowded = self.exceeds_processes(caller.pid, threads);
            if let Some(process) = self.table.process_mut(caller.pid) {
                process.crowded = crowded;
            }
        }
        if self.is_root(caller.pid) != (user.effective == 0) {
            self.tell_vm_limits(caller.pid)?;
        }
        self.tell_vfs_ids(caller.pid);
        Ok(u64::from(answer))
    }

    fn getgroups(&mut self, caller: Caller, a: [u64; WORDS]) -> Result<u64, Errno> {
        let groups = self.ids(caller.pid)?.groups.clone();
        let (size, address) = (a[0] as i32, a[1]);
        if size < 0 {
            return Err(Errno::EINVAL);
        }
        if size > 0 {
            if groups.len() > size as usize {
                return Err(Errno::EINVAL);
            }
            // A piece at a time: there may be many.
            for (n, some) in groups.chunks(GROUPS_AT_ONCE).enumerate() {
                let bytes: Vec<u8> = some.iter().flat_map(|id| id.to_le_bytes()).collect();
                let at = address.saturating_add((n * GROUPS_AT_ONCE * 4) as u64);
                self.write_bytes(caller.who, at, &bytes)?;
            }
        }
        Ok(groups.len() as u64)
    }

    fn setgroups(&mut self, caller: Caller, a: [u64; WORDS]) -> Result<u64, Errno> {
        if !self.ids(caller.pid)?.capable(capability::SETGID) {
            return Err(Errno::EPERM);
        }
        if a[0] > GROUPS_MAX {
            return Err(Errno::EINVAL);
        }
        let groups = self.read_groups(caller.who, a[1], a[0] as usize)?;
        self.sys.set_groups(caller.who, &groups)?;
        if let Some(process) = self.table.process_mut(caller.pid) {
            process.ids.groups = groups;
        }
        Ok(0)
    }

    /// `count` groups of a program: `ENOMEM`.
    fn read_groups(
        &mut self,
        who: Endpoint,
        address: u64,
        count: usize,
    ) -> Result<Rc<Vec<u32>>, Errno> {
        let mut groups = room::vector(count)?;
        while groups.len() < count {
            let mut bytes = [0; GROUPS_AT_ONCE * 4];
            let now = (count - groups.len()).min(GROUPS_AT_ONCE);
            let at = address.saturating_add(groups.len() as u64 * 4);
            self.read_bytes(who, at, &mut bytes[..now * 4])?;
            let (words, _) = bytes[..now * 4].as_chunks::<4>();
            groups.extend(words.iter().map(|word| u32::from_le_bytes(*word)));
        }
        Ok(Rc::new(groups))
    }

    /// A living process by id; 0 is the caller.
    fn by_id(&self, caller: Caller, id: u64) -> Result<&crate::table::Process, Errno> {
        let pid = if id as u32 == 0 {
            caller.pid
        } else {
            id as u32
        };
        self.table.process(pid).ok_or(Errno::ESRCH)
    }

    /// getpgid.
    pub fn getpgid(&mut self, caller: Caller, id: u64) -> Result<u64, Errno> {
        Ok(self.by_id(caller, id)?.group as u64)
    }

    /// getsid.
    pub fn getsid(&mut self, caller: Caller, id: u64) -> Result<u64, Errno> {
        Ok(self.by_id(caller, id)?.session as u64)
    }

    /// setpgid(pid, group).
    pub fn setpgid(&mut self, caller: Caller, a: [u64; WORDS]) -> Result<u64, Errno> {
        if (a[1] as i32) < 0 {
            return Err(Errno::EINVAL);
        }
        let session = self.by_id(caller, 0)?.session;
        let target = self.by_id(caller, a[0])?;
        let pid = target.pid;
        let group = if a[1] == 0 { pid } else { a[1] as u32 };
        if pid != caller.pid {
            if target.parent != caller.pid || target.is_zombie() {
                return Err(Errno::ESRCH);
            }
            if target.session != session {
                return Err(Errno::EPERM);
            }
            if target.has_execed {
                return Err(Errno::EACCES);
            }
        }
        let leads_session = target.session == pid;
        let joins = group != pid;
        let exists = self
            .table
            .processes()
            .any(|process| process.group == group && process.session == session);
        if leads_session || (joins && !exists) {
            return Err(Errno::EPERM);
        }
        if let Some(process) = self.table.process_mut(pid) {
            process.group = group;
        }
        self.tell_vfs_job(pid);
        Ok(0)
    }

    /// setsid.
    pub fn setsid(&mut self, caller: Caller) -> Result<u64, Errno> {
        let pid = caller.pid;
        if self.table.processes().any(|process| process.group == pid) {
            return Err(Errno::EPERM);
        }
        let Some(process) = self.table.process_mut(pid) else {
            return Err(Errno::ESRCH);
        };
        process.session = pid;
        process.group = pid;
        self.tell_vfs_job(pid);
        Ok(pid as u64)
    }

    /// VFS tells terminals the session and the process group of who uses them.
    fn tell_vfs_job(&mut self, pid: u32) {
        let Some(process) = self.table.process(pid) else {
            return;
        };
        let job = (process.session, process.group);
        for slot in process.threads.clone() {
            if let Some(who) = self.table.thread(slot).map(|thread| thread.endpoint) {
                let _ = self.sys.call(Endpoint::VFS, vfs::SetJob { who, job });
            }
        }
    }
}

fn valid(id: u32) -> Result<u32, Errno> {
    if id == u32::MAX {
        Err(Errno::EINVAL)
    } else {
        Ok(id)
    }
}
