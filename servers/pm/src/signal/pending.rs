//! Signals that were raised and not yet taken.

use super::info::Info;
use super::set::{SIGRTMIN, SigSet};
use alloc::vec::Vec;

/// Most real-time signals one queue holds (Linux: RLIMIT_SIGPENDING).
pub const QUEUE_MAX: usize = 1024;

/// Queued signals that a machine with `memory` bytes may have in all: a 64th of memory.
pub const fn queued_most(memory: u64) -> u64 {
    memory / 64 / size_of::<Info>() as u64
}

/// Room that a real-time signal needs: its own, and that of all standard signals, which are not to
/// be refused.
const SPARE: usize = SIGRTMIN as usize;

/// A queue of raised signals. A standard signal is in it at most once, with the siginfo of
/// the first time; real-time signals queue.
#[derive(Clone, Default, Debug)]
pub struct Pending {
    set: SigSet,
    queue: Vec<Info>,
}

impl Pending {
    /// Which signals are in it.
    pub fn set(&self) -> SigSet {
        self.set
    }

    /// What is in it, oldest first.
    pub fn infos(&self) -> impl Iterator<Item = &Info> {
        self.queue.iter()
    }

    /// Adds a signal. `false`: a real-time signal found the queue full, or there is no memory for a longer one.
    pub fn add(&mut self, info: Info) -> bool {
        let signal = info.signal();
        if signal < SIGRTMIN {
            if self.set.has(signal) {
                return true;
            }
        } else if self.queue.len() >= QUEUE_MAX || self.queue.try_reserve(SPARE).is_err() {
            return false;
        }
        if self.queue.try_reserve(1).is_err() {
            return false;
        }
        self.set = self.set.with(signal);
        self.queue.push(info);
        true
    }

    /// Takes the oldest occurrence of `signal`.
    pub fn take(&mut self, signal: i32) -> Option<Info> {
        let index = self.queue.iter().position(|info| info.signal() == signal)?;
        let info = self.queue.remove(index);
        if !self.queue.iter().any(|info| info.signal() == signal) {
            self.set = self.set.minus(SigSet::of(&[signal]));
        }
        Some(info)
    }

    /// Drops all of these signals.
    pub fn discard(&mut self, signals: SigSet) {
        if !self.set.and(signals).is_empty() {
            self.set = self.set.minus(signals);
            self.queue.retain(|info| !signals.has(info.signal()));
        }
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        *self = Pending::default();
    }

    /// Entries, occurrences of real-time signals counted one by one.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether nothing is pending.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}
