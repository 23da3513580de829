//! epoll(7): a set of files to wait for.
//!
//! A set refers weakly to its files: one that is closed everywhere is no longer in it.
//! *Edges* are found by the counts of [`Changes`], not by looking whether a file was unready
//! in between, which nobody may have seen.

use crate::file::{Kind, OpenFile};
use crate::poll::{Asked, Changes, Counts, READABLE, look};
use crate::state::{Caller, Vfs};
use abi::Errno;
use alloc::collections::BTreeMap;
use alloc::rc::{Rc, Weak};
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use linux_raw_sys::general as linux;
use rt::charge::Charge;
use rt::fallible;

/// Sets within sets.
const NESTED_MAX: usize = 5;
/// What of `events` is a matter of output; the rest is input.
const OUTPUT: u32 = linux::POLLOUT | linux::POLLWRNORM | linux::POLLWRBAND;

/// What a watch is for: the descriptor it was added as, and the open file.
type Key = (i32, u64);

/// A file in a set.
struct Watch {
    key: Key,
    file: Weak<OpenFile>,
    events: Cell<u32>,
    data: Cell<u64>,
    /// EPOLLONESHOT has told once.
    spent: Cell<bool>,
    /// What had happened to the file when it was last told of (for EPOLLET).
    told: Cell<Option<Counts>>,
    asked: Cell<Asked>,
    _charge: Charge,
}

impl Watch {
    /// POLL* bits to tell of now, and what had happened to the file by then.
    async fn look(&self) -> (u32, Counts) {
        let Some(file) = self.file.upgrade().filter(|_| !self.spent.get()) else {
            return (0, Counts::default());
        };
        let events = self.events.get();
        let mut asked = self.asked.get();
        let counts = file.counts();
        let mut ready = look(&file, events & !FLAGS, &mut asked).await;
        self.asked.set(asked);
        if events & linux::EPOLLET != 0
            && let Some(told) = self.told.get()
        {
            // Who is told at all is told of everything that is so, as on Linux.
            let came = told.input != counts.input && events & !OUTPUT != 0;
            let freed = told.output != counts.output && events & OUTPUT != 0;
            if !came && !freed {
                ready = 0;
            }
        }
        (ready, counts)
    }

    /// The program is told of what had happened.
    fn tell(&self, counts: Counts) {
        let events = self.events.get();
        self.told.set(Some(counts));
        self.spent.set(events & linux::EPOLLONESHOT != 0);
    }
}

/// The bits of an event that are no readiness.
const FLAGS: u32 =
    linux::EPOLLET | linux::EPOLLONESHOT | linux::EPOLLWAKEUP | linux::EPOLLEXCLUSIVE;

/// A set.
pub struct Epoll {
    watches: RefCell<BTreeMap<Key, Rc<Watch>>>,
    /// Whom it told of last: the others come first the next time.
    last: Cell<Option<Key>>,
    /// What waits for it.
    pub changes: Changes,
}

impl Epoll {
    /// An empty set.
    pub fn new(vfs: &Vfs) -> Rc<Epoll> {
        Rc::new(Epoll {
            watches: RefCell::default(),
            last: Cell::new(None),
            changes: Changes::new(vfs),
        })
    }

    /// EPOLL_CTL_ADD: `EEXIST`, `EPERM` for what is always ready, `ELOOP`, `EINVAL` for
    /// itself, `ENOSPC` when the user watches too many.
    pub fn add(
        self: &Rc<Self>,
        c: &Caller,
        fd: i32,
        file: &Rc<OpenFile>,
        events: u32,
        data: u64,
    ) -> Result<(), Errno> {
        match &file.kind {
            Kind::File | Kind::Block(_) => return Err(Errno::EPERM),
            Kind::Path => return Err(Errno::EBADF),
            Kind::Epoll(inner) if Rc::ptr_eq(inner, self) => return Err(Errno::EINVAL),
            Kind::Epoll(inner) => inner.check_nesting(self, 1)?,
            _ => {}
        }
        let key = (fd, file.id);
        let mut watches = self.watches.borrow_mut();
        watches.retain(|_, watch| watch.file.strong_count() > 0);
        if watches.contains_key(&key) {
            return Err(Errno::EEXIST);
        }
        let charge = c.vfs.accounts.watches.charge(c.payer(), 1);
        let watch = Watch {
            key,
            file: Rc::downgrade(file),
            events: Cell::new(events),
            data: Cell::new(data),
            spent: Cell::new(false),
            told: Cell::new(None),
            asked: Cell::new(None),
            _charge: charge.ok_or(Errno::ENOSPC)?,
        };
        watches.insert(key, Rc::new(watch));
        drop(watches);
        self.changes.input();
        Ok(())
    }

    /// `ELOOP` if this set has `outer` in it, or others too deep.
    fn check_nesting(&self, outer: &Rc<Epoll>, depth: usize) -> Result<(), Errno> {
        if depth >= NESTED_MAX {
            return Err(Errno::ELOOP);
        }
        for watch in self.watches.borrow().values() {
            if let Some(file) = watch.file.upgrade()
                && let Kind::Epoll(inner) = &file.kind
            {
                if Rc::ptr_eq(inner, outer) {
                    return Err(Errno::ELOOP);
                }
                inner.check_nesting(outer, depth + 1)?;
            }
        }
        Ok(())
    }

    /// EPOLL_CTL_MOD: `ENOENT`.
    pub fn modify(&self, fd: i32, file: &OpenFile, events: u32, data: u64) -> Result<(), Errno> {
        let watches = self.watches.borrow();
        let watch = watches.get(&(fd, file.id)).ok_or(Errno::ENOENT)?;
        watch.events.set(events);
        watch.data.set(data);
        watch.spent.set(false);
        watch.told.set(None);
        watch.asked.set(None);
        self.changes.input();
        Ok(())
    }

    /// EPOLL_CTL_DEL: `ENOENT`.
    pub fn remove(&self, fd: i32, file: &OpenFile) -> Result<(), Errno> {
        let watch = self.watches.borrow_mut().remove(&(fd, file.id));
        watch.map(|_| ()).ok_or(Errno::ENOENT)
    }

    /// The watches, those after the one last told of first.
    fn in_turn(&self) -> Result<Vec<Rc<Watch>>, Errno> {
        let watches = self.watches.borrow();
        let last = self.last.get();
        let late = |watch: &&Rc<Watch>| last.is_none_or(|last| watch.key > last);
        let mut all = fallible::list(watches.len())?;
        all.extend(watches.values().filter(late).cloned());
        all.extend(watches.values().filter(|watch| !late(watch)).cloned());
        Ok(all)
    }

    /// At most `max` of the files that are ready: events and data of each. `ENOMEM`.
    pub async fn take(&self, max: usize) -> Result<Vec<(u32, u64)>, Errno> {
        let watches = self.in_turn()?;
        let mut found = fallible::list(max.min(watches.len()))?;
        for watch in watches {
            if found.len() == max {
                break;
            }
            let (ready, counts) = watch.look().await;
            if ready != 0 {
                watch.tell(counts);
                self.last.set(Some(watch.key));
                found.push((ready, watch.data.get()));
            }
        }
        Ok(found)
    }

    /// POLL* bits: readable when a file in it is ready.
    pub async fn poll(&self) -> u32 {
        // Without memory to go through them: who reads it finds out.
        let Ok(watches) = self.in_turn() else {
            return READABLE;
        };
        for watch in watches {
            if watch.look().await.0 != 0 {
                return READABLE;
            }
        }
        0
    }
}
