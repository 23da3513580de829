//! A mounted volume: its state, and the small things every operation needs.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::Errno;
use crate::Result;
use crate::device::{BlockDevice, HeapPages, PageStore};
use crate::disk::Disk;
use crate::error::Error;
use crate::layout::{GROUP_LEN, Group, STATE_ERROR, STATE_VALID, Super, le16, put16, put32};
use crate::meta::Meta;
use crate::pages::Pages;

/// A mounted file system.
pub struct Volume<D, P = HeapPages> {
    pub(crate) sb: Super,
    pub(crate) disk: Disk<D>,
    pub(crate) meta: Meta,
    pub(crate) pages: Pages<P>,
    pub(crate) groups: Vec<Group>,
    /// References of [`Volume::hold`], by inode.
    pub(crate) references: BTreeMap<u32, u64>,
    /// Inodes without a name that are still referenced, in the order of the list on the disk.
    pub(crate) orphans: Vec<u32>,
    /// How the last read of a referenced file left it, for read-ahead.
    pub(crate) streams: BTreeMap<u32, Stream>,
    /// Inode, logical and physical block of the last allocation.
    pub(crate) last_allocation: (u32, u64, u32),
    pub(crate) now: (i64, i64),
    pub(crate) no_atime: bool,
    /// It was clean when mounted: a sync may say so again.
    pub(crate) valid: bool,
    /// Contradictions were found: the error mark goes onto the disk.
    pub(crate) damaged: bool,
}

/// How far a file is read in order.
#[derive(Clone, Copy)]
pub(crate) struct Stream {
    /// The page that comes next.
    pub next: u32,
    /// Pages that are read at once.
    pub window: u32,
}

impl<D: BlockDevice, P: PageStore> Volume<D, P> {
    /// Sets the time that operations stamp: seconds and nanoseconds since 1970.
    pub fn set_time(&mut self, now: (i64, i64)) {
        self.now = now;
    }

    /// Whether changes are refused.
    pub fn is_read_only(&self) -> bool {
        self.disk.read_only
    }

    /// Makes the volume read-only (after a sync) or writable again, as far as its features
    /// allow.
    pub fn set_read_only(&mut self, read_only: bool) -> Result<()> {
        if read_only && !self.disk.read_only {
            self.sync()?;
        }
        if !read_only && self.sb.ro_compat & !crate::layout::RO_KNOWN != 0 {
            return Err(Errno::EROFS);
        }
        self.disk.read_only = read_only;
        Ok(())
    }

    /// Leaves access times alone from now on, or not.
    pub fn set_no_atime(&mut self, no_atime: bool) {
        self.no_atime = no_atime;
    }

    /// The page store.
    pub fn store(&self) -> &P {
        &self.pages.store
    }

    /// The page store.
    pub fn store_mut(&mut self) -> &mut P {
        &mut self.pages.store
    }

    /// Writes everything back and marks the disk clean.
    pub fn sync(&mut self) -> Result<()> {
        if self.disk.read_only || !self.is_dirty() {
            return Ok(());
        }
        self.pages.flush(&mut self.disk, None)?;
        self.store_groups()?;
        self.meta.flush(&mut self.disk)?;
        self.sb.state = match (self.valid, self.damaged) {
            (true, false) => STATE_VALID,
            (_, false) => self.sb.state & !STATE_VALID,
            (_, true) => STATE_ERROR,
        };
        self.sb.update_raw();
        self.disk.device.flush()?;
        let raw = self.sb.raw.clone();
        self.disk.write_super(&raw)?;
        self.disk.device.flush()
    }

    /// Whether there is something to sync.
    pub fn is_dirty(&self) -> bool {
        let marked = match self.damaged {
            true => le16(&self.sb.raw[..], 58) & STATE_ERROR != 0,
            false => self.disk.is_marked_clean() || !self.valid,
        };
        !marked
            || !self.pages.dirty.is_empty()
            || self.meta.is_dirty()
            || self.groups.iter().any(|group| group.dirty)
    }

    /// Writes one file's data back, and all metadata.
    pub fn sync_file(&mut self, ino: u32) -> Result<()> {
        if self.disk.read_only {
            return Ok(());
        }
        self.pages.flush(&mut self.disk, Some(ino))?;
        self.store_groups()?;
        self.meta.flush(&mut self.disk)?;
        self.disk.device.flush()
    }

    /// Forgets file pages that are on the disk as well, and gives up their memory; how many.
    pub fn drop_pages(&mut self) -> usize {
        self.pages.drop_clean()
    }

    /// Gives up the memory of up to `pages` cached pages, the least recently used first, after it has written what was
    /// changed; how many. The last few stay.
    pub fn give_back(&mut self, pages: usize) -> usize {
        self.pages.give_back(&mut self.disk, pages)
    }

    /// Forgets metadata that is on the disk as well.
    pub fn drop_metadata(&mut self) {
        self.meta.drop_clean();
    }

    /// Syncs and gives the device back. Inodes without a name are freed, referenced or not.
    pub fn unmount(mut self) -> core::result::Result<D, Error> {
        if !self.disk.read_only {
            self.free_orphans()?;
            self.sync()?;
        }
        Ok(self.disk.device)
    }

    /// The device.
    pub fn device(&self) -> &D {
        &self.disk.device
    }

    /// Gives the device back as it is, as if the power had gone: what was not synced is lost.
    pub fn crash(self) -> D {
        self.disk.device
    }

    /// Prepares for changes after mounting, and finishes what a crash interrupted. The disk
    /// keeps its clean mark until the first change is written.
    pub(crate) fn start_writing(&mut self) -> Result<()> {
        let raw = &mut self.sb.raw[..];
        let mounts = le16(raw, 52).wrapping_add(1);
        put16(raw, 52, mounts);
        put32(raw, 44, self.now.0 as u32);
        if self.valid {
            self.disk.marked_clean(&self.sb.raw);
        }
        self.recover_orphans()
    }

    fn store_groups(&mut self) -> Result<()> {
        let per_block = self.sb.block_size / GROUP_LEN;
        for g in 0..self.groups.len() {
            if self.groups[g].dirty {
                let block = self.sb.first_data_block + 1 + (g / per_block) as u32;
                let data = self.meta.get_mut(&mut self.disk, block)?;
                let at = g % per_block * GROUP_LEN;
                self.groups[g].store(&mut data[at..at + GROUP_LEN]);
                self.groups[g].dirty = false;
            }
        }
        Ok(())
    }

    pub(crate) fn meta(&mut self, block: u32) -> Result<&[u8]> {
        self.meta.get(&mut self.disk, block)
    }

    pub(crate) fn meta_mut(&mut self, block: u32) -> Result<&mut [u8]> {
        self.meta.get_mut(&mut self.disk, block)
    }

    pub(crate) fn meta_fresh(&mut self, block: u32) -> Result<&mut [u8]> {
        self.meta.fresh(&mut self.disk, block)
    }

    pub(crate) fn writable(&self) -> Result<()> {
        if self.disk.read_only {
            Err(Errno::EROFS)
        } else {
            Ok(())
        }
    }

    /// A contradiction on the disk: remembered, and the error to answer with.
    pub(crate) fn damage(&mut self) -> Errno {
        self.damaged = true;
        Errno::EUCLEAN
    }
}
