//! The memory functions that the compiler calls. `entry!` exports them under their C names.
//!
//! `rep movsb` and `rep stosb` are the shortest code and, on every processor of the last
//! ten years, as fast as any.

use core::arch::asm;

/// C's memcpy.
///
/// # Safety
/// As for C: both ranges valid for `n` bytes, not overlapping.
#[inline(always)]
pub unsafe fn copy(dest: *mut u8, src: *const u8, n: usize) {
    // SAFETY: the caller vouches for the ranges; the direction flag is clear by the ABI.
    unsafe {
        asm!("rep movsb", inout("rcx") n => _, inout("rdi") dest => _, inout("rsi") src => _,
             options(nostack, preserves_flags));
    }
}

/// C's memmove.
///
/// # Safety
/// As for C: both ranges valid for `n` bytes.
#[inline(always)]
pub unsafe fn copy_overlapping(dest: *mut u8, src: *const u8, n: usize) {
    if (dest as usize).wrapping_sub(src as usize) >= n {
        // SAFETY: copying upwards is right when dest does not start inside src.
        unsafe { copy(dest, src, n) };
        return;
    }
    // SAFETY: as above, from the last byte downwards; the direction flag is restored.
    unsafe {
        asm!("std", "rep movsb", "cld",
             inout("rcx") n => _, inout("rdi") dest.wrapping_add(n).wrapping_sub(1) => _,
             inout("rsi") src.wrapping_add(n).wrapping_sub(1) => _, options(nostack));
    }
}

/// C's memset.
///
/// # Safety
/// As for C: the range is valid for `n` bytes.
#[inline(always)]
pub unsafe fn set(dest: *mut u8, byte: u8, n: usize) {
    // SAFETY: the caller vouches for the range; the direction flag is clear by the ABI.
    unsafe {
        asm!("rep stosb", inout("rcx") n => _, inout("rdi") dest => _, in("al") byte,
             options(nostack, preserves_flags));
    }
}

/// C's memcmp.
///
/// # Safety
/// As for C: both ranges are valid for `n` bytes.
#[inline(always)]
pub unsafe fn compare(a: *const u8, b: *const u8, n: usize) -> i32 {
    let mut i = 0;
    // Eight bytes at a time while they are equal.
    while i + 8 <= n {
        // SAFETY: i + 8 <= n.
        let (x, y) = unsafe {
            (
                a.add(i).cast::<u64>().read_unaligned(),
                b.add(i).cast::<u64>().read_unaligned(),
            )
        };
        if x != y {
            break;
        }
        i += 8;
    }
    while i < n {
        // SAFETY: i < n.
        let (x, y) = unsafe { (a.add(i).read(), b.add(i).read()) };
        if x != y {
            return x as i32 - y as i32;
        }
        i += 1;
    }
    0
}

/// C's strlen.
///
/// # Safety
/// `s` points to a NUL-terminated string.
#[inline(always)]
pub unsafe fn length(s: *const u8) -> usize {
    let mut n = 0;
    // SAFETY: the string is terminated, so the loop ends inside it.
    while unsafe { s.add(n).read() } != 0 {
        n += 1;
    }
    n
}
