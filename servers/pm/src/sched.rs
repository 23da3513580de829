//! Scheduling calls: one processor, one policy, nice values.

use crate::calls::Caller;
use crate::server::Pm;
use crate::system::System;
use abi::Errno;
use abi::message::WORDS;
use linux_raw_sys::general as nr;

const SCHED_OTHER: u64 = 0;
const SCHED_FIFO: u64 = 1;
const SCHED_RR: u64 = 2;
const SCHED_BATCH: u64 = 3;
const SCHED_IDLE: u64 = 5;
const SCHED_RESET_ON_FORK: u64 = 0x4000_0000;
const PRIO_PROCESS: u64 = 0;
const PRIO_PGRP: u64 = 1;
const PRIO_USER: u64 = 2;

impl<S: System> Pm<S> {
    /// The sched_* calls.
    pub fn sched_call(&mut self, caller: Caller, call: u32, a: [u64; WORDS]) -> Result<u64, Errno> {
        match call {
            nr::__NR_sched_get_priority_max | nr::__NR_sched_get_priority_min => {
                let max = call == nr::__NR_sched_get_priority_max;
                return match a[0] {
                    SCHED_FIFO | SCHED_RR => Ok(if max { 99 } else { 1 }),
                    SCHED_OTHER | SCHED_BATCH | SCHED_IDLE => Ok(0),
                    _ => Err(Errno::EINVAL),
                };
            }
            _ => {}
        }
        let tid = a[0] as u32;
        let sets = matches!(call, nr::__NR_sched_setscheduler | nr::__NR_sched_setparam);
        if call == nr::__NR_sched_setaffinity {
            return self.sched_setaffinity(caller, a);
        }
        let param = a[if call == nr::__NR_sched_setscheduler {
            2
        } else {
            1
        }];
        if call != nr::__NR_sched_getaffinity && (tid as i32) < 0 || sets && param == 0 {
            return Err(Errno::EINVAL);
        }
        let wanted = match sets {
            true => self.read_u32(caller.who, param)? as i32,
            false => 0,
        };
        let target = self.scheduled(caller, tid)?;
        match call {
            nr::__NR_sched_getaffinity => {
                if a[1] < 8 || !a[1].is_multiple_of(8) {
                    return Err(Errno::EINVAL);
                }
                self.write_words(caller.who, a[2], [1])?;
                Ok(8)
            }
            nr::__NR_sched_getscheduler => Ok(SCHED_OTHER),
            nr::__NR_sched_getparam => {
                self.write_u32(caller.who, a[1], 0)?;
                Ok(0)
            }
            nr::__NR_sched_setscheduler => match (a[1] & !SCHED_RESET_ON_FORK, wanted) {
                (SCHED_OTHER | SCHED_BATCH | SCHED_IDLE, 0) => self.may_schedule(caller, target),
                (SCHED_FIFO | SCHED_RR, 1..=99) => Err(Errno::EPERM),
                _ => Err(Errno::EINVAL),
            },
            nr::__NR_sched_setparam if wanted != 0 => Err(Errno::EINVAL),
            nr::__NR_sched_setparam => self.may_schedule(caller, target),
            nr::__NR_sched_rr_get_interval => {
                self.write_words(caller.who, a[1], [0, 10_000_000])?;
                Ok(0)
            }
            _ => Err(Errno::ENOSYS),
        }
    }

    /// The process of a thread id, 0 for the caller's; `ESRCH`.
    fn scheduled(&self, caller: Caller, tid: u32) -> Result<u32, Errno> {
        match tid {
            0 => Ok(caller.pid),
            tid => self.by_any_id(tid).map(|(process, _)| process.pid),
        }
    }

    /// `EPERM` unless the caller may change how a process runs.
    fn may_schedule(&self, caller: Caller, pid: u32) -> Result<u64, Errno> {
        if self.ids(caller.pid)?.may_schedule(self.ids(pid)?) {
            Ok(0)
        } else {
            Err(Errno::EPERM)
        }
    }

    /// sched_setaffinity(tid, length, mask): there is one processor.
    fn sched_setaffinity(&mut self, caller: Caller, a: [u64; WORDS]) -> Result<u64, Errno> {
        let mut mask = [0; 1];
        if a[1] != 0 {
            self.read_bytes(caller.who, a[2], &mut mask)?;
        }
        let target = self.scheduled(caller, a[0] as u32)?;
        self.may_schedule(caller, target)?;
        if mask[0] & 1 == 0 {
            return Err(Errno::EINVAL);
        }
        Ok(0)
    }

    /// getcpu(cpu, node).
    pub fn getcpu(&mut self, caller: Caller, a: [u64; WORDS]) -> Result<u64, Errno> {
        self.write_u32_opt(caller.who, a[0], 0)?;
        self.write_u32_opt(caller.who, a[1], 0)?;
        Ok(0)
    }

    /// membarrier(command): one processor needs none.
    pub fn membarrier(&mut self, command: u64) -> Result<u64, Errno> {
        /// QUERY's answer: GLOBAL, GLOBAL_EXPEDITED, PRIVATE_EXPEDITED and registrations.
        const SUPPORTED: u64 = 0x1f;
        match command as u32 {
            0 => Ok(SUPPORTED),
            command if command.is_power_of_two() && command as u64 & SUPPORTED != 0 => Ok(0),
            _ => Err(Errno::EINVAL),
        }
    }

    fn priority_targets(
        &self,
        caller: Caller,
        which: u64,
        id: u64,
    ) -> Result<alloc::vec::Vec<u32>, Errno> {
        let me = self.table.process(caller.pid).ok_or(Errno::ESRCH)?;
        let id = id as u32;
        let pick = |own: u32| if id == 0 { own } else { id };
        let found = match which {
            PRIO_PROCESS => {
                let found = self.scheduled(caller, id).ok();
                self.table.select(|process| found == Some(process.pid))
            }
            PRIO_PGRP => {
                let group = pick(me.group);
                self.table.select(|process| process.group == group)
            }
            PRIO_USER => {
                let user = pick(me.ids.user.real);
                self.table.select(|process| process.ids.user.real == user)
            }
            _ => return Err(Errno::EINVAL),
        };
        if found.is_empty() {
            return Err(Errno::ESRCH);
        }
        Ok(found)
    }

    /// getpriority(which, id): 20 minus the lowest nice value.
    pub fn getpriority(&mut self, caller: Caller, a: [u64; WORDS]) -> Result<u64, Errno> {
        let targets = self.priority_targets(caller, a[0], a[1])?;
        let nice = targets
            .iter()
            .filter_map(|&pid| self.table.process(pid))
            .map(|process| process.nice)
            .min();
        Ok((20 - nice.unwrap_or(0)) as u64)
    }

    /// setpriority(which, id, nice): remembered; the kernel schedules programs alike.
    pub fn setpriority(&mut self, caller: Caller, a: [u64; WORDS]) -> Result<u64, Errno> {
        let nice = (a[2] as i32).clamp(-20, 19);
        let root = self.is_root(caller.pid);
        // One that may not be changed does not keep the others from it.
        let mut result = Ok(0);
        for pid in self.priority_targets(caller, a[0], a[1])? {
            let may = self.may_schedule(caller, pid);
            let process = self.table.process_mut(pid).ok_or(Errno::ESRCH)?;
            // RLIMIT_NICE: 1 is nice 19, 40 is nice -20.
            let allowed = (20 - nice) as u64 <= process.limits.soft(nr::RLIMIT_NICE);
            if let Err(errno) = may {
                result = Err(errno);
            } else if nice < process.nice && !root && !allowed {
                result = Err(Errno::EACCES);
            } else {
                process.nice = nice;
            }
        }
        result
    }
}
