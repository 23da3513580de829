//! From a file's blocks to the disk's: direct, indirect, double and triple indirect.

use alloc::vec::Vec;

use crate::device::{BlockDevice, PageStore};
use crate::layout::{DIRECT, Inode, le32, put32};
use crate::volume::Volume;
use crate::{Errno, Result};

/// How to get to a block: the pointer in the inode, then one index a level.
struct Path {
    index: [usize; 4],
    depth: usize,
}

impl<D: BlockDevice, P: PageStore> Volume<D, P> {
    /// Pointers in a block.
    fn fan(&self) -> u64 {
        (self.sb.block_size / 4) as u64
    }

    /// The most blocks a file can map.
    pub(crate) fn max_blocks(&self) -> u64 {
        let n = self.fan();
        DIRECT as u64 + n + n * n + n * n * n
    }

    /// The largest file, bytes: what the map reaches and the sector count can count.
    pub(crate) fn max_size(&self) -> u64 {
        if self.sb.revision == 0 {
            return i32::MAX as u64;
        }
        (self.max_blocks() * self.sb.block_size as u64).min((1 << 41) - (1 << 32))
    }

    fn path(&self, block: u64) -> Result<Path> {
        let n = self.fan();
        let mut index = [0; 4];
        if block < DIRECT as u64 {
            index[0] = block as usize;
            return Ok(Path { index, depth: 0 });
        }
        let mut rest = block - DIRECT as u64;
        let mut span = n;
        for depth in 1..=3 {
            if rest < span {
                index[0] = DIRECT + depth - 1;
                for level in (1..=depth).rev() {
                    index[level] = (rest % n) as usize;
                    rest /= n;
                }
                return Ok(Path { index, depth });
            }
            rest -= span;
            span *= n;
        }
        Err(Errno::EFBIG)
    }

    /// The disk block behind block `block` of a file; 0 for a hole.
    pub(crate) fn map(&mut self, inode: &Inode, block: u64) -> Result<u32> {
        let path = self.path(block)?;
        let mut at = inode.block[path.index[0]];
        for level in 1..=path.depth {
            if at == 0 {
                return Ok(0);
            }
            if !self.is_data_block(at) {
                return Err(self.damage());
            }
            at = le32(self.meta(at)?, path.index[level] * 4);
        }
        if at != 0 && !self.is_data_block(at) {
            return Err(self.damage());
        }
        Ok(at)
    }

    /// Like [`Self::map`], but a hole gets a block, and whatever maps it. Says whether the
    /// block is new. Takes all the blocks it needs or, with `ENOSPC`, none. The caller stores the inode.
    pub(crate) fn map_allocate(
        &mut self,
        ino: u32,
        inode: &mut Inode,
        block: u64,
    ) -> Result<(u32, bool)> {
        let path = self.path(block)?;
        let mut chain = [0u32; 4];
        let mut have = 0;
        let mut at = inode.block[path.index[0]];
        while at != 0 {
            if !self.is_data_block(at) {
                return Err(self.damage());
            }
            chain[have] = at;
            have += 1;
            if have > path.depth {
                return Ok((at, false));
            }
            at = le32(self.meta(at)?, path.index[have] * 4);
        }
        let missing = path.depth + 1 - have;
        if (self.sb.free_blocks as usize) < missing {
            return Err(Errno::ENOSPC);
        }
        let mut goal = self.goal(ino, inode, block)?;
        let mut taken = [0u32; 4];
        for i in 0..missing {
            match self.allocate_block(goal) {
                Ok(b) => {
                    taken[i] = b;
                    goal = b + 1;
                }
                Err(errno) => {
                    for &b in &taken[..i] {
                        self.free_block(b)?;
                    }
                    return Err(errno);
                }
            }
        }
        for level in have..=path.depth {
            let new = taken[level - have];
            if level < path.depth {
                self.meta_fresh(new)?;
            }
            if level == 0 {
                inode.block[path.index[0]] = new;
            } else {
                put32(self.meta_mut(chain[level - 1])?, path.index[level] * 4, new);
            }
            chain[level] = new;
        }
        inode.sectors = inode
            .sectors
            .saturating_add((missing * self.sb.block_size / 512) as u32);
        let data = chain[path.depth];
        self.last_allocation = (ino, block, data);
        Ok((data, true))
    }

    /// Where a new block would best be.
    fn goal(&mut self, ino: u32, inode: &Inode, block: u64) -> Result<u32> {
        let (last_ino, last_block, last) = self.last_allocation;
        if last_ino == ino && last_block + 1 == block {
            return Ok(last + 1);
        }
        if block > 0 {
            let before = self.map(inode, block - 1)?;
            if before != 0 {
                return Ok(before + 1);
            }
        }
        Ok(self.sb.group_start(self.group_of_inode(ino)))
    }

    /// Whether block `block` of a file is mapped, and with a hole for how many blocks from it on,
    /// at least, there is none.
    pub(crate) fn hole(&mut self, inode: &Inode, block: u64) -> Result<Option<u64>> {
        let path = self.path(block)?;
        let mut at = inode.block[path.index[0]];
        for level in 0..=path.depth {
            if at == 0 {
                // All that this pointer could lead to; of that what lies before is over.
                let fan = self.fan();
                let before = path.index[level + 1..=path.depth].iter();
                let before = before.fold(0, |sum, &index| sum * fan + index as u64);
                return Ok(Some(fan.pow((path.depth - level) as u32) - before));
            }
            if !self.is_data_block(at) {
                return Err(self.damage());
            }
            if level < path.depth {
                at = le32(self.meta(at)?, path.index[level + 1] * 4);
            }
        }
        Ok(None)
    }

    /// Frees all blocks of a file from block `keep` on. The caller stores the inode.
    pub(crate) fn free_blocks_from(&mut self, inode: &mut Inode, keep: u64) -> Result<()> {
        self.free_blocks(inode, keep, u64::MAX)
    }

    /// Frees the blocks of a file from block `from` to before block `to`, and those that mapped
    /// nothing else. The caller stores the inode.
    pub(crate) fn free_blocks(&mut self, inode: &mut Inode, from: u64, to: u64) -> Result<()> {
        let n = self.fan();
        self.last_allocation = (0, 0, 0);
        for i in 0..DIRECT {
            if (from..to).contains(&(i as u64)) && inode.block[i] != 0 {
                let block = core::mem::take(&mut inode.block[i]);
                self.free_tree(inode, block, 0, 0, 1)?;
            }
        }
        let mut first = DIRECT as u64;
        let mut span = n;
        for depth in 1..=3 {
            let i = DIRECT + depth - 1;
            let skip = from.saturating_sub(first);
            let stop = to.saturating_sub(first).min(span);
            if inode.block[i] != 0 && skip < stop {
                let block = inode.block[i];
                if skip == 0 && stop == span {
                    inode.block[i] = 0;
                }
                if self.free_tree(inode, block, depth, skip, stop)? {
                    inode.block[i] = 0;
                }
            }
            first += span;
            span *= n;
        }
        Ok(())
    }

    /// Frees what a pointer of `depth` leads to from its block `skip` to before its block `stop`,
    /// and the pointer's own block when nothing else is left; whether that is gone. A block that goes
    /// whole is marked free before its pointers are followed, so a map that contains itself ends.
    fn free_tree(
        &mut self,
        inode: &mut Inode,
        block: u32,
        depth: usize,
        skip: u64,
        stop: u64,
    ) -> Result<bool> {
        let mut entries = Vec::new();
        if depth > 0 {
            if !self.is_data_block(block) {
                self.damage();
                return Ok(skip == 0);
            }
            match self.meta(block) {
                Ok(data) => entries.extend(data.chunks_exact(4).map(|c| le32(c, 0))),
                Err(_) => {
                    // Unreadable: what it mapped is lost, its own block need not be.
                    self.damage();
                }
            }
        }
        let whole = skip == 0 && stop >= self.fan().pow(depth as u32);
        if whole && !self.free_own(inode, block)? {
            return Ok(true);
        }
        if depth == 0 {
            return Ok(true);
        }
        let span = self.fan().pow(depth as u32 - 1);
        let mut left = false;
        for (i, &entry) in entries.iter().enumerate() {
            let start = i as u64 * span;
            if entry == 0 || start + span <= skip || start >= stop {
                left |= entry != 0;
                continue;
            }
            let inner = skip.saturating_sub(start);
            let end = (stop - start).min(span);
            if inner == 0 && end == span && !whole {
                put32(self.meta_mut(block)?, i * 4, 0);
            }
            if !self.free_tree(inode, entry, depth - 1, inner, end)? {
                left = true;
            } else if !whole {
                put32(self.meta_mut(block)?, i * 4, 0);
            }
        }
        if whole || left || entries.is_empty() {
            return Ok(whole);
        }
        self.free_own(inode, block)?;
        Ok(true)
    }

    /// Frees one block of a file; whether it was in use.
    fn free_own(&mut self, inode: &mut Inode, block: u32) -> Result<bool> {
        if !self.free_block(block)? {
            return Ok(false);
        }
        let less = (self.sb.block_size / 512) as u32;
        inode.sectors = inode.sectors.saturating_sub(less);
        Ok(true)
    }
}
