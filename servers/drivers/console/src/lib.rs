//! The console driver: one virtio console that carries [`abi::hostlink`] packets, seen by
//! programs as a terminal (`/dev/tty`, `/dev/console`) and as the host's standard streams.
//!
//! Bottom up: [`port`] moves bytes through the device's queues, [`incoming`] cuts them into
//! packets, [`ldisc`] is the terminal's line discipline (input editing, echo, signals, output
//! processing), [`tty`] and [`stream`] answer reads, [`outgoing`] orders everything that is
//! written, [`server`] dispatches requests. All of it but [`port`] runs on the host in tests.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod incoming;
pub mod ioctl;
pub mod ldisc;
pub mod outgoing;
pub mod port;
pub mod postprocess;
pub mod server;
pub mod stream;
pub mod termios;
pub mod tty;
pub mod world;

#[cfg(test)]
mod tests;
