//! The page cache: file pages by (device, inode, offset).
//!
//! A cached page's frame carries its entry's number + 1 as its tag, and the cache holds one
//! reference. Pages that nothing else refers to are dropped when memory is short, the least
//! recently used first.
//!
//! Why so: docs/decisions/006-one-page-three-owners.md.

use crate::files::FileId;
use crate::frames::Frames;
use crate::table::NoMemory;
use crate::window::Frame;
use abi::PAGE;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// A page of a file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Key {
    /// The file.
    pub file: FileId,
    /// Offset in it, page aligned.
    pub offset: u64,
}

impl Key {
    /// None is before it.
    pub const FIRST: Key = Key {
        file: FileId { dev: 0, ino: 0 },
        offset: 0,
    };
}

const NIL: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Entry {
    key: Key,
    frame: Frame,
    newer: u32,
    older: u32,
    /// A shared mapping that is gone changed it and its file system does not know yet: the only
    /// copy of its contents.
    dirty: bool,
}

/// The cache.
pub struct Cache {
    index: BTreeMap<Key, u32>,
    entries: Vec<Entry>,
    vacant: Vec<u32>,
    newest: u32,
    oldest: u32,
}

impl Default for Cache {
    fn default() -> Self {
        Cache {
            index: BTreeMap::new(),
            entries: Vec::new(),
            vacant: Vec::new(),
            newest: NIL,
            oldest: NIL,
        }
    }
}

impl Cache {
    /// Pages in the cache.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// The page's frame, which counts as used now.
    pub fn get(&mut self, key: Key) -> Option<Frame> {
        let number = *self.index.get(&key)?;
        self.touch(number);
        Some(self.entries[number as usize].frame)
    }

    /// The page's frame, without using it.
    pub fn peek(&self, key: Key) -> Option<Frame> {
        let number = *self.index.get(&key)?;
        Some(self.entries[number as usize].frame)
    }

    /// Whether the page holds the only copy of its contents.
    pub fn is_dirty(&self, key: Key) -> bool {
        let number = self.index.get(&key);
        number.is_some_and(|&number| self.entries[number as usize].dirty)
    }

    /// The cached pages of `file` with offsets in `[from, to)`, in order.
    pub fn range(
        &self,
        file: FileId,
        from: u64,
        to: u64,
    ) -> impl DoubleEndedIterator<Item = (u64, Frame)> + '_ {
        let key = |offset| Key { file, offset };
        self.index
            .range(key(from)..key(to.max(from)))
            .map(|(key, &number)| (key.offset, self.entries[number as usize].frame))
    }

    /// The page that a frame holds.
    pub fn key_of(&self, frames: &Frames, frame: Frame) -> Option<Key> {
        let number = frames.tag(frame).checked_sub(1)?;
        Some(self.entries[number as usize].key)
    }

    /// Makes room for the notes of one more page.
    pub fn reserve(&mut self) -> Result<(), NoMemory> {
        if !self.vacant.is_empty() {
            return Ok(());
        }
        self.entries.try_reserve(1).map_err(|_| NoMemory)?;
        // A page that goes leaves its place there.
        let all = self.entries.capacity();
        let more = all.saturating_sub(self.vacant.len());
        self.vacant.try_reserve_exact(more).map_err(|_| NoMemory)
    }

    /// Puts a page in, after [`Cache::reserve`]; the cache takes a reference on the frame. A page of that name that
    /// was there before is dropped.
    pub fn insert(&mut self, frames: &Frames, key: Key, frame: Frame) {
        self.remove(frames, key);
        let entry = Entry {
            key,
            frame,
            newer: NIL,
            older: NIL,
            dirty: false,
        };
        let number = match self.vacant.pop() {
            Some(number) => {
                self.entries[number as usize] = entry;
                number
            }
            None => {
                self.entries.push(entry);
                self.entries.len() as u32 - 1
            }
        };
        frames.share(frame);
        frames.set_tag(frame, number + 1);
        self.index.insert(key, number);
        self.link(number);
    }

    /// Drops a page. Whoever maps its frame keeps it.
    pub fn remove(&mut self, frames: &Frames, key: Key) {
        if let Some(number) = self.index.remove(&key) {
            self.drop_entry(frames, number);
        }
    }

    /// Drops the pages of `file` with offsets in `[from, to)`. Who maps them keeps them:
    /// [`Server::withdraw`](crate::server::Server) leaves nobody who does.
    pub fn forget(&mut self, frames: &Frames, file: FileId, from: u64, to: u64) {
        let key = |offset| Key { file, offset };
        self.forget_range(frames, key(from), Some(key(to)));
    }

    /// Drops all pages of a device.
    pub fn forget_device(&mut self, frames: &Frames, dev: u64) {
        let first = |dev| Key {
            file: FileId { dev, ino: 0 },
            offset: 0,
        };
        self.forget_range(frames, first(dev), dev.checked_add(1).map(first));
    }

    /// Drops the pages from `from` to before `to`, if that is a limit.
    fn forget_range(&mut self, frames: &Frames, from: Key, to: Option<Key>) {
        while let Some((&key, &number)) = self.index.range(from..).next() {
            if to.is_some_and(|to| key >= to) {
                break;
            }
            self.index.remove(&key);
            self.drop_entry(frames, number);
        }
    }

    /// Notes that a mapping changed the page: it must not be dropped.
    pub fn set_dirty(&mut self, frames: &Frames, frame: Frame) {
        if let Some(number) = frames.tag(frame).checked_sub(1) {
            self.entries[number as usize].dirty = true;
        }
    }

    /// Up to `count` changed pages in order, from one on.
    pub fn dirty(&self, from: Key, count: usize) -> Vec<Key> {
        let all = self.index.range(from..);
        let dirty = all.filter(|&(_, &number)| self.entries[number as usize].dirty);
        dirty.map(|(&key, _)| key).take(count).collect()
    }

    /// The file system knows what was changed in `[from, to)`.
    pub fn set_clean(&mut self, file: FileId, from: u64, to: u64) {
        let key = |offset| Key { file, offset };
        for (_, &number) in self.index.range(key(from)..key(to.max(from))) {
            self.entries[number as usize].dirty = false;
        }
    }

    /// Frees up to `wanted` frames; returns how many it could.
    pub fn evict(&mut self, frames: &Frames, wanted: usize) -> usize {
        let mut freed = 0;
        // Pages in use are made the newest on the way, so that the next call does not look
        // at them again; every page is looked at once at most.
        for _ in 0..self.index.len() {
            let number = self.oldest;
            if freed >= wanted || number == NIL {
                break;
            }
            let entry = self.entries[number as usize];
            if frames.refs(entry.frame) > 1 || entry.dirty || entry.key.file.is_memory() {
                self.touch(number);
                continue;
            }
            self.index.remove(&entry.key);
            self.drop_entry(frames, number);
            freed += 1;
        }
        freed
    }

    fn drop_entry(&mut self, frames: &Frames, number: u32) {
        self.unlink(number);
        let frame = self.entries[number as usize].frame;
        frames.set_tag(frame, 0);
        frames.release(frame);
        self.vacant.push(number);
    }

    fn touch(&mut self, number: u32) {
        if self.newest != number {
            self.unlink(number);
            self.link(number);
        }
    }

    fn link(&mut self, number: u32) {
        let older = self.newest;
        let entry = &mut self.entries[number as usize];
        (entry.newer, entry.older) = (NIL, older);
        match older {
            NIL => self.oldest = number,
            older => self.entries[older as usize].newer = number,
        }
        self.newest = number;
    }

    fn unlink(&mut self, number: u32) {
        let Entry { newer, older, .. } = self.entries[number as usize];
        match newer {
            NIL => self.newest = older,
            newer => self.entries[newer as usize].older = older,
        }
        match older {
            NIL => self.oldest = newer,
            older => self.entries[older as usize].newer = newer,
        }
    }

    /// Checks the links between index, entries, list and frames; the reason when they are
    /// wrong.
    pub fn check(&self, frames: &Frames) -> Result<(), &'static str> {
        let mut count = 0;
        let (mut at, mut newer) = (self.newest, NIL);
        while at != NIL {
            let entry = &self.entries[at as usize];
            if entry.newer != newer || count > self.entries.len() {
                return Err("cache list is corrupt");
            }
            if self.index.get(&entry.key) != Some(&at) {
                return Err("cache entry is not in the index");
            }
            if frames.tag(entry.frame) != at + 1 || frames.refs(entry.frame) == 0 {
                return Err("cached frame does not know its entry");
            }
            if !entry.key.offset.is_multiple_of(PAGE) {
                return Err("cached page is not aligned");
            }
            count += 1;
            (newer, at) = (at, entry.older);
        }
        if self.oldest != newer || count != self.index.len() {
            return Err("cache list is incomplete");
        }
        Ok(())
    }

    /// All cached pages.
    pub fn iter(&self) -> impl Iterator<Item = (Key, Frame)> + '_ {
        self.index
            .iter()
            .map(|(&key, &number)| (key, self.entries[number as usize].frame))
    }
}
