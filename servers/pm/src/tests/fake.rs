//! A world for PM: processes with registers and memory, servers that answer, a clock.

use crate::server::{Boot, Pm};
use crate::system::System;
use abi::errno::result_to_word;
use abi::grant::{ToRead, ToWrite};
use abi::kernel::{KernelNotify, ProcessInfo, Registers, StopState};
use abi::message::request::{Ask, Asker, Called, Post};
use abi::message::{answer_result, reply_message, reply_result, transaction};
use abi::proto::{pm, terminal, vfs, vm};
use abi::role::Role;
use abi::{Class, Endpoint, Errno, Fields, Message, Request};
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use std::collections::{BTreeMap, BTreeSet};

/// Where a process is with its Linux call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum At {
    /// In its own code.
    Home,
    /// In a call at this server.
    Server(Endpoint),
    /// At a fault or an exception.
    Fault,
}

#[derive(Clone, Debug)]
pub struct Body {
    pub registers: Registers,
    pub fpu: Vec<u8>,
    pub stopped: bool,
    pub at: At,
    pub tell: bool,
    /// Address space, shared by threads.
    pub space: u32,
}

#[derive(Default)]
pub struct Fake {
    pub now: u64,
    pub timer: u64,
    pub bodies: BTreeMap<u32, Body>,
    pub memory: BTreeMap<(u32, u64), u8>,
    /// Pages that only a waiting copy reaches.
    pub absent: BTreeSet<(u32, u64)>,
    /// Pages of objects that others map, too, by space and page: inode and page of it.
    pub shared: BTreeMap<(u32, u64), (u64, u64)>,
    /// Nothing is mapped from here on.
    pub limit: u64,
    pub calls: Vec<(&'static str, Message)>,
    pub posts: Vec<(&'static str, Message)>,
    pub waits: usize,
    pub news: Vec<Endpoint>,
    pub fail: Option<(Endpoint, &'static str)>,
    pub log: Vec<String>,
    pub off: Option<u64>,
    next_slot: usize,
    next_space: u32,
}

pub const FPU_BYTES: usize = 832;

impl Fake {
    fn new_body(&mut self, registers: Registers, fpu: Vec<u8>) -> Endpoint {
        let who = Endpoint::new(32 + self.next_slot, 0);
        self.next_slot += 1;
        self.next_space += 1;
        let body = Body {
            registers,
            fpu,
            stopped: true,
            at: At::Home,
            tell: false,
            space: self.next_space,
        };
        self.bodies.insert(who.0, body);
        who
    }

    pub fn body(&mut self, who: Endpoint) -> &mut Body {
        self.bodies.get_mut(&who.0).expect("a living process")
    }

    fn copy(&mut self, who: Endpoint, address: u64, len: usize, wait: bool) -> Result<u32, Errno> {
        let space = self.bodies.get(&who.0).ok_or(Errno::ESRCH)?.space;
        if address.saturating_add(len as u64) > self.limit || address < 0x1000 {
            return Err(Errno::EFAULT);
        }
        for page in address >> 12..=(address + len as u64) >> 12 {
            if self.absent.contains(&(space, page)) {
                if !wait {
                    return Err(Errno::EFAULT);
                }
                self.waits += 1;
                self.absent.remove(&(space, page));
            }
        }
        Ok(space)
    }
}

impl System for Fake {
    fn call<R: Request<How: Called>>(
        &mut self,
        to: Endpoint,
        request: R,
    ) -> Result<R::Reply, Errno> {
        let message = request.encode();
        self.calls.push((R::NAME, message));
        if self.fail == Some((to, R::NAME)) {
            return Err(Errno::ENOMEM);
        }
        if let Some(fork) = vm::Fork::decode(&message).filter(|_| R::KIND == vm::Fork::KIND) {
            let parent = self.body(fork.parent).space;
            if fork.share {
                self.body(fork.child).space = parent;
            } else {
                let child = self.body(fork.child).space;
                let bytes: Vec<_> = self
                    .memory
                    .range((parent, 0)..(parent + 1, 0))
                    .map(|(&(_, address), &byte)| ((child, address), byte))
                    .collect();
                self.memory.extend(bytes);
            }
        }
        if let Some(r) = vm::ObjectAt::decode(&message).filter(|_| R::KIND == vm::ObjectAt::KIND) {
            let space = self.body(r.who).space;
            let object = match self.shared.get(&(space, r.address >> 12)) {
                Some(&(ino, page)) => vm::Object {
                    dev: 1,
                    ino,
                    offset: page << 12 | r.address & 0xfff,
                },
                None => vm::Object {
                    dev: vm::PRIVATE_OBJECT,
                    ino: 0,
                    offset: r.address,
                },
            };
            return reply_result(&reply_message(Ok(object)));
        }
        // A reply of zeros.
        reply_result(&Message::new(0))
    }
    fn post<R: Request<How = Post>>(&mut self, _: Endpoint, request: R) {
        self.posts.push((R::NAME, request.encode()));
    }
    fn ask<R: Request<How = Ask>>(&mut self, _: Endpoint, txn: u64, request: R) {
        self.posts.push((R::NAME, request.ask(txn)));
    }
    fn answer<T: Fields>(&mut self, asker: Asker<T>, result: Result<T, Errno>) {
        self.posts
            .extend(asker.answer(result).map(|message| ("answer", message)));
    }
    fn reply(&mut self, to: Endpoint, message: Message) {
        let Some(body) = self.bodies.get_mut(&to.0) else {
            return;
        };
        match body.at {
            At::Home => return,
            At::Server(_) => body.registers.rax = message.kind,
            At::Fault => body.stopped |= message.kind != 0,
        }
        body.at = At::Home;
        if core::mem::take(&mut body.tell) {
            body.stopped = true;
            self.news.push(to);
        }
    }
    fn set_groups(&mut self, _: Endpoint, _: &[u32]) -> Result<(), Errno> {
        Ok(())
    }
    fn now(&mut self) -> u64 {
        self.now
    }
    fn set_timer(&mut self, deadline: u64) {
        self.timer = deadline;
    }
    fn create(&mut self, _: &str) -> Result<Endpoint, Errno> {
        Ok(self.new_body(Registers::default(), vec![0; FPU_BYTES]))
    }
    fn fork(&mut self, parent: Endpoint) -> Result<Endpoint, Errno> {
        let parent = self.body(parent).clone();
        let registers = Registers {
            rax: 0,
            orig_rax: u64::MAX,
            ..parent.registers
        };
        Ok(self.new_body(registers, parent.fpu))
    }
    fn destroy(&mut self, who: Endpoint) {
        self.bodies.remove(&who.0);
    }
    fn start(&mut self, who: Endpoint, pc: u64, sp: u64) -> Result<(), Errno> {
        let body = self.body(who);
        body.registers = Registers {
            rip: pc,
            rsp: sp,
            orig_rax: u64::MAX,
            ..Default::default()
        };
        (body.stopped, body.at) = (false, At::Home);
        Ok(())
    }
    fn stop(&mut self, who: Endpoint) -> Result<(StopState, Endpoint), Errno> {
        let body = self.bodies.get_mut(&who.0).ok_or(Errno::ESRCH)?;
        body.stopped = true;
        Ok(match body.at {
            At::Home => (StopState::Boundary, Endpoint(0)),
            At::Fault => (StopState::Faulting, Endpoint(0)),
            At::Server(server) => {
                body.tell = true;
                (StopState::Busy, server)
            }
        })
    }
    fn resume(&mut self, who: Endpoint, how: u64) {
        let body = self.body(who);
        (body.stopped, body.tell) = (false, how & abi::kernel::resume::EXIT != 0);
    }
    fn next_stopped(&mut self) -> Option<Endpoint> {
        self.news.pop()
    }
    fn registers(&mut self, who: Endpoint) -> Result<Registers, Errno> {
        Ok(self.body(who).registers)
    }
    fn set_registers(&mut self, who: Endpoint, registers: &Registers) -> Result<(), Errno> {
        self.body(who).registers = *registers;
        Ok(())
    }
    fn fpu(&mut self, who: Endpoint) -> Result<Vec<u8>, Errno> {
        Ok(self.body(who).fpu.clone())
    }
    fn set_fpu(&mut self, who: Endpoint, area: &[u8]) -> Result<(), Errno> {
        self.body(who).fpu = area.to_vec();
        Ok(())
    }
    fn sabotaged(&self, defect: u64) -> bool {
        let names = std::env::var(abi::sabotage::VARIABLE).unwrap_or_default();
        abi::sabotage::of_names(names.as_bytes()) & defect != 0
    }
    fn xfeatures(&mut self) -> u64 {
        7
    }
    fn info(&mut self, slot: usize) -> Option<ProcessInfo> {
        let who = Endpoint::new(slot, 0);
        self.bodies.get(&who.0).map(|_| ProcessInfo {
            endpoint: who.0,
            cpu_ns: 1_000_000,
            ..Default::default()
        })
    }
    fn set_name(&mut self, _: Endpoint, _: [u8; 16]) {}
    fn read(
        &mut self,
        who: Endpoint,
        address: u64,
        buffer: &mut [u8],
        wait: bool,
    ) -> Result<(), Errno> {
        let space = self.copy(who, address, buffer.len(), wait)?;
        for (i, byte) in buffer.iter_mut().enumerate() {
            let key = (space, address + i as u64);
            *byte = self.memory.get(&key).copied().unwrap_or(0);
        }
        Ok(())
    }
    fn write(
        &mut self,
        who: Endpoint,
        address: u64,
        buffer: &[u8],
        wait: bool,
    ) -> Result<(), Errno> {
        let space = self.copy(who, address, buffer.len(), wait)?;
        for (i, &byte) in buffer.iter().enumerate() {
            self.memory.insert((space, address + i as u64), byte);
        }
        Ok(())
    }
    fn fetch(&mut self, _: Endpoint, _: ToRead, _: &mut [u8]) -> Result<(), Errno> {
        Ok(())
    }
    fn store(&mut self, _: Endpoint, _: ToWrite, _: &[u8]) -> Result<(), Errno> {
        Ok(())
    }
    fn log(&mut self, text: core::fmt::Arguments<'_>) {
        self.log.push(text.to_string());
    }
    fn power_off(&mut self, status: u64) {
        self.off = Some(status);
    }
}

/// PM in its world.
pub struct World {
    pub pm: Pm<Fake>,
    /// Messages that PM has refused.
    pub refused: u64,
}

/// Where PROGRAM starts.
pub const START: u64 = 0x40_0000;
/// Its stack.
pub const STACK: u64 = 0x7fff_0000_0000;
/// A place for structures.
pub const DATA: u64 = 0x60_0000;

impl World {
    /// PROGRAM runs.
    pub fn new() -> (World, Endpoint) {
        let boot = Boot {
            epoch_ns: 1_000_000_000_000_000_000,
            verbose: true,
            program: "/bin/true".into(),
            console: Some(Endpoint::service(Role::Console, 6, 0)),
            ..Boot::default()
        };
        let fake = Fake {
            limit: 1 << 47,
            ..Fake::default()
        };
        let mut world = World {
            pm: Pm::new(fake, boot),
            refused: 0,
        };
        world.pm.start_init().expect("init");
        let who = *world.pm.sys.bodies.keys().next().expect("a process");
        world.exec_done(Endpoint(who));
        (world, Endpoint(who))
    }

    pub fn post<R: Request<How = Post>>(&mut self, request: R) {
        self.tell(&request.encode());
    }

    /// Asks PM; what it answers at once.
    pub fn ask<R: Request<How = Ask>>(&mut self, request: R) -> Option<Result<R::Reply, Errno>> {
        let answer = self.tell(&request.ask(5))?;
        assert_eq!(transaction(&answer), 5);
        Some(answer_result::<R>(&answer))
    }

    /// VFS has written everything back.
    pub fn synced(&mut self, status: Result<(), Errno>) {
        let asker = Asker::of::<vfs::SyncAll>(Endpoint::PM, 1);
        let answer = asker.answer(status).expect("an answer");
        assert_eq!(self.handle(Endpoint::VFS, Class::Post, &answer), None);
    }

    fn tell(&mut self, message: &Message) -> Option<Message> {
        let from = match message.kind {
            pm::FaultSignal::KIND | pm::OutOfMemory::KIND => Endpoint::VM,
            pm::RaiseGroup::KIND | pm::HangUp::KIND => self.pm.boot.console.expect("a console"),
            _ => Endpoint::VFS,
        };
        self.handle(from, Class::Post, message)
    }

    /// Has PM handle a message; what goes back at once.
    pub fn handle(&mut self, from: Endpoint, class: Class, message: &Message) -> Option<Message> {
        let handled = self.pm.handle(from, class, message);
        self.refused += u64::from(handled.refused.is_some());
        handled.answer
    }

    pub fn exec_done(&mut self, who: Endpoint) {
        self.post(pm::ExecDone {
            who,
            pc: START,
            sp: STACK,
            ids: (0, 0),
            name: *b"program\0\0\0\0\0\0\0\0\0",
            flags: 0,
        });
    }

    /// Makes a Linux call. `None`: it waits, or its answer went past (the thread is gone, or
    /// in a handler).
    pub fn call(&mut self, who: Endpoint, number: u32, args: &[u64]) -> Option<u64> {
        let body = self.pm.sys.body(who);
        assert!(!body.stopped && body.at == At::Home, "it must be running");
        body.at = At::Server(Endpoint::PM);
        body.registers.rax = number as u64;
        body.registers.orig_rax = number as u64;
        body.registers.rip += 2;
        let mut message = Message::new(number as u64);
        message.words[..args.len()].copy_from_slice(args);
        let answer = self.handle(who, Class::Linux, &message)?;
        self.pm.sys.reply(who, answer);
        Some(answer.kind)
    }

    /// A call that must be answered at once.
    pub fn now(&mut self, who: Endpoint, number: u32, args: &[u64]) -> Result<u64, Errno> {
        let word = self.call(who, number, args).expect("an answer at once");
        abi::errno::result_from_word(word)
    }

    /// The process enters a call of VFS.
    pub fn enter_vfs(&mut self, who: Endpoint, number: u32) {
        let body = self.pm.sys.body(who);
        body.at = At::Server(Endpoint::VFS);
        body.registers.orig_rax = number as u64;
        body.registers.rip += 2;
    }

    /// VFS answers.
    pub fn leave_vfs(&mut self, who: Endpoint, result: Result<u64, Errno>) {
        self.pm.sys.reply(who, Message::new(result_to_word(result)));
        self.deliver_news();
    }

    /// The kernel's news about stopped processes.
    pub fn deliver_news(&mut self) {
        let mut message = Message::default();
        message.words[0] = KernelNotify::STOPPED.bits();
        self.handle(Endpoint::KERNEL, Class::Kernel, &message);
    }

    /// Time passes; the timer fires if it is due.
    pub fn pass(&mut self, ns: u64) {
        self.pm.sys.now += ns;
        while self.pm.sys.timer != 0 && self.pm.sys.timer <= self.pm.sys.now {
            self.pm.sys.timer = 0;
            let mut message = Message::default();
            message.words[0] = KernelNotify::TIMER.bits();
            self.handle(Endpoint::KERNEL, Class::Kernel, &message);
        }
    }

    pub fn rax(&mut self, who: Endpoint) -> Result<u64, Errno> {
        abi::errno::result_from_word(self.pm.sys.body(who).registers.rax)
    }

    pub fn runs(&mut self, who: Endpoint) -> bool {
        self.pm
            .sys
            .bodies
            .get(&who.0)
            .is_some_and(|body| !body.stopped && body.at == At::Home)
    }

    pub fn lives(&self, who: Endpoint) -> bool {
        self.pm.sys.bodies.contains_key(&who.0)
    }

    /// Forks; the child's endpoint and process id.
    pub fn fork(&mut self, who: Endpoint) -> (Endpoint, u32) {
        let pid = self.now(who, nr::__NR_fork, &[]).expect("fork") as u32;
        (self.endpoint(pid), pid)
    }

    pub fn endpoint(&self, pid: u32) -> Endpoint {
        let slot = self.pm.table.slot_of_tid(pid).expect("a thread");
        self.pm.table.thread(slot).expect("a thread").endpoint
    }

    pub fn poke(&mut self, who: Endpoint, address: u64, words: &[u64]) {
        for (i, word) in words.iter().enumerate() {
            let at = address + i as u64 * 8;
            self.pm
                .sys
                .write(who, at, &word.to_le_bytes(), true)
                .expect("memory");
        }
    }

    pub fn peek(&mut self, who: Endpoint, address: u64) -> u64 {
        let mut bytes = [0; 8];
        self.pm
            .sys
            .read(who, address, &mut bytes, true)
            .expect("memory");
        u64::from_le_bytes(bytes)
    }

    /// Installs a handler at `HANDLER`.
    pub fn handle_signal(&mut self, who: Endpoint, signal: i32, flags: u64) {
        self.poke(who, DATA, &[HANDLER, flags | 0x0400_0000, RESTORER, 0]);
        self.now(who, nr::__NR_rt_sigaction, &[signal as u64, DATA, 0, 8])
            .expect("sigaction");
    }

    pub fn in_handler(&mut self, who: Endpoint) -> bool {
        let body = self.pm.sys.body(who);
        !body.stopped && body.registers.rip == HANDLER
    }

    /// The handler returns.
    pub fn sigreturn(&mut self, who: Endpoint) {
        self.pm.sys.body(who).registers.rsp += 8;
        self.pm.sys.body(who).registers.rip = RESTORER;
        self.call(who, nr::__NR_rt_sigreturn, &[]);
    }

    pub fn posted(&mut self, name: &str) -> usize {
        let count = self.pm.sys.posts.iter().filter(|p| p.0 == name).count();
        self.pm.sys.posts.retain(|p| p.0 != name);
        count
    }
}

pub const HANDLER: u64 = 0x41_0000;
pub const RESTORER: u64 = 0x42_0000;

pub use linux_raw_sys::general as nr;

/// Names that the tests look for.
pub fn names() -> (&'static str, &'static str, &'static str) {
    (
        vfs::Interrupt::NAME,
        vfs::SyncAll::NAME,
        terminal::ExitStatus::NAME,
    )
}
