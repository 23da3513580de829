//! The processes' FPU, SSE and AVX state, all of XCR0 but AMX, saved and restored eagerly: on hosts
//! without VMX/SVM a program sees and may use every extension the host has, and CR0.TS
//! traps nothing.

use super::layout::Gate;
use crate::global::{Global, Single};
use abi::Errno;
use abi::endpoint::MAX_PROCESSES;
use abi::kernel::RegisterCells;
use core::arch::asm;
use core::arch::x86_64::__cpuid_count;
use core::cell::Cell;

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

/// Room for the state of any processor whose tiles are left out.
pub const LARGEST: usize = 16 << 10;

/// [`Area::SPARE`].
#[repr(C, align(64))]
struct Spare([Cell<u8>; LARGEST]);
static SPARE: Single<Spare> = Single::of(Spare([const { Cell::new(0) }; LARGEST]));

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
        let end = (place.ebx + place.eax) as usize;
        if place.eax != 0 && end <= LARGEST {
            mask |= 1 << component;
            size = size.max(end);
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

/// Where the FPU state of a process is saved. At [`size`] bytes of the kernel's, 64-byte aligned, that
/// nothing else is in.
#[derive(Clone, Copy)]
pub struct Area(*mut u8);

/// The area of the process in `slot`.
pub fn area(slot: usize) -> Area {
    let slot = slot & (MAX_PROCESSES - 1);
    match AREAS.get() {
        0 => Area::SPARE,
        areas => Area((areas as usize + slot * stride()) as *mut u8),
    }
}

impl Area {
    /// The area of who has none yet: nobody who runs.
    pub const SPARE: Area = Area((&raw const SPARE).cast_mut().cast());

    /// The state as bytes.
    pub fn bytes(self) -> &'static [Cell<u8>] {
        // SAFETY: an area is mapped for ever, and whoever changes it does so through cells or as one
        // instruction of the kernel's.
        unsafe { core::slice::from_raw_parts(self.0.cast(), size()) }
    }

    /// The initial state: all components in their initial configuration.
    pub fn reset(self) {
        let bytes = self.bytes();
        // SAFETY: all of the area, of which nobody holds anything but cells.
        unsafe { self.0.write_bytes(0, bytes.len()) };
        put(bytes, 0, 0x37f_u16.to_le_bytes());
        put(bytes, MXCSR, 0x1f80_u32.to_le_bytes());
    }

    /// Takes the state of `from` (fork).
    pub fn copy(self, from: Area) {
        // SAFETY: two areas, or one.
        unsafe { self.0.copy_from(from.0, size()) };
    }

    /// Saves the processor's state.
    #[inline(always)]
    pub fn save(self) {
        let (area, mask) = (self.0, MASK.get());
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
    pub fn restore(self) {
        let (area, mask) = (self.0, MASK.get());
        // SAFETY: as in `save`; the area's header was written by XSAVE or checked by `replace`.
        unsafe {
            if mask != 0 {
                asm!("xrstor64 [{}]", in(reg) area, in("eax") mask as u32, in("edx") (mask >> 32) as u32, options(nostack));
            } else {
                asm!("fxrstor64 [{}]", in(reg) area, options(nostack));
            }
        }
    }

    /// Replaces the state by `bytes` that somebody else wrote: whatever XRSTOR would
    /// refuse is removed. `EINVAL` when it is too short for the legacy area.
    pub fn replace(self, bytes: &[Cell<u8>]) -> Result<(), Errno> {
        if bytes.len() < HEADER {
            return Err(Errno::EINVAL);
        }
        self.reset();
        let area = self.bytes();
        for (to, from) in area.iter().zip(bytes) {
            to.set(from.get());
        }
        let mxcsr = u32::from_le_bytes(get(area, MXCSR));
        put(area, MXCSR, (mxcsr & 0xffff).to_le_bytes());
        if let Some(header) = area.get(HEADER..HEADER + 64) {
            // A legacy-only frame describes x87 and SSE.
            let present = if bytes.len() < HEADER + 8 {
                3
            } else {
                u64::from_le_bytes(get(header, 0))
            } & MASK.get();
            header.iter().for_each(|byte| byte.set(0));
            put(header, 0, present.to_le_bytes());
        }
        Ok(())
    }
}

/// The bytes at `at`; 0 beyond the end.
fn get<const N: usize>(area: &[Cell<u8>], at: usize) -> [u8; N] {
    core::array::from_fn(|n| area.get(at + n).map_or(0, Cell::get))
}

/// Puts bytes at `at`, as far as there is room.
fn put<const N: usize>(area: &[Cell<u8>], at: usize, bytes: [u8; N]) {
    for (cell, byte) in area.iter().skip(at).zip(bytes) {
        cell.set(byte);
    }
}

/// Saves FS and GS base of the running Linux process into its registers.
#[inline(always)]
pub fn save_bases(regs: &RegisterCells) {
    let (fs, gs): (u64, u64);
    // SAFETY: FSGSBASE works at CPL3 on hosts that interpret CPL0, and CR4 enables it
    // elsewhere (`lacks`).
    unsafe {
        asm!("rdfsbase {}", out(reg) fs, options(nostack, preserves_flags));
        asm!("rdgsbase {}", out(reg) gs, options(nostack, preserves_flags));
    }
    regs.fs_base.set(fs);
    regs.gs_base.set(gs);
}

/// Loads them.
#[inline(always)]
pub fn restore_bases(regs: &RegisterCells) {
    // SAFETY: as in `save_bases`; bases are checked to be canonical when set.
    unsafe {
        asm!("wrfsbase {}", in(reg) regs.fs_base.get(), options(nostack, preserves_flags));
        asm!("wrgsbase {}", in(reg) regs.gs_base.get(), options(nostack, preserves_flags));
    }
}
