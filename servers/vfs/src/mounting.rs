//! The tree of mounts: what is mounted where, by RS at boot and by mount(2).
//!
//! Why so: docs/decisions/004-mounts-by-name.md.

use crate::context::Ids;
use crate::device::makedev;
use crate::namei::Follow;
use crate::process::{Directories, Process};
use crate::state::{Caller, Vfs};
use crate::vnode::mount::{Mount, MountOptions};
use crate::vnode::{Place, Vnode};
use abi::proto::vfs;
use abi::{Endpoint, Errno};
use alloc::rc::Rc;
use rt::room;

/// What mount(2) says of a new mount.
#[derive(Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// Device or another word, for /proc/mounts only.
    pub source: &'a [u8],
    /// MS_* flags.
    pub flags: u64,
    /// The type's own options.
    pub options: &'a [u8],
}

impl Vfs {
    /// Mounts a file system for RS.
    pub(crate) async fn mount(self: &Rc<Self>, r: vfs::Mount) -> Result<vfs::Mounted, Errno> {
        let path = trimmed(&r.path);
        let is_root = path == b"/";
        let on = match self.root_mount() {
            Err(_) if is_root => None,
            Err(errno) => return Err(errno),
            Ok(_) if is_root => return Err(Errno::EBUSY),
            Ok(root) => Some(self.mount_point(root.root()?, path).await?),
        };
        let kind = trimmed(&r.kind);
        let wanted = Wanted {
            source: if is_root { b"/dev/vda" } else { kind },
            flags: r.flags,
            options: b"",
        };
        self.attach(r.fs, kind, &wanted, on).await?;
        self.types.borrow_mut().insert(kind.into(), r.fs);
        let mounts = self.mounts.borrow();
        let newest = mounts.iter().rev().find(|m| m.peer.endpoint == r.fs);
        let dev = newest.map_or(0, |mount| mount.dev);
        Ok(vfs::Mounted { dev })
    }

    /// Mounts what `server` makes of it, on top of what may be mounted there already.
    pub(crate) async fn attach(
        self: &Rc<Self>,
        server: Endpoint,
        kind: &[u8],
        wanted: &Wanted<'_>,
        on: Option<Place>,
    ) -> Result<(), Errno> {
        let options = MountOptions {
            fs: server,
            // Numbers of unnamed devices start at (0, 16); never reused.
            dev: makedev(0, 16 + self.base.counters.unique() as u32),
            flags: wanted.flags,
            kind: kind.into(),
            source: wanted.source.into(),
            options: wanted.options.into(),
            on: on.clone(),
        };
        let mount = Mount::new(
            options,
            &self.base.machine,
            &self.base.questions,
            &self.names,
        )
        .await?;
        if let Some(Place { parent, name }) = on {
            // It may have gone meanwhile.
            if parent.is_removed() || !parent.mount.is_attached() {
                mount.detach();
                return Err(Errno::ENOENT);
            }
            parent.names_change(&name);
            parent.mount_at(&name, mount.clone());
        }
        self.mounts.borrow_mut().push(mount);
        Ok(())
    }

    /// The directory and name of a mount point. The name need not exist.
    async fn mount_point(self: &Rc<Self>, root: Rc<Vnode>, path: &[u8]) -> Result<Place, Errno> {
        // No process asks: walk as one that is root.
        let at = Directories {
            cwd: root.clone(),
            root: root.clone(),
            umask: 0,
        };
        let files = crate::fd::FdTable::new(self.base.counters.unique(), &self.base.accounts.work);
        let nobody = Process::new(Endpoint::VFS, 0, Ids::default(), files, at);
        let c = Caller {
            vfs: self.clone(),
            process: Rc::new(nobody),
        };
        let found = c.walk(&root, path, Follow::No).await?;
        if found.name.is_empty() || found.directory.mounted(&found.name).is_some() {
            return Err(Errno::EBUSY);
        }
        Ok(Place {
            parent: found.directory,
            name: found.name,
        })
    }

    /// `ENOSPC` when there are as many mounts as there may be.
    pub fn check_mounts(&self) -> Result<(), Errno> {
        let detached = self.detached.borrow();
        let detached = detached.iter().filter(|mount| mount.strong_count() > 0);
        let all = self.mounts.borrow().len() + detached.count();
        if all as u64 >= self.base.accounts.mounts.get() {
            return Err(Errno::ENOSPC);
        }
        Ok(())
    }

    /// Takes a mount out of the tree, with `lazy` even if it is in use, and what is mounted in
    /// it as well. Its file system goes with the last who uses it. `EBUSY`; `EINVAL` for one
    /// that is in no tree.
    pub(crate) fn unmount(&self, mount: &Rc<Mount>, lazy: bool) -> Result<(), Errno> {
        if !mount.is_attached() {
            return Err(Errno::EINVAL);
        }
        if mount.on().is_none() {
            // Nothing would be left.
            return Err(Errno::EBUSY);
        }
        // What is mounted in it, and in that: each behind what it is in.
        let mut all = room::vector(1)?;
        all.push(mount.clone());
        let mut at = 0;
        while let Some(outer) = all.get(at).cloned() {
            for inner in self.mounts.borrow().iter() {
                let place = inner.on();
                if place.is_some_and(|place| Rc::ptr_eq(&place.parent.mount, &outer)) {
                    room::push(&mut all, inner.clone())?;
                }
            }
            at += 1;
        }
        mount.forget_names();
        if !lazy && (all.len() > 1 || mount.is_used()) {
            return Err(Errno::EBUSY);
        }
        let mut detached = self.detached.borrow_mut();
        detached.retain(|m| m.strong_count() > 0);
        detached.try_reserve(all.len()).map_err(|_| Errno::ENOMEM)?;
        drop(detached);
        all.iter().rev().for_each(|mount| self.detach(mount));
        Ok(())
    }

    fn detach(&self, mount: &Rc<Mount>) {
        if let Some(Place { parent, name }) = mount.on() {
            parent.unmount_at(&name, mount);
            parent.names_change(&name);
        }
        self.mounts.borrow_mut().retain(|m| !Rc::ptr_eq(m, mount));
        self.detached.borrow_mut().push(Rc::downgrade(mount));
        mount.detach();
    }
}

/// Where a directory hangs that can be mounted on: on the root of a mount what covers it goes
/// where that is. `None` for "/".
pub fn point(directory: &Rc<Vnode>) -> Option<Place> {
    directory.place().or_else(|| directory.mount.on())
}

/// Without the zero padding.
fn trimmed(bytes: &[u8]) -> &[u8] {
    let len = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    &bytes[..len]
}
