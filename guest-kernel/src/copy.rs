//! The one copy engine. Every copy between address spaces goes through [`transfer`] or
//! [`fill`]: page tables are walked in software, data moves through the kernel's view of
//! physical memory, and a page that is not there is a value ([`Absent`]), never a fault.

use crate::arch::guard;
use crate::arch::layout::PHYSICAL_BASE;
use crate::counters::{COUNTERS, add};
use crate::memory;
use abi::kernel::user_range;
use abi::page_table::{ADDRESS, LARGE, PRESENT, USER, WRITE};
use abi::{Errno, PAGE, page_down};
use core::cell::Cell;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A range of some address space, or of physical memory.
#[derive(Clone, Copy, Debug)]
pub struct Operand {
    /// Page table; `None` is physical memory.
    pub cr3: Option<u64>,
    /// First byte.
    pub address: u64,
}

/// Which operand of a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// Read from.
    Source,
    /// Written to.
    Target,
}

/// The copy met a page it may not access: whose, where, and how much had moved before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub struct Absent {
    /// Whose page.
    pub side: Side,
    /// The address.
    pub address: u64,
    /// Bytes moved before it.
    pub done: u64,
}

/// Where the bytes at `address` are: `(physical address, bytes up to the end of the page)`.
#[inline]
pub fn translate(operand: &Operand, address: u64, write: bool) -> Option<(u64, u64)> {
    let Some(cr3) = operand.cr3 else {
        return Some((address, PAGE - address % PAGE));
    };
    if address >= abi::kernel::USER_END {
        return None;
    }
    let wanted = if write {
        PRESENT | USER | WRITE
    } else {
        PRESENT | USER
    };
    let mut table = cr3 & ADDRESS;
    let mut shift = 39;
    loop {
        let entry = memory::read_word(table + (address >> shift & 511) * 8)?;
        if entry & wanted != wanted {
            return None;
        }
        if shift == 12 || (shift < 39 && entry & LARGE != 0) {
            let size = 1u64 << shift;
            let physical = (entry & ADDRESS & !(size - 1)) + (address & (size - 1));
            return memory::is_ram(physical).then_some((physical, PAGE - address % PAGE));
        }
        table = entry & ADDRESS;
        shift -= 9;
    }
}

/// The present entry that maps the 4 KiB page at `address`, and where it lies.
pub fn leaf(cr3: u64, address: u64) -> Option<(u64, u64)> {
    if address >= abi::kernel::USER_END {
        return None;
    }
    let mut table = cr3 & ADDRESS;
    for shift in [39, 30, 21, 12] {
        let at = table + (address >> shift & 511) * 8;
        let entry = memory::read_word(at)?;
        if entry & PRESENT == 0 || shift > 12 && entry & LARGE != 0 {
            return None;
        }
        if shift == 12 {
            return Some((at, entry));
        }
        table = entry & ADDRESS;
    }
    None
}

/// Checks an operand of `len` bytes before anything moves.
pub fn check(operand: &Operand, len: u64) -> Result<(), Errno> {
    match operand.cr3 {
        Some(_) => user_range(operand.address, len),
        None => memory::ram_range(operand.address, len),
    }
}

/// Copies `len` bytes, forward from byte 0.
pub fn transfer(source: &Operand, target: &Operand, len: u64) -> Result<(), Absent> {
    let mut done = 0;
    while done < len {
        let (from, to) = (source.address + done, target.address + done);
        let absent = |side, address| Absent {
            side,
            address,
            done,
        };
        let (source_at, source_left) =
            translate(source, from, false).ok_or(absent(Side::Source, from))?;
        let (target_at, target_left) =
            translate(target, to, true).ok_or(absent(Side::Target, to))?;
        let n = (len - done).min(source_left).min(target_left);
        // SAFETY: both ranges lie within one page of RAM each; an overlap (a copy within one
        // page of a process) is what memmove is for.
        let moved = unsafe {
            let (s, t) = (
                (PHYSICAL_BASE + source_at) as *const u8,
                (PHYSICAL_BASE + target_at) as *mut u8,
            );
            if source_at.abs_diff(target_at) < n {
                core::ptr::copy(s, t, n as usize);
                Ok(())
            } else {
                guard::copy(t, s, n)
            }
        };
        if let Err(fault) = moved {
            // Page tables name the frame, and it is missing.
            let (moved, at) = (fault.moved, fault.address - PHYSICAL_BASE);
            add(&COUNTERS.copied_bytes, moved);
            let (side, address) = if page_down(at) == page_down(source_at) {
                (Side::Source, from + moved)
            } else {
                (Side::Target, to + moved)
            };
            return Err(Absent {
                side,
                address,
                done: done + moved,
            });
        }
        done += n;
        add(&COUNTERS.copied_bytes, n);
    }
    Ok(())
}

/// Fills `len` bytes with `pattern`.
pub fn fill(target: &Operand, len: u64, pattern: u8) -> Result<(), Absent> {
    let mut done = 0;
    while done < len {
        let to = target.address + done;
        let (at, left) = translate(target, to, true).ok_or(Absent {
            side: Side::Target,
            address: to,
            done,
        })?;
        let n = (len - done).min(left);
        // SAFETY: the range lies within one page of RAM.
        let filled = unsafe { guard::fill((PHYSICAL_BASE + at) as *mut u8, pattern, n) };
        if let Err(fault) = filled {
            return Err(Absent {
                side: Side::Target,
                address: to + fault.moved,
                done: done + fault.moved,
            });
        }
        done += n;
    }
    Ok(())
}

/// Reads a structure from a process, without VM. `EFAULT` when it is not resident.
pub fn read_struct<T: FromBytes>(cr3: u64, address: u64) -> Result<T, Errno> {
    let mut value = core::mem::MaybeUninit::<T>::uninit();
    // SAFETY: the value has these bytes. All were written then, and any bits are a `T` (FromBytes).
    unsafe {
        read_bytes(cr3, address, value.as_mut_ptr().cast(), size_of::<T>())?;
        Ok(value.assume_init())
    }
}

/// Writes a structure to a process, without VM.
pub fn write_struct<T: IntoBytes + Immutable>(
    cr3: u64,
    address: u64,
    value: &T,
) -> Result<(), Errno> {
    write_bytes(cr3, address, value.as_bytes())
}

/// Reads `len` bytes of a process.
///
/// # Safety
/// The kernel may write `len` bytes at `to`.
unsafe fn read_bytes(cr3: u64, address: u64, to: *mut u8, len: usize) -> Result<(), Errno> {
    let operand = Operand {
        cr3: Some(cr3),
        address,
    };
    user_range(address, len as u64)?;
    let mut done = 0;
    while done < len as u64 {
        let (at, left) = translate(&operand, address + done, false).ok_or(Errno::EFAULT)?;
        let n = (len as u64 - done).min(left);
        // SAFETY: `to` has `len` bytes; the source lies within one page of RAM.
        let read = unsafe {
            let from = (PHYSICAL_BASE + at) as *const u8;
            guard::copy(to.add(done as usize), from, n)
        };
        read.map_err(|_| Errno::EFAULT)?;
        done += n;
    }
    Ok(())
}

/// Writes `len` bytes to a process.
///
/// # Safety
/// `len` bytes can be read at `from`.
unsafe fn put_bytes(cr3: u64, address: u64, from: *const u8, len: usize) -> Result<(), Errno> {
    let operand = Operand {
        cr3: Some(cr3),
        address,
    };
    user_range(address, len as u64)?;
    let mut done = 0;
    while done < len as u64 {
        let (at, left) = translate(&operand, address + done, true).ok_or(Errno::EFAULT)?;
        let n = (len as u64 - done).min(left);
        // SAFETY: `from` has `len` bytes; the target lies within one page of RAM.
        let written = unsafe {
            let to = (PHYSICAL_BASE + at) as *mut u8;
            guard::copy(to, from.add(done as usize), n)
        };
        written.map_err(|_| Errno::EFAULT)?;
        done += n;
    }
    Ok(())
}

/// Copies kernel memory to a process, without VM. `EFAULT` when it is not resident.
pub fn write_bytes(cr3: u64, address: u64, bytes: &[u8]) -> Result<(), Errno> {
    // SAFETY: the slice has these bytes.
    unsafe { put_bytes(cr3, address, bytes.as_ptr(), bytes.len()) }
}

/// Likewise, of bytes that may change at other times.
pub fn write_cells(cr3: u64, address: u64, bytes: &[Cell<u8>]) -> Result<(), Errno> {
    // SAFETY: the slice has these bytes, and nothing changes them meanwhile.
    unsafe { put_bytes(cr3, address, bytes.as_ptr().cast(), bytes.len()) }
}

/// Reads bytes of a process into kernel memory, without VM.
pub fn read_slice(cr3: u64, address: u64, to: &mut [u8]) -> Result<(), Errno> {
    // SAFETY: the slice has these bytes.
    unsafe { read_bytes(cr3, address, to.as_mut_ptr(), to.len()) }
}

/// Likewise, into bytes that others may know.
pub fn read_cells(cr3: u64, address: u64, to: &[Cell<u8>]) -> Result<(), Errno> {
    // SAFETY: the slice has these bytes, and cells may be written.
    unsafe { read_bytes(cr3, address, to.as_ptr().cast_mut().cast(), to.len()) }
}
