//! Counts of what is alive, and numbers that are given once.

use core::cell::Cell;

/// Things alive, for leak checks.
#[derive(Default)]
pub struct Counters {
    /// Open files.
    pub files: Cell<u64>,
    /// Pipes.
    pub pipes: Cell<u64>,
    /// Open files whose position is locked.
    pub positions: Cell<u64>,
    /// Tasks in which caches are asked for memory: nobody's, and VM asks when it likes.
    pub giving: Cell<u64>,
    next_id: Cell<u64>,
}

impl Counters {
    /// A number nothing else has.
    pub fn unique(&self) -> u64 {
        self.next_id.set(self.next_id.get() + 1);
        self.next_id.get()
    }

    /// Counts one up.
    pub fn up(counter: &Cell<u64>) {
        counter.set(counter.get() + 1);
    }

    /// Counts one down.
    pub fn down(counter: &Cell<u64>) {
        counter.set(counter.get() - 1);
    }
}
