//! The host's terminal: raw while the program runs, as it was on every way out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, Once};

use rustix::stdio::stdin;
use rustix::termios::{
    OptionalActions, Termios, isatty, tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr,
};

static RAW: AtomicBool = AtomicBool::new(false);
static SAVED: Mutex<Option<Termios>> = Mutex::new(None);
static HOOK: Once = Once::new();

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

/// Puts the terminal back as it was.
pub fn restore() {
    let saved = SAVED
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
        .take();
    if let Some(saved) = saved {
        // Nothing is left to try when this fails.
        let _ = tcsetattr(stdin(), OptionalActions::Flush, &saved);
        RAW.store(false, Ordering::Relaxed);
    }
}

/// Restores the terminal when dropped.
#[derive(Debug)]
pub struct Raw(());

impl Raw {
    /// Makes standard input's terminal raw; `None` when standard input is no terminal (or one
    /// that refuses). A panic restores it, too.
    pub fn enter() -> Option<Raw> {
        // In the background the terminal is somebody else's: asking for it stops a process.
        if tcgetpgrp(stdin()).ok()? != rustix::process::getpgrp() {
            return None;
        }
        let before = tcgetattr(stdin()).ok()?;
        HOOK.call_once(|| {
            let hook = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                restore();
                hook(info);
            }));
        });
        let mut raw = before.clone();
        raw.make_raw();
        *SAVED
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(before);
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
