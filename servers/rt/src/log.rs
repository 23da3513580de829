//! Lines for the host's log.

use crate::{args, kernel};
use core::fmt::{self, Write};

/// A line being built, cut at its capacity.
pub struct Line {
    bytes: [u8; 256],
    len: usize,
}

impl Line {
    /// An empty line.
    pub const fn new() -> Line {
        Line {
            bytes: [0; 256],
            len: 0,
        }
    }
}

impl Line {
    /// What was written so far.
    pub fn text(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Default for Line {
    fn default() -> Self {
        Line::new()
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let n = text.len().min(self.bytes.len() - self.len);
        self.bytes[self.len..self.len + n].copy_from_slice(&text.as_bytes()[..n]);
        self.len += n;
        Ok(())
    }
}

/// Writes one line, prefixed with the server's name.
pub fn line(text: fmt::Arguments<'_>) {
    let mut line = Line::new();
    let _ = write!(line, "{}: {}", args::get(0).unwrap_or("server"), text);
    kernel::log(line.text());
}

/// Logs a line: `log!("mounted {dev}")`.
#[macro_export]
macro_rules! log {
    ($($arg:tt)*) => { $crate::log::line(format_args!($($arg)*)) };
}

/// The panic handler: says what happened, then faults, so that RS learns of the death.
pub fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    line(format_args!("panic: {info}"));
    loop {
        // SAFETY: `ud2` raises #UD, which ends a server; it touches nothing.
        unsafe { core::arch::asm!("ud2") };
    }
}
