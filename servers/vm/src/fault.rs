//! What an access to an address needs: the decision behind page faults, the kernel's memory
//! requests and VFS's, one page at a time.

use crate::cache::Key;
use crate::files::FileId;
use crate::lab;
use crate::pool::Pool;
use crate::region::{Backing, Flags, Region};
use crate::space::Space;
use crate::table::{self, Cursor, NoMemory};
use crate::window::Frame;
use abi::proto::vm::Prot;
use abi::trace::Restored;
use abi::{Errno, PAGE, PAGE_SIZE};

/// How memory is accessed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Data read.
    Read,
    /// Data write.
    Write,
    /// Instruction fetch.
    Execute,
    /// The most that the mapping allows, so that no later access faults: a page of one's own where it is
    /// private and writable, else the page as it is. What mlock(2) and MAP_POPULATE do.
    Fill,
}

/// Why an access cannot be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// Nothing is mapped there.
    NoRegion,
    /// It is, without this access.
    Forbidden,
    /// No memory.
    NoMemory,
    /// The file's page could not be read or does not exist.
    Unreadable(Errno),
}

/// The state of an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// It will succeed now.
    Ready,
    /// It needs this page in the cache.
    Ask(Key),
    /// The laboratory took the page away, which is to be completed first.
    Evicted,
    /// The laboratory took the frame away and will bring it: to be tried again.
    Later,
    /// It fails.
    Fail(Trouble),
}

impl From<NoMemory> for Trouble {
    fn from(_: NoMemory) -> Trouble {
        Trouble::NoMemory
    }
}

/// Pages around a fault in a file that are mapped along when they are cached.
const AROUND: u64 = 16 * PAGE;

/// The most pages of anonymous memory that are filled ahead of a fault.
const AHEAD: u64 = 16;
/// A program's variables and heap are filled in aligned blocks of this size: they are used
/// densely, and a fault costs more than some pages that are not needed.
const BLOCK: u64 = 4 * PAGE;

impl Region {
    /// The access that is meant.
    fn meant(&self, access: Access) -> Access {
        match access {
            Access::Fill if self.private() && self.prot.contains(Prot::WRITE) => Access::Write,
            Access::Fill => Access::Read,
            access => access,
        }
    }

    /// Whether `access` is allowed. As on the processor, any access includes reading.
    fn allows(&self, access: Access) -> bool {
        match access {
            Access::Read | Access::Fill => !self.prot.is_empty(),
            Access::Write => self.prot.contains(Prot::WRITE),
            Access::Execute => self.prot.contains(Prot::EXEC),
        }
    }
}

impl Space {
    /// Makes the page of `address` usable for `access`, as far as that goes without asking.
    pub fn access(&mut self, pool: &mut Pool, address: u64, access: Access) -> Step {
        match self.try_access(pool, address, access) {
            Ok(step) => step,
            Err(trouble) => Step::Fail(trouble),
        }
    }

    fn try_access(
        &mut self,
        pool: &mut Pool,
        address: u64,
        access: Access,
    ) -> Result<Step, Trouble> {
        let page = abi::page_down(address);
        let grows = access != Access::Fill;
        if self.regions.at(page).is_none() && !(grows && self.grow_stack(page)) {
            return Err(Trouble::NoRegion);
        }
        let region = *self.regions.at(page).ok_or(Trouble::NoRegion)?;
        if !region.allows(access) {
            return Err(Trouble::Forbidden);
        }
        self.bring(pool, region, page, region.meant(access))
    }

    /// [`Space::access`] of a page of `region`, which allows it.
    pub(crate) fn bring(
        &mut self,
        pool: &mut Pool,
        region: Region,
        page: u64,
        access: Access,
    ) -> Result<Step, Trouble> {
        let entry = table::get(pool.frames, self.top, page);
        if entry != 0 {
            if lab::evicted(entry) {
                return Ok(Step::Evicted);
            }
            let frame = table::frame(entry);
            if pool.lab.withdrawn(frame) {
                match pool.lab.restore(frame) {
                    Restored::There => {}
                    Restored::Away => return Err(Trouble::Unreadable(Errno::EIO)),
                    Restored::Later => return Ok(Step::Later),
                }
            }
            self.access_mapped(pool, &region, page, entry, access)?;
            return Ok(Step::Ready);
        }
        match region.backing {
            Backing::Anonymous => {
                let frame = pool.take_zeroed()?;
                self.enter(pool, page, frame, table::entry(frame, region.prot, true))?;
                self.fill_ahead(pool, &region, page);
            }
            Backing::Physical { base } => {
                let frame = Frame::at(base + (page - region.start));
                pool.make_room()?;
                let entry =
                    table::entry(frame, region.prot, true) | table::UNCACHED | table::FOREIGN;
                Cursor::new(self.top).set(pool.frames, page, entry)?;
            }
            Backing::File { file, .. } => {
                return self.access_file(pool, &region, file, page, access);
            }
        }
        Ok(Step::Ready)
    }

    /// Enters a frame whose reference goes into the entry.
    fn enter(&self, pool: &mut Pool, page: u64, frame: Frame, entry: u64) -> Result<(), NoMemory> {
        let done = pool
            .make_room()
            .and_then(|()| Cursor::new(self.top).set(pool.frames, page, entry));
        if done.is_err() {
            pool.frames.release(frame);
        }
        done
    }

    /// Zeroes the pages of a heap's block around `page`, and pages ahead of it in the direction in
    /// which the region is being used, as many as are in use behind it, so that no more than
    /// half of those is ever wasted. Best effort.
    fn fill_ahead(&self, pool: &mut Pool, region: &Region, page: u64) {
        let frames = pool.frames;
        let Some(leaf) = table::leaf(frames, self.top, page) else {
            return;
        };
        // Within the leaf table and the region.
        let span = page & !(table::LEAF_SPAN - 1);
        let low = region.start.max(span);
        let high = region.end.min(span + table::LEAF_SPAN);
        let used = |at: u64| {
            let inside = (low..high).contains(&at);
            inside.then(|| table::get_in(frames, leaf, at) != 0)
        };
        // Whether one may go on after `at`.
        let mut fill = |at: u64| {
            // Never at the expense of what others may need.
            let plenty = frames.free() > frames.total() / 8;
            if !plenty || used(at) != Some(false) {
                return false;
            }
            let Ok(frame) = pool.take_zeroed() else {
                return false;
            };
            table::set_in(frames, leaf, at, table::entry(frame, region.prot, true));
            true
        };
        let at = |n: u64, down: bool| match down {
            true => page.wrapping_sub(n * PAGE),
            false => page + n * PAGE,
        };
        let behind = [false, true].map(|down| {
            let taken = (1..=AHEAD).take_while(|&n| used(at(n, down)) == Some(true));
            taken.count() as u64
        });
        for (down, behind) in [(true, behind[0]), (false, behind[1])] {
            let _ = (1..=behind).all(|n| fill(at(n, down)));
        }
        if region.flags.intersects(Flags::HEAP | Flags::DATA) {
            let block = page & !(BLOCK - 1);
            for at in (block..block + BLOCK).step_by(PAGE as usize) {
                fill(at);
            }
        }
    }

    /// Copies ahead of `page`, a file's page that was copied because it is written: as many
    /// pages as the space has copies of behind it, this one included.
    fn own_ahead(&self, pool: &mut Pool, region: &Region, page: u64) {
        let frames = pool.frames;
        let behind = (1..AHEAD)
            .map_while(|n| page.checked_sub(n * PAGE).filter(|&at| at >= region.start))
            .take_while(|&at| table::get(frames, self.top, at) & table::WRITE != 0);
        let count = behind.count() as u64 + 1;
        let to = region.end.min(page + PAGE + count * PAGE);
        self.own(pool, region, page + PAGE, to);
    }

    /// Gives the space copies of its own of the cached pages of `[from, to)`, a part of a
    /// private region that is likely to be written: each saves a fault. Best effort.
    pub fn own(&self, pool: &mut Pool, region: &Region, from: u64, to: u64) {
        let Some(file) = region.file().filter(|_| region.private()) else {
            return;
        };
        let frames = pool.frames;
        let mut cursor = Cursor::new(self.top);
        for page in (from..to).step_by(PAGE as usize) {
            // Never at the expense of what others may need.
            if frames.free() <= frames.total() / 8 || pool.make_room().is_err() {
                return;
            }
            let Ok(old) = cursor.get(frames, page) else {
                return;
            };
            let key = Key {
                file,
                offset: region.offset_of(page),
            };
            let taken = old != 0 && (lab::evicted(old) || frames.tag(table::frame(old)) == 0);
            let Some(cached) = pool.cache.get(key).filter(|_| !taken) else {
                continue;
            };
            let Ok(copy) = pool.take_copy(cached) else {
                return;
            };
            if page + PAGE == region.end && region.clear_end > 0 {
                let from = PAGE_SIZE - (region.clear_end as usize).min(PAGE_SIZE);
                pool.window().zero_tail(copy, from);
            }
            let entry = table::entry(copy, region.prot, true);
            if cursor.set(frames, page, entry).is_err() {
                frames.release(copy);
                return;
            }
            if old != 0 {
                frames.release(table::frame(old));
            }
        }
    }

    /// Makes the pages around `page` writable of which this space is the only user: what a
    /// fork protected and nobody shares any more.
    fn unshare_around(&self, pool: &Pool, region: &Region, page: u64) {
        let frames = pool.frames;
        let from = (page & !(AROUND - 1)).max(region.start);
        let to = ((page & !(AROUND - 1)) + AROUND).min(region.end);
        let Some(leaf) = table::leaf(frames, self.top, page) else {
            return;
        };
        for at in (from..to).step_by(PAGE as usize) {
            let entry = table::get_in(frames, leaf, at);
            if entry == 0 || entry & (table::WRITE | table::FOREIGN) != 0 {
                continue;
            }
            let frame = table::frame(entry);
            if frames.refs(frame) == 1 && frames.tag(frame) == 0 {
                table::set_in(frames, leaf, at, entry | table::WRITE | table::DIRTY);
            }
        }
    }

    /// A page is there: it may have to become writable.
    fn access_mapped(
        &mut self,
        pool: &mut Pool,
        region: &Region,
        page: u64,
        entry: u64,
        access: Access,
    ) -> Result<(), Trouble> {
        if access != Access::Write || entry & table::WRITE != 0 {
            return Ok(());
        }
        let frame = table::frame(entry);
        let frames = pool.frames;
        let mut cursor = Cursor::new(self.top);
        if !region.private() {
            cursor.set(frames, page, entry | table::WRITE | table::DIRTY)?;
            return Ok(());
        }
        if frames.refs(frame) > 1 || frames.tag(frame) != 0 {
            let cached = frames.tag(frame) != 0;
            let copy = pool.take_copy(frame)?;
            cursor.set(frames, page, table::entry(copy, region.prot, true))?;
            frames.release(frame);
            if cached {
                self.own_ahead(pool, region, page);
                return Ok(());
            }
        }
        self.unshare_around(pool, region, page);
        Ok(())
    }

    /// A page of a file is missing.
    fn access_file(
        &mut self,
        pool: &mut Pool,
        region: &Region,
        file: FileId,
        page: u64,
        access: Access,
    ) -> Result<Step, Trouble> {
        let key = Key {
            file,
            offset: region.offset_of(page),
        };
        let cached = match pool.cache.get(key) {
            Some(frame) => frame,
            None if file.is_memory() => {
                let frame = pool.take_zeroed()?;
                let inserted = pool.cache_insert(key, frame);
                // The cache's reference is the one that stays.
                pool.frames.release(frame);
                inserted?;
                frame
            }
            None => return Ok(Step::Ask(key)),
        };
        let tail = page + PAGE == region.end && region.clear_end > 0;
        if region.private() && (tail || access == Access::Write) {
            let copy = pool.take_copy(cached)?;
            if tail {
                let from = PAGE_SIZE - (region.clear_end as usize).min(PAGE_SIZE);
                pool.window().zero_tail(copy, from);
            }
            self.enter(pool, page, copy, table::entry(copy, region.prot, true))?;
        } else {
            let write = !region.private() && (file.is_memory() || access == Access::Write);
            pool.frames.share(cached);
            self.enter(pool, page, cached, table::entry(cached, region.prot, write))?;
        }
        let from = (page & !(AROUND - 1)).max(region.start);
        let to = ((page & !(AROUND - 1)) + AROUND).min(region.end);
        self.enter_cached(pool, region, file, from, to);
        Ok(Step::Ready)
    }

    /// Whether `access` to all of `[start, end)` is allowed by the regions there.
    pub fn allows(&self, start: u64, end: u64, access: Access) -> bool {
        self.regions.covers(start, end)
            && self
                .regions
                .overlapping(start, end)
                .iter()
                .all(|r| r.allows(access))
    }
}
