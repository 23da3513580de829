//! The virtual machine monitor: boots the multiserver guest under `/dev/kvm`, or under QEMU,
//! and connects one program in it to the host's standard streams.
//!
//! [`program::Program`] is a program with a machine around it; the `absentia` command
//! ([`cli`]) runs it on the host's streams, the integration tests capture its output. Beneath
//! it, [`machine::run`] takes any kernel and archive.
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
