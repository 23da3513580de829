//! Advisory locks: flock(2) and fcntl(2), per file.

use abi::Errno;
use alloc::vec::Vec;
use core::cell::RefCell;
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

/// The locks of one file.
#[derive(Default)]
pub struct Locks {
    held: RefCell<Vec<Lock>>,
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
            .find(|held| {
                held.owner != wanted.owner
                    && held.owner.is_flock() == wanted.owner.is_flock()
                    && (held.exclusive || wanted.exclusive)
                    && held.start < wanted.end
                    && wanted.start < held.end
            })
            .copied()
    }

    /// Sets the lock, replacing the owner's own in its range. `EAGAIN`.
    pub fn set(&self, wanted: Lock) -> Result<(), Errno> {
        if self.conflict(&wanted).is_some() {
            return Err(Errno::EAGAIN);
        }
        self.clear(wanted.owner, wanted.start, wanted.end);
        self.held.borrow_mut().push(wanted);
        Ok(())
    }

    /// Removes the owner's locks from a range; a lock around it is split.
    pub fn clear(&self, owner: Owner, start: u64, end: u64) {
        let mut held = self.held.borrow_mut();
        let mut changed = false;
        let mut pieces = Vec::new();
        held.retain(|lock| {
            if lock.owner != owner || lock.end <= start || end <= lock.start {
                return true;
            }
            changed = true;
            if lock.start < start {
                pieces.push(Lock {
                    end: start,
                    ..*lock
                });
            }
            if end < lock.end {
                pieces.push(Lock {
                    start: end,
                    ..*lock
                });
            }
            false
        });
        held.extend(pieces);
        drop(held);
        if changed {
            self.changed.signal();
        }
    }

    /// Removes all of the owner's locks.
    pub fn release(&self, owner: Owner) {
        if !self.held.borrow().is_empty() {
            self.clear(owner, 0, u64::MAX);
        }
    }
}
