//! Puts a kernel, its archive and what PVH says about them into guest RAM.

use std::io::Cursor;

use abi::boot::{CMDLINE_LAB, CMDLINE_TSC, CMDLINE_VIRTIO};
use abi::kernel::HOLE;
use anyhow::{Context, Result, bail, ensure};
use linux_loader::configurator::pvh::PvhBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::loader::KernelLoader;
use linux_loader::loader::elf::start_info::{
    hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use linux_loader::loader::elf::{Elf, PvhBootCapability};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use crate::images::Archive;
use crate::memory::GuestRam;
use crate::memory::parts::parts;

/// Where the boot information lies: low RAM that the memory map calls usable, so a kernel
/// reads it before it hands out pages.
const START_INFO: u64 = 0x6000;
const MODULES: u64 = 0x6100;
const MEMORY_MAP: u64 = 0x7000;
const COMMAND_LINE: u64 = 0x8000;
const COMMAND_LINE_MAX: usize = 0x1000;

/// `hvm_start_info.magic`.
const START_INFO_MAGIC: u32 = 0x336e_c578;
/// E820 types.
const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;
/// Firmware's data, video memory and firmware on a PC; nothing is there, and nobody expects RAM
/// there.
const LEGACY_HOLE: std::ops::Range<u64> = 0x9_fc00..0x10_0000;

/// A virtio-mmio device's registers and interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Guest-physical address of the registers.
    pub base: u64,
    /// Their bytes.
    pub len: u64,
    /// IOAPIC input.
    pub gsi: u32,
}

impl Window {
    /// Where an address lies in the window.
    pub fn offset(&self, at: u64) -> Option<u64> {
        at.checked_sub(self.base)
            .filter(|&offset| offset < self.len)
    }
}

/// Where the devices are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// The root disk.
    pub disk: Window,
    /// The console.
    pub console: Window,
}

impl Windows {
    /// A page for each: no driver reaches a device that is not its own.
    pub const PAGES: Windows = Windows {
        disk: Window {
            base: 0xd000_0000,
            len: abi::PAGE,
            gsi: 5,
        },
        console: Window {
            base: 0xd000_1000,
            len: abi::PAGE,
            gsi: 6,
        },
    };
    /// Where QEMU's microvm machine has them, so that a guest that does the same every time does
    /// the same there: the last two of eight transports in one page.
    pub const MICROVM: Windows = Windows {
        disk: Window {
            base: 0xfeb0_0e00,
            len: 512,
            gsi: 12,
        },
        console: Window {
            base: 0xfeb0_0c00,
            len: 512,
            gsi: 11,
        },
    };
}

/// The lab device's page.
pub const LAB_BASE: u64 = 0xd001_0000;

/// Where execution starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The 32-bit PVH entry point.
    pub rip: u64,
    /// Guest-physical address of `hvm_start_info`, for ebx.
    pub start_info: u64,
}

/// The kernel command line: the devices in Linux's syntax, then ours.
pub fn command_line(windows: &[Window], tsc_khz: Option<u32>, extra: &str) -> String {
    let mut line = String::new();
    for Window { base, len, gsi } in windows {
        line += &format!("{CMDLINE_VIRTIO}{len}@{base:#x}:{gsi} ");
    }
    line += &format!("{CMDLINE_LAB}{LAB_BASE:#x}");
    if let Some(khz) = tsc_khz {
        line += &format!(" {CMDLINE_TSC}{khz}");
    }
    if !extra.is_empty() {
        line += " ";
        line += extra;
    }
    line
}

/// Loads everything; the RAM must be fresh (zeroed).
pub fn load(ram: &GuestRam, kernel: &[u8], archive: &Archive, cmdline: &str) -> Result<Entry> {
    let loaded = Elf::load(&ram.map, None, &mut Cursor::new(kernel), None)
        .context("loading the guest kernel")?;
    let PvhBootCapability::PvhEntryPresent(entry) = loaded.pvh_boot_cap else {
        bail!("the guest kernel has no PVH entry note (XEN_ELFNOTE_PHYS32_ENTRY)");
    };

    let archive_len = archive.len();
    // Where QEMU puts it, below the last byte before the hole.
    let low = ram.size.min(HOLE.start);
    let archive_at = low.checked_sub(archive_len + 1).map(abi::page_down);
    let archive_at = match archive_at {
        Some(at) if at > loaded.kernel_end && at > LEGACY_HOLE.end => at,
        _ => bail!(
            "{} MiB of guest memory do not hold the kernel and the {} KiB boot archive",
            ram.size >> 20,
            archive_len >> 10
        ),
    };
    archive.write(|offset, bytes| {
        ram.map
            .write_slice(bytes, GuestAddress(archive_at + offset))
            .context("copying the boot archive")
    })?;

    ensure!(
        cmdline.len() < COMMAND_LINE_MAX,
        "the kernel command line is too long"
    );
    ensure!(
        !cmdline.contains('\0'),
        "the kernel command line contains a NUL"
    );
    ram.map
        .write_slice(cmdline.as_bytes(), GuestAddress(COMMAND_LINE))
        .and_then(|()| {
            ram.map
                .write_slice(&[0], GuestAddress(COMMAND_LINE + cmdline.len() as u64))
        })
        .context("writing the kernel command line")?;

    let map = memory_map(ram.size);
    let module = hvm_modlist_entry {
        paddr: archive_at,
        size: archive_len,
        cmdline_paddr: 0,
        reserved: 0,
    };
    let start_info = hvm_start_info {
        magic: START_INFO_MAGIC,
        version: 1,
        flags: 0,
        nr_modules: 1,
        modlist_paddr: MODULES,
        cmdline_paddr: COMMAND_LINE,
        rsdp_paddr: 0,
        memmap_paddr: MEMORY_MAP,
        memmap_entries: map.len() as u32,
        reserved: 0,
    };
    let mut params = BootParams::new(&start_info, GuestAddress(START_INFO));
    params.set_sections(&map, GuestAddress(MEMORY_MAP));
    params.set_modules(&[module], GuestAddress(MODULES));
    PvhBootConfigurator::write_bootparams(&params, &ram.map).context("writing PVH start info")?;
    debug_assert!(ram.map.address_in_range(entry));
    Ok(Entry {
        rip: entry.0,
        start_info: START_INFO,
    })
}

/// The memory map of a guest with `size` bytes of RAM.
fn memory_map(size: u64) -> Vec<hvm_memmap_table_entry> {
    let entry = |from: u64, to: u64, type_| hvm_memmap_table_entry {
        addr: from,
        size: to - from,
        type_,
        reserved: 0,
    };
    let mut map = vec![
        entry(0, LEGACY_HOLE.start, E820_RAM),
        entry(LEGACY_HOLE.start, LEGACY_HOLE.end, E820_RESERVED),
    ];
    map.extend(parts(size).map(|part| {
        let from = part.address.max(LEGACY_HOLE.end);
        entry(from, part.end(), E820_RAM)
    }));
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_names_the_devices_in_linux_syntax() {
        assert_eq!(
            command_line(
                &[Windows::PAGES.disk, Windows::MICROVM.console],
                Some(2_600_000),
                ""
            ),
            "virtio_mmio.device=4096@0xd0000000:5 virtio_mmio.device=512@0xfeb00c00:11 \
             absentia.lab=0xd0010000 absentia.tsc_khz=2600000"
        );
    }

    #[test]
    fn memory_map_leaves_the_holes_out() {
        for size in [64 << 20, HOLE.start, 6 << 30] {
            let map = memory_map(size);
            let ram = map.iter().filter(|e| e.type_ == E820_RAM);
            assert_eq!(ram.clone().map(|e| e.size).sum::<u64>(), size - 0x6_0400);
            let outside =
                |e: &hvm_memmap_table_entry| e.addr + e.size <= HOLE.start || e.addr >= HOLE.end;
            assert!(ram.clone().all(outside), "{size:#x}");
        }
    }

    #[test]
    fn a_kernel_without_a_pvh_note_is_refused() {
        let ram = GuestRam::new(crate::memory::MINIMUM).unwrap();
        assert!(load(&ram, b"not an ELF file", &Archive::default(), "").is_err());
    }
}
