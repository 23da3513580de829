//! Deadlines: one ordered queue behind the kernel's one timer.

use abi::Endpoint;
use alloc::collections::BTreeMap;

/// What happens at a deadline.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// The Linux call that this thread waits in times out.
    Call(Endpoint),
    /// An interval timer of the process: real, virtual or profiling (0, 1, 2).
    Interval(u32, usize),
    /// A POSIX timer of the process.
    Posix(u32, usize),
    /// The process may have used up its CPU time (RLIMIT_CPU).
    CpuLimit(u32),
    /// Who was ended for lack of memory has had time to let go of it.
    MemoryReleased,
    /// The file systems took too long to sync at the end.
    SyncOverdue,
}

/// Names a queued event.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct TimerKey {
    /// When it is due, ns since boot.
    pub deadline: u64,
    sequence: u64,
}

/// The queue.
#[derive(Default, Debug)]
pub struct Timers {
    queue: BTreeMap<TimerKey, Event>,
    sequence: u64,
}

impl Timers {
    /// Adds an event.
    pub fn add(&mut self, deadline: u64, event: Event) -> TimerKey {
        self.sequence += 1;
        let key = TimerKey {
            deadline,
            sequence: self.sequence,
        };
        self.queue.insert(key, event);
        key
    }

    /// Removes an event; one that has fired is no error.
    pub fn cancel(&mut self, key: TimerKey) {
        self.queue.remove(&key);
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<u64> {
        self.queue.first_key_value().map(|(key, _)| key.deadline)
    }

    /// Takes the earliest event that is due.
    pub fn take_due(&mut self, now: u64) -> Option<(TimerKey, Event)> {
        let entry = self.queue.first_entry()?;
        if entry.key().deadline > now {
            return None;
        }
        Some(entry.remove_entry())
    }

    /// Queued events.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}
