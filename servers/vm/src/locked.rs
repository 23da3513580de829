//! Locked memory: mlock(2) and its relatives. All of it stays where it is anyway, but for clean file
//! pages; what counts is how much a process may have (RLIMIT_MEMLOCK).

use crate::region::Flags;
use crate::server::Server;
use crate::space::Space;
use abi::{Endpoint, Errno, PAGE};
use linux_raw_sys::general as linux;

impl Space {
    /// `EPERM` for who may lock nothing.
    pub(crate) fn may_lock(&self) -> Result<(), Errno> {
        match self.limits.locked {
            0 => Err(Errno::EPERM),
            _ => Ok(()),
        }
    }

    /// Locked bytes of `[start, end)`.
    pub(crate) fn locked(&self, start: u64, end: u64) -> u64 {
        let regions = self.regions.overlapping(start, end).iter();
        let locked = regions.filter(|region| region.flags.contains(Flags::LOCKED));
        locked.map(|r| r.end.min(end) - r.start.max(start)).sum()
    }

    /// `EAGAIN` when not so many bytes more may be locked.
    pub(crate) fn room_to_lock(&self, more: u64) -> Result<(), Errno> {
        let most = self.limits.locked;
        if most != u64::MAX && self.locked(0, u64::MAX).saturating_add(more) > most {
            return Err(Errno::EAGAIN);
        }
        Ok(())
    }
}

impl Server {
    /// mlock(start, len), with `lock` false munlock.
    pub(crate) fn linux_mlock(
        &mut self,
        source: Endpoint,
        words: &[u64],
        lock: bool,
    ) -> Result<u64, Errno> {
        let start = abi::page_down(words[0]);
        let end = words[0].checked_add(words[1]).and_then(abi::page_up);
        let (space, pool) = self.space(source)?;
        if lock {
            space.may_lock()?;
        }
        let end = end.ok_or(Errno::EINVAL)?;
        if start == end {
            return Ok(0);
        }
        if lock {
            let more = (end - start).saturating_sub(space.locked(start, end));
            space.room_to_lock(more).map_err(|_| Errno::ENOMEM)?;
        }
        space.regions.room(pool.map_max)?;
        space.regions.change(start, end, &mut pool.files, |r| {
            r.flags.set(Flags::LOCKED, lock);
        });
        if space.regions.covers(start, end) {
            Ok(0)
        } else {
            Err(Errno::ENOMEM)
        }
    }

    /// mlockall(flags).
    pub(crate) fn linux_mlockall(&mut self, source: Endpoint, flags: u64) -> Result<u64, Errno> {
        let (current, future) = (linux::MCL_CURRENT as u64, linux::MCL_FUTURE as u64);
        let known = current | future | linux::MCL_ONFAULT as u64;
        if flags == 0 || flags & !known != 0 || flags == linux::MCL_ONFAULT as u64 {
            return Err(Errno::EINVAL);
        }
        let (space, pool) = self.space(source)?;
        space.may_lock()?;
        let most = space.limits.locked;
        if flags & current != 0 && most != u64::MAX && space.size() > most {
            return Err(Errno::ENOMEM);
        }
        space.lock_future = flags & future != 0;
        if flags & current != 0 {
            let all = (PAGE, abi::kernel::USER_END);
            space.regions.change(all.0, all.1, &mut pool.files, |r| {
                r.flags.insert(Flags::LOCKED);
            });
        }
        Ok(0)
    }

    /// munlockall().
    pub(crate) fn linux_munlockall(&mut self, source: Endpoint) -> Result<u64, Errno> {
        let (space, pool) = self.space(source)?;
        space.lock_future = false;
        let all = (PAGE, abi::kernel::USER_END);
        space.regions.change(all.0, all.1, &mut pool.files, |r| {
            r.flags.remove(Flags::LOCKED);
        });
        Ok(0)
    }
}
