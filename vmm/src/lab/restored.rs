//! What putting a machine back took.

use std::time::{Duration, Instant};

/// What a restore did, and how long each part of it took.
#[derive(Clone, Debug)]
pub struct Restored {
    /// Pages that guest or VMM had written, or in which the snapshots differ.
    pub dirty: usize,
    /// Those that were copied.
    pub copied: usize,
    /// Places that the vCPU touched; `None` when all translations were forgotten.
    pub touched: Option<usize>,
    /// The parts, in order.
    pub laps: Vec<(&'static str, Duration)>,
}

/// Takes the time of the parts of something.
#[derive(Debug)]
pub(super) struct Stopwatch {
    since: Instant,
    laps: Vec<(&'static str, Duration)>,
}

impl Stopwatch {
    pub(super) fn new() -> Stopwatch {
        Stopwatch {
            since: Instant::now(),
            laps: Vec::with_capacity(8),
        }
    }

    pub(super) fn lap(&mut self, name: &'static str) {
        let now = Instant::now();
        self.laps.push((name, now - self.since));
        self.since = now;
    }

    pub(super) fn laps(self) -> Vec<(&'static str, Duration)> {
        self.laps
    }
}
