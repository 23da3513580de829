//! The heap: talc over memory from VM, to which it goes back when it is free again.
//!
//! A block above [`SMALL`] is whole pages from VM and nothing else, so that nobody's small block keeps
//! what it took. The others lie in pieces of `PIECE`; when enough has been freed the pieces that
//! nothing lies in any more are given back, but one. What must not fail has a reserve: blocks set
//! aside by [`ready`] that serve small allocations when VM gives no more. A server asks [`ready`]
//! before it takes on what it may refuse. Larger allocations may fail at any time
//! (docs/decisions/020-heaps.md).
//!
//! VM itself has no VM to ask; it installs its own source with [`set_source`].

use crate::cell::Single;
use abi::PAGE_SIZE;
use abi::trace::{Refusal, Wanted};
use core::alloc::{GlobalAlloc, Layout};
use core::cell::Cell;
use core::ptr::{self, NonNull};
use talc::TalcCell;
use talc::base::Talc;
use talc::base::binning::Binning;
use talc::source::Source;

/// Gives this many bytes of fresh memory, whole pages: its address, page aligned. `least`: fewer
/// would not do.
pub type GrowFn = fn(bytes: usize, least: bool) -> Option<usize>;

/// Takes back what [`GrowFn`] gave: address and bytes.
pub type ShrinkFn = fn(base: usize, bytes: usize);

static SOURCE: Single<(GrowFn, ShrinkFn)> =
    Single::new((crate::vm::grow_heap, crate::vm::shrink_heap));

/// Replaces where heap memory comes from and goes to; before the first allocation.
pub fn set_source(grow: GrowFn, shrink: ShrinkFn) {
    *SOURCE.borrow() = (grow, shrink);
}

fn grow(bytes: usize, least: bool) -> Option<usize> {
    let (grow, _) = *SOURCE.borrow();
    grow(bytes, least)
}

fn shrink(base: usize, bytes: usize) {
    let (_, shrink) = *SOURCE.borrow();
    shrink(base, bytes);
}

/// The server's heap, once it runs.
static CURRENT: Single<Option<&'static Heap>> = Single::new(None);

/// Says whether an allocation of so many bytes is refused, although there may be memory: the
/// laboratory's part in it.
pub type WatchFn = fn(Wanted, usize) -> Refusal;

/// Makes `heap`, the global allocator, the one that [`ready`] speaks of.
pub fn install(heap: &'static Heap) {
    *CURRENT.borrow() = Some(heap);
    if crate::kernel::allocations_are_watched() {
        let watch: WatchFn = |wanted, bytes| crate::kernel::allocation(wanted, bytes as u64);
        heap.watch.set(Some(watch));
    }
}

/// Fills the reserve up, before a message is looked at.
#[inline]
pub fn refill() {
    if let Some(heap) = *CURRENT.borrow() {
        heap.refill();
    }
}

/// Fills the reserve up. Whether it is full: otherwise a server refuses (`ENOMEM`) what it may
/// refuse, and goes on with what releases something or has to be completed.
#[inline]
pub fn ready() -> bool {
    let current = *CURRENT.borrow();
    current.is_none_or(Heap::ready)
}

/// Does something that needs memory even after a laboratory has used it up: counts what is held.
pub fn with_memory<T>(what: impl FnOnce() -> T) -> T {
    let current = *CURRENT.borrow();
    let dry = current.is_some_and(|heap| heap.set_dry(false));
    let result = what();
    if let Some(heap) = current {
        heap.set_dry(dry);
    }
    result
}

/// Lies at the beginning of each piece.
struct Piece {
    next: *mut Piece,
    bytes: usize,
}

/// Bytes for it, which keep what follows aligned.
const PIECE_HEADER: usize = 32;
/// Bytes of a piece, unless one allocation needs more.
const PIECE: usize = abi::kernel::HEAP_PIECE;

/// Where talc gets memory, and what it got.
#[derive(Clone, Debug)]
pub struct ServerSource {
    pieces: *mut Piece,
    /// Bytes of all pieces.
    held: usize,
    /// VM gives no more.
    dry: bool,
}

// SAFETY: `acquire` uses only the `Talc` it is given and allocates nothing.
unsafe impl Source for ServerSource {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        if talc.source.dry {
            return Err(());
        }
        // Talc keeps metadata, less than a page, in the first piece and a tag beside each chunk.
        let least = layout
            .size()
            .checked_add(layout.align())
            .and_then(|bytes| {
                bytes
                    .checked_add(PAGE_SIZE)?
                    .checked_next_multiple_of(PAGE_SIZE)
            })
            .ok_or(())?;
        let (base, bytes) = [least.max(PIECE), least]
            .into_iter()
            .find_map(|bytes| Some((grow(bytes, bytes == least)?, bytes)))
            .ok_or(())?;
        let piece = base as *mut Piece;
        // SAFETY: `grow` gave us this range, at least a page, and nobody else has it; talc gets
        // what follows the header.
        let end = unsafe {
            piece.write(Piece {
                next: talc.source.pieces,
                bytes,
            });
            talc.claim((base + PIECE_HEADER) as *mut u8, bytes - PIECE_HEADER)
        }
        .ok_or(())?;
        if end.as_ptr() as usize == base + bytes {
            talc.source.pieces = piece;
            talc.source.held += bytes;
        }
        Ok(())
    }
}

/// Sizes of blocks differ by this; it is also their alignment.
const GRAIN: usize = 16;
/// The largest block that waits to be taken again.
const LARGEST: usize = 4096;

/// The largest allocation that the reserve serves, bytes; larger ones are pages of their own.
pub const SMALL: usize = 16 << 10;

/// Blocks of a full reserve. Each serves any small allocation, or hundreds of the usual ones of some
/// dozens of bytes.
const RESERVE: usize = 4;
/// What they are like for talc. Three fit into a piece.
const RESERVED: Layout = match Layout::from_size_align(20 << 10, GRAIN) {
    Ok(layout) => layout,
    Err(_) => panic!("the reserve's blocks have a layout"),
};

/// Large blocks that are kept when they are freed, at most so many, each of at most [`KEPT_BYTES`]:
/// a server takes and drops a buffer with each call that moves data.
const KEPT: usize = 2;
/// See [`KEPT`].
const KEPT_BYTES: usize = 64 << 10;

/// Bytes of small blocks that must have become fewer before pieces are looked for that can be given
/// back. What comes and goes with each call does not count.
const FEWER: usize = 32 << 10;

/// A block that waits: the next of the same size.
struct Waiting(*mut Waiting);

/// A server's global allocator: talc, and before it the blocks that were freed last, by size. A server makes and
/// drops the same few structures with every call; taking such a block is a few instructions, and a hundred in talc.
pub struct Heap {
    talc: TalcCell<ServerSource>,
    waiting: [Cell<*mut Waiting>; LARGEST / GRAIN + 1],
    /// Bytes of small blocks in use.
    live: Cell<usize>,
    /// The most of them, roughly, since pieces were looked for.
    most: Cell<usize>,
    reserve: [Cell<*mut u8>; RESERVE],
    reserved: Cell<usize>,
    /// Addresses and bytes of large blocks that were freed, the last one first.
    kept: [Cell<(usize, usize)>; KEPT],
    /// Asked before each allocation that may find no memory; where a laboratory watches.
    watch: Cell<Option<WatchFn>>,
    /// The reserve counts as not full while the current message is dealt with.
    short: Cell<bool>,
}

// SAFETY: a server has one thread and takes no signals.
unsafe impl Sync for Heap {}

/// The global allocator's initial value.
pub const fn new() -> Heap {
    Heap {
        talc: TalcCell::new(ServerSource {
            pieces: ptr::null_mut(),
            held: 0,
            dry: false,
        }),
        waiting: [const { Cell::new(ptr::null_mut()) }; LARGEST / GRAIN + 1],
        live: Cell::new(0),
        most: Cell::new(0),
        reserve: [const { Cell::new(ptr::null_mut()) }; RESERVE],
        reserved: Cell::new(0),
        kept: [const { Cell::new((0, 0)) }; KEPT],
        watch: Cell::new(None),
        short: Cell::new(false),
    }
}

/// The list that blocks of this layout wait in.
#[inline]
fn list(layout: &Layout) -> Option<usize> {
    let fits = layout.size() <= LARGEST && layout.align() <= GRAIN;
    fits.then(|| layout.size().div_ceil(GRAIN))
}

/// How talc knows the blocks of a list.
fn block(list: usize) -> Layout {
    // A block has room for its link.
    let bytes = list.max(1) * GRAIN;
    Layout::from_size_align(bytes, GRAIN).unwrap_or(Layout::new::<Waiting>())
}

/// Bytes of the pages that a large block of this layout is.
#[inline]
fn pages(layout: &Layout) -> Option<usize> {
    let large = layout.size() > SMALL && layout.align() <= PAGE_SIZE;
    large.then(|| layout.size().next_multiple_of(PAGE_SIZE))
}

impl Heap {
    #[inline]
    fn ready(&self) -> bool {
        !self.short.get() && (self.reserved.get() == RESERVE || self.fill_reserve())
    }

    #[inline]
    fn refill(&self) {
        if let Some(watch) = self.watch.get() {
            self.watched_refill(watch);
        }
        self.ready();
    }

    #[cold]
    fn watched_refill(&self, watch: WatchFn) {
        let lacks = (RESERVE - self.reserved.get()) * RESERVED.size();
        let refusal = watch(Wanted::Reserve, lacks);
        // Where everything is used up the reserve is still what it is.
        self.short.set(refusal == Refusal::Once);
        if refusal == Refusal::Exhausted {
            self.use_up();
        }
    }

    /// Whether a laboratory refuses an allocation.
    #[inline]
    fn refused(&self, wanted: Wanted, bytes: usize) -> bool {
        self.watch
            .get()
            .is_some_and(|watch| self.watched(watch, wanted, bytes))
    }

    #[cold]
    fn watched(&self, watch: WatchFn, wanted: Wanted, bytes: usize) -> bool {
        let refusal = watch(wanted, bytes);
        if refusal == Refusal::Exhausted {
            self.use_up();
        }
        refusal != Refusal::No
    }

    /// Says whether VM gives no more; what was so before.
    fn set_dry(&self, dry: bool) -> bool {
        let mut source = self.talc.clone_source();
        let before = core::mem::replace(&mut source.dry, dry);
        self.talc.replace_source(source);
        before
    }

    /// As if memory had been used up: VM gives no more, and everything but the reserve is taken.
    #[cold]
    fn use_up(&self) {
        self.give_up();
        self.set_dry(true);
        let mut size = PIECE;
        while size >= GRAIN {
            let layout = block(size / GRAIN);
            // SAFETY: the layout is not empty. What is allocated is nobody's for ever.
            while !unsafe { self.talc.alloc(layout) }.is_null() {}
            size /= 2;
        }
    }

    #[cold]
    fn fill_reserve(&self) -> bool {
        while self.reserved.get() < RESERVE {
            let block = self.take(RESERVED);
            if block.is_null() {
                return false;
            }
            self.reserve[self.reserved.get()].set(block);
            self.reserved.set(self.reserved.get() + 1);
        }
        true
    }

    /// A small block: from talc, then from the reserve.
    #[inline]
    fn fresh(&self, layout: Layout) -> *mut u8 {
        let mut memory = match self.refused(Wanted::Small, layout.size()) {
            true => ptr::null_mut(),
            false => self.take(layout),
        };
        if memory.is_null() {
            memory = self.take_reserved(layout);
        }
        if !memory.is_null() {
            self.used(layout.size());
            self.most.set(self.most.get().max(self.live.get()));
        }
        memory
    }

    /// Memory from talc; where it has none of what this heap keeps for later.
    #[inline]
    fn take(&self, layout: Layout) -> *mut u8 {
        // SAFETY: layouts here are those of allocations, which are not empty.
        let memory = unsafe { self.talc.alloc(layout) };
        if !memory.is_null() {
            return memory;
        }
        self.give_up();
        // SAFETY: likewise.
        unsafe { self.talc.alloc(layout) }
    }

    /// Gives talc blocks of the reserve until it can serve `layout`.
    #[cold]
    fn take_reserved(&self, layout: Layout) -> *mut u8 {
        while let Some(left) = self.reserved.get().checked_sub(1) {
            self.reserved.set(left);
            // SAFETY: the block was allocated so by `fill_reserve`, and nobody has it; layouts here
            // are not empty.
            let memory = unsafe {
                self.talc.dealloc(self.reserve[left].get(), RESERVED);
                self.talc.alloc(layout)
            };
            if !memory.is_null() {
                return memory;
            }
        }
        ptr::null_mut()
    }

    /// Pages from VM, or those of a block that was freed.
    fn large(&self, bytes: usize) -> *mut u8 {
        if let Some(kept) = self.kept.iter().find(|kept| kept.get().1 == bytes) {
            return kept.replace((0, 0)).0 as *mut u8;
        }
        if self.refused(Wanted::Large, bytes) || self.talc.clone_source().dry {
            return ptr::null_mut();
        }
        let address = grow(bytes, true).or_else(|| {
            self.give_up();
            grow(bytes, true)
        });
        address.map_or(ptr::null_mut(), |address| address as *mut u8)
    }

    fn large_freed(&self, address: usize, bytes: usize) {
        if bytes > KEPT_BYTES {
            return shrink(address, bytes);
        }
        let mut block = (address, bytes);
        for kept in &self.kept {
            block = kept.replace(block);
            if block.1 == 0 {
                return;
            }
        }
        shrink(block.0, block.1);
    }

    /// Memory is short: everything that is only kept for later goes back to VM.
    #[cold]
    fn give_up(&self) {
        for kept in &self.kept {
            let (address, bytes) = kept.replace((0, 0));
            if bytes > 0 {
                shrink(address, bytes);
            }
        }
        self.trim();
    }

    /// `bytes` are in use.
    #[inline]
    fn used(&self, bytes: usize) {
        self.live.set(self.live.get() + bytes);
    }

    /// `bytes` are no longer in use. When they have become much fewer, pieces that became empty are
    /// given back; where there are many pieces less often, so that looking at all of them costs
    /// little for each block.
    #[inline]
    fn freed(&self, bytes: usize) {
        let live = self.live.get() - bytes;
        self.live.set(live);
        if self.most.get() >= live + FEWER {
            self.has_shrunk(live);
        }
    }

    #[cold]
    fn has_shrunk(&self, live: usize) {
        if self.most.get() - live >= self.talc.clone_source().held / 64 {
            self.trim();
        }
    }

    /// Gives talc all blocks that wait, and VM the pieces that nothing lies in, all but one of the
    /// usual size: the next request would ask for it at once.
    #[cold]
    fn trim(&self) {
        for (list, waiting) in self.waiting.iter().enumerate() {
            let mut next = waiting.replace(ptr::null_mut());
            while !next.is_null() {
                // SAFETY: blocks in a list are allocated as `block` says, and nobody has them.
                unsafe {
                    let block_at = next;
                    next = (*next).0;
                    self.talc.dealloc(block_at.cast(), block(list));
                }
            }
        }
        self.most.set(self.live.get());
        let mut source = self.talc.clone_source();
        let mut kept = false;
        let mut before: *mut Piece = ptr::null_mut();
        let mut at = source.pieces;
        // SAFETY: the pieces in the list are ours until they are given back; nobody else has their
        // headers, and each is read before its piece goes.
        while let Some(&Piece { next, bytes }) = unsafe { at.as_ref() } {
            let piece = at;
            at = next;
            let Some(end) = NonNull::new(piece.cast::<u8>().wrapping_add(bytes)) else {
                return;
            };
            // SAFETY: it is the end of a piece that talc claimed and that is not truncated.
            let free = unsafe { !self.talc.reserved(end).any };
            if !free || bytes <= PIECE && !core::mem::replace(&mut kept, true) {
                before = piece;
                continue;
            }
            // SAFETY: likewise. Nothing lies in the piece, so all of it is released.
            let rest = unsafe { self.talc.truncate(end, ptr::null_mut()) };
            debug_assert!(rest.is_none());
            // SAFETY: as above.
            match unsafe { before.as_mut() } {
                Some(before) => before.next = next,
                None => source.pieces = next,
            }
            source.held -= bytes;
            shrink(piece as usize, bytes);
        }
        self.talc.replace_source(source);
    }
}

// SAFETY: blocks are pages from VM or come from talc, at least as large and aligned as asked, and are in one place at a
// time: there, in a list, kept or in the reserve, or with whoever allocated them. Which way is a function of the layout.
unsafe impl GlobalAlloc for Heap {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(list) = list(&layout) else {
            return match pages(&layout) {
                Some(bytes) => self.large(bytes),
                None => self.fresh(layout),
            };
        };
        let first = self.waiting[list].get();
        if first.is_null() {
            return self.fresh(block(list));
        }
        self.used(list.max(1) * GRAIN);
        // SAFETY: a block in a list is nobody's, and holds its link.
        self.waiting[list].set(unsafe { (*first).0 });
        first.cast()
    }

    #[inline]
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        let Some(list) = list(&layout) else {
            if let Some(bytes) = pages(&layout) {
                return self.large_freed(memory as usize, bytes);
            }
            // SAFETY: it came from talc with this layout.
            unsafe { self.talc.dealloc(memory, layout) };
            return self.freed(layout.size());
        };
        let first = memory.cast::<Waiting>();
        // SAFETY: the caller gives up the block, which has room for a link and is aligned for it.
        unsafe { first.write(Waiting(self.waiting[list].get())) };
        self.waiting[list].set(first);
        self.freed(list.max(1) * GRAIN);
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's size is not too large for the alignment.
        let new = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        let (from, to) = (list(&layout), list(&new));
        if from.is_some() && from == to {
            return memory;
        }
        if let (Some(from), Some(to)) = (pages(&layout), pages(&new))
            && to <= from
        {
            // What becomes smaller needs no memory, and so cannot fail.
            if to < from {
                shrink(memory as usize + to, from - to);
            }
            return memory;
        }
        // SAFETY: both layouts are those of allocations.
        let moved = unsafe { self.alloc(new) };
        if !moved.is_null() {
            // SAFETY: two different blocks, both at least this long; the old one is given up.
            unsafe {
                memory.copy_to_nonoverlapping(moved, layout.size().min(size));
                self.dealloc(memory, layout);
            }
        }
        moved
    }
}

#[cfg(test)]
mod tests;
