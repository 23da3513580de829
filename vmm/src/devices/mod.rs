//! The machine's devices and the bus on which the guest finds them.

// What a guest writes is any number: a cast must not make another of it in silence.
#![cfg_attr(
    not(test),
    warn(
        clippy::cast_lossless,
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss
    )
)]

pub mod block;
pub mod bus;
pub mod console;
mod cow;
pub mod disk;
pub mod lab;
pub mod serial;
pub mod virtio;

/// A number of bytes or an index, as memory has it.
#[expect(
    clippy::cast_possible_truncation,
    reason = "addresses have 64 bits here"
)]
const fn size(value: u64) -> usize {
    const { assert!(usize::BITS == u64::BITS) };
    value as usize
}
