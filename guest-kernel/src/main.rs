//! The microkernel: address-space switch, IPC, copies and grants, the process table and its
//! privileges, interrupts to messages, clock and scheduling. No policy, no heap, no file, no
//! ELF; it knows no Linux call.
//!
//! One thread of control: the kernel is entered by a trap, runs with interrupts off to the
//! end of [`sched::choose`], and leaves to whoever is current. Nothing in it waits.
#![cfg_attr(guest_image, no_std, no_main)]
// The lint static_mut_refs asks for `&mut *(&raw mut X)`, and this one against it.
#![allow(clippy::deref_addrof)]

mod arch;
mod boot;
mod clock;
mod copy;
mod global;
mod grant;
mod inspect;
mod ipc;
mod kcall;
mod lab;
mod memory;
mod modify;
mod plan;
mod process;
mod sched;
mod transfer;
mod trap;

#[cfg(not(guest_image))]
fn main() {
    // Built for the host (clippy, rustdoc, `cargo build --workspace`), the kernel is a program that nobody runs.
}

use core::fmt::Write;

/// A bounded buffer for the last words.
struct Text {
    bytes: [u8; 384],
    len: usize,
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let n = text.len().min(self.bytes.len() - self.len);
        self.bytes[self.len..self.len + n].copy_from_slice(&text.as_bytes()[..n]);
        self.len += n;
        Ok(())
    }
}

/// Logs why and ends the machine.
pub fn die(why: core::fmt::Arguments<'_>) -> ! {
    let mut text = Text {
        bytes: [0; 384],
        len: 0,
    };
    let _ = text.write_fmt(why);
    trap::panic(&text.bytes[..text.len])
}

/// Logs a line.
pub fn say(what: core::fmt::Arguments<'_>) {
    let mut text = Text {
        bytes: [0; 384],
        len: 0,
    };
    let _ = text.write_fmt(what);
    arch::machine::log(&[&text.bytes[..text.len]]);
}

/// The machine cannot go on: says why and ends it.
#[macro_export]
macro_rules! fatal {
    ($($arg:tt)*) => { $crate::die(format_args!($($arg)*)) };
}

#[cfg(guest_image)]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    fatal!("{info}")
}
