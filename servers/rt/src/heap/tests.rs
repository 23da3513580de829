//! What the heap promises, on pieces of the host's memory.

use super::*;
use std::boxed::Box;
use std::vec;
use std::vec::Vec;

/// Gives two pieces of 64 KiB, and then no more.
fn two_pieces(bytes: usize, _: bool) -> Option<usize> {
    static GIVEN: Single<usize> = Single::new(0);
    const PIECE: usize = 64 << 10;
    let mut given = GIVEN.borrow();
    (bytes <= PIECE && *given < 2).then(|| {
        *given += 1;
        let memory = Box::leak(vec![0u8; PIECE].into_boxed_slice());
        memory.as_mut_ptr() as usize
    })
}

#[test]
fn blocks_are_taken_again_and_given_back_when_memory_ends() {
    let _alone = alone();
    set_source(two_pieces, |_, _| {});
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
        assert!(all.len() > 450, "{}", all.len());
        assert!(
            heap.alloc(Layout::from_size_align(40000, 16).unwrap())
                .is_null()
        );
        for &block in &all {
            heap.dealloc(block, small);
        }
        let other = Layout::from_size_align(4000, 16).unwrap();
        assert!(!heap.alloc(other).is_null(), "what waited became one piece");
    }
}

/// Gives pieces until told not to, and counts what came back.
mod pieces {
    use super::*;
    use std::alloc::alloc;
    use std::thread_local;

    thread_local! {
        pub static OUT: Cell<usize> = const { Cell::new(0) };
        pub static EMPTY: Cell<bool> = const { Cell::new(false) };
    }

    fn layout(bytes: usize) -> Layout {
        Layout::from_size_align(bytes, PAGE_SIZE).unwrap()
    }

    pub fn grow(bytes: usize, _: bool) -> Option<usize> {
        if EMPTY.get() {
            return None;
        }
        assert_eq!(bytes % PAGE_SIZE, 0);
        OUT.set(OUT.get() + bytes);
        // SAFETY: not empty.
        Some(unsafe { alloc(layout(bytes)) } as usize)
    }

    /// It may be a part of what was given, so that nobody gets it again.
    pub fn shrink(base: usize, bytes: usize) {
        OUT.set(OUT.get() - bytes);
        // SAFETY: `grow` gave it, and the heap has nothing there any more.
        unsafe { (base as *mut u8).write_bytes(0xdd, bytes) };
    }
}

/// One after the other: where pieces come from is the server's, not a heap's.
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn alone() -> std::sync::MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(|e| e.into_inner())
}

#[test]
fn what_a_burst_took_goes_back() {
    let _alone = alone();
    set_source(pieces::grow, pieces::shrink);
    let heap = new();
    for size in [48, 4096, 60_000, 700_000] {
        let layout = Layout::from_size_align(size, 8).unwrap();
        // SAFETY: every block is used within its layout and freed once.
        unsafe {
            let blocks: Vec<_> = (0..(32 << 20) / size).map(|_| heap.alloc(layout)).collect();
            for &block in &blocks {
                block.write_bytes(1, size);
            }
            assert!(pieces::OUT.get() > 31 << 20);
            for &block in &blocks {
                heap.dealloc(block, layout);
            }
        }
        let left = pieces::OUT.get();
        assert!(left <= 1 << 20, "{left} bytes after blocks of {size}");
    }
    pieces::OUT.set(0);
}

/// Refuses the allocation of this number, and says what it was.
mod refusing {
    use super::*;
    use std::thread_local;

    thread_local! {
        pub static AT: Cell<(u32, Refusal)> = const { Cell::new((0, Refusal::No)) };
        pub static REFUSED: Cell<Option<Wanted>> = const { Cell::new(None) };
    }

    pub fn watch(wanted: Wanted, _: usize) -> Refusal {
        let (left, refusal) = AT.get();
        if left == 0 {
            return Refusal::No;
        }
        AT.set((left - 1, refusal));
        if left > 1 {
            return Refusal::No;
        }
        REFUSED.set(Some(wanted));
        refusal
    }
}

/// What a server does with two messages, each allocation refused in turn: small blocks are
/// there nevertheless, large ones are not, and a server that cannot fill its reserve up says
/// so; when memory is used up for good as well as for once.
#[test]
fn every_allocation_may_be_refused() {
    let _alone = alone();
    set_source(pieces::grow, pieces::shrink);
    let small = |bytes| Layout::from_size_align(bytes, 8).unwrap();
    let large = small(100_000);
    for refusal in [Refusal::Once, Refusal::Exhausted] {
        let mut kinds = Vec::new();
        for number in 1.. {
            let heap = new();
            assert!(heap.ready());
            heap.watch.set(Some(refusing::watch));
            refusing::REFUSED.set(None);
            refusing::AT.set((number, refusal));
            // SAFETY: every block is used within its layout and freed once.
            unsafe {
                for _ in 0..2 {
                    let before = refusing::REFUSED.get();
                    let now = || refusing::REFUSED.get().filter(|_| before.is_none());
                    heap.refill();
                    let once = refusal == Refusal::Once;
                    if once {
                        assert_eq!(heap.ready(), now() != Some(Wanted::Reserve));
                    }
                    for bytes in [40, 3000, 12_000] {
                        let block = heap.alloc(small(bytes));
                        assert!(!block.is_null(), "{bytes} bytes at {number}");
                        block.write_bytes(1, bytes);
                        heap.dealloc(block, small(bytes));
                    }
                    let block = heap.alloc(large);
                    let denied = match once {
                        true => now() == Some(Wanted::Large),
                        false => refusing::REFUSED.get().is_some(),
                    };
                    assert_eq!(block.is_null(), denied, "{number}");
                    if !block.is_null() {
                        heap.dealloc(block, large);
                    }
                }
            }
            match refusing::REFUSED.get() {
                Some(wanted) => kinds.push(wanted),
                None => break,
            }
        }
        for wanted in [Wanted::Reserve, Wanted::Small, Wanted::Large] {
            assert!(kinds.contains(&wanted), "{kinds:?}");
        }
        // With memory again the reserve is full again.
        let heap = new();
        heap.use_up();
        assert!(!heap.ready());
        heap.set_dry(false);
        assert!(heap.ready());
    }
    pieces::OUT.set(0);
}

#[test]
fn a_large_block_shrinks_where_it_is_and_without_memory() {
    let _alone = alone();
    set_source(pieces::grow, pieces::shrink);
    let heap = new();
    let layout = |bytes| Layout::from_size_align(bytes, 8).unwrap();
    // SAFETY: the block is used within its layout and freed once.
    unsafe {
        let block = heap.alloc(layout(100_000));
        block.write_bytes(7, 100_000);
        pieces::EMPTY.set(true);
        assert!(heap.realloc(block, layout(100_000), 200_000).is_null());
        assert_eq!(heap.realloc(block, layout(100_000), 99_000), block);
        assert_eq!(heap.realloc(block, layout(99_000), 20_000), block);
        assert_eq!(pieces::OUT.get(), 20 << 10);
        assert_eq!(*block.add(19_999), 7);
        heap.dealloc(block, layout(20_000));
        assert_eq!(heap.alloc(layout(17_000)), block, "it was kept");
    }
    pieces::EMPTY.set(false);
    pieces::OUT.set(0);
}

#[test]
fn small_blocks_that_live_long_keep_no_large_ones() {
    let _alone = alone();
    set_source(pieces::grow, pieces::shrink);
    let heap = new();
    let large = Layout::from_size_align(64 << 10, 8).unwrap();
    let small = Layout::from_size_align(300, 8).unwrap();
    // SAFETY: every block is used within its layout and freed once.
    unsafe {
        let pairs: Vec<_> = (0..1000)
            .map(|_| (heap.alloc(large), heap.alloc(small)))
            .collect();
        assert!(pieces::OUT.get() > 64_000 << 10);
        pairs.iter().for_each(|pair| heap.dealloc(pair.0, large));
        let left = pieces::OUT.get();
        assert!(left < 1 << 20, "{left} bytes beside the small ones");
    }
    pieces::OUT.set(0);
}

#[test]
fn the_reserve_serves_what_must_not_fail_and_is_filled_again() {
    let _alone = alone();
    set_source(pieces::grow, pieces::shrink);
    let heap = new();
    assert!(heap.ready());
    pieces::EMPTY.set(true);
    let huge = Layout::from_size_align(SMALL + 1, 16).unwrap();
    for size in [200, LARGEST, SMALL] {
        let layout = Layout::from_size_align(size, 16).unwrap();
        // SAFETY: every block is used within its layout and freed once.
        unsafe {
            let mut blocks = vec![];
            while heap.reserved.get() == RESERVE {
                blocks.push(heap.alloc(layout));
            }
            let before = blocks.len();
            loop {
                let block = heap.alloc(layout);
                if block.is_null() {
                    break;
                }
                blocks.push(block);
            }
            // Of the last block of the reserve only what emptied it.
            let least = (RESERVE - 1) * (RESERVED.size() / (size + 32));
            assert!(blocks.len() - before >= least, "{size}");
            assert!(!heap.ready());
            assert!(heap.alloc(huge).is_null(), "only what is small");
            for &block in &blocks {
                heap.dealloc(block, layout);
            }
        }
        assert!(heap.ready(), "of what was freed");
    }
    pieces::EMPTY.set(false);
    pieces::OUT.set(0);
}
