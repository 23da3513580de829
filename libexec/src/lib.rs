//! exec as data, shared by VFS, RS and whoever else starts programs.
//!
//! Three values, made in this order, each complete before the next:
//!
//! 1. [`Plan`]: what an ELF file asks for. [`Plan::parse`] checks *everything* that can be
//!    wrong with the file, so that the old program is gone only when nothing about the new
//!    one can be refused any more.
//! 2. [`Image`]: the plan at its address ([`Plan::place`]). It knows the entry point, the
//!    program headers in memory and where the heap starts.
//! 3. [`Step`]s ([`exec_steps`]): what must be done to the process, in order, as plain data.
//!    The caller executes them. So one loader serves an asynchronous caller (VFS, which
//!    awaits file systems and VM between steps) and a synchronous one (RS), and a test can
//!    fail each step in turn.
//!
//! The initial stack is built by [`stack`], `#!` lines are split by [`script`].
//!
//! The order of an exec: parse, place, build the stack, *then* the steps, and last write
//! [`stack::Frame::bytes`] to [`stack::Frame::sp`] and start the process at
//! [`Image::entry`] with that stack pointer. When a step after [`Step::Clear`] fails the
//! process has no program any more and must be killed.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate self as libexec;
#[cfg(test)]
extern crate std;

// What stands below uses only what stands further below (`tests/house.rs`).
// What to do.
pub mod script;
mod steps;
// What the program finds on its stack.
pub mod stack;
// What its file says.
mod plan;
// Where things go.
pub mod layout;

#[cfg(test)]
mod tests;

pub use plan::{FileRange, Image, Kind, Plan, Segment};
pub use steps::{Fill, Step, exec_steps};
