//! Calls that change names: mkdir, unlink, link, symlink, rename.

use super::open::make;
use crate::namei::{Follow, Found, Last, Node, is_mount_point, place};
use crate::rights;
use crate::state::Caller;
use crate::vnode::{Cached, Vnode};
use abi::fs::PATH_MAX;
use abi::proto::fs;
use abi::{Errno, capability};
use alloc::rc::Rc;
use alloc::vec::Vec;
use linux_raw_sys::general as linux;

async fn found(c: &Caller, dirfd: u64, path: u64, follow: Follow) -> Result<Found, Errno> {
    let path = c.path(path).await?;
    let start = c.start(dirfd, &path)?;
    c.walk(&start, &path, follow).await
}

/// mkdirat(2)
pub async fn mkdir(c: &Caller, dirfd: u64, path: u64, mode: u64) -> Result<u64, Errno> {
    let found = found(c, dirfd, path, Follow::Never).await?;
    let mode = mode as u32 & 0o1777 | linux::S_IFDIR;
    make(c, &found, mode, 0).await?;
    Ok(0)
}

/// unlinkat(2), with AT_REMOVEDIR rmdir(2)
pub async fn unlink(c: &Caller, dirfd: u64, path: u64, flags: u64) -> Result<u64, Errno> {
    let directory = match flags as u32 {
        0 => false,
        linux::AT_REMOVEDIR => true,
        _ => return Err(Errno::EINVAL),
    };
    let found = found(c, dirfd, path, Follow::Never).await?;
    match (found.last, directory) {
        (Last::Name, _) => {}
        (Last::Dot, true) => return Err(Errno::EINVAL),
        (Last::DotDot, true) => return Err(Errno::ENOTEMPTY),
        (_, true) => return Err(Errno::EBUSY),
        (_, false) => return Err(Errno::EISDIR),
    }
    let vnode = found.existing()?.vnode()?;
    if found.trailing_slash && !directory {
        return Err(if vnode.is_directory() {
            Errno::EISDIR
        } else {
            Errno::ENOTDIR
        });
    }
    let parent = &found.directory;
    parent.mount.check_writable()?;
    rights::may_delete(&c.credentials(), parent, &vnode, directory)?;
    if is_mount_point(&found).is_some() {
        return Err(Errno::EBUSY);
    }
    let peer = &parent.mount.peer;
    parent.names_change(&found.name);
    let grant = peer.lend(&found.name)?;
    let answer = peer
        .ask(fs::Unlink {
            dir: parent.ino,
            grant: grant.to(),
            len: found.name.len() as u64,
            directory,
        })
        .await;
    drop(grant);
    parent.names_change(&found.name);
    answer?;
    if directory {
        vnode.set_removed();
        vnode.forget_all();
    }
    parent.remember(&found.name, Cached::Absent);
    drop(found);
    name_went(c, &vnode).await;
    Ok(0)
}

/// Notes when that was the last name of a file that somebody else uses.
async fn name_went(c: &Caller, vnode: &Rc<Vnode>) {
    if !vnode.is_directory()
        && Rc::strong_count(vnode) > 1
        && let Ok(attributes) = c.attributes(vnode).await
        && attributes.nlink == 0
    {
        vnode.set_removed();
    }
}

/// linkat(2)
pub async fn link(
    c: &Caller,
    old_dirfd: u64,
    old: u64,
    new_dirfd: u64,
    new: u64,
    flags: u64,
) -> Result<u64, Errno> {
    let known = linux::AT_SYMLINK_FOLLOW | linux::AT_EMPTY_PATH;
    if flags & !u64::from(known) != 0 {
        return Err(Errno::EINVAL);
    }
    // Here links are not followed unless asked for.
    let mut node_flags = flags & u64::from(linux::AT_EMPTY_PATH);
    if flags & u64::from(linux::AT_SYMLINK_FOLLOW) == 0 {
        node_flags |= u64::from(linux::AT_SYMLINK_NOFOLLOW);
    }
    let path = c.path_at(old, node_flags).await?;
    let node = c.node_of(old_dirfd, &path, node_flags).await?;
    if let Node::Open(file) = &node
        && path.is_empty()
        && file.credential != c.process.subject.credential.get()
        && !c.credentials().capable(capability::DAC_READ_SEARCH)
    {
        // A descriptor that somebody else has opened makes no names.
        return Err(Errno::ENOENT);
    }
    let vnode = node.vnode()?;
    let found = found(c, new_dirfd, new, Follow::Never).await?;
    if found.node.is_some() || found.last != Last::Name {
        return Err(Errno::EEXIST);
    }
    if found.trailing_slash {
        return Err(Errno::ENOENT);
    }
    let parent = &found.directory;
    if !Rc::ptr_eq(&vnode.mount, &parent.mount) {
        return Err(Errno::EXDEV);
    }
    parent.mount.check_writable()?;
    let credentials = c.credentials();
    c.vfs.protections.may_link(&credentials, &vnode)?;
    rights::may_create(&credentials, parent)?;
    if vnode.is_directory() {
        return Err(Errno::EPERM);
    }
    if vnode.is_removed() {
        return Err(Errno::ENOENT);
    }
    let peer = &parent.mount.peer;
    parent.names_change(&found.name);
    let grant = peer.lend(&found.name)?;
    let answer = peer
        .ask(fs::Link {
            ino: vnode.ino,
            dir: parent.ino,
            grant: grant.to(),
            len: found.name.len() as u64,
        })
        .await;
    drop(grant);
    parent.names_change(&found.name);
    answer?;
    parent.remember(&found.name, Cached::Present(vnode));
    Ok(0)
}

/// symlinkat(2). The target is copied here first, so that the file system meets no absent
/// page with the link half made.
pub async fn symlink(c: &Caller, target: u64, dirfd: u64, path: u64) -> Result<u64, Errno> {
    let target = c.path(target).await?;
    if target.is_empty() {
        return Err(Errno::ENOENT);
    }
    if target.len() >= PATH_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    let found = found(c, dirfd, path, Follow::Never).await?;
    if found.node.is_some() || found.last != Last::Name {
        return Err(Errno::EEXIST);
    }
    if found.trailing_slash {
        return Err(Errno::ENOENT);
    }
    let parent = &found.directory;
    parent.mount.check_writable()?;
    let credentials = c.credentials();
    rights::may_create(&credentials, parent)?;
    let (group, _) = rights::init_owner(&credentials, parent, linux::S_IFLNK);
    let owner = credentials.uid();
    let charge = c.vnode()?;
    let peer = &parent.mount.peer;
    parent.names_change(&found.name);
    let lent = (peer.lend(&found.name)?, peer.lend(&target)?);
    let answer = peer
        .ask(fs::Symlink {
            dir: parent.ino,
            name: lent.0.to(),
            target: lent.1.to(),
            lens: (found.name.len() as u32, target.len() as u32),
            ids: (owner, group),
        })
        .await;
    drop(lent);
    parent.names_change(&found.name);
    let vnode = parent.mount.adopt(answer?, Some(charge));
    parent.remember(&found.name, Cached::Present(vnode));
    Ok(0)
}

/// renameat2(2)
pub async fn rename(
    c: &Caller,
    old_dirfd: u64,
    old: u64,
    new_dirfd: u64,
    new: u64,
    flags: u64,
) -> Result<u64, Errno> {
    let flags = flags as u32;
    let exchange = flags & linux::RENAME_EXCHANGE != 0;
    let no_replace = flags & linux::RENAME_NOREPLACE != 0;
    if flags & !(linux::RENAME_EXCHANGE | linux::RENAME_NOREPLACE) != 0 || exchange && no_replace {
        return Err(Errno::EINVAL);
    }
    let from = found(c, old_dirfd, old, Follow::Never).await?;
    let to = found(c, new_dirfd, new, Follow::Never).await?;
    if !Rc::ptr_eq(&from.directory.mount, &to.directory.mount) {
        return Err(Errno::EXDEV);
    }
    if from.last != Last::Name || to.last != Last::Name && !no_replace {
        return Err(Errno::EBUSY);
    }
    if to.last != Last::Name {
        return Err(Errno::EEXIST);
    }
    let vnode = from.existing()?.vnode()?;
    let target = match &to.node {
        Some(node) => Some(node.clone().vnode()?),
        None => None,
    };
    if no_replace && target.is_some() {
        return Err(Errno::EEXIST);
    }
    if exchange && target.is_none() {
        return Err(Errno::ENOENT);
    }
    if !vnode.is_directory() && (from.trailing_slash || to.trailing_slash && !exchange) {
        return Err(Errno::ENOTDIR);
    }
    if exchange && to.trailing_slash && target.as_ref().is_some_and(|t| !t.is_directory()) {
        return Err(Errno::ENOTDIR);
    }
    let mount = from.directory.mount.clone();
    mount.check_writable()?;
    // A directory cannot go below itself.
    if vnode.is_directory() && is_below(&to.directory, &vnode) {
        return Err(Errno::EINVAL);
    }
    if let Some(target) = &target
        && target.is_directory()
        && is_below(&from.directory, target)
    {
        return Err(if exchange {
            Errno::EINVAL
        } else {
            Errno::ENOTEMPTY
        });
    }
    let credentials = c.credentials();
    if target.as_ref().is_some_and(|t| Rc::ptr_eq(t, &vnode)) {
        // Two names of one file: nothing is done, which everybody may.
        return Ok(0);
    }
    rights::may_delete(&credentials, &from.directory, &vnode, vnode.is_directory())?;
    match &target {
        None => rights::may_create(&credentials, &to.directory)?,
        Some(target) => {
            let as_directory = if exchange { target } else { &vnode }.is_directory();
            rights::may_delete(&credentials, &to.directory, target, as_directory)?;
        }
    }
    rights::may_move(&credentials, &from.directory, &to.directory, &vnode)?;
    if exchange && let Some(target) = &target {
        rights::may_move(&credentials, &from.directory, &to.directory, target)?;
    }
    if is_mount_point(&from).is_some() || is_mount_point(&to).is_some() {
        return Err(Errno::EBUSY);
    }

    let mut names: Vec<u8> = Vec::with_capacity(from.name.len() + to.name.len());
    names.extend_from_slice(&from.name);
    names.extend_from_slice(&to.name);
    from.directory.names_change(&from.name);
    to.directory.names_change(&to.name);
    let grant = mount.peer.lend(&names)?;
    let answer = mount
        .peer
        .ask(fs::Rename {
            old_dir: from.directory.ino,
            new_dir: to.directory.ino,
            grant: grant.to(),
            lens: (from.name.len() as u32, to.name.len() as u32),
            flags,
        })
        .await;
    drop(grant);
    from.directory.names_change(&from.name);
    to.directory.names_change(&to.name);
    answer?;
    place(&to.directory, &to.name, &vnode);
    match (&target, exchange) {
        (Some(target), true) => place(&from.directory, &from.name, target),
        (Some(target), false) if target.is_directory() => {
            target.set_removed();
            target.forget_all();
        }
        _ => {}
    }
    to.directory.remember(&to.name, Cached::Present(vnode));
    if !exchange {
        from.directory.remember(&from.name, Cached::Absent);
        drop(to);
        if let Some(target) = &target {
            name_went(c, target).await;
        }
    }
    Ok(0)
}

/// Whether `directory` is `ancestor` or stands somewhere below it.
fn is_below(directory: &Rc<Vnode>, ancestor: &Rc<Vnode>) -> bool {
    let mut at = directory.clone();
    loop {
        if Rc::ptr_eq(&at, ancestor) {
            return true;
        }
        match at.place() {
            Some(place) => at = place.parent,
            None => return false,
        }
    }
}
