//! Contents of regular files: read, write, truncate, page-in.

use alloc::vec::Vec;

use crate::device::{BlockDevice, PageStore};
use crate::layout::{DIRECTORY, Inode, REGULAR, RO_LARGE_FILE};
use crate::pages::{MOST, PageBlocks};
use crate::volume::{Stream, Volume};
use crate::{Errno, PAGE, Result, TRANSFER};

/// Pages read for a reader that begins at the start, with those it asked for. Each time that it
/// comes in order to one that is not there, twice as many are.
const WINDOW: u32 = (TRANSFER / PAGE) as u32;

/// Pages of a program that are read for its exec.
const HEAD: u32 = 64;

/// Places on the disk that are gone to for pages that nobody asked for.
const FAVOURS: u32 = 4;

/// A part of a file's contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// In the page store: slot, first byte in the page, bytes.
    Data {
        /// Slot of the page store.
        slot: usize,
        /// First byte within the page.
        start: usize,
        /// Bytes.
        len: usize,
    },
    /// A hole of `len` zero bytes.
    Zero {
        /// Bytes.
        len: usize,
    },
}

impl<D: BlockDevice, P: PageStore> Volume<D, P> {
    pub(crate) fn regular(&mut self, ino: u32) -> Result<Inode> {
        let inode = self.inode(ino)?;
        match inode.kind() {
            REGULAR => Ok(inode),
            DIRECTORY => Err(Errno::EISDIR),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Blocks in a page.
    pub(crate) fn subs(&self) -> usize {
        PAGE / self.sb.block_size
    }

    /// Maps the blocks of a page.
    pub(crate) fn page_blocks(&mut self, inode: &Inode, index: u32) -> Result<PageBlocks> {
        let subs = self.subs();
        let first = index as u64 * subs as u64;
        let mut blocks = [0; 4];
        for (sub, block) in blocks.iter_mut().enumerate().take(subs) {
            *block = self.map(inode, first + sub as u64)?;
        }
        Ok(blocks)
    }

    /// Where the file's bytes from `offset` on are, at most `len` of them, appended to
    /// `pieces`; returns how many (fewer than `len` also when the cache cannot hold more at
    /// once; 0 only at the end). The pieces are valid until the next operation.
    pub fn read_pieces(
        &mut self,
        ino: u32,
        offset: u64,
        len: usize,
        pieces: &mut Vec<Piece>,
    ) -> Result<usize> {
        let inode = self.regular(ino)?;
        if offset >= inode.size || len == 0 {
            return Ok(0);
        }
        let len = (inode.size - offset).min(len as u64);
        let first = u32::try_from(offset / PAGE as u64).map_err(|_| Errno::EFBIG)?;
        self.pages.unpin();
        let limit = self.pages.pin_limit();
        let end = offset + len;
        let want = (end.div_ceil(PAGE as u64) - first as u64).min(limit as u64) as u32;
        let stream = self.streams.get(&ino).copied();
        let window = match stream.filter(|s| s.next == first || s.next == first + 1) {
            Some(Stream { window, .. }) if self.pages.has(ino, first + want - 1) => window,
            Some(Stream { window, .. }) => (2 * window).clamp(WINDOW, MOST),
            None if first == 0 => WINDOW,
            None => 0,
        };
        let ahead = window.min(limit).saturating_sub(want);
        let have = self.load(ino, &inode, first, want, ahead, None)?;
        let end = end.min((first as u64 + have as u64) * PAGE as u64);
        if self.references.contains_key(&ino) {
            let next = end.div_ceil(PAGE as u64) as u32;
            self.streams.insert(ino, Stream { next, window });
        }
        let mut at = offset;
        while at < end {
            let index = (at / PAGE as u64) as u32;
            let start = (at % PAGE as u64) as usize;
            let len = ((PAGE - start) as u64).min(end - at) as usize;
            match (self.pages.find(ino, index), pieces.last_mut()) {
                (Some(slot), _) => pieces.push(Piece::Data { slot, start, len }),
                (None, Some(Piece::Zero { len: before })) => *before += len,
                (None, _) => pieces.push(Piece::Zero { len }),
            }
            at += len as u64;
        }
        self.touch_atime(ino, inode)?;
        Ok((end - offset) as usize)
    }

    /// Access times as Linux's relatime keeps them: at most once a day unless the file
    /// changed since.
    pub(crate) fn touch_atime(&mut self, ino: u32, mut inode: Inode) -> Result<()> {
        let stale = inode.atime <= inode.mtime
            || inode.atime <= inode.ctime
            || inode.atime.0 + 86400 <= self.now.0;
        if !self.no_atime && !self.disk.read_only && stale && inode.atime != self.now {
            inode.atime = self.now;
            self.put_inode(ino, &inode)?;
        }
        Ok(())
    }

    /// Reads; short only at the end of the file.
    pub fn read(&mut self, ino: u32, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let mut done = 0;
        let mut pieces = Vec::new();
        while done < buffer.len() {
            pieces.clear();
            let at = offset.checked_add(done as u64).ok_or(Errno::EINVAL)?;
            let got = self.read_pieces(ino, at, buffer.len() - done, &mut pieces)?;
            if got == 0 {
                break;
            }
            for piece in &pieces {
                match *piece {
                    Piece::Data { slot, start, len } => {
                        buffer[done..done + len]
                            .copy_from_slice(&self.pages.bytes(slot)[start..start + len]);
                        done += len;
                    }
                    Piece::Zero { len } => {
                        buffer[done..done + len].fill(0);
                        done += len;
                    }
                }
            }
        }
        Ok(done)
    }

    /// Writes; short only when the disk is full (`ENOSPC` when nothing fits) or the file as
    /// large as it can be (`EFBIG`).
    pub fn write(&mut self, ino: u32, offset: u64, data: &[u8]) -> Result<usize> {
        self.writable()?;
        let mut inode = self.regular(ino)?;
        if data.is_empty() {
            return Ok(0);
        }
        let room = self.max_size().saturating_sub(offset);
        if room == 0 {
            return Err(Errno::EFBIG);
        }
        let data = &data[..data.len().min(usize::try_from(room).unwrap_or(usize::MAX))];
        if offset > inode.size {
            self.zero_tail(ino, &inode)?;
        }
        let mut done = 0;
        let mut failure = None;
        while done < data.len() {
            match self.write_page(ino, &mut inode, offset + done as u64, &data[done..]) {
                Ok(n) => done += n,
                Err(errno) => {
                    failure = Some(errno);
                    break;
                }
            }
        }
        if done > 0 {
            inode.mtime = self.now;
            inode.ctime = self.now;
        }
        self.put_inode(ino, &inode)?;
        if self.pages.dirty.len() > self.pages.dirty_limit() {
            // A failure here is found again by the sync that must report it.
            let _ = self.pages.flush(&mut self.disk, None);
        }
        match failure {
            Some(errno) if done == 0 => Err(errno),
            _ => Ok(done),
        }
    }

    /// Writes the part of `data` that falls into the page at `offset`.
    fn write_page(
        &mut self,
        ino: u32,
        inode: &mut Inode,
        offset: u64,
        data: &[u8],
    ) -> Result<usize> {
        self.pages.unpin();
        let size = self.sb.block_size;
        let index = u32::try_from(offset / PAGE as u64).map_err(|_| Errno::EFBIG)?;
        let page_start = index as u64 * PAGE as u64;
        let start = (offset - page_start) as usize;
        let end = (start + data.len()).min(PAGE);
        let covers = start == 0 && (end == PAGE || page_start + end as u64 >= inode.size);
        let slot = match self.pages.find(ino, index) {
            Some(slot) => slot,
            // The old contents are not needed, provided that the write cannot stop half way.
            None if covers
                && !self.pages.is_lent(ino)
                && self.sb.free_blocks as usize > self.subs() + 3 =>
            {
                let blocks = self.page_blocks(inode, index)?;
                let slot = self.pages.insert(&mut self.disk, ino, index, blocks)?;
                self.pages.bytes_mut(slot).fill(0);
                slot
            }
            None => {
                self.load(ino, inode, index, 1, 0, Some(index))?;
                self.pages.find(ino, index).ok_or(Errno::EIO)?
            }
        };
        let mut stop = end;
        let mut failure = Errno::ENOSPC;
        for sub in start / size..end.div_ceil(size) {
            if self.pages.slots[slot].blocks[sub] != 0 {
                continue;
            }
            let block = page_start / size as u64 + sub as u64;
            match self.map_allocate(ino, inode, block) {
                Ok((block, _)) => self.pages.slots[slot].blocks[sub] = block,
                Err(errno) => {
                    stop = (sub * size).max(start);
                    failure = errno;
                    break;
                }
            }
        }
        if stop <= start {
            if self.pages.slots[slot].dirty == 0 && !self.pages.slots[slot].published {
                // It may not show what is on the disk.
                self.pages.discard(slot);
            }
            return Err(failure);
        }
        let len = stop - start;
        self.pages.bytes_mut(slot)[start..stop].copy_from_slice(&data[..len]);
        for sub in start / size..stop.div_ceil(size) {
            self.pages.mark(slot, sub);
        }
        if offset + len as u64 > inode.size {
            self.set_size(inode, offset + len as u64);
        }
        Ok(len)
    }

    pub(crate) fn set_size(&mut self, inode: &mut Inode, size: u64) {
        inode.size = size;
        if size > i32::MAX as u64 {
            self.sb.ro_compat |= RO_LARGE_FILE;
        }
    }

    /// Zeroes the file's last block from the end of the file on, in the cache and to be
    /// written, and the rest of its page.
    pub(crate) fn zero_tail(&mut self, ino: u32, inode: &Inode) -> Result<()> {
        let size = self.sb.block_size;
        let keep = (inode.size % PAGE as u64) as usize;
        if keep == 0 {
            return Ok(());
        }
        let index = u32::try_from(inode.size / PAGE as u64).map_err(|_| Errno::EFBIG)?;
        self.pages.unpin();
        let mapped = self.map(inode, inode.size / size as u64)? != 0;
        // The other cache may have what was written to a hole through a mapping.
        if !mapped && !self.pages.has(ino, index) && !self.pages.is_lent(ino) {
            return Ok(());
        }
        self.load(ino, inode, index, 1, 0, Some(index))?;
        let slot = self.pages.find(ino, index).ok_or(Errno::EIO)?;
        self.pages.bytes_mut(slot)[keep..].fill(0);
        if !keep.is_multiple_of(size) && mapped {
            self.pages.mark(slot, keep / size);
        }
        Ok(())
    }

    /// Sets the file's size: cuts it, or extends it by a hole. Stores the inode.
    pub(crate) fn resize(&mut self, ino: u32, inode: &mut Inode, new: u64) -> Result<()> {
        if new > self.max_size() {
            return Err(Errno::EFBIG);
        }
        let size = self.sb.block_size as u64;
        if new < inode.size {
            let old = inode.size;
            inode.size = new;
            if let Err(errno) = self.zero_tail(ino, inode) {
                inode.size = old;
                return Err(errno);
            }
            let keep = new.div_ceil(size);
            let index = (new / PAGE as u64) as u32;
            if !new.is_multiple_of(PAGE as u64)
                && let Some(slot) = self.pages.find(ino, index)
            {
                let first = keep - index as u64 * self.subs() as u64;
                let subs = self.subs();
                for sub in first as usize..subs {
                    self.pages.unmap(slot, sub);
                }
            }
            let first = new.div_ceil(PAGE as u64) as u32;
            self.pages.forget(ino, first, u32::MAX);
            self.free_blocks_from(inode, keep)?;
        } else if new > inode.size {
            self.zero_tail(ino, inode)?;
            self.set_size(inode, new);
        }
        inode.mtime = self.now;
        inode.ctime = self.now;
        self.put_inode(ino, inode)
    }

    /// Publishes the page at `offset` (page aligned) to the other cache, and of the pages before
    /// and after it, as many as `around` says, what can be had. `EFAULT` beyond the end.
    pub fn publish(&mut self, ino: u32, offset: u64, around: (u32, u32)) -> Result<()> {
        let inode = self.regular(ino)?;
        if offset >= inode.size {
            return Err(Errno::EFAULT);
        }
        let index = u32::try_from(offset / PAGE as u64).map_err(|_| Errno::EFAULT)?;
        let limit = self.pages.pin_limit();
        let from = index.saturating_sub(around.0.min(limit - 1));
        let end = index as u64 + 1 + around.1.min(limit) as u64;
        let end = end.min(inode.size.div_ceil(PAGE as u64)) as u32;
        self.pages.unpin();
        let want = index + 1 - from;
        let first = (end - from).min(limit);
        let ahead = first.saturating_sub(want);
        let loaded = self.load(ino, &inode, from, want, ahead, Some(index));
        if loaded != Ok(want) {
            // One that is not needed may be the reason.
            self.pages.unpin();
            self.load(ino, &inode, index, 1, 0, Some(index))?;
        }
        // The others are a favour: a failure is for whoever asks for the page itself.
        let mut requests = 0;
        for next in index + 1..end {
            if requests < FAVOURS && !self.pages.has(ino, next) {
                requests += 1;
                self.pages.unpin();
                let count = (end - next).min(limit);
                if self.load(ino, &inode, next, 1, count - 1, None).is_err() {
                    break;
                }
            }
        }
        let slot = self.pages.find(ino, index).ok_or(Errno::EIO)?;
        let mut slots = Vec::new();
        for page in from..end {
            let found = self.pages.find(ino, page);
            slots.extend(found.filter(|&s| s == slot || !self.pages.slots[s].published));
        }
        // VM may have no room now for those before it.
        let done = self.pages.publish_all(ino, &slots);
        match slots[..done].contains(&slot) {
            true => Ok(()),
            false => self.pages.publish(slot),
        }
    }

    /// Publishes the pages from `offset` on, as many as are in a block that a page fault asks for,
    /// unless the first of them is published already. A failure is for whoever reads them.
    pub fn share(&mut self, ino: u32, offset: u64) {
        let Ok(first) = u32::try_from(offset / PAGE as u64) else {
            return;
        };
        let there = self.pages.find(ino, first);
        if there.is_some_and(|slot| self.pages.slots[slot].published) {
            return;
        }
        let Ok(inode) = self.regular(ino) else { return };
        self.pages.unpin();
        let count = HEAD.min(self.pages.pin_limit());
        if self.load(ino, &inode, first, 1, count - 1, None).is_err() {
            return;
        }
        let mut slots = Vec::new();
        for index in first..first.saturating_add(count) {
            let slot = self.pages.find(ino, index);
            slots.extend(slot.filter(|&slot| !self.pages.slots[slot].published));
        }
        if !slots.is_empty() {
            self.pages.publish_all(ino, &slots);
        }
    }

    /// The page at `offset` (page aligned) was changed through a mapping: it goes to the disk
    /// like a written one. What lies beyond the end is nobody's.
    pub fn page_written(&mut self, ino: u32, offset: u64) -> Result<()> {
        let inode = self.regular(ino)?;
        if offset >= inode.size {
            return Ok(());
        }
        let len = (inode.size - offset).min(PAGE as u64) as usize;
        let index = u32::try_from(offset / PAGE as u64).map_err(|_| Errno::EFBIG)?;
        self.pages.unpin();
        self.load(ino, &inode, index, 1, 0, Some(index))?;
        let slot = self.pages.find(ino, index).ok_or(Errno::EIO)?;
        let data = self.pages.bytes(slot)[..len].to_vec();
        match self.write(ino, offset, &data)? {
            n if n == len => Ok(()),
            _ => Err(Errno::ENOSPC),
        }
    }
}
