//! Which pages may be page tables from which KVM derived something, told from what is in them.
//!
//! KVM knows which pages are tables and tells nobody. But it follows what the guest writes into
//! them: what it derived from an entry comes from what the entry is now (or is looked at again
//! before it is used, where KVM lets the guest write: at the next load of CR3). So where a page
//! is about to become another, only an entry that is present and accessed now, and will be
//! something else, can have left something behind. Many words of ordinary data look like that;
//! touching them, too, costs a microsecond and is harmless.
//!
//! The entries are those of 64-bit paging. Where a guest pages otherwise, maps what is neither memory nor a device, or has
//! tables that stores do not reach, everything is to be forgotten ([`crate::kvm::forget`]).

use abi::page_table::{ACCESSED, ADDRESS, PRESENT};

use super::image::Page;
use crate::kvm::forget::{REACH, Touch};
use crate::memory::Line;

/// Present and accessed: no processor keeps a translation by an entry that is not both.
const USED: u64 = PRESENT | ACCESSED;
/// Most entries of a page that are touched one by one: KVM keeps what it knows of the others.
const SINGLY: usize = 2;

/// Collects what is to be touched, page by page.
#[derive(Debug)]
pub struct Touches {
    /// Entries that lead here or further lead nowhere.
    limit: u64,
    list: Vec<Touch>,
    /// Those of the page that is being looked at.
    entries: Vec<Touch>,
    /// There are some that stores do not reach.
    beyond: bool,
}

impl Touches {
    /// None yet; from the address `limit` on there is neither memory nor a device.
    pub fn new(limit: u64) -> Touches {
        Touches {
            limit,
            list: Vec::new(),
            entries: Vec::new(),
            beyond: false,
        }
    }

    /// At this offset of the page at `page` there was something else.
    pub fn changed(&mut self, page: u64, offset: usize, old: &Line, new: &Line) {
        if self.beyond || self.entries.len() > SINGLY {
            return;
        }
        let entries = old.as_chunks::<8>().0.iter().zip(new.as_chunks::<8>().0);
        for (index, (was, is)) in entries.enumerate() {
            let word = u64::from_le_bytes(*was);
            if word & USED != USED || word & ADDRESS >= self.limit || was == is {
                continue;
            }
            let Some(page) = self.within_reach(page) else {
                return;
            };
            let at = offset + index * 8;
            self.entries.push(Touch::entry(page, at, is[0]));
            if self.entries.len() > SINGLY {
                return;
            }
        }
    }

    /// That was all of the page at `page`, which is `contents` now.
    pub fn end(&mut self, page: u64, contents: &Page) {
        if self.entries.len() > SINGLY {
            self.entries.clear();
            self.all(page, contents);
        }
        self.list.append(&mut self.entries);
    }

    /// All of a page.
    pub fn all(&mut self, page: u64, contents: &Page) {
        self.entries.clear();
        if let Some(page) = self.within_reach(page) {
            self.list.push(Touch::page(page, contents));
        }
    }

    /// The address as stores have it.
    fn within_reach(&mut self, page: u64) -> Option<u32> {
        self.beyond |= page >= REACH;
        u32::try_from(page).ok().filter(|_| !self.beyond)
    }

    /// In the order of the pages; `None` when stores do not reach all of them.
    pub fn list(&self) -> Option<&[Touch]> {
        (!self.beyond).then_some(&self.list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::LINE;

    fn page(entries: &[(usize, u64)]) -> Page {
        let mut page = [0; abi::PAGE_SIZE];
        for &(index, entry) in entries {
            page[index * 8..][..8].copy_from_slice(&entry.to_le_bytes());
        }
        page
    }

    const LIMIT: u64 = 6 << 30;

    fn touched(old: &[(usize, u64)], new: &[(usize, u64)]) -> Vec<Touch> {
        touched_at(0x3000, old, new).expect("within reach")
    }

    fn touched_at(at: u64, old: &[(usize, u64)], new: &[(usize, u64)]) -> Option<Vec<Touch>> {
        let mut touches = Touches::new(LIMIT);
        let (old, new) = (page(old), page(new));
        let lines = old.as_chunks().0.iter().zip(new.as_chunks().0);
        for (index, (old, new)) in lines.enumerate() {
            touches.changed(at, index * LINE, old, new);
        }
        touches.end(at, &new);
        touches.list().map(<[Touch]>::to_vec)
    }

    #[test]
    fn entries_that_were_present_are_touched_with_what_they_become() {
        let old = [(0, 0x5027), (7, 0x6027), (511, 0x8000_0000_0000_7025)];
        assert!(touched(&old, &old).is_empty());
        // Every kind of change: absent, another frame, more or fewer rights.
        for new in [0, 0x9027, 0x6023, 0x6067, 1 << 63 | 0x6027, 0x6026, 0x6007] {
            let new = [old[0], (7, new), old[2]];
            let expected = Touch::entry(0x3000, 56, new[1].1 as u8);
            assert_eq!(touched(&old, &new), [expected]);
        }
        assert_eq!(
            touched(&old, &[old[0], old[1]]),
            [Touch::entry(0x3000, 0xff8, 0)]
        );
        // Nothing is kept of what was not present or accessed, or is beyond all memory.
        assert!(touched(&[(1, 0x6026)], &[(1, 0x7027)]).is_empty());
        assert!(touched(&[(1, 0x6007)], &[(1, 0x7027)]).is_empty());
        assert!(touched(&[(1, LIMIT | 0x27)], &[]).is_empty());
        assert_eq!(touched(&[(1, (LIMIT - 1) | 0x27)], &[]).len(), 1);
    }

    #[test]
    fn what_stores_do_not_reach_is_not_passed_over() {
        let old = [(7, 0x1_2345_6027)];
        assert_eq!(touched_at(REACH, &old, &[]), None);
        assert_eq!(touched_at(REACH, &old, &old), Some(Vec::new()));
        assert_eq!(touched_at(REACH, &[(1, 0x6007)], &[]), Some(Vec::new()));
        let mut touches = Touches::new(LIMIT);
        touches.all(REACH, &page(&[]));
        touches.all(0x3000, &page(&[]));
        assert_eq!(touches.list(), None);
    }

    #[test]
    fn pages_with_many_changes_are_touched_once() {
        let old: Vec<_> = (0..=SINGLY).map(|index| (index * 9, 0x1027)).collect();
        assert_eq!(touched(&old[1..], &[]).len(), SINGLY);
        let new = [(0, 0xabcd)];
        assert_eq!(
            touched(&old, &new),
            [Touch::page(0x3000, &page(&new))],
            "with a byte of what the page becomes"
        );
    }
}
