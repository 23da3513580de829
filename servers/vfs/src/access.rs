//! In whose name a call looks at files, and what he may do with one as it is. The rules about
//! changing files and names stand on this: [`crate::rights`].

use crate::context::Ids;
use crate::process::Process;
use crate::vnode::Vnode;
use abi::{Errno, capability};
use linux_raw_sys::general as linux;

/// Search a directory, execute a file.
pub const EXECUTE: u32 = 1;
/// Write.
pub const WRITE: u32 = 2;
/// Read.
pub const READ: u32 = 4;

/// What makes a program one of a group.
pub const SET_GROUP_EXECUTE: u32 = linux::S_ISGID | linux::S_IXGRP;

/// In whose name a check is made: the file system ids, or for access(2) the real ones.
#[derive(Clone, Copy)]
pub struct Credentials<'a> {
    process: &'a Process,
    uid: u32,
    gid: u32,
    capabilities: u64,
}

impl<'a> Credentials<'a> {
    /// The file system ids, which are the effective ones unless setfsuid(2) says otherwise, and
    /// the effective capabilities.
    pub fn effective(process: &'a Process) -> Credentials<'a> {
        let ids = process.subject.ids.get();
        Credentials {
            process,
            uid: ids.fsuid,
            gid: ids.fsgid,
            capabilities: ids.capabilities,
        }
    }

    /// The real ids, and the capabilities that a real user has.
    pub fn real(process: &'a Process) -> Credentials<'a> {
        let Ids { uid, gid, .. } = process.subject.ids.get();
        Credentials {
            process,
            uid,
            gid,
            capabilities: Ids::of(uid, gid).capabilities,
        }
    }

    /// The user.
    pub const fn uid(&self) -> u32 {
        self.uid
    }

    /// The group that new files get.
    pub const fn gid(&self) -> u32 {
        self.gid
    }

    /// Whether there is a capability of [`abi::capability`].
    pub const fn capable(&self, capability: u64) -> bool {
        self.capabilities & capability != 0
    }

    /// Whether in a group (Linux's `in_group_p`).
    pub fn in_group(&self, group: u32) -> bool {
        self.process.in_group(self.gid, group)
    }

    /// Whether in a group, or free to keep set-id bits all the same (`in_group_or_capable`).
    pub fn in_group_or_capable(&self, group: u32) -> bool {
        self.in_group(group) || self.capable(capability::FSETID)
    }

    /// `EACCES` unless all of `wanted` is allowed (`generic_permission`). One class of the mode
    /// counts, the first that fits.
    pub fn check(&self, vnode: &Vnode, wanted: u32) -> Result<(), Errno> {
        self.check_mode(vnode.mode(), vnode.owner(), wanted)
    }

    /// [`Credentials::check`] of what has no vnode: type and permissions, user and group.
    pub fn check_mode(&self, mode: u32, (uid, gid): (u32, u32), wanted: u32) -> Result<(), Errno> {
        let allowed = if uid == self.uid {
            mode >> 6
        } else if self.in_group(gid) {
            mode >> 3
        } else {
            mode
        };
        if wanted & !allowed & 7 == 0 || self.overrides(mode, wanted) {
            Ok(())
        } else {
            Err(Errno::EACCES)
        }
    }

    /// Whether capabilities allow what the mode does not. A file is run only if somebody may.
    fn overrides(&self, mode: u32, wanted: u32) -> bool {
        let directory = mode & linux::S_IFMT == linux::S_IFDIR;
        let any = directory || wanted & EXECUTE == 0 || mode & 0o111 != 0;
        let looks = if directory {
            wanted & WRITE == 0
        } else {
            wanted == READ
        };
        any && self.capable(capability::DAC_OVERRIDE)
            || looks && self.capable(capability::DAC_READ_SEARCH)
    }

    /// Whether the owner of the file, or free to act as him (`inode_owner_or_capable`).
    pub fn owner_or_capable(&self, vnode: &Vnode) -> bool {
        vnode.owner().0 == self.uid || self.capable(capability::FOWNER)
    }

    /// `EPERM` unless [`Credentials::owner_or_capable`].
    pub fn check_owner(&self, vnode: &Vnode) -> Result<(), Errno> {
        if self.owner_or_capable(vnode) {
            Ok(())
        } else {
            Err(Errno::EPERM)
        }
    }

    /// `EPERM` when the sticky bit of `directory` keeps this caller from removing `file`
    /// (`check_sticky`).
    pub fn check_sticky(&self, directory: &Vnode, file: &Vnode) -> Result<(), Errno> {
        let sticky = directory.mode() & linux::S_ISVTX != 0;
        let owns = [directory.owner().0, file.owner().0].contains(&self.uid);
        if !sticky || owns || self.capable(capability::FOWNER) {
            Ok(())
        } else {
            Err(Errno::EPERM)
        }
    }
}
