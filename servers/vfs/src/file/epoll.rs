//! epoll(7): a set of files to wait for.
//!
//! A set refers weakly to its files: one that is closed everywhere is no longer in it.
//! *Edges* are found by the counts of [`Changes`], not by looking whether a file was unready
//! in between, which nobody may have seen.

use super::{Asked, Kind, OpenFile, look};
use crate::changes::{Changes, Counts, READABLE};
use crate::context::{Base, Context};
use abi::Errno;
use abi::proto::device::numbers;
use alloc::collections::BTreeMap;
use alloc::rc::{Rc, Weak};
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::ops::Bound;
use linux_raw_sys::general as linux;
use rt::charge::Charge;
use rt::room;

/// Sets within sets.
const NESTED_MAX: usize = 5;
/// Ways from a file to the sets that are in no other, by the number of sets that are passed on them: what happens to the file
/// is told along each (Linux's path_limits). Those that are asked directly are no matter.
const WAYS: [u32; NESTED_MAX] = [u32::MAX, 500, 100, 50, 10];
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
    async fn look(&self, round: u64) -> (u32, Counts) {
        let Some(file) = self.file.upgrade().filter(|_| !self.spent.get()) else {
            return (0, Counts::default());
        };
        let events = self.events.get();
        let mut asked = self.asked.get();
        let counts = file.counts();
        let mut ready = look(&file, events & !FLAGS, &mut asked, round).await;
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

/// Which way sets are followed.
#[derive(Clone, Copy)]
enum Direction {
    /// To those in a set.
    Inner,
    /// To those that it is in.
    Outer,
}

/// The bits of an event that are no readiness.
const FLAGS: u32 =
    linux::EPOLLET | linux::EPOLLONESHOT | linux::EPOLLWAKEUP | linux::EPOLLEXCLUSIVE;

/// A set.
pub struct Epoll {
    watches: RefCell<BTreeMap<Key, Rc<Watch>>>,
    /// Whom it told of last: the others come first the next time.
    last: Cell<Option<Key>>,
    /// Sets that it is in.
    outer: RefCell<Vec<Weak<Epoll>>>,
    /// The latest round in which it was looked through as a part of others, and what was found.
    found: Cell<(u64, u32)>,
    /// What waits for it.
    pub changes: Changes,
}

impl Epoll {
    /// An empty set.
    pub fn new(base: &Base) -> Rc<Epoll> {
        Rc::new(Epoll {
            watches: RefCell::default(),
            last: Cell::new(None),
            outer: RefCell::default(),
            found: Cell::new((0, 0)),
            changes: Changes::new(base),
        })
    }

    /// EPOLL_CTL_ADD: `EEXIST`, `EPERM` for what is always ready, `ELOOP`, `EINVAL` for
    /// itself and for too many ways, `ENOSPC` when the user watches too many.
    pub fn add(
        self: &Rc<Self>,
        c: Context<'_>,
        fd: i32,
        file: &Rc<OpenFile>,
        events: u32,
        data: u64,
    ) -> Result<(), Errno> {
        // Sets with files of which more are told now, or that are told of more.
        let mut told = Vec::new();
        match &file.kind {
            Kind::File | Kind::Block(_) => return Err(Errno::EPERM),
            Kind::Device(driver, minor)
                if driver.major == numbers::MEM_MAJOR && *minor != numbers::RANDOM_MINOR =>
            {
                return Err(Errno::EPERM);
            }
            Kind::Path => return Err(Errno::EBADF),
            Kind::Epoll(inner) if Rc::ptr_eq(inner, self) => return Err(Errno::EINVAL),
            Kind::Epoll(inner) => {
                let (below, deep) = inner.reach(Direction::Inner)?;
                let (_, high) = self.reach(Direction::Outer)?;
                let circle = below.iter().any(|set| Rc::ptr_eq(set, self));
                if circle || deep + high > NESTED_MAX {
                    return Err(Errno::ELOOP);
                }
                told = below;
            }
            _ => room::push(&mut told, self.clone())?,
        }
        let key = (fd, file.id);
        let mut watches = self.watches.borrow_mut();
        watches.retain(|_, watch| watch.file.strong_count() > 0);
        if watches.contains_key(&key) {
            return Err(Errno::EEXIST);
        }
        let charge = c.base.accounts.watches.charge(c.payer(), 1);
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
        if let Kind::Epoll(inner) = &file.kind {
            let mut outer = inner.outer.borrow_mut();
            outer.retain(|set| set.strong_count() > 0);
            room::push(&mut outer, Rc::downgrade(self))?;
        }
        watches.insert(key, Rc::new(watch));
        drop(watches);
        if told.iter().any(|set| set.has_files() && !set.ways_fit()) {
            self.remove(fd, file)?;
            return Err(Errno::EINVAL);
        }
        self.changes.input();
        Ok(())
    }

    /// Whether there is anything in it but sets.
    fn has_files(&self) -> bool {
        let watches = self.watches.borrow();
        let mut files = watches.values().filter_map(|watch| watch.file.upgrade());
        files.any(|file| !matches!(file.kind, Kind::Epoll(_)))
    }

    /// Whether there are no more ways from a file in it than [`WAYS`].
    fn ways_fit(&self) -> bool {
        let mut left = WAYS;
        self.take_ways(0, &mut left)
    }

    fn take_ways(&self, passed: usize, left: &mut [u32; NESTED_MAX]) -> bool {
        let outer = self.outer.borrow();
        let mut outer = outer.iter().filter_map(Weak::upgrade).peekable();
        if outer.peek().is_some() {
            return outer.all(|set| set.take_ways(passed + 1, left));
        }
        let Some((left, less)) = left
            .get_mut(passed)
            .and_then(|left| left.checked_sub(1).map(|less| (left, less)))
        else {
            return false;
        };
        *left = less;
        true
    }

    /// Sets one within the other from this one on, itself included, and how many one within the other they are: `ELOOP` when
    /// those are more than [`NESTED_MAX`]. Each set is looked at once for each depth, however often it is in others.
    fn reach(self: &Rc<Self>, direction: Direction) -> Result<(Vec<Rc<Epoll>>, usize), Errno> {
        let mut all = room::vector(1)?;
        all.push(self.clone());
        let mut level = 0;
        for depth in 1..=NESTED_MAX {
            let mut next = Vec::new();
            let mut result = Ok(());
            for set in &all[level..] {
                set.for_each(direction, |set| {
                    result = result.and_then(|()| room::push(&mut next, set));
                });
            }
            result?;
            next.sort_unstable_by_key(Rc::as_ptr);
            next.dedup_by(|one, other| Rc::ptr_eq(one, other));
            if next.is_empty() {
                return Ok((all, depth));
            }
            level = all.len();
            all.try_reserve(next.len()).map_err(|_| Errno::ENOMEM)?;
            all.append(&mut next);
        }
        Err(Errno::ELOOP)
    }

    /// The sets that are in this one, or that it is in.
    fn for_each(&self, direction: Direction, mut found: impl FnMut(Rc<Epoll>)) {
        match direction {
            Direction::Inner => {
                for watch in self.watches.borrow().values() {
                    if let Some(file) = watch.file.upgrade()
                        && let Kind::Epoll(inner) = &file.kind
                    {
                        found(inner.clone());
                    }
                }
            }
            Direction::Outer => {
                let outer = self.outer.borrow();
                outer.iter().filter_map(Weak::upgrade).for_each(found);
            }
        }
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
        if watch.is_some()
            && let Kind::Epoll(inner) = &file.kind
        {
            let mut outer = inner.outer.borrow_mut();
            let here = |set: &Weak<Epoll>| core::ptr::eq(set.as_ptr(), self);
            if let Some(at) = outer.iter().position(here) {
                outer.swap_remove(at);
            }
        }
        watch.map(|_| ()).ok_or(Errno::ENOENT)
    }

    /// The next watch after one, that is not behind `end`.
    fn after(&self, key: Bound<Key>, end: Bound<Key>) -> Option<Rc<Watch>> {
        let watches = self.watches.borrow();
        let found = watches.range((key, end)).next();
        found.map(|(_, watch)| watch.clone())
    }

    /// Asks about each watch until `ask` has enough, those after the one last told of first.
    async fn in_turn(&self, mut ask: impl AsyncFnMut(&Watch) -> bool) {
        let last = self.last.get();
        let (first, then) = match last {
            None => ((Bound::Unbounded, Bound::Unbounded), None),
            Some(last) => (
                (Bound::Excluded(last), Bound::Unbounded),
                Some((Bound::Unbounded, Bound::Included(last))),
            ),
        };
        for (mut at, end) in [Some(first), then].into_iter().flatten() {
            // Others may change the set while a driver is asked.
            while let Some(watch) = self.after(at, end) {
                if ask(&watch).await {
                    return;
                }
                at = Bound::Excluded(watch.key);
            }
        }
    }

    /// At most `max` of the files that are ready: events and data of each, into `found`; fewer when
    /// there is no memory for more.
    pub async fn take(&self, max: usize, round: u64, found: &mut Vec<(u32, u64)>) {
        self.in_turn(async |watch| {
            if found.len() == max {
                return true;
            }
            let (ready, counts) = watch.look(round).await;
            if ready == 0 {
                return false;
            }
            let told = room::push(found, (ready, watch.data.get())).is_ok();
            if told {
                watch.tell(counts);
                self.last.set(Some(watch.key));
            }
            !told
        })
        .await;
    }

    /// POLL* bits: readable when a file in it is ready. Looked through once in a `round`, however
    /// often it is in others.
    pub async fn poll(&self, round: u64) -> u32 {
        let (at, ready) = self.found.get();
        if at >= round {
            return ready;
        }
        let mut ready = 0;
        self.in_turn(async |watch| {
            if watch.look(round).await.0 != 0 {
                ready = READABLE;
            }
            ready != 0
        })
        .await;
        if self.found.get().0 < round {
            self.found.set((round, ready));
        }
        ready
    }
}
