//! Measurements of the guest's kernel, of exec, and of the host beneath them.

pub mod exec;
pub mod ipc;
pub mod visit;

/// QEMU executes one instruction a nanosecond of its clock, so that ticks are instructions.
pub(crate) const COUNTING: [&str; 2] = ["-icount", "shift=0"];
