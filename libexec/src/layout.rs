//! Where things go in a new address space. Linux's places, so that addresses look familiar
//! and programs that know them keep working.

use abi::{PAGE, kernel::USER_END};

/// One past the highest stack byte.
pub const STACK_TOP: u64 = USER_END;
/// Default RLIMIT_STACK: how far a program's stack may grow.
pub const STACK_SIZE: u64 = 8 << 20;
/// Room kept free below [`STACK_TOP`] for stacks of any limit: nothing of an image is placed
/// here.
pub const STACK_RESERVE: u64 = 1 << 30;
/// Images end at or below this address.
pub const IMAGE_END: u64 = STACK_TOP - STACK_RESERVE;
/// Images start at or above this address, so that a null pointer with an offset still
/// faults (Linux's `mmap_min_addr`).
pub const IMAGE_START: u64 = 64 << 10;
/// Where a position-independent program (ET_DYN) is placed: two thirds of the address space,
/// as on Linux.
pub const DYN_BASE: u64 = abi::page_down(USER_END / 3 * 2);
/// Stack populated below the initial frame, because every program touches it at once and a
/// page fault costs far more than zeroing these pages.
pub const STACK_HEADROOM: u64 = 4 * PAGE;
