//! A machine for VM's tests: memory in a vector, processes that fault like hardware, and a
//! VFS with a file system behind it that answers page-ins.

use crate::fault::Access;
use crate::frames::Frames;
use crate::server::{Effect, Server};
use crate::table;
use crate::window::{Frame, Window};
use abi::kernel::{MemoryRequest, PageFault};
use abi::message::request::{Ask, Asker, Called};
use abi::message::{reply_result, transaction};
use abi::proto::{pm, vfs, vm as proto};
use abi::role::Role;
use abi::{Class, Endpoint, Errno, Message, PAGE, Request};
use std::alloc::Layout;
use std::boxed::Box;
use std::collections::{BTreeMap, VecDeque};
use std::vec::Vec;

/// The file system server.
pub const FS: Endpoint = Endpoint::service(Role::FileSystem, 5, 0);
/// The device it serves.
pub const DEV: u64 = 0x100;
/// First program.
pub const INIT: Endpoint = Endpoint::new(20, 1);

/// What byte `offset` of file `ino` is.
pub fn byte(ino: u64, offset: u64) -> u8 {
    (ino * 31 + (offset / PAGE) * 7 + offset % PAGE + 1) as u8
}

pub struct Machine {
    memory: *mut u8,
    layout: Layout,
    frames: *mut Frames,
    pub server: Option<Server>,
    /// Effects that the machine does not perform itself.
    pub seen: VecDeque<Effect>,
    /// Page-ins wait in `held` instead of being answered.
    pub hold: bool,
    pub held: VecDeque<(u64, vfs::PageIn)>,
    /// VFS does not answer that files are on the disk.
    pub hold_syncs: bool,
    /// Files whose pages cannot be read.
    pub broken: Vec<u64>,
    /// VFS has no memory to bring a page.
    pub no_memory: bool,
    /// Page-ins answered without a page.
    pub empty: bool,
    /// Page-ins seen.
    pub page_ins: usize,
    /// The last of them: page, pages before and after it.
    pub asked: (u64, u64, u64),
    /// Pages there are of a file whose neighbours come along.
    pub along: u64,
    /// Messages that gave mapping references back.
    pub closes: usize,
    /// The mapping references that VFS has for VM.
    pub references: BTreeMap<(u64, u64), i64>,
    /// The tables bound to processes.
    pub bound: BTreeMap<Endpoint, Frame>,
    /// Descriptors: number is the inode; access bits.
    pub access: u64,
}

impl Machine {
    pub fn new(mib: u64) -> Machine {
        let bytes = mib << 20;
        let layout = Layout::from_size_align(bytes as usize, 4096).unwrap();
        // SAFETY: the layout is not empty.
        let memory = unsafe { std::alloc::alloc(layout) };
        // Memory is not zero at boot.
        // SAFETY: just allocated with this size.
        unsafe { memory.write_bytes(0xa5, bytes as usize) };
        let mut free = [(0, 0); 8];
        free[0] = (0x10000, 0x20000);
        free[1] = (0x40000, bytes);
        // SAFETY: the memory lives as long as the machine.
        let window = unsafe { Window::new(memory, bytes) };
        // SAFETY: nothing else uses the memory.
        let frames = Box::leak(Box::new(unsafe { Frames::new(window, &free) }.unwrap()));
        let sabotaged = std::env::var(abi::sabotage::VARIABLE).unwrap_or_default();
        if abi::sabotage::of_names(sabotaged.as_bytes()) & abi::sabotage::CLAIM_IGNORED != 0 {
            frames.ignore_claims();
        }
        let frames_pointer: *mut Frames = frames;
        // SAFETY: leaked, taken back when the machine is dropped, after the server.
        let server = Server::new(unsafe { &*frames_pointer }, true);
        let mut machine = Machine {
            memory,
            layout,
            frames: frames_pointer,
            server: Some(server),
            seen: VecDeque::new(),
            hold: false,
            held: VecDeque::new(),
            hold_syncs: false,
            broken: Vec::new(),
            no_memory: false,
            empty: false,
            page_ins: 0,
            asked: (0, 0, 0),
            along: 0,
            closes: 0,
            references: BTreeMap::new(),
            bound: BTreeMap::new(),
            access: 3,
        };
        for (who, service) in [
            (Endpoint::RS, true),
            (Endpoint::PM, true),
            (Endpoint::VFS, true),
            (FS, true),
            (INIT, false),
        ] {
            machine
                .call(Endpoint::RS, proto::NewSpace { who, service })
                .unwrap_or_else(|_| machine.vm().new_space(who, service).unwrap());
        }
        machine
    }

    pub fn vm(&mut self) -> &mut Server {
        self.server.as_mut().unwrap()
    }

    pub fn frames(&self) -> &Frames {
        // SAFETY: lives as long as the machine.
        unsafe { &*self.frames }
    }

    /// Handles a message and what comes of it; the reply to `source`, if there was one.
    pub fn message(&mut self, source: Endpoint, class: Class, message: Message) -> Option<Message> {
        self.vm().handle(source, class, &message);
        self.perform(source)
    }

    fn perform(&mut self, source: Endpoint) -> Option<Message> {
        let mut reply = None;
        loop {
            let mut effects = Vec::new();
            self.vm().take_effects(&mut effects);
            if effects.is_empty() {
                if !self.vm().has_more() {
                    return reply;
                }
                self.vm().settle();
            }
            for effect in effects {
                match effect {
                    Effect::Reply(to, message) if to == source && reply.is_none() => {
                        reply = Some(message);
                    }
                    Effect::Post(Endpoint::VFS, message) => self.vfs(message),
                    Effect::Bind(who, Some(top)) => drop(self.bound.insert(who, top)),
                    Effect::Bind(who, None) => drop(self.bound.remove(&who)),
                    other => self.seen.push_back(other),
                }
            }
        }
    }

    fn vfs(&mut self, message: Message) {
        match message.kind {
            vfs::PageIn::KIND => {
                let request = vfs::PageIn::decode(&message).unwrap();
                self.page_ins += 1;
                let page = request.offset / PAGE;
                self.asked = (page, request.before, request.after);
                let asked = (transaction(&message), request);
                match self.hold {
                    true => self.held.push_back(asked),
                    false => self.answer(asked),
                }
            }
            vfs::FdLookup::KIND => {
                let request = vfs::FdLookup::decode(&message).unwrap();
                let mut done = Ok(());
                let mut found = vfs::FoundFile {
                    dev: DEV,
                    ino: request.fd as u64,
                    access: self.access,
                };
                match request.fd {
                    ..0 => done = Err(Errno::EBADF),
                    1000 => found.dev = u64::MAX,
                    _ => *self.references.entry((DEV, found.ino)).or_insert(0) += 1,
                }
                let answer = done.map(|()| found);
                self.answered::<vfs::FdLookup>(transaction(&message), answer);
            }
            vfs::MapClose::KIND => {
                let request = vfs::MapClose::decode(&message).unwrap();
                self.closes += 1;
                for gone in request.files {
                    let file = (request.dev, gone.ino);
                    if gone.count > 0 {
                        *self.references.get_mut(&file).unwrap() -= gone.count as i64;
                    }
                }
            }
            vfs::SyncFile::KIND if !self.hold_syncs => {
                self.answered::<vfs::SyncFile>(transaction(&message), Ok(()));
            }
            _ => self.seen.push_back(Effect::Post(Endpoint::VFS, message)),
        }
    }

    /// Brings a page in as a file system does, unless told to fail.
    pub fn answer(&mut self, (txn, request): (u64, vfs::PageIn)) {
        let status = if self.broken.contains(&request.ino) {
            Err(Errno::EIO)
        } else if self.no_memory {
            Err(Errno::ENOMEM)
        } else {
            if !self.empty {
                let page = request.offset / PAGE;
                let end = (page + request.after + 1).min(self.along);
                let pages = page - request.before..end;
                let others = pages.filter(|&other| other != page);
                [page]
                    .into_iter()
                    .chain(others)
                    .for_each(|page| self.cache(request.ino, page * PAGE));
            }
            Ok(())
        };
        self.answered::<vfs::PageIn>(txn, status);
    }

    /// VFS answers VM's question `txn`.
    fn answered<R: Request<How = Ask>>(&mut self, txn: u64, result: Result<R::Reply, Errno>) {
        let answer = answer::<R>(txn, result);
        self.vm().handle(Endpoint::VFS, Class::Post, &answer);
    }

    /// The file system puts a page into the cache and lets go of it.
    pub fn cache(&mut self, ino: u64, offset: u64) {
        let page = self.fs_page();
        let frame = table::frame(self.entry(FS, page));
        let bytes: Vec<u8> = (0..PAGE).map(|n| byte(ino, offset + n)).collect();
        self.frames().window().write(frame, 0, &bytes);
        let set = proto::CacheSet {
            addr: page,
            dev: DEV,
            ino,
            offset,
        };
        self.typed(FS, set).unwrap();
        self.typed(FS, proto::CacheRelease { addr: page }).unwrap();
    }

    /// A page of the file system's, in one place for all.
    pub fn fs_page(&mut self) -> u64 {
        const AT: u64 = 0x10_0000;
        let map = proto::Mmap {
            target: Endpoint::SELF,
            addr: AT,
            len: PAGE,
            prot: proto::Prot::READ | proto::Prot::WRITE,
            flags: proto::MapFlags::FIXED | proto::MapFlags::PREALLOC,
        };
        if self.entry(FS, AT) == 0 {
            self.typed(FS, map).unwrap();
        }
        AT
    }

    /// A call whose effects wait for the outer `perform`.
    fn typed<R: Request<How: Called>>(
        &mut self,
        source: Endpoint,
        request: R,
    ) -> Result<R::Reply, Errno> {
        let mut before = Vec::new();
        self.vm().take_effects(&mut before);
        self.vm().handle(source, Class::Call, &request.encode());
        let mut after = Vec::new();
        self.vm().take_effects(&mut after);
        let mut result = Err(Errno::EIO);
        for effect in after.drain(..) {
            match effect {
                Effect::Reply(to, message) if to == source => result = reply_result(&message),
                other => before.push(other),
            }
        }
        for effect in before {
            match effect {
                Effect::Post(Endpoint::VFS, message) => self.vfs(message),
                other => self.seen.push_back(other),
            }
        }
        result
    }

    pub fn call<R: Request<How: Called>>(
        &mut self,
        source: Endpoint,
        request: R,
    ) -> Result<R::Reply, Errno> {
        let reply = self.message(source, Class::Call, request.encode());
        reply_result(&reply.ok_or(Errno::EIO)?)
    }

    /// A Linux call; `None` when it waits.
    pub fn linux(
        &mut self,
        who: Endpoint,
        number: u32,
        args: &[u64],
    ) -> Option<Result<u64, Errno>> {
        let mut message = Message::new(number as u64);
        message.words[..args.len()].copy_from_slice(args);
        let reply = self.message(who, Class::Linux, message)?;
        Some(abi::errno::result_from_word(reply.kind))
    }

    pub fn memory_request(&mut self, request: MemoryRequest) {
        self.vm().handle_memory_request(&request);
        assert!(self.perform(Endpoint::NONE).is_none());
    }

    /// What VM wanted done since is done.
    pub fn settle(&mut self) {
        self.perform(Endpoint::NONE);
    }

    /// Answers what was held, and handles what comes of it.
    pub fn release(&mut self) {
        while let Some(request) = self.held.pop_front() {
            self.answer(request);
            self.perform(Endpoint::NONE);
        }
    }

    pub fn entry(&self, who: Endpoint, address: u64) -> u64 {
        match self.bound.get(&who) {
            Some(&top) => table::get(self.frames(), top, address),
            None => 0,
        }
    }

    /// One access as the processor does it: faults until it succeeds. The signal when it
    /// does not; 0 when it waits.
    pub fn access(&mut self, who: Endpoint, address: u64, access: Access) -> Result<Frame, i32> {
        for _ in 0..4 {
            let entry = self.entry(who, address);
            let fits = match access {
                Access::Read => true,
                Access::Write => entry & table::WRITE != 0,
                Access::Execute => entry & table::NO_EXECUTE == 0,
                Access::Fill => true,
            };
            if entry & table::PRESENT != 0 && fits {
                return Ok(table::frame(entry));
            }
            let code = 4
                | (entry & table::PRESENT)
                | ((access == Access::Write) as u64) << 1
                | ((access == Access::Execute) as u64) << 4;
            let fault = PageFault {
                address,
                code,
                rip: 0x40_1000,
            };
            let mut message = Message::new(0);
            message.words = fault.to_words();
            match self.message(who, Class::PageFault, message) {
                None => return Err(0),
                Some(reply) if reply.kind == 0 => continue,
                Some(_) => return Err(self.signal(who)),
            }
        }
        panic!("access to {address:#x} makes no progress");
    }

    /// The signal that PM was told last for `who`.
    pub fn signal(&mut self, who: Endpoint) -> i32 {
        while let Some(effect) = self.seen.pop_front() {
            if let Effect::Post(Endpoint::PM, message) = effect {
                let signal = pm::FaultSignal::decode(&message).unwrap();
                assert_eq!(signal.who, who);
                return signal.signal;
            }
        }
        panic!("no signal");
    }

    pub fn read(&mut self, who: Endpoint, address: u64) -> Result<u8, i32> {
        let frame = self.access(who, address, Access::Read)?;
        let mut value = [0];
        let offset = (address % PAGE) as usize;
        self.frames().window().read(frame, offset, &mut value);
        Ok(value[0])
    }

    pub fn write(&mut self, who: Endpoint, address: u64, value: u8) -> Result<(), i32> {
        let frame = self.access(who, address, Access::Write)?;
        let offset = (address % PAGE) as usize;
        self.frames().window().write(frame, offset, &[value]);
        // As the processor does.
        let dirty = self.entry(who, address) | table::DIRTY;
        if let Some(leaf) = table::leaf(self.frames(), self.bound[&who], address) {
            table::set_in(self.frames(), leaf, address, dirty);
        }
        Ok(())
    }

    /// Frames that nobody but VM itself could free: must return to what it was.
    pub fn in_use(&self) -> u32 {
        self.frames().total() - self.frames().free()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.server = None;
        // SAFETY: the server, the only user of the frames, is gone; both were made in `new`.
        unsafe {
            drop(Box::from_raw(self.frames));
            std::alloc::dealloc(self.memory, self.layout);
        }
    }
}

/// The answer to VM's question `txn`.
pub fn answer<R: Request<How = Ask>>(txn: u64, result: Result<R::Reply, Errno>) -> Message {
    let asker = Asker::of::<R>(Endpoint::VM, txn);
    asker
        .answer(result)
        .expect("a question that wants an answer")
}
