//! What the kernel knows of physical memory.

use crate::arch::layout::{self, PHYSICAL_BASE};
use crate::global::Global;
use abi::kernel::HOLE;
use abi::{Errno, PAGE};
use core::cell::Cell;
use zerocopy::FromBytes;

/// RAM below the hole ends here.
static LOW_END: Global<u64> = Global::new(0);
/// Bytes from the end of the hole to the end of RAM.
static HIGH_LEN: Global<u64> = Global::new(0);
/// All RAM ends here.
static END: Global<u64> = Global::new(0);

/// RAM ends here: nothing else is touched through the kernel's view. `high` is 0 where there is none behind the hole.
pub fn set_ram_ends(low: u64, high: u64) {
    LOW_END.set(low.min(HOLE.start));
    HIGH_LEN.set(high.saturating_sub(HOLE.end));
    END.set(high.max(LOW_END.get()));
}

/// Whether the page at `physical` is RAM.
#[inline(always)]
pub fn is_ram(physical: u64) -> bool {
    physical < LOW_END.get() || is_high(physical)
}

// Not inlined: the copies of small machines, most of all, are to stay short.
#[inline(never)]
fn is_high(physical: u64) -> bool {
    physical.wrapping_sub(HOLE.end) < HIGH_LEN.get()
}

/// Checks a physical range.
pub fn ram_range(physical: u64, len: u64) -> Result<(), Errno> {
    let end = physical.checked_add(len).ok_or(Errno::EFAULT)?;
    let high = || physical >= HOLE.end && end - HOLE.end <= HIGH_LEN.get();
    match end <= LOW_END.get() || high() {
        true => Ok(()),
        false => Err(Errno::EFAULT),
    }
}

/// The entry of a page table at a physical address; `None` behind all RAM. One comparison: walks of tables are most of what
/// a copy is. In the hole, where no table of VM's is, it is whatever a device answers.
#[inline(always)]
pub fn read_word(physical: u64) -> Option<u64> {
    if physical >= END.get() {
        return None;
    }
    // SAFETY: RAM or the hole, both of which the kernel sees, aligned by the callers.
    Some(unsafe { ((PHYSICAL_BASE + physical) as *const u64).read_volatile() })
}

/// `count` values in RAM as the kernel sees it. `None` outside RAM, where they would not be aligned, and where the
/// kernel itself is: what Rust knows of is not to change behind its back. While the kernel runs nobody else does, so
/// that cells will do for what programs and VM change at other times.
pub fn cells<T: FromBytes>(physical: u64, count: u64) -> Option<&'static [Cell<T>]> {
    let len = count.checked_mul(size_of::<T>() as u64)?;
    ram_range(physical, len).ok()?;
    let (start, end) = kernel_image();
    let inside = physical < end && start < physical + len;
    if inside || !physical.is_multiple_of(align_of::<T>() as u64) {
        return None;
    }
    let first = (PHYSICAL_BASE + physical) as *const Cell<T>;
    // SAFETY: aligned RAM, mapped for ever, in which no variable of the kernel's lies; any bits are a `T`.
    Some(unsafe { core::slice::from_raw_parts(first, count as usize) })
}

/// Bytes of RAM that stay as they are.
///
/// # Safety
/// Nobody is ever given these frames.
pub unsafe fn kept(physical: u64, len: u64) -> Option<&'static [u8]> {
    let cells: &[Cell<u8>] = cells(physical, len)?;
    // SAFETY: nobody writes there, by contract.
    Some(unsafe { core::slice::from_raw_parts(cells.as_ptr().cast(), cells.len()) })
}

/// Where the kernel itself is: physical addresses.
pub fn kernel_image() -> (u64, u64) {
    unsafe extern "C" {
        static kernel_end: u8;
    }
    // A physical address, by the linker script.
    (layout::KERNEL_START, &raw const kernel_end as u64)
}

/// Writes an entry of a page table at a physical address of RAM.
pub fn write_word(physical: u64, value: u64) {
    if let Some([word]) = cells(physical, 1) {
        word.set(value);
    }
}

/// Clears whole pages of RAM.
pub fn clear(physical: u64, pages: u64) {
    for page in (0..pages).map(|page| physical + page * PAGE) {
        let Some([page]) = cells::<[u64; 512]>(page, 1) else {
            return;
        };
        page.set([0; 512]);
    }
}
