//! What user mode asks the processor itself.

/// XCR0: the state components that XSAVE keeps (Intel SDM volume 1, 13.3), or the legacy two where there
/// is no XSAVE.
pub fn xcr0() -> u64 {
    const OSXSAVE: u32 = 1 << 27;
    if core::arch::x86_64::__cpuid(1).ecx & OSXSAVE == 0 {
        return 3;
    }
    let (low, high): (u32, u32);
    // SAFETY: with OSXSAVE set, xgetbv of register 0 is allowed in user mode; it only reads.
    unsafe {
        core::arch::asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high,
                         options(nomem, nostack, preserves_flags));
    }
    low as u64 | (high as u64) << 32
}
