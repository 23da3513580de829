//! Endpoints: names of processes that cannot be confused with a dead predecessor.

/// The most processes that exist at once, servers included. Bounds every per-process table.
pub const MAX_PROCESSES: usize = 256;

const SLOT_BITS: u32 = 10;
const SLOT_MASK: u32 = (1 << SLOT_BITS) - 1;

/// A process: a slot of the process table and the slot's generation at the time.
///
/// Layout: slot in bits 0..10, generation in bits 10..31, bit 31 clear for processes.
/// A slot's generation advances when its process dies, so a stale endpoint is recognised.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Endpoint(pub u32);

impl Endpoint {
    /// Any process (receive filter, grantee of an open grant).
    pub const ANY: Endpoint = Endpoint(0xffff_ffff);
    /// No process; as one side of a copy: physical memory.
    pub const NONE: Endpoint = Endpoint(0xffff_fffe);
    /// The calling process.
    pub const SELF: Endpoint = Endpoint(0xffff_fffd);
    /// The kernel, as the source of notifications.
    pub const KERNEL: Endpoint = Endpoint(0xffff_fffc);

    /// The memory server. The well-known servers have generation 0 in fixed slots.
    pub const VM: Endpoint = Endpoint(1);
    /// The reincarnation server: starts and watches services.
    pub const RS: Endpoint = Endpoint(2);
    /// The process manager.
    pub const PM: Endpoint = Endpoint(3);
    /// The virtual file system server.
    pub const VFS: Endpoint = Endpoint(4);

    /// An endpoint from its parts. `generation` is taken modulo 2^21.
    pub const fn new(slot: usize, generation: u32) -> Endpoint {
        Endpoint((slot as u32 & SLOT_MASK) | ((generation & 0x1f_ffff) << SLOT_BITS))
    }

    /// Whether this names one process (alive or dead), not one of the special values.
    pub const fn is_process(self) -> bool {
        self.0 >> 31 == 0
    }

    /// The process-table slot. Below [`MAX_PROCESSES`] only for endpoints the kernel made.
    pub const fn slot(self) -> usize {
        (self.0 & SLOT_MASK) as usize
    }

    /// The slot's generation.
    pub const fn generation(self) -> u32 {
        self.0 >> SLOT_BITS
    }
}

impl core::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Endpoint::ANY => f.write_str("ANY"),
            Endpoint::NONE => f.write_str("NONE"),
            Endpoint::SELF => f.write_str("SELF"),
            Endpoint::KERNEL => f.write_str("KERNEL"),
            _ => write!(f, "{}.{}", self.slot(), self.generation()),
        }
    }
}

impl core::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Debug::fmt(self, f)
    }
}
