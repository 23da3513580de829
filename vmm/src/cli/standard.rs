//! Standard streams that are closed when the command starts (`>&-`).
//!
//! Rust's runtime would put a `/dev/null` there that swallows what is written, before `main` could
//! see it. [`keep_closed`] runs earlier: what is written to a stream that was closed fails, as it does
//! in a program without such a runtime.

use std::os::fd::IntoRawFd;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fd::{BorrowedFd, RawFd};
use rustix::fs::{Mode, OFlags, open};

/// Standard output was closed.
static OUTPUT_CLOSED: AtomicBool = AtomicBool::new(false);

/// Whether nothing can be printed, because standard output was closed at the start.
pub fn output_closed() -> bool {
    OUTPUT_CLOSED.load(Ordering::Relaxed)
}

/// Puts a `/dev/null` that only reads where a standard stream is closed: its number is taken, and who
/// writes gets `EBADF`.
extern "C" fn keep_closed() {
    for number in 0..3 as RawFd {
        // SAFETY: only looked at, and nothing else runs yet that could close it.
        let stream = unsafe { BorrowedFd::borrow_raw(number) };
        if rustix::io::fcntl_getfd(stream).is_ok() {
            continue;
        }
        // Those below are open, so this is the lowest free number.
        if let Ok(null) = open("/dev/null", OFlags::RDONLY, Mode::empty()) {
            let _ = null.into_raw_fd();
        }
        if number == 1 {
            OUTPUT_CLOSED.store(true, Ordering::Relaxed);
        }
    }
}

// SAFETY: the section holds functions that the C library calls before `main`; this one takes no
// argument, does not panic and uses nothing that Rust's runtime sets up.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = keep_closed;
