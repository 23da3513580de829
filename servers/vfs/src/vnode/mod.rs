//! Files in memory, and the mounted file systems that they are in ([`mount`]): one [`Vnode`] for each inode that something refers to.
//!
//! A vnode counts the references its file system gave and gives them back when it goes. A
//! directory's vnode also holds its part of the name cache, so that the cache can never speak
//! of a directory that is gone and whose inode number was given out again.

pub mod mount;
pub mod names;

use crate::locks::Locks;
use crate::pipe::Pipe;
use abi::Errno;
use abi::proto::fs;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::rc::{Rc, Weak};
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use linux_raw_sys::general as linux;
use mount::{Mount, Remains};
use rt::charge::Charge;

/// What an answer with attributes says (see `abi::proto::fs`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Brief {
    /// Inode.
    pub ino: u64,
    /// Type and permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// Device number of a node.
    pub rdev: u64,
}

impl From<fs::Node> for Brief {
    fn from(node: fs::Node) -> Brief {
        Brief {
            ino: node.ino,
            mode: node.mode,
            uid: node.uid,
            gid: node.gid,
            size: node.size,
            rdev: node.rdev,
        }
    }
}

impl From<fs::Root> for Brief {
    fn from(root: fs::Root) -> Brief {
        Brief {
            ino: root.ino,
            mode: root.mode,
            uid: root.ids.0,
            gid: root.ids.1,
            size: root.size,
            // A directory has no device number.
            rdev: 0,
        }
    }
}

/// Where a directory hangs.
#[derive(Clone)]
pub struct Place {
    /// The directory above.
    pub parent: Rc<Vnode>,
    /// The name in it.
    pub name: Box<[u8]>,
}

/// What the name cache knows of a name.
#[derive(Clone)]
pub enum Cached {
    /// It is this file.
    Present(Rc<Vnode>),
    /// There is no such name.
    Absent,
}

/// Seals that forbid write(2).
const NO_WRITE: u32 = linux::F_SEAL_WRITE | linux::F_SEAL_FUTURE_WRITE;

/// A name in a directory, and what is mounted on it.
type MountPoint = (Box<[u8]>, Rc<Mount>);

/// A file.
pub struct Vnode {
    /// Where it lives.
    pub mount: Rc<Mount>,
    /// Its inode number there.
    pub ino: u64,
    references: Cell<u64>,
    mode: Cell<u32>,
    owner: Cell<(u32, u32)>,
    size: Cell<u64>,
    size_exact: Cell<bool>,
    removed: Cell<bool>,
    rdev: Cell<u64>,
    place: RefCell<Option<Place>>,
    names: RefCell<BTreeMap<Box<[u8]>, Cached>>,
    changes: Cell<u64>,
    mounted: RefCell<Vec<MountPoint>>,
    link: RefCell<Option<Rc<[u8]>>>,
    /// The pipe of a fifo that is open.
    pub fifo: RefCell<Weak<Pipe>>,
    /// F_SEAL_* of a memfd; `None` for what cannot be sealed.
    pub seals: Cell<Option<u32>>,
    /// Advisory locks.
    pub locks: Locks,
    writers: Cell<u32>,
    executions: Cell<u32>,
    _charge: Option<Charge>,
}

/// A file is open for writing: until this is dropped nobody can execute it.
pub struct Writing(Rc<Vnode>);

/// A file is being executed: until this is dropped nobody can open it for writing.
pub struct Executing(Rc<Vnode>);

impl Writing {
    /// Of a file that is open already.
    pub fn more(vnode: &Rc<Vnode>) -> Writing {
        vnode.writers.set(vnode.writers.get() + 1);
        Writing(vnode.clone())
    }

    /// `ETXTBSY` while it is being executed.
    pub fn start(vnode: &Rc<Vnode>) -> Result<Writing, Errno> {
        vnode.check_not_executed()?;
        Ok(Writing::more(vnode))
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.0.writers.set(self.0.writers.get() - 1);
    }
}

impl Executing {
    /// `ETXTBSY` while it is open for writing.
    pub fn start(vnode: &Rc<Vnode>) -> Result<Executing, Errno> {
        if vnode.writers.get() > 0 {
            return Err(Errno::ETXTBSY);
        }
        vnode.executions.set(vnode.executions.get() + 1);
        Ok(Executing(vnode.clone()))
    }
}

impl Drop for Executing {
    fn drop(&mut self) {
        self.0.executions.set(self.0.executions.get() - 1);
    }
}

impl Vnode {
    /// A vnode that holds one reference. Only [`Mount::adopt`] makes them.
    pub fn new(mount: Rc<Mount>, brief: &Brief, charge: Option<Charge>) -> Vnode {
        Vnode {
            mount,
            ino: brief.ino,
            references: Cell::new(1),
            mode: Cell::new(brief.mode),
            owner: Cell::new((brief.uid, brief.gid)),
            size: Cell::new(brief.size),
            size_exact: Cell::new(true),
            removed: Cell::new(false),
            rdev: Cell::new(brief.rdev),
            place: RefCell::new(None),
            names: RefCell::default(),
            changes: Cell::new(0),
            mounted: RefCell::default(),
            link: RefCell::new(None),
            fifo: RefCell::new(Weak::new()),
            seals: Cell::new(None),
            locks: Locks::default(),
            writers: Cell::new(0),
            executions: Cell::new(0),
            _charge: charge,
        }
    }

    /// How many have it open for writing.
    pub fn writers(&self) -> u32 {
        self.writers.get()
    }

    /// How many execute it.
    pub fn executions(&self) -> u32 {
        self.executions.get()
    }

    /// `ETXTBSY` while it is being executed.
    pub fn check_not_executed(&self) -> Result<(), Errno> {
        if self.executions.get() > 0 {
            Err(Errno::ETXTBSY)
        } else {
            Ok(())
        }
    }

    /// The file system gave one more reference.
    pub fn add_reference(&self) {
        self.references.set(self.references.get() + 1);
    }

    /// Takes over attributes of an answer.
    pub fn update(&self, brief: &Brief) {
        self.mode.set(brief.mode);
        self.owner.set((brief.uid, brief.gid));
        self.set_size(brief.size);
        self.rdev.set(brief.rdev);
    }

    /// Type and permissions.
    pub fn mode(&self) -> u32 {
        self.mode.get()
    }

    /// The type bits of the mode.
    pub fn kind(&self) -> u32 {
        self.mode.get() & linux::S_IFMT
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.kind() == linux::S_IFDIR
    }

    /// Whether it is a regular file.
    pub fn is_regular(&self) -> bool {
        self.kind() == linux::S_IFREG
    }

    /// Whether it is a symbolic link.
    pub fn is_link(&self) -> bool {
        self.kind() == linux::S_IFLNK
    }

    /// Owner and group.
    pub fn owner(&self) -> (u32, u32) {
        self.owner.get()
    }

    /// Bytes, when VFS knows for sure: not on /proc, and not after a write that failed
    /// somewhere in the middle.
    pub fn exact_size(&self) -> Option<u64> {
        (self.size_exact.get() && !self.mount.is_proc()).then(|| self.size.get())
    }

    /// A write told the new size.
    pub fn set_size(&self, size: u64) {
        self.size.set(size);
        self.size_exact.set(true);
    }

    /// The size may have changed by an unknown amount.
    pub fn doubt_size(&self) {
        self.size_exact.set(false);
    }

    /// The last name was removed. Who still is in a directory finds nothing.
    pub fn set_removed(&self) {
        self.removed.set(true);
    }

    /// Whether it has no name any more, as far as anybody cares.
    pub fn is_removed(&self) -> bool {
        self.removed.get()
    }

    /// Device number of a device node.
    pub fn rdev(&self) -> u64 {
        self.rdev.get()
    }

    /// Where a directory hangs, or by which name a file was found that is mapped; `None` for the
    /// root of a mount and for other files.
    pub fn place(&self) -> Option<Place> {
        self.place.borrow().clone()
    }

    /// A directory was found or moved, or a file is mapped.
    pub fn set_place(&self, place: Place) {
        // What was above may go now, with `place` unborrowed.
        let old = self.place.replace(Some(place));
        drop(old);
    }

    /// The file is mapped no more.
    pub fn forget_place(&self) {
        let old = self.place.take();
        drop(old);
    }

    /// What the name cache knows.
    pub fn cached(&self, name: &[u8]) -> Option<Cached> {
        self.names.borrow().get(name).cloned()
    }

    /// Calls `f` with each file of which a name is cached here.
    pub fn each_cached(&self, mut f: impl FnMut(&Rc<Vnode>)) {
        for cached in self.names.borrow().values() {
            if let Cached::Present(vnode) = cached {
                f(vnode);
            }
        }
    }

    /// Advances with every change of the directory's names: what was looked up before a
    /// change must not be cached after it.
    pub fn changes(&self) -> u64 {
        self.changes.get()
    }

    /// Remembers a name. [`names::NameCache`] keeps the number of names in bounds.
    pub fn remember(self: &Rc<Self>, name: &[u8], what: Cached) {
        if !self.mount.caches_names() {
            return;
        }
        let old = self.names.borrow_mut().insert(name.into(), what);
        drop(old);
        self.mount.name_cache().added(self, name);
    }

    /// Forgets a name.
    pub fn forget(&self, name: &[u8]) {
        // The entry may hold the last reference to a vnode, whose destructor must find
        // `names` unborrowed.
        let entry = self.names.borrow_mut().remove(name);
        drop(entry);
    }

    /// A name of this directory is about to change, or has just changed.
    pub fn names_change(&self, name: &[u8]) {
        self.changes.set(self.changes.get() + 1);
        self.forget(name);
    }

    /// Forgets all names (the directory is gone, or its mount goes).
    pub fn forget_all(&self) {
        self.changes.set(self.changes.get() + 1);
        let entries = self.names.take();
        drop(entries);
    }

    /// What is mounted on `name` in this directory, on top.
    pub fn mounted(&self, name: &[u8]) -> Option<Rc<Mount>> {
        let mounted = self.mounted.borrow();
        mounted
            .iter()
            .rev()
            .find(|(n, _)| **n == *name)
            .map(|(_, mount)| mount.clone())
    }

    /// Mounts on `name`.
    pub fn mount_at(&self, name: &[u8], mount: Rc<Mount>) {
        self.mounted.borrow_mut().push((name.into(), mount));
    }

    /// `mount` is on `name` no more.
    pub fn unmount_at(&self, name: &[u8], mount: &Rc<Mount>) {
        let mut mounted = self.mounted.borrow_mut();
        mounted.retain(|(n, m)| **n != *name || !Rc::ptr_eq(m, mount));
    }

    /// Whether it is open for writing.
    pub fn is_written(&self) -> bool {
        self.writers.get() > 0
    }

    /// Whether its contents may be changed: `EPERM` when sealed.
    pub fn check_unsealed(&self) -> Result<(), Errno> {
        match self.seals.get() {
            Some(seals) if seals & NO_WRITE != 0 => Err(Errno::EPERM),
            _ => Ok(()),
        }
    }

    /// Whether it may have this size: `EPERM` when sealed.
    pub fn check_size_unsealed(&self, size: u64) -> Result<(), Errno> {
        let Some(seals) = self.seals.get() else {
            return Ok(());
        };
        let forbidden = match self.exact_size() {
            Some(now) if size < now => linux::F_SEAL_SHRINK,
            Some(now) if size > now => linux::F_SEAL_GROW,
            Some(_) => 0,
            None => linux::F_SEAL_SHRINK | linux::F_SEAL_GROW,
        };
        if seals & forbidden == 0 {
            Ok(())
        } else {
            Err(Errno::EPERM)
        }
    }

    /// The target of a symbolic link, once it was read and when it cannot change.
    pub fn link(&self) -> Option<Rc<[u8]>> {
        self.link.borrow().clone()
    }

    /// Remembers a link's target.
    pub fn set_link(&self, target: Rc<[u8]>) {
        if self.mount.caches_names() {
            *self.link.borrow_mut() = Some(target);
        }
    }
}

impl Drop for Vnode {
    fn drop(&mut self) {
        let mount = self.mount.clone();
        mount.vnode_gone(self.ino);
        mount.peer.tell(fs::Put {
            ino: self.ino,
            count: self.references.get(),
        });
        // What this vnode holds goes by a list, not by recursion: directories can be nested
        // deeper than the stack is.
        let parent = self.place.get_mut().take().map(|place| place.parent);
        let names = core::mem::take(self.names.get_mut());
        mount.bury(Remains { parent, names });
    }
}
