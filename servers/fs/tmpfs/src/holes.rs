//! Holes of regular files: made, filled before anything is written, looked for. As Linux's tmpfs, which knows
//! neither FALLOC_FL_ZERO_RANGE nor the modes that move contents.

use alloc::collections::BTreeMap;

use crate::store::PageStore;
use crate::tree::Tmpfs;
use crate::{Errno, PAGE, Result, file};

const BYTES: u64 = PAGE as u64;

impl<P: PageStore> Tmpfs<P> {
    fn changed(&mut self, ino: u64) -> Result<()> {
        let now = self.now;
        let node = self.node_mut(ino)?;
        node.mtime = now;
        node.ctime = now;
        Ok(())
    }

    /// Makes `[offset, offset + len)` a hole: whole pages go, from those who map them as well; the
    /// rest becomes zero.
    pub fn punch(&mut self, ino: u64, offset: u64, len: u64) -> Result<()> {
        self.writable()?;
        let end = offset.checked_add(len).ok_or(Errno::EFBIG)?;
        let (first, last) = (offset.div_ceil(BYTES), end / BYTES);
        if first > last {
            self.zero(ino, last, offset % BYTES, end % BYTES)?;
        } else {
            if !offset.is_multiple_of(BYTES) {
                self.zero(ino, first - 1, offset % BYTES, BYTES)?;
            }
            if !end.is_multiple_of(BYTES) {
                self.zero(ino, last, 0, end % BYTES)?;
            }
            let pages = &mut self.contents_mut(ino)?.pages;
            let mut dropped = pages.split_off(&first);
            pages.append(&mut dropped.split_off(&last));
            self.free_pages(ino, first * BYTES..last * BYTES, &dropped);
        }
        self.changed(ino)
    }

    /// Zeroes bytes of a page; a hole is zero.
    fn zero(&mut self, ino: u64, index: u64, from: u64, to: u64) -> Result<()> {
        let slot = self.contents(ino)?.pages.get(&index).copied();
        if let Some(slot) = slot {
            self.store.page_mut(slot.page)[from as usize..to as usize].fill(0);
        }
        Ok(())
    }

    /// Gives the holes of `[offset, offset + len)` pages, or with `ENOSPC` none of them. The file
    /// grows unless `keep_size`.
    pub fn reserve(&mut self, ino: u64, offset: u64, len: u64, keep_size: bool) -> Result<()> {
        self.writable()?;
        let end = offset.checked_add(len).filter(|&end| end <= file::MAX_SIZE);
        let end = end.ok_or(Errno::EFBIG)?;
        let pages = offset / BYTES..end.div_ceil(BYTES);
        let there = self.contents(ino)?.pages.range(pages.clone()).count() as u64;
        let room = self.limits.pages.saturating_sub(self.pages_used);
        if pages.end - pages.start - there > room {
            return Err(Errno::ENOSPC);
        }
        let mut taken = BTreeMap::new();
        for index in pages {
            if self.contents(ino)?.pages.contains_key(&index) {
                continue;
            }
            // The notes of many pages, small as each is, are not to be taken from the reserve.
            let page = match rt::heap::ready() {
                true => self.page_for(ino, index),
                false => Err(Errno::ENOSPC),
            };
            if let Err(errno) = page {
                let pages = &mut self.contents_mut(ino)?.pages;
                pages.retain(|index, _| !taken.contains_key(index));
                self.free_pages(ino, 0..0, &taken);
                return Err(errno);
            }
            if let Some(slot) = self.contents_mut(ino)?.pages.get_mut(&index) {
                slot.reserved = true;
                taken.insert(index, *slot);
            }
        }
        let contents = self.contents_mut(ino)?;
        if !keep_size {
            contents.size = contents.size.max(end);
        }
        self.changed(ino)
    }

    /// Where from `offset` on the next hole is, or the next data. The end of the file is a hole.
    pub fn seek(&self, ino: u64, offset: u64, hole: bool) -> Result<u64> {
        let contents = self.contents(ino)?;
        if offset >= contents.size {
            return Err(Errno::ENXIO);
        }
        let first = offset / BYTES;
        let written = contents.pages.range(first..).filter(|(_, s)| !s.reserved);
        let mut written = written.map(|(&index, _)| index);
        let index = match hole {
            false => written.next().ok_or(Errno::ENXIO)?,
            true => {
                let full = written.zip(first..).take_while(|(index, n)| index == n);
                first + full.count() as u64
            }
        };
        let position = (index * BYTES).max(offset);
        match hole {
            true => Ok(position.min(contents.size)),
            false if position < contents.size => Ok(position),
            false => Err(Errno::ENXIO),
        }
    }
}
