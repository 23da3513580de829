//! What the kernel tells of the machine, and what of its memory is whose.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Addresses `[start, end)`.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Span {
    /// The first.
    pub start: u64,
    /// The first beyond.
    pub end: u64,
}

impl Span {
    /// Without any.
    pub const EMPTY: Span = Span { start: 0, end: 0 };

    /// Bytes; 0 when it ends before it starts.
    pub const fn len(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Whether there is no address in it.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What the machine is ([`super::Kcall::BootInfo`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BootInfo {
    /// Free physical ranges, page aligned, ascending; unused entries are empty.
    pub free: [Span; 8],
    /// All RAM, bytes.
    pub ram_bytes: u64,
    /// 0 direct, 1 deprivileged.
    pub gate: u64,
    /// TSC ticks per second; 0 when time is virtual and only the kernel knows it.
    pub tsc_hz: u64,
    /// The TSC when the kernel's clock started.
    pub tsc_start: u64,
    /// Entries of the boot archive.
    pub modules: u64,
    /// Where the boot archive is in physical memory.
    pub archive: Span,
    /// Bytes of one XSAVE area.
    pub xsave_bytes: u64,
    /// State components that a program's XSAVE area can have, as in XCR0 (Intel SDM volume 1, 13.3). Only the kernel
    /// knows: where CPL0 is interpreted, CPUID at CPL3 does not even say that there is XSAVE.
    pub xfeatures: u64,
    /// Physical address of the laboratory's [`crate::trace::Control`]; 0 when it is off.
    pub lab: u64,
    /// 1 when servers are to ask which task goes on ([`crate::kernel::Kcall::Decide`]).
    pub deciding: u64,
    /// Deliberate defects: bits of [`crate::sabotage`].
    pub sabotage: u64,
}

/// Bytes that services take of the free memory whatever programs do: their programs and heaps, VM's tables and
/// what programs leave to them. A boot with less free memory is refused (servers/vm/src/boot.rs);
/// `tests/exhaust.rs` compares it with what services have after all that users do.
pub const SERVICES_MEMORY: u64 = 8 << 20;
/// Bytes that a server's heap grows by, at least.
pub const HEAP_PIECE: usize = 64 << 10;
/// Bytes that programs have to have at least for a machine to be of use.
pub const PROGRAMS_MEMORY_MIN: u64 = 2 << 20;

impl BootInfo {
    /// Bytes of free memory, with which VM begins.
    pub fn free_bytes(&self) -> u64 {
        self.free.iter().map(Span::len).sum()
    }

    /// Bytes that programs can have, which limits are parts of (docs/limits.md).
    pub fn for_programs(&self) -> u64 {
        let free = self.free_bytes();
        free.saturating_sub(SERVICES_MEMORY)
            .max(PROGRAMS_MEMORY_MIN)
    }

    /// Of no machine.
    pub const NONE: BootInfo = BootInfo {
        free: [Span::EMPTY; 8],
        ram_bytes: 0,
        gate: 0,
        tsc_hz: 0,
        tsc_start: 0,
        modules: 0,
        archive: Span::EMPTY,
        xsave_bytes: 0,
        xfeatures: 0,
        lab: 0,
        deciding: 0,
        sabotage: 0,
    };
}
