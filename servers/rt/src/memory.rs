//! The memory functions that the compiler calls. `entry!` exports them under their C names.
//!
//! Short pieces go by a few words; for long ones `rep movsq` and `rep stosq` are as fast as
//! any code, and where instructions are emulated an iteration of them costs as much as one of
//! a byte.

use core::arch::asm;

/// Pieces up to this size are moved without a loop.
const SHORT: usize = 32;

/// C's memcpy, also right for a `dest` below an overlapping `src`.
///
/// # Safety
/// As for C: both ranges valid for `n` bytes.
#[inline(always)]
pub unsafe fn copy(dest: *mut u8, src: *const u8, n: usize) {
    if n <= SHORT {
        // SAFETY: the caller vouches for the ranges.
        return unsafe { copy_short(dest, src, n) };
    }
    // SAFETY: the caller vouches for the ranges, which are longer than a word; the direction
    // flag is clear by the ABI. The last word is read before anything may overwrite it.
    unsafe {
        let last = src.add(n - 8).cast::<u64>().read_unaligned();
        asm!("rep movsq", inout("rcx") n / 8 => _, inout("rdi") dest => _, inout("rsi") src => _,
             options(nostack, preserves_flags));
        dest.add(n - 8).cast::<u64>().write_unaligned(last);
    }
}

/// At most [`SHORT`] bytes, all of them read before the first is written.
///
/// # Safety
/// As for [`copy`].
#[inline(always)]
unsafe fn copy_short(dest: *mut u8, src: *const u8, n: usize) {
    /// The first and the last `T` of the ranges, which may overlap.
    ///
    /// # Safety
    /// As for [`copy`], and `n` is at least the size of `T`.
    #[inline(always)]
    unsafe fn ends<T: Copy>(dest: *mut u8, src: *const u8, n: usize) {
        let end = n - size_of::<T>();
        // SAFETY: both words lie in the ranges.
        unsafe {
            let first = src.cast::<T>().read_unaligned();
            let last = src.add(end).cast::<T>().read_unaligned();
            dest.cast::<T>().write_unaligned(first);
            dest.add(end).cast::<T>().write_unaligned(last);
        }
    }
    // SAFETY: each size is at least that of its words.
    unsafe {
        match n {
            16.. => ends::<[u64; 2]>(dest, src, n),
            8.. => ends::<u64>(dest, src, n),
            4.. => ends::<u32>(dest, src, n),
            2.. => ends::<u16>(dest, src, n),
            1 => dest.write(src.read()),
            0 => {}
        }
    }
}

/// C's memmove.
///
/// # Safety
/// As for C: both ranges valid for `n` bytes.
#[inline(always)]
pub unsafe fn copy_overlapping(dest: *mut u8, src: *const u8, n: usize) {
    if n <= SHORT || (dest as usize).wrapping_sub(src as usize) >= n {
        // SAFETY: copying upwards is right when dest does not start inside src.
        unsafe { copy(dest, src, n) };
        return;
    }
    // SAFETY: as above, from the last byte downwards, words first. In assembly, because the
    // compiler would make a call of memmove of a loop.
    unsafe {
        asm!("2:",
             "sub {n}, 8",
             "mov {word}, [{src} + {n}]",
             "mov [{dest} + {n}], {word}",
             "cmp {n}, 8",
             "jae 2b",
             "test {n}, {n}",
             "jz 4f",
             "3:",
             "mov {word:l}, [{src} + {n} - 1]",
             "mov [{dest} + {n} - 1], {word:l}",
             "dec {n}",
             "jnz 3b",
             "4:",
             n = inout(reg) n => _, word = out(reg_abcd) _, src = in(reg) src,
             dest = in(reg) dest, options(nostack));
    }
}

/// C's memset.
///
/// # Safety
/// As for C: the range is valid for `n` bytes.
#[inline(always)]
pub unsafe fn set(dest: *mut u8, byte: u8, n: usize) {
    let word = u64::from(byte) * 0x0101_0101_0101_0101;
    if n < 8 {
        for i in 0..n {
            // SAFETY: i < n. Volatile: the compiler would make a call of memset of the loop.
            unsafe { dest.add(i).write_volatile(byte) };
        }
        return;
    }
    // SAFETY: the caller vouches for the range, which holds a word; the direction flag is
    // clear by the ABI.
    unsafe {
        asm!("rep stosq", inout("rcx") n / 8 => _, inout("rdi") dest => _, in("rax") word,
             options(nostack, preserves_flags));
        dest.add(n - 8).cast::<u64>().write_unaligned(word);
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn pattern() -> Vec<u8> {
        (0..200u32).map(|i| (i * 37 % 251) as u8).collect()
    }

    #[test]
    fn every_size_and_distance_moves_right() {
        for n in 0..80 {
            for (from, to) in (0..20).flat_map(|a| (0..20).map(move |b| (a * 5, b * 5))) {
                let (mut ours, mut theirs) = (pattern(), pattern());
                theirs.copy_within(from..from + n, to);
                let base = ours.as_mut_ptr();
                // SAFETY: both ranges lie in the vector.
                unsafe { copy_overlapping(base.add(to), base.add(from), n) };
                assert_eq!(ours, theirs, "{n} bytes from {from} to {to}");
            }
        }
    }

    #[test]
    fn close_ranges_move_right() {
        for n in 30..70 {
            for (from, to) in (0..9).flat_map(|a| (0..9).map(move |b| (a, b))) {
                let (mut ours, mut theirs) = (pattern(), pattern());
                theirs.copy_within(from..from + n, to);
                let base = ours.as_mut_ptr();
                // SAFETY: both ranges lie in the vector.
                unsafe { copy_overlapping(base.add(to), base.add(from), n) };
                assert_eq!(ours, theirs, "{n} bytes from {from} to {to}");
            }
        }
    }

    #[test]
    fn every_size_is_set() {
        for n in 0..80 {
            let (mut ours, mut theirs) = (pattern(), pattern());
            theirs[7..7 + n].fill(0xa5);
            // SAFETY: the range lies in the vector.
            unsafe { set(ours.as_mut_ptr().add(7), 0xa5, n) };
            assert_eq!(ours, theirs, "{n}");
        }
    }
}
