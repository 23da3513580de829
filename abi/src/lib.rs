//! Every number and layout that crosses a protection boundary, declared once.
//!
//! Three boundaries meet here:
//!
//! * **VMM and guest**: [`boot`] (archive, run specification), [`hostlink`] (the byte
//!   protocol on the console), [`lab`] (the paravirtual device),
//!   [`trace`] (the laboratory's shared memory).
//! * **kernel and process**: [`kernel`] (traps, kernel calls, register frames),
//!   [`message`], [`endpoint`], [`grant`]; [`page_table`].
//! * **server and server**: [`proto`], typed requests with one encoding.
//!
//! Linux's own numbers come from `linux-raw-sys`; [`errno`] gives them a type.
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    warn(
        clippy::cast_lossless,
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss
    )
)]

#[cfg(test)]
extern crate std;

pub mod boot;
pub mod capability;
mod cells;
pub mod clock;
pub mod command_line;
#[cfg(test)]
mod decoders;
pub mod endpoint;
pub mod errno;
pub mod exec;
pub mod fs;
pub mod grant;
pub mod hostlink;
pub mod images;
pub mod kernel;
pub mod lab;
#[allow(
    clippy::cast_lossless,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss
)]
pub mod message;
pub mod number;
pub mod page_table;
pub mod point;
pub mod policy;
pub mod proto;
pub mod role;
pub mod routes;
pub mod sabotage;
#[allow(clippy::cast_possible_truncation)]
pub mod senders;
pub mod trace;
pub mod tunable;

pub use endpoint::Endpoint;
pub use errno::Errno;
pub use message::{Class, Fields, Message, Request, Word};

/// The unit of paging, in bytes.
pub const PAGE_SIZE: usize = 4096;
/// [`PAGE_SIZE`] as the type addresses have.
pub const PAGE: u64 = PAGE_SIZE as u64;

/// The low half of a word.
pub const fn low(word: u64) -> u32 {
    (word & 0xffff_ffff) as u32
}

/// `address` rounded down to its page.
pub const fn page_down(address: u64) -> u64 {
    address & !(PAGE - 1)
}

/// `address` rounded up to a page boundary, or `None` when that wraps.
pub const fn page_up(address: u64) -> Option<u64> {
    match address.checked_add(PAGE - 1) {
        Some(sum) => Some(page_down(sum)),
        None => None,
    }
}
