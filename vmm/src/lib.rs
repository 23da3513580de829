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

// What stands below uses only what stands further below (`tests/house.rs`).
// The command; every decoder with whatever bytes.
pub mod cli;
#[cfg(test)]
mod decoders;
// What it does beside running programs.
pub mod bench;
pub mod gdb;
pub mod report;
// Faults at every point of a scenario.
pub mod explore;
// One fault; one run that is the same every time.
pub mod deterministic;
pub mod inject;
// A program with a machine around it.
pub mod program;
// One run of one machine.
pub mod machine;
// The laboratory's machines, and QEMU's.
pub mod lab;
pub mod qemu;
// What machines are made of, made from and saved as.
pub mod board;
pub mod config;
pub mod snapshot;
// Parts of a machine.
pub mod devices;
// The vCPU; how things go wrong.
pub mod counters;
pub mod error;
pub mod kvm;
pub mod last_words;
// Around a guest: its beginning, its disk, a look inside, its bounds, its end.
pub mod boot;
pub mod ending;
pub mod inspect;
pub mod root;
pub mod sandbox;
// What a guest and this program say.
pub mod hostlink;
pub mod log;
// What these stand on.
pub mod control;
pub mod images;
pub mod memory;
mod packed;
pub mod terminal;
pub mod trace;
mod xml;

pub use abi;
pub use error::MachineError;
