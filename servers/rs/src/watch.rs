//! Waiting: for services to come up, and then for one to die.

use abi::kernel::{Exception, KernelNotify};
use abi::lab::POWEROFF_PANIC;
use abi::proto::rs::Started;
use abi::{Class, Endpoint, Errno, Message, Request};
use rt::ipc::{self, Received};
use rt::kernel;

use crate::services::{Endpoints, SERVICES};

/// How long the services may take until all serve. A machine that needs longer is as good as
/// one that hangs, even under emulation.
const START_TIMEOUT_NS: u64 = 20_000_000_000;

/// Status of a machine that was not given what it needs: a disk, a sound file system.
const POWEROFF_REFUSED: u64 = 1;

/// Says why the system cannot go on and ends the machine.
pub fn fail(reason: core::fmt::Arguments<'_>) -> ! {
    rt::log::line(reason);
    kernel::power_off(POWEROFF_PANIC)
}

/// Says what is missing and ends the machine. Nothing of the system is broken.
pub fn refuse(reason: core::fmt::Arguments<'_>) -> ! {
    rt::log::line(reason);
    kernel::power_off(POWEROFF_REFUSED)
}

/// [`fail()`] with a formatted reason.
#[macro_export]
macro_rules! fail {
    ($($arg:tt)*) => { $crate::watch::fail(format_args!($($arg)*)) };
}

/// [`refuse()`] with a formatted reason.
#[macro_export]
macro_rules! refuse {
    ($($arg:tt)*) => { $crate::watch::refuse(format_args!($($arg)*)) };
}

/// The services while they run.
pub struct Watch<'a> {
    endpoints: &'a Endpoints,
    /// Those that have not said that they serve, a bit each.
    pending: u32,
}

impl<'a> Watch<'a> {
    /// Nothing is waited for yet.
    pub const fn new(endpoints: &'a Endpoints) -> Watch<'a> {
        Watch {
            endpoints,
            pending: 0,
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
        while self.pending != 0 {
            self.handle(&self.receive(), true);
        }
        // An expiry that is already on its way is ignored once nothing is pending.
        let _ = kernel::set_timer(0);
    }

    /// Watches for ever.
    pub fn watch(mut self) -> ! {
        loop {
            let received = self.receive();
            self.handle(&received, false);
        }
    }

    fn receive(&self) -> Received {
        match ipc::receive() {
            Ok(received) => received,
            Err(errno) => fail!("receiving: {errno}"),
        }
    }

    fn handle(&mut self, received: &Received, starting: bool) {
        let source = received.source;
        match received.class {
            Class::Kernel => {
                let bits = KernelNotify::from_bits_truncate(received.message.words[0]);
                if bits.contains(KernelNotify::DEAD) {
                    self.dead();
                }
                if bits.contains(KernelNotify::TIMER) && starting {
                    self.late();
                }
            }
            Class::Exception => {
                let exception = Exception::from_words(&received.message.words);
                fail!(
                    "service {} ({source}) died: exception {} (code {:#x}) at {:#x}",
                    self.name(source),
                    exception.vector,
                    exception.code,
                    exception.rip
                );
            }
            Class::Post if received.message.kind == Started::KIND => {
                self.report(source, &received.message);
            }
            Class::Call => {
                // RS has no requests that are called.
                let _ = ipc::reply_raw(source, Message::error(Errno::ENOSYS));
            }
            _ => rt::log!(
                "unexpected {:?} of kind {:#x} from {} ({source})",
                received.class,
                received.message.kind,
                self.name(source)
            ),
        }
    }

    /// A service says that it serves, or that it gives up.
    fn report(&mut self, source: Endpoint, message: &Message) {
        let Some(index) = self.index(source) else {
            return;
        };
        let status = Started::decode(message).map_or(-i64::from(Errno::EIO.0), |m| m.status);
        if status != 0 {
            let errno = abi::errno::result_from_word(status as u64)
                .err()
                .unwrap_or(Errno::EIO);
            refuse!("service {} cannot start: {errno}", SERVICES[index].name);
        }
        self.pending &= !(1 << index);
    }

    /// Names all dead services and ends the machine.
    fn dead(&self) {
        let mut last = None;
        while let Ok(who) = kernel::get_dead() {
            let name = self.name(who);
            rt::log!("service {name} ({who}) is dead");
            last = Some(name);
        }
        if let Some(name) = last {
            fail!("the system cannot go on without service {name}");
        }
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
