//! Endpoints: names of processes that cannot be confused with a dead predecessor, and that say
//! what the process is.

use crate::low;
use crate::role::Role;

/// The most processes that exist at once, servers included. Bounds every per-process table.
pub const MAX_PROCESSES: usize = 256;

const SLOT_BITS: u32 = 10;
const SLOT_MASK: u32 = (1 << SLOT_BITS) - 1;

/// Set in the endpoints of services.
const SERVICE: u32 = 1 << 30;
/// Where a service's role begins: five bits, the topmost of which is [`SERVICE`].
const ROLE_SHIFT: u32 = 26;

/// A process: a slot of the process table, the slot's generation at the time, and its role.
///
/// Layout: slot in bits 0..10, bit 31 clear for processes. A program has its generation in bits
/// 10..30 and bit 30 clear; a service has its generation in bits 10..26 and the number of its
/// [`Role`] in bits 26..31. A slot's generation advances when its process dies, so a stale
/// endpoint is recognised.
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
    pub const VM: Endpoint = Endpoint::service(Role::Vm, 1, 0);
    /// The reincarnation server: starts and watches services.
    pub const RS: Endpoint = Endpoint::service(Role::Rs, 2, 0);
    /// The process manager.
    pub const PM: Endpoint = Endpoint::service(Role::Pm, 3, 0);
    /// The virtual file system server.
    pub const VFS: Endpoint = Endpoint::service(Role::Vfs, 4, 0);

    /// A program's endpoint from its parts. `generation` is taken modulo 2^20.
    pub const fn new(slot: usize, generation: u32) -> Endpoint {
        Endpoint((low(slot as u64) & SLOT_MASK) | ((generation & 0xf_ffff) << SLOT_BITS))
    }

    /// The endpoint of a process of this role. A service's `generation` is taken modulo 2^16.
    pub const fn service(role: Role, slot: usize, generation: u32) -> Endpoint {
        match role {
            Role::Program => Endpoint::new(slot, generation),
            _ => Endpoint(
                (low(slot as u64) & SLOT_MASK)
                    | (generation & 0xffff) << SLOT_BITS
                    | (role as u32) << ROLE_SHIFT,
            ),
        }
    }

    /// Where the endpoint has its bit in a set of roles: a service's role, any number below 16
    /// for a program, 31 for the special values.
    #[inline(always)]
    pub(crate) const fn role_bits(self) -> u32 {
        self.0 >> ROLE_SHIFT & 31
    }

    /// What the process is; `None` for the special values.
    pub fn role(self) -> Option<Role> {
        match self.role_bits() {
            0..16 if self.is_process() => Some(Role::Program),
            bits => Role::from_word(bits.into()),
        }
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
        if self.0 & SERVICE != 0 {
            self.0 >> SLOT_BITS & 0xffff
        } else {
            self.0 >> SLOT_BITS
        }
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
