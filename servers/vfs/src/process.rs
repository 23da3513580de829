//! What VFS knows of a Linux process.

use crate::context::{Ids, Subject};
use crate::fd::FdTable;
use crate::loading::Fault;
use crate::vnode::{Executing, Place, Vnode};
use abi::endpoint::MAX_PROCESSES;
use abi::proto::vfs::ExecFigures;
use abi::{Endpoint, Errno};
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

/// What CLONE_FS shares.
#[derive(Clone)]
pub struct Directories {
    /// Working directory.
    pub cwd: Rc<Vnode>,
    /// Root directory.
    pub root: Rc<Vnode>,
    /// umask(2).
    pub umask: u32,
}

/// A process.
pub struct Process {
    /// Who it is.
    pub subject: Subject,
    /// Descriptors.
    pub files: RefCell<Rc<FdTable>>,
    /// Directories and umask.
    pub directories: RefCell<Rc<RefCell<Directories>>>,
    /// How long its writes may make a file (RLIMIT_FSIZE).
    pub file_size: Cell<u64>,
    /// PM is to be asked before it executes a program: its user has many processes.
    pub crowded: Cell<bool>,
    /// Supplementary groups.
    pub groups: RefCell<Rc<Vec<u32>>>,
    /// Until when (ns since boot) the poll waits that a signal cut short last.
    pub cut_short: Cell<Option<u64>>,
    /// The same, of the one that the next poll goes on with.
    pub resumed: Cell<Option<u64>>,
    /// The executable.
    pub program: RefCell<Option<Place>>,
    /// Keeps the executable from being written.
    pub executing: RefCell<Option<Rc<Executing>>>,
    /// Where arguments and environment are.
    pub figures: Cell<ExecFigures>,
    /// Programs it executes get no random layout (personality's ADDR_NO_RANDOMIZE).
    pub fixed_layout: Cell<bool>,
    /// A failure that a test wants.
    pub exec_fault: Fault,
}

/// No strings known.
pub const NO_FIGURES: ExecFigures = ExecFigures {
    arg_start: 0,
    arg_end: 0,
    env_start: 0,
    env_end: 0,
    auxv_start: 0,
    auxv_end: 0,
};

impl Process {
    /// A process without descriptors.
    pub fn new(who: Endpoint, pid: u32, ids: Ids, files: FdTable, at: Directories) -> Process {
        Process {
            subject: Subject::new(who, pid, ids),
            files: RefCell::new(Rc::new(files)),
            directories: RefCell::new(Rc::new(RefCell::new(at))),
            file_size: Cell::new(u64::MAX),
            crowded: Cell::new(false),
            groups: RefCell::default(),
            cut_short: Cell::default(),
            resumed: Cell::default(),
            program: RefCell::new(None),
            executing: RefCell::new(None),
            figures: Cell::new(NO_FIGURES),
            fixed_layout: Cell::new(false),
            exec_fault: Fault::default(),
        }
    }

    /// A child. `ENOMEM`.
    pub fn fork(
        &self,
        child: Endpoint,
        pid: u32,
        table: u64,
        share_files: bool,
        share_directories: bool,
    ) -> Result<Process, Errno> {
        let files = self.files();
        let directories = self.directories.borrow().clone();
        let subject = Subject::new(child, pid, self.subject.ids.get());
        // A child's are a copy, threads share them.
        subject.credential.set(if pid == self.subject.pid {
            self.subject.credential.get()
        } else {
            table
        });
        subject.job.set(self.subject.job.get());
        Ok(Process {
            subject,
            files: RefCell::new(if share_files {
                files
            } else {
                Rc::new(files.duplicate(table, self.subject.payer())?)
            }),
            directories: RefCell::new(if share_directories {
                directories
            } else {
                let copy = directories.borrow().clone();
                Rc::new(RefCell::new(copy))
            }),
            file_size: self.file_size.clone(),
            crowded: Cell::new(false),
            groups: RefCell::new(self.groups.borrow().clone()),
            cut_short: Cell::default(),
            resumed: Cell::default(),
            program: RefCell::new(self.program.borrow().clone()),
            executing: RefCell::new(self.executing.borrow().clone()),
            figures: self.figures.clone(),
            fixed_layout: self.fixed_layout.clone(),
            exec_fault: Fault::default(),
        })
    }

    /// The descriptor table.
    pub fn files(&self) -> Rc<FdTable> {
        self.files.borrow().clone()
    }

    /// The working directory.
    pub fn cwd(&self) -> Rc<Vnode> {
        self.directories.borrow().borrow().cwd.clone()
    }

    /// The root directory.
    pub fn root(&self) -> Rc<Vnode> {
        self.directories.borrow().borrow().root.clone()
    }

    /// umask(2).
    pub fn umask(&self) -> u32 {
        self.directories.borrow().borrow().umask
    }

    /// Changes directories or umask.
    pub fn change(&self, change: impl FnOnce(&mut Directories)) {
        let shared = self.directories.borrow().clone();
        let mut directories = shared.borrow().clone();
        change(&mut directories);
        // What was there before may hold the last reference to a vnode: it goes last.
        let old = shared.replace(directories);
        drop(old);
    }

    /// Whether `group` is `gid` or a supplementary group.
    pub fn in_group(&self, gid: u32, group: u32) -> bool {
        gid == group || self.groups.borrow().contains(&group)
    }
}

/// All processes, by slot.
#[derive(Default)]
pub struct Processes(Vec<Option<Rc<Process>>>);

impl Processes {
    /// The process, if it is that generation.
    pub fn get(&self, who: Endpoint) -> Option<Rc<Process>> {
        let process = self.0.get(who.slot())?.as_ref()?;
        (process.subject.who == who).then(|| process.clone())
    }

    /// Adds a process; one left over in its slot goes. `EINVAL` for an impossible endpoint.
    pub fn insert(&mut self, process: Process) -> Result<Option<Rc<Process>>, Errno> {
        let slot = process.subject.who.slot();
        if slot >= MAX_PROCESSES {
            return Err(Errno::EINVAL);
        }
        if self.0.len() <= slot {
            self.0.resize(slot + 1, None);
        }
        Ok(self.0[slot].replace(Rc::new(process)))
    }

    /// Removes a process.
    pub fn remove(&mut self, who: Endpoint) -> Option<Rc<Process>> {
        self.get(who)?;
        self.0.get_mut(who.slot())?.take()
    }

    /// The process with this id.
    pub fn by_pid(&self, pid: u32) -> Option<Rc<Process>> {
        self.0
            .iter()
            .flatten()
            .find(|p| p.subject.pid == pid)
            .cloned()
    }

    /// The threads of a process.
    pub fn threads(&self, pid: u32) -> impl Iterator<Item = &Rc<Process>> {
        self.0
            .iter()
            .flatten()
            .filter(move |p| p.subject.pid == pid)
    }

    /// Whether a process has more than one thread.
    pub fn has_threads(&self, pid: u32) -> bool {
        self.threads(pid).nth(1).is_some()
    }

    /// Processes known.
    pub fn len(&self) -> usize {
        self.0.iter().flatten().count()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
