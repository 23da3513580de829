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

    fn soft(&self, resource: u32) -> u64 {
        self.0
            .get(resource as usize)
            .map_or(INFINITY, |limits| limits[0])
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
        let for_vm =
            [linux::RLIMIT_STACK, linux::RLIMIT_DATA, linux::RLIMIT_AS].contains(&resource);
        if !for_vm && resource != linux::RLIMIT_NOFILE {
            return Ok(());
        }
        let slot = process.threads.first().copied();
        let Some(who) = slot
            .and_then(|slot| self.table.thread(slot))
            .map(|t| t.endpoint)
        else {
            return Ok(());
        };
        if !for_vm {
            let request = vfs::SetFileLimit {
                who,
                files: limits.soft(resource),
            };
            return self.sys.call(Endpoint::VFS, request);
        }
        let request = vm::SetLimits {
            who,
            stack: limits.soft(linux::RLIMIT_STACK),
            data: limits.soft(linux::RLIMIT_DATA),
            address_space: limits.soft(linux::RLIMIT_AS),
        };
        self.sys.call(Endpoint::VM, request)
    }

    /// prlimit64(pid, resource, new, old).
    pub fn prlimit64(&mut self, caller: Caller, a: [u64; WORDS]) -> Result<u64, Errno> {
        let pid = if a[0] as u32 == 0 {
            caller.pid
        } else {
            a[0] as u32
        };
        let resource = a[1] as u32;
        let target = self.table.process(pid).ok_or(Errno::ESRCH)?;
        let old = target.limits.get(resource)?;
        if pid != caller.pid && !self.ids(caller.pid)?.may_signal(&target.ids) {
            return Err(Errno::EPERM);
        }
        if a[2] != 0 {
            let new = self.read_words(caller.who, a[2])?;
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
