//! Guest RAM: one memfd, from guest-physical address 0, with a hole for devices ([`mod@parts`]). Nothing of it takes host
//! memory before it is used.
//!
//! The VMM's own view is mapped once and never protected. A laboratory machine maps the same
//! memory a second time, for KVM: on that mapping pages can be taken away from the guest
//! ([`slot`]) while the VMM still sees them.

pub mod footprint;
pub mod parts;
pub mod slot;

use std::fs::File;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use abi::kernel::{HOLE, PHYSICAL_MAX};
use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{Advice, madvise};
use vm_memory::bitmap::AtomicBitmap;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestRegionMmap};

use parts::{Part, address_of, number_of, parts};
use slot::{Access, SlotMapping};

/// Guest memory as every device sees it. The bitmap says which pages the VMM wrote.
pub type Ram = GuestMemoryMmap<AtomicBitmap>;

/// Smallest guest that is accepted, bytes.
pub const MINIMUM: u64 = 16 << 20;
/// Largest guest that the guest's kernel can see all of, bytes.
pub const MAXIMUM: u64 = PHYSICAL_MAX - (HOLE.end - HOLE.start);
/// Bytes that every boot uses, a little less than that: from [`LOW`] on, but those that VM takes behind the hole.
const BOOT: u64 = 6 << 20;
/// Below it are the loader's structures and a PC's firmware.
const LOW: u64 = 1 << 20;
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
        let ram = GuestRam::mapped(size, false)?;
        ram.provide_for_boot()?;
        Ok(ram)
    }

    /// Likewise, with a second mapping on which pages can be taken away.
    pub fn with_slot(size: u64) -> Result<GuestRam> {
        GuestRam::mapped(size, true)
    }

    fn mapped(size: u64, second: bool) -> Result<GuestRam> {
        ensure!(
            (MINIMUM..=MAXIMUM).contains(&size) && size.is_multiple_of(abi::PAGE),
            "guest memory of {} KiB: it must be whole pages, at least {} MiB and at most {} GiB (--mem)",
            size >> 10,
            MINIMUM >> 20,
            MAXIMUM >> 30,
        );
        let fd =
            memfd_create("absentia-ram", MemfdFlags::CLOEXEC).context("memfd for guest RAM")?;
        ftruncate(&fd, size).with_context(|| too_much(size))?;
        let slot = match second {
            true => Some(SlotMapping::new(&fd, size as usize).with_context(|| too_much(size))?),
            false => None,
        };
        let map = map(&File::from(fd), size, second)?;
        Ok(GuestRam { map, size, slot })
    }

    /// Has the host give at once what every boot uses ([`BOOT`]): page by page, as the guest comes to it, takes longer.
    fn provide_for_boot(&self) -> Result<()> {
        let high = self.size.saturating_sub(HOLE.start).min(BOOT);
        for (at, len) in [(LOW, BOOT - high), (HOLE.end, high)] {
            if len > 0 {
                let host = self.host(at)?.as_ptr().cast();
                // SAFETY: inside a part of RAM, the smallest of which is longer. What is in it stays, and a failure
                // only costs time.
                let _ = unsafe { madvise(host, len as usize, Advice::LinuxPopulateWrite) };
            }
        }
        Ok(())
    }

    /// The parts, and where each starts in the mapping that KVM is to use.
    pub fn parts_for_kvm(&self) -> impl Iterator<Item = Result<(Part, NonNull<u8>)>> {
        parts(self.size).map(|part| {
            let host = match &self.slot {
                // SAFETY: inside the mapping, which is as long as RAM.
                Some(slot) => unsafe { slot.host().byte_add(part.offset as usize) },
                None => self.host(part.address)?,
            };
            Ok((part, host))
        })
    }

    /// Where an address is in the VMM's own view, up to the end of its part.
    fn host(&self, address: u64) -> Result<NonNull<u8>> {
        let host = self.map.get_host_address(GuestAddress(address));
        NonNull::new(host.context("guest RAM")?).context("guest RAM is mapped nowhere")
    }

    /// Addresses from here on are neither memory nor devices.
    pub fn limit(&self) -> u64 {
        parts(self.size).fold(HOLE.end, |limit, part| limit.max(part.end()))
    }

    /// Whether it has this address.
    pub fn contains(&self, address: u64) -> bool {
        number_of(self.size, address).is_some()
    }

    /// Whether pages can be taken away, and writes are to be followed.
    pub fn has_slot(&self) -> bool {
        self.slot.is_some()
    }

    /// The pages the VMM wrote since this was asked last, a bit each by their numbers. RAM has a slot.
    pub fn written(&self) -> Vec<u64> {
        let regions = self.map.iter();
        regions
            .flat_map(|region| region.get_mmap().bitmap().get_and_reset())
            .collect()
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
        self.host(address_of(number))
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
        let number = number_of(self.size, address)
            .with_context(|| format!("{address:#x} is no address of RAM"))?;
        let slot = self.slot.as_ref();
        let slot = slot.context("this machine has no pages that can be taken away")?;
        Ok((number, slot))
    }
}

/// What a host says no to.
fn too_much(size: u64) -> String {
    format!(
        "this host does not give a process {} MiB of addresses: give the guest less (--mem), or raise what limits them \
         (ulimit -v)",
        size >> 20
    )
}

/// Maps the file of guest RAM, which is `size` bytes long. Where it is `followed`, the bitmap has a bit for each page that
/// is written through this mapping.
pub fn map(file: &File, size: u64, followed: bool) -> Result<Ram> {
    let file = std::sync::Arc::new(file.try_clone().context("guest RAM")?);
    let region = |part: Part| -> Result<GuestRegionMmap<AtomicBitmap>> {
        let len = usize::try_from(part.len).context("guest RAM")?;
        // One bit costs nothing, however large RAM is.
        let unit = if followed { abi::PAGE_SIZE } else { len };
        let unit = NonZeroUsize::new(unit).context("no guest RAM")?;
        let mapping = MmapRegionBuilder::new_with_bitmap(len, AtomicBitmap::new(len, unit))
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(libc::MAP_SHARED | libc::MAP_NORESERVE)
            .with_file_offset(FileOffset::from_arc(file.clone(), part.offset))
            .build()
            .with_context(|| too_much(size))?;
        GuestRegionMmap::new(mapping, GuestAddress(part.address)).context("guest RAM")
    };
    let regions = parts(size).map(region).collect::<Result<Vec<_>>>()?;
    Ram::from_regions(regions).context("guest RAM")
}

/// Reads a size as `--mem` takes it: a number of bytes, or with K, M or G behind it, and those with B or iB.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let number = text.to_ascii_lowercase();
    let number = match number.strip_suffix("ib") {
        Some(number) => number,
        None if number.starts_with("0x") => &number,
        None => number.strip_suffix('b').unwrap_or(&number),
    };
    abi::number::parse(number)
        .ok_or_else(|| format!("{text:?} is no size: one looks like 128M, with K, M or G"))
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
        assert_eq!(parse_size("0x1b"), Ok(0x1b));
        assert!(parse_size("M").is_err());
        assert!(parse_size("12X").is_err());
        assert!(parse_size("99999999999999G").is_err());
    }

    #[test]
    fn limits_are_errors() {
        assert!(GuestRam::new(MAXIMUM + abi::PAGE).is_err());
        assert!(GuestRam::new(4096).is_err());
        assert!(GuestRam::new(MINIMUM + 1).is_err());
        assert!(GuestRam::new(MINIMUM).is_ok());
    }

    #[test]
    fn ram_goes_on_behind_the_hole() {
        let size = HOLE.start + MINIMUM;
        let ram = GuestRam::with_slot(size).unwrap();
        let (last, behind) = (HOLE.start / abi::PAGE - 1, HOLE.start / abi::PAGE);
        for (number, at) in [(last, HOLE.start - 1), (behind, HOLE.end)] {
            assert!(ram.contains(at));
            ram.map.write_slice(&[7], GuestAddress(at)).unwrap();
            let written = ram.written();
            assert_eq!(written.len() as u64, size / abi::PAGE / 64);
            let pages: Vec<_> = crate::snapshot::image::ones(&written).collect();
            assert_eq!(pages, [number as usize]);
            let mut page = [0; abi::PAGE_SIZE];
            ram.read_page(number, &mut page).unwrap();
            assert_eq!(page[at as usize % abi::PAGE_SIZE], 7);
            ram.protect(at).unwrap();
            assert_eq!(ram.restrictions().keys().copied().last(), Some(number));
        }
        // KVM's mapping shows the same.
        let (part, for_kvm) = ram.parts_for_kvm().nth(1).unwrap().unwrap();
        // SAFETY: the first byte of the part, which nobody writes meanwhile.
        assert_eq!((part.address, unsafe { for_kvm.read() }), (HOLE.end, 7));
        for nowhere in [HOLE.start, HOLE.end - 1, HOLE.end + MINIMUM] {
            assert!(!ram.contains(nowhere));
            assert!(ram.map.write_slice(&[7], GuestAddress(nowhere)).is_err());
            assert!(ram.withdraw(nowhere).is_err());
        }
        let across = GuestAddress(HOLE.start - 1);
        assert!(ram.map.write_slice(&[1, 2], across).is_err());
        assert_eq!(ram.limit(), HOLE.end + MINIMUM);
        assert_eq!(GuestRam::new(MINIMUM).unwrap().limit(), HOLE.end);
    }

    #[test]
    fn what_the_vmm_writes_is_noted_once() {
        let ram = GuestRam::with_slot(MINIMUM).unwrap();
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
        let (part, for_kvm) = ram.parts_for_kvm().next().unwrap().unwrap();
        assert_ne!(ram.host(part.address).unwrap(), for_kvm);
        ram.map.write_slice(b"here", GuestAddress(0x5000)).unwrap();
        // SAFETY: four bytes inside the mapping, which nobody writes meanwhile.
        let seen = unsafe { for_kvm.add(0x5000).cast::<[u8; 4]>().read() };
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
        let seen = unsafe { for_kvm.add(0x5000).cast::<[u8; 4]>().read() };
        assert_eq!(&seen, b"gone");
        assert!(ram.withdraw(MINIMUM).is_err());
        assert!(GuestRam::new(MINIMUM).unwrap().withdraw(0).is_err());
    }
}
