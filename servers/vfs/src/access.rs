//! Permission checks.

use crate::process::{Ids, Process};
use crate::vnode::Vnode;
use abi::Errno;
use linux_raw_sys::general as linux;

/// Search a directory, execute a file.
pub const EXECUTE: u32 = 1;
/// Write.
pub const WRITE: u32 = 2;
/// Read.
pub const READ: u32 = 4;

/// In whose name a check is made: effective ids, or for access(2) the real ones.
#[derive(Clone, Copy)]
pub struct Credentials<'a> {
    process: &'a Process,
    uid: u32,
    gid: u32,
}

impl<'a> Credentials<'a> {
    /// Effective ids.
    pub fn effective(process: &'a Process) -> Credentials<'a> {
        let Ids { euid, egid, .. } = process.ids.get();
        Credentials {
            process,
            uid: euid,
            gid: egid,
        }
    }

    /// Real ids.
    pub fn real(process: &'a Process) -> Credentials<'a> {
        let Ids { uid, gid, .. } = process.ids.get();
        Credentials { process, uid, gid }
    }

    /// The superuser.
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// `EACCES` unless all of `wanted` is allowed.
    pub fn check(&self, vnode: &Vnode, wanted: u32) -> Result<(), Errno> {
        let mode = vnode.mode();
        if self.is_root() {
            // Root still needs somebody to be allowed to run a file.
            let runnable = vnode.is_directory() || mode & 0o111 != 0;
            return if wanted & EXECUTE == 0 || runnable {
                Ok(())
            } else {
                Err(Errno::EACCES)
            };
        }
        let (uid, gid) = vnode.owner();
        let allowed = if uid == self.uid {
            mode >> 6
        } else if self.process.in_group(self.gid, gid) {
            mode >> 3
        } else {
            mode
        };
        if wanted & !allowed & 7 == 0 {
            Ok(())
        } else {
            Err(Errno::EACCES)
        }
    }

    /// `EPERM` unless the owner of the file or root.
    pub fn check_owner(&self, vnode: &Vnode) -> Result<(), Errno> {
        if self.is_root() || vnode.owner().0 == self.uid {
            Ok(())
        } else {
            Err(Errno::EPERM)
        }
    }

    /// Whether the sticky bit of `directory` keeps this caller from removing `file`: `EPERM`.
    pub fn check_sticky(&self, directory: &Vnode, file: &Vnode) -> Result<(), Errno> {
        let sticky = directory.mode() & linux::S_ISVTX != 0;
        let owns = [directory.owner().0, file.owner().0].contains(&self.uid);
        if !sticky || owns || self.is_root() {
            Ok(())
        } else {
            Err(Errno::EPERM)
        }
    }
}
