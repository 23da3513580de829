//! Contents of regular files: pages where something was written, holes elsewhere.

use alloc::collections::BTreeMap;
use core::ops::Range;

use crate::store::PageStore;
use crate::tree::{Data, Tmpfs};
use crate::{Errno, PAGE, Result};

/// The largest file, bytes.
pub(crate) const MAX_SIZE: u64 = i64::MAX as u64 / PAGE as u64 * PAGE as u64;

#[derive(Clone, Copy)]
pub(crate) struct Slot {
    pub page: u32,
    /// Shared with VM's cache.
    pub published: bool,
    /// Reserved, and nothing written to it yet: as good as a hole.
    pub reserved: bool,
}

/// A regular file's size and pages.
#[derive(Default)]
pub(crate) struct Contents {
    pub size: u64,
    pub pages: BTreeMap<u64, Slot>,
}

/// A part of a file's contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Bytes.
    Data(&'a [u8]),
    /// A hole of so many zero bytes.
    Zero(u64),
}

impl<P: PageStore> Tmpfs<P> {
    pub(crate) fn contents(&self, ino: u64) -> Result<&Contents> {
        match &self.node(ino)?.data {
            Data::File(contents) => Ok(contents),
            Data::Directory(_) => Err(Errno::EISDIR),
            _ => Err(Errno::EINVAL),
        }
    }

    pub(crate) fn contents_mut(&mut self, ino: u64) -> Result<&mut Contents> {
        match &mut self.node_mut(ino)?.data {
            Data::File(contents) => Ok(contents),
            Data::Directory(_) => Err(Errno::EISDIR),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Notes an access (relatime, as Linux has it).
    pub fn touch(&mut self, ino: u64) {
        let (now, still) = (self.now, self.no_atime || self.read_only);
        if let Ok(node) = self.node_mut(ino)
            && !still
            && (node.atime <= node.mtime.max(node.ctime) || node.atime.0 + 86400 <= now.0)
        {
            node.atime = now;
        }
    }

    /// Shows the bytes from `offset` on, at most `len`, to `each`; returns how many there are.
    pub fn read<'a>(
        &'a self,
        ino: u64,
        offset: u64,
        len: u64,
        each: &mut dyn FnMut(Piece<'a>) -> Result<()>,
    ) -> Result<u64> {
        let contents = self.contents(ino)?;
        let end = offset.saturating_add(len).min(contents.size);
        if offset >= end {
            return Ok(0);
        }
        let mut at = offset;
        for (&index, slot) in contents
            .pages
            .range(offset / PAGE as u64..=(end - 1) / PAGE as u64)
        {
            let page = index * PAGE as u64;
            if page > at {
                each(Piece::Zero(page - at))?;
                at = page;
            }
            let stop = (page + PAGE as u64).min(end);
            let bytes = self.store.page(slot.page);
            each(Piece::Data(
                &bytes[(at - page) as usize..(stop - page) as usize],
            ))?;
            at = stop;
        }
        if at < end {
            each(Piece::Zero(end - at))?;
        }
        Ok(end - offset)
    }

    /// The page at `index`, made when it is not there.
    pub(crate) fn page_for(&mut self, ino: u64, index: u64) -> Result<u32> {
        if let Some(slot) = self.contents_mut(ino)?.pages.get_mut(&index) {
            slot.reserved = false;
            return Ok(slot.page);
        }
        if self.pages_used >= self.limits.pages {
            return Err(Errno::ENOSPC);
        }
        let node = self.node_mut(ino)?;
        let (payer, before) = (node.payer(), node.pages.amount());
        if !node.pages.resize(payer, before + 1) {
            return Err(Errno::ENOSPC);
        }
        let allocated = self.store.allocate();
        let page = allocated.inspect_err(|_| self.give_back(ino, 1))?;
        self.pages_used += 1;
        let slot = Slot {
            page,
            published: false,
            reserved: false,
        };
        self.contents_mut(ino)?.pages.insert(index, slot);
        Ok(page)
    }

    /// Writes; short only when there is no more room (`ENOSPC` when nothing fits).
    pub fn write(&mut self, ino: u64, offset: u64, data: &[u8]) -> Result<usize> {
        self.writable()?;
        self.contents(ino)?;
        if data.is_empty() {
            return Ok(0);
        }
        if offset >= MAX_SIZE {
            return Err(Errno::EFBIG);
        }
        let data = &data[..data.len().min((MAX_SIZE - offset) as usize)];
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let start = (at % PAGE as u64) as usize;
            let len = (PAGE - start).min(data.len() - done);
            match self.page_for(ino, at / PAGE as u64) {
                Ok(page) => self.store.page_mut(page)[start..start + len]
                    .copy_from_slice(&data[done..done + len]),
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => break,
            }
            done += len;
        }
        let contents = self.contents_mut(ino)?;
        contents.size = contents.size.max(offset + done as u64);
        let now = self.now;
        let node = self.node_mut(ino)?;
        node.mtime = now;
        node.ctime = now;
        Ok(done)
    }

    /// Pages of a file are gone.
    fn give_back(&mut self, ino: u64, pages: usize) {
        if let Ok(node) = self.node_mut(ino) {
            let less = node.pages.amount() - pages as u64;
            node.pages.resize(node.payer(), less);
        }
    }

    /// Frees the file's pages from page `first` on.
    pub(crate) fn drop_pages(&mut self, ino: u64, first: u64) {
        let Ok(contents) = self.contents_mut(ino) else {
            return;
        };
        let dropped = contents.pages.split_off(&first);
        self.free_pages(ino, first * PAGE as u64..u64::MAX, &dropped);
    }

    /// Frees pages that were of the file in these bytes.
    pub(crate) fn free_pages(
        &mut self,
        ino: u64,
        bytes: Range<u64>,
        dropped: &BTreeMap<u64, Slot>,
    ) {
        self.pages_used -= dropped.len() as u64;
        self.give_back(ino, dropped.len());
        if dropped.values().any(|slot| slot.published) {
            self.store.forget(ino, bytes);
        }
        for slot in dropped.values() {
            self.store.free(slot.page, slot.published);
        }
    }

    /// Sets the size: cuts the file or extends it by a hole.
    pub(crate) fn resize(&mut self, ino: u64, size: u64) -> Result<()> {
        if size > MAX_SIZE {
            return Err(Errno::EFBIG);
        }
        let contents = self.contents_mut(ino)?;
        let shrinks = size < contents.size;
        contents.size = size;
        let tail = contents.pages.get(&(size / PAGE as u64)).copied();
        if shrinks {
            // What is extended again later must read as zero.
            if let Some(slot) = tail {
                self.store.page_mut(slot.page)[(size % PAGE as u64) as usize..].fill(0);
            }
            self.drop_pages(ino, size.div_ceil(PAGE as u64));
        }
        let now = self.now;
        let node = self.node_mut(ino)?;
        node.mtime = now;
        node.ctime = now;
        Ok(())
    }

    /// Publishes the page at `offset` to VM's cache; a hole gets a page. `EFAULT` beyond the
    /// end.
    pub fn publish(&mut self, ino: u64, offset: u64) -> Result<()> {
        if offset >= self.contents(ino)?.size {
            return Err(Errno::EFAULT);
        }
        let index = offset / PAGE as u64;
        let page = self.page_for(ino, index)?;
        self.store.publish(page, ino, index * PAGE as u64)?;
        if let Some(slot) = self.contents_mut(ino)?.pages.get_mut(&index) {
            slot.published = true;
        }
        Ok(())
    }
}
