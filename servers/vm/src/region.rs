//! Regions: what a range of an address space is.

use crate::files::{FileId, Files};
use crate::table::NoMemory;
use abi::PAGE;
use abi::proto::vm::Prot;
use alloc::vec::Vec;
use rt::charge::{Account, Charge, Limits, Payer};

bitflags::bitflags! {
    /// What a region does besides holding pages.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Flags: u16 {
        /// Writes are seen by all who map the same pages.
        const SHARED = 1;
        /// Grows downwards on faults below it.
        const STACK = 2;
        /// The heap that `brk` moves.
        const HEAP = 4;
        /// `mprotect` may make it writable.
        const MAY_WRITE = 8;
        /// Not inherited by `fork` (MADV_DONTFORK).
        const NO_FORK = 16;
        /// Empty after `fork` (MADV_WIPEONFORK).
        const WIPE_ON_FORK = 32;
        /// Never executable: the file is on a mount without programs (MS_NOEXEC).
        const NO_EXEC = 64;
        /// What exec made for a program's variables.
        const DATA = 128;
        /// Counts as locked (mlock(2)): nothing is ever paged out but clean file pages.
        const LOCKED = 256;
        /// Locked, and all of it is to be present (not MLOCK_ONFAULT).
        const FILLED = 1024;
        /// A file system's cache ([`crate::caches`]).
        const CACHE = 512;
    }
}

/// Where pages come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backing {
    /// Zeroed memory.
    Anonymous,
    /// A file (or shared anonymous memory) from `offset` on.
    File {
        /// The file.
        file: FileId,
        /// Offset of the region's first page.
        offset: u64,
    },
    /// Physical memory from `base` on, uncached.
    Physical {
        /// Physical address of the region's first page.
        base: u64,
    },
}

/// A range with one kind of memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Region {
    /// First byte.
    pub start: u64,
    /// One past the last.
    pub end: u64,
    /// Access.
    pub prot: Prot,
    /// See [`Flags`].
    pub flags: Flags,
    /// Where pages come from.
    pub backing: Backing,
    /// Bytes at the end of the last page that read as zero although the file has more.
    pub clear_end: u16,
}

impl Region {
    /// Private anonymous memory.
    pub const fn anonymous(start: u64, end: u64, prot: Prot, flags: Flags) -> Region {
        Region {
            start,
            end,
            prot,
            flags: flags.union(Flags::MAY_WRITE),
            backing: Backing::Anonymous,
            clear_end: 0,
        }
    }

    /// Its length in bytes.
    pub const fn len(&self) -> u64 {
        self.end - self.start
    }

    /// Whether it is empty; no region in a list is.
    pub const fn is_empty(&self) -> bool {
        self.start >= self.end
    }

    /// The file, if it maps one.
    pub const fn file(&self) -> Option<FileId> {
        match self.backing {
            Backing::File { file, .. } => Some(file),
            _ => None,
        }
    }

    /// The file offset of `address`, which lies in this file region.
    pub const fn offset_of(&self, address: u64) -> u64 {
        match self.backing {
            Backing::File { offset, .. } => offset + (address - self.start),
            _ => 0,
        }
    }

    /// Whether pages are private: a write makes a copy.
    pub const fn private(&self) -> bool {
        !self.flags.contains(Flags::SHARED)
    }

    /// The part of it in `[start, end)`, which lies inside.
    pub fn part(&self, start: u64, end: u64) -> Region {
        let skipped = start - self.start;
        let backing = match self.backing {
            Backing::Anonymous => Backing::Anonymous,
            Backing::File { file, offset } => Backing::File {
                file,
                offset: offset + skipped,
            },
            Backing::Physical { base } => Backing::Physical {
                base: base + skipped,
            },
        };
        Region {
            start,
            end,
            backing,
            clear_end: if end == self.end { self.clear_end } else { 0 },
            ..*self
        }
    }

    /// Whether `next` continues it, so that both can be one.
    fn continues(&self, next: &Region) -> bool {
        self.end == next.start
            && self.prot == next.prot
            && self.flags == next.flags
            && self.clear_end == 0
            && match (self.backing, next.backing) {
                (Backing::Anonymous, Backing::Anonymous) => true,
                (Backing::File { file, offset }, Backing::File { file: f, offset: o }) => {
                    file == f && offset + self.len() == o
                }
                (Backing::Physical { base }, Backing::Physical { base: b }) => {
                    base + self.len() == b
                }
                _ => false,
            }
    }
}

/// The most regions of a space at first (Linux's default `max_map_count`).
pub const REGIONS_MAX: usize = 65530;

/// Regions that every space may have however many others have: programs start, and root can do
/// what it must.
pub const REGIONS_SURE: usize = 256;

/// Regions of all spaces that a machine with `memory` bytes may have, beyond [`REGIONS_SURE`] of
/// each: they are on VM's heap, of which they may take a sixteenth of memory.
pub fn regions_of_machine(memory: u64) -> Limits {
    let machine = (memory / 16 / size_of::<Region>() as u64).max(REGIONS_SURE as u64);
    // VM knows no users; what is sure to every space is the others' share.
    Limits {
        machine,
        reserve: 0,
        user: u64::MAX,
    }
}

/// Everybody.
const PAYER: Payer = Payer {
    user: 0,
    privileged: false,
};

/// Kept free below a stack, so that overrunning it faults (Linux's stack guard gap).
pub const STACK_GAP: u64 = 256 * PAGE;

/// The regions of a space, in order, without overlap.
#[derive(Default)]
pub struct Regions {
    list: Vec<Region>,
    /// For those beyond [`REGIONS_SURE`]; none where nobody counts.
    charge: Option<Charge>,
}

impl Regions {
    /// In address order.
    pub fn as_slice(&self) -> &[Region] {
        &self.list
    }

    /// Index of the first region that ends after `address`.
    #[inline]
    pub fn first_after(&self, address: u64) -> usize {
        self.list.partition_point(|r| r.end <= address)
    }

    /// The region that contains `address`.
    #[inline]
    pub fn at(&self, address: u64) -> Option<&Region> {
        self.list
            .get(self.first_after(address))
            .filter(|r| r.start <= address)
    }

    /// The regions that touch `[start, end)`.
    pub fn overlapping(&self, start: u64, end: u64) -> &[Region] {
        let first = self.first_after(start);
        let count = self.list[first..].partition_point(|r| r.start < end);
        &self.list[first..first + count]
    }

    /// Whether `[start, end)` is mapped without a hole.
    pub fn covers(&self, start: u64, end: u64) -> bool {
        let mut at = start;
        for region in self.overlapping(start, end) {
            if region.start > at {
                return false;
            }
            at = region.end;
        }
        at >= end
    }

    /// No regions, to be charged to `account`.
    pub fn new(account: &Account) -> Regions {
        Regions {
            list: Vec::new(),
            charge: account.charge(PAYER, 0),
        }
    }

    /// Makes room for `more` regions, of which there may be `most`. What is made room for is
    /// charged, whatever becomes of it, until the next time.
    pub fn reserve(&mut self, more: usize, most: usize) -> Result<(), NoMemory> {
        let count = self.list.len() + more;
        if count > most {
            return Err(NoMemory);
        }
        let beyond = count.saturating_sub(REGIONS_SURE) as u64;
        if let Some(charge) = &mut self.charge
            && charge.amount() != beyond
            && !charge.resize(PAYER, beyond)
        {
            return Err(NoMemory);
        }
        self.list.try_reserve(more).map_err(|_| NoMemory)
    }

    /// Makes room for two more regions: what a split at both ends needs.
    pub fn room(&mut self, most: usize) -> Result<(), NoMemory> {
        self.reserve(2, most)
    }

    /// Adds a region where nothing is.
    pub fn insert(&mut self, region: Region, files: &mut Files) {
        debug_assert!(self.overlapping(region.start, region.end).is_empty());
        let at = self.first_after(region.start);
        if let Some(file) = region.file() {
            files.add(file);
        }
        self.list.insert(at, region);
        self.merge_at(at, files);
    }

    /// Joins the region at `index` with its neighbours where they continue each other.
    fn merge_at(&mut self, index: usize, files: &mut Files) {
        let mut index = index;
        if index > 0 && self.join(index - 1, files) {
            index -= 1;
        }
        self.join(index, files);
    }

    /// Joins the region at `index` with the one after it.
    fn join(&mut self, index: usize, files: &mut Files) -> bool {
        let (Some(&region), Some(&next)) = (self.list.get(index), self.list.get(index + 1)) else {
            return false;
        };
        if !region.continues(&next) {
            return false;
        }
        self.list[index].end = next.end;
        self.list[index].clear_end = next.clear_end;
        self.list.remove(index + 1);
        if let Some(file) = region.file() {
            files.remove(file);
        }
        true
    }

    /// Splits the region that has `address` in its middle.
    fn split(&mut self, address: u64, files: &mut Files) {
        let at = self.first_after(address);
        let Some(&region) = self.list.get(at) else {
            return;
        };
        if region.start >= address {
            return;
        }
        if let Some(file) = region.file() {
            files.add(file);
        }
        self.list[at] = region.part(region.start, address);
        self.list.insert(at + 1, region.part(address, region.end));
    }

    /// Removes `[start, end)`; the caller has removed the pages.
    pub fn remove(&mut self, start: u64, end: u64, files: &mut Files) {
        if self.overlapping(start, end).is_empty() {
            return;
        }
        self.split(start, files);
        self.split(end, files);
        let first = self.first_after(start);
        let count = self.overlapping(start, end).len();
        for region in self.list.drain(first..first + count) {
            if let Some(file) = region.file() {
                files.remove(file);
            }
        }
    }

    /// Changes the regions in `[start, end)`, splitting at its ends and joining afterwards.
    pub fn change(
        &mut self,
        start: u64,
        end: u64,
        files: &mut Files,
        mut f: impl FnMut(&mut Region),
    ) {
        self.split(start, files);
        self.split(end, files);
        let first = self.first_after(start);
        let count = self.overlapping(start, end).len();
        for region in &mut self.list[first..first + count] {
            f(region);
        }
        // From the back, so that the indices in front stay right.
        for index in (first.saturating_sub(1)..first + count).rev() {
            self.join(index, files);
        }
    }

    /// Moves the start of the stack region that starts at `from` down to `to`.
    pub fn grow_down(&mut self, from: u64, to: u64) {
        let at = self.first_after(from);
        if let Some(region) = self.list.get_mut(at).filter(|r| r.start == from) {
            region.start = to;
        }
    }

    /// The end of the region below `address`, or 0.
    pub fn end_below(&self, address: u64) -> u64 {
        match self.list.partition_point(|r| r.start < address) {
            0 => 0,
            n => self.list[n - 1].end,
        }
    }

    /// The highest free range of `len` bytes in `[bottom, top)`.
    pub fn find_gap(&self, len: u64, bottom: u64, top: u64) -> Option<u64> {
        let mut ceiling = top;
        let count = self.list.partition_point(|r| r.start < top);
        // A stack just above the range wants its gap as well.
        if let Some(next) = self.list.get(count) {
            ceiling = ceiling.min(floor_of(next));
        }
        for region in self.list[..count].iter().rev() {
            if region.end < bottom {
                break;
            }
            if ceiling >= region.end && ceiling - region.end >= len && ceiling - len >= bottom {
                return Some(ceiling - len);
            }
            ceiling = ceiling.min(floor_of(region));
        }
        let floor = bottom.max(self.end_below(ceiling));
        (ceiling >= floor && ceiling - floor >= len).then(|| ceiling - len)
    }

    /// Whether `[start, end)` is free, with the gap of a stack above.
    pub fn is_free(&self, start: u64, end: u64) -> bool {
        match self.list.get(self.first_after(start)) {
            Some(next) => floor_of(next) >= end,
            None => true,
        }
    }

    /// Removes everything.
    pub fn clear(&mut self, files: &mut Files) {
        for region in self.list.drain(..) {
            if let Some(file) = region.file() {
                files.remove(file);
            }
        }
        self.list = Vec::new();
    }
}

/// Where mappings below this region must end.
fn floor_of(region: &Region) -> u64 {
    if region.flags.contains(Flags::STACK) {
        region.start.saturating_sub(STACK_GAP)
    } else {
        region.start
    }
}
