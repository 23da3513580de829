//! Which files are mapped, and by how many regions.
//!
//! With each mapping comes a reference that VFS keeps on VM's behalf; when the last region
//! goes all of them are given back. Shared anonymous memory is a file too, of a device of VM's
//! own, whose pages live in the cache as long as a region maps them.

use alloc::collections::BTreeMap;

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
    held: u64,
    /// It is in the list of [`Files::touched`].
    listed: bool,
    /// The next one there.
    next: Option<FileId>,
}

/// The mapped files.
#[derive(Default)]
pub struct Files {
    mapped: BTreeMap<FileId, Mapped>,
    /// The first of the files with references to give back, perhaps. They are a list, for their end must need no memory.
    touched: Option<FileId>,
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
            self.touch(file);
        }
    }

    fn touch(&mut self, file: FileId) {
        if let Some(mapped) = self.mapped.get_mut(&file).filter(|m| !m.listed) {
            mapped.listed = true;
            mapped.next = self.touched.replace(file);
        }
    }

    /// VFS took a reference on `file`.
    pub fn hold(&mut self, file: FileId) {
        self.mapped.entry(file).or_default().held += 1;
        self.touch(file);
    }

    /// A file that nobody maps any more, and how many references to give back.
    pub fn give_back(&mut self) -> Option<(FileId, u64)> {
        while let Some(file) = self.touched {
            // Who is in the list is mapped until it is taken out here.
            let mapped = self.mapped.get_mut(&file)?;
            mapped.listed = false;
            self.touched = mapped.next.take();
            if mapped.regions == 0 {
                return self.mapped.remove(&file).map(|gone| (file, gone.held));
            }
        }
        None
    }

    /// Whether there may be more to give back.
    pub fn has_more(&self) -> bool {
        self.touched.is_some()
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
