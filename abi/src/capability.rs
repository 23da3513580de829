//! Capabilities (capabilities(7)) as bits of a set: what PM keeps for a process and tells VFS.

/// Change the owner of any file.
pub const CHOWN: u64 = 1 << 0;
/// Read, write and search whatever modes say.
pub const DAC_OVERRIDE: u64 = 1 << 1;
/// Read any file, search any directory.
pub const DAC_READ_SEARCH: u64 = 1 << 2;
/// Do what only a file's owner may.
pub const FOWNER: u64 = 1 << 3;
/// Keep set-id bits.
pub const FSETID: u64 = 1 << 4;
/// Take any group.
pub const SETGID: u64 = 1 << 6;
/// Become any user.
pub const SETUID: u64 = 1 << 7;
/// Let programs inherit any capability.
pub const SETPCAP: u64 = 1 << 8;
/// Set immutable flags of files.
pub const LINUX_IMMUTABLE: u64 = 1 << 9;
/// chroot(2).
pub const SYS_CHROOT: u64 = 1 << 18;
/// Make device nodes.
pub const MKNOD: u64 = 1 << 27;
/// Override access rules of a security module; there is none.
pub const MAC_OVERRIDE: u64 = 1 << 32;
/// All there are: 0 (CAP_CHOWN) to 40 (CAP_CHECKPOINT_RESTORE).
pub const ALL: u64 = (1 << 41) - 1;
/// Those that follow the file system user id (Linux's CAP_FS_SET).
pub const FS_SET: u64 = CHOWN
    | DAC_OVERRIDE
    | DAC_READ_SEARCH
    | FOWNER
    | FSETID
    | LINUX_IMMUTABLE
    | MKNOD
    | MAC_OVERRIDE;
