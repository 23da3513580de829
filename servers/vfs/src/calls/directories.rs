//! Reading directories, and the directories a process is in.

use super::Args;
use crate::access::{Credentials, EXECUTE};
use crate::file::{Kind, OpenFile};
use crate::memory::Memory;
use crate::namei::{Follow, path_of};
use crate::state::Caller;
use crate::transfer::transfer;
use crate::user::zeroed;
use crate::vnode::Vnode;
use abi::fs::PATH_MAX;
use abi::kernel::user_range;
use abi::proto::fs;
use abi::{Errno, capability};
use alloc::rc::Rc;
use linux_raw_sys::general as linux;

/// Directory records one call gives at most, bytes.
const LISTING_MAX: u64 = 64 << 10;

async fn list(c: &Caller, file: &Rc<OpenFile>, memory: Memory<'_>) -> Result<u64, Errno> {
    let vnode = match (&file.kind, &file.vnode) {
        (Kind::File, Some(vnode)) if vnode.is_directory() => vnode,
        (Kind::Path, _) => return Err(Errno::EBADF),
        _ => return Err(Errno::ENOTDIR),
    };
    if memory.is_empty() {
        return Err(Errno::EINVAL);
    }
    if vnode.is_removed() {
        return Err(Errno::ENOENT);
    }
    let _turn = file.turn.take().await;
    let position = file.position();
    let memory = memory.first(LISTING_MAX);
    let whole = memory.len();
    let attempt = async |grant, len| {
        let listed = vnode
            .mount
            .peer
            .ask(fs::Getdents {
                ino: vnode.ino,
                position,
                grant,
                len,
                who: c.who(),
            })
            .await;
        // A record has room, but not all of that is there.
        match listed {
            Err(Errno::EINVAL) if len < whole => Err(Errno::EFAULT),
            listed => listed,
        }
    };
    let peer = &vnode.mount.peer;
    let listed = transfer(&c.vfs.base.vm, peer, memory, attempt).await?;
    file.set_position(listed.next);
    Ok(listed.bytes.min(memory.len()))
}

/// getdents64(2)
pub async fn getdents64(c: &Caller, a: Args) -> Result<u64, Errno> {
    let file = c.file(a[0])?;
    let len = a[2] & 0xffff_ffff;
    user_range(a[1], len)?;
    list(c, &file, Memory::user(c.who(), a[1], len)).await
}

/// getdents(2): the old records have the same size; the type stands at the end.
pub async fn getdents(c: &Caller, a: Args) -> Result<u64, Errno> {
    let file = c.file(a[0])?;
    let mut buffer = zeroed((a[2] & 0xffff_ffff).min(LISTING_MAX) as usize)?;
    let before = file.position();
    let len = list(c, &file, Memory::own_mut(&mut buffer)).await? as usize;
    let mut at = 0;
    // ino, off, reclen (18 bytes), type, name
    while at + 19 <= len {
        let reclen = usize::from(u16::from_le_bytes([buffer[at + 16], buffer[at + 17]]));
        let end = at + reclen;
        if reclen < 20 || end > len {
            return Err(Errno::EIO);
        }
        let kind = buffer[at + 18];
        buffer.copy_within(at + 19..end, at + 18);
        buffer[end - 1] = kind;
        at = end;
    }
    let written = c.memory().write(a[1], &buffer[..len]).await;
    if written.is_err() {
        file.set_position(before);
    }
    written.map(|()| len as u64)
}

/// getcwd(2)
pub async fn getcwd(c: &Caller, a: Args) -> Result<u64, Errno> {
    let cwd = c.process.cwd();
    if cwd.is_removed() {
        return Err(Errno::ENOENT);
    }
    let mut path = path_of(&cwd, &c.process.root())?;
    path.push(0);
    // glibc then finds out by itself.
    if path.len() > PATH_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    if (a[1] as usize) < path.len() {
        return Err(Errno::ERANGE);
    }
    c.memory().write(a[0], &path).await?;
    Ok(path.len() as u64)
}

fn check(c: &Caller, vnode: &Vnode) -> Result<(), Errno> {
    if !vnode.is_directory() {
        return Err(Errno::ENOTDIR);
    }
    Credentials::effective(&c.process).check(vnode, EXECUTE)
}

async fn directory(c: &Caller, address: u64) -> Result<Rc<Vnode>, Errno> {
    let path = c.path(address).await?;
    let start = c.start(linux::AT_FDCWD as u64, &path)?;
    let vnode = c.lookup(&start, &path, Follow::Yes).await?;
    check(c, &vnode)?;
    Ok(vnode)
}

/// chdir(2)
pub async fn chdir(c: &Caller, a: Args) -> Result<u64, Errno> {
    let vnode = directory(c, a[0]).await?;
    c.process.change(|d| d.cwd = vnode);
    Ok(0)
}

/// fchdir(2)
pub fn fchdir(c: &Caller, a: Args) -> Result<u64, Errno> {
    let vnode = c.file(a[0])?.vnode.clone().ok_or(Errno::ENOTDIR)?;
    check(c, &vnode)?;
    c.process.change(|d| d.cwd = vnode);
    Ok(0)
}

/// chroot(2)
pub async fn chroot(c: &Caller, a: Args) -> Result<u64, Errno> {
    let vnode = directory(c, a[0]).await?;
    if !c.credentials().capable(capability::SYS_CHROOT) {
        return Err(Errno::EPERM);
    }
    c.process.change(|d| d.root = vnode);
    Ok(0)
}
