//! Page tables of x86-64 as the processor reads them: bits of an entry, and the way from an address to the entry that
//! maps it. VM edits them, the kernel and the VMM follow them.

/// The page may be accessed.
pub const PRESENT: u64 = 1 << 0;
/// It may be written.
pub const WRITE: u64 = 1 << 1;
/// By user code.
pub const USER: u64 = 1 << 2;
/// Write-through and no caching: device registers.
pub const UNCACHED: u64 = 1 << 3 | 1 << 4;
/// The processor has used it.
pub const ACCESSED: u64 = 1 << 5;
/// The processor has written through it.
pub const DIRTY: u64 = 1 << 6;
/// At levels 1 and 2: it maps a page of 2 MiB or 1 GiB, and names no table.
pub const LARGE: u64 = 1 << 7;
/// Not executable.
pub const NO_EXECUTE: u64 = 1 << 63;

/// The physical address in an entry.
pub const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Entries of a table.
pub const ENTRIES: usize = 512;
/// The level of the table that CR3 names; that of the leaves is 0.
pub const TOP: u32 = 3;

/// Shift of the addresses that an entry of a `level` covers: 12 at level 0, 39 at [`TOP`].
#[inline]
pub const fn shift(level: u32) -> u32 {
    12 + 9 * level
}

/// Which entry of the table of a `level` is on the way to `address`.
#[inline]
pub const fn index(address: u64, level: u32) -> usize {
    const { assert!(ENTRIES == 0x1ff + 1) };
    (address >> shift(level) & 0x1ff) as usize
}

/// The last entry on the way to an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Last {
    /// Its level: 0, or more when it is not present or maps a large page.
    pub level: u32,
    /// Where it lies, physical.
    pub at: u64,
    /// Its value.
    pub entry: u64,
}

impl Last {
    /// The physical address of `address`, to which this is the last entry; `None` where nothing is mapped.
    pub const fn translate(&self, address: u64) -> Option<u64> {
        if self.entry & PRESENT == 0 {
            return None;
        }
        let within = (1 << shift(self.level)) - 1;
        Some(self.entry & ADDRESS & !within | address & within)
    }
}

/// Follows the tables below `top` (a value of CR3) to `address`, by what `read` has at a physical address of eight
/// bytes; `None` when it has nothing there.
#[inline]
pub fn follow(top: u64, address: u64, mut read: impl FnMut(u64) -> Option<u64>) -> Option<Last> {
    let (mut table, mut level) = (top & ADDRESS, TOP);
    loop {
        let at = table + 8 * index(address, level) as u64;
        let entry = read(at)?;
        let is_last = level == 0 || entry & PRESENT == 0 || level < TOP && entry & LARGE != 0;
        if is_last {
            return Some(Last { level, at, entry });
        }
        (table, level) = (entry & ADDRESS, level - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tables at 0x1000 to 0x4000 that map a page at 0x40_2000 and 2 MiB at 0.
    fn read(at: u64) -> Option<u64> {
        match at {
            0x1000 => Some(0x2000 | 7),
            0x2000 => Some(0x3000 | 7),
            0x3000 => Some(0x60_0000 | 7 | LARGE),
            0x3010 => Some(0x4000 | 7),
            0x4010 => Some(NO_EXECUTE | 0x9000 | 7),
            0x1008..0x5000 => Some(0),
            _ => None,
        }
    }

    #[test]
    fn addresses_are_followed_to_their_last_entry() {
        let physical = |address| follow(0x1fff, address, read)?.translate(address);
        assert_eq!(physical(0x40_2abc), Some(0x9abc));
        assert_eq!(physical(0x12_3456), Some(0x72_3456));
        assert_eq!(physical(0x40_3000), None);
        let last = |address| follow(0x1000, address, read).map(|last| (last.level, last.at));
        assert_eq!(last(0x40_3000), Some((0, 0x4018)));
        assert_eq!(last(0x20_0000), Some((1, 0x3008)));
        assert_eq!(last(1 << 39), Some((3, 0x1008)));
        assert_eq!(follow(0x7000, 0, read), None);
    }
}
