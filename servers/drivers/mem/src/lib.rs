//! The memory devices: null, zero, full, random and urandom.
//!
//! Nothing here waits: every request is answered at once. [`device`] says what each device
//! does, [`random`] makes the random bytes.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod device;
pub mod random;
