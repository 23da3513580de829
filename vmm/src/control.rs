//! The threads of a run, and ending it from outside: the stop request, the signals that make one.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use anyhow::{Context, Result};
use libc::{c_int, c_void, siginfo_t};
use rustix::fd::{AsFd, BorrowedFd};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

/// Why a run is to end before the guest ends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The time given to the run is over.
    Timeout,
    /// This process got the signal.
    Signal(i32),
    /// Nobody reads the program's standard output (or standard error) any more.
    OutputClosed,
    /// The program has ended and its status is known, but the machine did not power off.
    Lingering,
    /// The guest waits for itself: who for whom.
    Deadlock(String),
    /// The host side failed.
    Failure(String),
}

/// A request to end the run: made once, seen by every thread.
#[derive(Debug)]
pub struct Stop {
    reason: Mutex<Option<Reason>>,
    event: EventFd,
}

impl Stop {
    /// No request yet.
    pub fn new() -> Result<Arc<Stop>> {
        let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).context("eventfd")?;
        Ok(Arc::new(Stop {
            reason: Mutex::new(None),
            event,
        }))
    }

    /// Requests the end; the first reason counts.
    pub fn request(&self, reason: Reason) {
        self.lock().get_or_insert(reason);
        // The only way to fail is a counter that is already set: readable is all we need.
        let _ = self.event.write(1);
    }

    /// Why the run is to end, when it is.
    pub fn reason(&self) -> Option<Reason> {
        self.lock().clone()
    }

    /// Whether the run is to end.
    pub fn requested(&self) -> bool {
        self.lock().is_some()
    }

    /// Makes it what it was: requested for this reason, or not.
    pub fn rewind(&self, reason: Option<Reason>) {
        let mut now = self.lock();
        if now.is_some() {
            // It fails only when it is not set.
            let _ = self.event.read();
        }
        if reason.is_some() {
            let _ = self.event.write(1);
        }
        *now = reason;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Reason>> {
        self.reason
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl AsFd for Stop {
    /// Readable once the end is requested.
    fn as_fd(&self) -> BorrowedFd<'_> {
        borrow(&self.event)
    }
}

/// The descriptor of an eventfd, for poll.
pub fn borrow(event: &EventFd) -> BorrowedFd<'_> {
    use std::os::fd::AsRawFd;
    // SAFETY: the descriptor is open as long as the EventFd that is borrowed.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}

/// The signal that makes a blocking call of another thread return.
pub fn kick_signal() -> c_int {
    SIGRTMIN()
}

extern "C" fn ignore_kick(_: c_int, _: *mut siginfo_t, _: *mut c_void) {}

/// Makes [`kick_signal`] interrupt system calls and do nothing else.
pub fn install_kick() -> Result<()> {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    if INSTALLED.get().is_none() {
        register_signal_handler(kick_signal(), ignore_kick)
            .context("installing the kick signal")?;
        let _ = INSTALLED.set(());
    }
    Ok(())
}

/// Spawns a thread with a small stack.
pub fn spawn<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<thread::JoinHandle<T>> {
    thread::Builder::new()
        .name(name.into())
        .stack_size(256 << 10)
        .spawn(body)
        .with_context(|| format!("starting the {name} thread"))
}

/// Write end of the pipe that [`on_signal`] tells of signals, -1 before there is one.
static SIGNAL_PIPE: AtomicI32 = AtomicI32::new(-1);

extern "C" fn on_signal(number: c_int, _: *mut siginfo_t, _: *mut c_void) {
    let fd = SIGNAL_PIPE.load(Ordering::Relaxed);
    if fd >= 0 {
        // SAFETY: the descriptor is never closed once it is in SIGNAL_PIPE.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        // rustix makes the system call directly, so errno stays as it was. A full pipe means
        // that signals are waiting already.
        let _ = rustix::io::write(fd, &[number as u8]);
    }
}

/// The signals that reach a running machine, one byte each.
#[derive(Debug)]
pub struct Signals {
    read: rustix::fd::OwnedFd,
}

impl Signals {
    /// Takes over SIGINT, SIGTERM, SIGHUP, SIGWINCH and SIGUSR1 for the rest of this process.
    pub fn install() -> Result<Signals> {
        use rustix::pipe::{PipeFlags, pipe_with};
        use std::os::fd::IntoRawFd;
        let (read, write) =
            pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).context("pipe for signals")?;
        // Never closed: a handler may be about to use an earlier one.
        SIGNAL_PIPE.store(write.into_raw_fd(), Ordering::Relaxed);
        for number in [
            libc::SIGINT,
            libc::SIGTERM,
            libc::SIGHUP,
            libc::SIGWINCH,
            libc::SIGUSR1,
        ] {
            register_signal_handler(number, on_signal).context("installing a signal handler")?;
        }
        Ok(Signals { read })
    }

    /// The next signal, when one is waiting.
    pub fn next(&self) -> Option<i32> {
        let mut byte = [0];
        match rustix::io::read(&self.read, &mut byte) {
            Ok(1) => Some(i32::from(byte[0])),
            _ => None,
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_counts() {
        let stop = Stop::new().unwrap();
        assert!(!stop.requested());
        stop.request(Reason::Timeout);
        stop.request(Reason::Signal(15));
        assert_eq!(stop.reason(), Some(Reason::Timeout));
        stop.rewind(None);
        assert!(!stop.requested());
        stop.rewind(Some(Reason::Lingering));
        assert_eq!(stop.reason(), Some(Reason::Lingering));
    }
}
