//! The cache of metadata blocks: bitmaps, inode tables, maps, directories, symlinks.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use crate::device::BlockDevice;
use crate::disk::Disk;
use crate::lru::Lru;
use crate::{Errno, Result};

/// Bytes of metadata kept.
const LIMIT: usize = 1 << 20;
/// `Slot::block` of a slot without contents.
const EMPTY: u32 = u32::MAX;

struct Slot {
    block: u32,
    data: Box<[u8]>,
}

/// Write-back cache of blocks, by block number.
pub(crate) struct Meta {
    block_size: usize,
    slots: Vec<Slot>,
    index: BTreeMap<u32, usize>,
    dirty: BTreeMap<u32, usize>,
    lru: Lru,
}

impl Meta {
    pub(crate) fn new(block_size: usize) -> Meta {
        Meta {
            block_size,
            slots: Vec::new(),
            index: BTreeMap::new(),
            dirty: BTreeMap::new(),
            lru: Lru::new(),
        }
    }

    /// The block's bytes.
    pub(crate) fn get<D: BlockDevice>(&mut self, disk: &mut Disk<D>, block: u32) -> Result<&[u8]> {
        let slot = self.slot(disk, block, true)?;
        Ok(&self.slots[slot].data)
    }

    /// The block's bytes, to be changed.
    pub(crate) fn get_mut<D: BlockDevice>(
        &mut self,
        disk: &mut Disk<D>,
        block: u32,
    ) -> Result<&mut [u8]> {
        let slot = self.slot(disk, block, true)?;
        self.dirty.insert(block, slot);
        Ok(&mut self.slots[slot].data)
    }

    /// The block zeroed, without a look at the disk.
    pub(crate) fn fresh<D: BlockDevice>(
        &mut self,
        disk: &mut Disk<D>,
        block: u32,
    ) -> Result<&mut [u8]> {
        let slot = self.slot(disk, block, false)?;
        self.dirty.insert(block, slot);
        let data = &mut self.slots[slot].data;
        data.fill(0);
        Ok(data)
    }

    /// Whether blocks are to be written.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// The block was freed: its contents no longer matter.
    pub(crate) fn discard(&mut self, block: u32) {
        if let Some(slot) = self.index.remove(&block) {
            self.dirty.remove(&block);
            self.slots[slot].block = EMPTY;
            self.lru.retire(slot);
        }
    }

    /// Forgets every block that is not to be written.
    pub(crate) fn drop_clean(&mut self) {
        self.index.clear();
        self.lru.clear();
        let dirty = &mut self.dirty;
        self.slots.retain(|slot| dirty.contains_key(&slot.block));
        for (at, slot) in self.slots.iter().enumerate() {
            dirty.insert(slot.block, at);
            self.index.insert(slot.block, at);
            self.lru.add(at);
        }
    }

    fn slot<D: BlockDevice>(
        &mut self,
        disk: &mut Disk<D>,
        block: u32,
        load: bool,
    ) -> Result<usize> {
        if let Some(&slot) = self.index.get(&block) {
            self.lru.touch(slot);
            return Ok(slot);
        }
        let slot = self.take(disk)?;
        if load {
            disk.read(block, &mut self.slots[slot].data)?;
        }
        self.slots[slot].block = block;
        self.index.insert(block, slot);
        self.lru.touch(slot);
        Ok(slot)
    }

    /// A slot without contents.
    fn take<D: BlockDevice>(&mut self, disk: &mut Disk<D>) -> Result<usize> {
        // Without memory for another one it goes on with those that it has.
        if self.slots.len() < LIMIT / self.block_size
            && self.slots.try_reserve(1).is_ok()
            && self.lru.reserve(self.slots.len() + 1).is_ok()
        {
            let slot = self.slots.len();
            self.slots.push(Slot {
                block: EMPTY,
                data: vec![0; self.block_size].into_boxed_slice(),
            });
            self.lru.add(slot);
            return Ok(slot);
        }
        let mut slot = self.lru.oldest().next().ok_or(Errno::ENOMEM)?;
        if self.dirty.contains_key(&self.slots[slot].block)
            && let Err(errno) = self.flush(disk)
        {
            // What cannot be written stays; what is on the disk can go.
            slot = self
                .lru
                .oldest()
                .find(|&slot| !self.dirty.contains_key(&self.slots[slot].block))
                .ok_or(errno)?;
        }
        let block = self.slots[slot].block;
        self.index.remove(&block);
        self.slots[slot].block = EMPTY;
        Ok(slot)
    }

    /// Writes every changed block, neighbours together. What cannot be written stays changed.
    pub(crate) fn flush<D: BlockDevice>(&mut self, disk: &mut Disk<D>) -> Result<()> {
        let mut result = Ok(());
        let mut from = 0;
        while let Some((&first, _)) = self.dirty.range(from..).next() {
            let mut count = 0;
            while count < disk.cluster() {
                let Some(slot) = self.dirty.get(&(first + count as u32)) else {
                    break;
                };
                let at = count * self.block_size;
                disk.transfer[at..at + self.block_size].copy_from_slice(&self.slots[*slot].data);
                count += 1;
            }
            from = first + count as u32;
            match disk.write_cluster(first, count) {
                Ok(()) => {
                    for block in first..from {
                        self.dirty.remove(&block);
                    }
                }
                Err(errno) => result = result.and(Err(errno)),
            }
        }
        result
    }
}
