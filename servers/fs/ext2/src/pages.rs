//! The cache of file data, by (inode, page).
//!
//! A page covers one, two or four blocks; the slot remembers which, so that writing back
//! needs no map. Pages that an operation works with are pinned until the next one.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::device::{BlockDevice, PageStore};
use crate::disk::Disk;
use crate::file::MOST;
use crate::lru::Lru;
use crate::{Errno, PAGE, Result};

/// The disk blocks of a page; 0 is a hole.
pub(crate) type PageBlocks = [u32; 4];

#[derive(Clone, Copy)]
pub(crate) struct Slot {
    /// 0 when the slot holds nothing.
    pub ino: u32,
    pub index: u32,
    pub blocks: PageBlocks,
    /// Bit per block.
    pub dirty: u8,
    /// The page's frame is shared with the other cache.
    pub published: bool,
    /// The store has given up its memory.
    vacant: bool,
    pinned: u64,
}

/// A slot that was never used.
const EMPTY: Slot = Slot {
    ino: 0,
    index: 0,
    blocks: [0; 4],
    dirty: 0,
    published: false,
    vacant: false,
    pinned: 0,
};

/// Slots that get memory again at once: asking costs two visits of the kernel.
const SUPPLY: usize = 256;
/// Slots that never give it up.
const KEPT: usize = 64;

/// Write-back cache of file pages.
pub(crate) struct Pages<P> {
    pub store: P,
    pub block_size: usize,
    pub slots: Vec<Slot>,
    pub index: BTreeMap<(u32, u32), usize>,
    pub dirty: BTreeSet<(u32, u32)>,
    lru: Lru,
    /// Inodes of which pages were ever published.
    shared: BTreeSet<u32>,
    /// Inodes of which a published page was evicted here: the other cache may still have it.
    lent: BTreeSet<u32>,
    epoch: u64,
}

impl<P: PageStore> Pages<P> {
    pub(crate) fn new(store: P, block_size: usize) -> Pages<P> {
        Pages {
            store,
            block_size,
            slots: Vec::new(),
            index: BTreeMap::new(),
            dirty: BTreeSet::new(),
            lru: Lru::new(),
            shared: BTreeSet::new(),
            lent: BTreeSet::new(),
            epoch: 0,
        }
    }

    /// Ends the pins of the operation before.
    pub(crate) fn unpin(&mut self) {
        self.epoch += 1;
    }

    /// Pages one operation may pin and still leave the cache room to move.
    pub(crate) fn pin_limit(&self) -> u32 {
        (self.store.capacity() / 4).min(MOST as usize) as u32
    }

    /// The page's slot, pinned.
    pub(crate) fn find(&mut self, ino: u32, index: u32) -> Option<usize> {
        let slot = *self.index.get(&(ino, index))?;
        self.slots[slot].pinned = self.epoch;
        self.lru.touch(slot);
        Some(slot)
    }

    /// Whether the page is cached; does not pin it.
    pub(crate) fn has(&self, ino: u32, index: u32) -> bool {
        self.index.contains_key(&(ino, index))
    }

    /// An empty slot for the page, pinned; its bytes are undefined.
    pub(crate) fn insert<D: BlockDevice>(
        &mut self,
        disk: &mut Disk<D>,
        ino: u32,
        index: u32,
        blocks: PageBlocks,
    ) -> Result<usize> {
        let slot = self.take(disk)?;
        self.slots[slot] = Slot {
            ino,
            index,
            blocks,
            dirty: 0,
            published: false,
            vacant: false,
            pinned: self.epoch,
        };
        self.index.insert((ino, index), slot);
        self.lru.touch(slot);
        Ok(slot)
    }

    fn take<D: BlockDevice>(&mut self, disk: &mut Disk<D>) -> Result<usize> {
        let fresh = self.slots.len();
        let oldest = self.lru.oldest().next();
        let reusable = oldest.is_some_and(|slot| self.slots[slot].ino == 0);
        // Without memory for another one it goes on with those that it has.
        if fresh < self.store.capacity() && !reusable && self.grow(fresh).is_ok() {
            self.slots.push(EMPTY);
            self.lru.add(fresh);
            return Ok(fresh);
        }
        let mut slot = self.victim().ok_or(Errno::ENOMEM)?;
        if self.slots[slot].vacant && self.supply(slot).is_err() {
            // It goes on with what it has.
            slot = self.victim_with(|s| !s.vacant).ok_or(Errno::ENOMEM)?;
        }
        if self.slots[slot].dirty != 0
            && let Err(errno) = self.flush(disk, None)
        {
            // What cannot be written stays; what is on the disk can go.
            slot = self
                .victim_with(|s| !s.vacant && s.dirty == 0)
                .ok_or(errno)?;
        }
        if self.slots[slot].published {
            self.store.release(slot)?;
            self.slots[slot].published = false;
            if self.slots[slot].ino != 0 {
                self.lent.insert(self.slots[slot].ino);
            }
        }
        self.discard(slot);
        Ok(slot)
    }

    /// Makes room for the slot `fresh`, the next one.
    fn grow(&mut self, fresh: usize) -> Result<()> {
        self.slots.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        self.lru.reserve(1)?;
        self.store.prepare(fresh)
    }

    /// Gets memory for the slot and for others around it that have none.
    fn supply(&mut self, slot: usize) -> Result<()> {
        let first = slot - slot % SUPPLY;
        let chunk = first..self.slots.len().min(first + SUPPLY);
        if self.store.supply(first, chunk.len()).is_ok() {
            self.slots[chunk].iter_mut().for_each(|s| s.vacant = false);
            return Ok(());
        }
        self.store.supply(slot, 1)?;
        self.slots[slot].vacant = false;
        Ok(())
    }

    /// Empties every slot that has nothing to write and gives its memory up, but for the first
    /// few, with which to go on when there is no other; returns how many held a page.
    pub(crate) fn drop_clean(&mut self) -> usize {
        self.unpin();
        let fresh = self.slots.len()..self.store.capacity();
        if fresh.start >= KEPT
            && !fresh.is_empty()
            && self.slots.try_reserve(fresh.len()).is_ok()
            && self.lru.reserve(fresh.len()).is_ok()
            && self.store.discard(fresh.start, fresh.len())
        {
            for slot in fresh {
                self.slots.push(Slot {
                    vacant: true,
                    ..EMPTY
                });
                self.lru.add(slot);
            }
        }
        let mut dropped = 0;
        // From the last on: what is emptied last is used first, and neighbours get memory
        // together.
        for slot in (0..self.slots.len()).rev() {
            let s = self.slots[slot];
            if s.ino == 0 {
                self.lru.retire(slot);
            } else if s.dirty == 0 {
                dropped += 1;
                if s.published {
                    self.lent.insert(s.ino);
                }
                self.discard(slot);
            }
        }
        for slot in 0..self.slots.len().min(KEPT) {
            let s = self.slots[slot];
            if s.ino == 0 && s.published && self.store.release(slot).is_ok() {
                self.slots[slot].published = false;
            }
        }
        let mut slot = KEPT;
        while slot < self.slots.len() {
            let rest = self.slots[slot..].iter();
            let count = rest.take_while(|s| s.ino == 0 && !s.vacant).count();
            if count > 0 && self.store.discard(slot, count) {
                for s in &mut self.slots[slot..slot + count] {
                    (s.published, s.vacant) = (false, true);
                }
            }
            slot += count.max(1);
        }
        dropped
    }

    /// The least recently used slot that is not pinned.
    fn victim(&self) -> Option<usize> {
        self.victim_with(|_| true)
    }

    fn victim_with(&self, fits: impl Fn(&Slot) -> bool) -> Option<usize> {
        self.lru.oldest().find(|&slot| {
            let s = &self.slots[slot];
            (s.ino == 0 || s.pinned != self.epoch) && fits(s)
        })
    }

    /// Empties a slot; what it holds is not written.
    pub(crate) fn discard(&mut self, slot: usize) {
        let Slot { ino, index, .. } = self.slots[slot];
        if ino != 0 {
            self.index.remove(&(ino, index));
            self.dirty.remove(&(ino, index));
            self.slots[slot].ino = 0;
            self.slots[slot].dirty = 0;
            self.lru.retire(slot);
        }
    }

    /// Drops the file's pages from page `first` to before page `last`, here and in the other cache;
    /// with `u32::MAX` all from `first` on, for that is where the file ends.
    pub(crate) fn forget(&mut self, ino: u32, first: u32, last: u32) {
        if first >= last {
            return;
        }
        let pages = (ino, first)..(ino, last);
        while let Some((_, &slot)) = self.index.range(pages.clone()).next() {
            self.discard(slot);
        }
        if self.shared.contains(&ino) {
            let end = match last {
                u32::MAX => u64::MAX,
                last => last as u64 * PAGE as u64,
            };
            self.store.forget(ino, first as u64 * PAGE as u64..end);
            if first == 0 && last == u32::MAX {
                self.shared.remove(&ino);
                self.lent.remove(&ino);
            }
        }
    }

    /// Whether the other cache may have pages of the file that are not here.
    pub(crate) fn is_lent(&self, ino: u32) -> bool {
        self.lent.contains(&ino)
    }

    /// Which of the 64 pages of the file from `first` on only the other cache may have.
    pub(crate) fn elsewhere(&mut self, ino: u32, first: u32) -> u64 {
        if !self.lent.contains(&ino) {
            return 0;
        }
        let found = self.store.elsewhere(ino, first as u64 * PAGE as u64);
        if !found.any {
            self.lent.remove(&ino);
        }
        found.pages
    }

    /// Takes the page's contents from the other cache, if it has them.
    pub(crate) fn fetch(&mut self, slot: usize) -> bool {
        let Slot { ino, index, .. } = self.slots[slot];
        let have = self.store.fetch(slot, ino, index as u64 * PAGE as u64);
        self.slots[slot].published = have;
        have
    }

    /// Shares the page with the other cache.
    pub(crate) fn publish(&mut self, slot: usize) -> Result<()> {
        let Slot { ino, index, .. } = self.slots[slot];
        self.store.publish(slot, ino, index as u64 * PAGE as u64)?;
        self.slots[slot].published = true;
        self.shared.insert(ino);
        Ok(())
    }

    /// Shares pages of one file, as far as that goes: how many.
    pub(crate) fn publish_all(&mut self, ino: u32, slots: &[usize]) -> usize {
        let offset = |slot: usize| self.slots[slot].index as u64 * PAGE as u64;
        let pages: Vec<(usize, u64)> = slots.iter().map(|&slot| (slot, offset(slot))).collect();
        let done = self.store.publish_all(ino, &pages);
        for &slot in &slots[..done] {
            self.slots[slot].published = true;
        }
        if done > 0 {
            self.shared.insert(ino);
        }
        done
    }

    /// Block `sub` of the page was changed.
    pub(crate) fn mark(&mut self, slot: usize, sub: usize) {
        let s = &mut self.slots[slot];
        debug_assert_ne!(s.blocks[sub], 0);
        s.dirty |= 1 << sub;
        self.dirty.insert((s.ino, s.index));
    }

    /// Block `sub` of the page has no block on the disk any more.
    pub(crate) fn unmap(&mut self, slot: usize, sub: usize) {
        let s = &mut self.slots[slot];
        s.blocks[sub] = 0;
        s.dirty &= !(1 << sub);
        if s.dirty == 0 {
            self.dirty.remove(&(s.ino, s.index));
        }
    }

    /// The bytes of a slot.
    pub(crate) fn bytes(&self, slot: usize) -> &[u8] {
        self.store.page(slot)
    }

    /// The bytes of a slot.
    pub(crate) fn bytes_mut(&mut self, slot: usize) -> &mut [u8] {
        self.store.page_mut(slot)
    }
}
