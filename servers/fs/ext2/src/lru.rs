//! Slots in the order of their last use.

use abi::Errno;
use alloc::vec::Vec;

use crate::Result;

const NONE: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Link {
    newer: u32,
    older: u32,
}

/// A doubly linked list over slot numbers.
pub(crate) struct Lru {
    links: Vec<Link>,
    newest: u32,
    oldest: u32,
}

impl Lru {
    pub(crate) fn new() -> Lru {
        Lru {
            links: Vec::new(),
            newest: NONE,
            oldest: NONE,
        }
    }

    /// Forgets all slots; there is room for as many.
    pub(crate) fn clear(&mut self) {
        self.links.clear();
        (self.newest, self.oldest) = (NONE, NONE);
    }

    /// Makes room for slots with numbers below `count`. `ENOMEM`.
    pub(crate) fn reserve(&mut self, count: usize) -> Result<()> {
        let more = count.saturating_sub(self.links.len());
        self.links.try_reserve(more).map_err(|_| Errno::ENOMEM)
    }

    /// Puts a slot that is not in the list there as the newest. There is room for it.
    pub(crate) fn add(&mut self, slot: usize) {
        self.extend(slot);
        self.push_newest(slot as u32);
    }

    /// Puts a slot that is not in the list there, to be reused first. There is room for it.
    pub(crate) fn add_oldest(&mut self, slot: usize) {
        self.extend(slot);
        self.push_oldest(slot as u32);
    }

    /// Takes a slot out of the list.
    pub(crate) fn remove(&mut self, slot: usize) {
        self.unlink(slot as u32);
    }

    fn extend(&mut self, slot: usize) {
        let none = Link {
            newer: NONE,
            older: NONE,
        };
        if slot >= self.links.len() {
            self.links.resize(slot + 1, none);
        }
    }

    /// The slot was used.
    pub(crate) fn touch(&mut self, slot: usize) {
        if self.newest != slot as u32 {
            self.unlink(slot as u32);
            self.push_newest(slot as u32);
        }
    }

    /// The slot is to be reused first.
    pub(crate) fn retire(&mut self, slot: usize) {
        let slot = slot as u32;
        if self.oldest == slot {
            return;
        }
        self.unlink(slot);
        self.push_oldest(slot);
    }

    /// Slots from the least recently used on.
    pub(crate) fn oldest(&self) -> impl Iterator<Item = usize> + '_ {
        let mut next = self.oldest;
        core::iter::from_fn(move || {
            let slot = next;
            (slot != NONE).then(|| {
                next = self.links[slot as usize].newer;
                slot as usize
            })
        })
    }

    fn push_oldest(&mut self, slot: u32) {
        self.links[slot as usize] = Link {
            newer: self.oldest,
            older: NONE,
        };
        match self.oldest {
            NONE => self.newest = slot,
            oldest => self.links[oldest as usize].older = slot,
        }
        self.oldest = slot;
    }

    fn push_newest(&mut self, slot: u32) {
        self.links[slot as usize] = Link {
            newer: NONE,
            older: self.newest,
        };
        match self.newest {
            NONE => self.oldest = slot,
            newest => self.links[newest as usize].newer = slot,
        }
        self.newest = slot;
    }

    fn unlink(&mut self, slot: u32) {
        let Link { newer, older } = self.links[slot as usize];
        match newer {
            NONE => self.newest = older,
            n => self.links[n as usize].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            o => self.links[o as usize].newer = newer,
        }
    }
}
