//! Which files are mapped, and by how many regions.
//!
//! VFS keeps one reference for each mapped file on VM's behalf; when the last region goes
//! the reference is given back. Shared anonymous memory is a file too, of a device of VM's
//! own, whose pages live in the cache as long as a region maps them.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// A file: device and inode.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct FileId {
    /// Device.
    pub dev: u64,
    /// Inode.
    pub ino: u64,
}

/// The device of shared anonymous memory.
pub const SHARED_MEMORY: u64 = u64::MAX - 1;

impl FileId {
    /// Whether this is shared anonymous memory.
    pub const fn is_memory(self) -> bool {
        self.dev == SHARED_MEMORY
    }
}

/// A mapped file's counts.
#[derive(Clone, Copy, Default)]
struct Mapped {
    /// Regions that map it.
    regions: u32,
    /// References that VFS took for us.
    held: u32,
}

/// The mapped files.
#[derive(Default)]
pub struct Files {
    mapped: BTreeMap<FileId, Mapped>,
    /// Files with references to give back, perhaps.
    touched: Vec<FileId>,
    next_memory: u64,
}

impl Files {
    /// A region of `file` appeared.
    pub fn add(&mut self, file: FileId) {
        self.mapped.entry(file).or_default().regions += 1;
    }

    /// A region of `file` went.
    pub fn remove(&mut self, file: FileId) {
        let Some(mapped) = self.mapped.get_mut(&file).filter(|m| m.regions > 0) else {
            debug_assert!(false, "{file:?} is not mapped");
            return;
        };
        mapped.regions -= 1;
        if mapped.regions == 0 {
            self.touched.push(file);
        }
    }

    /// VFS took a reference on `file`.
    pub fn hold(&mut self, file: FileId) {
        self.mapped.entry(file).or_default().held += 1;
        self.touched.push(file);
    }

    /// A file that has references to give back, and how many; or shared anonymous memory
    /// that nobody maps any more, with 0. One reference stays for a file that is mapped.
    pub fn give_back(&mut self) -> Option<(FileId, u32)> {
        while let Some(file) = self.touched.pop() {
            let Some(mapped) = self.mapped.get_mut(&file) else {
                continue;
            };
            let keep = mapped.held.min((mapped.regions > 0) as u32);
            let extra = mapped.held - keep;
            mapped.held = keep;
            let gone = mapped.regions == 0;
            if gone {
                self.mapped.remove(&file);
            }
            if extra > 0 || (gone && file.is_memory()) {
                return Some((file, extra));
            }
        }
        None
    }

    /// A new piece of shared anonymous memory.
    pub fn new_memory(&mut self) -> FileId {
        self.next_memory += 1;
        FileId {
            dev: SHARED_MEMORY,
            ino: self.next_memory,
        }
    }

    /// All mapped files and their regions.
    pub fn iter(&self) -> impl Iterator<Item = (FileId, u32)> + '_ {
        self.mapped
            .iter()
            .filter(|(_, mapped)| mapped.regions > 0)
            .map(|(&file, mapped)| (file, mapped.regions))
    }
}
