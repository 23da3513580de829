//! Calls that change a file's attributes or size.

use super::{Args, fd};
use crate::access::WRITE;
use crate::file::Kind;
use crate::namei::{Follow, Node};
use crate::rights;
use crate::state::Caller;
use crate::vnode::Vnode;
use abi::Errno;
use abi::fs::{SetAttributes, SetMask, Time};
use alloc::rc::Rc;
use linux_raw_sys::general as linux;

use super::information::time;

impl Caller {
    fn file_vnode(&self, arg: u64) -> Result<Rc<Vnode>, Errno> {
        let file = self.file(arg)?;
        file.check_not_path()?;
        file.vnode.clone().ok_or(Errno::EINVAL)
    }
}

async fn set_size(c: &Caller, vnode: &Vnode, size: u64) -> Result<u64, Errno> {
    vnode.mount.check_writable()?;
    vnode.check_size_unsealed(size)?;
    c.check_file_size(vnode, size).await?;
    resize(c, vnode, size).await?;
    Ok(0)
}

/// Gives a file another size, or the same, and takes its set-id bits (`do_truncate`).
pub async fn resize(c: &Caller, vnode: &Vnode, size: u64) -> Result<(), Errno> {
    let kill = rights::should_drop_suidgid(&c.credentials(), vnode);
    let change = SetAttributes {
        mask: (SetMask::SIZE | kill).bits(),
        size,
        ..SetAttributes::default()
    };
    c.set_attributes(vnode, change).await
}

fn size_argument(arg: u64) -> Result<u64, Errno> {
    if arg as i64 >= 0 {
        Ok(arg)
    } else {
        Err(Errno::EINVAL)
    }
}

/// truncate(2)
pub async fn truncate(c: &Caller, a: Args) -> Result<u64, Errno> {
    let size = size_argument(a[1])?;
    let path = c.path(a[0]).await?;
    let start = c.start(linux::AT_FDCWD as u64, &path)?;
    let vnode = c.lookup(&start, &path, Follow::Yes).await?;
    if vnode.is_directory() {
        return Err(Errno::EISDIR);
    }
    if !vnode.is_regular() {
        return Err(Errno::EINVAL);
    }
    c.credentials().check(&vnode, WRITE)?;
    vnode.check_not_executed()?;
    set_size(c, &vnode, size).await
}

/// ftruncate(2)
pub async fn ftruncate(c: &Caller, a: Args) -> Result<u64, Errno> {
    let size = size_argument(a[1])?;
    let file = c.file(a[0])?;
    file.check_not_path()?;
    if file.check_writable().is_err() || !matches!(file.kind, Kind::File) {
        return Err(Errno::EINVAL);
    }
    let vnode = file.vnode.clone().ok_or(Errno::EINVAL)?;
    set_size(c, &vnode, size).await
}

async fn change_mode(c: &Caller, vnode: &Vnode, mode: u64) -> Result<u64, Errno> {
    if vnode.is_link() {
        return Err(Errno::EOPNOTSUPP);
    }
    vnode.mount.check_writable()?;
    let mut change = SetAttributes {
        mask: SetMask::MODE.bits(),
        mode: mode as u32 & 0o7777,
        ..SetAttributes::default()
    };
    rights::setattr_prepare(&c.credentials(), vnode, &mut change)?;
    c.set_attributes(vnode, change).await?;
    Ok(0)
}

/// fchmodat2(2)
pub async fn chmod(c: &Caller, dirfd: u64, path: u64, mode: u64, flags: u64) -> Result<u64, Errno> {
    let known = linux::AT_SYMLINK_NOFOLLOW | linux::AT_EMPTY_PATH;
    if flags & !u64::from(known) != 0 {
        return Err(Errno::EINVAL);
    }
    let vnode = c.node_at(dirfd, path, flags).await?.vnode()?;
    change_mode(c, &vnode, mode).await
}

/// fchmod(2)
pub async fn fchmod(c: &Caller, a: Args) -> Result<u64, Errno> {
    let vnode = c.file_vnode(a[0])?;
    change_mode(c, &vnode, a[1]).await
}

async fn change_owner(c: &Caller, vnode: &Vnode, uid: u64, gid: u64) -> Result<u64, Errno> {
    vnode.mount.check_writable()?;
    let (uid, gid) = (uid as u32, gid as u32);
    let credentials = c.credentials();
    let mut mask = rights::chown_drops(&credentials, vnode);
    mask.set(SetMask::UID, uid != u32::MAX);
    mask.set(SetMask::GID, gid != u32::MAX);
    let mut change = SetAttributes {
        mask: mask.bits(),
        uid,
        gid,
        ..SetAttributes::default()
    };
    rights::setattr_prepare(&credentials, vnode, &mut change)?;
    c.set_attributes(vnode, change).await?;
    Ok(0)
}

/// fchownat(2)
pub async fn chown(
    c: &Caller,
    dirfd: u64,
    path: u64,
    uid: u64,
    gid: u64,
    flags: u64,
) -> Result<u64, Errno> {
    let known = linux::AT_SYMLINK_NOFOLLOW | linux::AT_EMPTY_PATH;
    if flags & !u64::from(known) != 0 {
        return Err(Errno::EINVAL);
    }
    let vnode = c.node_at(dirfd, path, flags).await?.vnode()?;
    change_owner(c, &vnode, uid, gid).await
}

/// fchown(2)
pub async fn fchown(c: &Caller, a: Args) -> Result<u64, Errno> {
    let vnode = c.file_vnode(a[0])?;
    change_owner(c, &vnode, a[1], a[2]).await
}

/// A time to set: seconds, nanoseconds or UTIME_NOW or UTIME_OMIT.
type Wanted = (i64, i64);
const NOW: Wanted = (0, linux::UTIME_NOW as i64);

async fn change_times(c: &Caller, vnode: &Vnode, times: [Wanted; 2]) -> Result<u64, Errno> {
    let special = |ns: i64| [linux::UTIME_NOW as i64, linux::UTIME_OMIT as i64].contains(&ns);
    if times
        .iter()
        .any(|(_, ns)| !special(*ns) && !(0..1_000_000_000).contains(ns))
    {
        return Err(Errno::EINVAL);
    }
    vnode.mount.check_writable()?;
    let credentials = c.credentials();
    if times.iter().all(|(_, ns)| *ns == linux::UTIME_NOW as i64) {
        // Who may write may say that he did.
        if credentials.check_owner(vnode).is_err() {
            credentials.check(vnode, WRITE)?;
        }
    } else {
        credentials.check_owner(vnode)?;
    }
    let now = time(c.vfs.base.machine.wall_clock());
    let value = |(seconds, ns): Wanted| match ns as u32 {
        linux::UTIME_NOW => now,
        // Not applied, but file systems check every time they are given.
        linux::UTIME_OMIT => Time::default(),
        _ => (seconds, ns).into(),
    };
    let mut mask = SetMask::empty();
    let set = |(_, ns): Wanted| ns != linux::UTIME_OMIT as i64;
    mask.set(SetMask::ATIME, set(times[0]));
    mask.set(SetMask::MTIME, set(times[1]));
    let change = SetAttributes {
        mask: mask.bits(),
        atime: value(times[0]),
        mtime: value(times[1]),
        ..SetAttributes::default()
    };
    c.set_attributes(vnode, change).await?;
    Ok(0)
}

/// utimensat(2)
pub async fn utimensat(c: &Caller, a: Args) -> Result<u64, Errno> {
    let [dirfd, path, times, flags, ..] = a;
    let times = if times == 0 {
        [NOW, NOW]
    } else {
        let times: [[i64; 2]; 2] = c.memory().get(times).await?;
        times.map(|[seconds, ns]| (seconds, ns))
    };
    // Not even the path is looked at.
    if times.iter().all(|(_, ns)| *ns == linux::UTIME_OMIT as i64) {
        return Ok(0);
    }
    // futimens(3) is a null path.
    let node = if path == 0 && fd(dirfd) != linux::AT_FDCWD {
        if flags != 0 {
            return Err(Errno::EINVAL);
        }
        let file = c.file(dirfd)?;
        file.check_not_path()?;
        Node::Open(file)
    } else {
        let known = linux::AT_SYMLINK_NOFOLLOW | linux::AT_EMPTY_PATH;
        if flags & !u64::from(known) != 0 {
            return Err(Errno::EINVAL);
        }
        c.node_at(dirfd, path, flags).await?
    };
    match node.vnode() {
        Ok(vnode) => change_times(c, &vnode, times).await,
        Err(_) => Ok(0),
    }
}

/// utimes(2), futimesat(2)
pub async fn utimes(c: &Caller, dirfd: u64, path: u64, times: u64) -> Result<u64, Errno> {
    let times = if times == 0 {
        [NOW, NOW]
    } else {
        let [read, written]: [[i64; 2]; 2] = c.memory().get(times).await?;
        let micro = |us: i64| {
            if (0..1_000_000).contains(&us) {
                Ok(us * 1000)
            } else {
                Err(Errno::EINVAL)
            }
        };
        [(read[0], micro(read[1])?), (written[0], micro(written[1])?)]
    };
    let node = if path == 0 && fd(dirfd) != linux::AT_FDCWD {
        let file = c.file(dirfd)?;
        file.check_not_path()?;
        Node::Open(file)
    } else {
        c.node_at(dirfd, path, 0).await?
    };
    change_times(c, &*node.vnode()?, times).await
}

/// utime(2)
pub async fn utime(c: &Caller, a: Args) -> Result<u64, Errno> {
    let times = if a[1] == 0 {
        [NOW, NOW]
    } else {
        let times: [i64; 2] = c.memory().get(a[1]).await?;
        times.map(|seconds| (seconds, 0))
    };
    let node = c.node_at(linux::AT_FDCWD as u64, a[0], 0).await?;
    change_times(c, &*node.vnode()?, times).await
}

/// umask(2)
pub fn umask(c: &Caller, a: Args) -> Result<u64, Errno> {
    let old = c.process.umask();
    c.process.change(|d| d.umask = a[0] as u32 & 0o777);
    Ok(u64::from(old))
}
