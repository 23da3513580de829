//! Cache pages that VM maps into programs.

use abi::proto::vm::{
    CacheClean, CacheForget, CacheMap, CachePages, CacheRelease, CacheSet, CacheSetRun, Discard,
    MapFlags, Mmap, Populate, Prot,
};
use abi::{Endpoint, Errno};
use core::ops::Range;
use ext2::{Elsewhere, PAGE, PageStore};
use rt::ipc;

/// One range of addresses from VM, a slot a page; which pages have memory is the volume's choice.
pub struct SharedPages {
    base: *mut u8,
    capacity: usize,
    /// Names this file system in VM's cache; none before it is mounted.
    device: Option<u64>,
}

impl SharedPages {
    /// Addresses for `capacity` pages (at least 64), without memory.
    pub fn new(capacity: usize) -> Result<SharedPages, Errno> {
        let cache = Mmap {
            target: Endpoint::SELF,
            addr: 0,
            len: (capacity * PAGE) as u64,
            prot: Prot::READ | Prot::WRITE,
            flags: MapFlags::CACHE,
        };
        let mapped = ipc::call(Endpoint::VM, cache)?;
        Ok(SharedPages {
            base: mapped.addr as *mut u8,
            capacity,
            device: None,
        })
    }

    /// The file system got its device number. Pages of an earlier life are forgotten.
    pub fn set_device(&mut self, device: u64) {
        self.device = Some(device);
        self.forget_device();
    }

    /// Has VM drop all pages of this file system.
    pub fn forget_device(&mut self) {
        if let Some(dev) = self.device {
            let all = CacheForget {
                dev,
                ino: u64::MAX,
                offset: 0,
                end: u64::MAX,
            };
            // VM knows no such pages: just as well.
            let _ = ipc::call(Endpoint::VM, all);
        }
    }

    /// What mappings had changed in `[offset, offset + len)` of the file is known here now: VM
    /// may drop its pages.
    pub fn taken_over(&mut self, ino: u32, offset: u64, len: u64) {
        let Some(dev) = self.device else { return };
        let clean = CacheClean {
            dev,
            ino: ino as u64,
            offset,
            len,
        };
        if let Err(errno) = ipc::call(Endpoint::VM, clean) {
            rt::log!("VM keeps pages of inode {ino}: {errno}");
        }
    }

    fn address(&self, slot: usize) -> u64 {
        assert!(slot < self.capacity, "a slot beyond the cache");
        self.base as u64 + (slot * PAGE) as u64
    }
}

impl PageStore for SharedPages {
    fn capacity(&self) -> usize {
        self.capacity
    }

    fn page(&self, slot: usize) -> &[u8] {
        // SAFETY: the slot is inside the range that VM mapped for us (checked by `address`);
        // the borrow of `self` keeps other borrows of it away. A program with a writable
        // shared mapping of a published page may change bytes while another server runs us;
        // file data is only copied, nothing depends on what it says.
        unsafe { core::slice::from_raw_parts(self.address(slot) as *const u8, PAGE) }
    }

    fn page_mut(&mut self, slot: usize) -> &mut [u8] {
        // SAFETY: as for `page`, and `self` is borrowed exclusively.
        unsafe { core::slice::from_raw_parts_mut(self.address(slot) as *mut u8, PAGE) }
    }

    fn pages_mut(&mut self, slot: usize, count: usize) -> Option<&mut [u8]> {
        let last = slot.checked_add(count.checked_sub(1)?)?;
        self.address(last);
        // SAFETY: as for `page_mut`, for all slots from `slot` to `last`, which lie one behind the
        // other in the range.
        Some(unsafe {
            core::slice::from_raw_parts_mut(self.address(slot) as *mut u8, count * PAGE)
        })
    }

    fn publish(&mut self, slot: usize, ino: u32, offset: u64) -> Result<(), Errno> {
        let addr = self.address(slot);
        let request = CacheSet {
            addr,
            dev: self.device.ok_or(Errno::ENODEV)?,
            ino: ino as u64,
            offset,
        };
        match ipc::call(Endpoint::VM, request) {
            // The frame has an earlier life that programs still map: the contents move on.
            Err(Errno::EBUSY) => {
                let contents = self.page(slot).to_vec();
                ipc::call(Endpoint::VM, CacheRelease { addr })?;
                self.page_mut(slot).copy_from_slice(&contents);
                ipc::call(Endpoint::VM, request)
            }
            other => other,
        }
    }

    fn publish_all(&mut self, ino: u32, pages: &[(usize, u64)]) -> usize {
        let Some(dev) = self.device else { return 0 };
        let mut shared = 0;
        while let [(slot, offset), ..] = pages[shared..] {
            let rows = pages[shared..].iter().enumerate();
            let row = rows.take_while(|&(n, &page)| page == (slot + n, offset + (n * PAGE) as u64));
            let run = CacheSetRun {
                addr: self.address(slot),
                dev,
                ino: u64::from(ino),
                offset,
                count: row.count() as u64,
            };
            let done = ipc::call(Endpoint::VM, run).map_or(0, |run| run.done);
            shared += done as usize;
            // Alone the next one may be had in another way.
            if done < run.count {
                let (slot, offset) = pages[shared];
                if self.publish(slot, ino, offset).is_err() {
                    break;
                }
                shared += 1;
            }
        }
        shared
    }

    fn elsewhere(&mut self, ino: u32, offset: u64) -> Elsewhere {
        let Some(dev) = self.device else {
            return Elsewhere::NOWHERE;
        };
        let ino = ino as u64;
        match ipc::call(Endpoint::VM, CachePages { dev, ino, offset }) {
            Ok(cached) => Elsewhere {
                pages: cached.pages,
                any: cached.any,
            },
            Err(_) => Elsewhere::UNKNOWN,
        }
    }

    fn fetch(&mut self, slot: usize, ino: u32, offset: u64) -> bool {
        let addr = self.address(slot);
        let Some(dev) = self.device else { return false };
        let ino = ino as u64;
        let request = CacheMap {
            addr,
            dev,
            ino,
            offset,
        };
        ipc::call(Endpoint::VM, request).is_ok()
    }

    fn release(&mut self, slot: usize) -> Result<(), Errno> {
        let addr = self.address(slot);
        ipc::call(Endpoint::VM, CacheRelease { addr })
    }

    fn discard(&mut self, slot: usize, count: usize) -> bool {
        let (addr, len) = (self.address(slot), (count * PAGE) as u64);
        ipc::call(Endpoint::VM, Discard { addr, len }).is_ok()
    }

    fn supply(&mut self, slot: usize, count: usize, needed: bool) -> Result<usize, Errno> {
        let (addr, len) = (self.address(slot), (count * PAGE) as u64);
        let populated = ipc::call(Endpoint::VM, Populate { addr, len, needed })?;
        Ok(populated.pages as usize)
    }

    fn forget(&mut self, ino: u32, bytes: Range<u64>) {
        let Some(dev) = self.device else { return };
        let forget = CacheForget {
            dev,
            ino: ino as u64,
            offset: bytes.start,
            end: bytes.end,
        };
        // VM has nothing of it: just as well.
        let _ = ipc::call(Endpoint::VM, forget);
    }
}
