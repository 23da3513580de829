//! The machine's devices and the bus on which the guest finds them.

pub mod block;
pub mod bus;
pub mod console;
mod cow;
pub mod disk;
pub mod lab;
pub mod serial;
pub mod virtio;
