//! wait4 and waitid.

use crate::calls::{Caller, Outcome};
use crate::server::Pm;
use crate::signal::set::{SIGCHLD, SIGCONT};
use crate::system::System;
use crate::table::{Call, JobEvent, Process};
use crate::trace::Ghost;
use abi::Errno;
use abi::message::WORDS;
use linux_raw_sys::general as linux;

/// Which children a wait is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Which {
    /// Any.
    Any,
    /// This one.
    Pid(u32),
    /// Those of this group.
    Group(u32),
}

/// Where the result of a wait goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Report {
    /// wait4: status word and rusage, each 0 or an address.
    Wait4(u64, u64),
    /// waitid: siginfo and rusage.
    Waitid(u64, u64),
}

/// A wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WaitFor {
    /// Which children.
    pub which: Which,
    /// W* options; WEXITED is set for wait4.
    pub options: u32,
    /// Where the result goes.
    pub report: Report,
}

/// What a wait found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    /// The child, or a thread that the caller traces.
    pub pid: u32,
    /// Its status as wait4 reports it.
    pub status: u32,
    /// What it is.
    pub kind: Kind,
}

/// What reports to a wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A child process.
    Child,
    /// A tracee in a stop: its slot.
    Tracee(usize),
    /// A tracee that is gone.
    Ghost,
}

const CLONE_CHILDREN: u32 = linux::__WALL | linux::__WCLONE;

impl WaitFor {
    fn has(&self, option: u32) -> bool {
        self.options & option != 0
    }

    fn picks(&self, id: u32, in_group: u32) -> bool {
        match self.which {
            Which::Any => true,
            Which::Pid(pid) => id == pid,
            Which::Group(group) => in_group == group,
        }
    }

    /// Whether the wait is about this child at all.
    pub fn concerns(&self, child: &Process) -> bool {
        let is_clone = child.exit_signal != SIGCHLD;
        self.picks(child.pid, child.group)
            && (self.has(linux::__WALL) || self.has(linux::__WCLONE) == is_clone)
    }

    /// The status the child has to report to this wait.
    pub fn status_of(&self, child: &Process) -> Option<u32> {
        if let Some(status) = child.status {
            return self.has(linux::WEXITED).then_some(status);
        }
        match child.job_event? {
            JobEvent::Stopped(signal) if self.has(linux::WUNTRACED) => {
                Some((signal as u32) << 8 | 0x7f)
            }
            JobEvent::Continued if self.has(linux::WCONTINUED) => Some(0xffff),
            _ => None,
        }
    }
}

impl<S: System> Pm<S> {
    /// wait4(pid, status, options, rusage).
    pub fn wait4(&mut self, caller: Caller, a: [u64; WORDS]) -> Result<Outcome, Errno> {
        let options = a[2] as u32;
        let known = linux::WNOHANG | linux::WUNTRACED | linux::WCONTINUED;
        if options & !(known | CLONE_CHILDREN | linux::__WNOTHREAD) != 0 {
            return Err(Errno::EINVAL);
        }
        let which = match a[0] as i32 {
            -1 => Which::Any,
            0 => Which::Group(self.group_of(caller.pid)),
            i32::MIN => return Err(Errno::ESRCH),
            pid if pid < 0 => Which::Group(pid.unsigned_abs()),
            pid => Which::Pid(pid as u32),
        };
        self.wait(
            caller,
            WaitFor {
                which,
                options: options | linux::WEXITED,
                report: Report::Wait4(a[1], a[3]),
            },
        )
    }

    /// waitid(idtype, id, info, options, rusage).
    pub fn waitid(&mut self, caller: Caller, a: [u64; WORDS]) -> Result<Outcome, Errno> {
        let options = a[3] as u32;
        let events = linux::WEXITED | linux::WSTOPPED | linux::WCONTINUED;
        let known = events | linux::WNOHANG | linux::WNOWAIT;
        if options & !(known | CLONE_CHILDREN | linux::__WNOTHREAD) != 0 || options & events == 0 {
            return Err(Errno::EINVAL);
        }
        let id = a[1] as i32;
        let which = match a[0] as u32 {
            linux::P_ALL => Which::Any,
            linux::P_PID if id > 0 => Which::Pid(id as u32),
            linux::P_PGID if id > 0 => Which::Group(id as u32),
            linux::P_PGID if id == 0 => Which::Group(self.group_of(caller.pid)),
            linux::P_PIDFD => return Err(Errno::EBADF),
            _ => return Err(Errno::EINVAL),
        };
        self.wait(
            caller,
            WaitFor {
                which,
                options,
                report: Report::Waitid(a[2], a[4]),
            },
        )
    }

    fn group_of(&self, pid: u32) -> u32 {
        self.table.process(pid).map_or(0, |process| process.group)
    }

    fn wait(&mut self, caller: Caller, wait: WaitFor) -> Result<Outcome, Errno> {
        match self.find_child(caller.pid, wait)? {
            Some(found) => self
                .report(caller.slot, wait, Some(found))
                .map(|value| Outcome::Done(Ok(value))),
            None if wait.has(linux::WNOHANG) => self
                .report(caller.slot, wait, None)
                .map(|value| Outcome::Done(Ok(value))),
            None => Ok(Outcome::Hold(Call::Wait(wait), None)),
        }
    }

    /// A child with something to report; `ECHILD` when no child is concerned.
    fn find_child(&self, pid: u32, wait: WaitFor) -> Result<Option<Found>, Errno> {
        let mut any = false;
        for child in self.table.processes().filter(|child| child.parent == pid) {
            if !wait.concerns(child) {
                continue;
            }
            any = true;
            // Its tracer waits for it first.
            let ghost = |ghost: &Ghost| ghost.pid == child.pid && ghost.is_leader();
            if child.is_zombie() && self.table.ghosts().iter().any(ghost) {
                continue;
            }
            if let Some(status) = wait.status_of(child) {
                return Ok(Some(Found {
                    pid: child.pid,
                    status,
                    kind: Kind::Child,
                }));
            }
        }
        for slot in self.tracees(pid) {
            let Some(thread) = self.table.thread(slot) else {
                continue;
            };
            let group = self.group_of(thread.pid);
            if !wait.picks(thread.tid, group) {
                continue;
            }
            any = true;
            let stop = thread.trace.as_ref().and_then(|trace| trace.stop);
            if let Some(stop) = stop.filter(|stop| !stop.reported && !stop.listening) {
                return Ok(Some(Found {
                    pid: thread.tid,
                    status: stop.code << 8 | 0x7f,
                    kind: Kind::Tracee(slot),
                }));
            }
        }
        for ghost in self.table.ghosts() {
            if ghost.tracer != pid || !wait.picks(ghost.tid, ghost.group) {
                continue;
            }
            any = true;
            if wait.has(linux::WEXITED) {
                return Ok(Some(Found {
                    pid: ghost.tid,
                    status: ghost.status,
                    kind: Kind::Ghost,
                }));
            }
        }
        if any { Ok(None) } else { Err(Errno::ECHILD) }
    }

    /// Consumes what was found and tells the waiting thread; the result of its call.
    fn report(&mut self, slot: usize, wait: WaitFor, found: Option<Found>) -> Result<u64, Errno> {
        let who = match self.table.thread(slot) {
            Some(thread) => thread.endpoint,
            None => return Err(Errno::ESRCH),
        };
        let mut usage = [0; 18];
        let mut user = 0;
        if let Some(found) = found {
            let pid = match found.kind {
                Kind::Tracee(slot) => self.table.thread(slot).map_or(0, |thread| thread.pid),
                _ => found.pid,
            };
            usage = self.usage_of_child(pid);
            user = self.table.process(pid).map_or(0, |p| p.ids.user.real);
            if !wait.has(linux::WNOWAIT) {
                self.consume(found);
            }
        }
        let (status, place) = match wait.report {
            Report::Wait4(status, place) => (status, place),
            Report::Waitid(info, place) => {
                if info != 0 {
                    self.write_bytes(who, info, &siginfo(found, user))?;
                }
                if found.is_some() {
                    self.write_words_opt(who, place, usage)?;
                }
                return Ok(0);
            }
        };
        let Some(found) = found else {
            return Ok(0);
        };
        self.write_u32_opt(who, status, found.status)?;
        self.write_words_opt(who, place, usage)?;
        Ok(found.pid as u64)
    }

    /// Reaps a zombie; takes note that a job event, or a tracee's stop, was seen.
    fn consume(&mut self, found: Found) {
        let pid = found.pid;
        match found.kind {
            Kind::Child => {}
            Kind::Tracee(slot) => {
                let stop = self.trace_mut(slot).and_then(|trace| trace.stop.as_mut());
                if let Some(stop) = stop {
                    stop.reported = true;
                }
                return;
            }
            Kind::Ghost => return self.lay_ghost(pid),
        }
        let cpu = self.cpu_ns(pid);
        let Some(child) = self.table.process_mut(pid) else {
            return;
        };
        if !child.is_zombie() {
            child.job_event = None;
            return;
        }
        let (parent, total) = (child.parent, cpu + child.children_cpu_ns);
        self.table.remove_process(pid);
        if let Some(parent) = self.table.process_mut(parent) {
            parent.children_cpu_ns += total;
        }
    }

    /// Something happened to a child of `pid`: threads that wait look again.
    pub fn wake_waiters(&mut self, pid: u32) {
        let Some(process) = self.table.process(pid) else {
            return;
        };
        for slot in process.threads.clone() {
            let Some(Call::Wait(wait)) = self.table.thread(slot).and_then(|thread| thread.call)
            else {
                continue;
            };
            let result = match self.find_child(pid, wait) {
                Ok(None) => continue,
                Ok(found) => self.report(slot, wait, found),
                Err(errno) => Err(errno),
            };
            self.finish_call(slot, result);
        }
    }
}

/// The siginfo of waitid; all zero when nothing was found.
fn siginfo(found: Option<Found>, user: u32) -> [u8; crate::signal::info::SIGINFO_BYTES] {
    use crate::signal::info::{ChildReport, Info};
    let Some(Found { pid, status, kind }) = found else {
        return [0; crate::signal::info::SIGINFO_BYTES];
    };
    let (code, status) = match status {
        _ if matches!(kind, Kind::Tracee(_)) => (linux::CLD_TRAPPED, (status >> 8) as i32),
        0xffff => (linux::CLD_CONTINUED, SIGCONT),
        status if status & 0xff == 0x7f => (linux::CLD_STOPPED, (status >> 8) as i32),
        status if status & 0x7f != 0 => (linux::CLD_KILLED, (status & 0x7f) as i32),
        status => (linux::CLD_EXITED, (status >> 8) as i32),
    };
    Info::child(ChildReport {
        pid,
        uid: user,
        code: code as i32,
        status,
        ticks: 0,
    })
    .to_bytes()
}
