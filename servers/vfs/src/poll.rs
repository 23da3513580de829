//! Waiting for readiness: what poll(2), select(2) and epoll have in common.

use crate::file::{Asked, OpenFile, look};
use crate::state::Caller;
use crate::wait::{Either, either};
use abi::Errno;
use alloc::rc::Rc;
use linux_raw_sys::general as linux;

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
        let changed = c.vfs.base.readiness.wait();
        let found = ready(c.vfs.round()).await?;
        if found == 0 && c.process.subject.interrupt.pending() {
            return Err(Errno::ERESTARTNOHAND);
        }
        if found > 0 || deadline == Some(0) {
            return Ok(found);
        }
        let woken = either(changed, c.process.subject.interrupt.wait());
        let woken = match deadline {
            None => Either::First(woken.await),
            Some(deadline) => either(woken, c.vfs.base.timers.until(deadline)).await,
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
