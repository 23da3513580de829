//! Linux's rules about changing files and names: who may, and what becomes of set-id bits. Every
//! call that changes asks here; the functions are called as Linux's (fs/attr.c, fs/namei.c).
//! docs/rights.md lists the rules and their callers.
//!
//! Why so: docs/decisions/015-rights-in-vfs.md.

use crate::access::{Credentials, EXECUTE, SET_GROUP_EXECUTE, WRITE};
use crate::namei::{Found, Last};
use crate::state::Caller;
use crate::vnode::Vnode;
use abi::fs::{SetAttributes, SetMask};
use abi::{Errno, capability};
use linux_raw_sys::general as linux;

/// The set-group bit goes when it makes a program of a group, or when who changes the file is
/// not in its group (`setattr_should_drop_sgid`).
pub fn should_drop_sgid(who: &Credentials, file: &Vnode) -> SetMask {
    let mode = file.mode();
    let drops = mode & linux::S_ISGID != 0
        && (mode & linux::S_IXGRP != 0 || !who.in_group_or_capable(file.owner().1));
    if drops {
        SetMask::KILL_SGID
    } else {
        SetMask::empty()
    }
}

/// The set-id bits that a file loses when what is in it changes
/// (`setattr_should_drop_suidgid`): not by who has CAP_FSETID.
pub fn should_drop_suidgid(who: &Credentials, file: &Vnode) -> SetMask {
    if file.mode() & (linux::S_ISUID | linux::S_ISGID) == 0
        || !file.is_regular()
        || who.capable(capability::FSETID)
    {
        return SetMask::empty();
    }
    let mut kill = should_drop_sgid(who, file);
    kill.set(SetMask::KILL_SUID, file.mode() & linux::S_ISUID != 0);
    kill
}

/// The set-id bits that a file loses with a chown, whoever makes it and whatever it changes
/// (`chown_common`). Directories keep theirs.
pub fn chown_drops(who: &Credentials, file: &Vnode) -> SetMask {
    if file.is_directory() {
        return SetMask::empty();
    }
    let mut kill = should_drop_sgid(who, file);
    kill.set(SetMask::KILL_SUID, file.mode() & linux::S_ISUID != 0);
    kill
}

/// Who may change owner, group and mode like that, and without S_ISGID for a group he is not in
/// (`setattr_prepare`): `EPERM`.
pub fn setattr_prepare(
    who: &Credentials,
    file: &Vnode,
    change: &mut SetAttributes,
) -> Result<(), Errno> {
    let mut mask = SetMask::from_bits_truncate(change.mask);
    let (owner, group) = file.owner();
    let owns = owner == who.uid();
    let capable = who.capable(capability::CHOWN);
    let chown_ok = owns && change.uid == owner || capable;
    let chgrp_ok = owns && (change.gid == group || who.in_group(change.gid)) || capable;
    if mask.contains(SetMask::UID) && !chown_ok || mask.contains(SetMask::GID) && !chgrp_ok {
        return Err(Errno::EPERM);
    }
    // A bit that goes is a change of the mode.
    if mask.intersects(SetMask::MODE | SetMask::KILL_SUID | SetMask::KILL_SGID) {
        who.check_owner(file)?;
        let group = if mask.contains(SetMask::GID) {
            change.gid
        } else {
            group
        };
        mask.set(
            SetMask::KILL_SGID,
            mask.contains(SetMask::KILL_SGID) || !who.in_group_or_capable(group),
        );
    }
    change.mask = mask.bits();
    Ok(())
}

/// The mode that a new file gets in a directory (`vfs_prepare_mode`): without the umask, and
/// without S_ISGID when it would make a program of a group that its maker is not in.
pub fn prepare_mode(who: &Credentials, directory: &Vnode, mode: u32, umask: u32) -> u32 {
    let program = mode & SET_GROUP_EXECUTE == SET_GROUP_EXECUTE
        && mode & linux::S_IFMT != linux::S_IFDIR
        && directory.mode() & linux::S_ISGID != 0;
    let stripped = if program && !who.in_group_or_capable(directory.owner().1) {
        linux::S_ISGID
    } else {
        0
    };
    mode & !stripped & !umask
}

/// The group of a new file, and its mode with what it inherits (`inode_init_owner`).
pub fn init_owner(who: &Credentials, directory: &Vnode, mode: u32) -> (u32, u32) {
    if directory.mode() & linux::S_ISGID == 0 {
        return (who.gid(), mode);
    }
    let inherited = if mode & linux::S_IFMT == linux::S_IFDIR {
        linux::S_ISGID
    } else {
        0
    };
    (directory.owner().1, mode | inherited)
}

/// Who may add a name to a directory (`may_create`): `ENOENT` where it is gone itself, `EACCES`.
pub fn may_create(who: &Credentials, directory: &Vnode) -> Result<(), Errno> {
    if directory.is_removed() {
        return Err(Errno::ENOENT);
    }
    who.check(directory, WRITE | EXECUTE)
}

/// Who may take a name from a directory (`may_delete`): `EACCES`, `EPERM` in a sticky one;
/// `as_directory` says what it must be: `ENOTDIR`, `EISDIR`.
pub fn may_delete(
    who: &Credentials,
    directory: &Vnode,
    file: &Vnode,
    as_directory: bool,
) -> Result<(), Errno> {
    who.check(directory, WRITE | EXECUTE)?;
    who.check_sticky(directory, file)?;
    match (file.is_directory(), as_directory) {
        (true, false) => Err(Errno::EISDIR),
        (false, true) => Err(Errno::ENOTDIR),
        _ => Ok(()),
    }
}

/// A directory that moves has its `..` changed: who may not write it may not move it
/// (`vfs_rename`): `EACCES`.
pub fn may_move(who: &Credentials, from: &Vnode, to: &Vnode, file: &Vnode) -> Result<(), Errno> {
    if core::ptr::eq(from, to) || !file.is_directory() {
        return Ok(());
    }
    who.check(file, WRITE)
}

impl Caller {
    /// In whose name the call looks at files.
    pub fn credentials(&self) -> Credentials<'_> {
        Credentials::effective(&self.process)
    }

    /// What is in a file is about to change: set-id bits go (`file_remove_privs`). To be called
    /// before each request that changes it: somebody may set them while a long one waits.
    pub async fn remove_privs(&self, file: &Vnode) -> Result<(), Errno> {
        let mask = should_drop_suidgid(&self.credentials(), file);
        if mask.is_empty() {
            return Ok(());
        }
        let change = SetAttributes {
            mask: mask.bits(),
            ..SetAttributes::default()
        };
        self.set_attributes(file, change).await
    }

    /// [`crate::protections::Protections::may_create_in_sticky`] of where a walk for O_CREAT has ended.
    pub fn may_create_at(&self, found: &Found, file: &Vnode) -> Result<(), Errno> {
        match found.last {
            Last::Name => {
                let protections = &self.vfs.protections;
                protections.may_create_in_sticky(&self.credentials(), &found.directory, file)
            }
            _ => Ok(()),
        }
    }
}
