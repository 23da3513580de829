//! Memory the device can reach: one physically contiguous, wired region, taken from VM at the
//! start of the driver and handed out in pages that are never given back (queues and buffers
//! live as long as the driver).

use abi::proto::vm::AllocContiguous;
use abi::{Endpoint, Errno, PAGE_SIZE};
use core::ptr::NonNull;
use rt::cell::Single;
use virtio_drivers::{BufferDirection, Hal, PhysAddr};

struct Region {
    start: usize,
    physical: u64,
    len: usize,
    taken: usize,
}

static REGION: Single<Region> = Single::new(Region {
    start: 0,
    physical: 0,
    len: 0,
    taken: 0,
});

/// Takes a region of `pages` pages from VM. Once, before anything else here.
pub fn init(pages: usize) -> Result<(), Errno> {
    let len = pages * PAGE_SIZE;
    let got = rt::ipc::call(Endpoint::VM, AllocContiguous { len: len as u64 })?;
    *REGION.borrow() = Region {
        start: got.addr as usize,
        physical: got.phys,
        len,
        taken: 0,
    };
    Ok(())
}

/// Uses ordinary memory whose physical address is its address: for tests on the host.
pub fn init_identity(memory: &'static mut [[u8; PAGE_SIZE]]) {
    let start = memory.as_mut_ptr() as usize;
    let end = (start + size_of_val(memory)) & !(PAGE_SIZE - 1);
    let start = start.next_multiple_of(PAGE_SIZE);
    *REGION.borrow() = Region {
        start,
        physical: start as u64,
        len: end - start,
        taken: 0,
    };
}

fn take(pages: usize) -> Option<(PhysAddr, NonNull<u8>)> {
    let mut region = REGION.borrow();
    let len = pages.checked_mul(PAGE_SIZE)?;
    if len > region.len - region.taken {
        return None;
    }
    let offset = region.taken;
    region.taken += len;
    let address = NonNull::new((region.start + offset) as *mut u8)?;
    Some((region.physical + offset as u64, address))
}

/// Zeroed pages of the region.
#[derive(Debug)]
pub struct Buffer {
    start: NonNull<u8>,
    len: usize,
}

impl Buffer {
    /// Takes `pages` pages; `ENOMEM` when the region is used up.
    pub fn new(pages: usize) -> Result<Buffer, Errno> {
        let (_, start) = take(pages).ok_or(Errno::ENOMEM)?;
        Ok(Buffer {
            start,
            len: pages * PAGE_SIZE,
        })
    }

    /// The bytes. Not while the device owns them.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `new` took these pages for this buffer alone; they stay mapped for ever.
        unsafe { core::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// The bytes, to change. Not while the device owns them.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and `self` is borrowed exclusively.
        unsafe { core::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

/// The region as `virtio-drivers` wants it.
#[derive(Debug)]
pub struct Pool;

// SAFETY: pages are handed out once, zeroed by VM, page aligned, contiguous, and never taken
// back; `share` translates addresses inside the region and refuses all others.
unsafe impl Hal for Pool {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        // Physical address 0 is the crate's sign of failure.
        take(pages).unwrap_or((0, NonNull::dangling()))
    }

    unsafe fn dma_dealloc(_: PhysAddr, _: NonNull<u8>, _: usize) -> i32 {
        0
    }

    unsafe fn mmio_phys_to_virt(_: PhysAddr, _: usize) -> NonNull<u8> {
        unreachable!("only the PCI transport asks for this")
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        let region = REGION.borrow();
        let offset = (buffer.cast::<u8>().as_ptr() as usize).wrapping_sub(region.start);
        assert!(
            offset < region.len && buffer.len() <= region.len - offset,
            "a buffer outside the DMA region"
        );
        region.physical + offset as u64
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}
