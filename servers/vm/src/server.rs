//! The server: processes, their spaces, and the event loop's logic.
//!
//! Every message is handled to its end at once; what must wait for VFS is parked in
//! [`crate::jobs`] as copied state. What is to be done outside VM is a list of [`Effect`]s.

use crate::cache::Key;
use crate::caches::Caches;
use crate::files::FileId;
use crate::frames::{Claim, Frames};
use crate::jobs::{Job, PageIns};
use crate::linux::PendingMap;
use crate::pool::Pool;
use crate::region::Backing;
use crate::sanity;
use crate::shortage::Shortage;
use crate::space::{Limits, Space};
use crate::sync::PendingSync;
use crate::table::NoMemory;
use crate::window::Frame;
use abi::endpoint::MAX_PROCESSES;
use abi::message::request::{Ask, Asker, Post};
use abi::message::{Handled, is_answer};
use abi::proto::vfs::{self, MapClose, References};
use abi::proto::vm as protocol;
use abi::{Class, Endpoint, Errno, Fields, Message, Request};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Something to do outside VM, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Answer a call, Linux call or fault.
    Reply(Endpoint, Message),
    /// Post a message.
    Post(Endpoint, Message),
    /// Answer a memory request of the kernel.
    MemoryReply(Endpoint, Result<(), Errno>),
    /// Bind the top-level table to a process; `None` unbinds.
    Bind(Endpoint, Option<Frame>),
    /// Call [`Server::try_again`] soon.
    TryLater,
    /// Tell the log.
    Log(String),
}

/// A process that VM knows.
pub struct Process {
    /// Its endpoint.
    pub endpoint: Endpoint,
    /// Index of its space.
    pub space: usize,
    /// Whether it is a system service.
    pub service: bool,
    /// A page-in may need it: it must never wait for one.
    pub in_chain: bool,
    /// Physical ranges it may map.
    pub physical: Vec<(u64, u64)>,
}

/// See the module.
pub struct Server {
    /// Frames, cache, files.
    pub pool: Pool,
    spaces: Vec<Option<Space>>,
    processes: Vec<Option<Process>>,
    pub(crate) page_ins: PageIns,
    pub(crate) shortage: Shortage,
    pub(crate) caches: Caches,
    /// Jobs that wait for a frame of which only its time is known.
    pub(crate) later: Vec<Job>,
    pub(crate) pending_maps: BTreeMap<u64, PendingMap>,
    pub(crate) pending_syncs: BTreeMap<u64, PendingSync>,
    pub(crate) effects: Vec<Effect>,
    next_txn: u64,
    sanity: bool,
    /// Brings pages in for copies of whoever it takes to bring them in, too: what failable
    /// copies exist to avoid ([`abi::policy::CopyPolicy::Transparent`]).
    pub deadlocks: bool,
}

/// Files whose references are given back at once. Who ends may have mapped thousands.
const CLOSED: usize = 96;

/// Changed pages told of at once that there was no memory to note.
const UNTOLD: usize = 256;

impl Server {
    /// A server without processes. With `sanity` it checks its data after every message and
    /// panics when they are wrong.
    pub fn new(frames: &'static Frames, sanity: bool) -> Server {
        Server {
            pool: Pool::new(frames),
            spaces: Vec::new(),
            processes: (0..MAX_PROCESSES).map(|_| None).collect(),
            page_ins: PageIns::default(),
            shortage: Shortage::default(),
            caches: Caches::default(),
            later: Vec::new(),
            pending_maps: BTreeMap::new(),
            pending_syncs: BTreeMap::new(),
            effects: Vec::new(),
            next_txn: 0,
            sanity,
            deadlocks: false,
        }
    }

    /// Moves the effects out, in order, into `into`.
    pub fn take_effects(&mut self, into: &mut Vec<Effect>) {
        into.append(&mut self.effects);
    }

    /// A transaction number never used before.
    pub(crate) fn new_txn(&mut self) -> u64 {
        self.next_txn += 1;
        self.next_txn
    }

    pub(crate) fn post<R: Request<How = Post>>(&mut self, to: Endpoint, request: R) {
        self.effects.push(Effect::Post(to, request.encode()));
    }

    /// Asks a server as question `txn`.
    pub(crate) fn ask_as<R: Request<How = Ask>>(&mut self, to: Endpoint, txn: u64, request: R) {
        self.effects.push(Effect::Post(to, request.ask(txn)));
    }

    /// Asks a server what is asked once at a time.
    pub(crate) fn ask_server<R: Request<How = Ask>>(&mut self, to: Endpoint, request: R) {
        let txn = self.new_txn();
        self.ask_as(to, txn, request);
    }

    /// Answers what a server has asked.
    pub(crate) fn answer<T: Fields>(&mut self, asker: Asker<T>, result: Result<T, Errno>) {
        let answer = asker.answer(result);
        self.effects
            .extend(answer.map(|message| Effect::Post(asker.who, message)));
    }

    pub(crate) fn reply_status(&mut self, to: Endpoint, result: Result<u64, Errno>) {
        let status = abi::errno::result_to_word(result);
        self.effects.push(Effect::Reply(to, Message::new(status)));
    }

    /// Handles a message, except the kernel's own.
    pub fn handle(&mut self, source: Endpoint, class: Class, message: &Message) -> Handled {
        let service = self.process(source).is_some_and(|p| p.service);
        let claim = if service {
            Claim::Service
        } else {
            Claim::Program
        };
        self.pool.frames.set_claim(claim);
        let handled = match class {
            Class::Call => self.call_or_wait(source, message),
            Class::Post if is_answer(class, message) => self.answered(source, class, message),
            Class::Post => protocol::serve(self, source, class, message),
            Class::Linux => {
                self.handle_linux(source, message);
                Handled::NOTHING
            }
            Class::PageFault => {
                self.handle_fault(source, message);
                Handled::NOTHING
            }
            // Nobody notifies VM or sends to it, and its exceptions go to others.
            Class::Send | Class::Notify | Class::Kernel | Class::Exception => Handled::NOTHING,
        };
        // In order with what there is to do besides.
        let answer = handled.answer.map(|message| Effect::Post(source, message));
        self.effects.extend(answer);
        self.settle();
        Handled {
            answer: None,
            ..handled
        }
    }

    /// Tells VFS which pages shared mappings have changed, in runs.
    pub(crate) fn tell_written(&mut self) {
        self.tell_written_to(Endpoint::VFS);
    }

    /// [`Server::tell_written`], to RS when VFS has died.
    pub(crate) fn tell_written_to(&mut self, to: Endpoint) {
        if let Some(from) = self.pool.untold.take() {
            // Some now, the others after the next message.
            let some = self.pool.cache.dirty(from, UNTOLD);
            self.pool.untold = some.get(UNTOLD - 1).copied();
            self.pool.written.extend(some);
        }
        if self.pool.written.is_empty() {
            return;
        }
        let mut written = core::mem::take(&mut self.pool.written);
        written.sort_unstable();
        written.dedup();
        let next = |key: Key| Key {
            offset: key.offset + abi::PAGE,
            ..key
        };
        for run in written.chunk_by(|&a, &b| next(a) == b) {
            if self.effects.try_reserve(1).is_err() {
                self.pool.untold = Some(Key::FIRST);
                return;
            }
            let Key { file, offset } = run[0];
            let request = vfs::PagesWritten {
                dev: file.dev,
                ino: file.ino,
                offset,
                len: run.len() as u64 * abi::PAGE,
            };
            self.post(to, request);
        }
    }

    /// Notes what has changed of the files of a device, or of one.
    pub(crate) fn collect_written(&mut self, dev: u64, ino: u64) {
        let wanted = |file: FileId| file.dev == dev && (ino == 0 || file.ino == ino);
        for space in self.spaces.iter().flatten() {
            for region in space.regions.as_slice() {
                if let Backing::File { file, .. } = region.backing
                    && !region.private()
                    && wanted(file)
                {
                    space.collect_written(&mut self.pool, region.start, region.end);
                }
            }
        }
    }

    /// Gives back file references that no region needs, and checks the invariants if asked.
    pub fn settle(&mut self) {
        self.settle_shortage();
        self.tell_written();
        let mut gone = Vec::new();
        while gone.len() < CLOSED
            && let Some((file, references)) = self.pool.files.give_back()
        {
            if file.is_memory() {
                self.pool.cache.forget(self.pool.frames, file, 0, u64::MAX);
            }
            if references > 0 {
                gone.push((file.dev, file.ino, references));
            }
        }
        for files in gone.chunk_by(|a, b| a.0 == b.0).flat_map(|g| g.chunks(3)) {
            let mut gone = [References::default(); 3];
            for (place, &(_, ino, count)) in gone.iter_mut().zip(files) {
                *place = References { ino, count };
            }
            let close = MapClose {
                dev: files[0].0,
                files: gone,
            };
            self.post(Endpoint::VFS, close);
        }
        if self.sanity
            && let Err(reason) = self.check()
        {
            panic!("sanity: {reason}");
        }
    }

    /// Whether [`Server::settle`] has left something, for what it says has to be said first.
    pub fn has_more(&self) -> bool {
        self.pool.files.has_more()
    }

    /// Checks every invariant, leaks included.
    pub fn check(&self) -> Result<(), String> {
        match self.audit()? {
            0 => Ok(()),
            lost => Err(format!("{lost} references to frames that nobody has")),
        }
    }

    /// Checks every invariant; how many references to frames leaked
    /// ([`abi::proto::vm::FrameFigures::lost`]).
    pub fn audit(&self) -> Result<u64, String> {
        // Counting takes memory, and a laboratory may have used it up.
        match self.pool.lab.present() {
            true => rt::heap::with_memory(|| self.checked()),
            false => self.checked(),
        }
    }

    fn checked(&self) -> Result<u64, String> {
        let lost = sanity::check(&self.pool, self.spaces.iter().flatten())?;
        for (index, space) in self.spaces.iter().enumerate() {
            let users = self
                .processes
                .iter()
                .flatten()
                .filter(|p| p.space == index)
                .count();
            if space.as_ref().map_or(0, |s| s.users as usize) != users {
                return Err("users of a space are miscounted".into());
            }
        }
        let owners = self.owners().map_err(|_| sanity::NO_MEMORY)?;
        // Counting frees memory of the heap's own: what it has now.
        let heap = self.pool.frames.own() as u64;
        let owned = heap + owners.tables + owners.cached + owners.services + owners.programs;
        let free = self.pool.frames.unused() as u64;
        let ownerless = owners.total.checked_sub(owned + free);
        if ownerless.is_none_or(|frames| frames > lost) {
            return Err(format!("{owners:?} and {free} free are not all frames"));
        }
        Ok(lost)
    }

    /// The process with exactly this endpoint.
    pub fn process(&self, who: Endpoint) -> Option<&Process> {
        self.processes
            .get(who.slot())?
            .as_ref()
            .filter(|p| p.endpoint == who)
    }

    pub(crate) fn process_mut(&mut self, who: Endpoint) -> Option<&mut Process> {
        self.processes
            .get_mut(who.slot())?
            .as_mut()
            .filter(|p| p.endpoint == who)
    }

    /// The process's space together with the pool; `ESRCH` without one.
    #[inline]
    pub fn space(&mut self, who: Endpoint) -> Result<(&mut Space, &mut Pool), Errno> {
        let index = self.process(who).ok_or(Errno::ESRCH)?.space;
        let space = self.spaces.get_mut(index).and_then(Option::as_mut);
        Ok((space.ok_or(Errno::ESRCH)?, &mut self.pool))
    }

    /// The spaces of services, or of programs.
    pub(crate) fn spaces_of(&self, service: bool) -> impl Iterator<Item = &Space> {
        let is_service = move |index: usize| {
            let mut users = self.processes.iter().flatten();
            users.any(|p| p.space == index && p.service)
        };
        let spaces = self.spaces.iter().enumerate();
        spaces.filter_map(move |(index, space)| {
            space.as_ref().filter(|_| is_service(index) == service)
        })
    }

    /// Regions of programs: all but those of services, each of which has a space to itself.
    pub(crate) fn program_regions(&self) -> u64 {
        let count = |space: &Space| space.regions.as_slice().len() as u64;
        let services = self.processes.iter().flatten().filter(|p| p.service);
        let services = services.filter_map(|p| self.spaces.get(p.space)?.as_ref());
        self.spaces().map(count).sum::<u64>() - services.map(count).sum::<u64>()
    }

    /// The first service from this slot on, and its space.
    pub(crate) fn next_service(&self, slot: usize) -> Option<(usize, &Space)> {
        let mut slots = self.processes.iter().enumerate().skip(slot);
        slots.find_map(|(slot, process)| {
            let process = process.as_ref().filter(|p| p.service)?;
            Some((slot, self.spaces.get(process.space)?.as_ref()?))
        })
    }

    /// All spaces.
    pub fn spaces(&self) -> impl Iterator<Item = &Space> {
        self.spaces.iter().flatten()
    }

    fn add_space(&mut self, space: Space) -> usize {
        match self.spaces.iter().position(Option::is_none) {
            Some(index) => {
                self.spaces[index] = Some(space);
                index
            }
            None => {
                self.spaces.push(Some(space));
                self.spaces.len() - 1
            }
        }
    }

    /// Drops one user of a space, and the space with its last.
    fn leave_space(&mut self, index: usize) {
        let Some(slot) = self.spaces.get_mut(index) else {
            return;
        };
        if let Some(space) = slot.as_mut().filter(|s| s.users > 1) {
            space.users -= 1;
        } else if let Some(space) = slot.take() {
            space.destroy(&mut self.pool);
        }
    }

    /// Makes a process known, with a space. A dead predecessor in its slot goes.
    fn add_process(&mut self, who: Endpoint, service: bool, space: usize) -> Result<(), Errno> {
        let top = self.spaces[space].as_ref().map(|s| s.top);
        let process = Process {
            endpoint: who,
            space,
            service,
            in_chain: who == Endpoint::VFS,
            physical: Vec::new(),
        };
        *self.processes.get_mut(who.slot()).ok_or(Errno::EINVAL)? = Some(process);
        if service {
            let services = self.spaces_of(true).count() as u32;
            self.pool.frames.keep_for_services(services);
        }
        self.effects.push(Effect::Bind(who, top));
        Ok(())
    }

    fn check_slot(&mut self, who: Endpoint) -> Result<(), Errno> {
        if !who.is_process() || who.slot() >= MAX_PROCESSES || who == Endpoint::VM {
            return Err(Errno::EINVAL);
        }
        if let Some(old) = self.processes[who.slot()].as_ref().map(|p| p.endpoint) {
            self.exit(old);
        }
        Ok(())
    }

    /// An empty space for a new process.
    pub fn new_space(&mut self, who: Endpoint, service: bool) -> Result<(), Errno> {
        self.check_slot(who)?;
        let space = Space::new(&mut self.pool, Limits::default())?;
        let space = self.add_space(space);
        self.add_process(who, service, space)
    }

    /// The space of a forked process.
    pub fn fork(&mut self, parent: Endpoint, child: Endpoint, share: bool) -> Result<(), Errno> {
        let index = self.process(parent).ok_or(Errno::ESRCH)?.space;
        if parent == child {
            return Err(Errno::EINVAL);
        }
        self.check_slot(child)?;
        let space = if share {
            self.spaces[index].as_mut().ok_or(Errno::ESRCH)?.users += 1;
            index
        } else if self.is_short() {
            return Err(Errno::ENOMEM);
        } else {
            let copy = self.copy_space(index)?;
            self.add_space(copy)
        };
        self.add_process(child, false, space)
    }

    fn copy_space(&mut self, index: usize) -> Result<Space, Errno> {
        loop {
            self.pool.frames.set_claim(Claim::Program);
            let space = self.spaces[index].as_mut().ok_or(Errno::ESRCH)?;
            match space.fork(&mut self.pool) {
                Err(NoMemory) if !self.caches_have_some() && self.reclaim() => {}
                copy => return Ok(copy?),
            }
        }
    }

    /// A process is gone: frees its space and cancels what waits for it.
    pub fn exit(&mut self, who: Endpoint) {
        if self.process(who).is_none() {
            return;
        }
        let Some(process) = self.processes[who.slot()].take() else {
            return;
        };
        self.effects.push(Effect::Bind(who, None));
        self.leave_space(process.space);
        self.cancel_jobs(who);
    }

    /// Empties the process's space; one that it shares it leaves for an empty one.
    pub fn clear(&mut self, who: Endpoint) -> Result<(), Errno> {
        let index = self.process(who).ok_or(Errno::EINVAL)?.space;
        let space = self.spaces[index].as_mut().ok_or(Errno::EINVAL)?;
        if space.users == 1 {
            space.clear(&mut self.pool);
            return Ok(());
        }
        let fresh = Space::new(&mut self.pool, space.limits)?;
        let top = fresh.top;
        space.users -= 1;
        let fresh = self.add_space(fresh);
        if let Some(process) = self.process_mut(who) {
            process.space = fresh;
        }
        self.effects.push(Effect::Bind(who, Some(top)));
        Ok(())
    }
}

/// Whether memory of this size can ever be there: the overcommit heuristic of Linux's mode 0.
pub(crate) fn plausible(pool: &Pool, len: u64) -> Result<(), NoMemory> {
    if len / abi::PAGE <= pool.frames.total() as u64 {
        Ok(())
    } else {
        Err(NoMemory)
    }
}
