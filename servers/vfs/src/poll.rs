//! Waiting for readiness: what poll(2), select(2) and epoll have in common.

use crate::file::{Kind, OpenFile};
use crate::state::{Caller, Vfs};
use crate::wait::{Either, either};
use abi::Errno;
use alloc::boxed::Box;
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
    pub fn new(vfs: &Vfs) -> Changes {
        Changes {
            here: Event::new(),
            everywhere: vfs.readiness.clone(),
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
    pub async fn wait(&self, c: &Caller, nonblock: bool) -> Result<(), Errno> {
        if nonblock {
            return Err(Errno::EAGAIN);
        }
        match either(self.here.wait(), c.process.interrupt.wait()).await {
            Either::First(()) => Ok(()),
            Either::Second(()) => Err(Errno::ERESTARTSYS),
        }
    }

    /// [`Changes::wait`] until `deadline`, ns since boot: `EAGAIN` when it has passed. After a signal
    /// a call with a deadline is not made again: that would wait for the whole time anew
    /// (`sock_intr_errno`).
    pub async fn wait_until(&self, c: &Caller, deadline: Option<u64>) -> Result<(), Errno> {
        let Some(deadline) = deadline else {
            return self.wait(c, false).await;
        };
        match either(self.wait(c, false), c.vfs.timers.until(deadline)).await {
            Either::First(Err(Errno::ERESTARTSYS)) => Err(Errno::EINTR),
            Either::First(result) => result,
            Either::Second(()) => Err(Errno::EAGAIN),
        }
    }
}

/// What a driver said when it was last asked, and at which [`crate::device::Driver::readiness`].
pub type Asked = Option<(u64, u32)>;

/// POLL* bits of a file, among `events` and [`UNASKED`]. `round` is [`Vfs::round`] of the look that it is a
/// part of.
pub async fn look(file: &OpenFile, events: u32, asked: &mut Asked, round: u64) -> u32 {
    let ready = match &file.kind {
        Kind::File | Kind::Block(_) => READABLE | WRITABLE,
        Kind::Path => linux::POLLNVAL,
        Kind::Pipe(end) => end.poll(),
        Kind::Event(counter) => counter.poll(),
        Kind::Socket(socket) => socket.poll(),
        Kind::Timer(timer) => timer.poll(),
        Kind::Epoll(epoll) => Box::pin(epoll.poll(round)).await,
        Kind::Device(driver, minor) => {
            let now = driver.readiness.get();
            match *asked {
                Some((at, ready)) if at == now => ready,
                _ => {
                    let answer = driver.poll(*minor, events | UNASKED).await;
                    let ready = answer.unwrap_or(linux::POLLERR);
                    *asked = Some((now, ready));
                    ready
                }
            }
        }
    };
    ready & (events | UNASKED)
}

/// One file to wait for.
pub struct Item {
    /// The file; `None` is told as [`linux::POLLNVAL`].
    pub file: Option<Rc<OpenFile>>,
    /// POLL* bits wanted.
    pub events: u32,
    /// POLL* bits found.
    pub ready: u32,
    asked: Asked,
}

impl Item {
    /// A file to wait for.
    pub fn new(file: Option<Rc<OpenFile>>, events: u32) -> Item {
        Item {
            file,
            events,
            ready: 0,
            asked: None,
        }
    }

    /// Whether `other` is the same file for the same events.
    fn asks_as(&self, other: &Item) -> bool {
        match (&self.file, &other.file) {
            (Some(one), Some(other_file)) => {
                Rc::ptr_eq(one, other_file) && self.events == other.events
            }
            _ => false,
        }
    }

    async fn look(&mut self, round: u64) {
        self.ready = match &self.file {
            Some(file) => look(file, self.events, &mut self.asked, round).await,
            None => linux::POLLNVAL,
        };
    }
}

/// Waits until `ready`, which is told the round, finds something or `deadline` (ns since boot, 0: at once) has passed; 0
/// then. `ERESTARTNOHAND` when a signal came first.
pub async fn until(
    c: &Caller,
    deadline: Option<u64>,
    mut ready: impl AsyncFnMut(u64) -> Result<u64, Errno>,
) -> Result<u64, Errno> {
    loop {
        // Taken first: what changes while drivers are asked must not be missed.
        let changed = c.vfs.readiness.wait();
        let found = ready(c.vfs.round()).await?;
        if found == 0 && c.process.interrupt.pending() {
            return Err(Errno::ERESTARTNOHAND);
        }
        if found > 0 || deadline == Some(0) {
            return Ok(found);
        }
        let woken = either(changed, c.process.interrupt.wait());
        let woken = match deadline {
            None => Either::First(woken.await),
            Some(deadline) => either(woken, c.vfs.timers.until(deadline)).await,
        };
        match woken {
            Either::First(Either::First(())) => {}
            Either::First(Either::Second(())) => return Err(Errno::ERESTARTNOHAND),
            Either::Second(()) => return Ok(0),
        }
    }
}

/// Waits until one of `items` is ready, as [`until`] does; how many are.
pub async fn wait(c: &Caller, items: &mut [Item], deadline: Option<u64>) -> Result<u64, Errno> {
    until(c, deadline, async |round| {
        for i in 0..items.len() {
            let (before, rest) = items.split_at_mut(i);
            // A file that is there many times is asked once.
            match before.last() {
                Some(last) if rest[0].asks_as(last) => rest[0].ready = last.ready,
                _ => rest[0].look(round).await,
            }
        }
        Ok(items.iter().filter(|item| item.ready != 0).count() as u64)
    })
    .await
}
