//! Descriptor tables.

use crate::file::OpenFile;
use crate::locks::Owner;
use abi::Errno;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use rt::charge::{Account, Charge, Payer};

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

/// Bytes of a table of so many.
fn size(descriptors: usize) -> u64 {
    (descriptors * size_of::<Option<Descriptor>>()) as u64
}

/// A process's descriptors.
pub struct FdTable {
    /// Names the table as an owner of record locks.
    pub id: u64,
    entries: RefCell<Vec<Option<Descriptor>>>,
    limit: Cell<usize>,
    /// What the table takes, bytes.
    charge: RefCell<Charge>,
}

impl FdTable {
    /// No descriptors. What they take will be charged to `account`.
    pub fn new(id: u64, account: &Account) -> FdTable {
        FdTable {
            id,
            entries: RefCell::default(),
            limit: Cell::new(OPEN_DEFAULT),
            charge: RefCell::new(account.nothing(0)),
        }
    }

    /// A copy (fork), which `payer` pays for. `ENOMEM`.
    pub fn duplicate(&self, id: u64, payer: Payer) -> Result<FdTable, Errno> {
        let entries = self.entries.borrow();
        // What follows the last descriptor need not be copied.
        let used = entries.iter().rposition(Option::is_some);
        let used = &entries[..used.map_or(0, |last| last + 1)];
        let charge = self
            .charge
            .borrow()
            .account()
            .charge(payer, size(used.len()));
        let charge = charge.ok_or(Errno::ENOMEM)?;
        let mut copy = Vec::new();
        copy.try_reserve_exact(used.len())
            .map_err(|_| Errno::ENOMEM)?;
        copy.extend_from_slice(used);
        Ok(FdTable {
            id,
            entries: RefCell::new(copy),
            limit: self.limit.clone(),
            charge: RefCell::new(charge),
        })
    }

    /// Makes room for `len` descriptors, for which `payer` pays. `ENOMEM`.
    fn grow(&self, len: usize, payer: Payer) -> Result<(), Errno> {
        let mut entries = self.entries.borrow_mut();
        if len <= entries.len() {
            return Ok(());
        }
        if !self.charge.borrow_mut().resize(payer, size(len)) {
            return Err(Errno::ENOMEM);
        }
        let more = len - entries.len();
        // Doubled in size at most, as vectors are: what is charged is within a factor of two.
        entries.try_reserve(more).map_err(|_| Errno::ENOMEM)?;
        entries.resize(len, None);
        Ok(())
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

    /// Puts a file at the lowest free descriptor from `from` on. `EMFILE`, `ENOMEM`.
    pub fn add(
        &self,
        from: usize,
        file: Rc<OpenFile>,
        close_on_exec: bool,
        payer: Payer,
    ) -> Result<i32, Errno> {
        let fd = self.free(from)?;
        self.set(fd, file, close_on_exec, payer)?;
        Ok(fd as i32)
    }

    /// Puts a file at this descriptor (below [`FdTable::limit`]), closing what was there.
    /// `ENOMEM` when the table would have to grow and cannot.
    pub fn set(
        &self,
        fd: usize,
        file: Rc<OpenFile>,
        close_on_exec: bool,
        payer: Payer,
    ) -> Result<(), Errno> {
        self.grow(fd + 1, payer)?;
        let mut entries = self.entries.borrow_mut();
        let old = entries[fd].replace(Descriptor {
            file,
            close_on_exec,
        });
        drop(entries);
        self.closed(old);
        Ok(())
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

    /// How many descriptors there is room for, as Linux counts (FDSize of /proc/PID/status): at
    /// least 64, and a power of two.
    pub fn places(&self) -> usize {
        self.entries.borrow().len().next_power_of_two().max(64)
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
