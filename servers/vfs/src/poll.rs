//! Waiting for readiness: poll(2) and select(2).

use crate::file::{Kind, OpenFile};
use crate::state::Caller;
use crate::wait::{Either, either};
use abi::Errno;
use alloc::rc::Rc;
use linux_raw_sys::general as linux;

/// Always ready for both.
const BOTH: u32 = linux::POLLIN | linux::POLLRDNORM | linux::POLLOUT | linux::POLLWRNORM;
/// Told even when nobody asked.
const UNASKED: u32 = linux::POLLERR | linux::POLLHUP | linux::POLLNVAL;

/// One file to wait for.
pub struct Item {
    /// The file; `None` is told as [`linux::POLLNVAL`].
    pub file: Option<Rc<OpenFile>>,
    /// POLL* bits wanted.
    pub events: u32,
    /// POLL* bits found.
    pub ready: u32,
    /// The driver's [`crate::device::Driver::readiness`] when it was last asked.
    asked: Option<u64>,
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

    async fn look(&mut self) {
        let Some(file) = &self.file else {
            self.ready = linux::POLLNVAL;
            return;
        };
        let ready = match &file.kind {
            Kind::File | Kind::Block(_) => BOTH,
            Kind::Path => linux::POLLNVAL,
            Kind::Pipe(end) => end.poll(),
            Kind::Event(counter) => counter.poll(),
            Kind::Device(driver, minor) => {
                let now = driver.readiness.get();
                if self.asked == Some(now) {
                    return;
                }
                self.asked = Some(now);
                let events = self.events | UNASKED;
                driver.poll(*minor, events).await.unwrap_or(linux::POLLERR)
            }
        };
        self.ready = ready & (self.events | UNASKED);
    }
}

/// Waits until one of `items` is ready or `deadline` (ns since boot) has passed; how many
/// are ready. `EINTR` when a signal came first.
pub async fn wait(c: &Caller, items: &mut [Item], deadline: Option<u64>) -> Result<u64, Errno> {
    loop {
        // Taken first: what changes while drivers are asked must not be missed.
        let changed = c.vfs.readiness.wait();
        for item in items.iter_mut() {
            item.look().await;
        }
        let ready = items.iter().filter(|item| item.ready != 0).count() as u64;
        if ready == 0 && c.process.interrupt.pending() {
            return Err(Errno::EINTR);
        }
        if ready > 0 || deadline == Some(0) {
            return Ok(ready);
        }
        let woken = either(changed, c.process.interrupt.wait());
        let woken = match deadline {
            None => Either::First(woken.await),
            Some(deadline) => either(woken, c.vfs.timers.until(deadline)).await,
        };
        match woken {
            Either::First(Either::First(())) => {}
            Either::First(Either::Second(())) => return Err(Errno::EINTR),
            Either::Second(()) => return Ok(0),
        }
    }
}
