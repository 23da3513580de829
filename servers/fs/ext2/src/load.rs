//! From the disk into the cache of file pages.

use alloc::vec::Vec;

use crate::device::{BlockDevice, PageStore};
use crate::layout::Inode;
use crate::pages::PageBlocks;
use crate::volume::Volume;
use crate::{Errno, PAGE, REQUEST, Result};

/// Whether reading on from `last` to `block` is cheaper than a request of its own: next to
/// each other, or with a map block or two between them.
fn follows(last: u32, block: u32) -> bool {
    block > last && block - last <= 3
}

impl<D: BlockDevice, P: PageStore> Volume<D, P> {
    /// Brings `want` pages from `first` on into the cache and pins them, and up to `ahead`
    /// more if that costs no further seek. Pages that are all hole are left out, but for page
    /// `hole`. Returns how many of the pages wanted are there: where memory is short fewer than `want`, but one.
    pub(crate) fn load(
        &mut self,
        ino: u32,
        inode: &Inode,
        first: u32,
        want: u32,
        ahead: u32,
        hole: Option<u32>,
    ) -> Result<u32> {
        let end = inode
            .size
            .div_ceil(PAGE as u64)
            .min(first as u64 + want as u64 + ahead as u64) as u32;
        let mut missing: Vec<(u32, PageBlocks)> = Vec::new();
        let mut last = 0;
        for index in first..end.max(first + want) {
            let wanted = index < first + want;
            if !wanted && missing.is_empty() {
                // Everything wanted is here: no need to go to the disk now, nor to look what else is here.
                break;
            }
            if self.pages.find(ino, index).is_some() {
                continue;
            }
            let blocks = match self.page_blocks(inode, index) {
                Ok(blocks) => blocks,
                Err(errno) if wanted => return Err(errno),
                Err(_) => break,
            };
            let mut mapped = blocks.iter().copied().filter(|&b| b != 0);
            if let Some(block) = mapped.next() {
                if !wanted && !follows(last, block) {
                    break;
                }
                last = mapped.next_back().unwrap_or(block);
            } else if hole != Some(index) {
                continue;
            }
            missing.push((index, blocks));
        }
        // What only the other cache has, 64 pages at a time.
        let mut known: Option<(u32, u64)> = None;
        let mut reads: Vec<(u32, usize, usize)> = Vec::new();
        let mut slots: Vec<usize> = Vec::new();
        let mut failure = None;
        let mut have = want;
        let size = self.sb.block_size;
        for &(index, blocks) in &missing {
            let slot = match self.pages.insert(&mut self.disk, ino, index, blocks) {
                Ok(slot) => slot,
                Err(errno) if index == first => return Err(errno),
                // What is pinned already leaves no room for more.
                Err(_) => {
                    have = have.min(index - first);
                    break;
                }
            };
            let (base, elsewhere) = match known {
                Some((base, pages)) if index - base < 64 => (base, pages),
                _ => (index, self.pages.elsewhere(ino, index)),
            };
            known = Some((base, elsewhere));
            if elsewhere >> (index - base) & 1 != 0 && self.pages.fetch(slot) {
                continue;
            }
            slots.push(slot);
            for (sub, &block) in blocks.iter().enumerate().take(self.subs()) {
                if block == 0 {
                    self.pages.bytes_mut(slot)[sub * size..(sub + 1) * size].fill(0);
                } else {
                    reads.push((block, slot, sub));
                }
            }
        }
        for slot in self.read_blocks(&reads) {
            if self.pages.slots[slot].index < first + have {
                failure = Some(Errno::EIO);
            }
            self.pages.discard(slot);
        }
        if let Some(errno) = failure {
            return Err(errno);
        }
        // Bytes past the end are zero for whoever maps the page.
        let last = (inode.size / PAGE as u64) as u32;
        for slot in slots {
            let s = self.pages.slots[slot];
            if s.ino == ino && s.index >= last {
                let keep = if s.index == last {
                    (inode.size % PAGE as u64) as usize
                } else {
                    0
                };
                self.pages.bytes_mut(slot)[keep..].fill(0);
            }
        }
        Ok(have)
    }

    /// Reads blocks (disk block, slot, block within the page), as many in one request as
    /// follow each other. Returns the slots that could not be filled.
    fn read_blocks(&mut self, reads: &[(u32, usize, usize)]) -> Vec<usize> {
        let mut failed = Vec::new();
        let mut rest = reads;
        while !rest.is_empty() {
            let (straight, near) = (self.straight(rest), self.near(rest));
            let done = match straight >= near && self.read_straight(&rest[..straight]) {
                true => straight,
                false => {
                    self.read_near(&rest[..near], &mut failed);
                    near
                }
            };
            rest = &rest[done..];
        }
        failed
    }

    /// How many blocks from the first on follow each other on the disk and in memory.
    fn straight(&self, reads: &[(u32, usize, usize)]) -> usize {
        let size = self.sb.block_size;
        let (first, slot, sub) = reads[0];
        let start = slot * PAGE + sub * size;
        let follow = (0..REQUEST / size)
            .zip(reads)
            .take_while(|&(n, &(block, slot, sub))| {
                block as usize == first as usize + n && slot * PAGE + sub * size == start + n * size
            });
        follow.count()
    }

    /// How many blocks from the first on one request through the buffer can bring.
    fn near(&self, reads: &[(u32, usize, usize)]) -> usize {
        let first = reads[0].0;
        let mut last = first;
        let follow = reads[1..].iter().take_while(|&&(block, ..)| {
            let near = follows(last, block) && ((block - first) as usize) < self.disk.cluster();
            last = if near { block } else { last };
            near
        });
        1 + follow.count()
    }

    /// Reads blocks that follow each other into the memory that does; whether all of them could
    /// be read.
    fn read_straight(&mut self, reads: &[(u32, usize, usize)]) -> bool {
        let size = self.sb.block_size;
        let (first, slot, sub) = reads[0];
        let from = sub * size;
        let to = from + reads.len() * size;
        let memory = self.pages.store.pages_mut(slot, to.div_ceil(PAGE));
        memory.is_some_and(|memory| self.disk.read(first, &mut memory[from..to]).is_ok())
    }

    /// Reads blocks that are near each other through the buffer; the slots of those that cannot
    /// be read go to `failed`.
    fn read_near(&mut self, reads: &[(u32, usize, usize)], failed: &mut Vec<usize>) {
        let size = self.sb.block_size;
        let (first, last) = (reads[0].0, reads[reads.len() - 1].0);
        let count = (last - first) as usize + 1;
        let whole = self.disk.read_cluster(first, count).is_ok();
        for &(block, slot, sub) in reads {
            // One bad sector must not take its neighbours along.
            let at = if whole { block - first } else { 0 } as usize * size;
            if whole || self.disk.read_cluster(block, 1).is_ok() {
                self.pages.store.page_mut(slot)[sub * size..(sub + 1) * size]
                    .copy_from_slice(&self.disk.transfer[at..at + size]);
            } else {
                failed.push(slot);
            }
        }
    }
}
