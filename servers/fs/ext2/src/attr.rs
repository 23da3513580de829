//! Attributes of inodes and figures of the volume.

use abi::fs::{Attributes, SetAttributes, SetMask, Statistics};

use crate::device::{BlockDevice, PageStore};
use crate::layout::{DIRECTORY, REGULAR, TYPE};
use crate::volume::Volume;
use crate::{Errno, NAME_MAX, Result};

/// What a new inode starts with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct New {
    /// Linux `st_mode`: type and permissions (a symlink's is fixed).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node (Linux `makedev`).
    pub rdev: u64,
}

impl<D: BlockDevice, P: PageStore> Volume<D, P> {
    /// The attributes of an inode.
    pub fn attributes(&mut self, ino: u32) -> Result<Attributes> {
        let inode = self.inode(ino)?;
        Ok(Attributes {
            ino: ino as u64,
            size: inode.size,
            blocks: inode.sectors as u64,
            mode: inode.mode as u32,
            nlink: inode.links as u32,
            uid: inode.uid,
            gid: inode.gid,
            rdev: inode.rdev(),
            block_size: self.sb.block_size.max(crate::PAGE) as u32,
            reserved: 0,
            atime: inode.atime.into(),
            mtime: inode.mtime.into(),
            ctime: inode.ctime.into(),
        })
    }

    /// Changes attributes; `size` truncates or extends.
    pub fn set_attributes(&mut self, ino: u32, set: &SetAttributes) -> Result<()> {
        self.writable()?;
        let mask = SetMask::from_bits(set.mask).ok_or(Errno::EINVAL)?;
        let mut inode = self.inode(ino)?;
        for nanos in [set.atime.nanoseconds, set.mtime.nanoseconds] {
            if !(0..1_000_000_000).contains(&nanos) {
                return Err(Errno::EINVAL);
            }
        }
        if mask.contains(SetMask::SIZE) {
            match inode.kind() {
                REGULAR => self.resize(ino, &mut inode, set.size)?,
                DIRECTORY => return Err(Errno::EISDIR),
                _ => return Err(Errno::EINVAL),
            }
        }
        if mask.contains(SetMask::MODE) {
            inode.mode = inode.mode & TYPE | set.mode as u16 & !TYPE;
        }
        inode.mode = mask.kill(inode.mode.into()) as u16;
        if mask.contains(SetMask::UID) {
            inode.uid = set.uid;
        }
        if mask.contains(SetMask::GID) {
            inode.gid = set.gid;
        }
        if mask.contains(SetMask::ATIME) {
            inode.atime = set.atime.into();
        }
        if mask.contains(SetMask::MTIME) {
            inode.mtime = set.mtime.into();
        }
        inode.ctime = self.now;
        self.put_inode(ino, &inode)
    }

    /// The volume's figures.
    pub fn statistics(&self) -> Statistics {
        let overhead: u64 = (0..self.sb.groups())
            .map(|g| (self.sb.super_blocks(g) + 2 + self.sb.inode_table_blocks()) as u64)
            .sum::<u64>()
            + self.sb.first_data_block as u64;
        Statistics {
            kind: 0xef53,
            block_size: self.sb.block_size as u64,
            blocks: (self.sb.blocks as u64).saturating_sub(overhead),
            free: self.sb.free_blocks as u64,
            available: self.sb.free_blocks.saturating_sub(self.sb.reserved_blocks) as u64,
            files: self.sb.inodes as u64,
            files_free: self.sb.free_inodes as u64,
            name_max: NAME_MAX as u64,
            read_only: self.disk.read_only as u64,
        }
    }
}
