//! What the kernel knows of physical memory.

use crate::arch::layout::PHYSICAL_BASE;
use crate::global::Global;
use abi::{Errno, PAGE};

static RAM_END: Global<u64> = Global::new(0);

/// RAM ends here (no range above it is touched through the kernel's view).
pub fn set_ram_end(end: u64) {
    RAM_END.set(end);
}

/// Whether the page at `physical` is RAM.
#[inline(always)]
pub fn is_ram(physical: u64) -> bool {
    physical < RAM_END.get()
}

/// Checks a physical range.
pub fn ram_range(physical: u64, len: u64) -> Result<(), Errno> {
    match physical.checked_add(len) {
        Some(end) if end <= RAM_END.get() => Ok(()),
        _ => Err(Errno::EFAULT),
    }
}

/// The 8-byte word at a physical address; `None` outside RAM.
#[inline(always)]
pub fn read_word(physical: u64) -> Option<u64> {
    if !is_ram(physical) {
        return None;
    }
    // SAFETY: RAM, aligned by the callers (page-table entries).
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
