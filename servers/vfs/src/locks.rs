//! Advisory locks: flock(2) and fcntl(2), per file.

use abi::Errno;
use alloc::vec::Vec;
use core::cell::RefCell;
use rt::charge::Charge;
use rt::task::Event;

/// Whose lock it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// A process's descriptor table (fcntl).
    Table(u64),
    /// An open file (flock, and fcntl's OFD locks with `ranges`).
    Open(u64),
    /// An open file by flock: does not meet range locks.
    Flock(u64),
}

impl Owner {
    fn is_flock(self) -> bool {
        matches!(self, Owner::Flock(_))
    }
}

/// A locked range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lock {
    /// Whose.
    pub owner: Owner,
    /// The process that asked (F_GETLK tells it).
    pub pid: u32,
    /// First byte.
    pub start: u64,
    /// One past the last; `u64::MAX` is to infinity.
    pub end: u64,
    /// Exclusive, or shared.
    pub exclusive: bool,
}

/// A lock that is set.
struct Held {
    lock: Lock,
    _charge: Charge,
}

/// The locks of one file.
#[derive(Default)]
pub struct Locks {
    held: RefCell<Vec<Held>>,
    /// Signalled when locks go.
    pub changed: Event,
}

impl Locks {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.held.borrow().len()
    }

    /// A lock of somebody else that stands against `wanted`.
    pub fn conflict(&self, wanted: &Lock) -> Option<Lock> {
        self.held
            .borrow()
            .iter()
            .map(|held| held.lock)
            .find(|held| {
                held.owner != wanted.owner
                    && held.owner.is_flock() == wanted.owner.is_flock()
                    && (held.exclusive || wanted.exclusive)
                    && held.start < wanted.end
                    && wanted.start < held.end
            })
    }

    /// Sets the lock, replacing the owner's own in its range. `charge` is for two: one may be
    /// left of a lock that is parted. `EAGAIN`, `ENOLCK`.
    pub fn set(&self, wanted: Lock, mut charge: Charge) -> Result<(), Errno> {
        if self.conflict(&wanted).is_some() {
            return Err(Errno::EAGAIN);
        }
        let mut held = self.held.borrow_mut();
        held.try_reserve(2).map_err(|_| Errno::ENOLCK)?;
        drop(held);
        let spare = charge.split(1);
        self.clear(wanted.owner, wanted.start, wanted.end, Some(spare))?;
        self.held.borrow_mut().push(Held {
            lock: wanted,
            _charge: charge,
        });
        Ok(())
    }

    /// Removes the owner's locks from a range. A lock around it is split: `ENOLCK` without a
    /// spare charge.
    pub fn clear(
        &self,
        owner: Owner,
        start: u64,
        end: u64,
        spare: Option<Charge>,
    ) -> Result<(), Errno> {
        let mut held = self.held.borrow_mut();
        // The owner's locks do not overlap, so at most one reaches out at both ends.
        let around = |lock: &Lock| lock.owner == owner && lock.start < start && end < lock.end;
        if let Some(at) = held.iter().position(|held| around(&held.lock)) {
            let charge = spare.ok_or(Errno::ENOLCK)?;
            held.try_reserve(1).map_err(|_| Errno::ENOLCK)?;
            let lock = Lock {
                start: end,
                ..held[at].lock
            };
            held[at].lock.end = start;
            held.push(Held {
                lock,
                _charge: charge,
            });
            drop(held);
            self.changed.signal();
            return Ok(());
        }
        let mut changed = false;
        held.retain_mut(|Held { lock, .. }| {
            if lock.owner != owner || lock.end <= start || end <= lock.start {
                return true;
            }
            changed = true;
            if lock.start < start {
                lock.end = start;
            } else {
                lock.start = end;
            }
            lock.start < lock.end
        });
        drop(held);
        if changed {
            self.changed.signal();
        }
        Ok(())
    }

    /// Removes all of the owner's locks.
    pub fn release(&self, owner: Owner) {
        if !self.held.borrow().is_empty() {
            // All of them: none is split.
            let _ = self.clear(owner, 0, u64::MAX, None);
        }
    }
}
