//! What the kernel says to us on the serial port where there is no lab device, and its memory.

use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use abi::lab::{INSPECTION_LINE, LACKS_LINE, PLAN_LINE, RECORD_LINE, STUCK_LINE, TRACE_LINE};
use abi::trace::Record;
use anyhow::{Context, Result};

use crate::inspect::{Inspector, table};
use crate::memory::{self, Ram};

/// The length of a trace and its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trail {
    /// Records.
    pub records: u64,
    /// Their hash.
    pub hash: u64,
}

/// Takes records as they come.
pub type Recorder = Box<dyn FnMut(Record) + Send>;

/// What was said.
#[derive(Default)]
pub struct Heard {
    /// The whole trace, at the end.
    pub trail: Option<Trail>,
    /// What became of each fault of the plan.
    pub plan: Vec<String>,
    /// Nobody can run.
    pub stuck: bool,
    /// What the processor lacks of what the kernel needs.
    pub lacks: Option<String>,
    /// Gets each record.
    pub recorder: Option<Recorder>,
    inspection: Arc<AtomicU64>,
}

impl Heard {
    /// Takes a line; whether it is one of these, and not for the log.
    pub fn line(&mut self, line: &str) -> bool {
        if let Some(words) = line.strip_prefix(RECORD_LINE) {
            if let (Some(record), Some(recorder)) = (record(words), &mut self.recorder) {
                recorder(record);
            }
            return true;
        }
        if let Some(trail) = line.strip_prefix(TRACE_LINE) {
            self.trail = trail_of(trail);
        } else if let Some(fault) = line.strip_prefix(PLAN_LINE) {
            self.plan.push(fault.trim().into());
        } else if let Some(at) = line.strip_prefix(INSPECTION_LINE) {
            let at = u64::from_str_radix(at.trim(), 16).unwrap_or(0);
            self.inspection.store(at, Ordering::Release);
            return true;
        } else if let Some(what) = line.strip_prefix(LACKS_LINE) {
            self.lacks = Some(what.trim().into());
            return true;
        } else if line == STUCK_LINE {
            self.stuck = true;
        }
        false
    }
}

fn record(words: &str) -> Option<Record> {
    let mut words = words
        .split_ascii_whitespace()
        .map(|word| u64::from_str_radix(word, 16).ok());
    let mut next = || words.next()?;
    Some(Record {
        time: next()?,
        what: next()?,
        words: [next()?, next()?, next()?, next()?, next()?, next()?],
    })
}

fn trail_of(text: &str) -> Option<Trail> {
    let (records, hash) = text.trim().split_once(" records, hash ")?;
    Some(Trail {
        records: records.parse().ok()?,
        hash: u64::from_str_radix(hash, 16).ok()?,
    })
}

/// A run that is listened to, and whose RAM can be looked into afterwards.
#[derive(Clone)]
pub struct Watch {
    /// What was heard.
    pub heard: Arc<Mutex<Heard>>,
    /// Guest RAM.
    pub ram: Arc<File>,
}

impl Watch {
    /// For a machine with so many bytes of RAM. `recorder` gets the trace, if it is told.
    pub fn new(memory: u64, recorder: Option<Recorder>) -> Result<Watch> {
        let ram = super::memory_file("ram", |_| Ok(()))?;
        rustix::fs::ftruncate(&ram, memory).context("the size of guest memory")?;
        Ok(Watch {
            heard: Arc::new(Mutex::new(Heard {
                recorder,
                ..Heard::default()
            })),
            ram: Arc::new(ram.into()),
        })
    }

    /// What was heard so far.
    pub fn lock(&self) -> std::sync::MutexGuard<'_, Heard> {
        self.heard
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The process table of a guest in which nobody can run.
    pub fn table(&self) -> Option<table::Snapshot> {
        let at = self.lock().inspection.load(Ordering::Acquire);
        let ram = self.map().ok()?;
        table::snapshot(&ram, &table::layout(&ram, at)?)
    }

    /// Looks into the guest while it runs. Reports go to `directory` as well.
    pub fn inspector(&self, directory: Option<PathBuf>) -> Result<Inspector> {
        let inspection = self.lock().inspection.clone();
        Ok(Inspector::patient(self.map()?, inspection, directory))
    }

    /// Guest RAM, mapped here.
    fn map(&self) -> Result<Ram> {
        let len = self.ram.metadata().context("guest memory")?.len();
        memory::map(&self.ram, len, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_told_apart() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut heard = Heard {
            recorder: Some(Box::new({
                let seen = seen.clone();
                move |record| seen.lock().unwrap().push(record)
            })),
            ..Heard::default()
        };
        assert!(heard.line("record: 1 2 3 4 5 6 7 ff"));
        assert!(heard.line("record: what"));
        assert!(!heard.line("trace: 17 records, hash 00ab"));
        assert!(!heard.line("plan: 4 absent 1000 2000"));
        assert!(!heard.line("hello"));
        assert!(heard.line("inspection: 1234000"));
        assert_eq!(heard.inspection.load(Ordering::Acquire), 0x123_4000);
        assert!(heard.line("this processor lacks NX"));
        assert_eq!(heard.lacks.as_deref(), Some("NX"));
        assert!(!heard.stuck);
        assert!(!heard.line(STUCK_LINE));
        assert!(heard.stuck);
        let trail = Trail {
            records: 17,
            hash: 0xab,
        };
        assert_eq!(heard.trail, Some(trail));
        assert_eq!(heard.plan, ["4 absent 1000 2000"]);
        let seen = seen.lock().unwrap();
        assert_eq!((seen.len(), seen[0].words[5]), (1, 0xff));
    }
}
