//! What every file system server has in common: requests of [`abi::proto::fs`] become calls
//! of a [`FileSystem`], results become answers.
//!
//! One request at a time. Names and attribute structures are fetched before the file system
//! is asked; file data moves through [`UserBuffer`] and [`Outgoing`], whose copies may fail with
//! `EFAULT`. A method that sees such a failure must leave the file system as it found it and
//! return the error: VFS repairs the page and asks again. What a read gave may fail to be copied
//! after the method has returned; a read changes nothing but access times.

use abi::fs::{Attributes, SetAttributes, Statistics};
use abi::{Endpoint, Errno};

mod buffer;
mod serve;

pub use abi::proto::fs::{Node, Root, Written};
pub use buffer::{Bounce, Dirents, Outgoing, UserBuffer};
pub use serve::{Desk, run};

/// What operations return.
pub type Result<T> = core::result::Result<T, Errno>;

/// What a new inode starts with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewNode {
    /// Linux `st_mode`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node.
    pub rdev: u64,
}

/// A file system. The methods are the requests of [`abi::proto::fs`]; where one is not
/// implemented the file system is read-only, or cannot map files. Methods that return a
/// [`Node`] take a reference on it, unless said otherwise.
#[allow(unused_variables)]
pub trait FileSystem {
    /// Mounts; the root.
    fn read_super(&mut self, dev: u64, flags: u64, options: &[u8]) -> Result<Root>;
    /// Changes flags and options of the file system with this root.
    fn remount(&mut self, root: u64, flags: u64, options: &[u8]) -> Result<()> {
        if options.is_empty() {
            Ok(())
        } else {
            Err(Errno::EINVAL)
        }
    }
    /// One name in a directory.
    fn lookup(&mut self, dir: u64, name: &[u8], who: Endpoint) -> Result<Node>;
    /// Whether `who` may open a file that its mode lets it open.
    fn may_open(&mut self, ino: u64, who: Endpoint) -> Result<()> {
        Ok(())
    }
    /// Gives references back.
    fn put(&mut self, ino: u64, count: u64) -> Result<()>;
    /// Gives `to` the file's bytes from `offset` on, no more than it has room for; returns how many.
    fn read<'a>(
        &'a mut self,
        ino: u64,
        offset: u64,
        to: &mut Outgoing<'a>,
        who: Endpoint,
    ) -> Result<u64>;
    /// The file is about to be mapped: cached pages from the one at `offset` on may be put into
    /// VM's cache.
    fn share(&mut self, ino: u64, offset: u64) {}
    /// Copies from `from`; no offset appends.
    fn write(
        &mut self,
        ino: u64,
        offset: Option<u64>,
        from: &UserBuffer,
        who: Endpoint,
    ) -> Result<Written> {
        Err(Errno::EROFS)
    }
    /// Fills `to` from cookie `position` on until an entry does not fit; the next position.
    fn getdents(&mut self, ino: u64, position: u64, to: &mut Dirents, who: Endpoint)
    -> Result<u64>;
    /// The target of a symbolic link; returns how many bytes.
    fn readlink(&mut self, ino: u64, buffer: &mut [u8], who: Endpoint) -> Result<usize> {
        Err(Errno::EINVAL)
    }
    /// Creates what the type in the mode says.
    fn create(&mut self, dir: u64, name: &[u8], new: &NewNode) -> Result<Node> {
        Err(Errno::EROFS)
    }
    /// Creates a symbolic link.
    fn symlink(
        &mut self,
        dir: u64,
        name: &[u8],
        target: &[u8],
        uid: u32,
        gid: u32,
    ) -> Result<Node> {
        Err(Errno::EROFS)
    }
    /// Adds a name.
    fn link(&mut self, ino: u64, dir: u64, name: &[u8]) -> Result<()> {
        Err(Errno::EROFS)
    }
    /// Removes a name; the inode it was of.
    fn unlink(&mut self, dir: u64, name: &[u8], directory: bool) -> Result<u64> {
        Err(Errno::EROFS)
    }
    /// Renames.
    fn rename(
        &mut self,
        old_dir: u64,
        old: &[u8],
        new_dir: u64,
        new: &[u8],
        flags: u32,
    ) -> Result<()> {
        Err(Errno::EROFS)
    }
    /// Changes attributes. Takes no reference.
    fn set_attributes(&mut self, ino: u64, set: &SetAttributes) -> Result<Node> {
        Err(Errno::EROFS)
    }
    /// All attributes.
    fn attributes(&mut self, ino: u64, who: Endpoint) -> Result<Attributes>;
    /// The figures of the file system with this root.
    fn statistics(&mut self, root: u64) -> Result<Statistics>;
    /// Writes back one file, or everything.
    fn sync(&mut self, ino: Option<u64>) -> Result<()> {
        Ok(())
    }
    /// Puts a page into VM's cache, and of the pages before and after it, as many as `around`
    /// says, what can be had.
    fn peek(&mut self, ino: u64, offset: u64, around: (u64, u64)) -> Result<()> {
        Err(Errno::ENOSYS)
    }
    /// Pages of a file were changed through a mapping.
    fn pages_written(&mut self, ino: u64, offset: u64, len: u64) -> Result<()> {
        Ok(())
    }
    /// fallocate(2) with Linux's FALLOC_FL_* in `mode`: how many bytes from `offset` on were dealt with,
    /// and the file's size then.
    fn allocate(&mut self, ino: u64, offset: u64, len: u64, mode: u32) -> Result<(u64, u64)> {
        Err(Errno::EOPNOTSUPP)
    }
    /// Where from `offset` on the next hole is, or the next data; `ENXIO` when there is none.
    fn seek(&mut self, ino: u64, offset: u64, hole: bool) -> Result<u64> {
        Err(Errno::EOPNOTSUPP)
    }
    /// Forgets what is on the disk as well: file pages, or what is known of inodes and names;
    /// returns how many pages.
    fn drop_caches(&mut self, data: bool, names: bool) -> Result<u64> {
        Ok(0)
    }
    /// Gives VM the memory of up to `pages` cached pages, the least recently used first; how many.
    fn give_back(&mut self, pages: usize) -> usize {
        0
    }
    /// Writes back and forgets.
    fn unmount(&mut self, root: u64) -> Result<()> {
        Ok(())
    }
    /// The server's timer expired.
    fn tick(&mut self) {}
}
