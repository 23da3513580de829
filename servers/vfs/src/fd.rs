//! Descriptor tables.

use crate::file::OpenFile;
use crate::locks::Owner;
use abi::Errno;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

/// Descriptors a process may have at most, whatever its RLIMIT_NOFILE.
pub const OPEN_MAX: usize = 4096;
/// RLIMIT_NOFILE's default.
const OPEN_DEFAULT: usize = 1024;

/// One descriptor.
#[derive(Clone)]
pub struct Descriptor {
    /// The open file.
    pub file: Rc<OpenFile>,
    /// FD_CLOEXEC.
    pub close_on_exec: bool,
}

/// A process's descriptors.
pub struct FdTable {
    /// Names the table as an owner of record locks.
    pub id: u64,
    entries: RefCell<Vec<Option<Descriptor>>>,
    limit: Cell<usize>,
}

impl FdTable {
    /// No descriptors.
    pub fn new(id: u64) -> FdTable {
        FdTable {
            id,
            entries: RefCell::default(),
            limit: Cell::new(OPEN_DEFAULT),
        }
    }

    /// A copy (fork).
    pub fn duplicate(&self, id: u64) -> FdTable {
        FdTable {
            id,
            entries: RefCell::new(self.entries.borrow().clone()),
            limit: self.limit.clone(),
        }
    }

    /// RLIMIT_NOFILE: new descriptors are below it. Those beyond it stay open.
    pub fn limit(&self) -> usize {
        self.limit.get()
    }

    /// Sets RLIMIT_NOFILE.
    pub fn set_limit(&self, limit: u64) {
        let limit = usize::try_from(limit).unwrap_or(OPEN_MAX);
        self.limit.set(limit.min(OPEN_MAX));
    }

    /// The descriptor; `EBADF`.
    pub fn descriptor(&self, fd: i32) -> Result<Descriptor, Errno> {
        usize::try_from(fd)
            .ok()
            .and_then(|fd| self.entries.borrow().get(fd)?.clone())
            .ok_or(Errno::EBADF)
    }

    /// The open file; `EBADF`.
    pub fn get(&self, fd: i32) -> Result<Rc<OpenFile>, Errno> {
        self.descriptor(fd).map(|d| d.file)
    }

    /// The lowest free descriptor from `from` on; `EMFILE`.
    pub fn free(&self, from: usize) -> Result<usize, Errno> {
        let entries = self.entries.borrow();
        let free = (from..entries.len())
            .find(|&fd| entries[fd].is_none())
            .unwrap_or(entries.len().max(from));
        if free < self.limit.get() {
            Ok(free)
        } else {
            Err(Errno::EMFILE)
        }
    }

    /// Puts a file at the lowest free descriptor from `from` on.
    pub fn add(&self, from: usize, file: Rc<OpenFile>, close_on_exec: bool) -> Result<i32, Errno> {
        let fd = self.free(from)?;
        self.set(fd, file, close_on_exec);
        Ok(fd as i32)
    }

    /// Puts a file at this descriptor (below [`FdTable::limit`]), closing what was there.
    pub fn set(&self, fd: usize, file: Rc<OpenFile>, close_on_exec: bool) {
        let mut entries = self.entries.borrow_mut();
        if entries.len() <= fd {
            entries.resize(fd + 1, None);
        }
        let old = entries[fd].replace(Descriptor {
            file,
            close_on_exec,
        });
        drop(entries);
        self.closed(old);
    }

    /// Changes FD_CLOEXEC.
    pub fn set_close_on_exec(&self, fd: i32, value: bool) -> Result<(), Errno> {
        let mut entries = self.entries.borrow_mut();
        usize::try_from(fd)
            .ok()
            .and_then(|fd| entries.get_mut(fd)?.as_mut())
            .ok_or(Errno::EBADF)?
            .close_on_exec = value;
        Ok(())
    }

    /// Closes; `EBADF`.
    pub fn close(&self, fd: i32) -> Result<(), Errno> {
        let old = usize::try_from(fd)
            .ok()
            .and_then(|fd| self.entries.borrow_mut().get_mut(fd)?.take());
        if old.is_none() {
            return Err(Errno::EBADF);
        }
        self.closed(old);
        Ok(())
    }

    /// Closes what `which` says of `(fd, close_on_exec)`.
    pub fn close_if(&self, which: impl Fn(usize, bool) -> bool) {
        let len = self.entries.borrow().len();
        for fd in 0..len {
            let old = match self.entries.borrow_mut().get_mut(fd) {
                Some(entry) if entry.as_ref().is_some_and(|d| which(fd, d.close_on_exec)) => {
                    entry.take()
                }
                _ => None,
            };
            self.closed(old);
        }
    }

    /// The lowest descriptor from `from` on.
    pub fn next(&self, from: usize) -> Option<(usize, Descriptor)> {
        let entries = self.entries.borrow();
        (from..entries.len()).find_map(|fd| Some((fd, entries[fd].clone()?)))
    }

    // POSIX: closing any descriptor of a file drops the process's record locks on it.
    fn closed(&self, descriptor: Option<Descriptor>) {
        if let Some(descriptor) = descriptor {
            if let Some(vnode) = descriptor.file.vnode.as_ref() {
                vnode.locks.release(Owner::Table(self.id));
            }
            drop(descriptor);
        }
    }
}

impl Drop for FdTable {
    fn drop(&mut self) {
        self.close_if(|_, _| true);
    }
}
