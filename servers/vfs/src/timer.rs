//! timerfd(2): a time that can be waited for.

use crate::changes::{Changes, READABLE};
use crate::context::{Base, Context};
use crate::memory::Memory;
use crate::wait::either;
use abi::Errno;
use alloc::rc::Rc;
use core::cell::Cell;
use rt::task::Event;

/// A timer. Times are ns since boot, whichever clock the program counts by.
pub struct Timer {
    /// Whether the program counts by CLOCK_REALTIME.
    pub realtime: bool,
    /// When it expires next; 0: never.
    next: Cell<u64>,
    interval: Cell<u64>,
    /// Advances with every setting, so that an old alarm does nothing.
    setting: Cell<u64>,
    /// Signalled with every setting, and at the end: an old alarm need not sleep on.
    reset: Rc<Event>,
    base: Rc<Base>,
    /// What waits for it.
    pub changes: Changes,
}

impl Timer {
    /// A timer that is not set.
    pub fn new(base: &Rc<Base>, realtime: bool) -> Rc<Timer> {
        Rc::new(Timer {
            realtime,
            next: Cell::new(0),
            interval: Cell::new(0),
            setting: Cell::new(0),
            reset: Rc::default(),
            base: base.clone(),
            changes: Changes::new(base),
        })
    }

    fn now(&self) -> u64 {
        self.base.machine.now()
    }

    /// Has it expire at `next` (0: never) and then every `interval` (0: once).
    pub fn set(self: &Rc<Self>, next: u64, interval: u64) {
        self.interval.set(interval);
        self.aim(next);
    }

    /// Time to the next expiry (0: not set) and the interval, ns.
    pub fn left(&self) -> (u64, u64) {
        let (now, next, interval) = (self.now(), self.next.get(), self.interval.get());
        let left = match next {
            0 => 0,
            _ if next > now => next - now,
            // It has expired, and will again.
            _ if interval > 0 => interval - (now - next) % interval,
            _ => 0,
        };
        (left, interval)
    }

    /// Wakes who waits at the next expiry. There is one alarm at a time: a timer that nobody
    /// reads costs nothing however short its interval is.
    fn aim(self: &Rc<Self>, next: u64) {
        self.next.set(next);
        self.setting.set(self.setting.get() + 1);
        self.reset.signal();
        if next == 0 {
            return;
        }
        let (timer, setting) = (Rc::downgrade(self), self.setting.get());
        let (base, reset) = (self.base.clone(), self.reset.clone());
        let valid = move || timer.upgrade().filter(|t| t.setting.get() == setting);
        self.base.spawner.spawn(async move {
            if valid().is_none() {
                return;
            }
            either(base.timers.until(next), reset.wait()).await;
            if let Some(timer) = valid() {
                timer.changes.input();
            }
        });
    }

    /// Expiries since they were last taken.
    fn expired(&self) -> u64 {
        let (now, next, interval) = (self.now(), self.next.get(), self.interval.get());
        match (next, interval) {
            (0, _) => 0,
            _ if next > now => 0,
            (_, 0) => 1,
            _ => 1 + (now - next) / interval,
        }
    }

    /// read(2): the number of expiries.
    pub async fn read(
        self: &Rc<Self>,
        c: Context<'_>,
        memory: Memory<'_>,
        nonblock: bool,
    ) -> Result<u64, Errno> {
        let Memory::User { who, address, len } = memory else {
            return Err(Errno::EINVAL);
        };
        if len < 8 {
            return Err(Errno::EINVAL);
        }
        let count = loop {
            match self.expired() {
                0 => self.changes.wait(c, nonblock).await?,
                count => break count,
            }
        };
        match self.interval.get() {
            0 => self.next.set(0),
            interval => self.aim(
                self.next
                    .get()
                    .saturating_add(count.saturating_mul(interval)),
            ),
        }
        // It has been read, however much of it there is room for (Linux).
        let memory = c.memory_of(who);
        let told = memory.write_some(address, &count.to_le_bytes()).await?;
        Ok(told as u64)
    }

    /// POLL* bits.
    pub fn poll(&self) -> u32 {
        if self.expired() > 0 { READABLE } else { 0 }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.reset.signal();
    }
}
