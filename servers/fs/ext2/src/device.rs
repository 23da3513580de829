//! What a volume stands on: a block device and memory for cached file pages.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use crate::{Errno, PAGE, Result};

/// Bytes of a sector.
pub const SECTOR: usize = 512;

/// A disk. Buffers are multiples of [`SECTOR`], at most [`crate::TRANSFER`] bytes long to be
/// written and [`crate::REQUEST`] to be read.
pub trait BlockDevice {
    /// Its size in sectors.
    fn sectors(&self) -> u64;
    /// Fills `buffer` from `sector` on.
    fn read(&mut self, sector: u64, buffer: &mut [u8]) -> Result<()>;
    /// Writes `buffer` from `sector` on.
    fn write(&mut self, sector: u64, buffer: &[u8]) -> Result<()>;
    /// Everything written before is on stable storage afterwards.
    fn flush(&mut self) -> Result<()>;
}

impl<D: BlockDevice + ?Sized> BlockDevice for &mut D {
    fn sectors(&self) -> u64 {
        (**self).sectors()
    }
    fn read(&mut self, sector: u64, buffer: &mut [u8]) -> Result<()> {
        (**self).read(sector, buffer)
    }
    fn write(&mut self, sector: u64, buffer: &[u8]) -> Result<()> {
        (**self).write(sector, buffer)
    }
    fn flush(&mut self) -> Result<()> {
        (**self).flush()
    }
}

/// Which pages of a file another cache has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Elsewhere {
    /// A bit for each of 64 pages, the first in bit 0.
    pub pages: u64,
    /// Whether it has any page of the file.
    pub any: bool,
}

impl Elsewhere {
    /// It has none.
    pub const NOWHERE: Elsewhere = Elsewhere {
        pages: 0,
        any: false,
    };
    /// It may have each of them.
    pub const UNKNOWN: Elsewhere = Elsewhere {
        pages: u64::MAX,
        any: true,
    };
}

/// Memory for cached file pages: at most `capacity` slots of one page each, which get it as they are needed and can
/// give it up again.
///
/// A page may be *published*: shared, frame and all, with another cache (VM's) that maps it
/// into programs. The hooks keep the two caches one; a store without sharing leaves them be.
pub trait PageStore {
    /// Slots there are.
    fn capacity(&self) -> usize;
    /// The bytes of a slot.
    fn page(&self, slot: usize) -> &[u8];
    /// The bytes of a slot.
    fn page_mut(&mut self, slot: usize) -> &mut [u8];
    /// The bytes of `count` slots from `slot` on, where they lie one behind the other.
    fn pages_mut(&mut self, _slot: usize, _count: usize) -> Option<&mut [u8]> {
        None
    }
    /// Shares the slot's page as the page at byte `offset` of `ino`.
    fn publish(&mut self, _slot: usize, _ino: u32, _offset: u64) -> Result<()> {
        Err(Errno::ENOSYS)
    }
    /// The same for several `(slot, offset)` of `ino`, in order; how many were shared before
    /// one could not be.
    fn publish_all(&mut self, ino: u32, pages: &[(usize, u64)]) -> usize {
        let failed = |&(slot, offset): &(usize, u64)| self.publish(slot, ino, offset).is_err();
        pages.iter().position(failed).unwrap_or(pages.len())
    }
    /// Which of the 64 pages of `ino` from byte `offset` on the other cache has.
    fn elsewhere(&mut self, _ino: u32, _offset: u64) -> Elsewhere {
        Elsewhere::UNKNOWN
    }
    /// If the other cache has that page, makes the slot show it and returns true.
    fn fetch(&mut self, _slot: usize, _ino: u32, _offset: u64) -> bool {
        false
    }
    /// Gives the slot a page of its own instead of a published one; contents undefined.
    fn release(&mut self, _slot: usize) -> Result<()> {
        Ok(())
    }
    /// Gives memory, contents undefined, to `count` slots from `slot` on that have none, as all slots before their
    /// first use; to how many of them, where it does not suffice for all. With `needed` there is no going on without it.
    fn supply(&mut self, _slot: usize, count: usize, _needed: bool) -> Result<usize> {
        Ok(count)
    }
    /// Gives up the memory of `count` slots from `slot` on, published or not, until
    /// [`PageStore::supply`]. False: it stays.
    fn discard(&mut self, _slot: usize, _count: usize) -> bool {
        false
    }
    /// The other cache drops the pages of `ino` in these bytes; to `u64::MAX` where the file ends.
    fn forget(&mut self, _ino: u32, _bytes: Range<u64>) {}
}

/// Pages on the heap, not shared.
pub struct HeapPages {
    pages: Vec<Box<[u8]>>,
    capacity: usize,
}

impl HeapPages {
    /// At most `capacity` pages, allocated as they are needed.
    pub fn new(capacity: usize) -> HeapPages {
        HeapPages {
            pages: Vec::new(),
            capacity,
        }
    }
}

impl PageStore for HeapPages {
    fn capacity(&self) -> usize {
        self.capacity
    }
    fn page(&self, slot: usize) -> &[u8] {
        &self.pages[slot]
    }
    fn page_mut(&mut self, slot: usize) -> &mut [u8] {
        &mut self.pages[slot]
    }
    fn supply(&mut self, slot: usize, count: usize, _needed: bool) -> Result<usize> {
        while self.pages.len() < slot + count {
            self.pages.push(vec![0; PAGE].into_boxed_slice());
        }
        Ok(count)
    }
}

/// A disk in memory, for images made on the host and for tests.
#[derive(Clone)]
pub struct MemoryDisk {
    bytes: Vec<u8>,
}

impl MemoryDisk {
    /// A zeroed disk of `len` bytes, rounded down to sectors.
    pub fn new(len: usize) -> MemoryDisk {
        MemoryDisk {
            bytes: vec![0; len / SECTOR * SECTOR],
        }
    }

    /// A disk with these contents, cut to whole sectors.
    pub fn from_bytes(mut bytes: Vec<u8>) -> MemoryDisk {
        bytes.truncate(bytes.len() / SECTOR * SECTOR);
        MemoryDisk { bytes }
    }

    /// Its contents.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its contents.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    fn range(&self, sector: u64, len: usize) -> Result<Range<usize>> {
        let start = sector
            .checked_mul(SECTOR as u64)
            .and_then(|s| usize::try_from(s).ok())
            .ok_or(Errno::EIO)?;
        match start.checked_add(len) {
            Some(end) if end <= self.bytes.len() => Ok(start..end),
            _ => Err(Errno::EIO),
        }
    }
}

impl BlockDevice for MemoryDisk {
    fn sectors(&self) -> u64 {
        (self.bytes.len() / SECTOR) as u64
    }
    fn read(&mut self, sector: u64, buffer: &mut [u8]) -> Result<()> {
        let range = self.range(sector, buffer.len())?;
        buffer.copy_from_slice(&self.bytes[range]);
        Ok(())
    }
    fn write(&mut self, sector: u64, buffer: &[u8]) -> Result<()> {
        let range = self.range(sector, buffer.len())?;
        self.bytes[range].copy_from_slice(buffer);
        Ok(())
    }
    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}
