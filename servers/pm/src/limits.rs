//! Resource limits.

use crate::calls::Caller;
use crate::server::Pm;
use crate::system::System;
use abi::message::WORDS;
use abi::proto::{vfs, vm};
use abi::{Endpoint, Errno};
use linux_raw_sys::general as linux;

const COUNT: usize = 16;
/// No limit.
pub const INFINITY: u64 = u64::MAX;

/// Soft and hard limit of each resource.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits([[u64; 2]; COUNT]);

impl Default for Limits {
    fn default() -> Self {
        let mut limits = [[INFINITY; 2]; COUNT];
        limits[linux::RLIMIT_STACK as usize] = [8 << 20, INFINITY];
        limits[linux::RLIMIT_CORE as usize] = [0, INFINITY];
        limits[linux::RLIMIT_NOFILE as usize] = [1024, 4096];
        let processes = abi::endpoint::MAX_PROCESSES as u64;
        limits[linux::RLIMIT_NPROC as usize] = [processes; 2];
        limits[linux::RLIMIT_SIGPENDING as usize] = [crate::signal::pending::QUEUE_MAX as u64; 2];
        limits[linux::RLIMIT_MEMLOCK as usize] = [8 << 20; 2];
        limits[linux::RLIMIT_MSGQUEUE as usize] = [819_200; 2];
        limits[linux::RLIMIT_NICE as usize] = [0; 2];
        limits[linux::RLIMIT_RTPRIO as usize] = [0; 2];
        Limits(limits)
    }
}

impl Limits {
    /// Soft and hard limit.
    pub fn get(&self, resource: u32) -> Result<[u64; 2], Errno> {
        self.0.get(resource as usize).copied().ok_or(Errno::EINVAL)
    }

    /// Replaces them, if that is allowed.
    pub fn set(&mut self, resource: u32, new: [u64; 2], privileged: bool) -> Result<(), Errno> {
        let old = self.0.get_mut(resource as usize).ok_or(Errno::EINVAL)?;
        if new[0] > new[1] {
            return Err(Errno::EINVAL);
        }
        if new[1] > old[1] && !privileged {
            return Err(Errno::EPERM);
        }
        *old = new;
        Ok(())
    }

    /// The soft limit; none of a resource that does not exist.
    pub fn soft(&self, resource: u32) -> u64 {
        self.pair(resource)[0]
    }

    /// Soft and hard limit; none of a resource that does not exist.
    pub fn pair(&self, resource: u32) -> [u64; 2] {
        self.0
            .get(resource as usize)
            .copied()
            .unwrap_or([INFINITY; 2])
    }

    /// One more, as RLIMIT_CPU's soft limit gets when it was met.
    pub fn raise_soft(&mut self, resource: u32) {
        if let Some([soft, _]) = self.0.get_mut(resource as usize) {
            *soft = soft.saturating_add(1);
        }
    }
}

impl<S: System> Pm<S> {
    fn set_limit(
        &mut self,
        caller: Caller,
        pid: u32,
        resource: u32,
        new: [u64; 2],
    ) -> Result<(), Errno> {
        let root = self.is_root(caller.pid);
        let process = self.table.process_mut(pid).ok_or(Errno::ESRCH)?;
        process.limits.set(resource, new, root)?;
        let limits = process.limits;
        let for_vm = [
            linux::RLIMIT_STACK,
            linux::RLIMIT_DATA,
            linux::RLIMIT_AS,
            linux::RLIMIT_MEMLOCK,
        ];
        let slot = process.threads.first().copied();
        if resource == linux::RLIMIT_CPU {
            self.watch_cpu(pid);
        }
        if for_vm.contains(&resource) {
            return self.tell_vm_limits(pid);
        }
        if ![linux::RLIMIT_NOFILE, linux::RLIMIT_FSIZE].contains(&resource) {
            return Ok(());
        }
        let Some(who) = slot
            .and_then(|slot| self.table.thread(slot))
            .map(|t| t.endpoint)
        else {
            return Ok(());
        };
        let request = vfs::SetFileLimit {
            who,
            files: limits.soft(linux::RLIMIT_NOFILE),
            size: limits.soft(linux::RLIMIT_FSIZE),
        };
        self.sys.call(Endpoint::VFS, request)
    }

    /// Tells VM of a process's limits. Root locks as much memory as there is.
    pub(crate) fn tell_vm_limits(&mut self, pid: u32) -> Result<(), Errno> {
        let Some(process) = self.table.process(pid) else {
            return Err(Errno::ESRCH);
        };
        let (limits, root) = (process.limits, process.ids.is_root());
        let first = process.threads.first();
        let Some(who) = first
            .and_then(|&slot| self.table.thread(slot))
            .map(|t| t.endpoint)
        else {
            return Ok(());
        };
        let request = vm::SetLimits {
            who,
            stack: limits.soft(linux::RLIMIT_STACK),
            data: limits.soft(linux::RLIMIT_DATA),
            address_space: limits.soft(linux::RLIMIT_AS),
            locked: match root {
                true => INFINITY,
                false => limits.soft(linux::RLIMIT_MEMLOCK),
            },
        };
        self.sys.call(Endpoint::VM, request)
    }

    /// prlimit64(pid, resource, new, old).
    pub fn prlimit64(&mut self, caller: Caller, a: [u64; WORDS]) -> Result<u64, Errno> {
        let new = match a[2] {
            0 => None,
            address => Some(self.read_words(caller.who, address)?),
        };
        let target = match a[0] as u32 {
            0 => self.table.process(caller.pid).ok_or(Errno::ESRCH)?,
            id => self.by_any_id(id)?.0,
        };
        let (pid, resource) = (target.pid, a[1] as u32);
        if pid != caller.pid && !self.ids(caller.pid)?.is_all_of(&target.ids) {
            return Err(Errno::EPERM);
        }
        let old = target.limits.get(resource)?;
        if let Some(new) = new {
            self.set_limit(caller, pid, resource, new)?;
        }
        self.write_words_opt(caller.who, a[3], old)?;
        Ok(0)
    }

    /// getrlimit(resource, limits).
    pub fn getrlimit(&mut self, caller: Caller, a: [u64; WORDS]) -> Result<u64, Errno> {
        let process = self.table.process(caller.pid).ok_or(Errno::ESRCH)?;
        let limits = process.limits.get(a[0] as u32)?;
        self.write_words(caller.who, a[1], limits)?;
        Ok(0)
    }

    /// setrlimit(resource, limits).
    pub fn setrlimit(&mut self, caller: Caller, a: [u64; WORDS]) -> Result<u64, Errno> {
        let new = self.read_words(caller.who, a[1])?;
        self.set_limit(caller, caller.pid, a[0] as u32, new)?;
        Ok(0)
    }
}
