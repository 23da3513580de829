//! The virtual machine monitor: boots the multiserver guest under `/dev/kvm`, or under QEMU,
//! and connects one program in it to the host's standard streams.
//!
//! # As a library
//!
//! - [`program::Program`] is a program with a machine around it: [`capture`](program::Program::capture) runs it and
//!   keeps its output, [`run`](program::Program::run) connects it to streams of the caller's choice. The `absentia`
//!   command is that, on the host's streams. Beneath it, [`machine::run`] takes any kernel and archive.
//! - [`lab::Machine`] runs on the calling thread, the same every time: it stops where the world may be changed, and
//!   its state can be saved and put back. [`Program::setup`](program::Program::setup) says what runs on it.
//! - [`inject::apply()`] makes a page absent where such a machine stopped.
//! - [`explore`] does that at every point of a scenario, and judges how the machine ends.
//!
//! What goes wrong there is a [`MachineError`]. `examples/absence.rs` has it all: a machine boots, a program runs,
//! one page is absent, and the verdict is printed.
//!
//! ```no_run
//! use absentia_vmm::program::Program;
//!
//! let ran = Program::new(["/bin/welcome"]).capture(b"")?;
//! print!("{}", String::from_utf8_lossy(&ran.stdout));
//! # Ok::<(), absentia_vmm::MachineError>(())
//! ```
//!
//! The other modules are public for the command, for tests and for tools that look into machines.
//!
//! # What is trusted
//!
//! A guest is hostile: nothing in its memory, its rings or its device accesses may panic,
//! hang or grow this process.

pub mod bench;
pub mod board;
pub mod boot;
pub mod cli;
pub mod control;
pub mod counters;
#[cfg(test)]
mod decoders;
pub mod deterministic;
pub mod devices;
pub mod ending;
pub mod error;
pub mod explore;
pub mod gdb;
pub mod hostlink;
pub mod images;
pub mod inject;
pub mod inspect;
pub mod kvm;
pub mod lab;
pub mod last_words;
pub mod log;
pub mod machine;
pub mod memory;
mod packed;
pub mod program;
pub mod qemu;
pub mod report;
pub mod root;
pub mod sandbox;
pub mod snapshot;
pub mod terminal;
pub mod trace;
mod xml;

pub use abi;
pub use error::MachineError;
