//! The virtual machine monitor: boots the multiserver guest under `/dev/kvm`, or under QEMU,
//! and connects one program in it to the host's standard streams.
//!
//! [`machine::run`] takes a [`machine::Config`] and returns a [`machine::Outcome`]; the
//! `absentia` command ([`cli`]) is one caller, the integration tests are another.
//!
//! A guest is hostile: nothing in its memory, its rings or its device accesses may panic,
//! hang or grow this process.

pub mod boot;
pub mod cli;
pub mod control;
pub mod devices;
pub mod hostlink;
pub mod images;
pub mod kvm;
pub mod log;
pub mod machine;
pub mod memory;
pub mod qemu;
pub mod root;
pub mod terminal;
