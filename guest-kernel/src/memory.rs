//! What the kernel knows of physical memory.

use crate::arch::layout::PHYSICAL_BASE;
use crate::global::Global;
use abi::kernel::HOLE;
use abi::{Errno, PAGE};

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

/// Writes the 8-byte word at a physical address of RAM.
pub fn write_word(physical: u64, value: u64) {
    if is_ram(physical) {
        // SAFETY: RAM; callers own the page table they write.
        unsafe { ((PHYSICAL_BASE + physical) as *mut u64).write_volatile(value) };
    }
}

/// RAM bytes as the kernel sees them. `None` outside RAM.
pub fn slice(physical: u64, len: u64) -> Option<&'static [u8]> {
    ram_range(physical, len).ok()?;
    // SAFETY: RAM; used for boot data that nobody changes.
    Some(unsafe {
        core::slice::from_raw_parts((PHYSICAL_BASE + physical) as *const u8, len as usize)
    })
}

/// Clears whole pages of RAM.
pub fn clear(physical: u64, pages: u64) {
    if ram_range(physical, pages * PAGE).is_ok() {
        // SAFETY: RAM that the caller owns.
        unsafe { ((PHYSICAL_BASE + physical) as *mut u8).write_bytes(0, (pages * PAGE) as usize) };
    }
}
