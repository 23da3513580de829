//! The dispatcher: decodes a message, answers what can be answered at once, starts a task
//! for the rest. It never waits.
//!
//! Page-ins take no lock of any kind: a task that waits for memory to be repaired may hold
//! the position of an open file, but nothing that bringing a page needs.

use crate::calls::{self, Outcome};
use crate::context::Ids;
use crate::device::Driver;
use crate::exec;
use crate::file::Kind;
use crate::process::Process;
use crate::sabotage;
use crate::state::{Caller, Vfs};
use crate::user::zeroed;
use abi::errno::result_to_word;
use abi::message::request::Ask;
use abi::message::{Answer, Asker, Server, is_answer, transaction};
use abi::proto::device::numbers;
use abi::proto::{fs, vfs, vm};
use abi::senders::Refusal;
use abi::trace::Serving;
use abi::{Class, Endpoint, Errno, Message, Request};
use alloc::boxed::Box;
use alloc::rc::Rc;

/// Supplementary groups a process may have.
const GROUPS_MAX: u32 = 65536;

impl Vfs {
    /// A message arrived.
    pub fn message(
        self: &Rc<Self>,
        source: Endpoint,
        class: Class,
        message: &Message,
    ) -> Option<Refusal> {
        match class {
            Class::Linux => {
                self.linux(source, message);
                None
            }
            Class::Call | Class::Post | Class::Send if is_answer(class, message) => {
                self.answered(source, class, message)
            }
            Class::Call | Class::Post | Class::Send => {
                let handled = vfs::serve(&mut Dispatcher(self), source, class, message);
                match handled.answer {
                    Some(answer) if class.wants_reply() => self.base.machine.reply(source, answer),
                    Some(answer) => self.base.machine.post(source, answer),
                    None => {}
                }
                handled.refused
            }
            // Notifications carry nothing here; faults are not routed to VFS.
            _ => None,
        }
    }

    /// What VFS asked is answered. Late answers find nobody.
    fn answered(&self, source: Endpoint, class: Class, message: &Message) -> Option<Refusal> {
        let admitted = abi::proto::admit(source, class, message.kind);
        let trusts_all = sabotage::trusts_all(&*self.base.machine);
        if let Err(refusal) = Refusal::unless(trusts_all, admitted) {
            return Some(refusal);
        }
        let (machine, questions) = (&self.base.machine, &self.base.questions);
        let repair = message.kind == vm::HandleMemory::ANSWER;
        let txn = match repair {
            true => sabotage::question(&**machine, questions, transaction(message)),
            false => transaction(message),
        };
        questions.answer(source, txn, Ok(*message));
        if repair {
            sabotage::repaired(&**machine, &self.base.readiness);
        }
        None
    }

    /// A Linux call.
    fn linux(self: &Rc<Self>, source: Endpoint, message: &Message) {
        let Some(process) = self.process(source) else {
            let errno = Errno::ENOSYS;
            self.base.machine.reply(source, Message::error(errno));
            return;
        };
        process.subject.interrupt.reset();
        let w = message.words;
        let args = [w[0], w[1], w[2], w[3], w[4], w[5]];
        let number = message.kind as u32;
        let c = Caller {
            vfs: self.clone(),
            process,
        };
        let at_once = || calls::at_once(&c, number, args);
        if let Some(result) = self.serve_at_once(&c, number, at_once) {
            let status = Message::new(result_to_word(result));
            return self.base.machine.reply(source, status);
        }
        self.spawn_for(source, message.kind, 0, async move {
            if let Outcome::Reply(result) = calls::call(&c, number, args).await {
                let status = Message::new(result_to_word(result));
                c.vfs.base.machine.reply(source, status);
            }
        });
    }

    /// The process `who`; `ESRCH`.
    fn known(&self, who: Endpoint) -> Result<Rc<Process>, Errno> {
        self.process(who).ok_or(Errno::ESRCH)
    }

    /// Starts a task that serves `client`, with which file ([`Serving::file`]), and answers what was asked.
    fn later<R, F>(
        self: &Rc<Self>,
        asker: Asker<R::Reply>,
        (client, file): (Endpoint, u64),
        task: impl FnOnce(Rc<Vfs>) -> F,
    ) -> Answer<R::Reply>
    where
        R: Request<How = Ask, Reply: 'static>,
        F: Future<Output = Result<R::Reply, Errno>> + 'static,
    {
        let task = task(self.clone());
        let machine = self.base.machine.clone();
        self.spawn_for(client, R::KIND, file, async move {
            if let Some(answer) = asker.answer(task.await) {
                machine.post(asker.who, answer);
            }
        });
        Answer::Later
    }

    fn set_file_limit(&self, r: vfs::SetFileLimit) -> Result<(), Errno> {
        let process = self.known(r.who)?;
        process.files().set_limit(r.files);
        let processes = self.processes.borrow();
        for thread in processes.threads(process.subject.pid) {
            thread.file_size.set(r.size);
        }
        Ok(())
    }

    fn set_driver(&self, r: vfs::Driver) {
        let peer = self.base.peer(r.driver);
        let driver = Rc::new(Driver::new(peer, r.major));
        let drivers = if r.block {
            &self.block_drivers
        } else {
            &self.drivers
        };
        drivers.borrow_mut().insert(r.major, driver);
    }

    fn exec_trace(
        &self,
        source: Endpoint,
        r: vfs::ExecTrace,
    ) -> Result<vfs::ExecTraceLength, Errno> {
        let text = self.exec.trace.text(&*self.base.machine);
        let bytes = &text.as_bytes()[..text.len().min(r.len as usize)];
        self.base.machine.write_grant(source, r.grant, bytes)?;
        let len = bytes.len() as u64;
        Ok(vfs::ExecTraceLength { len })
    }

    fn tunable(&self, r: vfs::Tunable) -> Result<vfs::TunableValue, Errno> {
        let protected = self.protections.get(r.which);
        let value = protected.map_or_else(|| self.base.accounts.get(r.which), Ok)?;
        Ok(vfs::TunableValue { value })
    }

    fn files_of(&self, r: vfs::FilesOf) -> Result<vfs::FilesFigures, Errno> {
        let process = self.known(r.who)?;
        Ok(vfs::FilesFigures {
            umask: process.umask(),
            descriptors: process.files().places() as u32,
        })
    }

    fn map_close(&self, r: vfs::MapClose) {
        if let Some(mount) = self.mount_of(r.dev) {
            for gone in r.files {
                mount.unmap(gone.ino, gone.count);
            }
        }
    }

    fn pages_written(&self, r: vfs::PagesWritten) {
        if let Some(mount) = self.mount_of(r.dev) {
            let (ino, offset, len) = (r.ino, r.offset, r.len);
            mount.peer.tell(fs::PagesWritten { ino, offset, len });
        }
    }

    fn ready(&self, source: Endpoint, r: vfs::Ready) {
        if let Some(driver) = self.driver(r.major)
            && driver.peer.endpoint == source
        {
            driver.readiness.set(driver.readiness.get() + 1);
            self.base.readiness.signal();
        }
    }

    /// A file system or driver died: whoever waits for it has waited long enough.
    fn died(&self, who: Endpoint) {
        self.base.questions.close(who, Err(Errno::EIO));
        // What shared mappings would change of its files goes nowhere: they are no more.
        for mount in self
            .mounts
            .borrow()
            .iter()
            .filter(|m| m.peer.endpoint == who)
        {
            let all = vm::CacheForget {
                dev: mount.dev,
                ino: u64::MAX,
                offset: 0,
                end: u64::MAX,
            };
            let _ = self.base.machine.call_vm(all.encode());
        }
        // Pollers see that its devices are no more.
        for driver in self.drivers.borrow().values() {
            driver.readiness.set(driver.readiness.get() + 1);
        }
        self.base.readiness.signal();
    }

    fn fork(&self, r: vfs::Fork) -> Result<(), Errno> {
        let parent = self.process(r.parent).ok_or(Errno::ESRCH)?;
        let table = self.base.counters.unique();
        let child = parent.fork(r.child, r.pid, table, r.share_files, r.share_fs)?;
        let old = self.processes.borrow_mut().insert(child)?;
        drop(old);
        Ok(())
    }

    /// Forgets a process. A call of its that still runs ends soon, into the void.
    fn exit(&self, who: Endpoint) -> Result<(), Errno> {
        let process = self.processes.borrow_mut().remove(who);
        let process = process.ok_or(Errno::ESRCH)?;
        process.subject.interrupt.raise();
        // A call may hold the process a while longer; its descriptors close now.
        let empty = crate::fd::FdTable::new(self.base.counters.unique(), &self.base.accounts.work);
        let files = process.files.replace(Rc::new(empty));
        drop(files);
        let program = process.program.take();
        drop(program);
        let executing = process.executing.take();
        drop(executing);
        self.network.collect();
        Ok(())
    }

    fn set_ids(&self, r: vfs::SetIds) -> Result<(), Errno> {
        let process = self.process(r.who).ok_or(Errno::ESRCH)?;
        process.subject.ids.set(Ids {
            uid: r.uids.0,
            euid: r.uids.1,
            gid: r.gids.0,
            egid: r.gids.1,
            fsuid: r.fs.0,
            fsgid: r.fs.1,
            capabilities: r.capabilities,
        });
        process.crowded.set(r.crowded);
        process.subject.credential.set(self.base.counters.unique());
        Ok(())
    }

    fn set_groups(&self, source: Endpoint, r: vfs::SetGroups) -> Result<(), Errno> {
        let process = self.process(r.who).ok_or(Errno::ESRCH)?;
        if r.count > GROUPS_MAX {
            return Err(Errno::EINVAL);
        }
        let mut bytes = zeroed(r.count as usize * 4)?;
        if !bytes.is_empty() {
            self.base.machine.read_grant(source, r.grant, &mut bytes)?;
        }
        let words = bytes.chunks_exact(4);
        let words = words.map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        let groups = Rc::new(rt::room::collect(words)?);
        // All threads have the same ones.
        let credential = self.base.counters.unique();
        for thread in self.processes.borrow().threads(process.subject.pid) {
            *thread.groups.borrow_mut() = groups.clone();
            thread.subject.credential.set(credential);
        }
        Ok(())
    }

    /// Brings a file page into VM's cache.
    async fn page_in(&self, r: vfs::PageIn) -> Result<(), Errno> {
        let base = &self.base;
        sabotage::before_page_in(&*base.machine, &base.questions, &base.readiness).await;
        let mount = self.mount_of(r.dev).ok_or(Errno::EIO)?;
        let peek = fs::Peek {
            ino: r.ino,
            offset: r.offset,
            before: r.before,
            after: r.after,
        };
        mount.peer.ask(peek).await
    }

    /// Tells VM which file a descriptor is; the answer comes with a mapping reference.
    async fn fd_lookup(&self, r: vfs::FdLookup) -> Result<vfs::FoundFile, Errno> {
        let (dev, ino, access) = self.mapped_file(&r).await?;
        Ok(vfs::FoundFile { dev, ino, access })
    }

    async fn mapped_file(&self, r: &vfs::FdLookup) -> Result<(u64, u64, u64), Errno> {
        let process = self.process(r.who).ok_or(Errno::ESRCH)?;
        let file = process.files().get(r.fd)?;
        file.check_not_path()?;
        let readable = file.check_readable().is_ok();
        let writable = file.check_writable().is_ok();
        let access = u64::from(readable) | u64::from(writable) << 1;
        match &file.kind {
            Kind::File => {}
            Kind::Device(driver, numbers::ZERO_MINOR) if driver.major == numbers::MEM_MAJOR => {
                return Ok((u64::MAX, 0, access));
            }
            _ => return Err(Errno::ENODEV),
        }
        let vnode = file.vnode.as_ref().ok_or(Errno::ENODEV)?;
        // Even a writable mapping is read.
        if !readable {
            return Err(Errno::EACCES);
        }
        if !vnode.is_regular() || !vnode.mount.mappable(vnode).await {
            // Linux's two kinds of files in /proc: those that the kernel's parts register know of
            // mappings and have none.
            let registered = vnode.mount.is_proc()
                && file.place.as_ref().is_some_and(|place| {
                    let root = vnode.mount.root();
                    root.is_ok_and(|root| Rc::ptr_eq(&root, &place.parent))
                });
            return Err(match registered && vnode.is_regular() {
                true => Errno::EIO,
                false => Errno::ENODEV,
            });
        }
        let no_exec = u64::from(!vnode.mount.may_execute()) << 2;
        vnode.mount.map(vnode);
        if let Some(place) = &file.place {
            vnode.set_place(place.clone());
        }
        // VM refuses a shared mapping that writes what is open for reading only.
        let access = match vnode.check_unsealed() {
            Ok(()) => access,
            Err(_) => access & 1 | 8,
        };
        Ok((vnode.mount.dev, vnode.ino, access | no_exec))
    }
}

/// VFS as the messages of its protocol find it.
struct Dispatcher<'a>(&'a Rc<Vfs>);

impl Server for Dispatcher<'_> {
    fn trusts_all(&self) -> bool {
        sabotage::trusts_all(&*self.0.base.machine)
    }
}

abi::serve! { ['a] Dispatcher<'a>;
    vfs::Fork => |on, _, r| on.0.fork(r);
    vfs::Exit => |on, _, r| on.0.exit(r.who);
    vfs::SetIds => |on, _, r| on.0.set_ids(r);
    vfs::SetFileLimit => |on, _, r| on.0.set_file_limit(r);
    vfs::SetFixedLayout => |on, _, r| on.0.known(r.who).map(|p| p.fixed_layout.set(r.fixed));
    vfs::SetExecFault => |on, _, r| {
        on.0.known(r.who).map(|p| p.exec_fault.set(r.step, Errno(r.errno)))
    };
    vfs::ExecFault => |on, _, r| on.0.known(r.who).map(|process| {
        let step = process.exec_fault.left();
        vfs::ExecFaultStep { step }
    });
    vfs::SetGroups => |on, from, r| on.0.set_groups(from, r);
    vfs::SetJob => |on, _, r| on.0.known(r.who).map(|process| process.subject.job.set(r.job));
    vfs::Driver => |on, _, r| {
        on.0.set_driver(r);
        Ok(())
    };
    vfs::PathOf => |on, from, r| on.0.path_of(from, r);
    vfs::MappedPath => |on, from, r| on.0.mapped_path(from, r);
    vfs::NextFd => |on, _, r| on.0.next_fd(r);
    vfs::MountTable => |on, from, r| on.0.mount_table(from, r);
    vfs::VfsCounters => |on, _, _| on.0.figures();
    vfs::VfsLocks => |on, _, _| Ok(on.0.locks());
    vfs::DropCaches => |on, caller, r| {
        let vfs = on.0.clone();
        on.0.base.spawner.spawn(async move {
            let result = vfs.drop_caches(caller.who, r).await;
            vfs.base.machine.reply(caller.who, caller.reply(result));
        });
        Answer::Later
    };
    vfs::ExecInfo => |on, _, r| on.0.known(r.who).map(|process| process.figures.get());
    vfs::FilesOf => |on, _, r| on.0.files_of(r);
    vfs::SetExecBackend => |on, _, r| {
        on.0.exec.backend.set(r.backend);
        Ok(())
    };
    vfs::GetExecBackend => |on, _, _| {
        let backend = on.0.exec.backend.get();
        Ok(vfs::ExecBackendNow { backend })
    };
    vfs::Tunable => |on, _, r| on.0.tunable(r);
    vfs::SetTunable => |on, _, r| {
        let protected = on.0.protections.set(r.which, r.value);
        protected.unwrap_or_else(|| on.0.base.accounts.set(r.which, r.value))
    };
    vfs::SetExecTrace => |on, _, r| {
        on.0.exec.trace.set(r.on);
        Ok(())
    };
    vfs::ExecTrace => |on, from, r| on.0.exec_trace(from, r);
    vfs::PageIn => |on, asker, r| {
        let about = (asker.who, Serving::file(r.dev, r.ino));
        on.0.later::<vfs::PageIn, _>(asker, about, async move |vfs| vfs.page_in(r).await)
    };
    vfs::GiveBack => |on, asker, r| {
        on.0.later::<vfs::GiveBack, _>(asker, (asker.who, 0), async move |vfs| {
            Ok(vfs.give_back(r).await)
        })
    };
    vfs::FdLookup => |on, asker, r| {
        on.0.later::<vfs::FdLookup, _>(asker, (r.who, 0), async move |vfs| vfs.fd_lookup(r).await)
    };
    vfs::PagesWritten => |on, _, r| on.0.pages_written(r);
    vfs::SyncFile => |on, asker, r| {
        let about = (asker.who, Serving::file(r.dev, r.ino));
        on.0.later::<vfs::SyncFile, _>(asker, about, async move |vfs| vfs.sync_file(r).await)
    };
    vfs::PunchFile => |on, asker, r| {
        let about = (asker.who, Serving::file(r.dev, r.ino));
        on.0.later::<vfs::PunchFile, _>(asker, about, async move |vfs| vfs.punch_file(r).await)
    };
    vfs::Mount => |on, asker, r| {
        on.0.later::<vfs::Mount, _>(asker, (asker.who, 0), async move |vfs| vfs.mount(r).await)
    };
    vfs::Died => |on, _, r| on.0.died(r.who);
    vfs::MapClose => |on, _, r| on.0.map_close(r);
    vfs::Interrupt => |on, _, r| {
        if let Some(process) = on.0.process(r.who) {
            process.subject.interrupt.raise();
        }
    };
    vfs::Resume => |on, _, r| {
        if let Some(process) = on.0.process(r.who) {
            process.resumed.set(process.cut_short.take());
        }
    };
    vfs::ExecInit => |on, from, r| {
        let task = Box::pin(exec::exec_init(on.0.clone(), r.who, r.pid));
        on.0.spawn_for(from, vfs::ExecInit::KIND, 0, task);
    };
    vfs::SyncAll => |on, asker, _| {
        on.0.later::<vfs::SyncAll, _>(asker, (asker.who, 0), async |vfs| vfs.sync_all().await)
    };
    vfs::Ready => |on, from, r| on.0.ready(from, r);
}
