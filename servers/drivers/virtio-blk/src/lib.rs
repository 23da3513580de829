//! The virtio block driver: serves [`abi::proto::block`] from one virtio-mmio disk.
//!
//! One request at a time ([`disk`]), the data through one buffer that the device can reach;
//! callers wait their turn in arrival order ([`serve`]).
#![no_std]

#[cfg(test)]
extern crate std;

pub mod disk;
pub mod serve;

#[cfg(test)]
mod tests;
