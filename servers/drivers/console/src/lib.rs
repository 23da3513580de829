//! The driver of terminals. One is the virtio console that carries [`abi::hostlink`] packets,
//! seen by programs as a terminal (`/dev/console`) and as the host's standard streams; the
//! others are pseudo-terminals. `/dev/tty` is the one that controls the caller's session.
//!
//! Bottom up: [`port`] moves bytes through the device's queues, [`incoming`] cuts them into
//! packets, [`ldisc`] is the terminal's line discipline (input editing, echo, signals, output
//! processing), [`tty`] and [`stream`] answer reads, [`outgoing`] orders everything that is
//! written to the host, [`pty`] is a terminal with a program at the other end, [`devpts`] the
//! directory of those, [`server`] dispatches requests. All of it but [`port`] runs on the host in tests.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod devpts;
pub mod incoming;
pub mod ioctl;
pub mod ldisc;
pub mod outgoing;
pub mod port;
pub mod postprocess;
pub mod pty;
pub mod ptys;
pub mod server;
pub mod stream;
pub mod termios;
pub mod tty;
pub mod world;

#[cfg(test)]
mod tests;
