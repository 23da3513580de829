//! The server's state, shared by its tasks.

use crate::absent::Absent;
use crate::context::{Base, Context};
use crate::device::Driver;
use crate::file::socket::network::Network;
use crate::loading::Control;
use crate::machine::Machine;
use crate::process::{Process, Processes};
use crate::protections::Protections;
use crate::random::Random;
use crate::user::UserMemory;
use crate::vnode::mount::Mount;
use crate::vnode::names::NameCache;
use abi::boot::{RunHeader, RunSpec, run_flags};
use abi::{Endpoint, Errno};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::rc::{Rc, Weak};
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use rt::charge::{Charge, Payer};
use rt::task::Spawner;

/// A file system's type by name: its server.
pub type Types = BTreeMap<Box<[u8]>, Endpoint>;

/// The virtual file system.
pub struct Vfs {
    /// What objects share.
    pub base: Rc<Base>,
    /// Linux processes.
    pub processes: RefCell<Processes>,
    /// Mounts, the root first.
    pub mounts: RefCell<Vec<Rc<Mount>>>,
    /// Mounts that are in the tree no more, while somebody uses them.
    pub detached: RefCell<Vec<Weak<Mount>>>,
    /// Who serves which type of file system.
    pub types: RefCell<Types>,
    /// Drivers of character devices, by major number.
    pub drivers: RefCell<BTreeMap<u32, Rc<Driver>>>,
    /// Drivers of block devices, likewise.
    pub block_drivers: RefCell<BTreeMap<u32, Rc<Driver>>>,
    /// Bounds the name cache.
    pub names: Rc<NameCache>,
    /// Sockets.
    pub network: Rc<Network>,
    /// Looks at readiness so far.
    pub rounds: Cell<u64>,
    /// For AT_RANDOM and layouts.
    pub random: RefCell<Random>,
    /// How programs are loaded.
    pub exec: Control,
    /// Whether programs get random layouts.
    pub randomize: bool,
    /// Paths that were looked for and not there, where the host wants to know.
    pub absent: Option<Absent>,
    /// What of other users' files in shared directories is kept from programs.
    pub protections: Protections,
}

impl Vfs {
    /// Names a look at the readiness of several files; later ones have larger numbers.
    pub fn round(&self) -> u64 {
        self.rounds.set(self.rounds.get() + 1);
        self.rounds.get()
    }

    /// A VFS without mounts.
    pub fn new(machine: Rc<dyn Machine>, spawner: Spawner) -> Rc<Vfs> {
        let bytes = machine.run_specification().unwrap_or_default();
        let run = RunSpec::parse(&bytes).map_or_else(|_| RunHeader::default(), |s| s.header);
        Rc::new(Vfs {
            processes: RefCell::default(),
            mounts: RefCell::default(),
            detached: RefCell::default(),
            types: RefCell::default(),
            drivers: RefCell::default(),
            block_drivers: RefCell::default(),
            names: Rc::new(NameCache::new(machine.memory())),
            network: Rc::default(),
            rounds: Cell::new(0),
            random: RefCell::new(Random::new(run.seed)),
            exec: Control::default(),
            randomize: run.flags & run_flags::FIXED_LAYOUT == 0,
            absent: (run.flags & run_flags::NOTE_ABSENT != 0).then(Absent::default),
            protections: Protections::default(),
            base: Rc::new(Base::new(machine, spawner)),
        })
    }

    /// A process.
    pub fn process(&self, who: Endpoint) -> Option<Rc<Process>> {
        self.processes.borrow().get(who)
    }

    /// The mount with this device number.
    pub fn mount_of(&self, dev: u64) -> Option<Rc<Mount>> {
        let attached = self.mounts.borrow().iter().find(|m| m.dev == dev).cloned();
        attached.or_else(|| {
            let detached = self.detached.borrow();
            let mut detached = detached.iter().filter_map(Weak::upgrade);
            detached.find(|m| m.dev == dev)
        })
    }

    /// The root file system.
    pub fn root_mount(&self) -> Result<Rc<Mount>, Errno> {
        self.mounts.borrow().first().cloned().ok_or(Errno::ENODEV)
    }

    /// The driver of a block device's major number.
    pub fn block_driver(&self, major: u32) -> Option<Rc<Driver>> {
        self.block_drivers.borrow().get(&major).cloned()
    }

    /// The driver of a character device's major number.
    pub fn driver(&self, major: u32) -> Option<Rc<Driver>> {
        self.drivers.borrow().get(&major).cloned()
    }
}

/// Who makes a call.
#[derive(Clone)]
pub struct Caller {
    /// The server.
    pub vfs: Rc<Vfs>,
    /// The process.
    pub process: Rc<Process>,
}

impl Caller {
    /// The call, as objects see it.
    pub fn context(&self) -> Context<'_> {
        Context {
            base: &self.vfs.base,
            subject: &self.process.subject,
        }
    }

    /// The caller's memory.
    pub fn memory(&self) -> UserMemory {
        self.context().memory()
    }

    /// The caller's endpoint.
    pub fn who(&self) -> Endpoint {
        self.process.subject.who
    }

    /// Who pays for what this call leaves behind.
    pub fn payer(&self) -> Payer {
        self.process.subject.payer()
    }

    /// A vnode that a call may bring into memory, to be asked for before anything is changed: `ENOMEM`. Cached names
    /// go first.
    pub fn vnode(&self) -> Result<Charge, Errno> {
        loop {
            if let Some(charge) = self.vfs.base.accounts.vnodes.charge(self.payer(), 1) {
                return Ok(charge);
            }
            if !self.vfs.names.forget_oldest() {
                return Err(Errno::ENOMEM);
            }
        }
    }

    /// `ENFILE` when there can be no more open files, before a call has made one.
    pub fn check_files(&self) -> Result<(), Errno> {
        match self.vfs.base.accounts.files.fits(self.payer(), 1) {
            true => Ok(()),
            false => Err(Errno::ENFILE),
        }
    }

    /// Gives the process a descriptor table of its own. `ENOMEM`.
    pub fn unshare_files(&self) -> Result<(), Errno> {
        let files = self.process.files();
        // One reference is ours, one is the process's.
        if Rc::strong_count(&files) > 2 {
            let own = files.duplicate(self.vfs.base.counters.unique(), self.payer())?;
            *self.process.files.borrow_mut() = Rc::new(own);
        }
        Ok(())
    }
}
