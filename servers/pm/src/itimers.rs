//! Timers that raise signals: setitimer's three and POSIX timers.

use crate::calls::Caller;
use crate::server::Pm;
use crate::signal::info::Info;
use crate::signal::set::{SIGALRM, SIGPROF, SIGVTALRM, is_signal};
use crate::sleep::{Clock, SECOND, TIMER_ABSTIME, duration, microseconds, timespec, timeval};
use crate::system::System;
use crate::timers::{Event, TimerKey};
use abi::Errno;
use abi::message::WORDS;
use alloc::vec::Vec;
use linux_raw_sys::general as linux;

/// The interval timer that follows the clock; the others follow CPU time (setitimer(2)).
const REAL: usize = linux::ITIMER_REAL as usize;

/// Most POSIX timers of a process.
const POSIX_MAX: usize = 64;
/// The shortest period of a repeating timer: bounds what a program can make PM do. Raising a
/// signal takes some ten kernel visits, and programs must get to run in between.
const SHORTEST_PERIOD: u64 = 1_000_000;
/// How often a timer on CPU time looks again (Linux: at each tick of HZ=250).
pub(crate) const CPU_TICK: u64 = 4_000_000;
/// One of setitimer's three.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Interval {
    key: Option<TimerKey>,
    /// Real: ns since boot. Virtual and profiling: CPU time.
    due: u64,
    period: u64,
}

/// A POSIX timer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Posix {
    key: Option<TimerKey>,
    due: u64,
    period: u64,
    /// 0 for SIGEV_NONE.
    signal: i32,
    value: u64,
    /// SIGEV_THREAD_ID.
    tid: Option<u32>,
    overrun: i32,
    realtime: bool,
}

/// All timers of a process. They are not inherited.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct IntervalTimers {
    interval: [Interval; 3],
    posix: Vec<Option<Posix>>,
    /// When RLIMIT_CPU is looked at again.
    pub(crate) cpu_limit: Option<TimerKey>,
}

/// The next due time after `now` of something that repeats, and how many were missed.
pub fn next_period(due: u64, period: u64, now: u64) -> (u64, u64) {
    let missed = now.saturating_sub(due) / period;
    (
        due.saturating_add((missed + 1).saturating_mul(period)),
        missed,
    )
}

impl<S: System> Pm<S> {
    fn interval_now(&mut self, pid: u32, which: usize) -> u64 {
        if which == REAL {
            self.sys.now()
        } else {
            self.cpu_ns(pid)
        }
    }

    /// Remaining time and period of an interval timer.
    fn interval_left(&mut self, pid: u32, which: usize) -> Result<[u64; 2], Errno> {
        let now = self.interval_now(pid, which);
        let process = self.table.process(pid).ok_or(Errno::ESRCH)?;
        let timer = process.timers.interval.get(which).ok_or(Errno::EINVAL)?;
        if timer.key.is_none() {
            return Ok([timer.period, 0]);
        }
        Ok([timer.period, timer.due.saturating_sub(now).max(1)])
    }

    fn set_interval(
        &mut self,
        pid: u32,
        which: usize,
        value: u64,
        period: u64,
    ) -> Result<(), Errno> {
        let now = self.sys.now();
        let from = self.interval_now(pid, which);
        let process = self.table.process_mut(pid).ok_or(Errno::ESRCH)?;
        let timer = process
            .timers
            .interval
            .get_mut(which)
            .ok_or(Errno::EINVAL)?;
        if let Some(key) = timer.key.take() {
            self.timers.cancel(key);
        }
        // A timer of real time that does not run has no period; those of CPU time keep it (Linux).
        timer.period = if period == 0 || value == 0 && which == REAL {
            0
        } else {
            period.max(SHORTEST_PERIOD)
        };
        if value != 0 {
            timer.due = from.saturating_add(value);
            // CPU time passes at most as fast as time.
            let deadline = now.saturating_add(value);
            timer.key = Some(self.timers.add(deadline, Event::Interval(pid, which)));
        }
        Ok(())
    }

    /// setitimer(which, new, old).
    pub fn setitimer(&mut self, caller: Caller, a: [u64; WORDS]) -> Result<u64, Errno> {
        let which = a[0] as usize;
        let old = self.interval_left(caller.pid, which)?;
        let [ps, pu, vs, vu] = match a[1] {
            0 => [0; 4],
            address => self.read_words(caller.who, address)?,
        };
        let (mut period, value) = (microseconds([ps, pu])?, microseconds([vs, vu])?);
        if which == linux::ITIMER_REAL as usize && value == 0 {
            // Linux keeps the period of a stopped timer only where it counts processor time.
            period = 0;
        }
        self.set_interval(caller.pid, which, value, period)?;
        self.write_interval(caller, a[2], old)?;
        Ok(0)
    }

    fn write_interval(
        &mut self,
        caller: Caller,
        address: u64,
        [period, left]: [u64; 2],
    ) -> Result<(), Errno> {
        let ([ps, pu], [vs, mut vu]) = (timeval(period), timeval(left));
        if left != 0 && vs == 0 && vu == 0 {
            // Less than a microsecond is not yet nothing.
            vu = 1;
        }
        self.write_words_opt(caller.who, address, [ps, pu, vs, vu])
    }

    /// getitimer(which, value).
    pub fn getitimer(&mut self, caller: Caller, a: [u64; WORDS]) -> Result<u64, Errno> {
        let left = self.interval_left(caller.pid, a[0] as usize)?;
        self.write_interval(caller, a[1], left)?;
        Ok(0)
    }

    /// alarm(seconds).
    pub fn alarm(&mut self, caller: Caller, seconds: u64) -> Result<u64, Errno> {
        let [_, left] = self.interval_left(caller.pid, 0)?;
        let value = (seconds as u32 as u64) * SECOND;
        self.set_interval(caller.pid, 0, value, 0)?;
        // Rounded, but a pending alarm is never 0.
        Ok(match left.saturating_add(SECOND / 2) / SECOND {
            0 if left > 0 => 1,
            seconds => seconds,
        })
    }

    /// An interval timer's deadline came.
    pub fn interval_expired(&mut self, pid: u32, which: usize) {
        let now = self.sys.now();
        let reached = self.interval_now(pid, which);
        let Some(process) = self.table.process_mut(pid) else {
            return;
        };
        let Some(timer) = process.timers.interval.get_mut(which) else {
            return;
        };
        timer.key = None;
        let event = Event::Interval(pid, which);
        if reached < timer.due {
            // The process was not running all the time.
            let deadline = now.saturating_add((timer.due - reached).max(CPU_TICK));
            timer.key = Some(self.timers.add(deadline, event));
            return;
        }
        if timer.period != 0 {
            timer.due = next_period(timer.due, timer.period, reached).0;
            let deadline = now.saturating_add(timer.due - reached);
            timer.key = Some(self.timers.add(deadline, event));
        }
        self.raise(pid, [SIGALRM, SIGVTALRM, SIGPROF][which.min(2)]);
    }

    // ---- POSIX timers -----------------------------------------------------------------

    fn posix_mut(&mut self, pid: u32, id: u64) -> Result<&mut Posix, Errno> {
        let process = self.table.process_mut(pid).ok_or(Errno::ESRCH)?;
        process
            .timers
            .posix
            .get_mut(id as u32 as usize)
            .and_then(Option::as_mut)
            .ok_or(Errno::EINVAL)
    }

    /// timer_create(clock, event, id).
    pub fn timer_create(&mut self, caller: Caller, a: [u64; WORDS]) -> Result<u64, Errno> {
        let clock = self.clock(caller, a[0])?;
        if matches!(clock, Clock::Process(_) | Clock::Thread(_)) {
            return Err(Errno::EOPNOTSUPP);
        }
        let event = match a[1] {
            0 => None,
            address => Some(self.read_words::<3>(caller.who, address)?),
        };
        let (mut signal, mut tid, mut value) = (SIGALRM, None, None);
        if let Some([sigval, number_kind, target]) = event {
            signal = number_kind as i32;
            value = Some(sigval);
            match (number_kind >> 32) as u32 {
                linux::SIGEV_NONE => signal = 0,
                linux::SIGEV_SIGNAL => {}
                linux::SIGEV_THREAD_ID => tid = Some(target as u32),
                _ => return Err(Errno::EINVAL),
            }
            if signal != 0 && !is_signal(signal) {
                return Err(Errno::EINVAL);
            }
        }
        if let Some(tid) = tid {
            let slot = self.table.slot_of_tid(tid).ok_or(Errno::EINVAL)?;
            if self.table.thread(slot).map(|thread| thread.pid) != Some(caller.pid) {
                return Err(Errno::EINVAL);
            }
        }
        let process = self.table.process_mut(caller.pid).ok_or(Errno::ESRCH)?;
        let timers = &mut process.timers.posix;
        let id = match timers.iter().position(Option::is_none) {
            Some(free) => free,
            None if timers.len() < POSIX_MAX => {
                timers.push(None);
                timers.len() - 1
            }
            None => return Err(Errno::EAGAIN),
        };
        timers[id] = Some(Posix {
            key: None,
            due: 0,
            period: 0,
            signal,
            value: value.unwrap_or(id as u64),
            tid,
            overrun: 0,
            realtime: clock == Clock::Realtime,
        });
        if let Err(errno) = self.write_u32(caller.who, a[2], id as u32) {
            let _ = self.timer_delete(caller, id as u64);
            return Err(errno);
        }
        Ok(0)
    }

    /// timer_settime(id, flags, new, old).
    pub fn timer_settime(&mut self, caller: Caller, a: [u64; WORDS]) -> Result<u64, Errno> {
        let [ps, pn, vs, vn] = self.read_words(caller.who, a[2])?;
        let (period, value) = (duration([ps, pn])?, duration([vs, vn])?);
        let now = self.sys.now();
        let epoch = self.boot.epoch_ns;
        let timer = self.posix_mut(caller.pid, a[0])?;
        let old = left(timer, now);
        let key = timer.key.take();
        timer.period = if period == 0 {
            0
        } else {
            period.max(SHORTEST_PERIOD)
        };
        timer.overrun = 0;
        let mut due = None;
        if value != 0 {
            timer.due = match (a[1] & TIMER_ABSTIME != 0, timer.realtime) {
                (false, _) => now.saturating_add(value),
                (true, true) => value.saturating_sub(epoch),
                (true, false) => value,
            };
            due = Some(timer.due);
        }
        if let Some(key) = key {
            self.timers.cancel(key);
        }
        if let Some(due) = due {
            let event = Event::Posix(caller.pid, a[0] as u32 as usize);
            let key = self.timers.add(due, event);
            self.posix_mut(caller.pid, a[0])?.key = Some(key);
        }
        self.write_words_opt(caller.who, a[3], old)?;
        Ok(0)
    }

    /// timer_gettime(id, value).
    pub fn timer_gettime(&mut self, caller: Caller, a: [u64; WORDS]) -> Result<u64, Errno> {
        let now = self.sys.now();
        let words = left(self.posix_mut(caller.pid, a[0])?, now);
        self.write_words(caller.who, a[1], words)?;
        Ok(0)
    }

    /// timer_getoverrun(id).
    pub fn timer_getoverrun(&mut self, caller: Caller, id: u64) -> Result<u64, Errno> {
        Ok(self.posix_mut(caller.pid, id)?.overrun as u64)
    }

    /// timer_delete(id).
    pub fn timer_delete(&mut self, caller: Caller, id: u64) -> Result<u64, Errno> {
        let key = self.posix_mut(caller.pid, id)?.key.take();
        if let Some(key) = key {
            self.timers.cancel(key);
        }
        if let Some(process) = self.table.process_mut(caller.pid)
            && let Some(timer) = process.timers.posix.get_mut(id as u32 as usize)
        {
            *timer = None;
        }
        Ok(0)
    }

    /// A POSIX timer's deadline came.
    pub fn posix_expired(&mut self, pid: u32, id: usize) {
        let now = self.sys.now();
        let Ok(timer) = self.posix_mut(pid, id as u64) else {
            return;
        };
        timer.key = None;
        timer.overrun = 0;
        let (signal, value, tid, period) = (timer.signal, timer.value, timer.tid, timer.period);
        if period != 0 {
            let (due, missed) = next_period(timer.due, period, now);
            timer.due = due;
            timer.overrun = i32::try_from(missed).unwrap_or(i32::MAX);
        }
        let (due, overrun) = (timer.due, timer.overrun);
        if period != 0 {
            let key = self.timers.add(due, Event::Posix(pid, id));
            if let Ok(timer) = self.posix_mut(pid, id as u64) {
                timer.key = Some(key);
            }
        }
        if signal == 0 {
            return;
        }
        let info = Info::timer(signal, id as i32, overrun, value);
        let _ = match tid.and_then(|tid| self.table.slot_of_tid(tid)) {
            Some(slot) => self.send_thread(slot, info),
            None => self.send_process(pid, info),
        };
    }

    /// exec: POSIX timers do not survive it.
    pub fn drop_posix_timers(&mut self, pid: u32) {
        let Some(process) = self.table.process_mut(pid) else {
            return;
        };
        for timer in core::mem::take(&mut process.timers.posix)
            .into_iter()
            .flatten()
        {
            if let Some(key) = timer.key {
                self.timers.cancel(key);
            }
        }
    }

    /// The process is gone.
    pub fn drop_timers(&mut self, pid: u32) {
        self.drop_posix_timers(pid);
        let Some(process) = self.table.process_mut(pid) else {
            return;
        };
        let intervals = core::mem::take(&mut process.timers.interval).map(|timer| timer.key);
        let limit = process.timers.cpu_limit.take();
        for key in intervals.into_iter().chain([limit]).flatten() {
            self.timers.cancel(key);
        }
    }
}

/// A timer's itimerspec.
fn left(timer: &Posix, now: u64) -> [u64; 4] {
    let left = match timer.key {
        Some(_) => timer.due.saturating_sub(now).max(1),
        None => 0,
    };
    let ([ps, pn], [vs, vn]) = (timespec(timer.period), timespec(left));
    [ps, pn, vs, vn]
}
