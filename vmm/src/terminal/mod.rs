//! The host's terminal: raw while the program runs, as it was on every way out.

use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use rustix::stdio::stdin;
use rustix::termios::{
    OptionalActions, Termios, isatty, tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr,
};

static RAW: AtomicBool = AtomicBool::new(false);
/// The terminal as it was, while it is raw. Never freed: a signal handler may be reading it.
static SAVED: AtomicPtr<Termios> = AtomicPtr::new(ptr::null_mut());

/// Whether the terminal is raw now.
pub fn is_raw() -> bool {
    RAW.load(Ordering::Relaxed)
}

/// Rows and columns of the terminal, when there is one.
pub fn size() -> Option<(u16, u16)> {
    [stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()]
        .into_iter()
        .filter(|fd| isatty(fd))
        .find_map(|fd| tcgetwinsize(fd).ok())
        .map(|size| (size.ws_row, size.ws_col))
}

/// Puts the terminal back as it was. Async-signal-safe: an atomic swap and a system call.
pub fn restore() {
    let saved = SAVED.swap(ptr::null_mut(), Ordering::AcqRel);
    // SAFETY: what is in SAVED came from `Box::leak` and is never freed or changed.
    if let Some(saved) = unsafe { saved.as_ref() } {
        // Nothing is left to try when this fails.
        let _ = tcsetattr(stdin(), OptionalActions::Flush, saved);
        RAW.store(false, Ordering::Relaxed);
    }
}

/// Restores the terminal when dropped.
#[derive(Debug)]
pub struct Raw(());

impl Raw {
    /// Makes standard input's terminal raw; `None` when standard input is no terminal (or one
    /// that refuses). [`crate::last_words`]
    /// restores it where this value is not dropped.
    pub fn enter() -> Option<Raw> {
        // In the background the terminal is somebody else's: asking for it stops a process.
        if tcgetpgrp(stdin()).ok()? != rustix::process::getpgrp() {
            return None;
        }
        let before = tcgetattr(stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        SAVED.store(Box::leak(Box::new(before)), Ordering::Release);
        RAW.store(true, Ordering::Relaxed);
        let guard = Raw(());
        tcsetattr(stdin(), OptionalActions::Drain, &raw).ok()?;
        Some(guard)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}
