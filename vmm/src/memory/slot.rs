//! The mapping of guest RAM that KVM uses, on which pages can be taken away from the guest.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard};

use anyhow::{Context, Result};
use rustix::fd::OwnedFd;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap, mprotect, munmap};

const PAGE: usize = abi::PAGE_SIZE;

/// What the guest may do with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Its accesses fail.
    Nothing,
    /// Its writes fail.
    Read,
    /// Whatever it likes.
    All,
}

impl Access {
    fn flags(self) -> MprotectFlags {
        match self {
            Access::Nothing => MprotectFlags::empty(),
            Access::Read => MprotectFlags::READ,
            Access::All => MprotectFlags::READ | MprotectFlags::WRITE,
        }
    }
}

/// Pages, by number, with which the guest may not do whatever it likes.
pub type Restrictions = BTreeMap<u64, Access>;

/// The mapping.
#[derive(Debug)]
pub struct SlotMapping {
    host: NonNull<c_void>,
    size: usize,
    restrictions: Mutex<Restrictions>,
}

// SAFETY: the mapping belongs to the process, not to a thread; this value only protects and
// unmaps it.
unsafe impl Send for SlotMapping {}
// SAFETY: as above; what changes is behind a lock.
unsafe impl Sync for SlotMapping {}

impl SlotMapping {
    /// Maps the first `size` bytes of the memfd.
    pub(super) fn new(memory: &OwnedFd, size: usize) -> Result<SlotMapping> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let host = unsafe {
            mmap(
                std::ptr::null_mut(),
                size,
                protection,
                MapFlags::SHARED,
                memory,
                0,
            )
        };
        Ok(SlotMapping {
            host: NonNull::new(host.context("mmap")?).context("a mapping at 0")?,
            size,
            restrictions: Mutex::default(),
        })
    }

    /// Where it starts.
    pub(super) fn host(&self) -> NonNull<u8> {
        self.host.cast()
    }

    fn lock(&self) -> MutexGuard<'_, Restrictions> {
        self.restrictions
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// See [`super::GuestRam::restrictions`].
    pub(super) fn restrictions(&self) -> Restrictions {
        self.lock().clone()
    }

    /// See [`super::GuestRam::restrict`].
    pub(super) fn restrict(&self, wanted: &Restrictions) -> Result<()> {
        let now = self.restrictions();
        for &page in now.keys().filter(|page| !wanted.contains_key(page)) {
            self.set(page, Access::All)?;
        }
        for (&page, &access) in wanted {
            self.set(page, access)?;
        }
        Ok(())
    }

    /// Changes what the guest may do with a page.
    pub(super) fn set(&self, page: u64, access: Access) -> Result<()> {
        let mut restrictions = self.lock();
        let before = restrictions.get(&page).copied().unwrap_or(Access::All);
        if before == access {
            return Ok(());
        }
        self.apply(page, access)?;
        match access {
            Access::All => restrictions.remove(&page),
            _ => restrictions.insert(page, access),
        };
        Ok(())
    }

    /// Drops KVM's translations of a page: they end with any protection of the host's.
    pub(super) fn toggle(&self, page: u64) -> Result<()> {
        let restrictions = self.lock();
        match restrictions.get(&page) {
            None => {
                self.apply(page, Access::Read)?;
                self.apply(page, Access::All)
            }
            Some(Access::Read) => {
                self.apply(page, Access::Nothing)?;
                self.apply(page, Access::Read)
            }
            Some(_) => Ok(()),
        }
    }

    fn apply(&self, page: u64, access: Access) -> Result<()> {
        let offset = page as usize * PAGE;
        assert!(offset < self.size, "checked by the caller");
        // SAFETY: a page inside this mapping, to which no reference is ever made: it is only
        // for KVM, which copes with any protection.
        unsafe { mprotect(self.host.byte_add(offset).as_ptr(), PAGE, access.flags()) }
            .with_context(|| format!("protecting the guest's page {page:#x}"))
    }
}

impl Drop for SlotMapping {
    fn drop(&mut self) {
        // SAFETY: mapped by this value, which is the only one that knows the address beside
        // the machine's memory slot; machines are dropped before their RAM. A failure leaves
        // the mapping, which harms nobody.
        let _ = unsafe { munmap(self.host.as_ptr(), self.size) };
    }
}
