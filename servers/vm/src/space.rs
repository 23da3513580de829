//! One address space: its regions and its page table.

use crate::files::FileId;
use crate::pool::Pool;
use crate::region::{Backing, Flags, Region, Regions};
use crate::table::{self, Cursor, FOREIGN, NoMemory, OWNER, PRESENT};
use crate::window::Frame;
use abi::kernel::USER_END;
use abi::proto::vm::Prot;
use abi::{Errno, PAGE};

/// The lowest address that programs may map (Linux's `mmap_min_addr`).
pub const USER_START: u64 = 64 << 10;

/// Where mappings end in a space that no exec has laid out.
const DEFAULT_MMAP_TOP: u64 = USER_END - (1 << 30);

/// Cached pages that a new file mapping gets at once.
const PRE_ENTER: u64 = 1024 * PAGE;

/// Resource limits that VM enforces, bytes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// RLIMIT_STACK.
    pub stack: u64,
    /// RLIMIT_DATA.
    pub data: u64,
    /// RLIMIT_AS.
    pub address_space: u64,
    /// RLIMIT_MEMLOCK.
    pub locked: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            stack: 8 << 20,
            data: u64::MAX,
            address_space: u64::MAX,
            locked: u64::MAX,
        }
    }
}

/// Where MAP_32BIT maps: behind what programs of fixed addresses have.
const LOW_START: u64 = 0x4000_0000;
const LOW_END: u64 = 0x8000_0000;

/// An address space. [`Space::destroy`] it; dropping it alone leaks its frames.
pub struct Space {
    /// The top-level table.
    pub top: Frame,
    /// What is mapped.
    pub regions: Regions,
    /// Where the heap starts; 0 before it is set.
    pub break_start: u64,
    /// Where it ends.
    pub break_end: u64,
    /// See [`Limits`].
    pub limits: Limits,
    /// What is mapped from now on is locked, or locked and filled (MCL_FUTURE).
    pub lock_future: Flags,
    /// Processes that use this space.
    pub users: u32,
    /// Mappings go below this address; 0 where no exec has set it.
    mmap_top: u64,
    /// No gap above this address is expected to be large enough.
    hint: u64,
}

impl From<NoMemory> for Errno {
    fn from(_: NoMemory) -> Errno {
        Errno::ENOMEM
    }
}

/// Checks an aligned, nonempty range inside `[0, USER_END)`.
pub fn check_range(start: u64, len: u64) -> Result<u64, Errno> {
    if !start.is_multiple_of(PAGE) || len == 0 {
        return Err(Errno::EINVAL);
    }
    let len = abi::page_up(len).ok_or(Errno::ENOMEM)?;
    match start.checked_add(len) {
        Some(end) if end <= USER_END => Ok(end),
        _ => Err(Errno::ENOMEM),
    }
}

impl Space {
    /// An empty space.
    pub fn new(pool: &mut Pool, limits: Limits) -> Result<Space, NoMemory> {
        pool.make_room()?;
        Ok(Space {
            top: table::create(pool.frames)?,
            regions: Regions::new(&pool.regions),
            break_start: 0,
            break_end: 0,
            limits,
            lock_future: Flags::empty(),
            users: 1,
            mmap_top: 0,
            hint: 0,
        })
    }

    /// Frees everything, tables included.
    pub fn destroy(mut self, pool: &mut Pool) {
        self.clear(pool);
        pool.frames.release(self.top);
    }

    /// Frees everything but the top-level table.
    pub fn clear(&mut self, pool: &mut Pool) {
        self.drop_pages(pool, 0, USER_END);
        self.regions.clear(&mut pool.files);
        (self.break_start, self.break_end) = (0, 0);
        (self.mmap_top, self.hint) = (0, 0);
    }

    /// Gives back the pages of a range; the regions stay.
    pub fn drop_pages(&mut self, pool: &mut Pool, start: u64, end: u64) {
        let frames = pool.frames;
        table::for_each(frames, self.top, start, end, |_, entry| {
            pool.note_written(entry);
            if entry & FOREIGN == 0 {
                frames.release(table::frame(entry));
            }
            0
        });
    }

    /// Notes the file pages that shared mappings in a range have changed since last asked. The
    /// processor notes the next change again: it has forgotten the translation by the time
    /// that the process runs.
    pub fn collect_written(&self, pool: &mut Pool, start: u64, end: u64) {
        table::for_each(pool.frames, self.top, start, end, |_, entry| {
            let before = pool.written.len();
            pool.note_written(entry);
            if pool.written.len() > before {
                entry & !table::DIRTY
            } else {
                entry
            }
        });
    }

    /// Where the search for free addresses starts, downwards.
    fn mmap_top(&self) -> u64 {
        if self.mmap_top == 0 {
            DEFAULT_MMAP_TOP
        } else {
            self.mmap_top
        }
    }

    /// A free range of `len` bytes, near `wanted` if that is not 0 and free.
    pub fn find(&mut self, wanted: u64, len: u64) -> Result<u64, Errno> {
        let wanted = abi::page_down(wanted);
        if wanted >= USER_START
            && let Ok(end) = check_range(wanted, len)
            && self.regions.is_free(wanted, end)
        {
            return Ok(wanted);
        }
        let top = self.mmap_top();
        if self.hint == 0 || self.hint > top {
            self.hint = top;
        }
        let found = match self.regions.find_gap(len, USER_START, self.hint) {
            Some(found) => found,
            None => self
                .regions
                .find_gap(len, USER_START, top)
                .or_else(|| self.regions.find_gap(len, USER_START, USER_END))
                .ok_or(Errno::ENOMEM)?,
        };
        if found < self.hint {
            self.hint = found;
        }
        Ok(found)
    }

    /// A free range of `len` bytes below 2 GiB (MAP_32BIT), at `wanted` if that is not 0 and free.
    pub fn find_low(&self, wanted: u64, len: u64) -> Result<u64, Errno> {
        let wanted = abi::page_down(wanted);
        if wanted >= USER_START
            && let Some(end) = wanted.checked_add(len).filter(|&end| end <= LOW_END)
            && self.regions.is_free(wanted, end)
        {
            return Ok(wanted);
        }
        self.regions
            .find_gap(len, LOW_START, LOW_END)
            .ok_or(Errno::ENOMEM)
    }

    /// Adds a region over what is there, and enters the pages that the cache has.
    pub fn map(&mut self, pool: &mut Pool, region: Region) -> Result<(), Errno> {
        self.regions.room(pool.map_max)?;
        let mut region = region;
        region.flags |= self.lock_future;
        if region.flags.contains(Flags::LOCKED) {
            self.room_to_lock(region.len())?;
        }
        self.check_limits(&region)?;
        self.unmap(pool, region.start, region.end)?;
        self.regions.insert(region, &mut pool.files);
        if let Backing::File { file, .. } = region.backing
            && !region.prot.is_empty()
        {
            let end = region.end.min(region.start.saturating_add(PRE_ENTER));
            self.enter_cached(pool, &region, file, region.start, end);
        }
        Ok(())
    }

    fn check_limits(&self, region: &Region) -> Result<(), Errno> {
        let limits = &self.limits;
        if limits.address_space != u64::MAX
            && self.size().saturating_add(region.len()) > limits.address_space
        {
            return Err(Errno::ENOMEM);
        }
        let data = |r: &Region| {
            r.private() && r.prot.contains(Prot::WRITE) && !r.flags.contains(Flags::STACK)
        };
        if limits.data != u64::MAX && data(region) {
            let used: u64 = self
                .regions
                .as_slice()
                .iter()
                .filter(|r| data(r))
                .map(Region::len)
                .sum();
            if used.saturating_add(region.len()) > limits.data {
                return Err(Errno::ENOMEM);
            }
        }
        Ok(())
    }

    /// Maps the pages of `[from, to)`, a part of `region`, that are cached and not yet
    /// mapped. Best effort.
    pub fn enter_cached(&self, pool: &mut Pool, region: &Region, file: FileId, from: u64, to: u64) {
        let frames = pool.frames;
        // A tail that must read as zero is a copy, made when it is needed.
        let to = match region.clear_end {
            0 => to,
            _ => to.min(region.end - PAGE),
        };
        if from >= to || pool.make_room().is_err() {
            return;
        }
        let mut cursor = Cursor::new(self.top);
        let first = region.offset_of(from);
        let write = !region.private() && file.is_memory();
        for (offset, frame) in pool.cache.range(file, first, first + (to - from)) {
            let address = from + (offset - first);
            let Ok(table) = cursor.table(frames, address) else {
                return;
            };
            if table::get_in(frames, table, address) == 0 {
                frames.share(frame);
                let entry = table::entry(frame, region.prot, write);
                table::set_in(frames, table, address, entry);
            }
        }
    }

    /// Removes what is mapped in a range.
    pub fn unmap(&mut self, pool: &mut Pool, start: u64, end: u64) -> Result<(), Errno> {
        if self.regions.overlapping(start, end).is_empty() {
            return Ok(());
        }
        // Only a hole in a region's middle needs another one.
        if let [region] = self.regions.overlapping(start, end)
            && region.start < start
            && region.end > end
        {
            self.regions.room(pool.map_max)?;
        }
        self.drop_pages(pool, start, end);
        self.regions.remove(start, end, &mut pool.files);
        self.hint = self.hint.max(end.min(self.mmap_top()));
        Ok(())
    }

    /// Populates a range of an anonymous region; `zero` when contents matter. On failure the
    /// caller unmaps it.
    pub fn populate(
        &mut self,
        pool: &mut Pool,
        start: u64,
        end: u64,
        zero: bool,
    ) -> Result<(), NoMemory> {
        let Some(&region) = self.regions.at(start) else {
            return Ok(());
        };
        let frames = pool.frames;
        let mut cursor = Cursor::new(self.top);
        for address in (start..end.min(region.end)).step_by(PAGE as usize) {
            pool.make_room()?;
            if cursor.get(frames, address)? != 0 {
                continue;
            }
            let frame = if zero {
                pool.take_zeroed()
            } else {
                pool.take()
            }?;
            cursor.set(frames, address, table::entry(frame, region.prot, true))?;
        }
        Ok(())
    }

    /// Enters `count` frames in a row at `start`; each brings its reference along.
    pub fn enter_run(
        &mut self,
        pool: &mut Pool,
        start: u64,
        first: Frame,
        count: u32,
        prot: Prot,
    ) -> Result<(), NoMemory> {
        let frames = pool.frames;
        let mut cursor = Cursor::new(self.top);
        for n in 0..count {
            let entry = table::entry(Frame(first.0 + n), prot, true);
            let done = pool
                .make_room()
                .and_then(|()| cursor.set(frames, start + n as u64 * PAGE, entry));
            if done.is_err() {
                // What was entered goes with the region, the rest here.
                (n..count).for_each(|n| frames.release(Frame(first.0 + n)));
                return Err(NoMemory);
            }
        }
        Ok(())
    }

    /// Changes the access of a range. Like Linux: `ENOMEM` at the first hole, after changing
    /// what lies before it; `EACCES` where writing or executing can never be
    /// allowed.
    pub fn protect(
        &mut self,
        pool: &mut Pool,
        start: u64,
        end: u64,
        prot: Prot,
    ) -> Result<(), Errno> {
        let mut mapped = start;
        for region in self.regions.overlapping(start, end) {
            if region.start > mapped {
                break;
            }
            let flags = region.flags;
            if prot.contains(Prot::WRITE) && !flags.contains(Flags::MAY_WRITE)
                || prot.contains(Prot::EXEC) && flags.contains(Flags::NO_EXEC)
            {
                return Err(Errno::EACCES);
            }
            mapped = region.end;
        }
        let stop = mapped.min(end);
        if stop > start {
            self.regions.room(pool.map_max)?;
            for region in self.regions.overlapping(start, stop) {
                if region.prot != prot {
                    let (from, to) = (region.start.max(start), region.end.min(stop));
                    protect_pages(pool, self.top, region, from, to, prot);
                }
            }
            self.regions
                .change(start, stop, &mut pool.files, |region| region.prot = prot);
        }
        if stop < end {
            return Err(Errno::ENOMEM);
        }
        Ok(())
    }

    /// Adds `region` and moves the pages of `[old, old_end)` to its start, in order. The
    /// old region stays, empty.
    pub fn map_moved(
        &mut self,
        pool: &mut Pool,
        region: Region,
        old: u64,
        old_end: u64,
    ) -> Result<(), Errno> {
        self.regions.room(pool.map_max)?;
        self.check_limits(&region)?;
        self.unmap(pool, region.start, region.end)?;
        self.regions.insert(region, &mut pool.files);
        let frames = pool.frames;
        // Not one walk: the target's tables hang in the same tree as the source's.
        for page in (old..old_end).step_by(PAGE as usize) {
            let entry = table::get(frames, self.top, page);
            if entry == 0 {
                continue;
            }
            let to = region.start + (page - old);
            let entered = pool
                .make_room()
                .and_then(|()| Cursor::new(self.top).set(frames, to, entry));
            if entered.is_err() {
                // Half moved: bring back what went, which needs no new table.
                for page in (old..page).step_by(PAGE as usize) {
                    let to = region.start + (page - old);
                    let entry = table::get(frames, self.top, to);
                    if entry != 0 {
                        self.move_entry(pool, to, page, entry);
                    }
                }
                self.unmap(pool, region.start, region.end)?;
                return Err(Errno::ENOMEM);
            }
            if let Some(table) = table::leaf(frames, self.top, page) {
                table::set_in(frames, table, page, 0);
            }
        }
        // Frees the tables that are empty now.
        table::for_each(frames, self.top, old, old_end, |_, entry| entry);
        Ok(())
    }

    fn move_entry(&self, pool: &Pool, from: u64, to: u64, entry: u64) {
        let frames = pool.frames;
        if let (Some(source), Some(target)) = (
            table::leaf(frames, self.top, from),
            table::leaf(frames, self.top, to),
        ) {
            table::set_in(frames, target, to, entry);
            table::set_in(frames, source, from, 0);
        }
    }

    /// The aligned words from `address`, if their pages are present.
    pub fn words<const N: usize>(&self, pool: &Pool, address: u64) -> Option<[u64; N]> {
        let mut words = [0; N];
        let mut here = None;
        for (n, word) in words.iter_mut().enumerate() {
            let address = address.checked_add(n as u64 * 8)?;
            let index = (address % PAGE / 8) as usize;
            let frame = match here.filter(|_| index != 0) {
                Some(frame) => frame,
                None => {
                    let entry = table::get(pool.frames, self.top, address);
                    let usable = address < USER_END && entry & (PRESENT | FOREIGN) == PRESENT;
                    usable.then(|| table::frame(entry))?
                }
            };
            here = Some(frame);
            *word = pool.frames.window().entry(frame, index);
        }
        Some(words)
    }

    /// Whether the page is in memory, for mincore: mapped, or in the cache.
    pub fn is_resident(&self, pool: &Pool, page: u64) -> bool {
        if table::get(pool.frames, self.top, page) != 0 {
            return true;
        }
        let Some(region) = self.regions.at(page) else {
            return false;
        };
        let offset = region.offset_of(page);
        region.file().is_some_and(|file| {
            pool.cache
                .range(file, offset, offset + PAGE)
                .next()
                .is_some()
        })
    }

    /// Bytes mapped.
    pub fn size(&self) -> u64 {
        self.regions.as_slice().iter().map(Region::len).sum()
    }

    /// Pages present, and how many of them have another user.
    pub fn resident(&self, pool: &Pool) -> (u64, u64) {
        let (mut resident, mut shared) = (0, 0);
        let frames = pool.frames;
        table::for_each(frames, self.top, 0, USER_END, |_, entry| {
            if entry & FOREIGN == 0 {
                resident += 1;
                shared += (frames.refs(table::frame(entry)) > 1) as u64;
            }
            entry
        });
        (resident, shared)
    }

    /// Sets where the heap starts and where mappings go. `EINVAL` beyond user memory.
    pub fn set_layout(&mut self, heap: u64, mmap_top: u64) -> Result<(), Errno> {
        let heap = abi::page_up(heap).ok_or(Errno::EINVAL)?;
        if heap > USER_END || mmap_top > USER_END || !mmap_top.is_multiple_of(PAGE) {
            return Err(Errno::EINVAL);
        }
        (self.break_start, self.break_end) = (heap, heap);
        (self.mmap_top, self.hint) = (mmap_top, 0);
        Ok(())
    }

    /// Has the same layout as `parent`.
    pub fn inherit_layout(&mut self, parent: &Space) {
        (self.break_start, self.break_end) = (parent.break_start, parent.break_end);
        self.mmap_top = parent.mmap_top;
    }

    /// Linux's brk: the new break, or the old one when it cannot be moved there.
    pub fn set_break(&mut self, pool: &mut Pool, wanted: u64) -> u64 {
        let current = self.break_end;
        if self.break_start == 0 || wanted < self.break_start || wanted > USER_END {
            return current;
        }
        let (Some(old), Some(new)) = (abi::page_up(current), abi::page_up(wanted)) else {
            return current;
        };
        let moved = if new > old {
            self.grow_heap(pool, old, new)
        } else if new < old {
            self.unmap(pool, new, old)
        } else {
            Ok(())
        };
        if moved.is_ok() {
            self.break_end = wanted;
        }
        self.break_end
    }

    fn grow_heap(&mut self, pool: &mut Pool, old: u64, new: u64) -> Result<(), Errno> {
        if new - self.break_start > self.limits.data || !self.regions.is_free(old, new) {
            return Err(Errno::ENOMEM);
        }
        let prot = Prot::READ.union(Prot::WRITE);
        self.map(pool, Region::anonymous(old, new, prot, Flags::HEAP))
    }

    /// Extends the stack region above `address` down to it, if it may grow that far.
    pub fn grow_stack(&mut self, address: u64) -> bool {
        let at = self.regions.first_after(address);
        let Some(&stack) = self.regions.as_slice().get(at) else {
            return false;
        };
        let start = abi::page_down(address);
        let below = self.regions.end_below(stack.start);
        if !stack.flags.contains(Flags::STACK)
            || stack.start <= address
            || stack.end - start > self.limits.stack
            || start < USER_START
            || (below != 0 && start < below.saturating_add(crate::region::STACK_GAP))
            || self.size().saturating_add(stack.start - start) > self.limits.address_space
        {
            return false;
        }
        self.regions.grow_down(stack.start, start);
        true
    }
}

/// Rewrites the entries of a part of `region` for access `prot`.
fn protect_pages(pool: &mut Pool, top: Frame, region: &Region, start: u64, end: u64, prot: Prot) {
    let frames = pool.frames;
    table::for_each(frames, top, start, end, |_, old| {
        pool.note_written(old);
        let keep = old
            & !(crate::lab::EVICTED | PRESENT | table::WRITE | table::DIRTY | table::NO_EXECUTE);
        let frame = table::frame(old);
        let write = if old & FOREIGN != 0 {
            true
        } else if region.private() {
            // Alone on the frame, so there is nobody to copy for.
            old & OWNER != 0 || (frames.refs(frame) == 1 && frames.tag(frame) == 0)
        } else {
            // Files: the first write is a fault, which notes that the page is dirty.
            region.file().is_some_and(FileId::is_memory)
        };
        keep | table::entry(frame, prot, write)
    });
}
