//! Pages from VM, in chunks, that VM maps into programs.

use abi::proto::vm::{CacheForget, CacheRelease, CacheSet, Discard, Munmap, Populate};
use abi::{Endpoint, Errno};
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::ops::Range;
use rt::ipc;
use tmpfs::{PAGE, PageStore};

/// Pages fetched from VM at once.
const CHUNK: usize = 64;
/// Freed pages given back to VM at once.
const AT_ONCE: usize = 256;
/// Freed pages kept for the next file; programs may need the memory of more.
const SPARE: usize = 64;

/// The pages of one file system. Chunks stay as long as it; pages in them are reused.
#[derive(Default)]
pub struct Memory {
    chunks: Vec<*mut u8>,
    /// Pages of the last chunk that were never given out (and are zero).
    fresh: usize,
    free: Vec<u32>,
    /// Free pages that VM has back.
    vacant: BTreeSet<u32>,
    /// Names this file system in VM's cache; none before it is mounted.
    device: Option<u64>,
}

impl Memory {
    /// The file system got its device number. Pages of an earlier life are forgotten.
    pub fn set_device(&mut self, device: u64) {
        self.device = Some(device);
        self.forget_all(device);
    }

    fn forget_all(&self, dev: u64) {
        let all = CacheForget {
            dev,
            ino: u64::MAX,
            offset: 0,
            end: u64::MAX,
        };
        // VM knows no such pages: just as well.
        let _ = ipc::call(Endpoint::VM, all);
    }

    fn address(&self, page: u32) -> *mut u8 {
        let page = page as usize;
        self.chunks[page / CHUNK].wrapping_add(page % CHUNK * PAGE)
    }

    /// Gives free pages back to VM until `keep` are left.
    pub fn trim(&mut self, keep: usize) {
        let follows = |&a: &u32, &b: &u32| a + 1 == b && !(b as usize).is_multiple_of(CHUNK);
        let kept = keep.min(self.free.len());
        self.free[kept..].sort_unstable();
        // A few at a time: this is where memory comes from when there is none.
        while self.free.len() > keep {
            let from = keep.max(self.free.len().saturating_sub(AT_ONCE));
            let surplus = self.free.split_off(from);
            for run in surplus.chunk_by(follows) {
                self.discard(run);
            }
        }
    }

    /// Gives a run of pages within a chunk back.
    fn discard(&mut self, run: &[u32]) {
        let discard = Discard {
            addr: self.address(run[0]) as u64,
            len: (run.len() * PAGE) as u64,
        };
        match ipc::call(Endpoint::VM, discard) {
            Ok(()) => self.vacant.extend(run),
            Err(errno) => rt::log!("pages lost: {errno}"),
        }
    }

    /// Gets pages back from VM: all of a chunk if there is as much, else one.
    fn supply(&mut self) -> Result<(), Errno> {
        let page = *self.vacant.last().ok_or(Errno::ENOSPC)?;
        let first = page - page % CHUNK as u32;
        let populate = |page: u32, count: usize| Populate {
            addr: self.address(page) as u64,
            len: (count * PAGE) as u64,
            needed: true,
        };
        let populated = ipc::call(Endpoint::VM, populate(first, CHUNK));
        if populated.is_ok_and(|there| there.pages == CHUNK as u64) {
            self.free.extend(self.vacant.split_off(&first));
            return Ok(());
        }
        ipc::call(Endpoint::VM, populate(page, 1))?;
        self.vacant.remove(&page);
        self.free.push(page);
        Ok(())
    }

    fn release(&self, page: u32) -> Result<(), Errno> {
        let addr = self.address(page) as u64;
        ipc::call(Endpoint::VM, CacheRelease { addr })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Some(device) = self.device {
            self.forget_all(device);
        }
        for chunk in &self.chunks {
            let unmap = Munmap {
                target: Endpoint::SELF,
                addr: *chunk as u64,
                len: (CHUNK * PAGE) as u64,
            };
            if let Err(errno) = ipc::call(Endpoint::VM, unmap) {
                rt::log!("memory of an unmounted file system: {errno}");
            }
        }
    }
}

impl PageStore for Memory {
    fn allocate(&mut self) -> Result<u32, Errno> {
        if self.free.is_empty() && self.fresh == 0 {
            // None vacant, or none to be had: then there is no new chunk either.
            let _ = self.supply();
        }
        if let Some(page) = self.free.pop() {
            self.page_mut(page).fill(0);
            return Ok(page);
        }
        if self.fresh == 0 {
            let chunk = rt::vm::map(CHUNK * PAGE).map_err(|errno| match errno {
                // The memory of the machine is this file system's disk.
                Errno::ENOMEM => Errno::ENOSPC,
                errno => errno,
            })?;
            self.chunks.push(chunk as *mut u8);
            self.fresh = CHUNK;
        }
        let page = self.chunks.len() * CHUNK - self.fresh;
        self.fresh -= 1;
        Ok(page as u32)
    }

    fn free(&mut self, page: u32, published: bool) {
        // A published frame may still be mapped by programs: it is theirs now.
        if published {
            self.discard(&[page]);
            return;
        }
        self.free.push(page);
        if self.free.len() >= 2 * SPARE {
            self.trim(SPARE);
        }
    }

    fn page(&self, page: u32) -> &[u8] {
        // SAFETY: `address` is inside a chunk that VM mapped for us, and chunks stay;
        // the borrow of `self` keeps other borrows of the page away. A program with a writable
        // shared mapping of a published page may change bytes meanwhile; file data is only
        // copied, nothing depends on what it says.
        unsafe { core::slice::from_raw_parts(self.address(page), PAGE) }
    }

    fn page_mut(&mut self, page: u32) -> &mut [u8] {
        // SAFETY: as for `page`, and `self` is borrowed exclusively.
        unsafe { core::slice::from_raw_parts_mut(self.address(page), PAGE) }
    }

    fn publish(&mut self, page: u32, ino: u64, offset: u64) -> Result<(), Errno> {
        let addr = self.address(page) as u64;
        let request = CacheSet {
            addr,
            dev: self.device.ok_or(Errno::ENODEV)?,
            ino,
            offset,
        };
        match ipc::call(Endpoint::VM, request) {
            // The frame has an earlier life that programs still map: the contents move on.
            Err(Errno::EBUSY) => {
                let contents = self.page(page).to_vec();
                self.release(page)?;
                self.page_mut(page).copy_from_slice(&contents);
                ipc::call(Endpoint::VM, request)
            }
            other => other,
        }
    }

    fn forget(&mut self, ino: u64, bytes: Range<u64>) {
        let Some(dev) = self.device else { return };
        let forget = CacheForget {
            dev,
            ino,
            offset: bytes.start,
            end: bytes.end,
        };
        // VM has nothing of it: just as well.
        let _ = ipc::call(Endpoint::VM, forget);
    }
}
