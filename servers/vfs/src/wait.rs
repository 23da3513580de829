//! Waiting: for either of two things, for a signal, for a time, for a turn.

use crate::counters::Counters;
use crate::machine::Machine;
use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use core::cell::{Cell, RefCell};
use core::future::Future;
use core::pin::{Pin, pin};
use core::task::{Context, Poll, Waker};
use rt::task::Event;

/// Which of two futures was first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Either<A, B> {
    /// The first.
    First(A),
    /// The second.
    Second(B),
}

/// Waits for whichever comes first; the first one wins a tie.
pub async fn either<A, B>(
    first: impl Future<Output = A>,
    second: impl Future<Output = B>,
) -> Either<A, B> {
    let mut first = pin!(first);
    let mut second = pin!(second);
    core::future::poll_fn(move |cx| {
        if let Poll::Ready(value) = first.as_mut().poll(cx) {
            return Poll::Ready(Either::First(value));
        }
        second.as_mut().poll(cx).map(Either::Second)
    })
    .await
}

/// Tells a process's current call that a signal waits. A process has one call at a time, so
/// one waker is enough.
#[derive(Default)]
pub struct Interrupt {
    pending: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Interrupt {
    /// A new call starts: what was meant for the last one is stale.
    pub fn reset(&self) {
        self.pending.set(false);
        self.waker.take();
    }

    /// Interrupts the current call.
    pub fn raise(&self) {
        self.pending.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Whether it was interrupted.
    pub fn pending(&self) -> bool {
        self.pending.get()
    }

    /// Waits for the interruption.
    pub fn wait(&self) -> impl Future<Output = ()> {
        core::future::poll_fn(|cx| {
            if self.pending.get() {
                return Poll::Ready(());
            }
            *self.waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
    }
}

/// The tasks that wait for a time, over the kernel's one timer.
pub struct Timers {
    machine: Rc<dyn Machine>,
    waiting: RefCell<BTreeMap<(u64, u64), Waker>>,
    next: Cell<u64>,
    armed: Cell<u64>,
}

impl Timers {
    /// Nobody waits.
    pub fn new(machine: Rc<dyn Machine>) -> Timers {
        Timers {
            machine,
            waiting: RefCell::default(),
            next: Cell::new(0),
            armed: Cell::new(0),
        }
    }

    /// Waits until `deadline`, ns since boot.
    pub fn until(&self, deadline: u64) -> Sleep<'_> {
        let id = self.next.get();
        self.next.set(id + 1);
        Sleep {
            timers: self,
            key: (deadline, id),
        }
    }

    fn arm(&self) {
        let first = self.waiting.borrow().keys().next().map_or(0, |key| key.0);
        // An expiry that finds nobody costs less than disarming at each wake.
        if first != 0 && first != self.armed.get() {
            self.armed.set(first);
            self.machine.set_timer(first);
        }
    }

    /// The kernel's timer expired: wakes whose time has come.
    pub fn expired(&self) {
        self.armed.set(0);
        let now = self.machine.now();
        loop {
            let mut waiting = self.waiting.borrow_mut();
            match waiting.first_entry() {
                Some(entry) if entry.key().0 <= now => {
                    let waker = entry.remove();
                    drop(waiting);
                    waker.wake();
                }
                _ => break,
            }
        }
        self.arm();
    }
}

/// The future of [`Timers::until`].
pub struct Sleep<'a> {
    timers: &'a Timers,
    key: (u64, u64),
}

impl Future for Sleep<'_> {
    type Output = ();
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.timers.machine.now() >= self.key.0 {
            return Poll::Ready(());
        }
        self.timers
            .waiting
            .borrow_mut()
            .insert(self.key, cx.waker().clone());
        self.timers.arm();
        Poll::Pending
    }
}

impl Drop for Sleep<'_> {
    fn drop(&mut self) {
        self.timers.waiting.borrow_mut().remove(&self.key);
    }
}

/// Lets one task at a time through (the position of an open file).
pub struct Turn {
    taken: Cell<bool>,
    free: Event,
    counters: Rc<Counters>,
}

impl Turn {
    /// Nobody's.
    pub fn new(counters: Rc<Counters>) -> Turn {
        Turn {
            taken: Cell::new(false),
            free: Event::default(),
            counters,
        }
    }

    /// Waits for the turn.
    pub async fn take(&self) -> TurnGuard<'_> {
        while self.taken.get() {
            self.free.wait().await;
        }
        self.taken.set(true);
        Counters::up(&self.counters.positions);
        TurnGuard(self)
    }
}

/// The turn, until it is dropped.
pub struct TurnGuard<'a>(&'a Turn);

impl Drop for TurnGuard<'_> {
    fn drop(&mut self) {
        self.0.taken.set(false);
        Counters::down(&self.0.counters.positions);
        self.0.free.signal();
    }
}
