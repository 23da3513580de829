//! The end of the machine: PROGRAM has ended, or root asked for it.

use crate::calls::{Caller, Outcome};
use crate::server::Pm;
use crate::signal::set::SIGKILL;
use crate::sleep::SECOND;
use crate::system::System;
use crate::table::PROGRAM_PID;
use crate::timers::{Event, TimerKey};
use abi::hostlink::EXIT_UNSAVED;
use abi::lab::POWEROFF_PANIC;
use abi::message::WORDS;
use abi::proto::{terminal, vfs, vm};
use abi::{Endpoint, Errno};

/// How long the file systems may take to write everything back.
const SYNC_LIMIT: u64 = 10 * SECOND;
const SYNC_TXN: u64 = 1;
/// The magic numbers of reboot(2).
const REBOOT_MAGIC1: u32 = 0xfee1_dead;
const REBOOT_MAGIC2: [u32; 4] = [672_274_793, 85_072_278, 369_367_448, 537_993_216];
const REBOOT_RESTART: u32 = 0x0123_4567;
const REBOOT_HALT: u32 = 0xcdef_0123;
const REBOOT_POWER_OFF: u32 = 0x4321_fedc;

/// The end, under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ending {
    /// PROGRAM's wait status.
    pub status: u32,
    overdue: TimerKey,
    /// RS has died: that, and not how PROGRAM ended, is the end of the machine.
    broken: bool,
}

/// What the machine's exit code is for a wait status: the exit code, or 128 and the signal.
pub fn exit_code(status: u32) -> u64 {
    match status & 0x7f {
        0 => (status >> 8 & 0xff) as u64,
        signal => 128 + signal as u64,
    }
}

impl<S: System> Pm<S> {
    /// Ends everything: processes, file systems, machine.
    pub fn end_machine(&mut self, status: u32) {
        self.begin_end(status, false);
    }

    /// RS, which would end the machine in order when another died, has died itself.
    pub fn watcher_died(&mut self, why: core::fmt::Arguments<'_>) {
        self.sys.log(format_args!("service rs died: {why}"));
        if let Some(ending) = &mut self.ending {
            ending.broken = true;
        }
        self.begin_end(SIGKILL as u32, true);
    }

    fn begin_end(&mut self, status: u32, broken: bool) {
        if self.ending.is_some() {
            return;
        }
        let deadline = self.sys.now().saturating_add(SYNC_LIMIT);
        let overdue = self.timers.add(deadline, Event::SyncOverdue);
        self.ending = Some(Ending {
            status,
            overdue,
            broken,
        });
        for pid in self.table.select(|process| !process.is_zombie()) {
            self.exit_process(pid, SIGKILL as u32);
        }
        self.sys.ask(Endpoint::VFS, SYNC_TXN, vfs::SyncAll {});
    }

    /// The host wants the run to end: as if everything had been killed.
    pub fn end_run(&mut self) {
        self.end_machine(SIGKILL as u32);
    }

    /// VFS has written everything back, or could not.
    pub fn synced(&mut self, txn: u64, saved: Result<(), Errno>) {
        if let Some(ending) = self.ending
            && txn == SYNC_TXN
        {
            self.timers.cancel(ending.overdue);
            self.finish(ending.status, saved.is_ok());
        }
    }

    /// It has not, and the time is over.
    pub fn sync_overdue(&mut self) {
        if let Some(ending) = self.ending {
            self.sys
                .log(format_args!("file systems did not sync in time"));
            self.finish(ending.status, false);
        }
    }

    fn finish(&mut self, status: u32, saved: bool) {
        if self.ending.is_some_and(|ending| ending.broken) {
            let lost = if saved {
                ""
            } else {
                "; what was written last is lost"
            };
            self.sys.log(format_args!(
                "the system cannot go on without service rs{lost}"
            ));
            return self.sys.power_off(POWEROFF_PANIC);
        }
        if self.boot.accounts {
            self.log_accounts();
        }
        if let Some(console) = self.boot.console {
            let unsaved = if saved { 0 } else { EXIT_UNSAVED };
            let status = status | unsaved;
            let _ = self.sys.call(console, terminal::ExitStatus { status });
        }
        self.sys.power_off(exit_code(status));
    }

    /// What is still held now that no process lives, in one line: the laboratory compares it
    /// with that of a run in which nothing was absent.
    fn log_accounts(&mut self) {
        let vm = self.sys.call(Endpoint::VM, vm::VmCounters {});
        let frames = self.sys.call(Endpoint::VM, vm::VmFrames {});
        // Before VFS forgets the files that only its name cache knows.
        let locks = self.sys.call(Endpoint::VFS, vfs::VfsLocks {});
        let vfs = self.sys.call(Endpoint::VFS, vfs::VfsCounters {});
        let (Ok(vm), Ok(frames), Ok(vfs), Ok(locks)) = (vm, frames, vfs, locks) else {
            return self
                .sys
                .log(format_args!("no accounts: VM or VFS does not answer"));
        };
        let pm = self.counters();
        self.sys.log(format_args!(
            "{} spaces {} regions {} page-ins {} files {} vnodes {} pipes {} tasks {} grants {} \
             vfs-processes {} processes {} positions {} locks {} writing {} executing {} lost {} \
             programs {} tables {} vm {} services {} cached {}",
            abi::lab::ACCOUNTS,
            vm.spaces,
            vm.regions,
            vm.waiting,
            vfs.files,
            vfs.vnodes,
            vfs.pipes,
            vfs.tasks,
            vfs.grants,
            vfs.processes,
            pm.processes + pm.zombies,
            locks.positions,
            locks.ranges,
            locks.writing,
            locks.executing,
            frames.lost,
            frames.programs,
            frames.tables,
            frames.heap,
            frames.services,
            frames.cached,
        ));
    }

    /// reboot(magic, magic2, command).
    pub fn reboot(&mut self, caller: Caller, a: [u64; WORDS]) -> Result<Outcome, Errno> {
        if !self.is_root(caller.pid) {
            return Err(Errno::EPERM);
        }
        if a[0] as u32 != REBOOT_MAGIC1 || !REBOOT_MAGIC2.contains(&(a[1] as u32)) {
            return Err(Errno::EINVAL);
        }
        match a[2] as u32 {
            REBOOT_RESTART | REBOOT_HALT | REBOOT_POWER_OFF => {
                self.exit_process(PROGRAM_PID, 0);
                self.end_machine(0);
                Ok(Outcome::Answered)
            }
            // Whether ctrl-alt-delete reboots: there is none.
            0 | 0x89ab_cdef => Ok(Outcome::Done(Ok(0))),
            _ => Err(Errno::EINVAL),
        }
    }
}
