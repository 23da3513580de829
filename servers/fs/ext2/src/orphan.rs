//! Inodes that are in use but have no name.
//!
//! They are on a list that starts in the superblock and goes on in their deletion times, so
//! that after a crash the next mount (or `e2fsck`) frees them.

use crate::device::{BlockDevice, PageStore};
use crate::volume::Volume;
use crate::{Errno, Result};

impl<D: BlockDevice, P: PageStore> Volume<D, P> {
    fn has_orphan_list(&self) -> bool {
        self.sb.revision >= 1
    }

    /// Puts an inode at the head of the list.
    pub(crate) fn add_orphan(&mut self, ino: u32) -> Result<()> {
        if self.has_orphan_list() {
            let mut inode = self.raw_inode(ino)?;
            inode.dtime = self.sb.last_orphan;
            self.put_inode(ino, &inode)?;
            self.sb.last_orphan = ino;
        }
        self.orphans.insert(0, ino);
        Ok(())
    }

    /// Takes an inode off the list.
    pub(crate) fn remove_orphan(&mut self, ino: u32) -> Result<()> {
        let Some(at) = self.orphans.iter().position(|&o| o == ino) else {
            return Ok(());
        };
        if self.has_orphan_list() {
            let next = self.orphans.get(at + 1).copied().unwrap_or(0);
            if at == 0 {
                self.sb.last_orphan = next;
            } else {
                let before = self.orphans[at - 1];
                let mut inode = self.raw_inode(before)?;
                inode.dtime = next;
                self.put_inode(before, &inode)?;
            }
        }
        self.orphans.remove(at);
        Ok(())
    }

    /// Frees all orphans, referenced or not (unmount).
    pub(crate) fn free_orphans(&mut self) -> Result<()> {
        while let Some(&ino) = self.orphans.first() {
            self.remove_orphan(ino)?;
            self.references.remove(&ino);
            self.free_inode(ino)?;
        }
        Ok(())
    }

    /// Frees what a crash left on the list. A list that makes no sense is left to `e2fsck`.
    pub(crate) fn recover_orphans(&mut self) -> Result<()> {
        let mut left = self.sb.inodes;
        while self.sb.last_orphan != 0 {
            let ino = self.sb.last_orphan;
            let sound = ino >= self.sb.first_inode
                && ino <= self.sb.inodes
                && left > 0
                && self.inode_in_use(ino)?;
            if !sound {
                self.damage();
                self.sb.last_orphan = 0;
                break;
            }
            left -= 1;
            let inode = self.raw_inode(ino)?;
            self.sb.last_orphan = inode.dtime;
            if inode.links != 0 || inode.mode == 0 {
                self.damage();
                continue;
            }
            match self.free_inode(ino) {
                Ok(()) => {}
                Err(Errno::EUCLEAN) => {
                    self.damage();
                }
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }
}
