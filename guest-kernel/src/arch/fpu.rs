//! The processes' FPU, SSE and AVX state, all of XCR0 but AMX, saved and restored eagerly: on hosts
//! without VMX/SVM a program sees and may use every extension the host has, and CR0.TS
//! traps nothing.

use super::gate::Gate;
use crate::global::Global;
use crate::process::{MAX_PROCESSES, Process};
use abi::Errno;
use core::arch::asm;
use core::arch::x86_64::__cpuid_count;

/// Offset of MXCSR in the legacy area.
const MXCSR: usize = 24;
/// Offset of the XSAVE header.
const HEADER: usize = 512;

/// Components of XCR0 that a deterministic run has where the kernel decides: x87, SSE, AVX.
const COMMON: u32 = 7;

/// AMX's two components, 8 KiB: Linux gives them to a process that asks with `arch_prctl(ARCH_REQ_XCOMP_PERM)`, a call that
/// is refused here. On hosts whose CPL3 runs natively XCR0 has them although KVM's CPUID, and so the size in its leaf
/// 0xd, does not: XSAVE must not be asked for them.
const TILES: u64 = 3 << 17;

static AREAS: Global<u64> = Global::new(0);
static SIZE: Global<usize> = Global::new(512);
/// Bytes from one area to the next.
static STRIDE: Global<usize> = Global::new(512);
static MASK: Global<u64> = Global::new(0);

/// What the processor lacks of what the kernel needs, if anything; that it has 64-bit mode and NX was seen
/// before they were used. Not to be asked where CPL0 is interpreted: the VMM has asked the host.
pub fn lacks() -> Option<&'static str> {
    // Beyond the highest leaf there is anything.
    let leaf = |number| (__cpuid_count(0, 0).eax >= number).then(|| __cpuid_count(number, 0));
    if leaf(1).is_none_or(|leaf| leaf.ecx & 1 << 26 == 0) {
        Some("XSAVE")
    } else if leaf(7).is_none_or(|leaf| leaf.ebx & 1 == 0) {
        Some("FSGSBASE")
    } else {
        None
    }
}

fn configure(gate: Gate, all: bool) {
    if gate == Gate::Direct {
        // SAFETY: at CPL0; sets CR4.FSGSBASE and OSXSAVE, which the processor does not lack, and
        // enables user state components that it reports.
        unsafe {
            let mut cr4: u64;
            asm!("mov {}, cr4", out(reg) cr4, options(nostack, preserves_flags));
            cr4 |= 1 << 16 | 1 << 18;
            asm!("mov cr4, {}", in(reg) cr4, options(nostack, preserves_flags));
            let leaf = __cpuid_count(0xd, 0);
            let (low, high) = if all {
                (leaf.eax, leaf.edx)
            } else {
                (leaf.eax & COMMON, 0)
            };
            asm!("xsetbv", in("ecx") 0, in("eax") low, in("edx") high, options(nostack));
        }
    }
    let (low, high): (u32, u32);
    // SAFETY: XSAVE is enabled, by us or by the host.
    unsafe { asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nostack)) };
    let leaf = __cpuid_count(0xd, 0);
    let told = leaf.eax as u64 | (leaf.edx as u64) << 32;
    let enabled = low as u64 | (high as u64) << 32;
    let (mask, size) = layout_of(enabled & told & !TILES);
    MASK.set(mask);
    SIZE.set(size);
    STRIDE.set(size.next_multiple_of(64));
}

/// The components of `wanted` whose place CPUID tells (leaf 0xd, a subleaf each: bytes in EAX, offset in EBX), and the
/// bytes that XSAVE writes for them in the standard format.
fn layout_of(wanted: u64) -> (u64, usize) {
    let (mut mask, mut size) = (wanted & 3, HEADER + 64);
    for component in (2..63).filter(|bit| wanted >> bit & 1 != 0) {
        let place = __cpuid_count(0xd, component);
        if place.eax != 0 {
            mask |= 1 << component;
            size = size.max((place.ebx + place.eax) as usize);
        }
    }
    (mask, size)
}

/// Finds out what there is to save. `interpreted`: CPL0 runs in an emulator that has only
/// FXSAVE. `all`: programs get all that the processor has, not what most processors have.
pub fn init(gate: Gate, interpreted: bool, all: bool) {
    if !interpreted {
        configure(gate, all);
    }
}

/// Bytes of all areas together.
pub fn bytes() -> u64 {
    (stride() * MAX_PROCESSES) as u64
}

/// The components that an area has, as in XCR0: x87 and SSE where there is only FXSAVE.
pub fn components() -> u64 {
    match MASK.get() {
        0 => 3,
        mask => mask,
    }
}

/// Bytes of one area as XSAVE writes it.
pub fn size() -> usize {
    SIZE.get()
}

fn stride() -> usize {
    STRIDE.get()
}

/// Where the areas are (kernel address, 64-byte aligned, zeroed).
pub fn set_areas(address: u64) {
    AREAS.set(address);
}

/// Where the state of the process in `slot` is saved. The other functions take this address.
pub fn area(slot: usize) -> *mut u8 {
    (AREAS.get() as usize + slot * stride()) as *mut u8
}

/// The initial state: all components in their initial configuration.
pub fn reset(area: *mut u8) {
    // SAFETY: areas have `size()` bytes, at least 512.
    unsafe {
        area.write_bytes(0, size());
        area.cast::<u16>().write(0x37f);
        area.add(MXCSR).cast::<u32>().write(0x1f80);
    }
}

/// Gives `to` the state of `from` (fork).
pub fn copy(from: *mut u8, to: *mut u8) {
    // SAFETY: two processes' areas.
    unsafe { to.copy_from_nonoverlapping(from, size()) };
}

/// Saves the processor's state.
#[inline(always)]
pub fn save(area: *mut u8) {
    let mask = MASK.get();
    // SAFETY: the area is large enough and 64-byte aligned; the mask is what XCR0 enables.
    unsafe {
        if mask != 0 {
            asm!("xsave64 [{}]", in(reg) area, in("eax") mask as u32, in("edx") (mask >> 32) as u32, options(nostack));
        } else {
            asm!("fxsave64 [{}]", in(reg) area, options(nostack));
        }
    }
}

/// Loads the processor's state.
#[inline(always)]
pub fn restore(area: *mut u8) {
    let mask = MASK.get();
    // SAFETY: as in `save`; the area's header was written by XSAVE or checked by `write`.
    unsafe {
        if mask != 0 {
            asm!("xrstor64 [{}]", in(reg) area, in("eax") mask as u32, in("edx") (mask >> 32) as u32, options(nostack));
        } else {
            asm!("fxrstor64 [{}]", in(reg) area, options(nostack));
        }
    }
}

/// A saved state as bytes.
pub fn bytes_of(area: *mut u8) -> &'static [u8] {
    // SAFETY: the area is mapped for ever; callers copy out at once.
    unsafe { core::slice::from_raw_parts(area, size()) }
}

/// Replaces a saved state by `bytes` that somebody else wrote: whatever XRSTOR would
/// refuse is removed. `EINVAL` when it is too short for the legacy area.
pub fn write(area: *mut u8, bytes: &[u8]) -> Result<(), Errno> {
    if bytes.len() < HEADER {
        return Err(Errno::EINVAL);
    }
    reset(area);
    // SAFETY: a process's area, borrowed for this function only.
    let area = unsafe { core::slice::from_raw_parts_mut(area, size()) };
    let n = bytes.len().min(area.len());
    area[..n].copy_from_slice(&bytes[..n]);
    let mxcsr = u32::from_le_bytes([
        area[MXCSR],
        area[MXCSR + 1],
        area[MXCSR + 2],
        area[MXCSR + 3],
    ]);
    area[MXCSR..MXCSR + 4].copy_from_slice(&(mxcsr & 0xffff).to_le_bytes());
    if let Some(header) = area.get_mut(HEADER..HEADER + 64) {
        let mut components = [0; 8];
        components.copy_from_slice(&header[..8]);
        // A legacy-only frame describes x87 and SSE.
        let present = if n < HEADER + 8 {
            3
        } else {
            u64::from_le_bytes(components)
        } & MASK.get();
        header.fill(0);
        header[..8].copy_from_slice(&present.to_le_bytes());
    }
    Ok(())
}

/// Saves FS and GS base of the running Linux process.
#[inline(always)]
pub fn save_bases(process: &mut Process) {
    // SAFETY: FSGSBASE works at CPL3 on hosts that interpret CPL0, and CR4 enables it
    // elsewhere (`lacks`).
    unsafe {
        asm!("rdfsbase {}", out(reg) process.regs.fs_base, options(nostack, preserves_flags));
        asm!("rdgsbase {}", out(reg) process.regs.gs_base, options(nostack, preserves_flags));
    }
}

/// Loads them.
#[inline(always)]
pub fn restore_bases(process: &Process) {
    // SAFETY: as in `save_bases`; bases are checked to be canonical when set.
    unsafe {
        asm!("wrfsbase {}", in(reg) process.regs.fs_base, options(nostack, preserves_flags));
        asm!("wrgsbase {}", in(reg) process.regs.gs_base, options(nostack, preserves_flags));
    }
}
