//! The memory functions the compiler calls. Whole words: on hosts that interpret CPL0 an
//! iteration of `rep movsb` costs as much as one of `rep movsq`.

use core::arch::asm;

/// C's memcpy.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(dest: *mut u8, src: *const u8, n: usize) -> *mut u8 {
    // SAFETY: the caller vouches for the ranges (C's contract); the direction flag is clear.
    unsafe {
        asm!("rep movsq", "mov rcx, {tail}", "rep movsb", tail = in(reg) n & 7,
             inout("rcx") n >> 3 => _, inout("rdi") dest => _, inout("rsi") src => _,
             options(nostack, preserves_flags));
    }
    dest
}

/// C's memmove; the kernel never moves overlapping ranges downwards by less than a word.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(dest: *mut u8, src: *const u8, n: usize) -> *mut u8 {
    if (dest as usize).wrapping_sub(src as usize) >= n {
        // SAFETY: an upward copy is right here, byte by byte when closer than a word.
        unsafe {
            asm!("rep movsb", inout("rcx") n => _, inout("rdi") dest => _, inout("rsi") src => _,
                 options(nostack, preserves_flags));
        }
    } else {
        // SAFETY: a downward copy is right when dest starts inside src.
        unsafe {
            asm!("std", "rep movsb", "cld", inout("rcx") n => _,
                 inout("rdi") dest.wrapping_add(n).wrapping_sub(1) => _,
                 inout("rsi") src.wrapping_add(n).wrapping_sub(1) => _, options(nostack));
        }
    }
    dest
}

/// C's memset.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(dest: *mut u8, byte: i32, n: usize) -> *mut u8 {
    let word = (byte as u8 as u64).wrapping_mul(0x0101_0101_0101_0101);
    // SAFETY: the caller vouches for the range (C's contract); the direction flag is clear.
    unsafe {
        asm!("rep stosq", "mov rcx, {tail}", "rep stosb", tail = in(reg) n & 7,
             inout("rcx") n >> 3 => _, inout("rdi") dest => _, in("rax") word,
             options(nostack, preserves_flags));
    }
    dest
}

/// C's memcmp.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    let mut i = 0;
    while i < n {
        // SAFETY: i < n, and both ranges are valid for n bytes (C's contract). Volatile, so
        // that the compiler does not make a call of memcmp out of it.
        let (x, y) = unsafe { (a.add(i).read_volatile(), b.add(i).read_volatile()) };
        if x != y {
            return x as i32 - y as i32;
        }
        i += 1;
    }
    0
}

/// C's bcmp.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    // SAFETY: the same contract.
    unsafe { memcmp(a, b, n) }
}

/// Named by `core`'s unwind tables on the host triple; never called (panic=abort). Where the kernel is not an image,
/// `std` has it.
#[cfg(guest_image)]
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
