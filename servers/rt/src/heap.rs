//! The heap: talc over memory from VM.
//!
//! VM itself has no VM to ask; it installs its own source with [`set_source`].

use crate::cell::Single;
use abi::PAGE_SIZE;
use core::alloc::{GlobalAlloc, Layout};
use core::cell::Cell;
use core::ptr;
use talc::TalcCell;
use talc::base::Talc;
use talc::base::binning::{Binning, DefaultBinning};
use talc::cell::TalcSyncCell;
use talc::source::Source;

/// Gives at least this many bytes of fresh memory, page aligned: `(address, bytes)`.
pub type GrowFn = fn(bytes: usize) -> Option<(usize, usize)>;

static SOURCE: Single<GrowFn> = Single::new(crate::vm::grow_heap);

/// Replaces where heap memory comes from; before the first allocation.
pub fn set_source(grow: GrowFn) {
    *SOURCE.borrow() = grow;
}

/// The talc source of a server.
#[derive(Debug)]
pub struct ServerSource;

// SAFETY: `acquire` uses only the `Talc` it is given and allocates nothing.
unsafe impl Source for ServerSource {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        let grow = *SOURCE.borrow();
        // Talc keeps metadata in the first arena and a tag beside each chunk.
        let wanted = layout
            .size()
            .saturating_add(layout.align())
            .saturating_add(4 * PAGE_SIZE);
        let (base, bytes) = grow(wanted).ok_or(())?;
        // SAFETY: `grow` gave us this range and nobody else has it.
        unsafe { talc.claim(base as *mut u8, bytes) }
            .map(|_| ())
            .ok_or(())
    }
}

/// Sizes of blocks differ by this; it is also their alignment.
const GRAIN: usize = 16;
/// The largest block that waits to be taken again.
const LARGEST: usize = 4096;

/// A block that waits: the next of the same size.
struct Waiting(*mut Waiting);

/// A server's global allocator: talc, and before it the blocks that were freed last, by size. A server makes and
/// drops the same few structures with every call; taking such a block is a few instructions, and a hundred in talc.
pub struct Heap {
    talc: TalcSyncCell<ServerSource, DefaultBinning>,
    waiting: [Cell<*mut Waiting>; LARGEST / GRAIN + 1],
}

// SAFETY: a server has one thread and takes no signals.
unsafe impl Sync for Heap {}

/// The global allocator's initial value.
pub const fn new() -> Heap {
    Heap {
        // SAFETY: a server has one thread and takes no signals.
        talc: unsafe { TalcSyncCell::new(TalcCell::new(ServerSource)) },
        waiting: [const { Cell::new(ptr::null_mut()) }; LARGEST / GRAIN + 1],
    }
}

/// The list that blocks of this layout wait in.
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

impl Heap {
    /// Memory from talc. When there is none, what waits goes back and may become what is wanted.
    fn fresh(&self, layout: Layout) -> *mut u8 {
        // SAFETY: layouts here are those of allocations, which are not empty.
        let memory = unsafe { self.talc.alloc(layout) };
        if !memory.is_null() || !self.give_back() {
            return memory;
        }
        // SAFETY: likewise.
        unsafe { self.talc.alloc(layout) }
    }

    /// Gives talc all that waits; whether there was something.
    fn give_back(&self) -> bool {
        let mut any = false;
        for (list, waiting) in self.waiting.iter().enumerate() {
            let mut next = waiting.replace(ptr::null_mut());
            while !next.is_null() {
                // SAFETY: blocks in a list are allocated as `block` says, and nobody has them.
                unsafe {
                    let block_at = next;
                    next = (*next).0;
                    self.talc.dealloc(block_at.cast(), block(list));
                }
                any = true;
            }
        }
        any
    }
}

// SAFETY: blocks come from talc, at least as large and aligned as asked, and are in one place at a time: with talc, in
// a list, or with whoever allocated them.
unsafe impl GlobalAlloc for Heap {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(list) = list(&layout) else {
            return self.fresh(layout);
        };
        let first = self.waiting[list].get();
        if first.is_null() {
            return self.fresh(block(list));
        }
        // SAFETY: a block in a list is nobody's, and holds its link.
        self.waiting[list].set(unsafe { (*first).0 });
        first.cast()
    }

    #[inline]
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        let Some(list) = list(&layout) else {
            // SAFETY: it came from `fresh` with this layout.
            return unsafe { self.talc.dealloc(memory, layout) };
        };
        let first = memory.cast::<Waiting>();
        // SAFETY: the caller gives up the block, which has room for a link and is aligned for it.
        unsafe { first.write(Waiting(self.waiting[list].get())) };
        self.waiting[list].set(first);
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's size is not too large for the alignment.
        let new = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        let (from, to) = (list(&layout), list(&new));
        if from.is_some() && from == to {
            return memory;
        }
        if from.is_none() && to.is_none() {
            // SAFETY: it came from `fresh` with this layout.
            let moved = unsafe { self.talc.realloc(memory, layout, size) };
            if !moved.is_null() || !self.give_back() {
                return moved;
            }
            // SAFETY: the failed attempt has left it as it was.
            return unsafe { self.talc.realloc(memory, layout, size) };
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
mod tests {
    use super::*;
    use std::boxed::Box;
    use std::vec;

    /// Gives two pieces of 64 KiB, and then no more.
    fn two_pieces(bytes: usize) -> Option<(usize, usize)> {
        static GIVEN: Single<usize> = Single::new(0);
        const PIECE: usize = 64 << 10;
        let mut given = GIVEN.borrow();
        *given += 1;
        (bytes <= PIECE && *given <= 2).then(|| {
            let memory = Box::leak(vec![0u8; PIECE].into_boxed_slice());
            (memory.as_mut_ptr() as usize, PIECE)
        })
    }

    #[test]
    fn blocks_are_taken_again_and_given_back_when_memory_ends() {
        set_source(two_pieces);
        let heap = new();
        let small = Layout::from_size_align(100, 8).unwrap();
        // SAFETY: every block is used within its layout and freed once.
        unsafe {
            let first = heap.alloc(small);
            heap.dealloc(first, small);
            assert_eq!(heap.alloc(small), first, "the block that waited");
            first.write_bytes(7, 100);
            assert_eq!(heap.realloc(first, small, 112), first, "it fits its block");
            let layout = Layout::from_size_align(112, 8).unwrap();
            let grown = heap.realloc(first, layout, 6000);
            assert_eq!(*grown.add(99), 7);
            let layout = Layout::from_size_align(6000, 8).unwrap();
            let shrunk = heap.realloc(grown, layout, 50);
            assert_eq!(*shrunk.add(49), 7);
            let mut all = vec![];
            loop {
                let block = heap.alloc(small);
                if block.is_null() {
                    break;
                }
                assert_eq!(block as usize % GRAIN, 0);
                block.write_bytes(1, 100);
                all.push(block);
            }
            assert!(all.len() > 900, "{}", all.len());
            assert!(
                heap.alloc(Layout::from_size_align(5000, 4096).unwrap())
                    .is_null()
            );
            for &block in &all {
                heap.dealloc(block, small);
            }
            let large = Layout::from_size_align(40000, 16).unwrap();
            assert!(!heap.alloc(large).is_null(), "what waited became one piece");
        }
    }
}
