//! The runtime each server links.
//!
//! A server is a static image: its binary crate says `rt::entry!(main);` and gets a start
//! routine, a panic handler, a heap and the memory functions the compiler calls. Everything
//! else is a library: [`ipc`] and [`kernel`] (traps), [`grants`], [`copy`], [`task`] (async tasks on
//! one thread), [`log!`].
//!
//! A server is single threaded and never interrupted, which is what its statics rely on
//! ([`cell::Single`]).
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod args;
pub mod cell;
pub mod charge;
pub mod clock;
pub mod copy;
pub mod entry;
pub mod fsserver;
pub mod grants;
pub mod heap;
pub mod inbox;
pub mod ipc;
pub mod kernel;
pub mod log;
pub mod memory;
pub mod mishap;
pub mod outbox;
pub mod room;
pub mod serve;
pub mod task;
pub mod vm;

pub use abi;
pub use abi::{Endpoint, Errno};
