//! Structures of Linux that calls fill, every byte of them a field: stat(2), statx(2), statfs(2).
//!
//! The field names are Linux's. A test compares each layout with that of linux-raw-sys, whose structures
//! do not say that they have no padding.

use zerocopy::{Immutable, IntoBytes};

/// `struct stat` of x86-64.
#[derive(IntoBytes, Immutable, Default)]
#[repr(C)]
pub struct Stat {
    pub st_dev: u64,
    pub st_ino: u64,
    pub st_nlink: u64,
    pub st_mode: u32,
    pub st_uid: u32,
    pub st_gid: u32,
    pub pad: u32,
    pub st_rdev: u64,
    pub st_size: u64,
    pub st_blksize: u64,
    pub st_blocks: u64,
    pub st_atime: [i64; 2],
    pub st_mtime: [i64; 2],
    pub st_ctime: [i64; 2],
    pub unused: [i64; 3],
}

/// `struct statx_timestamp`.
#[derive(IntoBytes, Immutable, Default)]
#[repr(C)]
pub struct Timestamp {
    pub tv_sec: i64,
    pub tv_nsec: u32,
    pub reserved: i32,
}

/// `struct statx`.
#[derive(IntoBytes, Immutable, Default)]
#[repr(C)]
pub struct Statx {
    pub stx_mask: u32,
    pub stx_blksize: u32,
    pub stx_attributes: u64,
    pub stx_nlink: u32,
    pub stx_uid: u32,
    pub stx_gid: u32,
    pub stx_mode: u16,
    pub pad: u16,
    pub stx_ino: u64,
    pub stx_size: u64,
    pub stx_blocks: u64,
    pub stx_attributes_mask: u64,
    pub stx_atime: Timestamp,
    pub stx_btime: Timestamp,
    pub stx_ctime: Timestamp,
    pub stx_mtime: Timestamp,
    pub stx_rdev_major: u32,
    pub stx_rdev_minor: u32,
    pub stx_dev_major: u32,
    pub stx_dev_minor: u32,
    pub stx_mnt_id: u64,
    /// Direct transfers, subvolumes and atomic writes, none of which there are.
    pub rest: [u64; 13],
}

/// `struct statfs` of x86-64.
#[derive(IntoBytes, Immutable, Default)]
#[repr(C)]
pub struct Statfs {
    pub f_type: u64,
    pub f_bsize: u64,
    pub f_blocks: u64,
    pub f_bfree: u64,
    pub f_bavail: u64,
    pub f_files: u64,
    pub f_ffree: u64,
    pub f_fsid: [u32; 2],
    pub f_namelen: u64,
    pub f_frsize: u64,
    pub f_flags: u64,
    pub f_spare: [u64; 4],
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::offset_of;
    use linux_raw_sys::general as linux;

    macro_rules! same {
        ($ours:ident, $theirs:ident: $($field:ident $(= $other:ident)?),*) => {
            assert_eq!(size_of::<$ours>(), size_of::<linux::$theirs>());
            $(assert_eq!(
                offset_of!($ours, $field),
                same!(@ $theirs $field $($other)?),
                stringify!($field)
            );)*
        };
        (@ $theirs:ident $field:ident) => { offset_of!(linux::$theirs, $field) };
        (@ $theirs:ident $field:ident $other:ident) => { offset_of!(linux::$theirs, $other) };
    }

    #[test]
    fn layouts_are_those_of_linux() {
        same!(Stat, stat: st_dev, st_ino, st_nlink, st_mode, st_uid, st_gid, st_rdev, st_size, st_blksize,
            st_blocks, st_atime, st_mtime, st_ctime, unused = __unused);
        same!(Timestamp, statx_timestamp: tv_sec, tv_nsec, reserved = __reserved);
        same!(Statx, statx: stx_mask, stx_blksize, stx_attributes, stx_nlink, stx_uid, stx_gid, stx_mode,
            stx_ino, stx_size, stx_blocks, stx_attributes_mask, stx_atime, stx_btime, stx_ctime, stx_mtime,
            stx_rdev_major, stx_rdev_minor, stx_dev_major, stx_dev_minor, stx_mnt_id,
            rest = stx_dio_mem_align);
        same!(Statfs, statfs: f_type, f_bsize, f_blocks, f_bfree, f_bavail, f_files, f_ffree, f_fsid,
            f_namelen, f_frsize, f_flags, f_spare);
    }
}
