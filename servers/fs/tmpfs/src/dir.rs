//! Directories: entries by name, and by the position that `getdents` gives out.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;

use rt::charge::Charge;

use crate::store::PageStore;
use crate::tree::{Data, TYPE, Tmpfs};
use crate::{Errno, Result};

/// Positions of `.` and `..`; entries follow.
const DOT: u64 = 0;
const DOT_DOT: u64 = 1;

/// A directory's entries.
pub(crate) struct Directory {
    pub parent: u64,
    names: BTreeMap<Box<[u8]>, u64>,
    /// By position; a position is used once.
    entries: BTreeMap<u64, Named>,
    next: u64,
}

struct Named {
    name: Box<[u8]>,
    ino: u64,
    /// What it takes of the machine.
    charge: Charge,
}

/// One directory entry, as [`Tmpfs::read_dir`] shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Inode number.
    pub ino: u64,
    /// Its name.
    pub name: &'a [u8],
    /// Linux `d_type` (DT_*).
    pub kind: u8,
    /// Position of the entry after it.
    pub next: u64,
}

impl Directory {
    pub(crate) fn new(parent: u64) -> Directory {
        Directory {
            parent,
            names: BTreeMap::new(),
            entries: BTreeMap::new(),
            next: DOT_DOT + 1,
        }
    }

    pub(crate) fn get(&self, name: &[u8]) -> Option<u64> {
        let position = self.names.get(name)?;
        self.entries.get(position).map(|entry| entry.ino)
    }

    /// Adds an entry that there is not yet.
    pub(crate) fn add(&mut self, name: &[u8], ino: u64, charge: Charge) {
        self.names.insert(name.into(), self.next);
        let name = name.into();
        self.entries.insert(self.next, Named { name, ino, charge });
        self.next += 1;
    }

    /// Makes the entry of that name, if there is one, mean `ino`.
    pub(crate) fn set(&mut self, name: &[u8], ino: u64) {
        if let Some(entry) = self.entry_mut(name) {
            entry.ino = ino;
        }
    }

    /// What the entry of that name takes.
    pub(crate) fn charge_mut(&mut self, name: &[u8]) -> Option<&mut Charge> {
        self.entry_mut(name).map(|entry| &mut entry.charge)
    }

    fn entry_mut(&mut self, name: &[u8]) -> Option<&mut Named> {
        let position = self.names.get(name)?;
        self.entries.get_mut(position)
    }

    /// Removes an entry; what it took.
    pub(crate) fn remove(&mut self, name: &[u8]) -> Option<Charge> {
        let position = self.names.remove(name)?;
        self.entries.remove(&position).map(|entry| entry.charge)
    }

    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }
}

impl<P: PageStore> Tmpfs<P> {
    pub(crate) fn directory(&self, ino: u64) -> Result<&Directory> {
        match &self.node(ino)?.data {
            Data::Directory(directory) => Ok(directory),
            _ => Err(Errno::ENOTDIR),
        }
    }

    /// A directory that is about to change: its times become now.
    pub(crate) fn directory_mut(&mut self, ino: u64) -> Result<&mut Directory> {
        let now = self.now;
        let node = self.node_mut(ino)?;
        match &mut node.data {
            Data::Directory(directory) => {
                node.mtime = now;
                node.ctime = now;
                Ok(directory)
            }
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn d_type(&self, ino: u64) -> u8 {
        // DT_* is the type field of the mode.
        self.nodes
            .get(&ino)
            .map_or(0, |node| ((node.mode & TYPE) >> 12) as u8)
    }

    /// Shows the entries from `position` (0, or the `next` of an entry) on to `each` until it
    /// returns false for one it did not take; returns the position to go on from.
    pub fn read_dir(
        &self,
        ino: u64,
        position: u64,
        each: &mut dyn FnMut(&Entry<'_>) -> bool,
    ) -> Result<u64> {
        const DIRECTORY: u8 = 4;
        let directory = self.directory(ino)?;
        let dots = [(DOT, ino, &b"."[..]), (DOT_DOT, directory.parent, b"..")];
        for (at, ino, name) in dots {
            let entry = Entry {
                ino,
                name,
                kind: DIRECTORY,
                next: at + 1,
            };
            if at >= position && !each(&entry) {
                return Ok(at);
            }
        }
        for (&at, named) in directory.entries.range(position..) {
            let entry = Entry {
                ino: named.ino,
                name: &named.name,
                kind: self.d_type(named.ino),
                next: at + 1,
            };
            if !each(&entry) {
                return Ok(at);
            }
        }
        Ok(directory.next.max(position))
    }
}
