//! The world the tests run VFS in.

use super::filesystem::MemoryFs;
use super::hostile::Dice;
use crate::context::Ids;
use crate::machine::{Lent, Machine, Processor, Sample};
use crate::process::{Directories, Process};
use crate::state::Vfs;
use abi::errno::result_from_word;
use abi::grant::{Access, GRANT_INVALID, ToRead, ToWrite};
use abi::message::request::{Ask, Asker};
use abi::message::{answer_result, transaction};
use abi::proto::{vfs, vm};
use abi::role::Role;
use abi::senders::Refusal;
use abi::{Class, Endpoint, Errno, Message, PAGE, Request, page_down};
use rt::task::Executor;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Arguments;
use std::rc::Rc;
use std::vec::Vec;

pub const FS: Endpoint = Endpoint::service(Role::FileSystem, 8, 0);
pub const DRIVER: Endpoint = Endpoint::service(Role::Console, 9, 0);
pub const PROGRAM: Endpoint = Endpoint::new(20, 0);
pub const OTHER: Endpoint = Endpoint::new(21, 0);
pub const PROC: Endpoint = Endpoint::service(Role::Proc, 10, 0);

/// A page of a process.
#[derive(Clone)]
pub struct Page {
    pub bytes: Vec<u8>,
    pub present: bool,
    pub writable: bool,
    /// Times that a repair of it does not last.
    pub flaky: u32,
}

struct GrantEntry {
    to: Endpoint,
    subject: Option<Endpoint>,
    address: u64,
    len: u64,
    access: Access,
    faulted: bool,
}

/// The machine: memory, grants, and what VFS sent.
#[derive(Default)]
pub struct Fake {
    pub pages: RefCell<BTreeMap<(Endpoint, u64), Page>>,
    grants: RefCell<BTreeMap<i32, GrantEntry>>,
    next_grant: Cell<i32>,
    pub posts: RefCell<VecDeque<(Endpoint, Message)>>,
    pub replies: RefCell<Vec<(Endpoint, Message)>>,
    pub vm_calls: RefCell<Vec<Message>>,
    pub vm_fails: Cell<Option<(u64, Errno)>>,
    pub time: Cell<u64>,
    pub timer: Cell<u64>,
    pub soft_faults: Cell<u64>,
    pub run: RefCell<Vec<u8>>,
}

impl Fake {
    /// Copies between memory of a process and a buffer, as the kernel with TRY does.
    fn copy(
        &self,
        who: Endpoint,
        address: u64,
        len: usize,
        mut each: impl FnMut(&mut u8, usize),
        write: bool,
    ) -> Result<(), Errno> {
        let mut pages = self.pages.borrow_mut();
        for i in 0..len {
            let at = address.wrapping_add(i as u64);
            let page = pages.get_mut(&(who, page_down(at)));
            match page {
                Some(page) if page.present && (page.writable || !write) => {
                    each(&mut page.bytes[(at % PAGE) as usize], i);
                }
                _ => {
                    self.soft_faults.set(self.soft_faults.get() + 1);
                    return Err(Errno::EFAULT);
                }
            }
        }
        Ok(())
    }

    fn grant(
        &self,
        by: Endpoint,
        id: i32,
        access: Access,
        offset: u64,
        len: usize,
    ) -> (Option<Endpoint>, u64) {
        let grants = self.grants.borrow();
        let entry = grants.get(&id).expect("a grant in use");
        assert_eq!(entry.to, by);
        assert!(entry.access == access || entry.access == Access::Both);
        assert!(offset + len as u64 <= entry.len, "copy beyond the grant");
        (entry.subject, entry.address + offset)
    }

    fn mark(&self, id: i32, result: Result<(), Errno>) -> Result<(), Errno> {
        if result.is_err() {
            self.grants.borrow_mut().get_mut(&id).unwrap().faulted = true;
        }
        result
    }

    /// A server copies to a grant of VFS.
    pub fn copy_to_grant(
        &self,
        by: Endpoint,
        to: ToWrite,
        offset: u64,
        data: &[u8],
    ) -> Result<(), Errno> {
        let id = to.id();
        let (subject, at) = self.grant(by, id, Access::Write, offset, data.len());
        match subject {
            Some(who) => {
                let result = self.copy(who, at, data.len(), |byte, i| *byte = data[i], true);
                self.mark(id, result)
            }
            None => {
                // SAFETY: VFS granted this memory of its own and waits for the answer.
                unsafe { core::ptr::copy_nonoverlapping(data.as_ptr(), at as *mut u8, data.len()) };
                Ok(())
            }
        }
    }

    /// A server copies from a grant of VFS.
    pub fn copy_from_grant(
        &self,
        by: Endpoint,
        to: ToRead,
        offset: u64,
        data: &mut [u8],
    ) -> Result<(), Errno> {
        let id = to.id();
        let (subject, at) = self.grant(by, id, Access::Read, offset, data.len());
        match subject {
            Some(who) => {
                let len = data.len();
                let result = self.copy(who, at, len, |byte, i| data[i] = *byte, false);
                self.mark(id, result)
            }
            None => {
                // SAFETY: as above.
                unsafe {
                    core::ptr::copy_nonoverlapping(at as *const u8, data.as_mut_ptr(), data.len())
                };
                Ok(())
            }
        }
    }

    pub fn map(&self, who: Endpoint, address: u64, len: u64, present: bool, writable: bool) {
        for page in (page_down(address)..address + len).step_by(PAGE as usize) {
            let bytes = std::vec![0; PAGE as usize];
            let page_state = Page {
                bytes,
                present,
                writable,
                flaky: 0,
            };
            self.pages.borrow_mut().insert((who, page), page_state);
        }
    }

    pub fn poke(&self, who: Endpoint, address: u64, data: &[u8]) {
        for (i, byte) in data.iter().enumerate() {
            let at = address + i as u64;
            let mut pages = self.pages.borrow_mut();
            pages.get_mut(&(who, page_down(at))).unwrap().bytes[(at % PAGE) as usize] = *byte;
        }
    }

    pub fn peek(&self, who: Endpoint, address: u64, len: usize) -> Vec<u8> {
        let pages = self.pages.borrow();
        (address..address + len as u64)
            .map(|at| pages[&(who, page_down(at))].bytes[(at % PAGE) as usize])
            .collect()
    }

    pub fn set_present(&self, who: Endpoint, address: u64, present: bool) {
        self.pages
            .borrow_mut()
            .get_mut(&(who, page_down(address)))
            .unwrap()
            .present = present;
    }

    /// VM's handle-memory.
    fn handle_memory(&self, r: &vm::HandleMemory, good: &mut u64) -> Result<(), Errno> {
        let mut pages = self.pages.borrow_mut();
        for at in (page_down(r.addr)..r.addr + r.len).step_by(PAGE as usize) {
            let page = pages.get_mut(&(r.who, at)).ok_or(Errno::EFAULT)?;
            if r.write && !page.writable {
                return Err(Errno::EFAULT);
            }
            if page.flaky > 0 {
                page.flaky -= 1;
            } else {
                page.present = true;
            }
            *good = (at + PAGE - r.addr).min(r.len);
        }
        Ok(())
    }
}

impl Machine for Fake {
    fn sabotaged(&self, defect: u64) -> bool {
        let names = std::env::var(abi::sabotage::VARIABLE).unwrap_or_default();
        abi::sabotage::of_names(names.as_bytes()) & defect != 0
    }
    fn post(&self, to: Endpoint, message: Message) {
        self.posts.borrow_mut().push_back((to, message));
    }
    fn reply(&self, to: Endpoint, message: Message) {
        self.replies.borrow_mut().push((to, message));
    }
    fn call_vm(&self, message: Message) -> Result<Message, Errno> {
        self.vm_calls.borrow_mut().push(message);
        if let Some((kind, errno)) = self.vm_fails.get()
            && kind == message.kind
        {
            return Ok(Message::error(errno));
        }
        if message.kind == vm::Mmap::KIND {
            let r = vm::Mmap::decode(&message).unwrap();
            self.map(r.target, r.addr, r.len, true, true);
        }
        if message.kind == vm::ProcCtl::KIND {
            let r = vm::ProcCtl::decode(&message).unwrap();
            self.pages.borrow_mut().retain(|(who, _), _| *who != r.who);
        }
        Ok(Message::new(0))
    }
    fn call_vm_all(&self, messages: &[Message]) -> (usize, Result<(), Errno>) {
        for (done, &message) in messages.iter().enumerate() {
            let reply = self.call_vm(message).unwrap();
            if let Err(errno) = result_from_word(reply.kind) {
                return (done, Err(errno));
            }
        }
        (messages.len(), Ok(()))
    }
    fn lend<'a>(&self, to: Endpoint, data: &'a [u8]) -> Result<Lent<'a>, Errno> {
        let (at, len) = (data.as_ptr() as u64, data.len() as u64);
        self.add_grant(to, None, at, len, Access::Read)
            .map(Lent::new)
    }
    fn lend_cells<'a>(
        &self,
        to: Endpoint,
        buffer: &'a [Cell<u8>],
        access: Access,
    ) -> Result<Lent<'a>, Errno> {
        let (at, len) = (buffer.as_ptr() as u64, buffer.len() as u64);
        self.add_grant(to, None, at, len, access).map(Lent::new)
    }
    fn grant_user(
        &self,
        to: Endpoint,
        subject: Endpoint,
        address: u64,
        len: u64,
        access: Access,
    ) -> Result<Lent<'static>, Errno> {
        self.add_grant(to, Some(subject), address, len, access)
            .map(Lent::new)
    }
    fn revoke(&self, grant: i32) -> bool {
        assert_ne!(grant, GRANT_INVALID);
        self.grants
            .borrow_mut()
            .remove(&grant)
            .expect("revoked once")
            .faulted
    }
    fn grants(&self) -> usize {
        self.grants.borrow().len()
    }
    fn try_read(&self, from: Endpoint, address: u64, buffer: &mut [u8]) -> Result<(), Errno> {
        self.copy(
            from,
            address,
            buffer.len(),
            |byte, i| buffer[i] = *byte,
            false,
        )
    }
    fn try_write(&self, to: Endpoint, address: u64, data: &[u8]) -> Result<(), Errno> {
        self.copy(to, address, data.len(), |byte, i| *byte = data[i], true)
    }
    fn read_grant(&self, _: Endpoint, _: ToRead, _: &mut [u8]) -> Result<(), Errno> {
        Err(Errno::EPERM)
    }
    fn write_grant(&self, _: Endpoint, _: ToWrite, _: &[u8]) -> Result<(), Errno> {
        Err(Errno::EPERM)
    }
    fn now(&self) -> u64 {
        self.time.get()
    }
    fn wall_clock(&self) -> u64 {
        1_000_000_000
    }
    fn set_timer(&self, deadline: u64) {
        self.timer.set(deadline);
    }
    fn run_specification(&self) -> Result<Vec<u8>, Errno> {
        Ok(self.run.borrow().clone())
    }
    fn processor(&self) -> Processor {
        Processor::default()
    }
    /// Looking takes 5 ns. VM used the first half of the time since boot.
    fn sample(&self) -> Sample {
        let before = self.time.get();
        self.time.set(before + 5);
        let mut sample = Sample {
            before,
            after: before + 5,
            ..Sample::default()
        };
        sample.used[Endpoint::VM.slot()] = before / 2;
        sample
    }
    fn process_name(&self, slot: usize) -> [u8; 16] {
        let mut name = [0; 16];
        name[..2].copy_from_slice(if slot == Endpoint::VM.slot() {
            b"vm"
        } else {
            b"fs"
        });
        name
    }
    fn log(&self, _: Arguments<'_>) {}
}

impl Fake {
    fn add_grant(
        &self,
        to: Endpoint,
        subject: Option<Endpoint>,
        address: u64,
        len: u64,
        access: Access,
    ) -> Result<i32, Errno> {
        let id = self.next_grant.get();
        self.next_grant.set(id + 1);
        let entry = GrantEntry {
            to,
            subject,
            address,
            len,
            access,
            faulted: false,
        };
        self.grants.borrow_mut().insert(id, entry);
        Ok(id)
    }
}

/// VFS with a root file system and one process.
pub struct World {
    pub fake: Rc<Fake>,
    pub vfs: Rc<Vfs>,
    pub fs: MemoryFs,
    pub executor: Executor,
    /// Posts to others than the file system and VM.
    pub others: Vec<(Endpoint, Message)>,
    /// Repairs VM was asked for.
    pub repairs: Vec<(u64, u64, bool)>,
    /// The file system does not answer while this is set.
    pub fs_held: bool,
    /// Chance answers in place of the file system while this is set.
    pub lies: Option<Dice>,
}

/// Where calls put their paths.
pub const PATHS: u64 = 0x10000;
/// Where calls put their data.
pub const DATA: u64 = 0x20000;

impl World {
    pub fn new() -> World {
        World::with(MemoryFs::new())
    }

    pub fn with(fs: MemoryFs) -> World {
        let fake = Rc::new(Fake::default());
        let executor = Executor::new();
        let machine: Rc<dyn Machine> = fake.clone();
        let vfs = Vfs::new(machine, executor.spawner());
        let mut world = World {
            fake,
            vfs,
            fs,
            executor,
            others: Vec::new(),
            repairs: Vec::new(),
            fs_held: false,
            lies: None,
        };
        let mount = vfs::Mount {
            fs: FS,
            path: *b"/\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
            flags: 0,
            kind: *b"ext2\0\0\0\0",
        };
        world.ask(Endpoint::RS, 1, mount);
        let mounted = world.answer_to::<vfs::Mount>(Endpoint::RS);
        let mounted = mounted.expect("an answer").1.expect("a mount");
        assert_ne!(mounted.dev, 0);
        world.add_process(PROGRAM, 1, Ids::default());
        world
    }

    pub fn add_process(&mut self, who: Endpoint, pid: u32, ids: Ids) {
        let root = self.vfs.root_mount().unwrap().root().unwrap();
        let at = Directories {
            cwd: root.clone(),
            root,
            umask: 0o022,
        };
        let files = crate::fd::FdTable::new(
            self.vfs.base.counters.unique(),
            &self.vfs.base.accounts.work,
        );
        let process = Process::new(who, pid, ids, files, at);
        let _ = self.vfs.processes.borrow_mut().insert(process).unwrap();
        self.fake.map(who, PATHS, 0x4000, true, true);
        self.fake.map(who, DATA, 0x10000, true, true);
    }

    pub fn deliver(&mut self, from: Endpoint, class: Class, message: Message) -> Option<Refusal> {
        let refused = self.vfs.message(from, class, &message);
        self.settle();
        refused
    }

    /// A server asks VFS as its question `txn`.
    pub fn ask<R: Request<How = Ask>>(&mut self, from: Endpoint, txn: u64, request: R) {
        self.deliver(from, Class::Post, request.ask(txn));
    }

    /// The first answer to `R` that VFS has given to `who`, and the question's number.
    pub fn answer_to<R: Request<How = Ask>>(
        &mut self,
        who: Endpoint,
    ) -> Option<(u64, Result<R::Reply, Errno>)> {
        let answers = |(to, message): &(Endpoint, Message)| *to == who && message.kind == R::ANSWER;
        let index = self.others.iter().position(answers)?;
        let (_, message) = self.others.remove(index);
        Some((transaction(&message), answer_result::<R>(&message)))
    }

    /// The last that VFS has asked somebody, who was to be `who`.
    pub fn asked<R: Request<How = Ask>>(&mut self, who: Endpoint) -> (u64, R) {
        let (to, message) = self.others.pop().expect("a question");
        assert_eq!(to, who);
        (
            transaction(&message),
            R::decode(&message).expect("such a question"),
        )
    }

    /// A server answers VFS's question `txn`.
    pub fn answer<R: Request<How = Ask>>(
        &mut self,
        from: Endpoint,
        txn: u64,
        result: Result<R::Reply, Errno>,
    ) {
        self.deliver(from, Class::Post, answer::<R>(txn, result));
    }

    /// Runs until nothing moves any more.
    pub fn settle(&mut self) {
        loop {
            self.executor.run();
            let Some((to, message)) = self.fake.posts.borrow_mut().pop_front() else {
                return;
            };
            match to {
                FS if self.fs_held => {
                    self.others.push((to, message));
                }
                FS => {
                    let answer = match &mut self.lies {
                        Some(dice) => dice.answer(&self.fake, FS, &message),
                        None => self.fs.handle(&self.fake, FS, &message),
                    };
                    if let Some(done) = answer {
                        self.vfs.message(FS, Class::Post, &done);
                    }
                }
                Endpoint::VM if message.kind == vm::HandleMemory::KIND => {
                    let r = vm::HandleMemory::decode(&message).unwrap();
                    self.repairs.push((r.addr, r.len, r.write));
                    let mut good = 0;
                    let status = self.fake.handle_memory(&r, &mut good);
                    let present = match status {
                        Err(errno) if good == 0 => Err(errno),
                        status => Ok(vm::Present { good, status }),
                    };
                    let answer = answer::<vm::HandleMemory>(transaction(&message), present);
                    self.vfs.message(Endpoint::VM, Class::Post, &answer);
                }
                _ => self.others.push((to, message)),
            }
        }
    }

    pub fn reply_of(&mut self, who: Endpoint) -> Option<Result<u64, Errno>> {
        let mut replies = self.fake.replies.borrow_mut();
        let i = replies.iter().position(|(to, _)| *to == who)?;
        Some(result_from_word(replies.remove(i).1.kind))
    }

    /// Starts a Linux call; its result if it has ended.
    pub fn start(
        &mut self,
        who: Endpoint,
        number: u32,
        args: [u64; 6],
    ) -> Option<Result<u64, Errno>> {
        let mut message = Message::new(u64::from(number));
        message.words[..6].copy_from_slice(&args);
        self.deliver(who, Class::Linux, message);
        self.reply_of(who)
    }

    /// A Linux call of the program that must end.
    pub fn call(&mut self, number: u32, args: &[u64]) -> Result<u64, Errno> {
        self.call_as(PROGRAM, number, args)
    }

    pub fn call_as(&mut self, who: Endpoint, number: u32, args: &[u64]) -> Result<u64, Errno> {
        let mut all = [0; 6];
        all[..args.len()].copy_from_slice(args);
        self.start(who, number, all).expect("the call ends")
    }

    /// Puts a string where the program has it; its address.
    pub fn string(&mut self, index: u64, text: &str) -> u64 {
        let at = PATHS + index * 0x1000;
        self.fake.poke(PROGRAM, at, text.as_bytes());
        self.fake.poke(PROGRAM, at + text.len() as u64, &[0]);
        at
    }

    pub fn data(&self, len: usize) -> Vec<u8> {
        self.fake.peek(PROGRAM, DATA, len)
    }
}

/// The answer to VFS's question `txn`.
pub fn answer<R: Request<How = Ask>>(txn: u64, result: Result<R::Reply, Errno>) -> Message {
    let asker = Asker::of::<R>(Endpoint::VFS, txn);
    asker
        .answer(result)
        .expect("a question that wants an answer")
}
