//! Calls that tell about files: stat, statx, statfs, access, readlink.

use super::layouts::{Stat, Statfs, Statx, Timestamp};
use super::{Args, fd};
use crate::access::{Credentials, EXECUTE, READ, WRITE};
use crate::device::{major, makedev, minor};
use crate::file::{Kind, OpenFile};
use crate::namei::{Follow, Node, path_of_place};
use crate::state::Caller;
use crate::vnode::Vnode;
use crate::vnode::mount::Mount;
use abi::Errno;
use abi::fs::{Attributes, PATH_MAX, Statistics, Time};
use abi::proto::fs;
use alloc::vec::Vec;
use linux_raw_sys::general as linux;
use zerocopy::IntoBytes;

/// Device number of objects without a file system.
const ANONYMOUS_DEV: u64 = 0x0f;

impl Caller {
    async fn node_attributes(&self, node: &Node) -> Result<(Attributes, u64), Errno> {
        match node {
            Node::File(vnode) => Ok((self.attributes(vnode).await?, vnode.mount.dev)),
            Node::Open(file) => match &file.vnode {
                Some(vnode) => Ok((self.attributes(vnode).await?, vnode.mount.dev)),
                None => Ok((self.anonymous(file), ANONYMOUS_DEV)),
            },
        }
    }

    /// What stat says of an object without a file.
    fn anonymous(&self, file: &OpenFile) -> Attributes {
        let (uid, gid) = file.owner.get();
        let now = time(self.vfs.base.machine.wall_clock());
        let (mode, rdev) = match &file.kind {
            Kind::Pipe(_) => (linux::S_IFIFO | 0o600, 0),
            Kind::Socket(_) => (linux::S_IFSOCK | 0o777, 0),
            Kind::Block(device) => (linux::S_IFBLK | 0o600, device.number()),
            Kind::Device(driver, minor) => (linux::S_IFCHR | 0o620, makedev(driver.major, *minor)),
            _ => (0o600, 0),
        };
        let ino = match &file.kind {
            Kind::Pipe(end) => end.pipe.id,
            Kind::Socket(socket) => socket.id,
            _ => file.id,
        };
        Attributes {
            ino,
            mode,
            nlink: 1,
            uid,
            gid,
            rdev,
            block_size: 4096,
            atime: now,
            mtime: now,
            ctime: now,
            ..Attributes::default()
        }
    }
}

/// The moment so many nanoseconds after 1970.
pub fn time(ns: u64) -> Time {
    let second = 1_000_000_000;
    Time {
        seconds: (ns / second) as i64,
        nanoseconds: (ns % second) as i64,
    }
}

fn linux_stat(a: &Attributes, dev: u64) -> Stat {
    let time = |time: Time| [time.seconds, time.nanoseconds];
    Stat {
        st_dev: dev,
        st_ino: a.ino,
        st_nlink: u64::from(a.nlink),
        st_mode: a.mode,
        st_uid: a.uid,
        st_gid: a.gid,
        st_rdev: a.rdev,
        st_size: a.size,
        st_blksize: u64::from(a.block_size),
        st_blocks: a.blocks,
        st_atime: time(a.atime),
        st_mtime: time(a.mtime),
        st_ctime: time(a.ctime),
        ..Stat::default()
    }
}

/// newfstatat(2)
pub async fn stat(c: &Caller, dirfd: u64, path: u64, out: u64, flags: u64) -> Result<u64, Errno> {
    let known = linux::AT_SYMLINK_NOFOLLOW | linux::AT_NO_AUTOMOUNT | linux::AT_EMPTY_PATH;
    if flags & !u64::from(known) != 0 {
        return Err(Errno::EINVAL);
    }
    let node = c.node_at(dirfd, path, flags).await?;
    put_stat(c, &node, out).await
}

/// fstat(2)
pub async fn fstat(c: &Caller, a: Args) -> Result<u64, Errno> {
    let node = Node::Open(c.file(a[0])?);
    put_stat(c, &node, a[1]).await
}

async fn put_stat(c: &Caller, node: &Node, out: u64) -> Result<u64, Errno> {
    let (attributes, dev) = c.node_attributes(node).await?;
    c.memory().put(out, &linux_stat(&attributes, dev)).await?;
    Ok(0)
}

/// statx(2)
pub async fn statx(c: &Caller, a: Args) -> Result<u64, Errno> {
    let [dirfd, path, flags, mask, out, _] = a;
    let known = linux::AT_SYMLINK_NOFOLLOW
        | linux::AT_NO_AUTOMOUNT
        | linux::AT_EMPTY_PATH
        | linux::AT_STATX_SYNC_TYPE;
    let sync_type = flags as u32 & linux::AT_STATX_SYNC_TYPE;
    if flags & !u64::from(known) != 0
        || sync_type == linux::AT_STATX_SYNC_TYPE
        || mask as u32 & linux::STATX__RESERVED != 0
    {
        return Err(Errno::EINVAL);
    }
    let node = c.node_at(dirfd, path, flags).await?;
    let (attributes, dev) = c.node_attributes(&node).await?;
    let root = match &node {
        Node::File(vnode) => is_root(vnode),
        Node::Open(file) => file.vnode.as_ref().is_some_and(|vnode| is_root(vnode)),
    };
    let stamp = |time: Time| Timestamp {
        tv_sec: time.seconds,
        tv_nsec: time.nanoseconds as u32,
        reserved: 0,
    };
    let statx = Statx {
        stx_mask: linux::STATX_BASIC_STATS,
        stx_blksize: attributes.block_size,
        stx_attributes: if root {
            u64::from(linux::STATX_ATTR_MOUNT_ROOT)
        } else {
            0
        },
        stx_nlink: attributes.nlink,
        stx_uid: attributes.uid,
        stx_gid: attributes.gid,
        stx_mode: attributes.mode as u16,
        stx_ino: attributes.ino,
        stx_size: attributes.size,
        stx_blocks: attributes.blocks,
        stx_attributes_mask: u64::from(linux::STATX_ATTR_MOUNT_ROOT),
        stx_atime: stamp(attributes.atime),
        stx_ctime: stamp(attributes.ctime),
        stx_mtime: stamp(attributes.mtime),
        stx_rdev_major: major(attributes.rdev),
        stx_rdev_minor: minor(attributes.rdev),
        stx_dev_major: major(dev),
        stx_dev_minor: minor(dev),
        stx_mnt_id: dev,
        ..Statx::default()
    };
    c.memory().put(out, &statx).await?;
    Ok(0)
}

fn is_root(vnode: &Vnode) -> bool {
    vnode
        .mount
        .root()
        .is_ok_and(|root| core::ptr::eq(&*root, vnode))
}

/// statfs(2)
pub async fn statfs(c: &Caller, a: Args) -> Result<u64, Errno> {
    let path = c.path(a[0]).await?;
    let start = c.start(linux::AT_FDCWD as u64, &path)?;
    let node = c.walk(&start, &path, Follow::Yes).await?.existing()?;
    put_statfs(c, &node, a[1]).await
}

/// fstatfs(2)
pub async fn fstatfs(c: &Caller, a: Args) -> Result<u64, Errno> {
    let node = Node::Open(c.file(a[0])?);
    put_statfs(c, &node, a[1]).await
}

async fn put_statfs(c: &Caller, node: &Node, out: u64) -> Result<u64, Errno> {
    let vnode = node.clone().vnode().ok();
    let (figures, dev, flags) = match &vnode {
        Some(vnode) => (
            statistics(&vnode.mount).await?,
            vnode.mount.dev,
            vnode.mount.flags.get(),
        ),
        None => (
            Statistics {
                kind: 0x5049_5045,
                block_size: 4096,
                name_max: 255,
                ..Statistics::default()
            },
            ANONYMOUS_DEV,
            0,
        ),
    };
    // ST_VALID, and the mount flags that have the same bits here.
    let shown = linux::MS_RDONLY
        | linux::MS_NOSUID
        | linux::MS_NODEV
        | linux::MS_NOEXEC
        | linux::MS_NOATIME
        | linux::MS_NODIRATIME;
    let statfs = Statfs {
        f_type: figures.kind,
        f_bsize: figures.block_size,
        f_blocks: figures.blocks,
        f_bfree: figures.free,
        f_bavail: figures.available,
        f_files: figures.files,
        f_ffree: figures.files_free,
        f_fsid: [dev as u32, 0],
        f_namelen: figures.name_max,
        f_frsize: figures.block_size,
        f_flags: 0x20 | flags & u64::from(shown) | u64::from(figures.read_only != 0),
        f_spare: [0; 4],
    };
    c.memory().put(out, &statfs).await?;
    Ok(0)
}

async fn statistics(mount: &Mount) -> Result<Statistics, Errno> {
    let mut figures = Statistics::default();
    let root = mount.root_ino()?;
    let grant = mount.peer.lend_mut(figures.as_mut_bytes())?;
    mount
        .peer
        .ask(fs::Statfs {
            root,
            grant: grant.to(),
        })
        .await?;
    drop(grant);
    Ok(figures)
}

/// faccessat2(2)
pub async fn access(
    c: &Caller,
    dirfd: u64,
    path: u64,
    mode: u64,
    flags: u64,
) -> Result<u64, Errno> {
    let known = linux::AT_EACCESS | linux::AT_SYMLINK_NOFOLLOW | linux::AT_EMPTY_PATH;
    let mode = mode as u32;
    if flags & !u64::from(known) != 0 || mode & !(READ | WRITE | EXECUTE) != 0 {
        return Err(Errno::EINVAL);
    }
    let real = flags & u64::from(linux::AT_EACCESS) == 0;
    let path = c.path_at(path, flags).await?;
    let node = if path.is_empty() {
        c.node_of(dirfd, &path, flags).await?
    } else {
        let start = c.start(dirfd, &path)?;
        let follow = if flags & u64::from(linux::AT_SYMLINK_NOFOLLOW) != 0 {
            Follow::No
        } else {
            Follow::Yes
        };
        c.walk_as(&start, &path, follow, real).await?.existing()?
    };
    let credentials = if real {
        Credentials::real(&c.process)
    } else {
        Credentials::effective(&c.process)
    };
    let vnode = match node {
        Node::Open(file) if file.vnode.is_none() => {
            let kind = c.anonymous(&file).mode;
            credentials.check_mode(kind, file.owner.get(), mode)?;
            return Ok(0);
        }
        node => node.vnode()?,
    };
    let on_disk = matches!(
        vnode.kind(),
        linux::S_IFREG | linux::S_IFDIR | linux::S_IFLNK
    );
    if mode & WRITE != 0 && on_disk {
        vnode.mount.check_writable()?;
    }
    if mode & EXECUTE != 0 && vnode.is_regular() && !vnode.mount.may_execute() {
        return Err(Errno::EACCES);
    }
    credentials.check(&vnode, mode)?;
    Ok(0)
}

/// What `/proc/self/exe` leads to. Every static glibc program asks when it starts, and VFS
/// itself has the answer: by way of the proc server, which would ask VFS, it is a sixth of
/// the kernel visits of a whole fork and exec.
fn own_program(c: &Caller, path: &[u8]) -> Option<Vec<u8>> {
    if path != b"/proc/self/exe" {
        return None;
    }
    let root = c.process.root();
    root.mounted(b"proc").filter(|mount| mount.is_proc())?;
    let program = c.process.program.borrow();
    // The other way tells why not.
    path_of_place(program.as_ref()?, &root).ok()
}

/// readlinkat(2)
pub async fn readlink(c: &Caller, dirfd: u64, path: u64, out: u64, len: u64) -> Result<u64, Errno> {
    if len as i32 <= 0 {
        return Err(Errno::EINVAL);
    }
    let len = (len as i32 as u64).min(PATH_MAX as u64);
    let path = c.path(path).await?;
    if let Some(program) = own_program(c, &path) {
        let n = program.len().min(len as usize);
        c.memory().write(out, &program[..n]).await?;
        return Ok(n as u64);
    }
    let vnode = if path.is_empty() {
        // The link that an O_PATH descriptor holds; the working directory is none.
        if fd(dirfd) == linux::AT_FDCWD {
            return Err(Errno::ENOENT);
        }
        c.file(dirfd)?.vnode.clone().ok_or(Errno::ENOENT)?
    } else {
        let start = c.start(dirfd, &path)?;
        c.lookup(&start, &path, Follow::No).await?
    };
    if !vnode.is_link() {
        return Err(if path.is_empty() {
            Errno::ENOENT
        } else {
            Errno::EINVAL
        });
    }
    let target = c.read_link(&vnode).await?;
    let n = target.len().min(len as usize);
    c.memory().write(out, &target[..n]).await?;
    Ok(n as u64)
}
