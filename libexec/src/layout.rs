//! Where things go in a new address space. Linux's places, so that addresses look familiar
//! and programs that know them keep working; a [`Layout`] says where in one program.

use abi::{PAGE, kernel::USER_END};

/// One past the highest stack byte of a program whose layout is not random.
pub const STACK_TOP: u64 = USER_END;
/// Default RLIMIT_STACK: how far a program's stack may grow.
pub const STACK_SIZE: u64 = 8 << 20;
/// Room kept free below the stack's top for stacks of any limit: nothing of an image is
/// placed here, and no mapping goes here by itself.
pub const STACK_RESERVE: u64 = 1 << 30;
/// Images end at or below this address, under the lowest stack there can be.
pub const IMAGE_END: u64 = STACK_TOP - STACK_RANDOM - STACK_RESERVE;
/// Images start at or above this address, so that a null pointer with an offset still
/// faults (Linux's `mmap_min_addr`).
pub const IMAGE_START: u64 = 64 << 10;
/// Where a position-independent program (ET_DYN) is placed: two thirds of the address space,
/// as on Linux.
pub const DYN_BASE: u64 = abi::page_down(USER_END / 3 * 2);
/// Stack populated below the initial frame, because every program touches it at once and a
/// page fault costs far more than zeroing these pages.
pub const STACK_HEADROOM: u64 = 4 * PAGE;

/// The stack's top moves down by less than this: 22 bits of pages, as on Linux.
pub const STACK_RANDOM: u64 = PAGE << 22;
/// Mappings move down and a position-independent program up by less than this: 28 bits of
/// pages, as on Linux.
pub const MAP_RANDOM: u64 = PAGE << 28;
/// The heap starts less than this behind the program: 13 bits of pages, as on Linux.
pub const HEAP_RANDOM: u64 = PAGE << 13;

/// Where the parts of one program go. All are page multiples.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// One past the highest stack byte.
    pub stack_top: u64,
    /// Where a position-independent program goes, before its alignment is honoured.
    pub dyn_base: u64,
    /// The dynamic linker ends here, and mappings go below it.
    pub mmap_top: u64,
    /// From the end of the program to its heap.
    pub heap_gap: u64,
}

impl Layout {
    /// Without chance: for services, and for programs that asked for it (personality(2) with
    /// ADDR_NO_RANDOMIZE, `absentia run --no-randomize`).
    pub const FIXED: Layout = Layout {
        stack_top: STACK_TOP,
        dyn_base: DYN_BASE,
        mmap_top: IMAGE_END,
        heap_gap: 0,
    };

    /// Made from 256 random bits, of which it uses 91.
    pub const fn random(bits: [u64; 4]) -> Layout {
        Layout {
            stack_top: STACK_TOP - pages(bits[0], STACK_RANDOM),
            dyn_base: DYN_BASE + pages(bits[1], MAP_RANDOM),
            mmap_top: IMAGE_END - pages(bits[2], MAP_RANDOM),
            heap_gap: pages(bits[3], HEAP_RANDOM),
        }
    }
}

/// A page multiple below `range`, a power of two, out of the high bits.
const fn pages(bits: u64, range: u64) -> u64 {
    (bits >> 16 & (range / PAGE - 1)) * PAGE
}
