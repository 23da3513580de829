//! The instructions that move other processes' bytes. A page fault in them is a value: a frame
//! that page tables name may be missing all the same (the VMM withdrew it).

use core::arch::global_asm;

// The end of the target stays in r9, so that what is left after a fault can be told from rdi,
// wherever in the range it happened. The gate enters guarded_fault with the fault's address in
// rdx and the stack as it was.
global_asm!(
    ".text",
    ".balign 16",
    ".globl guarded_copy",
    "guarded_copy:",
    "lea r9, [rdi + rdx]",
    "mov rcx, rdx",
    "shr rcx, 3",
    ".globl guarded_start",
    "guarded_start:",
    "rep movsq",
    "mov ecx, edx",
    "and ecx, 7",
    "rep movsb",
    "xor eax, eax",
    "ret",
    ".globl guarded_fill",
    "guarded_fill:",
    "lea r9, [rdi + rdx]",
    "mov rcx, rdx",
    "shr rcx, 3",
    "mov rax, rsi",
    "rep stosq",
    "mov ecx, edx",
    "and ecx, 7",
    "rep stosb",
    ".globl guarded_end",
    "guarded_end:",
    "xor eax, eax",
    "ret",
    ".globl guarded_fault",
    "guarded_fault:",
    "mov rax, r9",
    "sub rax, rdi",
    "ret",
);

unsafe extern "C" {
    static guarded_start: u8;
    static guarded_end: u8;
    /// Bytes left in the low half (0 is success), the fault's address in the high half.
    fn guarded_copy(to: *mut u8, from: *const u8, len: u64) -> u128;
    /// Likewise; `pattern` is the byte eight times.
    fn guarded_fill(to: *mut u8, pattern: u64, len: u64) -> u128;
}

/// The instructions, `[start, end)`.
pub fn range() -> [u64; 2] {
    [
        &raw const guarded_start as u64,
        &raw const guarded_end as u64,
    ]
}

/// An access met a missing frame.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Bytes that were moved before.
    pub moved: u64,
    /// Where, in the kernel's view.
    pub address: u64,
}

fn outcome(result: u128, len: u64) -> Result<(), Fault> {
    match result as u64 {
        0 => Ok(()),
        left => Err(Fault {
            moved: len - left.min(len),
            address: (result >> 64) as u64,
        }),
    }
}

/// Copies forward.
///
/// # Safety
/// Both ranges are mapped, or missing in the way that [`Fault`] reports; the target belongs to
/// nobody who could mind; they do not overlap unless `to` is below `from`.
#[inline(always)]
pub unsafe fn copy(to: *mut u8, from: *const u8, len: u64) -> Result<(), Fault> {
    // SAFETY: the caller's.
    outcome(unsafe { guarded_copy(to, from, len) }, len)
}

/// Fills.
///
/// # Safety
/// As for [`copy`].
#[inline(always)]
pub unsafe fn fill(to: *mut u8, pattern: u8, len: u64) -> Result<(), Fault> {
    let pattern = u64::from_ne_bytes([pattern; 8]);
    // SAFETY: the caller's.
    outcome(unsafe { guarded_fill(to, pattern, len) }, len)
}
