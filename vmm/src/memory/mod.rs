//! Guest RAM: one memfd, from guest-physical address 0.
//!
//! The VMM's own view is mapped once and never protected. A laboratory machine maps the same
//! memory a second time, for KVM: on that mapping pages can be taken away from the guest
//! ([`slot`]) while the VMM still sees them.

pub mod footprint;
pub mod slot;

use std::fs::File;
use std::ptr::NonNull;

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vm_memory::bitmap::AtomicBitmap;
use vm_memory::{FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use slot::{Access, SlotMapping};

/// Guest memory as every device sees it. The bitmap says which pages the VMM wrote.
pub type Ram = GuestMemoryMmap<AtomicBitmap>;

/// Smallest guest that is accepted, bytes.
pub const MINIMUM: u64 = 16 << 20;
/// RAM ends below the hole in which devices and interrupt controllers live.
pub const MAXIMUM: u64 = 3 << 30;
/// Bytes of a page that are compared at once.
pub const LINE: usize = 128;
/// As many bytes.
pub type Line = [u8; LINE];
/// What `--mem` is when it is not given.
pub const DEFAULT: u64 = 128 << 20;

/// The memfd and its mappings.
#[derive(Debug)]
pub struct GuestRam {
    /// Access to guest-physical memory, checked.
    pub map: Ram,
    /// Bytes of RAM.
    pub size: u64,
    /// The mapping that KVM uses, where it is not the VMM's own.
    slot: Option<SlotMapping>,
}

impl GuestRam {
    /// Allocates `size` bytes of zeroed guest RAM. Pages take host memory when first used.
    pub fn new(size: u64) -> Result<GuestRam> {
        GuestRam::mapped(size, false)
    }

    /// Likewise, with a second mapping on which pages can be taken away.
    pub fn with_slot(size: u64) -> Result<GuestRam> {
        GuestRam::mapped(size, true)
    }

    fn mapped(size: u64, second: bool) -> Result<GuestRam> {
        ensure!(
            (MINIMUM..=MAXIMUM).contains(&size) && size.is_multiple_of(abi::PAGE),
            "guest memory of {} KiB: it must be whole pages, at least {} MiB and at most {} MiB",
            size >> 10,
            MINIMUM >> 20,
            MAXIMUM >> 20,
        );
        let fd =
            memfd_create("absentia-ram", MemfdFlags::CLOEXEC).context("memfd for guest RAM")?;
        ftruncate(&fd, size).context("size of guest RAM")?;
        let slot = if second {
            Some(SlotMapping::new(&fd, size as usize).context("mapping guest RAM for KVM")?)
        } else {
            None
        };
        let file = FileOffset::new(File::from(fd), 0);
        let map = Ram::from_ranges_with_files([(GuestAddress(0), size as usize, Some(file))])
            .context("mapping guest RAM")?;
        Ok(GuestRam { map, size, slot })
    }

    /// Where RAM starts in the VMM's own view.
    pub fn host(&self) -> Result<NonNull<u8>> {
        let host = self.map.get_host_address(GuestAddress(0));
        NonNull::new(host.context("guest RAM")?).context("guest RAM is mapped nowhere")
    }

    /// Where RAM starts in the mapping that KVM is to use.
    pub fn for_kvm(&self) -> Result<NonNull<u8>> {
        match &self.slot {
            Some(slot) => Ok(slot.host()),
            None => self.host(),
        }
    }

    /// Whether pages can be taken away, and writes are to be followed.
    pub fn has_slot(&self) -> bool {
        self.slot.is_some()
    }

    /// The pages the VMM wrote since this was asked last, a bit each.
    pub fn written(&self) -> Vec<u64> {
        let region = self.map.iter().next();
        region.map_or_else(Vec::new, |region| {
            region.get_mmap().bitmap().get_and_reset()
        })
    }

    /// Reads a whole page.
    pub fn read_page(&self, number: u64, page: &mut [u8; abi::PAGE_SIZE]) -> Result<()> {
        let from = self.host_page(number)?;
        // SAFETY: a page of the mapping, and one that is nobody else's. The guest may write the
        // former meanwhile: bytes are read that have any value.
        unsafe { from.copy_to_nonoverlapping(NonNull::from(page).cast(), abi::PAGE_SIZE) };
        Ok(())
    }

    /// Makes a page what it is said to have been, and tells of each line that was another: its
    /// offset, what was there and what is now. This is no write that [`GuestRam::written`]
    /// tells. Says whether the page was another. The guest must not run.
    pub fn put_page(
        &self,
        number: u64,
        page: &[u8; abi::PAGE_SIZE],
        mut changed: impl FnMut(usize, &Line, &Line),
    ) -> Result<bool> {
        let lines = self.host_page(number)?.cast::<Line>();
        let mut another = false;
        for (index, line) in page.as_chunks::<LINE>().0.iter().enumerate() {
            // SAFETY: inside the page, of which nobody has a reference.
            let old = unsafe { lines.add(index).read() };
            if old != *line {
                // SAFETY: as above.
                unsafe { lines.add(index).write(*line) };
                changed(index * LINE, &old, line);
                another = true;
            }
        }
        Ok(another)
    }

    fn host_page(&self, number: u64) -> Result<NonNull<u8>> {
        ensure!(
            number < self.size / abi::PAGE,
            "RAM has no page {number:#x}"
        );
        // SAFETY: inside the mapping, which is as long as RAM.
        Ok(unsafe { self.host()?.byte_add((number * abi::PAGE) as usize) })
    }

    /// Makes KVM forget what it knows of the page at this guest-physical address, after a
    /// page-table entry that maps it was changed by the VMM. A page that the guest may not use
    /// is known to nobody.
    pub fn toggle(&self, address: u64) -> Result<()> {
        let (page, slot) = self.page(address)?;
        slot.toggle(page)
    }

    /// Takes the page away: the guest's accesses fail ([`crate::lab::Absences`]).
    pub fn withdraw(&self, address: u64) -> Result<()> {
        let (page, slot) = self.page(address)?;
        slot.set(page, Access::Nothing)
    }

    /// Makes the page read-only for the guest.
    pub fn protect(&self, address: u64) -> Result<()> {
        let (page, slot) = self.page(address)?;
        slot.set(page, Access::Read)
    }

    /// Lets the guest use the page again.
    pub fn give_back(&self, address: u64) -> Result<()> {
        let (page, slot) = self.page(address)?;
        slot.set(page, Access::All)
    }

    /// What is withdrawn or protected, by page number.
    pub fn restrictions(&self) -> slot::Restrictions {
        self.slot
            .as_ref()
            .map(SlotMapping::restrictions)
            .unwrap_or_default()
    }

    /// Withdraws and protects exactly these.
    pub fn restrict(&self, restrictions: &slot::Restrictions) -> Result<()> {
        match &self.slot {
            Some(slot) => slot.restrict(restrictions),
            None if restrictions.is_empty() => Ok(()),
            None => bail!("this machine has no pages that can be taken away"),
        }
    }

    fn page(&self, address: u64) -> Result<(u64, &SlotMapping)> {
        ensure!(
            address < self.size,
            "{address:#x} is no address of RAM, which ends at {:#x}",
            self.size
        );
        let slot = self.slot.as_ref();
        let slot = slot.context("this machine has no pages that can be taken away")?;
        Ok((address / abi::PAGE, slot))
    }
}

/// Reads a size as `--mem` takes it: a number of bytes, or with K, M or G behind it.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let shift = match unit
        .to_ascii_lowercase()
        .trim_end_matches("ib")
        .trim_end_matches('b')
    {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        _ => return Err(format!("unknown unit {unit:?}: use K, M or G")),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| "a size looks like 128M".to_string())?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| "that many bytes do not exist".to_string())
}

#[cfg(test)]
mod tests {
    use vm_memory::Bytes;

    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("64M"), Ok(64 << 20));
        assert_eq!(parse_size("1GiB"), Ok(1 << 30));
        assert_eq!(parse_size("12kb"), Ok(12 << 10));
        assert!(parse_size("M").is_err());
        assert!(parse_size("12X").is_err());
        assert!(parse_size("99999999999999G").is_err());
    }

    #[test]
    fn limits_are_errors() {
        assert!(GuestRam::new(4 << 30).is_err());
        assert!(GuestRam::new(4096).is_err());
        assert!(GuestRam::new(MINIMUM + 1).is_err());
        assert!(GuestRam::new(MINIMUM).is_ok());
    }

    #[test]
    fn what_the_vmm_writes_is_noted_once() {
        let ram = GuestRam::new(MINIMUM).unwrap();
        assert!(ram.written().iter().all(|&word| word == 0));
        let across = GuestAddress(3 * abi::PAGE - 1);
        ram.map.write_slice(&[1, 2], across).unwrap();
        let mut byte = [0];
        ram.map
            .read_slice(&mut byte, GuestAddress(9 * abi::PAGE))
            .unwrap();
        assert_eq!(ram.written()[0], 0b1100);
        assert_eq!(ram.written()[0], 0);
        let mut changed = Vec::new();
        let note = |offset, old: &Line, new: &Line| changed.push((offset, old[LINE - 1], new[0]));
        assert!(ram.put_page(2, &[0; abi::PAGE_SIZE], note).unwrap());
        assert_eq!(changed, [(abi::PAGE_SIZE - LINE, 1, 0)]);
        let put = |number, byte| ram.put_page(number, &[byte; abi::PAGE_SIZE], |_, _, _| {});
        assert!(put(3, 7).unwrap());
        assert!(!put(3, 7).unwrap());
        assert!(!put(4, 0).unwrap());
        assert!(put(MINIMUM / abi::PAGE, 0).is_err());
        assert_eq!(ram.written()[0], 0);
        let mut bytes = [9; 2];
        ram.map
            .read_slice(&mut bytes, GuestAddress(4 * abi::PAGE - 1))
            .unwrap();
        assert_eq!(bytes, [7, 0]);
    }

    #[test]
    fn both_mappings_show_the_same_memory() {
        let ram = GuestRam::with_slot(MINIMUM).unwrap();
        assert_ne!(ram.host().unwrap(), ram.for_kvm().unwrap());
        ram.map.write_slice(b"here", GuestAddress(0x5000)).unwrap();
        // SAFETY: four bytes inside the mapping, which nobody writes meanwhile.
        let seen = unsafe { ram.for_kvm().unwrap().add(0x5000).cast::<[u8; 4]>().read() };
        assert_eq!(&seen, b"here");
        // The VMM's own view stays as it is when pages are taken away.
        ram.withdraw(0x5000).unwrap();
        ram.protect(0x6000).unwrap();
        ram.toggle(0x5000).unwrap();
        ram.map.write_slice(b"gone", GuestAddress(0x5000)).unwrap();
        assert_eq!(ram.restrictions().len(), 2);
        let kept = ram.restrictions();
        ram.give_back(0x5000).unwrap();
        ram.withdraw(0x9000).unwrap();
        ram.restrict(&kept).unwrap();
        assert_eq!(ram.restrictions(), kept);
        ram.restrict(&slot::Restrictions::new()).unwrap();
        // SAFETY: as above.
        let seen = unsafe { ram.for_kvm().unwrap().add(0x5000).cast::<[u8; 4]>().read() };
        assert_eq!(&seen, b"gone");
        assert!(ram.withdraw(MINIMUM).is_err());
        assert!(GuestRam::new(MINIMUM).unwrap().withdraw(0).is_err());
    }
}
