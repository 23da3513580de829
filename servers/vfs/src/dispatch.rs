//! The dispatcher: decodes a message, answers what can be answered at once, starts a task
//! for the rest. It never waits.
//!
//! Page-ins take no lock of any kind: a task that waits for memory to be repaired may hold
//! the position of an open file, but nothing that bringing a page needs.

use crate::calls::{self, Outcome};
use crate::device::Driver;
use crate::exec;
use crate::file::Kind;
use crate::machine::post;
use crate::mount::Mount;
use crate::peer::Peer;
use crate::process::Ids;
use crate::sabotage;
use crate::state::{Caller, Vfs};
use crate::user::zeroed;
use abi::errno::result_to_word;
use abi::message::reply_message;
use abi::proto::device::numbers;
use abi::proto::{fs, pm, rs, vfs, vm};
use abi::senders::Refusal;
use abi::trace::Serving;
use abi::{Class, Endpoint, Errno, Message, Reply, Request};
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::string::String;

/// Supplementary groups a process may have.
const GROUPS_MAX: u32 = 65536;

impl Vfs {
    /// A message arrived.
    pub fn message(self: &Rc<Self>, source: Endpoint, class: Class, message: &Message) {
        match class {
            Class::Linux => self.linux(source, message),
            Class::Call => {
                if let Some(reply) = self.call(source, message) {
                    self.machine.reply(source, reply);
                }
            }
            Class::Post | Class::Send => self.posted(source, message),
            // Notifications carry nothing here; faults are not routed to VFS.
            _ => {}
        }
    }

    /// A Linux call.
    fn linux(self: &Rc<Self>, source: Endpoint, message: &Message) {
        let Some(process) = self.process(source) else {
            let errno = Errno::ENOSYS;
            self.machine.reply(source, Message::error(errno));
            return;
        };
        process.interrupt.reset();
        let w = message.words;
        let args = [w[0], w[1], w[2], w[3], w[4], w[5]];
        let number = message.kind as u32;
        let c = Caller {
            vfs: self.clone(),
            process,
        };
        if let Some(result) = self.serve_at_once(&c, number, args) {
            let status = Message::new(result_to_word(result));
            return self.machine.reply(source, status);
        }
        self.spawn_for(source, message.kind, 0, async move {
            if let Outcome::Reply(result) = calls::call(&c, number, args).await {
                let status = Message::new(result_to_word(result));
                c.vfs.machine.reply(source, status);
            }
        });
    }

    /// A message of the protocol may not be sent by its sender, or is none.
    fn refuse(&self, source: Endpoint, message: &Message, refusal: Refusal) {
        let mut refused = self.refused.get();
        if let Some(line) = refused.note(source, message, refusal) {
            self.machine.log(format_args!("{line}"));
        }
        self.refused.set(refused);
    }

    /// A call: the reply, unless a task will give it.
    fn call(self: &Rc<Self>, source: Endpoint, message: &Message) -> Option<Message> {
        let admitted = vfs::admit(source, Class::Call, message.kind);
        if let Err(refusal) = sabotage::admitted(&*self.machine, admitted) {
            self.refuse(source, message, refusal);
            return Some(Message::error(refusal.errno()));
        }
        Some(match message.kind {
            vfs::Fork::KIND => answer(message, |r| self.fork(r)),
            vfs::Exit::KIND => answer(message, |r: vfs::Exit| self.exit(r.who)),
            vfs::SetIds::KIND => answer(message, |r| self.set_ids(r)),
            vfs::SetFileLimit::KIND => answer(message, |r: vfs::SetFileLimit| {
                let process = self.process(r.who).ok_or(Errno::ESRCH)?;
                process.files().set_limit(r.files);
                let processes = self.processes.borrow();
                for thread in processes.threads(process.pid) {
                    thread.file_size.set(r.size);
                }
                Ok(())
            }),
            vfs::SetFixedLayout::KIND => answer(message, |r: vfs::SetFixedLayout| {
                let process = self.process(r.who).ok_or(Errno::ESRCH)?;
                process.fixed_layout.set(r.fixed);
                Ok(())
            }),
            vfs::SetExecFault::KIND => answer(message, |r: vfs::SetExecFault| {
                let process = self.process(r.who).ok_or(Errno::ESRCH)?;
                process.exec_fault.set(r.step, Errno(r.errno));
                Ok(())
            }),
            vfs::ExecFault::KIND => answer(message, |r: vfs::ExecFault| {
                let process = self.process(r.who).ok_or(Errno::ESRCH)?;
                let step = process.exec_fault.left();
                Ok(vfs::ExecFaultStep { step })
            }),
            vfs::SetGroups::KIND => answer(message, |r| self.set_groups(source, r)),
            vfs::SetJob::KIND => answer(message, |r: vfs::SetJob| {
                let process = self.process(r.who).ok_or(Errno::ESRCH)?;
                process.job.set(r.job);
                Ok(())
            }),
            vfs::Driver::KIND => answer(message, |r: vfs::Driver| {
                let peer = Peer::new(r.driver, &self.machine, &self.questions);
                let driver = Rc::new(Driver::new(peer, r.major));
                let drivers = if r.block {
                    &self.block_drivers
                } else {
                    &self.drivers
                };
                drivers.borrow_mut().insert(r.major, driver);
                Ok(())
            }),
            vfs::PathOf::KIND => answer(message, |r| self.path_of(source, r)),
            vfs::MappedPath::KIND => answer(message, |r| self.mapped_path(source, r)),
            vfs::NextFd::KIND => answer(message, |r| self.next_fd(r)),
            vfs::MountTable::KIND => answer(message, |r| self.mount_table(source, r)),
            vfs::VfsCounters::KIND => answer(message, |_: vfs::VfsCounters| self.figures()),
            vfs::VfsLocks::KIND => answer(message, |_: vfs::VfsLocks| Ok(self.locks())),
            vfs::DropCaches::KIND => {
                let Some(request) = vfs::DropCaches::decode(message) else {
                    return Some(Message::error(Errno::EINVAL));
                };
                let this = self.clone();
                self.spawner.spawn(async move {
                    let result = this.drop_caches(source, request).await;
                    this.machine.reply(source, reply_message(result));
                });
                return None;
            }
            vfs::ExecInfo::KIND => answer(message, |r: vfs::ExecInfo| {
                let process = self.process(r.who).ok_or(Errno::ESRCH)?;
                Ok(process.figures.get())
            }),
            vfs::FilesOf::KIND => answer(message, |r: vfs::FilesOf| {
                let process = self.process(r.who).ok_or(Errno::ESRCH)?;
                Ok(vfs::FilesFigures {
                    umask: process.umask(),
                    descriptors: process.files().places() as u32,
                })
            }),
            vfs::SetExecBackend::KIND => answer(message, |r: vfs::SetExecBackend| {
                self.exec.backend.set(r.backend);
                Ok(())
            }),
            vfs::GetExecBackend::KIND => answer(message, |_: vfs::GetExecBackend| {
                let backend = self.exec.backend.get();
                Ok(vfs::ExecBackendNow { backend })
            }),
            vfs::Tunable::KIND => answer(message, |r: vfs::Tunable| {
                let protected = self.protections.get(r.which);
                let value = protected.map_or_else(|| self.accounts.get(r.which), Ok)?;
                Ok(vfs::TunableValue { value })
            }),
            vfs::SetTunable::KIND => answer(message, |r: vfs::SetTunable| {
                let protected = self.protections.set(r.which, r.value);
                protected.unwrap_or_else(|| self.accounts.set(r.which, r.value))
            }),
            vfs::SetExecTrace::KIND => answer(message, |r: vfs::SetExecTrace| {
                self.exec.trace.set(r.on);
                Ok(())
            }),
            vfs::ExecTrace::KIND => answer(message, |r: vfs::ExecTrace| {
                let text = self.exec.trace.text(&*self.machine);
                let bytes = &text.as_bytes()[..text.len().min(r.len as usize)];
                self.machine.write_grant(source, r.grant, bytes)?;
                Ok(vfs::ExecTraceLength {
                    len: bytes.len() as u64,
                })
            }),
            _ => Message::error(Errno::ENOSYS),
        })
    }

    /// A one-way message.
    fn posted(self: &Rc<Self>, source: Endpoint, message: &Message) {
        let admitted = vfs::admit(source, Class::Post, message.kind);
        if let Err(refusal) = sabotage::admitted(&*self.machine, admitted) {
            return self.refuse(source, message, refusal);
        }
        match message.kind {
            vfs::Done::KIND => {
                if let Some(r) = vfs::Done::decode(message) {
                    let value = r.status.map(|()| [r.a, r.b, r.c, r.d, r.e]);
                    // Late answers and those nobody wants (Put) find nobody.
                    self.questions.answer(source, r.txn, value);
                }
            }
            vfs::MemoryHandled::KIND => {
                if let Some(r) = vfs::MemoryHandled::decode(message) {
                    let status = result_to_word(r.status.map(|()| 0));
                    // Who asked for a range may do with its beginning.
                    let value = match r.status {
                        Err(errno) if r.good == 0 => Err(errno),
                        _ => Ok([r.good, status, 0, 0, 0]),
                    };
                    let txn = sabotage::question(self, r.txn);
                    self.questions.answer(source, txn, value);
                    sabotage::repaired(self);
                }
            }
            vfs::PageIn::KIND => {
                if let Some(r) = vfs::PageIn::decode(message) {
                    let this = self.clone();
                    let file = Serving::file(r.dev, r.ino);
                    self.spawn_for(source, message.kind, file, async move {
                        this.page_in(r).await;
                    });
                }
            }
            vfs::GiveBack::KIND => {
                if let Some(r) = vfs::GiveBack::decode(message) {
                    let this = self.clone();
                    self.spawner.spawn(async move { this.give_back(r).await });
                }
            }
            vfs::FdLookup::KIND => {
                if let Some(r) = vfs::FdLookup::decode(message) {
                    let this = self.clone();
                    self.spawn_for(r.who, message.kind, 0, async move {
                        this.fd_lookup(r).await;
                    });
                }
            }
            vfs::PagesWritten::KIND => {
                if let Some(r) = vfs::PagesWritten::decode(message)
                    && let Some(mount) = self.mount_of(r.dev)
                {
                    // Nobody waits for the answer: transactions start at 1.
                    mount.peer.tell(fs::PagesWritten {
                        txn: 0,
                        ino: r.ino,
                        offset: r.offset,
                        len: r.len,
                    });
                }
            }
            vfs::SyncFile::KIND => {
                if let Some(r) = vfs::SyncFile::decode(message) {
                    let this = self.clone();
                    let file = Serving::file(r.dev, r.ino);
                    self.spawn_for(source, message.kind, file, async move {
                        this.sync_file(r).await;
                    });
                }
            }
            vfs::PunchFile::KIND => {
                if let Some(r) = vfs::PunchFile::decode(message) {
                    let this = self.clone();
                    let file = Serving::file(r.dev, r.ino);
                    self.spawn_for(source, message.kind, file, async move {
                        this.punch_file(r).await;
                    });
                }
            }
            vfs::Mount::KIND => {
                if let Some(r) = vfs::Mount::decode(message) {
                    let this = self.clone();
                    self.spawner.spawn(async move {
                        let status = this.mount(r).await;
                        let dev = status.unwrap_or(0);
                        let status = status.map(|_| ());
                        let mounted = rs::Mounted {
                            fs: r.fs,
                            status,
                            dev,
                        };
                        post(&*this.machine, Endpoint::RS, mounted);
                    });
                }
            }
            vfs::Died::KIND => {
                if let Some(r) = vfs::Died::decode(message) {
                    self.died(r.who);
                }
            }
            vfs::MapClose::KIND => {
                if let Some(r) = vfs::MapClose::decode(message)
                    && let Some(mount) = self.mount_of(r.dev)
                {
                    for (ino, references) in r.files() {
                        mount.unmap(ino, references);
                    }
                }
            }
            vfs::Interrupt::KIND => {
                if let Some(r) = vfs::Interrupt::decode(message)
                    && let Some(process) = self.process(r.who)
                {
                    process.interrupt.raise();
                }
            }
            vfs::Resume::KIND => {
                if let Some(r) = vfs::Resume::decode(message)
                    && let Some(process) = self.process(r.who)
                {
                    process.resumed.set(process.cut_short.take());
                }
            }
            vfs::ExecInit::KIND => {
                if let Some(r) = vfs::ExecInit::decode(message) {
                    let this = self.clone();
                    let task = Box::pin(exec::exec_init(this, r.who, r.pid));
                    self.spawn_for(source, message.kind, 0, task);
                }
            }
            vfs::SyncAll::KIND => {
                if let Some(r) = vfs::SyncAll::decode(message) {
                    let this = self.clone();
                    self.spawn_for(source, message.kind, 0, async move {
                        this.sync_all(source, r.txn).await;
                    });
                }
            }
            vfs::Ready::KIND => {
                if let Some(r) = vfs::Ready::decode(message)
                    && let Some(driver) = self.driver(r.major)
                    && driver.peer.endpoint == source
                {
                    driver.readiness.set(driver.readiness.get() + 1);
                    self.readiness.signal();
                }
            }
            _ => {}
        }
    }

    /// A file system or driver died: whoever waits for it has waited long enough.
    fn died(&self, who: Endpoint) {
        self.questions.close(who, Err(Errno::EIO));
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
            let _ = self.machine.call_vm(all.encode());
        }
        // Pollers see that its devices are no more.
        for driver in self.drivers.borrow().values() {
            driver.readiness.set(driver.readiness.get() + 1);
        }
        self.readiness.signal();
    }

    fn fork(&self, r: vfs::Fork) -> Result<(), Errno> {
        let parent = self.process(r.parent).ok_or(Errno::ESRCH)?;
        let table = self.counters.unique();
        let child = parent.fork(r.child, r.pid, table, r.share_files, r.share_fs)?;
        let old = self.processes.borrow_mut().insert(child)?;
        drop(old);
        Ok(())
    }

    /// Forgets a process. A call of its that still runs ends soon, into the void.
    fn exit(&self, who: Endpoint) -> Result<(), Errno> {
        let process = self.processes.borrow_mut().remove(who);
        let process = process.ok_or(Errno::ESRCH)?;
        process.interrupt.raise();
        // A call may hold the process a while longer; its descriptors close now.
        let empty = crate::fd::FdTable::new(self.counters.unique(), &self.accounts.work);
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
        process.ids.set(Ids {
            uid: r.uids.0,
            euid: r.uids.1,
            gid: r.gids.0,
            egid: r.gids.1,
            fsuid: r.fs.0,
            fsgid: r.fs.1,
            capabilities: r.capabilities,
        });
        process.crowded.set(r.crowded);
        process.credential.set(self.counters.unique());
        Ok(())
    }

    fn set_groups(&self, source: Endpoint, r: vfs::SetGroups) -> Result<(), Errno> {
        let process = self.process(r.who).ok_or(Errno::ESRCH)?;
        if r.count > GROUPS_MAX {
            return Err(Errno::EINVAL);
        }
        let mut bytes = zeroed(r.count as usize * 4)?;
        if !bytes.is_empty() {
            self.machine.read_grant(source, r.grant, &mut bytes)?;
        }
        let words = bytes.chunks_exact(4);
        let words = words.map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        let groups = Rc::new(rt::room::collect(words)?);
        // All threads have the same ones.
        let credential = self.counters.unique();
        for thread in self.processes.borrow().threads(process.pid) {
            *thread.groups.borrow_mut() = groups.clone();
            thread.credential.set(credential);
        }
        Ok(())
    }

    /// Brings a file page into VM's cache.
    async fn page_in(&self, r: vfs::PageIn) {
        sabotage::before_page_in(self).await;
        let status = match self.mount_of(r.dev) {
            Some(mount) => mount
                .peer
                .ask(|txn| fs::Peek {
                    txn,
                    ino: r.ino,
                    offset: r.offset,
                    before: r.before,
                    after: r.after,
                })
                .await
                .map(|_| ()),
            None => Err(Errno::EIO),
        };
        let done = vm::PageInDone { txn: r.txn, status };
        post(&*self.machine, Endpoint::VM, done);
    }

    /// Tells VM which file a descriptor is; the answer comes with a mapping reference.
    async fn fd_lookup(&self, r: vfs::FdLookup) {
        let found = self.mapped_file(&r).await;
        let (dev, ino, access) = found.unwrap_or((0, 0, 0));
        let done = vm::FdLookupDone {
            txn: r.txn,
            status: found.map(|_| ()),
            dev,
            ino,
            access,
        };
        post(&*self.machine, Endpoint::VM, done);
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

    /// Has VM tell the file system what shared mappings have changed of a file, or with
    /// `ino` 0 of all that are mapped.
    pub async fn collect_written(&self, mount: &Mount, ino: u64) {
        if mount.is_mapped(ino) {
            let dev = mount.dev;
            let collect = |txn| vm::CollectWritten { txn, dev, ino };
            // VM always does what it can.
            let _ = self.vm.ask(collect).await;
        }
    }

    /// Writes a file back for VM (msync).
    async fn sync_file(&self, r: vfs::SyncFile) {
        let vfs::SyncFile { txn, dev, ino } = r;
        let status = match self.mount_of(dev) {
            Some(mount) => mount
                .peer
                .ask(|txn| fs::Sync { txn, ino })
                .await
                .map(|_| ()),
            None => Err(Errno::EIO),
        };
        post(&*self.machine, Endpoint::VM, vm::SyncDone { txn, status });
    }

    async fn sync_all(&self, asker: Endpoint, txn: u64) {
        let mounts = self.mounts.borrow().clone();
        let mut status = Ok(());
        for mount in mounts {
            self.collect_written(&mount, 0).await;
            let synced = mount.peer.ask(|txn| fs::Sync { txn, ino: 0 }).await;
            if let Err(errno) = synced
                && errno != Errno::ENOSYS
            {
                if mount.outlives_the_machine() {
                    status = status.and(Err(errno));
                }
                let kind = String::from_utf8_lossy(&mount.kind);
                self.machine.log(format_args!("sync of {kind}: {errno}"));
            }
        }
        if let Err(errno) = self.tell_absent().await {
            self.machine
                .log(format_args!("telling what was not there: {errno}"));
        }
        post(&*self.machine, asker, pm::Synced { txn, status });
    }
}

/// Decodes a call, makes it, encodes its answer.
fn answer<R: Request>(message: &Message, make: impl FnOnce(R) -> Result<R::Reply, Errno>) -> Message
where
    R::Reply: Reply,
{
    match R::decode(message) {
        Some(request) => reply_message(make(request)),
        None => Message::error(Errno::EINVAL),
    }
}
