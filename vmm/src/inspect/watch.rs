//! Finds out that a guest is deadlocked.
//!
//! Waiting for memory ends by itself: VM answers at once, or a page comes from the disk. So
//! when nobody runs, nothing arrives (devices answer before the guest goes on), and somebody
//! has waited for memory all the while, the wait will not end.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::graph::Graph;
use super::render;
use super::table::{self, Snapshot};
use crate::control::{Reason, Stop};
use crate::log::complain;
use crate::memory::Ram;

/// How long nothing happens before it is a deadlock: much longer than any disk or a busy host
/// takes.
const QUIET: Duration = Duration::from_secs(2);
/// Likewise where devices answer from a process that is not ours, while the guest may idle.
const QUIET_ELSEWHERE: Duration = Duration::from_secs(6);
/// How long one process waits for memory, while others go on, before it is a deadlock.
const PATIENCE: Duration = Duration::from_secs(15);

/// How often it is looked.
const EVERY: Duration = Duration::from_millis(500);

/// What the thread that looks is asked for.
#[derive(Debug, Default)]
pub struct Asked {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    report: bool,
    closed: bool,
}

impl Asked {
    /// Nothing yet.
    pub fn new() -> Arc<Asked> {
        Arc::default()
    }

    /// A person wants to know.
    pub fn report(&self) {
        self.lock().report = true;
        self.changed.notify_all();
    }

    /// There is nothing to look at any more.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Waits until it is time to look; whether a person asked. `None` at the end.
    fn wait(&self) -> Option<bool> {
        let idle = |state: &mut State| !state.report && !state.closed;
        let (mut state, _) = self
            .changed
            .wait_timeout_while(self.lock(), EVERY, idle)
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        (!state.closed).then(|| std::mem::take(&mut state.report))
    }
}

/// Looks now and then, in a thread of its own, and requests the end of a machine that is
/// deadlocked.
pub fn attend(mut inspector: Inspector, asked: &Asked, stop: &Stop) {
    while let Some(report) = asked.wait() {
        if report {
            inspector.report();
        }
        if let Some(reason) = inspector.glance() {
            return stop.request(reason);
        }
    }
}

/// One wait for memory: who, since when it has run, where.
type Wait = (u32, u64, u64);

/// The memory of the waits.
#[derive(Debug)]
struct Patience {
    quiet: Duration,
    progress: (u64, u64),
    since: Option<Instant>,
    waits: HashMap<Wait, Instant>,
}

impl Patience {
    fn new(quiet: Duration) -> Patience {
        Patience {
            quiet,
            progress: (0, 0),
            since: None,
            waits: HashMap::new(),
        }
    }

    /// Whether this moment, with what was seen before, is a deadlock.
    fn exhausted(&mut self, snapshot: &Snapshot, now: Instant) -> bool {
        let waits = snapshot.processes.iter().filter(|p| p.waits_for_memory());
        let known = std::mem::take(&mut self.waits);
        self.waits = waits
            .map(|p| {
                let address = p.wanted.map_or(p.fault, |wanted| wanted.address);
                let wait = (p.endpoint.0, p.ticks, address);
                (wait, known.get(&wait).copied().unwrap_or(now))
            })
            .collect();
        if !snapshot.idle || self.since.is_none() || snapshot.progress != self.progress {
            self.progress = snapshot.progress;
            self.since = Some(now);
        }
        let age = |since: Instant| now.saturating_duration_since(since);
        let quiet = self.since.is_some_and(|since| age(since) >= self.quiet);
        snapshot.idle
            && self
                .waits
                .values()
                .any(|&since| age(since) >= PATIENCE || quiet && age(since) >= self.quiet)
    }
}

/// Looks into a machine's memory.
pub struct Inspector {
    ram: Ram,
    address: Arc<AtomicU64>,
    directory: Option<PathBuf>,
    patience: Patience,
}

impl Inspector {
    /// For this RAM; `address` becomes that of the kernel's tables once it has announced them.
    /// Reports go to `directory` as well.
    pub fn new(ram: Ram, address: Arc<AtomicU64>, directory: Option<PathBuf>) -> Inspector {
        Inspector {
            ram,
            address,
            directory,
            patience: Patience::new(QUIET),
        }
    }

    /// Likewise, for a machine whose devices are not this process's.
    pub fn patient(ram: Ram, address: Arc<AtomicU64>, directory: Option<PathBuf>) -> Inspector {
        Inspector {
            patience: Patience::new(QUIET_ELSEWHERE),
            ..Inspector::new(ram, address, directory)
        }
    }

    fn snapshot(&self) -> Option<Snapshot> {
        let address = self.address.load(Ordering::Acquire);
        if address == 0 {
            return None;
        }
        table::snapshot(&self.ram, &table::layout(&self.ram, address)?)
    }

    fn write(&self, name: &str, graph: &Graph) {
        if let Some(directory) = &self.directory
            && let Err(error) = render::write(directory, name, graph)
        {
            complain(&format!("absentia: no report: {error:#}"));
        }
    }
}

impl Inspector {
    /// The reason to end the run, if there is one.
    fn glance(&mut self) -> Option<Reason> {
        let snapshot = self.snapshot()?;
        if !self.patience.exhausted(&snapshot, Instant::now()) {
            return None;
        }
        let graph = Graph::new(&snapshot);
        self.write("cycle", &graph);
        Some(Reason::Deadlock(render::text(&graph)))
    }

    /// A person wants to know.
    fn report(&mut self) {
        match self.snapshot() {
            Some(snapshot) => {
                let graph = Graph::new(&snapshot);
                self.write("waits", &graph);
                complain("absentia: who waits for whom now:");
                render::text(&graph).lines().for_each(complain);
            }
            None => complain("absentia: the guest has not said yet where to look"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::graph::tests::deadlocked;
    use super::*;

    #[test]
    fn patience_ends_when_nothing_happens() {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let mut patience = Patience::new(QUIET);
        let mut snapshot = deadlocked();
        assert!(!patience.exhausted(&snapshot, at(0)));
        assert!(!patience.exhausted(&snapshot, at(1900)));
        assert!(patience.exhausted(&snapshot, at(2100)));
        // Somebody else goes on: it takes longer.
        snapshot.progress.0 += 1;
        assert!(!patience.exhausted(&snapshot, at(2200)));
        snapshot.progress.0 += 1;
        assert!(!patience.exhausted(&snapshot, at(14_000)));
        snapshot.progress.0 += 1;
        assert!(patience.exhausted(&snapshot, at(15_100)));
        // Who runs in between waits anew.
        for process in &mut snapshot.processes {
            process.ticks += 1;
        }
        assert!(!patience.exhausted(&snapshot, at(15_200)));
        snapshot.idle = false;
        assert!(!patience.exhausted(&snapshot, at(60_000)));
    }

    #[test]
    fn nobody_waits_for_memory() {
        let mut patience = Patience::new(QUIET);
        let mut snapshot = deadlocked();
        snapshot.processes.iter_mut().for_each(|p| p.wanted = None);
        let begin = Instant::now();
        assert!(!patience.exhausted(&snapshot, begin));
        assert!(!patience.exhausted(&snapshot, begin + Duration::from_secs(3600)));
    }
}
