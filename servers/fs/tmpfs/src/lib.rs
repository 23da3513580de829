//! A file system in memory: `/tmp` and what mount(2) makes, and with device nodes `/dev`.
//!
//! No privilege and no unsafe code: a [`Tmpfs`] keeps names and attributes on the heap and
//! contents in pages of a [`PageStore`], which the server shares with VM's cache. Inode
//! numbers are never used twice, directory positions stay valid while entries come and go.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod attr;
pub mod dev;
mod dir;
mod file;
mod holes;
mod name;
mod options;
mod store;
#[cfg(test)]
mod tests;
mod tree;

pub use abi::Errno;
pub use attr::New;
pub use dir::Entry;
pub use file::Piece;
pub use options::Options;
pub use store::{HeapPages, PageStore};
pub use tree::{Limits, Shares, Tmpfs};

/// What operations return.
pub type Result<T> = core::result::Result<T, Errno>;

/// The root directory's inode number.
pub const ROOT: u64 = 1;
/// Bytes of a page.
pub const PAGE: usize = abi::PAGE_SIZE;
