//! The tree of inodes and the references on them.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;

use crate::dir::Directory;
use crate::file::Contents;
use crate::store::PageStore;
use crate::{Errno, PAGE, ROOT, Result};

/// File type bits of a mode.
pub(crate) const TYPE: u32 = 0o170000;
pub(crate) const FIFO: u32 = 0o010000;
pub(crate) const CHAR: u32 = 0o020000;
pub(crate) const DIRECTORY: u32 = 0o040000;
pub(crate) const BLOCK: u32 = 0o060000;
pub(crate) const REGULAR: u32 = 0o100000;
pub(crate) const SYMLINK: u32 = 0o120000;
pub(crate) const SOCKET: u32 = 0o140000;

/// How much may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Pages of contents.
    pub pages: u64,
    /// Inodes.
    pub nodes: u64,
    /// Bytes of names, link targets and inodes: they are on the server's heap, which must
    /// not run out.
    pub heap: u64,
}

impl Limits {
    /// The limits of a file system of `size` bytes: as many inodes as a tree of small files
    /// would have.
    pub fn of_size(size: u64) -> Limits {
        Limits {
            pages: size / PAGE as u64,
            nodes: (size / 1024).max(64),
            heap: (size / 4).max(64 << 10),
        }
    }
}

pub(crate) enum Data {
    File(Contents),
    Directory(Directory),
    Symlink(Box<[u8]>),
    /// Devices, fifos and sockets have no contents here.
    None,
}

pub(crate) struct Node {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u64,
    pub nlink: u32,
    pub atime: (i64, i64),
    pub mtime: (i64, i64),
    pub ctime: (i64, i64),
    /// References of [`Tmpfs::hold`].
    pub references: u64,
    pub data: Data,
}

impl Node {
    pub(crate) fn is_dir(&self) -> bool {
        matches!(self.data, Data::Directory(_))
    }
}

/// What an inode takes of the heap.
fn node_cost(node: &Node) -> u64 {
    let target = match &node.data {
        Data::Symlink(target) => target.len(),
        _ => 0,
    };
    (2 * size_of::<Node>() + target) as u64
}

/// What a directory entry takes of the heap: the name is there twice.
pub(crate) fn entry_cost(name: &[u8]) -> u64 {
    (128 + 2 * name.len()) as u64
}

/// A file system in memory.
pub struct Tmpfs<P> {
    pub(crate) store: P,
    pub(crate) nodes: BTreeMap<u64, Node>,
    pub(crate) limits: Limits,
    pub(crate) pages_used: u64,
    pub(crate) heap_used: u64,
    pub(crate) now: (i64, i64),
    pub(crate) no_atime: bool,
    pub(crate) read_only: bool,
    root: u64,
    next: u64,
}

impl<P: PageStore> Tmpfs<P> {
    /// An empty file system whose root is inode [`ROOT`] with permissions `mode`.
    pub fn new(store: P, limits: Limits, mode: u32, now: (i64, i64)) -> Tmpfs<P> {
        Tmpfs::with_root(ROOT, store, limits, mode, now)
    }

    /// [`Tmpfs::new`] whose root is inode `root`; the others follow.
    pub fn with_root(root: u64, store: P, limits: Limits, mode: u32, now: (i64, i64)) -> Tmpfs<P> {
        let node = Node {
            mode: DIRECTORY | mode & !TYPE,
            uid: 0,
            gid: 0,
            rdev: 0,
            nlink: 2,
            atime: now,
            mtime: now,
            ctime: now,
            references: 0,
            data: Data::Directory(Directory::new(root)),
        };
        Tmpfs {
            store,
            nodes: BTreeMap::from([(root, node)]),
            limits,
            pages_used: 0,
            heap_used: 0,
            now,
            no_atime: false,
            read_only: false,
            root,
            next: root + 1,
        }
    }

    /// The root directory.
    pub fn root(&self) -> u64 {
        self.root
    }

    /// Sets how much may be kept from now on. `EINVAL` when there is more already.
    pub fn set_limits(&mut self, limits: Limits) -> Result<()> {
        if limits.pages < self.pages_used
            || limits.nodes < self.nodes.len() as u64
            || limits.heap < self.heap_used
        {
            return Err(Errno::EINVAL);
        }
        self.limits = limits;
        Ok(())
    }

    /// How much may be kept.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Sets the time that operations stamp.
    pub fn set_time(&mut self, now: (i64, i64)) {
        self.now = now;
    }

    /// Refuses changes from now on, or not; leaves access times alone, or not.
    pub fn set_options(&mut self, read_only: bool, no_atime: bool) {
        self.read_only = read_only;
        self.no_atime = no_atime;
    }

    /// The page store.
    pub fn store(&self) -> &P {
        &self.store
    }

    /// The page store.
    pub fn store_mut(&mut self) -> &mut P {
        &mut self.store
    }

    pub(crate) fn writable(&self) -> Result<()> {
        if self.read_only {
            Err(Errno::EROFS)
        } else {
            Ok(())
        }
    }

    pub(crate) fn node(&self, ino: u64) -> Result<&Node> {
        self.nodes.get(&ino).ok_or(Errno::ESTALE)
    }

    pub(crate) fn node_mut(&mut self, ino: u64) -> Result<&mut Node> {
        self.nodes.get_mut(&ino).ok_or(Errno::ESTALE)
    }

    /// Adds an inode.
    pub(crate) fn add(&mut self, node: Node) -> Result<u64> {
        if self.nodes.len() as u64 >= self.limits.nodes {
            return Err(Errno::ENOSPC);
        }
        self.charge(node_cost(&node))?;
        let ino = self.next;
        self.next += 1;
        self.nodes.insert(ino, node);
        Ok(ino)
    }

    /// Takes a reference: the inode stays when its last name goes.
    pub fn hold(&mut self, ino: u64) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.references += 1;
        }
    }

    /// Gives references back; the last one frees an inode without a name.
    pub fn put(&mut self, ino: u64, count: u64) -> Result<()> {
        let node = self.node_mut(ino)?;
        let held = node.references;
        node.references = held.saturating_sub(count);
        self.free_unused(ino);
        if held < count {
            return Err(Errno::EINVAL);
        }
        Ok(())
    }

    /// Frees the inode if it has neither name nor reference.
    pub(crate) fn free_unused(&mut self, ino: u64) {
        match self.nodes.get(&ino) {
            Some(node) if node.nlink == 0 && node.references == 0 => {}
            _ => return,
        }
        self.drop_pages(ino, 0);
        if let Some(node) = self.nodes.remove(&ino) {
            self.heap_used -= node_cost(&node);
        }
    }

    /// Counts bytes of the heap; `ENOSPC` when they are too many.
    pub(crate) fn charge(&mut self, bytes: u64) -> Result<()> {
        if self.heap_used + bytes > self.limits.heap {
            return Err(Errno::ENOSPC);
        }
        self.heap_used += bytes;
        Ok(())
    }

    /// Inodes there are.
    pub fn count(&self) -> usize {
        self.nodes.len()
    }
}
