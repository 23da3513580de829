//! Structures that VFS and the file systems exchange through grants.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A moment of a file: seconds since 1970, and nanoseconds of the second.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Debug,
    Default,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct Time {
    /// Seconds since 1970-01-01, 00:00 UTC.
    pub seconds: i64,
    /// Nanoseconds of the second.
    pub nanoseconds: i64,
}

impl From<(i64, i64)> for Time {
    fn from((seconds, nanoseconds): (i64, i64)) -> Time {
        Time {
            seconds,
            nanoseconds,
        }
    }
}

impl From<Time> for (i64, i64) {
    fn from(time: Time) -> (i64, i64) {
        (time.seconds, time.nanoseconds)
    }
}

/// A file's attributes, as every file system reports them.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Attributes {
    /// Inode number within the file system.
    pub ino: u64,
    /// Size in bytes.
    pub size: u64,
    /// 512-byte units in use.
    pub blocks: u64,
    /// Linux `st_mode`: type and permissions.
    pub mode: u32,
    /// Links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node (Linux `makedev`), else 0.
    pub rdev: u64,
    /// Preferred transfer size.
    pub block_size: u32,
    /// Zero.
    pub reserved: u32,
    /// Access time.
    pub atime: Time,
    /// Modification time.
    pub mtime: Time,
    /// Change time.
    pub ctime: Time,
}

/// File type bits of a mode.
pub use linux_raw_sys::general::{
    S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK,
};

/// mount(2): nothing is written.
pub const MS_RDONLY: u64 = linux_raw_sys::general::MS_RDONLY as u64;
/// mount(2): reading leaves access times as they are.
pub const MS_NOATIME: u64 = linux_raw_sys::general::MS_NOATIME as u64;

/// A mode of fallocate(2): the file does not grow.
pub const KEEP_SIZE: u32 = linux_raw_sys::general::FALLOC_FL_KEEP_SIZE;
/// A mode of fallocate(2): a hole, which never changes the size.
pub const PUNCH_HOLE: u32 = linux_raw_sys::general::FALLOC_FL_PUNCH_HOLE | KEEP_SIZE;

bitflags::bitflags! {
    /// Which fields of a [`SetAttributes`] to apply.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct SetMask: u32 {
        /// Permission bits (the type is kept).
        const MODE = 1;
        /// Owner.
        const UID = 2;
        /// Group.
        const GID = 4;
        /// Truncate or extend to `size`.
        const SIZE = 8;
        /// Access time.
        const ATIME = 16;
        /// Modification time.
        const MTIME = 32;
        /// Clears S_ISUID, after MODE (Linux's ATTR_KILL_SUID).
        const KILL_SUID = 64;
        /// Clears S_ISGID, after MODE (Linux's ATTR_KILL_SGID).
        const KILL_SGID = 128;
    }
}

impl SetMask {
    /// `mode` without the bits that the mask clears.
    pub const fn kill(self, mode: u32) -> u32 {
        let mut mode = mode;
        if self.contains(SetMask::KILL_SUID) {
            mode &= !linux_raw_sys::general::S_ISUID;
        }
        if self.contains(SetMask::KILL_SGID) {
            mode &= !linux_raw_sys::general::S_ISGID;
        }
        mode
    }
}

/// What [`crate::proto::fs::SetAttr`] changes. ctime becomes `now`.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SetAttributes {
    /// [`SetMask`].
    pub mask: u32,
    /// See [`SetMask::MODE`].
    pub mode: u32,
    /// See [`SetMask::UID`].
    pub uid: u32,
    /// See [`SetMask::GID`].
    pub gid: u32,
    /// See [`SetMask::SIZE`].
    pub size: u64,
    /// See [`SetMask::ATIME`].
    pub atime: Time,
    /// See [`SetMask::MTIME`].
    pub mtime: Time,
}

/// A file system's figures, for statfs.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Statistics {
    /// Linux `f_type`.
    pub kind: u64,
    /// Block size, bytes.
    pub block_size: u64,
    /// Blocks in all, free, and free to ordinary users.
    pub blocks: u64,
    /// Free blocks.
    pub free: u64,
    /// Free to users other than root.
    pub available: u64,
    /// Inodes.
    pub files: u64,
    /// Free inodes.
    pub files_free: u64,
    /// Longest name.
    pub name_max: u64,
    /// 1 when read-only.
    pub read_only: u64,
}

/// Longest file name, bytes.
pub const NAME_MAX: usize = 255;
/// Longest path with its terminating NUL, bytes.
pub const PATH_MAX: usize = 4096;
