//! The second extended file system, read and write, on any block device.
//!
//! No privilege, no threads, no unsafe code: a [`Volume`] owns a [`BlockDevice`] and a
//! [`PageStore`] and offers the operations of a file system by inode number. The server
//! binary puts messages in front of it, the VMM formats and fills images with it on the host.
//!
//! ```
//! use ext2::{BlockDevice, MemoryDisk, New, Options, Volume, mkfs};
//!
//! let mut disk = MemoryDisk::new(4 << 20);
//! mkfs::format(&mut disk, &mkfs::Format { label: *b"root\0\0\0\0\0\0\0\0\0\0\0\0", ..Default::default() })?;
//! let mut volume = Volume::mount(disk, Options::default())?;
//! let bin = volume.create(ext2::ROOT, b"bin", New { mode: 0o040755, ..Default::default() })?;
//! let sh = volume.create(bin, b"sh", New { mode: 0o100755, ..Default::default() })?;
//! assert_eq!(volume.write(sh, 0, b"#!")?, 2);
//! volume.symlink(bin, b"ash", b"sh", New::default())?;
//! let disk = volume.unmount()?; // synced, marked clean
//! # Ok::<(), ext2::Error>(())
//! ```
//!
//! * **Supported**: 1, 2 and 4 KiB blocks; revisions 0 and 1; sparse_super, filetype,
//!   large_file, extra_isize, ext_attr blocks (kept and released), directory indexes (searched linearly;
//!   a directory that is modified loses its index); orphan list. Unknown incompatible
//!   features are refused with a reason, unknown read-only ones mount read-only.
//! * **Caches**: metadata by block, file data by page (as many as the [`PageStore`] has memory for,
//!   [`Volume::give_back`] returns it), both write-back with adjacent blocks clustered into one device request, sequential reads
//!   read ahead. [`Volume::sync`] leaves a disk that `e2fsck -fn` calls clean.
//! * **References**: [`Volume::hold`] keeps an inode alive past its last name;
//!   [`Volume::put`] gives references back.
//! * **Damage**: nothing on the disk is trusted; what contradicts itself is `EUCLEAN`.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

// What stands below uses only what stands further below (`tests/house.rs`).
// Whole disks; names.
pub mod mkfs;
mod name;
mod rename;
// Parts of files, of directories and of the disk.
mod allocate;
mod attr;
mod dir;
mod file;
mod holes;
mod inode;
mod load;
mod map;
mod mount;
mod orphan;
// A mounted disk.
mod volume;
mod writeback;
// The two caches.
mod meta;
mod pages;
// Blocks.
mod disk;
// What they mean.
mod layout;
// What these stand on.
mod device;
mod error;
mod lru;

#[cfg(test)]
mod tests;

pub use abi::Errno;
pub use attr::New;
pub use device::{BlockDevice, Elsewhere, HeapPages, MemoryDisk, PageStore, SECTOR};
pub use dir::Entry;
pub use error::Error;
pub use file::Piece;
pub use mount::Options;
pub use volume::Volume;

/// What operations return.
pub type Result<T> = core::result::Result<T, Errno>;

/// The root directory's inode number.
pub const ROOT: u32 = 2;
/// Bytes of a cache page.
pub const PAGE: usize = abi::PAGE_SIZE;
/// Longest name, bytes.
pub const NAME_MAX: usize = 255;
/// The longest write the caches make, and the longest read that goes through a buffer, bytes.
pub const TRANSFER: usize = 128 * 1024;
/// The longest read straight into cache pages, bytes.
pub const REQUEST: usize = 1 << 20;
