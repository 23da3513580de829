//! Roles: what a process is, as far as others' trust in it goes.
//!
//! RS's table of services says which role a service has; the kernel writes it into the process's
//! [`Endpoint`] when RS creates it, and nobody can change it. So whoever receives a message
//! knows from its source alone what the sender is, without a table to keep or to look up, and a
//! service that is started again has a new endpoint with the same role. Each protocol says of
//! each message which roles may send it ([`crate::protocol!`]).
//!
//! Why so: docs/decisions/014-roles-in-endpoints.md.

use crate::Endpoint;

/// What a process is. The number is that of its bit in [`Roles`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Role {
    /// Runs Linux programs, and sends nothing but its Linux calls and faults.
    Program = 0,
    /// The memory server.
    Vm = 16,
    /// The reincarnation server.
    Rs = 17,
    /// The process manager.
    Pm = 18,
    /// The virtual file system server.
    Vfs = 19,
    /// A file system with files of its own: ext2, tmpfs.
    FileSystem = 20,
    /// The file system of /proc, which asks every server about itself.
    Proc = 21,
    /// A block driver.
    Disk = 22,
    /// The console's driver, which is the file system of /dev/pts as well.
    Console = 23,
    /// The driver of the memory devices.
    Memory = 24,
}

impl Role {
    /// All of them.
    pub const ALL: [Role; 10] = [
        Role::Program,
        Role::Vm,
        Role::Rs,
        Role::Pm,
        Role::Vfs,
        Role::FileSystem,
        Role::Proc,
        Role::Disk,
        Role::Console,
        Role::Memory,
    ];

    /// The role with this number.
    pub fn from_word(word: u64) -> Option<Role> {
        Role::ALL.into_iter().find(|&role| role as u64 == word)
    }

    /// Its name in documents and in the log.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Program => "program",
            Role::Vm => "VM",
            Role::Rs => "RS",
            Role::Pm => "PM",
            Role::Vfs => "VFS",
            Role::FileSystem => "file system",
            Role::Proc => "proc",
            Role::Disk => "disk driver",
            Role::Console => "console",
            Role::Memory => "memory driver",
        }
    }
}

impl crate::message::Word for Role {
    fn to_word(self) -> u64 {
        self as u64
    }
    fn from_word(word: u64) -> Option<Role> {
        Role::from_word(word)
    }
}

/// A set of roles.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Roles(u32);

impl Roles {
    /// VM alone.
    pub const VM: Roles = Roles::of(Role::Vm);
    /// RS alone.
    pub const RS: Roles = Roles::of(Role::Rs);
    /// PM alone.
    pub const PM: Roles = Roles::of(Role::Pm);
    /// VFS alone.
    pub const VFS: Roles = Roles::of(Role::Vfs);
    /// proc alone.
    pub const PROC: Roles = Roles::of(Role::Proc);
    /// The console's driver alone.
    pub const CONSOLE: Roles = Roles::of(Role::Console);
    /// The drivers of disks alone.
    pub const DISK: Roles = Roles::of(Role::Disk);
    /// The driver of the memory devices alone.
    pub const MEMORY: Roles = Roles::of(Role::Memory);
    /// Those that keep files: the file systems but proc.
    pub const FILES: Roles = Roles::of(Role::FileSystem);
    /// Those that drive a virtio device.
    pub const VIRTIO: Roles = Roles::DISK.or(Roles::CONSOLE);
    /// Those that VFS asks by posting: file systems and drivers.
    pub const PEERS: Roles = Roles::FILES
        .or(Roles::PROC)
        .or(Roles::VIRTIO)
        .or(Roles::MEMORY);
    /// All but programs.
    pub const SERVICES: Roles = Roles::PEERS
        .or(Roles::VM)
        .or(Roles::RS)
        .or(Roles::PM)
        .or(Roles::VFS);

    /// `role` alone.
    pub const fn of(role: Role) -> Roles {
        match role {
            // The top bits of a program's generation stand where a service has its role.
            Role::Program => Roles(0xffff),
            _ => Roles(1 << role as u32),
        }
    }

    /// These and those.
    pub const fn or(self, other: Roles) -> Roles {
        Roles(self.0 | other.0)
    }

    /// All of these.
    pub const fn of_all(sets: &[Roles]) -> Roles {
        let (mut all, mut i) = (Roles(0), 0);
        while i < sets.len() {
            all = all.or(sets[i]);
            i += 1;
        }
        all
    }

    /// The set as bits, by [`Role`]'s numbers. Bit 31 is clear.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether `role` is among them.
    pub const fn contains(self, role: Role) -> bool {
        self.0 >> role as u32 & 1 != 0
    }

    /// Whether the role of `who` is among them. No special endpoint's is.
    #[inline(always)]
    pub const fn admits(self, who: Endpoint) -> bool {
        self.0 & 0x7fff_ffff & 1 << who.role_bits() != 0
    }
}
