//! The proc file system.
//!
//! Nothing is stored: [`tree`] knows the names, [`process`] and [`global`] write the texts from
//! what PM, VM, VFS and the kernel say through [`source`], [`files`] is the file system.
//!
//! A text is made when a file is read from its start and kept until its end has been read, so
//! that a program that reads in pieces sees one moment.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

#[cfg(test)]
extern crate std;

pub mod cpu;
pub mod files;
pub mod global;
mod modes;
pub mod process;
pub mod snapshots;
pub mod source;
pub mod tree;

#[cfg(test)]
mod tests;
