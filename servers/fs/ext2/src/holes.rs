//! Holes of regular files: made, filled before anything is written, looked for. More than Linux's
//! ext2, which has no fallocate(2): holes as its ext4 makes them on such a disk, and what is reserved is zeroed
//! blocks, for the disk's map knows no others.

use crate::device::{BlockDevice, PageStore};
use crate::layout::Inode;
use crate::volume::Volume;
use crate::{Errno, PAGE, Result};

/// Bytes that are reserved in one go: others want their turn, too.
const GO: u64 = 1 << 20;

const BYTES: u64 = PAGE as u64;

fn page(index: u64) -> Result<u32> {
    u32::try_from(index).map_err(|_| Errno::EFBIG)
}

impl<D: BlockDevice, P: PageStore> Volume<D, P> {
    /// Makes `[offset, offset + len)` a hole: whole pages go, from those who map them as well; whole
    /// blocks are freed, and the rest becomes zero. Nothing happens behind the end of the file.
    pub fn punch(&mut self, ino: u32, offset: u64, len: u64) -> Result<()> {
        self.writable()?;
        let mut inode = self.regular(ino)?;
        let end = offset.checked_add(len).ok_or(Errno::EFBIG)?;
        // The last page of the file is all its own.
        let end = end.min(inode.size.next_multiple_of(BYTES));
        if offset >= inode.size {
            return Ok(());
        }
        let (first, last) = (offset.div_ceil(BYTES), end / BYTES);
        if first > last {
            self.zero(ino, &inode, last, offset % BYTES, end % BYTES)?;
        } else {
            if !offset.is_multiple_of(BYTES) {
                self.zero(ino, &inode, first - 1, offset % BYTES, BYTES)?;
            }
            if !end.is_multiple_of(BYTES) {
                self.zero(ino, &inode, last, 0, end % BYTES)?;
            }
            self.pages.forget(ino, page(first)?, page(last)?);
        }
        let size = self.sb.block_size as u64;
        let result = self.free_blocks(&mut inode, offset.div_ceil(size), end / size);
        inode.mtime = self.now;
        inode.ctime = self.now;
        self.put_inode(ino, &inode)?;
        result
    }

    /// Zeroes bytes of a page, to be written where a block stays.
    fn zero(&mut self, ino: u32, inode: &Inode, index: u64, from: u64, to: u64) -> Result<()> {
        let index = page(index)?;
        let blocks = self.page_blocks(inode, index)?;
        let hole = blocks.iter().all(|&block| block == 0);
        if hole && !self.pages.has(ino, index) && !self.pages.is_lent(ino) {
            return Ok(());
        }
        self.pages.unpin();
        self.load(ino, inode, index, 1, 0, Some(index))?;
        let slot = self.pages.find(ino, index).ok_or(Errno::EIO)?;
        let (from, to) = (from as usize, to as usize);
        self.pages.bytes_mut(slot)[from..to].fill(0);
        let size = self.sb.block_size;
        for sub in from / size..to.div_ceil(size) {
            if from <= sub * size && (sub + 1) * size <= to {
                self.pages.unmap(slot, sub);
            } else if self.pages.slots[slot].blocks[sub] != 0 {
                self.pages.mark(slot, sub);
            }
        }
        Ok(())
    }

    /// Gives the holes of `[offset, offset + len)` zeroed blocks: of how many bytes, fewer when it
    /// is much, or the disk is full (`ENOSPC` when nothing fits). The file grows unless
    /// `keep_size`: then blocks behind its end are `EOPNOTSUPP`.
    pub fn reserve(&mut self, ino: u32, offset: u64, len: u64, keep_size: bool) -> Result<u64> {
        self.writable()?;
        let mut inode = self.regular(ino)?;
        let end = offset.checked_add(len).ok_or(Errno::EFBIG)?;
        if end > self.max_size() {
            return Err(Errno::EFBIG);
        }
        let size = self.sb.block_size as u64;
        if keep_size && end > inode.size.next_multiple_of(size) {
            return Err(Errno::EOPNOTSUPP);
        }
        let end = end.min((offset / BYTES * BYTES).saturating_add(GO));
        if end > inode.size {
            self.zero_tail(ino, &inode)?;
        }
        let mut at = offset;
        let mut result = Ok(());
        while at < end && result.is_ok() {
            match self.reserve_block(ino, &mut inode, at / size) {
                Ok(()) => at = (at / size + 1) * size,
                Err(errno) => result = Err(errno),
            }
        }
        let done = at.min(end).saturating_sub(offset);
        if done > 0 && !keep_size && offset + done > inode.size {
            self.set_size(&mut inode, offset + done);
        }
        inode.mtime = self.now;
        inode.ctime = self.now;
        self.put_inode(ino, &inode)?;
        if self.pages.dirty.len() > self.pages.dirty_limit() {
            // A failure here is found again by the sync that must report it.
            let _ = self.pages.flush(&mut self.disk, None);
        }
        match result {
            Err(errno) if done == 0 => Err(errno),
            _ => Ok(done),
        }
    }

    fn reserve_block(&mut self, ino: u32, inode: &mut Inode, block: u64) -> Result<()> {
        if self.map(inode, block)? != 0 {
            return Ok(());
        }
        let subs = self.subs() as u64;
        let (index, sub) = (page(block / subs)?, (block % subs) as usize);
        self.pages.unpin();
        self.load(ino, inode, index, 1, 0, Some(index))?;
        let slot = self.pages.find(ino, index).ok_or(Errno::EIO)?;
        let (block, _) = self.map_allocate(ino, inode, block)?;
        self.pages.slots[slot].blocks[sub] = block;
        self.pages.mark(slot, sub);
        Ok(())
    }

    /// Where from `offset` on the next hole is, or the next data. The end of the file is a hole.
    pub fn seek(&mut self, ino: u32, offset: u64, hole: bool) -> Result<u64> {
        let inode = self.regular(ino)?;
        if offset >= inode.size {
            return Err(Errno::ENXIO);
        }
        let size = self.sb.block_size as u64;
        let mut block = offset / size;
        while block * size < inode.size {
            match self.hole(&inode, block)? {
                None if hole => block += 1,
                Some(blocks) if !hole => block += blocks,
                _ => return Ok((block * size).max(offset)),
            }
        }
        match hole {
            true => Ok(inode.size),
            false => Err(Errno::ENXIO),
        }
    }
}
