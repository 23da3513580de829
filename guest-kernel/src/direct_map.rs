//! The kernel's and VM's view of RAM behind the hole: tables that are made at boot, one for each GiB that there is. The
//! first 4 GiB are initialised data (`arch/boot.rs`).
//!
//! Pages are of 2 MiB on every processor: with larger ones the memory that is left would depend on it.

use crate::fatal;
use crate::global::Global;
use crate::memory;
use abi::PAGE;
use abi::kernel::HOLE;

/// What a table of the second level covers.
const SPAN: u64 = 1 << 30;
/// What an entry of it covers.
const LARGE_PAGE: u64 = 2 << 20;
/// Present, writable, user (the levels above decide), accessed, dirty, large.
const LEAF: u64 = 0xe7;
/// Present, writable, user, accessed; not executable.
const TABLE: u64 = 1 << 63 | 0x67;

unsafe extern "C" {
    // SAFETY: a table of the assembly's, which only the kernel writes.
    safe static pdpt_physical: Global<[u64; 512]>;
}

/// Bytes of tables for RAM that ends at `end`.
pub fn bytes(end: u64) -> u64 {
    end.saturating_sub(HOLE.end).div_ceil(SPAN) * PAGE
}

/// Makes the tables at `at`, in RAM below the hole that is theirs for good, and has both views use them.
pub fn extend(at: u64, end: u64) {
    for number in 0..bytes(end) / PAGE {
        let (table, base) = (at + number * PAGE, HOLE.end + number * SPAN);
        if memory::ram_range(table, PAGE).is_err() {
            fatal!("no memory for page tables at {table:#x}");
        }
        for entry in 0..512 {
            let page = base + entry * LARGE_PAGE;
            let value = if page < end { page | LEAF } else { 0 };
            memory::write_word(table + entry * 8, value);
        }
        // Nothing was mapped there, so that no processor knows the entry.
        pdpt_physical.put((base / SPAN) as usize, table | TABLE);
    }
}
