//! Attributes of inodes and figures of the file system.

use abi::fs::{Attributes, NAME_MAX, SetAttributes, SetMask, Statistics};

use crate::store::PageStore;
use crate::tree::{Data, TYPE, Tmpfs};
use crate::{Errno, PAGE, Result};

/// Linux's TMPFS_MAGIC.
const MAGIC: u64 = 0x0102_1994;
/// What Linux's tmpfs counts for a directory entry.
const ENTRY_SIZE: u64 = 20;

/// What a new inode starts with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct New {
    /// Linux `st_mode`: type and permissions (a symlink's is fixed).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node.
    pub rdev: u64,
}

impl<P: PageStore> Tmpfs<P> {
    /// The attributes of an inode.
    pub fn attributes(&self, ino: u64) -> Result<Attributes> {
        let node = self.node(ino)?;
        let (size, pages) = match &node.data {
            Data::File(contents) => (contents.size, contents.pages.len()),
            Data::Directory(directory) => ((directory.len() as u64 + 2) * ENTRY_SIZE, 0),
            Data::Symlink(target) => (target.len() as u64, 0),
            Data::None => (0, 0),
        };
        Ok(Attributes {
            ino,
            size,
            blocks: (pages * PAGE / 512) as u64,
            mode: node.mode,
            nlink: node.nlink,
            uid: node.uid,
            gid: node.gid,
            rdev: node.rdev,
            block_size: PAGE as u32,
            reserved: 0,
            atime: node.atime.into(),
            mtime: node.mtime.into(),
            ctime: node.ctime.into(),
        })
    }

    /// Changes attributes; `size` truncates or extends.
    pub fn set_attributes(&mut self, ino: u64, set: &SetAttributes) -> Result<()> {
        self.writable()?;
        let mask = SetMask::from_bits(set.mask).ok_or(Errno::EINVAL)?;
        for nanos in [set.atime.nanoseconds, set.mtime.nanoseconds] {
            if !(0..1_000_000_000).contains(&nanos) {
                return Err(Errno::EINVAL);
            }
        }
        if mask.contains(SetMask::SIZE) {
            self.resize(ino, set.size)?;
        }
        let now = self.now;
        let node = self.node_mut(ino)?;
        if mask.contains(SetMask::MODE) {
            node.mode = node.mode & TYPE | set.mode & 0o7777;
        }
        node.mode = mask.kill(node.mode);
        if mask.contains(SetMask::UID) {
            node.uid = set.uid;
        }
        if mask.contains(SetMask::GID) {
            node.gid = set.gid;
        }
        if mask.contains(SetMask::ATIME) {
            node.atime = set.atime.into();
        }
        if mask.contains(SetMask::MTIME) {
            node.mtime = set.mtime.into();
        }
        node.ctime = now;
        Ok(())
    }

    /// The file system's figures.
    pub fn statistics(&self) -> Statistics {
        let free = self.limits.pages.saturating_sub(self.pages_used);
        Statistics {
            kind: MAGIC,
            block_size: PAGE as u64,
            blocks: self.limits.pages,
            free,
            available: free,
            files: self.limits.nodes,
            files_free: self.limits.nodes.saturating_sub(self.nodes.len() as u64),
            name_max: NAME_MAX as u64,
            read_only: self.read_only as u64,
        }
    }
}
