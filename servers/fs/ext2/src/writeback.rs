//! Writing changed file pages back: in the order of the disk, neighbours together.

use alloc::vec::Vec;
use core::ops::Bound;

use crate::Result;
use crate::device::{BlockDevice, PageStore};
use crate::disk::Disk;
use crate::pages::{Pages, WRITTEN};

impl<P: PageStore> Pages<P> {
    /// Writes all changed pages, or those of one file. What cannot be written stays changed.
    pub(crate) fn flush<D: BlockDevice>(
        &mut self,
        disk: &mut Disk<D>,
        only: Option<u32>,
    ) -> Result<()> {
        let (first, last) = match only {
            Some(ino) => ((ino, 0), (ino, u32::MAX)),
            None => ((0, 0), (u32::MAX, u32::MAX)),
        };
        let mut result = Ok(());
        let mut next = Bound::Included(first);
        loop {
            // A bounded part at a time: this is what makes room where there is no memory.
            let mut work: Vec<(u32, usize, usize)> = Vec::new();
            for &key in self.dirty.range((next, Bound::Included(last))) {
                if work.len() >= WRITTEN {
                    break;
                }
                next = Bound::Excluded(key);
                let slot = self.index[&key];
                let s = &self.slots[slot];
                for (sub, &block) in s.blocks.iter().enumerate() {
                    if s.dirty & 1 << sub != 0 {
                        work.push((block, slot, sub));
                    }
                }
            }
            if work.is_empty() {
                return result;
            }
            result = result.and(self.write_out(disk, work));
        }
    }

    /// Writes these blocks: block on the disk, slot, block within the page.
    fn write_out<D: BlockDevice>(
        &mut self,
        disk: &mut Disk<D>,
        mut work: Vec<(u32, usize, usize)>,
    ) -> Result<()> {
        work.sort_unstable();
        let size = self.block_size;
        let mut result = Ok(());
        let mut rest = &work[..];
        while let [(first, ..), ..] = *rest {
            let count = rest
                .iter()
                .take(disk.cluster())
                .enumerate()
                .take_while(|&(i, &(block, ..))| block as usize == first as usize + i)
                .count();
            let (run, after) = rest.split_at(count);
            for (i, &(_, slot, sub)) in run.iter().enumerate() {
                let page = self.store.page(slot);
                disk.transfer[i * size..(i + 1) * size]
                    .copy_from_slice(&page[sub * size..(sub + 1) * size]);
            }
            rest = after;
            if let Err(errno) = disk.write_cluster(first, count) {
                result = result.and(Err(errno));
                continue;
            }
            for &(_, slot, sub) in run {
                let s = &mut self.slots[slot];
                s.dirty &= !(1 << sub);
                if s.dirty == 0 {
                    self.dirty.remove(&(s.ino, s.index));
                }
            }
        }
        result
    }
}
