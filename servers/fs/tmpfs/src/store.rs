//! Pages for file contents.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use crate::{Errno, PAGE, Result};

/// Gives and takes pages. A page may be *published*: shared, frame and all, with VM's cache.
pub trait PageStore {
    /// A zeroed page.
    fn allocate(&mut self) -> Result<u32>;
    /// Takes a page back; `published` when it was shared (and is forgotten by now).
    fn free(&mut self, page: u32, published: bool);
    /// The page's bytes.
    fn page(&self, page: u32) -> &[u8];
    /// The page's bytes.
    fn page_mut(&mut self, page: u32) -> &mut [u8];
    /// Shares the page as the one at byte `offset` of `ino`.
    fn publish(&mut self, _page: u32, _ino: u64, _offset: u64) -> Result<()> {
        Err(Errno::ENOSYS)
    }
    /// VM drops its pages of `ino` in these bytes; to `u64::MAX` where the file ends.
    fn forget(&mut self, _ino: u64, _bytes: Range<u64>) {}
}

/// Pages on the heap, not shared.
#[derive(Default)]
pub struct HeapPages {
    pages: Vec<Box<[u8]>>,
    free: Vec<u32>,
}

impl HeapPages {
    /// Pages given out.
    pub fn in_use(&self) -> usize {
        self.pages.len() - self.free.len()
    }
}

impl PageStore for HeapPages {
    fn allocate(&mut self) -> Result<u32> {
        if let Some(page) = self.free.pop() {
            self.page_mut(page).fill(0);
            return Ok(page);
        }
        self.pages.push(vec![0; PAGE].into_boxed_slice());
        Ok(self.pages.len() as u32 - 1)
    }
    fn free(&mut self, page: u32, _published: bool) {
        self.free.push(page);
    }
    fn page(&self, page: u32) -> &[u8] {
        &self.pages[page as usize]
    }
    fn page_mut(&mut self, page: u32) -> &mut [u8] {
        &mut self.pages[page as usize]
    }
}
