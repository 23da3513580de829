//! mount(2), umount2(2). There is one tree of mounts; every mount in it is private.

use super::Args;
use crate::mounting::{Wanted, point};
use crate::namei::Follow;
use crate::state::Caller;
use crate::vnode::Vnode;
use crate::vnode::mount::Mount;
use abi::Errno;
use abi::proto::fs;
use alloc::rc::Rc;
use alloc::vec::Vec;
use linux_raw_sys::general as linux;

/// Types that a program can mount. The others' servers have one file system each.
const TYPES: [&[u8]; 3] = [b"tmpfs", b"proc", b"devpts"];

/// What a mount keeps of the flags.
const KEPT: u32 = linux::MS_RDONLY
    | linux::MS_NOSUID
    | linux::MS_NODEV
    | linux::MS_NOEXEC
    | linux::MS_NOATIME
    | linux::MS_NODIRATIME
    | linux::MS_RELATIME
    | linux::MS_STRICTATIME;
const ACCESS_TIME: u32 =
    linux::MS_NOATIME | linux::MS_NODIRATIME | linux::MS_RELATIME | linux::MS_STRICTATIME;
/// How the mounts of several trees follow each other.
const PROPAGATION: u32 =
    linux::MS_SHARED | linux::MS_PRIVATE | linux::MS_SLAVE | linux::MS_UNBINDABLE;

// linux-raw-sys has them in no module that is used here.
const MNT_FORCE: u32 = 1;
const MNT_DETACH: u32 = 2;
const UMOUNT_NOFOLLOW: u32 = 8;
/// Programs of long ago put this into the upper half of the flags.
const MS_MGC_VAL: u32 = 0xc0ed_0000;
const MS_MGC_MSK: u32 = 0xffff_0000;

impl Caller {
    /// A text argument that may be missing.
    async fn text(&self, address: u64) -> Result<Option<Vec<u8>>, Errno> {
        match address {
            0 => Ok(None),
            _ => self.path(address).await.map(Some),
        }
    }

    /// The directory or file that `path` means.
    async fn target(&self, path: u64, follow: Follow) -> Result<Rc<Vnode>, Errno> {
        let path = self.path(path).await?;
        let start = self.start(linux::AT_FDCWD as u64, &path)?;
        self.lookup(&start, &path, follow).await
    }

    fn check_root(&self) -> Result<(), Errno> {
        match self.process.subject.ids.get().euid {
            0 => Ok(()),
            _ => Err(Errno::EPERM),
        }
    }
}

/// mount(2)
pub async fn mount(c: &Caller, a: Args) -> Result<u64, Errno> {
    let [source, target, kind, flags, options, _] = a;
    let kind = c.text(kind).await?;
    let source = c.text(source).await?.unwrap_or_default();
    let options = c.text(options).await?.unwrap_or_default();
    let target = c.target(target, Follow::Yes).await?;
    c.check_root()?;
    let mut flags = flags as u32;
    if flags & MS_MGC_MSK == MS_MGC_VAL {
        flags &= !MS_MGC_MSK;
    }
    if flags & linux::MS_REMOUNT != 0 {
        let options = match flags & linux::MS_BIND {
            0 => Some(&options[..]),
            _ => None,
        };
        return remount(c, &target, flags, options).await.map(|()| 0);
    }
    if flags & (linux::MS_BIND | linux::MS_MOVE) != 0 {
        return Err(Errno::EINVAL);
    }
    if flags & PROPAGATION != 0 {
        let is_root = target
            .mount
            .root()
            .is_ok_and(|root| Rc::ptr_eq(&root, &target));
        // What it is already.
        return match flags & PROPAGATION == linux::MS_PRIVATE && is_root {
            true => Ok(0),
            false => Err(Errno::EINVAL),
        };
    }
    let kind = kind.ok_or(Errno::EINVAL)?;
    let server = c.vfs.types.borrow().get(&kind[..]).copied();
    let server = server.filter(|_| TYPES.contains(&&kind[..]));
    let server = server.ok_or(Errno::ENODEV)?;
    if !target.is_directory() {
        return Err(Errno::ENOTDIR);
    }
    if target.is_removed() {
        return Err(Errno::ENOENT);
    }
    c.vfs.check_mounts()?;
    let on = point(&target).ok_or(Errno::EBUSY)?;
    let wanted = Wanted {
        source: if source.is_empty() { b"none" } else { &source },
        flags: u64::from(flags & KEPT),
        options: &options,
    };
    c.vfs.attach(server, &kind, &wanted, Some(on)).await?;
    Ok(0)
}

/// MS_REMOUNT: other flags, and with `options` (not MS_BIND) other options.
async fn remount(
    c: &Caller,
    target: &Rc<Vnode>,
    flags: u32,
    options: Option<&[u8]>,
) -> Result<(), Errno> {
    let mount: &Rc<Mount> = &target.mount;
    let root = mount.root()?;
    if !Rc::ptr_eq(&root, target) {
        return Err(Errno::EINVAL);
    }
    let old = mount.flags.get();
    let mut new = u64::from(flags & KEPT);
    if flags & ACCESS_TIME == 0 {
        new |= old & u64::from(ACCESS_TIME);
    }
    let read_only = u64::from(linux::MS_RDONLY);
    if new & !old & read_only != 0 {
        if mount.is_written() {
            return Err(Errno::EBUSY);
        }
        // From here on nobody begins to write.
        mount.flags.set(old | read_only);
    }
    match change(c, mount, root.ino, new, options.unwrap_or_default()).await {
        Ok(()) => {
            mount.flags.set(new);
            if let Some(options) = options.filter(|options| !options.is_empty()) {
                *mount.options.borrow_mut() = options.into();
            }
            Ok(())
        }
        Err(errno) => {
            mount.flags.set(old);
            Err(errno)
        }
    }
}

/// Has the file system change as well.
async fn change(
    c: &Caller,
    mount: &Mount,
    root: u64,
    flags: u64,
    options: &[u8],
) -> Result<(), Errno> {
    c.vfs.collect_written(mount, 0).await;
    let grant = mount.peer.lend(options)?;
    let answer = mount
        .peer
        .ask(fs::Remount {
            root,
            flags,
            grant: grant.to(),
            len: options.len() as u64,
        })
        .await;
    drop(grant);
    answer.map(|_| ())
}

/// umount2(2)
pub async fn umount(c: &Caller, a: Args) -> Result<u64, Errno> {
    let flags = a[1] as u32;
    // MNT_EXPIRE among them: nobody marks what nobody uses.
    if flags & !(MNT_FORCE | MNT_DETACH | UMOUNT_NOFOLLOW) != 0 {
        return Err(Errno::EINVAL);
    }
    let follow = match flags & UMOUNT_NOFOLLOW {
        0 => Follow::Yes,
        _ => Follow::No,
    };
    let target = c.target(a[0], follow).await?;
    c.check_root()?;
    let mount = target.mount.clone();
    if !mount.root().is_ok_and(|root| Rc::ptr_eq(&root, &target)) {
        return Err(Errno::EINVAL);
    }
    // Not to be counted.
    drop(target);
    c.vfs.unmount(&mount, flags & MNT_DETACH != 0)?;
    Ok(0)
}
