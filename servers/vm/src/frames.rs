//! The frame allocator: which frames are free and how many references the others have.
//!
//! Each managed frame has an `Info`. Frames that were never used are described by their
//! range alone, so that neither memory nor the table of `Info`s is touched before it is
//! needed. All state is in cells: the heap grows out of this allocator in the middle of any
//! operation, so methods take `&self` and never allocate.

use crate::reserve::{OWN, ahead_of, of_services};
use crate::window::{Frame, Window};
use abi::PAGE;
use abi::kernel::HOLE;
use abi::trace::{Refusal, Wanted};
use core::cell::Cell;
use rt::heap::WatchFn;

/// No frame, in the free list.
const NIL: u32 = u32::MAX;

/// For whom frames are taken, which says how many must stay free: programs leave what services
/// need, and services what VM itself needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claim {
    /// A program's pages and page tables.
    Program,
    /// What a file system caches: it leaves programs what they may need next, so that they seldom wait for it.
    Cache,
    /// Services' memory, and what must go on for a program although its share is used up.
    Service,
    /// VM's own heap.
    Own,
}

/// Bookkeeping of one frame.
#[derive(Clone, Copy)]
struct Info {
    /// References; 0 is free.
    refs: u32,
    /// Data frames: cache entry + 1. Page tables: entries in use.
    tag: u32,
    next: u32,
    prev: u32,
}

/// A range of frames; `[start, fresh)` have been used and have an `Info`.
#[derive(Clone, Copy, Debug, Default)]
struct Range {
    start: u32,
    fresh: u32,
    end: u32,
}

impl Range {
    fn used(self) -> u32 {
        self.fresh.saturating_sub(self.start)
    }
}

/// The allocator.
pub struct Frames {
    window: Window,
    infos: *mut Info,
    ranges: [Cell<Range>; 8],
    head: Cell<u32>,
    free: Cell<u32>,
    total: u32,
    claim: Cell<Claim>,
    /// See [`Frames::ignore_claims`].
    unclaimed: Cell<bool>,
    /// Frames that programs leave to services.
    services: Cell<u32>,
    /// Frames that belong to VM itself: heap, and the table of `Info`s is not counted.
    own: Cell<u32>,
    /// Asked before frames are taken; where a laboratory watches.
    watch: Cell<Option<WatchFn>>,
    /// Free frames that count as used up.
    hidden: Cell<u32>,
    /// It refused the frames that were asked for last.
    denied: Cell<bool>,
}

impl Frames {
    /// Manages the physical ranges `free` (page aligned, ascending, unused ones empty) of
    /// `window`. `None` when they cannot even hold the allocator's own table. Frames behind the hole are handed out first:
    /// memory that everything can address is kept, as on Linux.
    ///
    /// # Safety
    /// Nothing else uses memory in these ranges.
    pub unsafe fn new(window: Window, free: &[(u64, u64); 8]) -> Option<Frames> {
        let limit = window.frames() as u64 * PAGE;
        let mut ranges = free.map(|(start, end)| Range {
            start: (start.min(limit) / PAGE) as u32,
            fresh: (start.min(limit) / PAGE) as u32,
            end: (end.min(limit) / PAGE) as u32,
        });
        ranges.sort_unstable_by_key(|range| (range.start < Frame::at(HOLE.end).0, range.start));
        let last = ranges.iter().map(|r| r.end).max()?;
        let table = (last as u64 * size_of::<Info>() as u64).div_ceil(PAGE) as u32;
        let home = ranges
            .iter_mut()
            .max_by_key(|r| r.end.saturating_sub(r.start))?;
        if home.end.saturating_sub(home.start) <= table {
            return None;
        }
        // At its end: frames that are handed out first are where the VMM expects them (vmm/src/memory/mod.rs).
        home.end -= table;
        let infos = window.page(Frame(home.end)).cast::<Info>();
        let total = ranges
            .iter()
            .map(|r| r.end.saturating_sub(r.start))
            .sum::<u32>();
        Some(Frames {
            window,
            infos,
            ranges: ranges.map(Cell::new),
            head: Cell::new(NIL),
            free: Cell::new(total),
            total,
            claim: Cell::new(Claim::Own),
            unclaimed: Cell::new(false),
            services: Cell::new(of_services(0, total)),
            own: Cell::new(0),
            watch: Cell::new(None),
            hidden: Cell::new(0),
            denied: Cell::new(false),
        })
    }

    /// The window it manages.
    pub const fn window(&self) -> &Window {
        &self.window
    }

    /// All frames managed.
    pub const fn total(&self) -> u32 {
        self.total
    }

    /// Free frames.
    pub fn free(&self) -> u32 {
        self.free.get().saturating_sub(self.hidden.get())
    }

    /// Frames that nobody has, those that only count as used up included.
    pub fn unused(&self) -> u32 {
        self.free.get()
    }

    /// Has `watch` asked before frames are taken for others than VM.
    pub fn set_watch(&self, watch: Option<WatchFn>) {
        self.watch.set(watch);
    }

    /// Whether a laboratory refuses `count` frames.
    #[inline]
    fn refused(&self, count: u32) -> bool {
        self.watch
            .get()
            .is_some_and(|watch| self.watched(watch, count))
    }

    #[cold]
    fn watched(&self, watch: WatchFn, count: u32) -> bool {
        let claim = self.claim.get();
        let wanted = match claim {
            Claim::Program => Wanted::Program,
            Claim::Cache | Claim::Service | Claim::Own => Wanted::Service,
        };
        let refusal = watch(wanted, count as usize * abi::PAGE_SIZE);
        if refusal == Refusal::Exhausted {
            // As if others had taken all that this claim does not leave to others.
            let used_up = self.free().saturating_sub(self.kept_from(claim));
            self.hidden.set(self.hidden.get() + used_up);
        }
        self.denied.set(refusal != Refusal::No);
        self.denied.get()
    }

    /// Says for whom frames are taken from now on.
    #[inline]
    pub fn set_claim(&self, claim: Claim) {
        self.claim.set(claim);
    }

    /// Gives frames to whoever asks ([`abi::sabotage::CLAIM_IGNORED`]).
    pub fn ignore_claims(&self) {
        self.unclaimed.set(true);
    }

    /// For whom frames are taken.
    #[inline]
    pub fn claim(&self) -> Claim {
        self.claim.get()
    }

    /// There are so many services.
    pub fn keep_for_services(&self, count: u32) {
        self.services.set(of_services(count, self.total));
    }

    /// Frames that must stay free when others are taken for `claim`.
    #[inline]
    pub fn kept_from(&self, claim: Claim) -> u32 {
        if self.unclaimed.get() {
            return 0;
        }
        match claim {
            Claim::Cache => OWN + self.services.get() + ahead_of(self.total),
            Claim::Program => OWN + self.services.get(),
            Claim::Service => OWN,
            Claim::Own => 0,
        }
    }

    /// Frames that may still be taken.
    #[inline]
    pub fn spare(&self) -> u32 {
        let kept = self.kept_from(self.claim.get());
        self.free().saturating_sub(kept)
    }

    /// Whether services have used up half of what programs leave to them: programs have to make
    /// room.
    #[inline]
    pub fn low(&self) -> bool {
        let kept = self.kept_from(Claim::Program) + self.kept_from(Claim::Service);
        self.free() < kept / 2
    }

    /// Whether programs have begun to use what caches leave to them: caches have to give some back.
    #[inline]
    pub fn wants_cache_back(&self) -> bool {
        let (cache, programs) = (self.kept_from(Claim::Cache), self.kept_from(Claim::Program));
        self.free() < cache.midpoint(programs)
    }

    /// Frames that VM's heap took.
    pub fn own(&self) -> u32 {
        self.own.get()
    }

    /// Whether the frame is one that this allocator hands out.
    pub fn managed(&self, frame: Frame) -> bool {
        self.ranges.iter().any(|r| {
            let r = r.get();
            r.start <= frame.0 && frame.0 < r.end
        })
    }

    #[inline(always)]
    fn info(&self, frame: Frame) -> *mut Info {
        assert!(frame.0 < self.window.frames());
        self.infos.wrapping_add(frame.0 as usize)
    }

    #[inline(always)]
    fn get(&self, frame: Frame) -> Info {
        // SAFETY: the table has an element for every frame below the last range's end, and
        // callers pass frames that were handed out once, which initialised it.
        unsafe { self.info(frame).read() }
    }

    #[inline(always)]
    fn set(&self, frame: Frame, info: Info) {
        // SAFETY: as for `get`; no reference into the table exists.
        unsafe { self.info(frame).write(info) };
    }

    /// A frame with one reference; its contents are whatever they were. `None` when the claim
    /// leaves the rest to others.
    #[inline]
    pub fn take(&self) -> Option<Frame> {
        if self.refused(1) {
            return None;
        }
        self.take_spare()
    }

    /// [`Frames::take`] for somebody who has made room since it found none.
    pub fn take_again(&self) -> Option<Frame> {
        match self.denied.replace(false) {
            true => None,
            false => self.take_spare(),
        }
    }

    #[inline]
    fn take_spare(&self) -> Option<Frame> {
        if self.spare() == 0 {
            return None;
        }
        self.take_any()
    }

    fn take_any(&self) -> Option<Frame> {
        let frame = match self.head.get() {
            NIL => self.ranges.iter().find_map(|cell| {
                let mut range = cell.get();
                (range.fresh < range.end).then(|| {
                    range.fresh += 1;
                    cell.set(range);
                    Frame(range.fresh - 1)
                })
            })?,
            head => {
                self.unlink(Frame(head));
                Frame(head)
            }
        };
        self.mark_taken(frame);
        Some(frame)
    }

    fn mark_taken(&self, frame: Frame) {
        self.free.set(self.free.get() - 1);
        let info = Info {
            refs: 1,
            tag: 0,
            next: NIL,
            prev: NIL,
        };
        self.set(frame, info);
    }

    fn unlink(&self, frame: Frame) {
        let Info { next, prev, .. } = self.get(frame);
        match prev {
            NIL => self.head.set(next),
            prev => self.set(
                Frame(prev),
                Info {
                    next,
                    ..self.get(Frame(prev))
                },
            ),
        }
        if next != NIL {
            self.set(
                Frame(next),
                Info {
                    prev,
                    ..self.get(Frame(next))
                },
            );
        }
    }

    /// `count` frames in a row, each with one reference.
    pub fn take_run(&self, count: u32) -> Option<Frame> {
        match self.refused(count) {
            true => None,
            false => self.take_spare_run(count),
        }
    }

    /// [`Frames::take_run`] for somebody who has made room since it found none.
    pub fn take_run_again(&self, count: u32) -> Option<Frame> {
        match self.denied.get() {
            true => None,
            false => self.take_spare_run(count),
        }
    }

    fn take_spare_run(&self, count: u32) -> Option<Frame> {
        if count == 0 || self.spare() < count {
            return None;
        }
        let first = self.fresh_run(count).or_else(|| self.recycled_run(count))?;
        for n in 0..count {
            self.mark_taken(Frame(first.0 + n));
        }
        Some(first)
    }

    fn fresh_run(&self, count: u32) -> Option<Frame> {
        self.ranges.iter().find_map(|cell| {
            let mut range = cell.get();
            (range.end.saturating_sub(range.fresh) >= count).then(|| {
                range.fresh += count;
                cell.set(range);
                Frame(range.fresh - count)
            })
        })
    }

    /// Looks for a run among the frames that were used before; it may end in fresh ones.
    fn recycled_run(&self, count: u32) -> Option<Frame> {
        for cell in &self.ranges {
            let mut range = cell.get();
            let mut run = 0;
            for number in range.start..range.end {
                let fresh = number >= range.fresh;
                run = if fresh || self.get(Frame(number)).refs == 0 {
                    run + 1
                } else {
                    0
                };
                if run < count {
                    continue;
                }
                let first = number + 1 - count;
                for used in first..range.fresh.min(number + 1) {
                    self.unlink(Frame(used));
                }
                range.fresh = range.fresh.max(number + 1);
                cell.set(range);
                return Some(Frame(first));
            }
        }
        None
    }

    /// Memory for VM's heap.
    pub fn take_own(&self, count: u32) -> Option<Frame> {
        let first = self.take_spare_run(count)?;
        self.own.set(self.own.get() + count);
        Some(first)
    }

    /// VM's heap gives back memory of [`Frames::take_own`].
    pub fn release_own(&self, first: Frame, count: u32) {
        (0..count).for_each(|n| self.release(Frame(first.0 + n)));
        self.own.set(self.own.get() - count);
    }

    /// References to the frame.
    #[inline(always)]
    pub fn refs(&self, frame: Frame) -> u32 {
        self.get(frame).refs
    }

    /// One more reference.
    #[inline(always)]
    pub fn share(&self, frame: Frame) {
        let mut info = self.get(frame);
        info.refs += 1;
        self.set(frame, info);
    }

    /// One reference less; without any the frame is free.
    #[inline]
    pub fn release(&self, frame: Frame) {
        let mut info = self.get(frame);
        assert!(info.refs > 0, "released a free frame");
        info.refs -= 1;
        if info.refs > 0 {
            // SAFETY: as for `set`.
            unsafe { (&raw mut (*self.info(frame)).refs).write(info.refs) };
            return;
        }
        let head = self.head.get();
        if head != NIL {
            let next = Info {
                prev: frame.0,
                ..self.get(Frame(head))
            };
            self.set(Frame(head), next);
        }
        info = Info {
            refs: 0,
            tag: 0,
            next: head,
            prev: NIL,
        };
        self.head.set(frame.0);
        self.free.set(self.free.get() + 1);
        self.set(frame, info);
    }

    /// The frame's tag: see [`crate::cache`] and [`crate::table`].
    #[inline(always)]
    pub fn tag(&self, frame: Frame) -> u32 {
        self.get(frame).tag
    }

    /// Sets the frame's tag.
    #[inline(always)]
    pub fn set_tag(&self, frame: Frame, tag: u32) {
        let mut info = self.get(frame);
        info.tag = tag;
        self.set(frame, info);
    }

    /// Every frame that is or was in use, with its references.
    pub fn used(&self) -> impl Iterator<Item = (Frame, u32)> + '_ {
        self.ranges.iter().flat_map(move |cell| {
            let range = cell.get();
            (range.start..range.fresh).map(move |n| (Frame(n), self.get(Frame(n)).refs))
        })
    }

    /// How many frames are or were in use.
    pub fn places(&self) -> usize {
        let used = self.ranges.iter().map(|range| range.get().used());
        used.sum::<u32>() as usize
    }

    /// How many places a table needs that is made now: making it may take frames that were never used.
    pub fn places_with_table(&self) -> usize {
        let used = self.places();
        used + used / 512 + 64
    }

    /// The frame's place among those, in tables that are as long as they are many.
    pub fn place(&self, frame: Frame) -> Option<usize> {
        let mut before = 0;
        for range in self.ranges.iter().map(Cell::get) {
            if range.start <= frame.0 && frame.0 < range.fresh {
                return Some((before + frame.0 - range.start) as usize);
            }
            before += range.used();
        }
        None
    }

    /// Checks that the free list and the counters say the same; the reason when not.
    pub fn check(&self) -> Result<(), &'static str> {
        let mut listed = 0u32;
        let (mut at, mut before) = (self.head.get(), NIL);
        while at != NIL {
            let info = self.get(Frame(at));
            if info.refs != 0 || info.prev != before || listed > self.total {
                return Err("free list is corrupt");
            }
            listed += 1;
            (before, at) = (at, info.next);
        }
        let fresh: u32 = self
            .ranges
            .iter()
            .map(|r| r.get().end.saturating_sub(r.get().fresh))
            .sum();
        if listed + fresh != self.free.get() {
            return Err("free count is wrong");
        }
        Ok(())
    }
}
