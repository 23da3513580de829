//! The kernel's own lines in the host's log, and its last one.

use crate::arch::machine;
use core::fmt::{Arguments, Write};

/// A line under way; what is too long is cut.
struct Text {
    bytes: [u8; 384],
    len: usize,
}

impl Text {
    fn of(line: Arguments<'_>) -> Text {
        let mut text = Text {
            bytes: [0; 384],
            len: 0,
        };
        let _ = text.write_fmt(line);
        text
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let n = text.len().min(self.bytes.len() - self.len);
        self.bytes[self.len..self.len + n].copy_from_slice(&text.as_bytes()[..n]);
        self.len += n;
        Ok(())
    }
}

/// Logs a line.
pub fn say(line: Arguments<'_>) {
    machine::log(&[Text::of(line).bytes()]);
}

/// Logs why and ends the machine.
pub fn die(why: Arguments<'_>) -> ! {
    machine::log(&[b"kernel: ", Text::of(why).bytes()]);
    machine::power_off(abi::lab::POWEROFF_PANIC)
}

/// The machine cannot go on: says why and ends it.
#[macro_export]
macro_rules! fatal {
    ($($arg:tt)*) => { $crate::log::die(format_args!($($arg)*)) };
}
