//! What of other users' files is kept from programs that might be tricked into using them.

use crate::access::{Credentials, READ, SET_GROUP_EXECUTE, WRITE};
use crate::vnode::Vnode;
use abi::{Errno, tunable};
use core::cell::Cell;
use linux_raw_sys::general as linux;

/// What of other users' files in directories that all may write is kept from programs:
/// /proc/sys/fs/protected_*. Distributions set what is the default here (systemd's
/// 50-default.conf); 0 is off.
pub struct Protections {
    /// Hard links to files that one neither owns nor may read and write.
    hardlinks: Cell<u64>,
    /// Symbolic links in sticky directories that all may write.
    symlinks: Cell<u64>,
    /// O_CREAT on a fifo there; with 2 where the group may write, too.
    fifos: Cell<u64>,
    /// O_CREAT on a file there; likewise.
    regular: Cell<u64>,
}

impl Default for Protections {
    fn default() -> Self {
        Protections {
            hardlinks: Cell::new(1),
            symlinks: Cell::new(1),
            fifos: Cell::new(1),
            regular: Cell::new(2),
        }
    }
}

impl Protections {
    fn knob(&self, which: u32) -> Option<(&Cell<u64>, u64)> {
        Some(match which {
            tunable::PROTECTED_HARDLINKS => (&self.hardlinks, 1),
            tunable::PROTECTED_SYMLINKS => (&self.symlinks, 1),
            tunable::PROTECTED_FIFOS => (&self.fifos, 2),
            tunable::PROTECTED_REGULAR => (&self.regular, 2),
            _ => return None,
        })
    }

    /// What /proc/sys shows; `None` for what is not one of these.
    pub fn get(&self, which: u32) -> Option<u64> {
        Some(self.knob(which)?.0.get())
    }

    /// Sets it: `EINVAL` beyond what it may be. `None` for what is not one of these.
    pub fn set(&self, which: u32, value: u64) -> Option<Result<(), Errno>> {
        let (knob, most) = self.knob(which)?;
        if value > most {
            return Some(Err(Errno::EINVAL));
        }
        knob.set(value);
        Some(Ok(()))
    }

    /// `EACCES` for a symbolic link at the end of a path that somebody else has laid into a
    /// directory that all may write (`may_follow_link`).
    pub fn may_follow_link(
        &self,
        who: &Credentials,
        directory: &Vnode,
        link: &Vnode,
    ) -> Result<(), Errno> {
        let shared = linux::S_ISVTX | linux::S_IWOTH;
        let owner = link.owner().0;
        let trusted = owner == who.uid() || owner == directory.owner().0;
        if self.symlinks.get() == 0 || directory.mode() & shared != shared || trusted {
            Ok(())
        } else {
            Err(Errno::EACCES)
        }
    }

    /// `EACCES` for O_CREAT on what is there already and somebody else's, in a directory that
    /// others write as well (`may_create_in_sticky`). For root, too.
    pub fn may_create_in_sticky(
        &self,
        who: &Credentials,
        directory: &Vnode,
        file: &Vnode,
    ) -> Result<(), Errno> {
        let level = match file.kind() {
            linux::S_IFREG => self.regular.get(),
            linux::S_IFIFO => self.fifos.get(),
            _ => 1,
        };
        let mode = directory.mode();
        let owner = file.owner().0;
        let trusted = owner == who.uid() || owner == directory.owner().0;
        let others = mode & linux::S_IWOTH != 0 || level > 1 && mode & linux::S_IWGRP != 0;
        if level == 0 || mode & linux::S_ISVTX == 0 || trusted || !others {
            Ok(())
        } else {
            Err(Errno::EACCES)
        }
    }

    /// `EPERM` for a further name of somebody else's file, unless it is one that can do no harm
    /// (`may_linkat`, `safe_hardlink_source`).
    pub fn may_link(&self, who: &Credentials, file: &Vnode) -> Result<(), Errno> {
        let mode = file.mode();
        let harmless = file.is_regular()
            && mode & linux::S_ISUID == 0
            && mode & SET_GROUP_EXECUTE != SET_GROUP_EXECUTE
            && who.check(file, READ | WRITE).is_ok();
        if self.hardlinks.get() == 0 || harmless || who.owner_or_capable(file) {
            Ok(())
        } else {
            Err(Errno::EPERM)
        }
    }
}
