//! The tree of inodes and the references on them.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;

use rt::charge::{Account, Charge, Payer};

use crate::attr::New;
use crate::dir::Directory;
use crate::file::Contents;
use crate::store::PageStore;
use crate::{Errno, PAGE, Result};

pub(crate) use abi::fs::{
    S_IFBLK as BLOCK, S_IFCHR as CHAR, S_IFDIR as DIRECTORY, S_IFIFO as FIFO, S_IFLNK as SYMLINK,
    S_IFMT as TYPE, S_IFREG as REGULAR, S_IFSOCK as SOCKET,
};

/// How much may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Pages of contents.
    pub pages: u64,
    /// Inodes.
    pub nodes: u64,
    /// Of these, for root's files alone.
    pub reserve: u64,
}

impl Limits {
    /// The limits where mount(2) names none, `size` being half of memory: as many inodes as
    /// pages, as on Linux.
    pub fn of_size(size: u64) -> Limits {
        let pages = size / PAGE as u64;
        Limits {
            pages,
            nodes: pages.max(64),
            reserve: pages / 8,
        }
    }
}

/// What all file systems of a server keep together. The last eighth is for root's files. A clone
/// is the same.
#[derive(Clone)]
pub struct Shares {
    /// Pages of contents.
    pub pages: Account,
    /// Bytes of names, link targets and inodes. They are on the server's heap, which must not run
    /// out, so there are fewer.
    pub heap: Account,
}

impl Shares {
    /// `size` bytes of contents, and a quarter of that on the heap.
    pub fn of_size(size: u64) -> Shares {
        let of_machine = |most| Account::new(rt::charge::Limits::of_machine(most));
        Shares {
            pages: of_machine(size / PAGE as u64),
            heap: of_machine((size / 4).max(64 << 10)),
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
    /// Its pages.
    pub pages: Charge,
    /// Itself, on the heap.
    pub _heap: Charge,
}

impl Node {
    pub(crate) fn is_dir(&self) -> bool {
        matches!(self.data, Data::Directory(_))
    }

    /// Its owner pays for it, its contents and its names.
    pub(crate) fn payer(&self) -> Payer {
        payer(self.uid)
    }
}

fn payer(uid: u32) -> Payer {
    Payer {
        user: uid,
        privileged: uid == 0,
    }
}

/// What an inode takes of the heap.
fn node_cost(data: &Data) -> u64 {
    let target = match data {
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
    pub(crate) shares: Shares,
    pub(crate) now: (i64, i64),
    pub(crate) no_atime: bool,
    pub(crate) read_only: bool,
    root: u64,
    next: u64,
}

impl<P: PageStore> Tmpfs<P> {
    /// An empty file system. Its root is inode `root` with permissions `mode`, the others
    /// follow; what it keeps is charged to `shares`. `ENOSPC` when they have none left.
    pub fn new(
        root: u64,
        store: P,
        shares: &Shares,
        limits: Limits,
        mode: u32,
        now: (i64, i64),
    ) -> Result<Tmpfs<P>> {
        let mut tmpfs = Tmpfs {
            store,
            nodes: BTreeMap::new(),
            limits,
            pages_used: 0,
            shares: shares.clone(),
            now,
            no_atime: false,
            read_only: false,
            root,
            next: root,
        };
        let data = Data::Directory(Directory::new(root));
        let new = New {
            mode: DIRECTORY | mode & !TYPE,
            ..New::default()
        };
        tmpfs.add(new, 2, data)?;
        Ok(tmpfs)
    }

    /// The root directory.
    pub fn root(&self) -> u64 {
        self.root
    }

    /// Sets how much may be kept from now on. `EINVAL` when there is more already.
    pub fn set_limits(&mut self, limits: Limits) -> Result<()> {
        if limits.pages < self.pages_used || limits.nodes < self.nodes.len() as u64 {
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

    /// Adds an inode with so many links.
    pub(crate) fn add(&mut self, new: New, nlink: u32, data: Data) -> Result<u64> {
        let kept = if new.uid == 0 { 0 } else { self.limits.reserve };
        if self.nodes.len() as u64 + kept >= self.limits.nodes {
            return Err(Errno::ENOSPC);
        }
        let node = Node {
            mode: new.mode,
            uid: new.uid,
            gid: new.gid,
            rdev: new.rdev,
            nlink,
            atime: self.now,
            mtime: self.now,
            ctime: self.now,
            references: 0,
            pages: self.shares.pages.nothing(new.uid),
            _heap: self.charge(new.uid, node_cost(&data))?,
            data,
        };
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
        self.nodes.remove(&ino);
    }

    /// Charges bytes of the heap to an owner; `ENOSPC` when all file systems keep too many.
    pub(crate) fn charge(&self, uid: u32, bytes: u64) -> Result<Charge> {
        let charge = self.shares.heap.charge(payer(uid), bytes);
        charge.ok_or(Errno::ENOSPC)
    }

    /// Inodes there are.
    pub fn count(&self) -> usize {
        self.nodes.len()
    }
}
