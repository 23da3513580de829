//! What the machine says about itself: guest log lines and the VMM's own, on standard error
//! when asked for, and the last of them always kept for the case that the guest dies.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Instant;

/// Lines that are kept.
pub const KEPT: usize = 200;
/// Longest line that is kept.
pub const LINE_MAX: usize = 1024;

/// The log of one run.
#[derive(Debug)]
pub struct Log {
    started: Instant,
    verbose: bool,
    capacity: usize,
    lines: Mutex<VecDeque<String>>,
}

impl Log {
    /// A log that prints (`verbose`) and keeps `capacity` lines.
    pub fn new(verbose: bool, capacity: usize) -> Log {
        Log {
            started: Instant::now(),
            verbose,
            capacity,
            lines: Mutex::new(VecDeque::new()),
        }
    }

    /// Whether lines are printed as they come.
    pub fn verbose(&self) -> bool {
        self.verbose
    }

    /// Adds a line of the VMM's own.
    pub fn note(&self, text: &str) {
        self.line("vmm", text.as_bytes());
    }

    /// Adds a line from `source`. The text is the guest's: unprintable bytes are escaped, long
    /// lines are cut.
    pub fn line(&self, source: &str, text: &[u8]) {
        let at = self.started.elapsed();
        let cut = &text[..text.len().min(LINE_MAX)];
        let line = format!(
            "[{:4}.{:06} {source}] {}",
            at.as_secs(),
            at.subsec_micros(),
            printable(cut.trim_ascii_end())
        );
        if self.verbose {
            complain(&line);
        }
        let mut lines = self
            .lines
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if lines.len() >= self.capacity {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// Forgets the kept lines.
    pub fn clear(&self) {
        let mut lines = self
            .lines
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        lines.clear();
    }

    /// Keeps these lines instead.
    pub fn rewind(&self, kept: &[String]) {
        let mut lines = self
            .lines
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        lines.clear();
        lines.extend(kept.iter().cloned());
    }

    /// The kept lines.
    pub fn kept(&self) -> Vec<String> {
        let lines = self
            .lines
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        lines.iter().cloned().collect()
    }
}

/// Prints one line on standard error. A closed standard error is no reason to stop.
pub fn complain(line: &str) {
    use std::io::Write;
    // A raw terminal does not return the carriage by itself.
    let end = if crate::terminal::is_raw() {
        "\r\n"
    } else {
        "\n"
    };
    let _ = std::io::stderr().write_all(format!("{line}{end}").as_bytes());
}

fn printable(text: &[u8]) -> String {
    let mut out = String::new();
    for c in String::from_utf8_lossy(text).chars() {
        match c {
            '\t' => out.push('\t'),
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_bounded_and_harmless() {
        let log = Log::new(false, 3);
        for i in 0..10 {
            log.line("guest", format!("line {i} \x1b[2J").as_bytes());
        }
        log.line("guest", &[b'x'; 10 * LINE_MAX]);
        let kept = log.kept();
        assert_eq!(kept.len(), 3);
        assert!(kept[0].contains("line 8 \\u{1b}[2J"));
        assert!(kept[2].len() < 2 * LINE_MAX);
    }
}
