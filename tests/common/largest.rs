//! The largest allocation of a thread, for tests of what reads bytes that others control: none may
//! ask for more memory than its input is worth.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

std::thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, which remembers.
struct Remembers;

impl Remembers {
    fn note(size: usize) {
        // A thread that ends has nothing to note it in.
        let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(size)));
    }
}

// SAFETY: every call is the system allocator's.
unsafe impl GlobalAlloc for Remembers {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Remembers::note(layout.size());
        // SAFETY: the caller's promises are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are the same.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Remembers::note(size);
        // SAFETY: the caller's promises are the same.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static REMEMBERS: Remembers = Remembers;

/// Bytes of the largest allocation that `work` makes on this thread.
pub fn allocation_of(work: impl FnOnce()) -> usize {
    LARGEST.set(0);
    work();
    LARGEST.get()
}
