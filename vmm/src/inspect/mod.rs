//! Looks at a running guest from outside: who waits for whom, and whether that can ever end.
//!
//! The kernel says once where its process table and message queues lie
//! ([`abi::lab::Inspection`]); everything else is read from guest memory, so a guest that
//! can do nothing any more can still be looked at. What is read is the guest's word: nothing
//! in it is trusted further than to be printed.

pub mod drawing;
pub mod graph;
pub mod render;
pub mod table;
pub mod watch;

pub use watch::Inspector;
