//! Ends a stay in the guest after some time that it ran, by the kick signal to the thread that runs it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::control::kick_signal;

/// How often the thread is kicked once the time is over: a signal that comes just before
/// KVM_RUN does not interrupt it.
const AGAIN: Duration = Duration::from_millis(1);

/// A host that does other things, or stands still itself, is no hang of the guest: what counts is
/// the time that the thread ran, and so many times as much by the clock, where it sleeps.
const BY_THE_CLOCK: u32 = 20;

/// A timer of the calling thread, which must be the one that drops it.
#[derive(Debug)]
pub struct Watchdog {
    timer: libc::timer_t,
    /// Of the thread's own time. One that cannot be said never comes.
    deadline: Option<Duration>,
    by_the_clock: Option<Instant>,
}

/// How long this thread has run.
fn ran() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: it points to a valid value for the time of the call. Every thread has this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

impl Watchdog {
    /// Kicks the calling thread after `limit`, and again until this value is dropped.
    pub fn new(limit: Duration) -> Result<Watchdog> {
        // SAFETY: a sigevent is plain integers and a pointer, all of which may be zero.
        let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = kick_signal();
        event.sigev_notify_thread_id = rustix::thread::gettid().as_raw_nonzero().get();
        let mut timer: libc::timer_t = std::ptr::null_mut();
        // SAFETY: both point to valid values for the time of the call.
        let result = unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer) };
        check(result).context("a timer for the watchdog")?;
        let watchdog = Watchdog {
            timer,
            deadline: ran().checked_add(limit),
            by_the_clock: limit
                .checked_mul(BY_THE_CLOCK)
                .and_then(|limit| Instant::now().checked_add(limit)),
        };
        let times = libc::itimerspec {
            it_interval: timespec(AGAIN),
            // Zero would mean never.
            it_value: timespec(limit.max(Duration::from_nanos(1))),
        };
        // SAFETY: a timer of ours; the old setting is not wanted.
        let result = unsafe { libc::timer_settime(timer, 0, &times, std::ptr::null_mut()) };
        check(result).context("setting the watchdog's timer")?;
        Ok(watchdog)
    }

    /// Whether the time is over.
    pub fn expired(&self) -> bool {
        self.deadline.is_some_and(|deadline| ran() >= deadline)
            || self.by_the_clock.is_some_and(|end| Instant::now() >= end)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // SAFETY: a timer of ours that nobody uses any more.
        unsafe { libc::timer_delete(self.timer) };
    }
}

fn check(result: libc::c_int) -> Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error().into())
    }
}

fn timespec(duration: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::install_kick;

    #[test]
    fn who_stands_still_has_its_time_yet_and_who_runs_has_not() {
        const LIMIT: Duration = Duration::from_millis(50);
        install_kick().unwrap();
        let watchdog = Watchdog::new(LIMIT).unwrap();
        let begun = Instant::now();
        // The kicks end a sleep.
        while begun.elapsed() < 3 * LIMIT {
            std::thread::sleep(LIMIT);
        }
        assert!(!watchdog.expired());
        let ran_before = ran();
        while ran() < ran_before + LIMIT {
            std::hint::spin_loop();
        }
        assert!(watchdog.expired());
    }

    #[test]
    fn who_sleeps_is_ended_by_the_clock() {
        install_kick().unwrap();
        let watchdog = Watchdog::new(Duration::from_millis(2)).unwrap();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(60) {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(watchdog.expired());
    }
}
