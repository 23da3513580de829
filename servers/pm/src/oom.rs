//! Which process ends when memory is used up, and /proc/PID/oom_score_adj.
//!
//! VM says that programs have no memory left, and what would come free with each process; PM knows
//! users. The one that ends is the largest of the user other than root who holds the most. Where
//! other users hold next to nothing, ending them would help nobody, and root's largest ends. A
//! service is no process and never chosen.

use crate::server::Pm;
use crate::signal::set::SIGKILL;
use crate::system::System;
use crate::table::Process;
use crate::timers::Event;
use abi::message::{Answer, Asker};
use abi::proto::pm::{Killed, OomFigures, OomScore, OutOfMemory, SetOomAdjust};
use abi::proto::vm;
use abi::{Endpoint, Errno};
use alloc::collections::BTreeMap;

/// The range of oom_score_adj, and what protects a process for ever.
const ADJUST_MAX: i32 = 1000;

/// A user's share of memory below which others end: a 32nd.
const LITTLE: u64 = 32;

/// Servers have so long to let go of what a process kept in them before another one ends, ns.
const RELEASE: u64 = 20_000_000;
/// So long after the last end there may still come memory from it where nobody else can be ended, ns.
const RELEASE_MAX: u64 = 50 * RELEASE;

/// What a process is worth to the choice.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct OomAdjust {
    /// /proc/PID/oom_score_adj.
    pub adjust: i32,
    /// The lowest that root gave it: nobody else goes below.
    pub least: i32,
}

impl OomAdjust {
    /// Takes a new value from root or from another user. `EINVAL`, `EACCES`.
    fn set(&mut self, adjust: i32, root: bool) -> Result<(), Errno> {
        if !(-ADJUST_MAX..=ADJUST_MAX).contains(&adjust) {
            return Err(Errno::EINVAL);
        }
        if adjust < self.least && !root {
            return Err(Errno::EACCES);
        }
        self.adjust = adjust;
        if root {
            self.least = adjust;
        }
        Ok(())
    }

    /// Bytes that count, of `bytes` in a machine of `total`: the adjustment is in thousandths of
    /// all memory. `None` for who never ends.
    fn points(self, bytes: u64, total: u64) -> Option<u64> {
        let extra = i128::from(total) * i128::from(self.adjust) / i128::from(ADJUST_MAX);
        let points = (i128::from(bytes) + extra).max(1);
        (self.adjust > -ADJUST_MAX).then_some(points as u64)
    }
}

/// Processes of one user.
#[derive(Clone, Copy, Default)]
struct Group {
    points: u64,
    /// Points, process id and bytes of the largest.
    largest: (u64, u32, u64),
}

/// The process that was chosen.
#[derive(Clone, Copy)]
struct Victim {
    pid: u32,
    bytes: u64,
    /// Points of all processes of its user.
    of_user: u64,
    privileged: bool,
}

/// Collects the candidates.
#[derive(Default)]
struct Choice {
    /// By whether it is root's, and its number.
    groups: BTreeMap<(bool, u32), Group>,
    total: u64,
}

impl Choice {
    fn add(&mut self, pid: u32, user: u32, oom: OomAdjust, bytes: u64) {
        let Some(points) = oom.points(bytes, self.total) else {
            return;
        };
        // A process of root's that offers itself is like anybody's.
        let privileged = user == 0 && oom.adjust <= 0;
        let group = self.groups.entry((privileged, user)).or_default();
        group.points = group.points.saturating_add(points);
        group.largest = group.largest.max((points, pid, bytes));
    }

    /// The process that ends.
    fn best(&self) -> Option<Victim> {
        let of = |some: fn(bool) -> bool| {
            let groups = self.groups.iter().filter(move |(key, _)| some(key.0));
            groups.max_by_key(|(_, group)| group.points)
        };
        let enough = |found: &(_, &Group)| found.1.points >= self.total / LITTLE;
        let (&(privileged, _), group) = of(|privileged| !privileged)
            .filter(enough)
            .or_else(|| of(|_| true))?;
        Some(Victim {
            pid: group.largest.1,
            bytes: group.largest.2,
            of_user: group.points,
            privileged,
        })
    }
}

impl<S: System> Pm<S> {
    /// See [`OutOfMemory`].
    pub fn out_of_memory(&mut self, vm: Asker<Killed>, request: OutOfMemory) -> Answer<Killed> {
        let since = self
            .ended_for_memory
            .map(|ended| self.sys.now().saturating_sub(ended));
        if since.is_some_and(|since| since < RELEASE) {
            // VM goes on by itself as soon as there is memory.
            return self.wait_for_release(vm);
        }
        let killed = match self.choose() {
            // For services alone the end of a user who holds little is no help. Of one with many
            // small processes each end is some, and services keep things for each.
            Some((victim, total))
                if request.who == Endpoint::NONE && victim.of_user < total / (2 * LITTLE) =>
            {
                0
            }
            Some((victim, _)) => self.end_for_memory(victim.pid, victim.bytes),
            None if request.who != Endpoint::NONE
                && since.is_some_and(|since| since < RELEASE_MAX) =>
            {
                return self.wait_for_release(vm);
            }
            None => 0,
        };
        Answer::Now(Ok(Killed { processes: killed }))
    }

    /// VM looks again when more of what the last one kept has been let go of.
    fn wait_for_release(&mut self, vm: Asker<Killed>) -> Answer<Killed> {
        self.starving = Some(vm);
        let deadline = self.sys.now().saturating_add(RELEASE);
        self.timers.add(deadline, Event::MemoryReleased);
        Answer::Later
    }

    /// See [`Event::MemoryReleased`].
    pub(crate) fn memory_released(&mut self) {
        if let Some(vm) = self.starving.take() {
            self.sys.answer(vm, Ok(Killed { processes: 1 }));
        }
    }

    /// Makes room for a call of root's that VM has no memory for, by the end of a process of
    /// somebody else's; whether it did.
    pub(crate) fn make_room_for_root(&mut self, pid: u32) -> bool {
        if !self.is_root(pid) {
            return false;
        }
        match self.choose() {
            Some((victim, _)) if !victim.privileged && victim.pid != pid => {
                self.end_for_memory(victim.pid, victim.bytes) > 0
            }
            _ => false,
        }
    }

    /// The process that ends, and the bytes of all memory.
    fn choose(&mut self) -> Option<(Victim, u64)> {
        let mut choice = Choice::default();
        let mut next = self.table.first_from(0);
        while let Some(pid) = next {
            next = self.table.first_from(pid + 1);
            let Some(process) = self.table.process(pid).filter(|p| !p.is_zombie()) else {
                continue;
            };
            let (user, oom) = (process.ids.user.real, process.oom);
            let Some(who) = self.first_thread(process) else {
                continue;
            };
            if let Ok(figures) = self.sys.call(Endpoint::VM, vm::Footprint { who }) {
                choice.total = figures.total;
                choice.add(pid, user, oom, figures.bytes);
            }
        }
        Some((choice.best()?, choice.total))
    }

    fn first_thread(&self, process: &Process) -> Option<Endpoint> {
        let slot = *process.threads.first()?;
        Some(self.table.thread(slot)?.endpoint)
    }

    /// Ends a process, and all that share its memory, which would not come free otherwise; how
    /// many there were.
    fn end_for_memory(&mut self, pid: u32, bytes: u64) -> u64 {
        let Some(process) = self.table.process(pid) else {
            return 0;
        };
        let (space, user, name) = (process.space, process.ids.user.real, process.name);
        let len = name.iter().position(|&b| b == 0).unwrap_or(name.len());
        let name = core::str::from_utf8(&name[..len]).unwrap_or("?");
        self.sys.log(format_args!(
            "out of memory: killed process {pid} ({name}) of user {user}, {} KiB",
            bytes / 1024
        ));
        self.ended_for_memory = Some(self.sys.now());
        let mut killed = 0;
        let sharing = self.table.select(|p| p.space == space && !p.is_zombie());
        for pid in sharing {
            self.terminate(pid, SIGKILL);
            killed += 1;
        }
        killed
    }

    /// See [`OomScore`].
    pub fn oom_score(&mut self, request: OomScore) -> Result<OomFigures, Errno> {
        let (process, _) = self.by_any_id(request.pid)?;
        let (oom, who) = (process.oom, self.first_thread(process));
        // A zombie has none.
        let figures = who.and_then(|who| self.sys.call(Endpoint::VM, vm::Footprint { who }).ok());
        let score = figures.and_then(|figures| {
            let points = oom.points(figures.bytes, figures.total)?;
            Some((points.saturating_mul(1000) / figures.total.max(1)) as u32)
        });
        Ok(OomFigures {
            score: score.unwrap_or(0),
            adjust: oom.adjust,
        })
    }

    /// See [`SetOomAdjust`].
    pub fn set_oom_adjust(&mut self, request: SetOomAdjust) -> Result<(), Errno> {
        let asking = self.table.slot_of(request.who).ok_or(Errno::ESRCH)?;
        let asking = self.table.thread(asking).ok_or(Errno::ESRCH)?.pid;
        let root = self
            .table
            .process(asking)
            .is_some_and(|p| p.ids.user.effective == 0);
        let pid = self.by_any_id(request.pid)?.0.pid;
        let process = self.table.process_mut(pid).ok_or(Errno::ESRCH)?;
        process.oom.set(request.adjust, root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn adjusted(adjust: i32) -> OomAdjust {
        OomAdjust { adjust, least: 0 }
    }

    fn chosen(processes: &[(u32, u32, i32, u64)]) -> Option<u32> {
        let mut choice = Choice {
            total: 64 * MIB,
            ..Choice::default()
        };
        for &(pid, user, adjust, mib) in processes {
            choice.add(pid, user, adjusted(adjust), mib * MIB);
        }
        choice.best().map(|victim| victim.pid)
    }

    #[test]
    fn the_largest_of_the_user_who_holds_most_ends() {
        assert_eq!(chosen(&[]), None);
        assert_eq!(chosen(&[(2, 0, 0, 1), (3, 0, 0, 40)]), Some(3));
        // Not root's, although it is larger.
        assert_eq!(chosen(&[(2, 0, 0, 30), (3, 1000, 0, 20)]), Some(3));
        // Unless the other users hold next to nothing.
        assert_eq!(chosen(&[(2, 0, 0, 50), (3, 1000, 0, 1)]), Some(2));
        // Of the user who holds the most together.
        let many = [(2, 7, 0, 12), (3, 8, 0, 9), (4, 8, 0, 10), (5, 8, 0, 8)];
        assert_eq!(chosen(&many), Some(4));
    }

    #[test]
    fn the_adjustment_counts_in_thousandths_of_memory() {
        assert_eq!(chosen(&[(2, 7, 0, 40), (3, 7, 500, 10)]), Some(3));
        assert_eq!(chosen(&[(2, 7, -500, 40), (3, 7, 0, 10)]), Some(3));
        assert_eq!(chosen(&[(2, 0, 0, 40), (3, 0, 1000, 1)]), Some(3));
        assert_eq!(chosen(&[(2, 0, -1000, 60)]), None);
        assert_eq!(chosen(&[(2, 7, -1000, 60), (3, 0, 0, 1)]), Some(3));
    }

    #[test]
    fn only_root_lowers_it() {
        let mut oom = OomAdjust::default();
        assert_eq!(oom.set(300, false), Ok(()));
        assert_eq!(oom.set(0, false), Ok(()));
        assert_eq!(oom.set(-1, false), Err(Errno::EACCES));
        assert_eq!(oom.set(-17, true), Ok(()));
        assert_eq!(oom.set(5, false), Ok(()));
        assert_eq!(oom.set(-17, false), Ok(()));
        assert_eq!(oom.set(-18, false), Err(Errno::EACCES));
        assert_eq!(oom.set(1001, true), Err(Errno::EINVAL));
    }
}
