//! The process manager: processes, threads, signals, ids, waiting, timers.
//!
//! PM is one loop ([`server`]): receive, handle, answer. It holds no future and no lock; a
//! Linux call that must wait is a value ([`table::Call`]) in its thread's entry, finished by
//! whatever event ends the wait. Everything outside PM (kernel calls, other servers, process
//! memory) is behind [`system::System`], so that the whole server runs on the host under test.
//!
//! PM itself is process 1; PROGRAM is process 2, and the machine ends when it does.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod admission;
pub mod calls;
pub mod capabilities;
pub mod exit;
pub mod fork;
pub mod futex;
pub mod ids;
pub mod image;
pub mod info;
pub mod itimers;
pub mod limits;
pub mod machine;
pub mod oom;
pub mod orders;
pub mod queries;
pub mod quota;
pub mod random;
pub mod sched;
pub mod server;
pub mod shutdown;
pub mod signal;
pub mod sleep;
pub mod system;
pub mod table;
pub mod timers;
pub mod trace;
pub mod user;
pub mod wait;

#[cfg(test)]
mod tests;

pub use server::{Boot, Pm};
