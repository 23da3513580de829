//! Inodes on the disk, and references to them.

use crate::device::{BlockDevice, PageStore};
use crate::layout::{FLAG_UNMAPPED, Inode, REGULAR, put16, put32};
use crate::volume::Volume;
use crate::{Errno, ROOT, Result};

/// Bytes of the larger inode that are in use, beyond the first 128.
const EXTRA_ISIZE: u16 = 32;

impl<D: BlockDevice, P: PageStore> Volume<D, P> {
    /// Block and byte offset of an inode in its table.
    fn inode_place(&self, ino: u32) -> Result<(u32, usize)> {
        if ino == 0 || ino > self.sb.inodes {
            return Err(Errno::EUCLEAN);
        }
        let group = (ino - 1) / self.sb.inodes_per_group;
        let byte = ((ino - 1) % self.sb.inodes_per_group) as usize * self.sb.inode_size;
        let block = self.groups[group as usize].inode_table + (byte / self.sb.block_size) as u32;
        Ok((block, byte % self.sb.block_size))
    }

    /// An inode, whether in use or not.
    pub(crate) fn raw_inode(&mut self, ino: u32) -> Result<Inode> {
        let (block, at) = self.inode_place(ino)?;
        let size = self.sb.inode_size;
        Ok(Inode::parse(&self.meta(block)?[at..at + size]))
    }

    /// An inode in use. `ESTALE` when it is free (a stale number), `EUCLEAN` when a reserved
    /// one is asked for or its form is unknown.
    pub(crate) fn inode(&mut self, ino: u32) -> Result<Inode> {
        if ino != ROOT && ino < self.sb.first_inode {
            return Err(Errno::EUCLEAN);
        }
        let inode = self.raw_inode(ino)?;
        if inode.mode == 0 || (inode.links == 0 && !self.references.contains_key(&ino)) {
            return Err(Errno::ESTALE);
        }
        if inode.flags & FLAG_UNMAPPED != 0 {
            return Err(Errno::EUCLEAN);
        }
        if inode.kind() == REGULAR && inode.size > self.max_size() {
            return Err(Errno::EUCLEAN);
        }
        Ok(inode)
    }

    /// An inode that must be a directory.
    pub(crate) fn directory(&mut self, ino: u32) -> Result<Inode> {
        let inode = self.inode(ino)?;
        if !inode.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        Ok(inode)
    }

    /// Stores an inode.
    pub(crate) fn put_inode(&mut self, ino: u32, inode: &Inode) -> Result<()> {
        let (block, at) = self.inode_place(ino)?;
        let size = self.sb.inode_size;
        inode.store(&mut self.meta_mut(block)?[at..at + size]);
        Ok(())
    }

    /// Stores a new inode: nothing of an earlier one remains but its generation.
    pub(crate) fn put_new_inode(&mut self, ino: u32, inode: &mut Inode) -> Result<()> {
        let (block, at) = self.inode_place(ino)?;
        let size = self.sb.inode_size;
        let now = self.now;
        let bytes = &mut self.meta_mut(block)?[at..at + size];
        inode.generation = Inode::parse(bytes).generation.wrapping_add(1);
        bytes.fill(0);
        if size >= 128 + EXTRA_ISIZE as usize {
            put16(bytes, 128, EXTRA_ISIZE);
            let epoch = (now.0 - now.0 as i32 as i64) >> 32;
            put32(bytes, 144, now.0 as u32);
            put32(bytes, 148, (now.1 as u32) << 2 | (epoch as u32 & 3));
        }
        inode.store(bytes);
        Ok(())
    }

    /// Takes a reference: the inode stays when its last name goes.
    pub fn hold(&mut self, ino: u32) {
        *self.references.entry(ino).or_insert(0) += 1;
    }

    /// Gives `count` references back; the last one frees an inode without a name. `EINVAL`
    /// when there were not as many.
    pub fn put(&mut self, ino: u32, count: u64) -> Result<()> {
        let held = self.references.get_mut(&ino).ok_or(Errno::EINVAL)?;
        if *held > count {
            *held -= count;
            return Ok(());
        }
        let exact = *held == count;
        self.references.remove(&ino);
        self.streams.remove(&ino);
        if self.orphans.contains(&ino) {
            self.remove_orphan(ino)?;
            self.free_inode(ino)?;
        }
        if exact { Ok(()) } else { Err(Errno::EINVAL) }
    }

    /// References held in all.
    pub fn held(&self) -> u64 {
        self.references.values().sum()
    }

    /// A name of the inode went: stores it, and frees it when that was the last one.
    pub(crate) fn drop_link(&mut self, ino: u32, inode: &mut Inode) -> Result<()> {
        inode.links = if inode.is_dir() {
            0
        } else {
            inode.links.saturating_sub(1)
        };
        inode.ctime = self.now;
        self.put_inode(ino, inode)?;
        if inode.links > 0 {
            return Ok(());
        }
        if self.references.contains_key(&ino) {
            self.add_orphan(ino)
        } else {
            self.free_inode(ino)
        }
    }
}
