//! The virtio block driver: serves [`abi::proto::block`] from one virtio-mmio disk, and the
//! disk's node in `/dev` ([`special`]).
//!
//! One request at a time ([`disk`]), the data through one buffer that the device can reach;
//! whoever asks waits its turn in arrival order ([`serve`]).
#![no_std]

#[cfg(test)]
extern crate std;

pub mod disk;
pub mod serve;
pub mod special;

#[cfg(test)]
mod tests;
