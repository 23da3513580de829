//! The cache of file data, by (inode, page).
//!
//! It starts empty and takes memory as pages come, until the store refuses: then the least recently used page
//! makes room. [`Pages::give_back`] returns memory to the store.
//!
//! A page covers one, two or four blocks; the slot remembers which, so that writing back
//! needs no map. Pages that an operation works with are pinned until the next one.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::device::{BlockDevice, PageStore};
use crate::disk::Disk;
use crate::lru::Lru;
use crate::{Errno, PAGE, REQUEST, Result};

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
    /// The store has memory for it; slots without are in [`Pages::vacant`].
    held: bool,
    pinned: u64,
}

/// A slot that was never used.
const EMPTY: Slot = Slot {
    ino: 0,
    index: 0,
    blocks: [0; 4],
    dirty: 0,
    published: false,
    held: false,
    pinned: 0,
};

/// Pages read at once at most.
pub(crate) const MOST: u32 = (REQUEST / PAGE) as u32;

/// Slots that get memory at once: asking costs two visits of the kernel. A quarter of what there is, within these.
const SUPPLY: (usize, usize) = (16, 256);
/// Slots that never give it up.
pub(crate) const KEPT: usize = 64;
/// How many pages make room for others before a store that had no memory is asked again.
const PATIENCE: usize = 256;
/// Rows of slots without memory that are looked at for a long one.
const ROWS: usize = 16;
/// Pages given back in one go.
const AT_ONCE: usize = 256;
/// Blocks written in one go, bytes of notes for which are below what a heap has in reserve.
pub(crate) const WRITTEN: usize = 640;

/// Write-back cache of file pages.
pub(crate) struct Pages<P> {
    pub store: P,
    pub block_size: usize,
    pub slots: Vec<Slot>,
    pub index: BTreeMap<(u32, u32), usize>,
    pub dirty: BTreeSet<(u32, u32)>,
    /// The slots with memory.
    lru: Lru,
    /// How many these are.
    held: usize,
    /// Rows of slots without memory, first and count, below the end of `slots`.
    vacant: BTreeMap<usize, usize>,
    /// Before that many pages have made room the store is not asked for memory.
    patience: usize,
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
            held: 0,
            vacant: BTreeMap::new(),
            patience: 0,
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
        let most = match self.patience {
            0 => self.store.capacity(),
            _ => self.held,
        };
        (most / 4).clamp(KEPT / 4, MOST as usize) as u32
    }

    /// Changed pages above which they are written without being asked for: a small part of what there could be.
    pub(crate) fn dirty_limit(&self) -> usize {
        let capacity = self.store.capacity();
        (capacity / 16).max((capacity / 2).min(1024))
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
            held: true,
            pinned: self.epoch,
        };
        self.index.insert((ino, index), slot);
        self.lru.touch(slot);
        Ok(slot)
    }

    /// A slot with memory that holds nothing.
    fn take<D: BlockDevice>(&mut self, disk: &mut Disk<D>) -> Result<usize> {
        let oldest = self.lru.oldest().next();
        if let Some(slot) = oldest.filter(|&slot| self.slots[slot].ino == 0)
            && self.own(slot).is_ok()
        {
            return Ok(slot);
        }
        if let Some(slot) = self.grow() {
            return Ok(slot);
        }
        self.patience = self.patience.saturating_sub(1);
        let mut slot = self.victim_with(|_| true).ok_or(Errno::ENOMEM)?;
        if self.slots[slot].dirty != 0
            && let Err(errno) = self.flush(disk, None)
        {
            // What cannot be written stays; what is on the disk can go.
            slot = self.victim_with(|s| s.dirty == 0).ok_or(errno)?;
        }
        self.own(slot)?;
        self.discard(slot);
        Ok(slot)
    }

    /// Makes the slot's memory its own, contents undefined: the other cache may have the page that was in it.
    fn own(&mut self, slot: usize) -> Result<()> {
        let Slot { ino, published, .. } = self.slots[slot];
        if published {
            self.store.release(slot)?;
            self.slots[slot].published = false;
            if ino != 0 {
                self.lent.insert(ino);
            }
        }
        Ok(())
    }

    /// Gets memory for more slots, as many as is reasonable; one of them.
    fn grow(&mut self) -> Option<usize> {
        let needed = self.held < KEPT;
        if self.patience > 0 && !needed {
            return None;
        }
        let (least, most) = SUPPLY;
        let wanted = match needed {
            true => KEPT,
            false => (self.held / 4).clamp(least, most),
        };
        let (first, count) = self.row(wanted)?;
        let got = self.supply(first, count, needed).unwrap_or(0);
        if got < count {
            self.patience = PATIENCE;
        }
        if got == 0 {
            return None;
        }
        self.take_row(first, got);
        // They are used in order: neighbours are read from the disk together.
        for slot in (first..first + got).rev() {
            self.slots[slot] = Slot {
                held: true,
                ..EMPTY
            };
            self.lru.add_oldest(slot);
        }
        self.held += got;
        Some(first)
    }

    /// Slots without memory that lie one behind the other: the first, and how many, at most `wanted`.
    fn row(&self, wanted: usize) -> Option<(usize, usize)> {
        let rows = || self.vacant.iter().map(|(&first, &count)| (first, count));
        let some = rows().take(ROWS).filter(|&(_, count)| count >= SUPPLY.0);
        let long = some.max_by_key(|&(_, count)| count.min(wanted));
        let end = self.slots.len();
        let fresh = Some((end, self.store.capacity() - end)).filter(|&(_, count)| count > 0);
        let (first, count) = long.or(fresh).or(rows().next())?;
        Some((first, count.min(wanted)))
    }

    /// Gets memory for slots of such a row; for how many of them.
    fn supply(&mut self, first: usize, count: usize, needed: bool) -> Result<usize> {
        let end = first + count;
        let more = end.saturating_sub(self.slots.len());
        self.slots.try_reserve(more).map_err(|_| Errno::ENOMEM)?;
        self.lru.reserve(end)?;
        self.store.supply(first, count, needed)
    }

    /// The slots of a row that [`Pages::row`] gave have memory now.
    fn take_row(&mut self, first: usize, count: usize) {
        if first == self.slots.len() {
            self.slots.resize(first + count, EMPTY);
        } else if let Some(all) = self.vacant.remove(&first)
            && all > count
        {
            self.vacant.insert(first + count, all - count);
        }
    }

    /// Slots `first` to before `first + count` have no memory any more.
    fn add_row(&mut self, mut first: usize, mut count: usize) {
        let before = self.vacant.range(..first).next_back();
        if let Some((&start, &len)) = before
            && start + len == first
        {
            self.vacant.remove(&start);
            (first, count) = (start, count + len);
        }
        if let Some(len) = self.vacant.remove(&(first + count)) {
            count += len;
        }
        self.vacant.insert(first, count);
    }

    /// Returns the memory of up to `wanted` pages, the least recently used first, after what has changed was written;
    /// how many. The last few stay, with which to go on when there is no other memory.
    pub(crate) fn give_back<D: BlockDevice>(&mut self, disk: &mut Disk<D>, wanted: usize) -> usize {
        self.unpin();
        let mut given = 0;
        while given < wanted {
            let most = AT_ONCE.min(wanted - given);
            let most = most.min(self.held.saturating_sub(KEPT));
            let some = self.lru.oldest().take(most);
            let changed = some.into_iter().any(|slot| self.slots[slot].dirty != 0);
            if changed {
                // What cannot be written stays.
                let _ = self.flush(disk, None);
            }
            let count = self.give_back_clean(most, |_| true);
            given += count;
            if count == 0 {
                break;
            }
        }
        given
    }

    /// Returns the memory of up to `most` of the slots that have nothing to write and `fits`; how many.
    fn give_back_clean(&mut self, most: usize, fits: impl Fn(usize) -> bool) -> usize {
        let mut slots: Vec<usize> = Vec::new();
        if slots.try_reserve(most).is_err() {
            return 0;
        }
        let clean = self
            .lru
            .oldest()
            .filter(|&slot| self.slots[slot].dirty == 0);
        slots.extend(clean.filter(|&slot| fits(slot)).take(most));
        slots.sort_unstable();
        let mut given = 0;
        for row in slots.chunk_by(|&a, &b| a + 1 == b) {
            let (first, count) = (row[0], row.len());
            if !self.store.discard(first, count) {
                break;
            }
            for &slot in row {
                let Slot { ino, published, .. } = self.slots[slot];
                if published && ino != 0 {
                    self.lent.insert(ino);
                }
                self.discard(slot);
                self.lru.remove(slot);
                self.slots[slot] = EMPTY;
            }
            self.held -= count;
            self.add_row(first, count);
            given += count;
        }
        given
    }

    /// Empties every slot that has nothing to write and gives its memory up, but for the first
    /// few, with which to go on when there is no other; returns how many held a page.
    pub(crate) fn drop_clean(&mut self) -> usize {
        self.unpin();
        self.patience = 0;
        let clean = self.index.values();
        let clean = clean.filter(|&&slot| self.slots[slot].dirty == 0).count();
        let held = (0..self.slots.len()).filter(|&slot| self.slots[slot].held);
        let kept = held.take(KEPT).last().map_or(0, |last| last + 1);
        while self.give_back_clean(AT_ONCE, |slot| slot >= kept) > 0 {}
        // From the last on: what is emptied last is used first.
        for slot in (0..self.slots.len()).rev() {
            let s = self.slots[slot];
            if s.held && s.dirty == 0 {
                if s.published && s.ino != 0 {
                    self.lent.insert(s.ino);
                }
                self.discard(slot);
                self.lru.retire(slot);
                // Without memory of its own it is the next to ask for some.
                let _ = self.own(slot);
            }
        }
        clean
    }

    /// The least recently used slot that is not pinned.
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
