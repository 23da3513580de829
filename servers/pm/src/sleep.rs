//! Clocks and sleeping.

use crate::calls::{Caller, Outcome};
use crate::server::Pm;
use crate::system::System;
use crate::table::Call;
use abi::Errno;
use abi::message::WORDS;
use linux_raw_sys::general as linux;

/// Ns per second.
pub const SECOND: u64 = 1_000_000_000;
/// Flag: the time is absolute.
pub const TIMER_ABSTIME: u64 = linux::TIMER_ABSTIME as u64;

/// Ns as a timespec.
pub fn timespec(ns: u64) -> [u64; 2] {
    [ns / SECOND, ns % SECOND]
}

/// Ns as a timeval.
pub fn timeval(ns: u64) -> [u64; 2] {
    [ns / SECOND, ns % SECOND / 1000]
}

/// A timespec as ns, saturating; `EINVAL` when it is none.
pub fn duration([seconds, ns]: [u64; 2]) -> Result<u64, Errno> {
    if (seconds as i64) < 0 || ns >= SECOND {
        return Err(Errno::EINVAL);
    }
    Ok(seconds.saturating_mul(SECOND).saturating_add(ns))
}

/// A timeval as ns.
pub fn microseconds([seconds, us]: [u64; 2]) -> Result<u64, Errno> {
    duration([seconds, us.checked_mul(1000).ok_or(Errno::EINVAL)?])
}

/// A clock that PM tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Clock {
    /// The wall clock.
    Realtime,
    /// Since boot.
    Monotonic,
    /// CPU time of a process.
    Process(u32),
    /// CPU time of a thread.
    Thread(u32),
}

impl<S: System> Pm<S> {
    /// The clock with this id, seen from the caller.
    pub(crate) fn clock(&self, caller: Caller, id: u64) -> Result<Clock, Errno> {
        let id = id as i32;
        if id < 0 {
            // clock_getcpuclockid: the inverted id above three bits of kind.
            let pid = match !(id >> 3) as u32 {
                0 => caller.pid,
                pid => pid,
            };
            if id & 4 != 0 {
                let tid = if pid == caller.pid {
                    self.tid(caller)
                } else {
                    pid
                };
                return Ok(Clock::Thread(tid));
            }
            self.table.process(pid).ok_or(Errno::EINVAL)?;
            return Ok(Clock::Process(pid));
        }
        match id as u32 {
            linux::CLOCK_REALTIME
            | linux::CLOCK_REALTIME_COARSE
            | linux::CLOCK_REALTIME_ALARM
            | linux::CLOCK_TAI => Ok(Clock::Realtime),
            linux::CLOCK_MONOTONIC
            | linux::CLOCK_MONOTONIC_RAW
            | linux::CLOCK_MONOTONIC_COARSE
            | linux::CLOCK_BOOTTIME
            | linux::CLOCK_BOOTTIME_ALARM => Ok(Clock::Monotonic),
            linux::CLOCK_PROCESS_CPUTIME_ID => Ok(Clock::Process(caller.pid)),
            linux::CLOCK_THREAD_CPUTIME_ID => Ok(Clock::Thread(self.tid(caller))),
            _ => Err(Errno::EINVAL),
        }
    }

    fn read_clock(&mut self, clock: Clock) -> u64 {
        match clock {
            Clock::Realtime => self.wall_clock(),
            Clock::Monotonic => self.sys.now(),
            Clock::Process(pid) => self.cpu_ns(pid),
            Clock::Thread(tid) => {
                let slot = self.table.slot_of_tid(tid);
                let who = slot
                    .and_then(|slot| self.table.thread(slot))
                    .map(|t| t.endpoint);
                who.map_or(0, |who| self.thread_cpu_ns(who))
            }
        }
    }

    /// Ns since 1970.
    pub fn wall_clock(&mut self) -> u64 {
        let now = self.sys.now();
        self.boot.epoch_ns.saturating_add(now)
    }

    /// clock_gettime(clock, time).
    pub fn clock_gettime(&mut self, caller: Caller, a: [u64; WORDS]) -> Result<u64, Errno> {
        let clock = self.clock(caller, a[0])?;
        let ns = self.read_clock(clock);
        self.write_words(caller.who, a[1], timespec(ns))?;
        Ok(0)
    }

    /// clock_getres(clock, resolution).
    pub fn clock_getres(&mut self, caller: Caller, a: [u64; WORDS]) -> Result<u64, Errno> {
        self.clock(caller, a[0])?;
        self.write_words_opt(caller.who, a[1], [0, 1])?;
        Ok(0)
    }

    /// clock_settime and settimeofday.
    pub fn set_clock(&mut self, caller: Caller, call: u32, a: [u64; WORDS]) -> Result<u64, Errno> {
        let by_clock = call == linux::__NR_clock_settime;
        if by_clock && a[0] as u32 != linux::CLOCK_REALTIME {
            return Err(Errno::EINVAL);
        }
        let address = if by_clock { a[1] } else { a[0] };
        if address == 0 && !by_clock {
            // Only the time zone, which nobody reads.
            return Ok(0);
        }
        let words = self.read_words(caller.who, address)?;
        let wanted = if by_clock {
            duration(words)?
        } else {
            microseconds(words)?
        };
        if !self.is_root(caller.pid) {
            return Err(Errno::EPERM);
        }
        let now = self.sys.now();
        self.boot.epoch_ns = wanted.checked_sub(now).ok_or(Errno::EINVAL)?;
        Ok(0)
    }

    /// gettimeofday(time, zone).
    pub fn gettimeofday(&mut self, caller: Caller, a: [u64; WORDS]) -> Result<u64, Errno> {
        let ns = self.wall_clock();
        self.write_words_opt(caller.who, a[0], timeval(ns))?;
        self.write_words_opt(caller.who, a[1], [0])?;
        Ok(0)
    }

    /// time(place).
    pub fn time(&mut self, caller: Caller, place: u64) -> Result<u64, Errno> {
        let seconds = self.wall_clock() / SECOND;
        self.write_words_opt(caller.who, place, [seconds])?;
        Ok(seconds)
    }

    fn sleep(
        &mut self,
        caller: Caller,
        clock: Clock,
        absolute: bool,
        request: u64,
        remaining: u64,
    ) -> Result<Outcome, Errno> {
        let wanted = duration(self.read_words(caller.who, request)?)?;
        let now = self.sys.now();
        let deadline = match (absolute, clock) {
            (false, _) => now.saturating_add(wanted),
            (true, Clock::Realtime) => wanted.saturating_sub(self.boot.epoch_ns),
            (true, _) => wanted,
        };
        if deadline <= now {
            return Ok(Outcome::Done(Ok(0)));
        }
        let call = Call::Sleep {
            remaining: if absolute { 0 } else { remaining },
            deadline,
        };
        Ok(Outcome::Hold(call, Some(deadline)))
    }

    /// nanosleep(request, remaining).
    pub fn nanosleep(&mut self, caller: Caller, a: [u64; WORDS]) -> Result<Outcome, Errno> {
        self.sleep(caller, Clock::Monotonic, false, a[0], a[1])
    }

    /// clock_nanosleep(clock, flags, request, remaining).
    pub fn clock_nanosleep(&mut self, caller: Caller, a: [u64; WORDS]) -> Result<Outcome, Errno> {
        let clock = self.clock(caller, a[0])?;
        if matches!(clock, Clock::Process(_) | Clock::Thread(_)) {
            return Err(Errno::EOPNOTSUPP);
        }
        self.sleep(caller, clock, a[1] & TIMER_ABSTIME != 0, a[2], a[3])
    }
}
