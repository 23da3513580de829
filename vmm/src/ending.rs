//! How a run ends, and who sees to it.
//!
//! Why so: docs/decisions/017-orderly-end.md.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::control::{self, Reason, Signals, Stop};
use crate::hostlink::Exit;
use crate::hostlink::input::Input;
use crate::log::complain;

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The program ended, with this status word (as wait4 reports it).
    Program(u32),
    /// The machine was ended from outside.
    Stopped(Reason),
    /// The machine ended without the program's status.
    Guest(String),
}

impl Ending {
    /// The status the `absentia` command exits with.
    pub fn code(&self) -> u8 {
        match *self {
            Ending::Program(status) if status & 0x7f == 0 => (status >> 8) as u8,
            Ending::Program(status) => 128 + (status & 0x7f) as u8,
            Ending::Stopped(Reason::Timeout) => 124,
            Ending::Stopped(Reason::Signal(number)) => 128u8.wrapping_add(number as u8),
            // As a program that writes into a pipe nobody reads.
            Ending::Stopped(Reason::OutputClosed) => 128 + libc::SIGPIPE as u8,
            Ending::Stopped(Reason::Failure(_) | Reason::Lingering | Reason::Deadlock(_))
            | Ending::Guest(_) => FAILED,
        }
    }
}

/// Exit status when machine or VMM failed, not the program.
pub const FAILED: u8 = 125;

/// What [`abi::lab::POWEROFF_PANIC`] means.
pub const DIED: &str = "the guest's kernel or a core server died";

/// How long a machine may take to power off once the program's status is known (it writes its
/// caches back).
pub const LINGER: Duration = Duration::from_secs(20);
/// How long a guest that was told to end may take, before it is stopped where it is.
pub const GRACE: Duration = Duration::from_secs(5);

/// An order to the guest to end the run.
#[derive(Clone, Debug)]
pub struct Order {
    /// Why.
    pub reason: Reason,
    /// Since when.
    pub at: Instant,
}

/// What is said when a file system could not write back.
pub const UNSAVED: &str = "what the program wrote did not all reach the disk";

/// How a run ended: what the guest said of the program, what it was ordered, why it was stopped,
/// and why it stopped by itself.
pub fn conclude(
    exit: Option<Exit>,
    ordered: Option<Order>,
    stopped: Option<Reason>,
    end: String,
) -> Ending {
    match (exit, ordered, stopped) {
        (Some(exit), ..) if exit.unsaved => Ending::Guest(UNSAVED.into()),
        (Some(exit), Some(order), _) if exit.at >= order.at => Ending::Stopped(order.reason),
        (Some(exit), ..) => Ending::Program(exit.status),
        (None, Some(order), _) => Ending::Stopped(order.reason),
        (None, None, Some(reason)) => Ending::Stopped(reason),
        (None, None, None) => Ending::Guest(end),
    }
}

/// Says that the machine has ended, to a poll.
#[derive(Debug)]
pub struct Ended {
    event: vmm_sys_util::eventfd::EventFd,
    set: AtomicBool,
}

impl Ended {
    /// Not yet.
    pub fn new() -> Result<Ended> {
        use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};
        let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).context("eventfd")?;
        Ok(Ended {
            event,
            set: AtomicBool::new(false),
        })
    }

    /// The machine has ended.
    pub fn set(&self) {
        self.set.store(true, Ordering::Release);
        let _ = self.event.write(1);
    }

    /// Whether it has.
    pub fn is_set(&self) -> bool {
        self.set.load(Ordering::Acquire)
    }

    /// Waits for it, at most so long; may return early.
    pub fn wait(&self, at_most: Duration) {
        let event = control::borrow(&self.event);
        let timeout = timespec(at_most);
        // Woken early or failed, the caller looks again.
        let _ = poll(&mut [PollFd::new(&event, PollFlags::IN)], Some(&timeout));
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

/// Watches a running machine until it ends or has to: signals, the deadline, and a program
/// that has ended in a machine that has not. It waits for nothing else, neither for the guest nor
/// for who looks into it.
///
/// The first signal, or the deadline, has a guest that is `listening` end by itself: returns that
/// order. It is stopped when that takes longer than [`GRACE`], or at a second signal. `report` is
/// called when a person wants to know who waits for whom.
#[allow(clippy::too_many_arguments)]
pub fn supervise(
    stop: &Stop,
    ended: &Ended,
    signals: Option<&Signals>,
    deadline: Option<Instant>,
    input: &Input,
    exited: impl Fn() -> Option<Instant>,
    listening: impl Fn() -> bool,
    report: impl Fn(),
) -> Option<Order> {
    /// How often a program's end is looked for.
    const GLANCE: Duration = Duration::from_millis(500);
    let mut order: Option<Order> = None;
    let mut deadline = deadline;
    let mut end = |reason: Reason, deadline: &mut Option<Instant>| match &order {
        None if listening() => {
            let at = Instant::now();
            *deadline = Some(at + GRACE);
            order = Some(Order { reason, at });
            input.end();
        }
        None => stop.request(reason),
        Some(_) => {
            complain(
                "absentia: the guest is stopped where it is: what was written last may be lost",
            );
            stop.request(reason);
        }
    };
    while !ended.is_set() && !stop.requested() {
        let mut sleep = GLANCE;
        if let Some(at) = deadline {
            let left = at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                end(Reason::Timeout, &mut deadline);
                continue;
            }
            sleep = sleep.min(left);
        }
        if exited().is_some_and(|at| at.elapsed() > LINGER) {
            stop.request(Reason::Lingering);
            break;
        }
        let event = control::borrow(&ended.event);
        let mut waiting = vec![
            PollFd::new(&event, PollFlags::IN),
            PollFd::new(stop, PollFlags::IN),
        ];
        if let Some(signals) = signals {
            waiting.push(PollFd::new(signals, PollFlags::IN));
        }
        // Woken early or failed, it looks again.
        let _ = poll(&mut waiting, Some(&timespec(sleep)));
        while let Some(number) = signals.and_then(Signals::next) {
            match number {
                libc::SIGUSR1 => report(),
                libc::SIGWINCH => {
                    if let Some((rows, columns)) = crate::terminal::size() {
                        input.window(rows, columns);
                    }
                }
                _ => end(Reason::Signal(number), &mut deadline),
            }
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_become_exit_statuses() {
        assert_eq!(Ending::Program(0).code(), 0);
        assert_eq!(Ending::Program(3 << 8).code(), 3);
        assert_eq!(Ending::Program(11).code(), 139);
        assert_eq!(Ending::Program(0x80 | 6).code(), 134);
        assert_eq!(Ending::Stopped(Reason::Timeout).code(), 124);
        assert_eq!(Ending::Stopped(Reason::Signal(2)).code(), 130);
        assert_eq!(Ending::Stopped(Reason::OutputClosed).code(), 141);
        assert_eq!(Ending::Guest(String::new()).code(), FAILED);
    }

    #[test]
    fn what_was_not_saved_is_no_success() {
        let before = Instant::now();
        let exit = |unsaved| Exit {
            status: 0,
            unsaved,
            at: Instant::now(),
        };
        let order = |at| {
            Some(Order {
                reason: Reason::Signal(15),
                at,
            })
        };
        let end = |exit, order| conclude(exit, order, None, String::new());
        assert_eq!(end(Some(exit(false)), None), Ending::Program(0));
        assert_eq!(end(Some(exit(true)), None).code(), FAILED);
        assert_eq!(end(Some(exit(true)), order(before)).code(), FAILED);
        assert_eq!(end(Some(exit(false)), order(before)).code(), 143);
        let later = Instant::now() + Duration::from_secs(1);
        assert_eq!(end(Some(exit(false)), order(later)), Ending::Program(0));
        assert_eq!(end(None, order(before)).code(), 143);
    }

    #[test]
    fn the_guest_is_told_to_end_before_it_is_stopped() {
        let (stop, input) = (Stop::new().unwrap(), Input::new().unwrap());
        let ended = Ended::new().unwrap();
        let deadline = Some(Instant::now());
        let told = || {
            if input.waiting() {
                ended.set();
            }
            None
        };
        let order = supervise(&stop, &ended, None, deadline, &input, told, || true, || {});
        assert_eq!(order.map(|order| order.reason), Some(Reason::Timeout));
        assert!(!stop.requested());
        // Nobody listens yet: there is nothing to save.
        let ended = Ended::new().unwrap();
        let order = supervise(
            &stop,
            &ended,
            None,
            deadline,
            &input,
            || None,
            || false,
            || {},
        );
        assert!(order.is_none());
        assert_eq!(stop.reason(), Some(Reason::Timeout));
    }
}
