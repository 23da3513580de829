//! Mounted file systems.
//!
//! A mount point is a directory and a name in it: the name needs no directory on the disk.

use super::names::NameCache;
use super::{Brief, Cached, Place, Vnode};
use crate::machine::Machine;
use crate::peer::{Peer, Questions};
use abi::proto::fs;
use abi::{Endpoint, Errno};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, LinkedList};
use alloc::rc::{Rc, Weak};
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::ops::Bound;
use linux_raw_sys::general as linux;
use rt::charge::Charge;
use rt::room;

/// What a vnode held that is gone.
pub struct Remains {
    /// Its directory.
    pub parent: Option<Rc<Vnode>>,
    /// Its names.
    pub names: BTreeMap<Box<[u8]>, Cached>,
}

impl Remains {
    fn next(&mut self) -> Option<Rc<Vnode>> {
        self.parent.take().or_else(|| {
            loop {
                if let Cached::Present(vnode) = self.names.pop_first()?.1 {
                    return Some(vnode);
                }
            }
        })
    }
}

/// A mounted file system.
pub struct Mount {
    /// The server.
    pub peer: Peer,
    /// Its device number: st_dev, and its name in VM's cache.
    pub dev: u64,
    /// MS_* flags.
    pub flags: Cell<u64>,
    /// The type's name for /proc/mounts.
    pub kind: Box<[u8]>,
    /// What was mounted, for /proc/mounts.
    pub source: Box<[u8]>,
    /// The type's own options.
    pub options: RefCell<Box<[u8]>>,
    on: RefCell<Option<Place>>,
    root_ino: Cell<Option<u64>>,
    names: Rc<NameCache>,
    root: RefCell<Option<Rc<Vnode>>>,
    vnodes: RefCell<BTreeMap<u64, Weak<Vnode>>>,
    /// Vnodes that VM maps, with the number of mappings.
    mapped: RefCell<BTreeMap<u64, (Rc<Vnode>, u64)>>,
    mappable: Cell<Option<bool>>,
    graves: RefCell<LinkedList<Remains>>,
    burying: Cell<bool>,
}

/// What a new mount is like.
pub struct MountOptions {
    /// The server.
    pub fs: Endpoint,
    /// Device number.
    pub dev: u64,
    /// MS_* flags.
    pub flags: u64,
    /// Type.
    pub kind: Box<[u8]>,
    /// What is mounted.
    pub source: Box<[u8]>,
    /// The type's own options.
    pub options: Box<[u8]>,
    /// Mount point; `None` for "/".
    pub on: Option<Place>,
}

impl Mount {
    /// Asks the file system for its root.
    pub async fn new(
        options: MountOptions,
        machine: &Rc<dyn Machine>,
        questions: &Questions,
        names: &Rc<NameCache>,
    ) -> Result<Rc<Mount>, Errno> {
        let mount = Rc::new(Mount {
            peer: Peer::new(options.fs, machine, questions),
            dev: options.dev,
            flags: Cell::new(options.flags),
            kind: options.kind,
            source: options.source,
            options: RefCell::new(options.options.clone()),
            on: RefCell::new(options.on),
            root_ino: Cell::new(None),
            names: names.clone(),
            root: RefCell::new(None),
            vnodes: RefCell::default(),
            mapped: RefCell::default(),
            mappable: Cell::new(None),
            graves: RefCell::default(),
            burying: Cell::new(false),
        });
        let grant = mount.peer.lend(&options.options)?;
        let root = mount
            .peer
            .ask(fs::ReadSuper {
                dev: options.dev,
                flags: options.flags,
                grant: grant.to(),
                len: options.options.len() as u64,
            })
            .await?;
        drop(grant);
        if root.read_only {
            let forced = u64::from(linux::MS_RDONLY);
            mount.flags.set(mount.flags.get() | forced);
        }
        let root = mount.adopt(root, None);
        mount.root_ino.set(Some(root.ino));
        *mount.root.borrow_mut() = Some(root);
        Ok(mount)
    }

    /// The root directory.
    pub fn root(&self) -> Result<Rc<Vnode>, Errno> {
        self.root.borrow().clone().ok_or(Errno::EIO)
    }

    /// The root's inode number; `EIO` before it is known.
    pub fn root_ino(&self) -> Result<u64, Errno> {
        self.root_ino.get().ok_or(Errno::EIO)
    }

    /// What it is mounted on; `None` for "/" and what is mounted nowhere.
    pub fn on(&self) -> Option<Place> {
        self.on.borrow().clone()
    }

    /// Whether it is in the tree.
    pub fn is_attached(&self) -> bool {
        self.root.borrow().is_some()
    }

    /// It is in the tree no more: lets go of what it hangs on, and of its root. It goes with
    /// its last vnode.
    pub fn detach(&self) {
        let (root, on) = (self.root.take(), self.on.take());
        drop(on);
        drop(root);
    }

    /// Forgets cached names, which keep vnodes that nobody uses.
    pub fn forget_names(&self) {
        self.each_vnode(|vnode| vnode.forget_all());
    }

    /// Whether anybody uses a file of it. Cached names count.
    pub fn is_used(&self) -> bool {
        let root = self.root.borrow();
        self.vnodes.borrow().len() > 1 || root.as_ref().is_some_and(|r| Rc::strong_count(r) > 1)
    }

    /// Whether a file of it is open for writing.
    pub fn is_written(&self) -> bool {
        let vnodes = self.vnodes.borrow();
        vnodes
            .values()
            .filter_map(Weak::upgrade)
            .any(|v| v.is_written())
    }

    /// The vnode of an answer with attributes, which came with one reference. `charge` pays for it, if it is new; a
    /// mount itself pays for its root.
    pub fn adopt(self: &Rc<Self>, node: impl Into<Brief>, charge: Option<Charge>) -> Rc<Vnode> {
        let brief = node.into();
        let known = self.vnodes.borrow().get(&brief.ino).and_then(Weak::upgrade);
        if let Some(vnode) = known {
            vnode.add_reference();
            vnode.update(&brief);
            return vnode;
        }
        let vnode = Rc::new(Vnode::new(self.clone(), &brief, charge));
        self.vnodes
            .borrow_mut()
            .insert(brief.ino, Rc::downgrade(&vnode));
        vnode
    }

    /// The vnode of `ino`, if there is one.
    pub fn vnode(&self, ino: u64) -> Option<Rc<Vnode>> {
        self.vnodes.borrow().get(&ino).and_then(Weak::upgrade)
    }

    /// A vnode's destructor runs.
    pub fn vnode_gone(&self, ino: u64) {
        let mut vnodes = self.vnodes.borrow_mut();
        if vnodes.get(&ino).is_some_and(|v| v.strong_count() == 0) {
            vnodes.remove(&ino);
        }
    }

    /// Drops vnodes one after the other, those that their destructors bring too.
    pub fn bury(&self, held: Remains) {
        self.graves.borrow_mut().push_back(held);
        if self.burying.replace(true) {
            return;
        }
        while let Some(vnode) = self.next_to_bury() {
            drop(vnode);
        }
        self.burying.set(false);
    }

    fn next_to_bury(&self) -> Option<Rc<Vnode>> {
        let mut graves = self.graves.borrow_mut();
        while let Some(last) = graves.back_mut() {
            match last.next() {
                Some(vnode) => return Some(vnode),
                None => graves.pop_back(),
            };
        }
        None
    }

    /// Does something with each vnode in memory; what comes and goes meanwhile may be left out.
    pub fn each_vnode(&self, mut what: impl FnMut(&Rc<Vnode>)) {
        let mut from = Bound::Unbounded;
        loop {
            let vnodes = self.vnodes.borrow();
            let Some((&ino, vnode)) = vnodes.range((from, Bound::Unbounded)).next() else {
                return;
            };
            let vnode = vnode.upgrade();
            drop(vnodes);
            if let Some(vnode) = vnode {
                what(&vnode);
            }
            from = Bound::Excluded(ino);
        }
    }

    /// Vnodes in memory.
    pub fn vnode_count(&self) -> usize {
        self.vnodes.borrow().len()
    }

    /// Vnodes in memory for another reason than that a name is cached. `ENOMEM`.
    pub fn vnodes_in_use(&self) -> Result<usize, Errno> {
        let mut all: Vec<Rc<Vnode>> = room::vector(self.vnode_count())?;
        let mut result = Ok(());
        // In order of their numbers.
        self.each_vnode(|vnode| result = result.and_then(|()| room::push(&mut all, vnode.clone())));
        result?;
        let at = |ino: u64| all.binary_search_by_key(&ino, |vnode| vnode.ino).ok();
        // References that say nothing by themselves: of cached names, and of what hangs below.
        let mut idle: Vec<usize> = room::collect(all.iter().map(|_| 0))?;
        for vnode in &all {
            let mut count = |ino: u64| at(ino).into_iter().for_each(|at| idle[at] += 1);
            vnode.each_cached(|child| count(child.ino));
            if let Some(place) = vnode.place() {
                count(place.parent.ino);
            }
        }
        // One reference is ours.
        let used = all.iter().zip(&idle);
        let used = used.map(|(vnode, idle)| Rc::strong_count(vnode) > 1 + idle);
        let mut used: Vec<bool> = room::collect(used)?;
        // And the directories above.
        for first in 0..all.len() {
            let mut below = first;
            while used[below]
                && let Some(above) = all[below].place().and_then(|place| at(place.parent.ino))
                && !used[above]
            {
                used[above] = true;
                below = above;
            }
        }
        Ok(used.iter().filter(|used| **used).count())
    }

    /// Whether names and link targets may be cached: only VFS changes them.
    pub fn caches_names(&self) -> bool {
        !self.is_proc() && &*self.kind != b"devpts"
    }

    /// Whether this is /proc, whose contents change by themselves.
    pub fn is_proc(&self) -> bool {
        &*self.kind == b"proc"
    }

    /// Whether this is a tmpfs.
    pub fn is_tmpfs(&self) -> bool {
        &*self.kind == b"tmpfs"
    }

    /// The name cache.
    pub fn name_cache(&self) -> &NameCache {
        &self.names
    }

    /// `EROFS` on a read-only mount.
    pub fn check_writable(&self) -> Result<(), Errno> {
        if self.flags.get() & u64::from(linux::MS_RDONLY) != 0 {
            Err(Errno::EROFS)
        } else {
            Ok(())
        }
    }

    /// Whether programs may be run from here.
    pub fn may_execute(&self) -> bool {
        self.flags.get() & u64::from(linux::MS_NOEXEC) == 0
    }

    /// Whether set-id bits count here.
    pub fn honours_set_id(&self) -> bool {
        self.flags.get() & u64::from(linux::MS_NOSUID) == 0
    }

    /// Whether files of this mount can be mapped, found out by asking for a page of one.
    pub async fn mappable(&self, vnode: &Vnode) -> bool {
        if let Some(known) = self.mappable.get() {
            return known;
        }
        let peeked = self
            .peer
            .ask(fs::Peek {
                ino: vnode.ino,
                offset: 0,
                before: 0,
                after: 0,
            })
            .await;
        let mappable = match peeked {
            Ok(_) | Err(Errno::EFAULT) => true,
            Err(Errno::ENOSYS) => false,
            // An I/O error says nothing about the file system as a whole.
            Err(_) => return true,
        };
        self.mappable.set(Some(mappable));
        mappable
    }

    /// VM maps (a part of) the file once more.
    pub fn map(&self, vnode: &Rc<Vnode>) {
        self.mapped
            .borrow_mut()
            .entry(vnode.ino)
            .or_insert_with(|| (vnode.clone(), 0))
            .1 += 1;
    }

    /// Whether what is written to it is there after the machine's end: it is on a disk, and may
    /// be written.
    pub fn outlives_the_machine(&self) -> bool {
        let in_memory: [&[u8]; 4] = [b"tmpfs", b"devtmpfs", b"devpts", b"proc"];
        self.flags.get() & u64::from(linux::MS_RDONLY) == 0 && !in_memory.contains(&&*self.kind)
    }

    /// Whether a file is mapped somewhere; with `ino` 0, whether any is.
    pub fn is_mapped(&self, ino: u64) -> bool {
        let mapped = self.mapped.borrow();
        if ino == 0 {
            !mapped.is_empty()
        } else {
            mapped.contains_key(&ino)
        }
    }

    /// So many mappings are gone.
    pub fn unmap(&self, ino: u64, references: u64) {
        let mut mapped = self.mapped.borrow_mut();
        let Some((_, count)) = mapped.get_mut(&ino) else {
            return;
        };
        *count = count.saturating_sub(references);
        let last = if *count == 0 {
            mapped.remove(&ino)
        } else {
            None
        };
        drop(mapped);
        // The vnode may go now, with `mapped` unborrowed.
        if let Some((vnode, _)) = last
            && !vnode.is_directory()
        {
            vnode.forget_place();
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Some(root) = self.root_ino.get() {
            // Not a transaction anybody waits for.
            self.peer.tell(fs::Unmount { root });
        }
    }
}
