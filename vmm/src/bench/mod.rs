//! Measurements of the guest's kernel and of the host beneath it.

pub mod ipc;
pub mod visit;
