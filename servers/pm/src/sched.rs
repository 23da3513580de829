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
        if tid != 0 && self.table.slot_of_tid(tid).is_none() {
            return Err(Errno::ESRCH);
        }
        match call {
            nr::__NR_sched_getaffinity => {
                if a[1] < 8 || !a[1].is_multiple_of(8) {
                    return Err(Errno::EINVAL);
                }
                self.write_words(caller.who, a[2], [1])?;
                Ok(8)
            }
            nr::__NR_sched_setaffinity => {
                let mut mask = [0; 1];
                if a[1] == 0 {
                    return Err(Errno::EINVAL);
                }
                self.read_bytes(caller.who, a[2], &mut mask)?;
                if mask[0] & 1 == 0 {
                    return Err(Errno::EINVAL);
                }
                Ok(0)
            }
            nr::__NR_sched_getscheduler => Ok(SCHED_OTHER),
            nr::__NR_sched_getparam => {
                self.write_u32(caller.who, a[1], 0)?;
                Ok(0)
            }
            nr::__NR_sched_setscheduler => match a[1] {
                SCHED_OTHER | SCHED_BATCH | SCHED_IDLE => self.priority_zero(caller, a[2]),
                SCHED_FIFO | SCHED_RR => Err(Errno::EPERM),
                _ => Err(Errno::EINVAL),
            },
            nr::__NR_sched_setparam => self.priority_zero(caller, a[1]),
            nr::__NR_sched_rr_get_interval => {
                self.write_words(caller.who, a[1], [0, 10_000_000])?;
                Ok(0)
            }
            _ => Err(Errno::ENOSYS),
        }
    }

    fn priority_zero(&mut self, caller: Caller, address: u64) -> Result<u64, Errno> {
        match self.read_u32(caller.who, address)? {
            0 => Ok(0),
            _ => Err(Errno::EINVAL),
        }
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
                let pid = pick(caller.pid);
                self.table.select(|process| process.pid == pid)
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
        for pid in self.priority_targets(caller, a[0], a[1])? {
            let may = self.ids(caller.pid)?.may_signal(self.ids(pid)?);
            let process = self.table.process_mut(pid).ok_or(Errno::ESRCH)?;
            if !may {
                return Err(Errno::EPERM);
            }
            if nice < process.nice && !root {
                return Err(Errno::EACCES);
            }
            process.nice = nice;
        }
        Ok(0)
    }
}
