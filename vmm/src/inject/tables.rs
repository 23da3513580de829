//! The guest's page tables as the VMM edits them.

use abi::page_table::{ADDRESS, ENTRIES, LARGE, Last, PRESENT, TOP, follow, shift};
use vm_memory::{Bytes, GuestAddress};

use crate::memory::Ram;

/// A leaf entry that maps 4 KiB of RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Where the entry lies, physical.
    pub at: u64,
    /// Its value.
    pub entry: u64,
}

impl Leaf {
    /// Physical address of the page it maps.
    pub fn frame(&self) -> u64 {
        self.entry & ADDRESS
    }

    /// Whether the page may be accessed.
    pub fn present(&self) -> bool {
        self.entry & PRESENT != 0
    }

    /// The entry as if VM had evicted the page.
    pub fn evicted(&self) -> u64 {
        self.entry & !PRESENT | abi::lab::PTE_EVICTED
    }
}

/// The leaf entry of `address` below the top-level table at `cr3`; `None` when tables or page are
/// not there, or the page is no ordinary one.
pub fn leaf(ram: &Ram, cr3: u64, address: u64) -> Option<Leaf> {
    if address >= abi::kernel::USER_END {
        return None;
    }
    let Last { level, at, entry } = last(ram, cr3, address)?;
    (level == 0 && entry & ADDRESS != 0).then_some(Leaf { at, entry })
}

/// The last entry on the way to `address`.
fn last(ram: &Ram, cr3: u64, address: u64) -> Option<Last> {
    follow(cr3, address, |at| ram.read_obj(GuestAddress(at)).ok())
}

/// The physical address of a linear one, in either half, large pages included; `None` where
/// nothing is mapped. It may lie outside RAM.
pub fn translate(ram: &Ram, cr3: u64, address: u64) -> Option<u64> {
    last(ram, cr3, address)?.translate(address)
}

/// An entry of the lower half's tables that is present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// It names another table, at this physical address.
    Table(u64),
    /// It maps 4 KiB at an address.
    Page(u64, Leaf),
}

/// Shows `look` all present entries of the lower half below the table at `cr3`, in order of
/// addresses, until it returns false.
pub fn walk(ram: &Ram, cr3: u64, mut look: impl FnMut(Entry) -> bool) {
    /// Tables that are looked at: more than any guest needs, and an end to forged ones.
    const TABLES: u32 = 1 << 16;
    /// False when it is over.
    fn below(
        ram: &Ram,
        (table, level, base): (u64, u32, u64),
        left: &mut u32,
        look: &mut dyn FnMut(Entry) -> bool,
    ) -> bool {
        let Some(fewer) = left.checked_sub(1) else {
            return false;
        };
        *left = fewer;
        let last = if level == TOP { ENTRIES / 2 } else { ENTRIES };
        let mut entries = [0u8; abi::PAGE_SIZE];
        if ram.read_slice(&mut entries, GuestAddress(table)).is_err() {
            return true;
        }
        for (index, bytes) in entries.as_chunks::<8>().0.iter().take(last).enumerate() {
            let entry = u64::from_le_bytes(*bytes);
            if entry & PRESENT == 0 || (level > 0 && entry & LARGE != 0) {
                continue;
            }
            let address = base | (index as u64) << shift(level);
            let goes_on = if level == 0 {
                let at = table + index as u64 * 8;
                look(Entry::Page(address, Leaf { at, entry }))
            } else {
                let next = entry & ADDRESS;
                look(Entry::Table(next)) && below(ram, (next, level - 1, address), left, look)
            };
            if !goes_on {
                return false;
            }
        }
        true
    }
    below(ram, (cr3 & ADDRESS, TOP, 0), &mut TABLES.clone(), &mut look);
}

/// Where `frame` is mapped below the table at `cr3`: the first address at which it is.
pub fn find(ram: &Ram, cr3: u64, frame: u64) -> Option<u64> {
    let mut found = None;
    walk(ram, cr3, |entry| {
        if let Entry::Page(address, leaf) = entry
            && leaf.frame() == frame
        {
            found = Some(address);
        }
        found.is_none()
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tables at 0x1000..0x5000 that map 0x40_2000 to frame 0x9000.
    fn tables() -> Ram {
        let ram = Ram::from_ranges(&[(GuestAddress(0), 0x10000)]).unwrap();
        let put = |at: u64, entry: u64| ram.write_obj(entry, GuestAddress(at)).unwrap();
        put(0x1000, 0x2000 | 7);
        put(0x2000, 0x3000 | 7);
        put(0x3000 + 2 * 8, 0x4000 | 7);
        put(0x4000 + 2 * 8, 0x9000 | 7);
        ram
    }

    #[test]
    fn leaves_are_found_both_ways() {
        let ram = tables();
        let leaf = leaf(&ram, 0x1000, 0x40_2abc).unwrap();
        assert_eq!((leaf.at, leaf.frame()), (0x4010, 0x9000));
        assert!(leaf.present());
        assert_eq!(leaf.evicted() & 1, 0);
        assert_eq!(find(&ram, 0x1000, 0x9000), Some(0x40_2000));
        assert_eq!(find(&ram, 0x1000, 0xa000), None);
        let mut seen = Vec::new();
        walk(&ram, 0x1000, |entry| {
            seen.push(entry);
            true
        });
        let tables = [0x2000, 0x3000, 0x4000].map(Entry::Table);
        assert_eq!(seen[..3], tables);
        assert_eq!(seen[3..], [Entry::Page(0x40_2000, leaf)]);
        assert_eq!(translate(&ram, 0x1000, 0x40_2abc), Some(0x9abc));
        assert_eq!(translate(&ram, 0x1000, 0x40_3abc), None);
        // A page of 2 MiB.
        ram.write_obj(0x40_0000u64 | 0x87, GuestAddress(0x3000))
            .unwrap();
        assert_eq!(translate(&ram, 0x1000, 0x1234), Some(0x40_1234));
    }

    #[test]
    fn hostile_tables_lead_nowhere() {
        let ram = tables();
        assert_eq!(leaf(&ram, 0x1000, 0x80_0000), None);
        assert_eq!(leaf(&ram, 0xffff_f000, 0), None);
        assert_eq!(leaf(&ram, 0x1000, u64::MAX), None);
        // A table that contains itself.
        ram.write_obj(0x1000u64 | 7, GuestAddress(0x1000)).unwrap();
        assert_eq!(leaf(&ram, 0x1000, 0).map(|l| l.frame()), Some(0x1000));
        assert!(find(&ram, 0x1000, 0xb000).is_none());
    }
}
