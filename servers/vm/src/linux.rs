//! Linux's memory calls, with Linux's errors.

use crate::fault::Access;
use crate::files::FileId;
use crate::frames::Claim;
use crate::jobs::{Asked, Failed, Job, Origin, Then};
use crate::region::{Backing, Flags, Region};
use crate::server::{Server, plausible};
use crate::space::{USER_START, check_range};
use crate::table;
use abi::kernel::USER_END;
use abi::message::WORDS;
use abi::proto::vfs::{self, FoundFile};
use abi::proto::vm::Prot;
use abi::{Endpoint, Errno, Message, PAGE, PAGE_SIZE};
use linux_raw_sys::general as linux;

/// [`FoundFile::dev`] of `/dev/zero`.
const DEVICE_ZERO: u64 = u64::MAX;

/// An mmap that waits to know its file.
#[derive(Clone, Copy, Debug)]
pub struct PendingMap {
    who: Endpoint,
    map: Map,
}

/// A checked mmap.
#[derive(Clone, Copy, Debug)]
struct Map {
    addr: u64,
    len: u64,
    prot: Prot,
    flags: u32,
    offset: u64,
}

impl Map {
    const fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    const fn shared(&self) -> bool {
        self.flags & linux::MAP_TYPE != linux::MAP_PRIVATE
    }
}

/// The flags that `MAP_SHARED_VALIDATE` knows here.
const KNOWN_FLAGS: u32 = linux::MAP_TYPE
    | linux::MAP_FIXED
    | linux::MAP_ANONYMOUS
    | linux::MAP_GROWSDOWN
    | linux::MAP_DENYWRITE
    | linux::MAP_EXECUTABLE
    | linux::MAP_LOCKED
    | linux::MAP_NORESERVE
    | linux::MAP_POPULATE
    | linux::MAP_NONBLOCK
    | linux::MAP_STACK
    | linux::MAP_FIXED_NOREPLACE;

/// The arguments of a Linux call, as many as it has.
type Arguments = [u64; WORDS];

/// PROT_* to access; `EINVAL` for bits that Linux does not know.
fn protection(prot: u64) -> Result<Prot, Errno> {
    Prot::from_bits(prot).ok_or(Errno::EINVAL)
}

/// An aligned range whose length may be 0: `(start, end)`.
fn range(start: u64, len: u64, wrapped: Errno) -> Result<(u64, u64), Errno> {
    if !start.is_multiple_of(PAGE) {
        return Err(Errno::EINVAL);
    }
    let end = abi::page_up(len)
        .and_then(|len| start.checked_add(len))
        .ok_or(wrapped)?;
    Ok((start, end))
}

impl Server {
    /// A Linux call.
    pub(crate) fn handle_linux(&mut self, source: Endpoint, message: &Message) {
        let args = message.words;
        let [first, second, third, fourth, ..] = args;
        let keeps = matches!(
            message.kind as u32,
            linux::__NR_mmap
                | linux::__NR_mprotect
                | linux::__NR_pkey_mprotect
                | linux::__NR_brk
                | linux::__NR_mremap
        );
        if keeps && self.starve_call(source, message) {
            return;
        }
        let result = match message.kind as u32 {
            linux::__NR_mmap => self.linux_mmap(source, args),
            linux::__NR_munmap => self.linux_munmap(source, first, second).map(Some),
            linux::__NR_mprotect => self.linux_mprotect(source, args).map(Some),
            linux::__NR_pkey_mprotect if fourth as i32 == -1 => {
                self.linux_mprotect(source, args).map(Some)
            }
            // There are no protection keys to name.
            linux::__NR_pkey_mprotect => Err(Errno::EINVAL),
            linux::__NR_brk => self.linux_brk(source, first),
            linux::__NR_mremap => self
                .linux_mremap(source, args)
                .and_then(|at| self.fill_locked(source, (at, third), at)),
            linux::__NR_madvise => self.linux_madvise(source, args),
            linux::__NR_msync => self.linux_msync(source, args),
            linux::__NR_mincore => self.linux_mincore(source, message),
            linux::__NR_mlock => self.linux_mlock(source, (first, second), 0),
            linux::__NR_mlock2 => self.linux_mlock(source, (first, second), third),
            linux::__NR_munlock => self.linux_munlock(source, (first, second)).map(Some),
            linux::__NR_mlockall => self.linux_mlockall(source, first),
            linux::__NR_munlockall => self.linux_munlockall(source).map(Some),
            _ => Err(Errno::ENOSYS),
        };
        match result {
            Ok(Some(value)) => self.reply_status(source, Ok(value)),
            // It waits, and is answered later.
            Ok(None) => {}
            Err(errno) => self.reply_status(source, Err(errno)),
        }
    }

    fn linux_mmap(&mut self, source: Endpoint, args: Arguments) -> Result<Option<u64>, Errno> {
        let [addr, len, prot, flags, fd, offset, _] = args;
        let flags = flags as u32;
        if !offset.is_multiple_of(PAGE) || len == 0 {
            return Err(Errno::EINVAL);
        }
        let len = abi::page_up(len).ok_or(Errno::ENOMEM)?;
        let fixed = flags & (linux::MAP_FIXED | linux::MAP_FIXED_NOREPLACE) != 0;
        // As on Linux, bits of prot that mean nothing are ignored.
        let map = Map {
            addr,
            len,
            prot: Prot::from_bits_truncate(prot),
            flags,
            offset,
        };
        match flags & linux::MAP_TYPE {
            linux::MAP_SHARED | linux::MAP_PRIVATE => {}
            linux::MAP_SHARED_VALIDATE if flags & !KNOWN_FLAGS != 0 => {
                return Err(Errno::EOPNOTSUPP);
            }
            linux::MAP_SHARED_VALIDATE => {}
            _ => return Err(Errno::EINVAL),
        }
        if fixed && !addr.is_multiple_of(PAGE) || flags & linux::MAP_HUGETLB != 0 {
            return Err(Errno::EINVAL);
        }
        if len > USER_END || (fixed && addr.checked_add(len).is_none_or(|end| end > USER_END)) {
            return Err(Errno::ENOMEM);
        }
        if fixed && addr < USER_START {
            return Err(Errno::EPERM);
        }
        if map.has(linux::MAP_ANONYMOUS) {
            return self.map_zero(source, &map);
        }
        if offset.checked_add(len).is_none() {
            return Err(Errno::EOVERFLOW);
        }
        self.process(source).ok_or(Errno::ESRCH)?;
        let txn = self.new_txn();
        self.pending_maps
            .insert(txn, PendingMap { who: source, map });
        let request = vfs::FdLookup {
            who: source,
            fd: fd as i32,
        };
        self.ask_as(Endpoint::VFS, txn, request);
        Ok(None)
    }

    /// VFS tells which file an mmap means.
    pub(crate) fn fd_lookup_done(&mut self, txn: u64, found: Result<FoundFile, Errno>) {
        let Some(PendingMap { who, map }) = self.pending_maps.remove(&txn) else {
            return;
        };
        self.pool.frames.set_claim(Claim::Program);
        let result = match found {
            Err(errno) => Err(errno),
            Ok(found) if found.dev == DEVICE_ZERO => self.map_zero(who, &map),
            Ok(found) => {
                let file = FileId {
                    dev: found.dev,
                    ino: found.ino,
                };
                // Given back when the mapping does not come to be.
                self.pool.files.hold(file);
                self.map_file(who, &map, file, found.access)
            }
        };
        match result {
            Ok(None) => {}
            Ok(Some(value)) => self.reply_status(who, Ok(value)),
            Err(errno) if self.process(who).is_some() => self.reply_status(who, Err(errno)),
            Err(_) => {}
        }
    }

    fn map_file(
        &mut self,
        who: Endpoint,
        map: &Map,
        file: FileId,
        access: u64,
    ) -> Result<Option<u64>, Errno> {
        let (read, write) = (access & 1 != 0, access & 2 != 0);
        if !read || (map.shared() && map.prot.contains(Prot::WRITE) && !write) {
            let sealed = access & 8 != 0;
            return Err(if sealed { Errno::EPERM } else { Errno::EACCES });
        }
        let no_exec = access & 4 != 0;
        if no_exec && map.prot.contains(Prot::EXEC) {
            return Err(Errno::EPERM);
        }
        let mut flags = Flags::empty();
        flags.set(Flags::SHARED, map.shared());
        flags.set(Flags::MAY_WRITE, !map.shared() || write);
        flags.set(Flags::NO_EXEC, no_exec);
        let backing = Backing::File {
            file,
            offset: map.offset,
        };
        self.map_region(who, map, flags, backing)
    }

    /// Anonymous memory, private or shared.
    fn map_zero(&mut self, who: Endpoint, map: &Map) -> Result<Option<u64>, Errno> {
        let mut flags = Flags::MAY_WRITE;
        let backing = if map.shared() {
            flags |= Flags::SHARED;
            let file = self.pool.files.new_memory();
            Backing::File { file, offset: 0 }
        } else {
            flags.set(Flags::STACK, map.has(linux::MAP_GROWSDOWN));
            Backing::Anonymous
        };
        if map.prot.contains(Prot::WRITE) && !map.has(linux::MAP_NORESERVE) {
            plausible(&self.pool, map.len)?;
        }
        self.map_region(who, map, flags, backing)
    }

    fn map_region(
        &mut self,
        who: Endpoint,
        map: &Map,
        flags: Flags,
        backing: Backing,
    ) -> Result<Option<u64>, Errno> {
        let (space, pool) = self.space(who)?;
        let mut flags = flags;
        if map.has(linux::MAP_LOCKED) {
            space.may_lock()?;
            flags |= Flags::LOCKED | Flags::FILLED;
        }
        let start = if map.has(linux::MAP_FIXED_NOREPLACE) {
            let end = map.addr + map.len;
            if !space.regions.overlapping(map.addr, end).is_empty() {
                return Err(Errno::EEXIST);
            }
            map.addr
        } else if map.has(linux::MAP_FIXED) {
            map.addr
        } else {
            match map.has(linux::MAP_32BIT) {
                true => space.find_low(map.addr, map.len)?,
                false => space.find(map.addr, map.len)?,
            }
        };
        let region = Region {
            start,
            end: start + map.len,
            prot: map.prot,
            flags,
            backing,
            clear_end: 0,
        };
        space.map(pool, region)?;
        let populate = map.has(linux::MAP_POPULATE) && !map.has(linux::MAP_NONBLOCK);
        if populate && !map.prot.is_empty() {
            // The mapping is there in any case.
            let origin = Origin::Linux(Then::Return(start), Failed::GoesOn);
            self.handle_memory(origin, who, (start, map.len), Access::Fill, true);
            return Ok(None);
        }
        self.fill_locked(who, (start, map.len), start)
    }

    fn linux_brk(&mut self, source: Endpoint, wanted: u64) -> Result<Option<u64>, Errno> {
        let (space, pool) = self.space(source)?;
        let old = abi::page_up(space.break_end).ok_or(Errno::ENOMEM)?;
        let new = space.set_break(pool, wanted);
        self.fill_locked(source, (old, new.saturating_sub(old)), new)
    }

    fn linux_munmap(&mut self, source: Endpoint, start: u64, len: u64) -> Result<u64, Errno> {
        // All of munmap's range errors are EINVAL.
        let end = check_range(start, len).map_err(|_| Errno::EINVAL)?;
        let (space, pool) = self.space(source)?;
        space.unmap(pool, start, end)?;
        Ok(0)
    }

    fn linux_mprotect(&mut self, source: Endpoint, args: Arguments) -> Result<u64, Errno> {
        let [start, len, prot, ..] = args;
        const GROWS: u64 = (linux::PROT_GROWSDOWN | linux::PROT_GROWSUP) as u64;
        let grows = prot & GROWS;
        if grows == GROWS {
            return Err(Errno::EINVAL);
        }
        let (mut start, end) = range(start, len, Errno::ENOMEM)?;
        if start == end {
            return Ok(0);
        }
        let prot = protection(prot & !GROWS)?;
        if end > USER_END {
            return Err(Errno::ENOMEM);
        }
        let (space, pool) = self.space(source)?;
        if grows != 0 {
            let region = *space.regions.at(start).ok_or(Errno::ENOMEM)?;
            if grows != linux::PROT_GROWSDOWN as u64 || !region.flags.contains(Flags::STACK) {
                return Err(Errno::EINVAL);
            }
            start = region.start;
        }
        space.protect(pool, start, end, prot)?;
        Ok(0)
    }

    fn linux_mremap(&mut self, source: Endpoint, args: Arguments) -> Result<u64, Errno> {
        let [old, old_len, new_len, flags, new_addr, ..] = args;
        let flags = u32::try_from(flags).map_err(|_| Errno::EINVAL)?;
        let may_move = flags & linux::MREMAP_MAYMOVE != 0;
        let fixed = flags & linux::MREMAP_FIXED != 0;
        let keep = flags & linux::MREMAP_DONTUNMAP != 0;
        let known = linux::MREMAP_MAYMOVE | linux::MREMAP_FIXED | linux::MREMAP_DONTUNMAP;
        if flags & !known != 0 || ((fixed || keep) && !may_move) || !old.is_multiple_of(PAGE) {
            return Err(Errno::EINVAL);
        }
        let old_len = abi::page_up(old_len).ok_or(Errno::EINVAL)?;
        let new_len = abi::page_up(new_len)
            .filter(|&n| n != 0)
            .ok_or(Errno::EINVAL)?;
        if keep && old_len != new_len {
            return Err(Errno::EINVAL);
        }
        if new_len > USER_END {
            return Err(Errno::ENOMEM);
        }
        let old_end = old
            .checked_add(old_len)
            .filter(|&end| end <= USER_END)
            .ok_or(Errno::EINVAL)?;
        if fixed {
            let end = check_range(new_addr, new_len).map_err(|_| Errno::EINVAL)?;
            if new_addr < old_end && old < end {
                return Err(Errno::EINVAL);
            }
            if new_addr < USER_START {
                return Err(Errno::EPERM);
            }
        }
        let (space, pool) = self.space(source)?;
        let region = *space.regions.at(old).ok_or(Errno::EFAULT)?;
        if old_len == 0 && region.private() {
            return Err(Errno::EINVAL);
        }
        // What is cut off need not be of one mapping with the rest.
        let cut = (old + old_len.min(new_len), old_end);
        if !fixed && !keep && new_len <= old_len {
            space.unmap(pool, cut.0, cut.1)?;
            return Ok(old);
        }
        let (old_len, old_end) = (old_len.min(new_len), cut.0);
        let movable = old_end <= region.end && !matches!(region.backing, Backing::Physical { .. });
        if !movable {
            return Err(Errno::EFAULT);
        }
        if region.offset_of(old).checked_add(new_len).is_none() {
            return Err(Errno::EINVAL);
        }
        if region.prot.contains(Prot::WRITE) && region.private() {
            plausible(pool, new_len)?;
        }
        if region.flags.contains(Flags::LOCKED) {
            space.room_to_lock(new_len.saturating_sub(old_len))?;
        }
        let in_place = !fixed && !keep && old_len != 0 && old_end == region.end;
        if in_place
            && let Some(end) = old.checked_add(new_len).filter(|&end| end <= USER_END)
            && space.regions.is_free(old_end, end)
        {
            let mut more = region;
            more.clear_end = 0;
            more.end = end;
            space.map(pool, more.part(old_end, end))?;
            return Ok(old);
        }
        if !may_move {
            return Err(Errno::ENOMEM);
        }
        let target = if fixed {
            new_addr
        } else {
            space.find(if keep { new_addr } else { 0 }, new_len)?
        };
        let moved = moved_region(&region, old, old_end, target, new_len);
        space.regions.room(pool.map_max)?;
        space.unmap(pool, cut.0, cut.1)?;
        space.map_moved(pool, moved, old, old_end)?;
        if !keep && old_len != 0 {
            space.unmap(pool, old, old_end)?;
        }
        Ok(target)
    }

    fn linux_madvise(&mut self, source: Endpoint, args: Arguments) -> Result<Option<u64>, Errno> {
        let [start, len, advice, ..] = args;
        let advice = u32::try_from(advice).map_err(|_| Errno::EINVAL)?;
        // No advice may change anything before it is known to be valid.
        let flag = match advice {
            linux::MADV_NORMAL
            | linux::MADV_RANDOM
            | linux::MADV_SEQUENTIAL
            | linux::MADV_WILLNEED
            | linux::MADV_DONTNEED
            | linux::MADV_FREE
            | linux::MADV_MERGEABLE
            | linux::MADV_UNMERGEABLE
            | linux::MADV_HUGEPAGE
            | linux::MADV_NOHUGEPAGE
            | linux::MADV_DONTDUMP
            | linux::MADV_DODUMP
            | linux::MADV_COLD
            | linux::MADV_PAGEOUT
            | linux::MADV_POPULATE_READ
            | linux::MADV_POPULATE_WRITE
            | linux::MADV_REMOVE
            | linux::MADV_DONTNEED_LOCKED => None,
            linux::MADV_DONTFORK => Some((Flags::NO_FORK, true)),
            linux::MADV_DOFORK => Some((Flags::NO_FORK, false)),
            linux::MADV_WIPEONFORK => Some((Flags::WIPE_ON_FORK, true)),
            linux::MADV_KEEPONFORK => Some((Flags::WIPE_ON_FORK, false)),
            _ => return Err(Errno::EINVAL),
        };
        let (start, end) = range(start, len, Errno::EINVAL)?;
        if start == end {
            return Ok(Some(0));
        }
        if end > USER_END {
            return Err(Errno::ENOMEM);
        }
        if advice == linux::MADV_REMOVE {
            return self.remove_range(source, start, end);
        }
        let (space, pool) = self.space(source)?;
        if matches!(advice, linux::MADV_DONTNEED | linux::MADV_DONTNEED_LOCKED) {
            for index in 0..space.regions.overlapping(start, end).len() {
                let region = space.regions.overlapping(start, end)[index];
                if matches!(region.backing, Backing::Physical { .. }) {
                    return Err(Errno::EINVAL);
                }
                space.drop_pages(pool, region.start.max(start), region.end.min(end));
            }
        }
        if let Some((flag, on)) = flag {
            let regions = space.regions.overlapping(start, end);
            let wipe = flag == Flags::WIPE_ON_FORK && on;
            if wipe && regions.iter().any(|r| r.backing != Backing::Anonymous) {
                return Err(Errno::EINVAL);
            }
            space.regions.room(pool.map_max)?;
            space
                .regions
                .change(start, end, &mut pool.files, |r| r.flags.set(flag, on));
        }
        if !space.regions.covers(start, end) {
            return Err(Errno::ENOMEM);
        }
        let write = advice == linux::MADV_POPULATE_WRITE;
        if write || advice == linux::MADV_POPULATE_READ {
            let needed = if write { Prot::WRITE } else { Prot::READ };
            let mut regions = space.regions.overlapping(start, end).iter();
            if regions.any(|region| !region.prot.contains(needed)) {
                return Err(Errno::EINVAL);
            }
            let access = if write { Access::Write } else { Access::Read };
            let origin = Origin::Linux(Then::Return(0), Failed::Fails);
            self.handle_memory(origin, source, (start, end - start), access, true);
            return Ok(None);
        }
        Ok(Some(0))
    }

    fn linux_msync(&mut self, source: Endpoint, args: Arguments) -> Result<Option<u64>, Errno> {
        let [start, len, flags, ..] = args;
        let both = (linux::MS_SYNC | linux::MS_ASYNC) as u64;
        let known = both | linux::MS_INVALIDATE as u64;
        let (start, end) = range(start, len, Errno::ENOMEM)?;
        if flags & !known != 0 || flags & both == both {
            return Err(Errno::EINVAL);
        }
        let (space, pool) = self.space(source)?;
        if start != end && !space.regions.covers(start, end) {
            return Err(Errno::ENOMEM);
        }
        // Shared pages are the file system's own: reads of the file see them already. It
        // writes them to the disk in its time, or before this call returns.
        space.collect_written(pool, start, end);
        if flags & linux::MS_SYNC as u64 == 0 {
            return Ok(Some(0));
        }
        self.sync_range(source, start, end)
    }

    fn linux_mincore(&mut self, source: Endpoint, message: &Message) -> Result<Option<u64>, Errno> {
        let [start, len, vector, ..] = message.words;
        let (start, end) = range(start, len, Errno::ENOMEM)?;
        if end > USER_END {
            return Err(Errno::ENOMEM);
        }
        let pages = (end - start) / PAGE;
        let (space, pool) = self.space(source)?;
        if pages == 0 {
            return Ok(Some(0));
        }
        if !space.regions.covers(start, end) {
            return Err(Errno::ENOMEM);
        }
        if vector.checked_add(pages).is_none_or(|end| end > USER_END)
            || !space.allows(
                abi::page_down(vector),
                abi::page_up(vector + pages).ok_or(Errno::EFAULT)?,
                Access::Write,
            )
        {
            return Err(Errno::EFAULT);
        }
        // The answer is written to memory that may be absent: bring it in, start again.
        for page in page_starts(vector, pages) {
            if table::get(pool.frames, space.top, page) & table::WRITE == 0 {
                self.run(Job {
                    origin: Origin::Linux(Then::Again(*message), Failed::Fails),
                    who: source,
                    range: (vector, pages),
                    cursor: page,
                    end: abi::page_up(vector + pages).ok_or(Errno::EFAULT)?,
                    access: Access::Write,
                    may_ask: true,
                    asked: Asked::No,
                    taken: 0,
                    vain: 0,
                });
                return Ok(None);
            }
        }
        for n in 0..pages {
            let present = space.is_resident(pool, start + n * PAGE) as u8;
            let at = vector + n;
            let frame = table::frame(table::get(pool.frames, space.top, at));
            pool.window()
                .write(frame, at as usize % PAGE_SIZE, &[present]);
        }
        Ok(Some(0))
    }
}

fn page_starts(address: u64, len: u64) -> impl Iterator<Item = u64> {
    (abi::page_down(address)..address + len).step_by(PAGE as usize)
}

/// What `[old, old_end)` of `region` becomes at `target` with `len` bytes.
fn moved_region(region: &Region, old: u64, old_end: u64, target: u64, len: u64) -> Region {
    let whole = old_end == region.end && old_end - old == len;
    Region {
        start: target,
        end: target + len,
        flags: region
            .flags
            .difference(Flags::HEAP | Flags::STACK | Flags::DATA),
        clear_end: if whole { region.clear_end } else { 0 },
        ..region.part(old, region.end)
    }
}
