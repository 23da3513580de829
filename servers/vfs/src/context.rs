//! What a call needs to act on an object: the part of the server that objects share ([`Base`]),
//! and who calls ([`Subject`]). No object sees more of the server.

use crate::accounts::Accounts;
use crate::counters::Counters;
use crate::machine::{Machine, post};
use crate::peer::{Peer, Questions};
use crate::sabotage;
use crate::user::UserMemory;
use crate::wait::{Interrupt, Timers};
use abi::proto::pm;
use abi::{Endpoint, Errno, PAGE, capability};
use alloc::rc::Rc;
use core::cell::Cell;
use rt::charge::{Charge, Payer};
use rt::task::{Event, Spawner};

/// What all objects share.
pub struct Base {
    /// The world.
    pub machine: Rc<dyn Machine>,
    /// Starts tasks.
    pub spawner: Spawner,
    /// Questions out.
    pub questions: Questions,
    /// VM, which repairs memory.
    pub vm: Peer,
    /// Tasks that wait for a time.
    pub timers: Timers,
    /// Something a poller may wait for changed.
    pub readiness: Rc<Event>,
    /// What programs make the server keep.
    pub accounts: Accounts,
    /// Leak checks.
    pub counters: Rc<Counters>,
}

impl Base {
    /// Nothing is asked, kept or waited for yet.
    pub fn new(machine: Rc<dyn Machine>, spawner: Spawner) -> Base {
        let questions = Questions::new();
        Base {
            vm: Peer::new(Endpoint::VM, &machine, &questions),
            timers: Timers::new(machine.clone()),
            spawner,
            questions,
            readiness: Rc::default(),
            accounts: Accounts::new(sabotage::charged(&*machine, machine.memory())),
            counters: Rc::default(),
            machine,
        }
    }

    /// The peer at `endpoint`.
    pub fn peer(&self, endpoint: Endpoint) -> Peer {
        Peer::new(endpoint, &self.machine, &self.questions)
    }
}

/// User and group ids.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ids {
    /// Real user.
    pub uid: u32,
    /// Effective user.
    pub euid: u32,
    /// Real group.
    pub gid: u32,
    /// Effective group.
    pub egid: u32,
    /// User in whose name files are looked at (setfsuid(2)).
    pub fsuid: u32,
    /// Group likewise.
    pub fsgid: u32,
    /// Effective capabilities ([`abi::capability`]).
    pub capabilities: u64,
}

impl Ids {
    /// Of a user and a group.
    pub const fn of(uid: u32, gid: u32) -> Ids {
        Ids {
            uid,
            euid: uid,
            gid,
            egid: gid,
            fsuid: uid,
            fsgid: gid,
            capabilities: capabilities_of(uid),
        }
    }

    /// exec: the effective ids of the new program.
    pub fn adopt(&mut self, (euid, egid): (u32, u32)) {
        (self.euid, self.egid) = (euid, egid);
        (self.fsuid, self.fsgid) = (euid, egid);
        self.capabilities = capabilities_of(euid);
    }
}

/// The effective capabilities of a program of this effective user.
const fn capabilities_of(euid: u32) -> u64 {
    if euid == 0 { capability::ALL } else { 0 }
}

/// A process as objects know it: who acts on them.
pub struct Subject {
    /// Its endpoint.
    pub who: Endpoint,
    /// Its process id.
    pub pid: u32,
    /// Ids.
    pub ids: Cell<Ids>,
    /// Names these ids and its groups: an open file remembers with which it was opened.
    pub credential: Cell<u64>,
    /// Session and process group, as terminals are told; session 0 when it has let go of its
    /// terminal.
    pub job: Cell<(u32, u32)>,
    /// Ends the current call.
    pub interrupt: Interrupt,
}

impl Subject {
    /// A process that leads its session.
    pub fn new(who: Endpoint, pid: u32, ids: Ids) -> Subject {
        Subject {
            who,
            pid,
            ids: Cell::new(ids),
            credential: Cell::new(0),
            job: Cell::new((pid, pid)),
            interrupt: Interrupt::default(),
        }
    }

    /// Who pays for what it makes VFS keep.
    pub fn payer(&self) -> Payer {
        let ids = self.ids.get();
        Payer {
            user: ids.uid,
            privileged: ids.euid == 0,
        }
    }
}

/// A call, as objects see it.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The server's part.
    pub base: &'a Base,
    /// Who calls.
    pub subject: &'a Subject,
}

impl Context<'_> {
    /// The caller's endpoint.
    pub fn who(&self) -> Endpoint {
        self.subject.who
    }

    /// The caller's memory.
    pub fn memory(&self) -> UserMemory {
        self.memory_of(self.subject.who)
    }

    /// The memory of a process.
    pub fn memory_of(&self, who: Endpoint) -> UserMemory {
        UserMemory::new(who, &self.base.vm)
    }

    /// Who pays for what this call leaves behind.
    pub fn payer(&self) -> Payer {
        self.subject.payer()
    }

    /// Bytes that this call needs while it is under way, or that a table of descriptors takes:
    /// `ENOMEM`.
    pub fn work(&self, bytes: usize) -> Result<Charge, Errno> {
        let charge = self.base.accounts.work.charge(self.payer(), bytes as u64);
        charge.ok_or(Errno::ENOMEM)
    }

    /// Memory for a piece of a transfer that may have to wait: of `len` bytes or, when others hold
    /// what there is, of a page, which everybody can have.
    pub fn piece(&self, len: u64) -> (u64, Option<Charge>) {
        if len <= PAGE {
            return (len, None);
        }
        match self.work(len as usize) {
            Ok(charge) => (len, Some(charge)),
            Err(_) => (PAGE, None),
        }
    }

    /// Sends the caller a signal.
    pub fn raise(&self, signal: u32) {
        let (who, signal) = (self.who(), signal as i32);
        post(&*self.base.machine, Endpoint::PM, pm::Raise { who, signal });
    }
}
