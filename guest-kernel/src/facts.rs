//! What the kernel was told at boot: the machine, its command line, the archive.

use crate::copy;
use crate::fatal;
use crate::global::{Global, Single};
use crate::memory;
use abi::boot::{ArchiveEntry, ArchiveHeader};
use abi::kernel::{BootInfo, Bytes};
use abi::{Errno, PAGE};
use core::cell::OnceCell;
use zerocopy::{FromBytes, Unalign};

static INFO: Single<OnceCell<BootInfo>> = Single::of(OnceCell::new());
static COMMAND_LINE: Global<&[u8]> = Global::new(&[]);

/// What the machine is.
pub fn info() -> &'static BootInfo {
    INFO.get().unwrap_or(&BootInfo::NONE)
}

/// Says it, once.
pub fn set_info(info: BootInfo) {
    let _ = INFO.set(info);
}

/// The kernel command line.
pub fn command_line() -> &'static [u8] {
    COMMAND_LINE.get()
}

/// Says it.
pub fn set_command_line(line: &'static [u8]) {
    COMMAND_LINE.set(line);
}

/// A structure of the loader's at a physical address. The machine ends where that is no RAM.
pub fn read<T: FromBytes + Copy + 'static>(physical: u64) -> T {
    // The loader aligns nothing to more than it has to.
    match memory::cells::<Unalign<T>>(physical, 1) {
        Some([value]) => value.get().into_inner(),
        _ => fatal!("boot data at {physical:#x} lies outside RAM"),
    }
}

/// Entry `index` of the archive.
pub fn module(index: usize) -> Result<ArchiveEntry, Errno> {
    let info = info();
    let at =
        size_of::<ArchiveHeader>() as u64 + (index as u64).checked_mul(64).ok_or(Errno::ENOENT)?;
    if index as u64 >= info.modules || at + 64 > info.archive.len() {
        return Err(Errno::ENOENT);
    }
    let entry: ArchiveEntry = read(info.archive.start + at);
    match entry.offset.checked_add(entry.len) {
        Some(end) if end <= info.archive.len() && entry.offset.is_multiple_of(PAGE) => Ok(entry),
        _ => Err(Errno::EINVAL),
    }
}

/// Copies a part of an entry to a process: bytes copied.
pub fn module_read(cr3: u64, index: usize, offset: u64, buffer: Bytes) -> Result<usize, Errno> {
    let entry = module(index)?;
    let n = entry.len.saturating_sub(offset).min(buffer.len);
    let from = info().archive.start + entry.offset + offset.min(entry.len);
    let bytes = memory::cells(from, n).ok_or(Errno::EINVAL)?;
    copy::write_cells(cr3, buffer.address, bytes)?;
    Ok(bytes.len())
}
