//! Locked memory: mlock(2) and its relatives. What is locked is brought in first, and counts for RLIMIT_MEMLOCK;
//! clean file pages are the only ones that would ever go.

use crate::fault::Access;
use crate::jobs::{Failed, Origin, Then};
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

/// What mlock(2) says when memory that it locked cannot be had.
pub(crate) fn error_of_filling(errno: Errno) -> Errno {
    match errno {
        Errno::ENOMEM => Errno::EAGAIN,
        _ => Errno::ENOMEM,
    }
}

impl Server {
    /// The bytes of `(start, len)` as whole pages; `None` is none at all.
    fn lockable((first, len): (u64, u64)) -> Result<Option<(u64, u64)>, Errno> {
        let start = abi::page_down(first);
        let end = first.checked_add(len).and_then(abi::page_up);
        let end = end.ok_or(Errno::EINVAL)?;
        Ok((start != end).then_some((start, end)))
    }

    /// mlock2(start, len, flags).
    pub(crate) fn linux_mlock(
        &mut self,
        source: Endpoint,
        bytes: (u64, u64),
        flags: u64,
    ) -> Result<Option<u64>, Errno> {
        if flags & !u64::from(linux::MLOCK_ONFAULT) != 0 {
            return Err(Errno::EINVAL);
        }
        let (space, pool) = self.space(source)?;
        space.may_lock()?;
        let Some((start, end)) = Self::lockable(bytes)? else {
            return Ok(Some(0));
        };
        let more = (end - start).saturating_sub(space.locked(start, end));
        space.room_to_lock(more).map_err(|_| Errno::ENOMEM)?;
        space.regions.room(pool.map_max)?;
        space.regions.change(start, end, &mut pool.files, |r| {
            r.flags.insert(Flags::LOCKED);
            r.flags.set(Flags::FILLED, flags == 0);
        });
        if !space.regions.covers(start, end) {
            return Err(Errno::ENOMEM);
        }
        if flags != 0 {
            return Ok(Some(0));
        }
        let origin = Origin::Linux(Then::Return(0), Failed::FailsToLock);
        self.handle_memory(origin, source, (start, end - start), Access::Fill, true);
        Ok(None)
    }

    /// munlock(start, len).
    pub(crate) fn linux_munlock(
        &mut self,
        source: Endpoint,
        bytes: (u64, u64),
    ) -> Result<u64, Errno> {
        let (space, pool) = self.space(source)?;
        let Some((start, end)) = Self::lockable(bytes)? else {
            return Ok(0);
        };
        space.regions.room(pool.map_max)?;
        space.regions.change(start, end, &mut pool.files, |r| {
            r.flags.remove(Flags::LOCKED | Flags::FILLED);
        });
        match space.regions.covers(start, end) {
            true => Ok(0),
            false => Err(Errno::ENOMEM),
        }
    }

    /// Brings in what a call mapped at `(start, len)`, if it is to be present from the start (MAP_LOCKED,
    /// MCL_FUTURE, mremap of what is locked); the call's result is `result` in any case.
    pub(crate) fn fill_locked(
        &mut self,
        who: Endpoint,
        (start, len): (u64, u64),
        result: u64,
    ) -> Result<Option<u64>, Errno> {
        let (space, _) = self.space(who)?;
        let region = space.regions.at(start);
        if len == 0 || !region.is_some_and(|r| r.flags.contains(Flags::FILLED)) {
            return Ok(Some(result));
        }
        let origin = Origin::Linux(Then::Return(result), Failed::GoesOn);
        self.handle_memory(origin, who, (start, len), Access::Fill, true);
        Ok(None)
    }

    /// mlockall(flags).
    pub(crate) fn linux_mlockall(
        &mut self,
        source: Endpoint,
        flags: u64,
    ) -> Result<Option<u64>, Errno> {
        let (current, future) = (linux::MCL_CURRENT as u64, linux::MCL_FUTURE as u64);
        let on_fault = linux::MCL_ONFAULT as u64;
        if flags == 0 || flags & !(current | future | on_fault) != 0 || flags == on_fault {
            return Err(Errno::EINVAL);
        }
        let (space, pool) = self.space(source)?;
        space.may_lock()?;
        let most = space.limits.locked;
        if flags & current != 0 && most != u64::MAX && space.size() > most {
            return Err(Errno::ENOMEM);
        }
        let locked = match flags & on_fault {
            0 => Flags::LOCKED | Flags::FILLED,
            _ => Flags::LOCKED,
        };
        space.lock_future = match flags & future {
            0 => Flags::empty(),
            _ => locked,
        };
        if flags & current == 0 {
            return Ok(Some(0));
        }
        let (start, end) = (PAGE, abi::kernel::USER_END);
        space.regions.change(start, end, &mut pool.files, |r| {
            r.flags.remove(Flags::FILLED);
            r.flags.insert(locked);
        });
        if !locked.contains(Flags::FILLED) {
            return Ok(Some(0));
        }
        let origin = Origin::Linux(Then::Return(0), Failed::GoesOn);
        self.handle_memory(origin, source, (start, end - start), Access::Fill, true);
        Ok(None)
    }

    /// munlockall().
    pub(crate) fn linux_munlockall(&mut self, source: Endpoint) -> Result<u64, Errno> {
        let (space, pool) = self.space(source)?;
        space.lock_future = Flags::empty();
        let all = (PAGE, abi::kernel::USER_END);
        space.regions.change(all.0, all.1, &mut pool.files, |r| {
            r.flags.remove(Flags::LOCKED | Flags::FILLED);
        });
        Ok(0)
    }
}
