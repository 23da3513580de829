//! Waiting: for services to come up, for mounts, and then for a service to die.
//!
//! A service that dies is not started again. What it held cannot be had back by anybody else:
//! the references that VFS counts on, tmpfs's files, ext2's unwritten pages, the generator
//! behind `/dev/urandom`. So its memory is freed, VFS answers `EIO` for it, and the others go
//! on. Only without the core servers, and the console, there is nothing to go on with.

use abi::kernel::{Exception, KernelNotify};
use abi::lab::POWEROFF_PANIC;
use abi::message::request::Ask;
use abi::message::{Handled, Server, answer_result, answered_status, is_answer, transaction};
use abi::proto::{fs, rs, vfs, vm};
use abi::{Class, Endpoint, Errno, Message, Request};
use core::fmt::Arguments;
use rt::ipc::{self, Received};
use rt::serve::{self, Last};
use rt::{kernel, outbox};

use crate::devices::{self, Devices};
use crate::services::{Endpoints, Id, SERVICES, Service};

/// How long the services may take until all serve. A machine that needs longer is as good as
/// one that hangs, even under emulation.
const START_TIMEOUT_NS: u64 = 20_000_000_000;

/// How long the file systems may take to write back after the death of a core server.
const SAVE_TIMEOUT_NS: u64 = 5_000_000_000;

/// An address at which nothing is ever mapped.
const NOWHERE: u64 = 8;

/// Status of a machine that was not given what it needs: a disk, a sound file system.
const POWEROFF_REFUSED: u64 = 1;

/// Says why the system cannot go on and ends the machine.
pub fn fail(reason: Arguments<'_>) -> ! {
    rt::log::line(reason);
    kernel::power_off(POWEROFF_PANIC)
}

/// Says what is missing and ends the machine. Nothing of the system is broken.
pub fn refuse(reason: Arguments<'_>) -> ! {
    rt::log::line(reason);
    kernel::power_off(POWEROFF_REFUSED)
}

/// `fail` with a formatted reason.
#[macro_export]
macro_rules! fail {
    ($($arg:tt)*) => { $crate::watch::fail(format_args!($($arg)*)) };
}

/// `refuse` with a formatted reason.
#[macro_export]
macro_rules! refuse {
    ($($arg:tt)*) => { $crate::watch::refuse(format_args!($($arg)*)) };
}

/// The services while they run.
pub struct Watch<'a> {
    endpoints: &'a Endpoints,
    devices: &'a Devices,
    /// Those that have not said that they serve, a bit each.
    pending: u32,
    /// The system comes up: it needs all of them.
    starting: bool,
    /// What VFS answered last.
    answer: Option<Message>,
    /// The root file system's device number.
    root_dev: u64,
}

impl<'a> Watch<'a> {
    /// Nothing is waited for yet.
    pub const fn new(endpoints: &'a Endpoints, devices: &'a Devices) -> Watch<'a> {
        Watch {
            endpoints,
            devices,
            pending: 0,
            starting: true,
            answer: None,
            root_dev: 0,
        }
    }

    /// Service number `index` was started.
    pub fn started(&mut self, index: usize) {
        self.pending |= 1 << index;
    }

    /// Waits until all started services serve. Ends the machine when one does not.
    pub fn wait(&mut self) {
        let deadline = kernel::time_ns().saturating_add(START_TIMEOUT_NS);
        if let Err(errno) = kernel::set_timer(deadline) {
            fail!("setting the start timer: {errno}");
        }
        serve::until(self, |watch| (watch.pending == 0).then_some(()));
        // An expiry that is already on its way is ignored once nothing is pending.
        let _ = kernel::set_timer(0);
    }

    /// Has VFS mount a file system, and waits: RS hears of it when that, or its disk's driver, dies
    /// meanwhile.
    pub fn mount(&mut self, request: vfs::Mount) -> Result<(), Errno> {
        outbox::ask(Endpoint::VFS, request.fs.0.into(), request);
        let mounted = serve::until(self, |watch| {
            let answer = watch.answer.take()?;
            (transaction(&answer) == request.fs.0.into())
                .then(|| answer_result::<vfs::Mount>(&answer))
        })?;
        if request.fs == self.endpoints[Id::Root as usize] {
            self.root_dev = mounted.dev;
        }
        Ok(())
    }

    /// Watches for ever.
    pub fn watch(mut self) -> ! {
        self.starting = false;
        serve::run(&mut self)
    }

    /// A service says that it serves, or that it gives up.
    fn report(&mut self, source: Endpoint, status: i64) {
        let Some(index) = self.index(source) else {
            return;
        };
        // It is said once: a service that serves can no longer give up for the machine.
        if self.pending & 1 << index == 0 {
            return;
        }
        if status != 0 {
            let errno = abi::errno::result_from_word(status as u64)
                .err()
                .unwrap_or(Errno::EIO);
            refuse!("service {} cannot start: {errno}", SERVICES[index].name);
        }
        self.pending &= !(1 << index);
    }

    /// A service died. Ends the machine if that needs it, else tells those that asked it.
    fn died(&self, who: Endpoint, why: Arguments<'_>) {
        let name = self.name(who);
        rt::log!("service {name} ({who}) died: {why}");
        if self.starting {
            fail!("the system did not come up: service {name} died");
        }
        let core = |index: usize| SERVICES[index].core;
        let Some(index) = self.index(who).filter(|&index| !core(index)) else {
            self.save(who);
            fail!("the system cannot go on without service {name}");
        };
        let service = &SERVICES[index];
        if let Err(errno) = self.bury(service, who) {
            // Its memory stays its own.
            rt::log!("what service {name} leaves behind stays: {errno}");
        }
        // From here on nothing of it arrives anywhere any more.
        outbox::post(Endpoint::VFS, vfs::Died { who });
    }

    /// Root wants to see a service die: its next instruction is one that is not there.
    fn crash(&self, name: &[u8]) {
        let len = name.iter().position(|&b| b == 0).unwrap_or(name.len());
        let named = |service: &Service| service.name.as_bytes() == &name[..len];
        let who = match &name[..len] {
            b"vm" => Endpoint::VM,
            // SAFETY: `ud2` raises #UD, which ends this server; it touches nothing.
            b"rs" => unsafe { core::arch::asm!("ud2", options(noreturn)) },
            _ => match SERVICES.iter().position(named) {
                Some(index) => self.endpoints[index],
                None => return,
            },
        };
        if let Err(errno) = kernel::proc_start(who, NOWHERE, 0, 0) {
            rt::log!("service {} does not crash: {errno}", self.name(who));
        }
    }

    /// Has everything written back that can be, before the machine ends without `dead`: by VFS
    /// where nothing stands in its way, else by the root file system alone, the others' files
    /// being in memory. Pages that programs changed through mappings are known to VM.
    fn save(&self, dead: Endpoint) {
        let root = self.endpoints[Id::Root as usize];
        let deadline = kernel::time_ns().saturating_add(SAVE_TIMEOUT_NS);
        if kernel::set_timer(deadline).is_err() {
            return;
        }
        let saved = match dead {
            // VFS asks it, and waits.
            Endpoint::VM => self.sync(root),
            Endpoint::VFS => self.collect().and_then(|()| self.sync(root)),
            _ => {
                // It asks the dead no more: the console is a file system, too.
                outbox::post(Endpoint::VFS, vfs::Died { who: dead });
                self.ask(Endpoint::VFS, vfs::SyncAll {})
            }
        };
        match saved {
            Ok(()) => rt::log!("what was written is on the disk"),
            Err(Errno::ETIMEDOUT) => {
                rt::log!("the file systems do not answer: what was written last is lost");
            }
            Err(errno) => rt::log!("what was written last is lost: {errno}"),
        }
    }

    /// Has a file system write back.
    fn sync(&self, fs: Endpoint) -> Result<(), Errno> {
        self.ask(fs, fs::Sync { ino: 0 })
    }

    /// Tells the root file system, in place of VFS, which pages programs changed.
    fn collect(&self) -> Result<(), Errno> {
        let (dev, ino) = (self.root_dev, 0);
        self.ask(Endpoint::VM, vm::CollectWritten { dev, ino })
    }

    /// Asks who takes part in saving, and waits for the answer. `ETIMEDOUT`; `EIO` when the root file
    /// system or its disk dies, too.
    fn ask<R: Request<How = Ask>>(&self, who: Endpoint, request: R) -> Result<(), Errno> {
        outbox::ask(who, 1, request);
        let mut saving = Saving {
            watch: self,
            asked: (who, R::ANSWER),
            saved: None,
        };
        serve::until(&mut saving, |saving| saving.saved)?;
        Ok(())
    }

    /// Stops the device of a dead service, frees its memory, and wakes who waits for it.
    fn bury(&self, service: &Service, who: Endpoint) -> Result<(), Errno> {
        let place = service.device.and_then(|d| self.devices.place(d));
        let stopped = place.map_or(Ok(()), |place| devices::reset(&place));
        let freed = stopped.and_then(|()| ipc::call(Endpoint::VM, vm::Exit { who }));
        // In any case: a process without a space, or a stopped one that keeps it.
        kernel::proc_exit(who)?;
        freed
    }

    fn late(&self) -> ! {
        for (index, service) in SERVICES.iter().enumerate() {
            if self.pending & 1 << index != 0 {
                rt::log!(
                    "service {} ({}) did not start in {} s",
                    service.name,
                    self.endpoints[index],
                    START_TIMEOUT_NS / 1_000_000_000
                );
            }
        }
        fail!("the system did not come up")
    }

    /// Where a service is in the table.
    fn index(&self, who: Endpoint) -> Option<usize> {
        self.endpoints.iter().position(|&e| e == who)
    }

    fn name(&self, who: Endpoint) -> &'static str {
        match who {
            Endpoint::VM => "vm",
            Endpoint::RS => "rs",
            _ => self.index(who).map_or("?", |index| SERVICES[index].name),
        }
    }
}

/// A receive that fails leaves RS deaf.
fn receive(last: Option<Last>) -> Result<Received, Errno> {
    serve::receive(last).map_err(|errno| fail!("receiving: {errno}"))
}

impl Server for Watch<'_> {}

abi::serve! { ['a] Watch<'a>;
    rs::Started => |watch, source, r| watch.report(source, r.status);
    rs::Crash => |watch, _, r| watch.crash(&r.name);
    rs::Faulted => |watch, _, r| watch.died(
        r.who,
        format_args!("page fault at {:#x} (code {:#x}), rip {:#x}", r.address, r.code, r.rip),
    );
}

impl serve::Service for Watch<'_> {
    fn serve(&mut self, received: &Received) -> Handled {
        let Received {
            source,
            class,
            ref message,
        } = *received;
        match class {
            Class::Exception => {
                let Exception { vector, code, rip } = Exception::of(message);
                self.died(
                    source,
                    format_args!("exception {vector} (code {code:#x}) at {rip:#x}"),
                );
                Handled::NOTHING
            }
            _ if is_answer(class, message) => {
                let admitted = abi::proto::admit(source, class, message.kind);
                if admitted.is_ok() {
                    self.answer = Some(*message);
                }
                Handled {
                    answer: None,
                    refused: admitted.err(),
                }
            }
            _ => rs::serve(self, source, class, message),
        }
    }

    fn notified(&mut self, bits: KernelNotify) {
        if bits.contains(KernelNotify::TIMER) && self.pending != 0 {
            self.late();
        }
    }

    fn receive(&mut self, last: Option<Last>) -> Result<Received, Errno> {
        receive(last)
    }
}

/// RS while what was written is saved: nothing else matters any more.
struct Saving<'a> {
    watch: &'a Watch<'a>,
    /// Who was asked, and the kind of its answer.
    asked: (Endpoint, u64),
    saved: Option<Result<(), Errno>>,
}

impl serve::Service for Saving<'_> {
    fn serve(&mut self, received: &Received) -> Handled {
        let Received {
            source,
            class,
            ref message,
        } = *received;
        let needed = [Id::Root, Id::Disk].map(|id| self.watch.endpoints[id as usize]);
        let root = needed[0];
        match class {
            Class::Post if (source, message.kind) == self.asked => {
                self.saved = Some(answered_status(message));
            }
            Class::Post
                if message.kind == vfs::PagesWritten::KIND
                    && vfs::admit(source, class, message.kind).is_ok() =>
            {
                if let Some(r) = vfs::PagesWritten::decode(message)
                    && r.dev == self.watch.root_dev
                {
                    let (ino, offset, len) = (r.ino, r.offset, r.len);
                    outbox::post(root, fs::PagesWritten { ino, offset, len });
                }
            }
            Class::Exception if needed.contains(&source) => self.saved = Some(Err(Errno::EIO)),
            Class::Call => return Handled::failed(class, message, Errno::EIO),
            _ => {}
        }
        Handled::NOTHING
    }

    fn notified(&mut self, bits: KernelNotify) {
        if bits.contains(KernelNotify::TIMER) {
            self.saved = Some(Err(Errno::ETIMEDOUT));
        }
    }

    fn receive(&mut self, last: Option<Last>) -> Result<Received, Errno> {
        receive(last)
    }
}
