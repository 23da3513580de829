//! What objects tell of themselves to who waits for them.

use crate::context::{Base, Context};
use crate::wait::{Either, either};
use abi::Errno;
use alloc::rc::Rc;
use core::cell::Cell;
use linux_raw_sys::general as linux;
use rt::task::Event;

/// Ready for reading.
pub const READABLE: u32 = linux::POLLIN | linux::POLLRDNORM;
/// Ready for writing.
pub const WRITABLE: u32 = linux::POLLOUT | linux::POLLWRNORM;
/// Told even when nobody asked.
pub const UNASKED: u32 = linux::POLLERR | linux::POLLHUP | linux::POLLNVAL;

/// How often an object became readable and writable: who has seen a count knows whether
/// anything happened since, even if it looks the same again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Something came in.
    pub input: u64,
    /// Something may go out.
    pub output: u64,
}

/// What an object that can be waited for tells: its own waiters, and who polls.
pub struct Changes {
    here: Event,
    everywhere: Rc<Event>,
    counts: Cell<Counts>,
}

impl Changes {
    /// Nothing has changed yet.
    pub fn new(base: &Base) -> Changes {
        Changes {
            here: Event::new(),
            everywhere: base.readiness.clone(),
            counts: Cell::default(),
        }
    }

    fn add(&self, input: u64, output: u64) {
        let now = self.counts.get();
        self.counts.set(Counts {
            input: now.input + input,
            output: now.output + output,
        });
        self.here.signal();
        self.everywhere.signal();
    }

    /// There is something to read.
    pub fn input(&self) {
        self.add(1, 0);
    }

    /// There is room to write.
    pub fn output(&self) {
        self.add(0, 1);
    }

    /// Both, or an end.
    pub fn both(&self) {
        self.add(1, 1);
    }

    /// How much has changed.
    pub fn counts(&self) -> Counts {
        self.counts.get()
    }

    /// Waits for the next change: `EAGAIN` when the caller does not want to, `ERESTARTSYS`
    /// when a signal came first.
    pub async fn wait(&self, c: Context<'_>, nonblock: bool) -> Result<(), Errno> {
        if nonblock {
            return Err(Errno::EAGAIN);
        }
        match either(self.here.wait(), c.subject.interrupt.wait()).await {
            Either::First(()) => Ok(()),
            Either::Second(()) => Err(Errno::ERESTARTSYS),
        }
    }

    /// [`Changes::wait`] until `deadline`, ns since boot: `EAGAIN` when it has passed. After a signal
    /// a call with a deadline is not made again: that would wait for the whole time anew
    /// (`sock_intr_errno`).
    pub async fn wait_until(&self, c: Context<'_>, deadline: Option<u64>) -> Result<(), Errno> {
        let Some(deadline) = deadline else {
            return self.wait(c, false).await;
        };
        match either(self.wait(c, false), c.base.timers.until(deadline)).await {
            Either::First(Err(Errno::ERESTARTSYS)) => Err(Errno::EINTR),
            Either::First(result) => result,
            Either::Second(()) => Err(Errno::EAGAIN),
        }
    }
}
