//! Images: the start of PROGRAM, and what PM does when VFS has put a new one in place.

use crate::ids::Ids;
use crate::itimers::IntervalTimers;
use crate::limits::Limits;
use crate::server::Pm;
use crate::signal::action::Actions;
use crate::signal::info::Info;
use crate::signal::pending::Pending;
use crate::signal::set::{SIGCHLD, SIGKILL, SigSet};
use crate::system::System;
use crate::table::{AltStack, Halt, PM_PID, PROGRAM_PID, Process, Thread};
use abi::proto::pm::{ExecAlone, ExecDone, ExecFailed, MayExec, MaySetId};
use abi::proto::{vfs, vm};
use abi::{Endpoint, Errno};

/// Exit codes of a shell that cannot execute a command.
const CANNOT_EXECUTE: u32 = 126;
const NOT_FOUND: u32 = 127;

/// personality(2): no random layouts.
const ADDR_NO_RANDOMIZE: u32 = 0x004_0000;
/// What a set-id program does not inherit: that, and READ_IMPLIES_EXEC, ADDR_COMPAT_LAYOUT,
/// MMAP_PAGE_ZERO (Linux's PER_CLEAR_ON_SETID).
const CLEARED_BY_SET_ID: u32 = ADDR_NO_RANDOMIZE | 0x040_0000 | 0x020_0000 | 0x010_0000;

/// A program's name as Linux keeps it: at most 15 bytes.
fn command(mut name: [u8; 16]) -> [u8; 16] {
    name[15] = 0;
    name
}

impl<S: System> Pm<S> {
    /// All services run: makes the process that is to become PROGRAM.
    pub fn start_init(&mut self) -> Result<(), Errno> {
        if self.table.process(PROGRAM_PID).is_some() || self.ending.is_some() {
            return Err(Errno::EALREADY);
        }
        let who = self.sys.create("init")?;
        let pid = self.table.new_pid();
        let space = vm::NewSpace {
            who,
            service: false,
        };
        if let Err(errno) = self.sys.call(Endpoint::VM, space) {
            self.sys.destroy(who);
            return Err(errno);
        }
        let start_ns = self.sys.now();
        let first_space = self.next_space;
        self.next_space += 1;
        let (user, group) = self.boot.ids;
        self.table.add_process(Process {
            pid,
            parent: PM_PID,
            group: pid,
            session: pid,
            threads: alloc::vec::Vec::new(),
            status: None,
            exit_signal: SIGCHLD,
            actions: Actions::default(),
            pending: Pending::default(),
            ids: Ids::new(user, group),
            limits: Limits::default(),
            stopped: None,
            job_event: None,
            has_execed: false,
            vfork_parent: None,
            space: first_space,
            start_ns,
            dead_cpu_ns: 0,
            children_cpu_ns: 0,
            timers: IntervalTimers::default(),
            nice: 0,
            name: *b"init\0\0\0\0\0\0\0\0\0\0\0\0",
            personality: 0,
            oom: crate::oom::OomAdjust::default(),
            dumpable: true,
            no_new_privileges: false,
            death_signal: 0,
            set_id_exec: false,
            crowded: false,
            traced_by: None,
            tracer: false,
        });
        self.table.add_thread(Thread {
            endpoint: who,
            tid: pid,
            pid,
            blocked: SigSet::EMPTY,
            saved_mask: None,
            pending: Pending::default(),
            altstack: AltStack::default(),
            call: None,
            timer: None,
            halt: Halt::Running,
            clear_tid: 0,
            robust_list: 0,
            name: [0; 16],
            trap: (0, 0, 0),
            restart: None,
            trace: None,
        });
        self.sys.post(Endpoint::VFS, vfs::ExecInit { who, pid });
        Ok(())
    }

    /// VFS has put a new image in place of `done.who`'s old one: the rest of exec, and the
    /// start.
    pub fn exec_done(&mut self, done: ExecDone) {
        let who = done.who;
        // A process that was killed meanwhile is not found.
        let Some(slot) = self.table.slot_of(who) else {
            return;
        };
        let Some(pid) = self.table.thread(slot).map(|thread| thread.pid) else {
            return;
        };
        self.keep_only(pid, slot);
        let name = command(done.name);
        let new_space = self.next_space;
        self.next_space += 1;
        let Some(process) = self.table.process_mut(pid) else {
            return;
        };
        process.actions.reset_handlers();
        process.name = name;
        process.space = new_space;
        process.has_execed = true;
        if done.flags & 1 != 0 {
            process.personality &= !CLEARED_BY_SET_ID;
            process.death_signal = 0;
        }
        process.set_id_exec = false;
        process.traced_by = None;
        let was_root = process.ids.is_root();
        process.ids.adopt(done.ids.0, done.ids.1);
        let own = process.ids.user.is_own() && process.ids.group.is_own();
        process.dumpable = own && done.flags & 2 == 0;
        let stopped = process.stopped.is_some();
        self.drop_posix_timers(pid);
        // The first image's user is told of, too.
        if self.is_root(pid) != was_root || pid == PROGRAM_PID {
            let _ = self.tell_vm_limits(pid);
        }

        let Some(thread) = self.table.thread_mut(slot) else {
            return;
        };
        let old_tid = core::mem::replace(&mut thread.tid, pid);
        thread.restart = None;
        thread.name = name;
        thread.altstack = AltStack::default();
        thread.clear_tid = 0;
        thread.robust_list = 0;
        thread.trap = (0, 0, 0);
        if let Some(mask) = thread.saved_mask.take() {
            thread.blocked = mask;
        }
        // The start undoes a stop that waited for the end of the call.
        thread.halt = Halt::Running;
        self.sys.set_name(who, name);
        if self.sys.start(who, done.pc, done.sp).is_err() {
            self.terminate(pid, SIGKILL);
            return;
        }
        self.release_vfork_parent(pid);
        self.stop_after_exec(slot, old_tid);
        // Signals that came while VFS worked are taken at the first instruction.
        if stopped {
            self.halt(slot);
        } else {
            self.attend(slot);
        }
    }

    /// VFS asks whether a program's set-id bits count.
    pub fn may_set_id_asked(&mut self, request: MaySetId) -> Result<(), Errno> {
        let slot = self.table.slot_of(request.who);
        slot.ok_or(Errno::ESRCH)
            .and_then(|slot| self.may_set_id(slot))
    }

    /// VFS asks whether a process whose user had too many when it became that user's may execute
    /// a program now.
    pub fn may_exec_asked(&mut self, request: MayExec) -> Result<(), Errno> {
        let slot = self.table.slot_of(request.who);
        let pid = slot.and_then(|slot| self.table.thread(slot)).map(|t| t.pid);
        match pid {
            None => Err(Errno::ESRCH),
            Some(pid) if self.exceeds_processes(pid, 0) => Err(Errno::EAGAIN),
            Some(pid) => {
                if let Some(process) = self.table.process_mut(pid) {
                    process.crowded = false;
                }
                Ok(())
            }
        }
    }

    /// An exec of one of several threads passes its point of no return.
    pub fn exec_alone(&mut self, request: ExecAlone) -> Result<(), Errno> {
        let slot = self.table.slot_of(request.who);
        let pid = slot.and_then(|slot| self.table.thread(slot)).map(|t| t.pid);
        match (slot, pid) {
            (Some(slot), Some(pid)) => {
                self.keep_only(pid, slot);
                Ok(())
            }
            // Killed meanwhile.
            _ => Err(Errno::ESRCH),
        }
    }

    /// Ends every thread of the process but this one, which is the process from now on.
    fn keep_only(&mut self, pid: u32, slot: usize) {
        let Some(process) = self.table.process(pid) else {
            return;
        };
        for other in process.threads.clone() {
            if other != slot {
                // The first thread does not end: this one is what it was.
                if self.table.thread(other).is_some_and(|t| t.tid != pid) {
                    self.leave_ghost(other, 0);
                }
                self.end_thread(other);
            }
        }
    }

    /// exec failed when the old image was gone already.
    pub fn exec_failed(&mut self, failed: ExecFailed) {
        let Some(slot) = self.table.slot_of(failed.who) else {
            return;
        };
        let Some(pid) = self.table.thread(slot).map(|thread| thread.pid) else {
            return;
        };
        let started = self.table.process(pid).is_some_and(|p| p.has_execed);
        if pid != PROGRAM_PID || started {
            self.terminate(pid, SIGKILL);
            return;
        }
        let errno = Errno(i32::try_from(failed.status.unsigned_abs()).unwrap_or(0));
        self.sys.log(format_args!(
            "cannot execute {}: {errno}",
            self.boot.program
        ));
        let code = if errno == Errno::ENOENT {
            NOT_FOUND
        } else {
            CANNOT_EXECUTE
        };
        self.exit_process(pid, code << 8);
    }

    /// Tells VFS of a process's ids.
    pub fn tell_vfs_ids(&mut self, pid: u32) {
        let Some(process) = self.table.process(pid) else {
            return;
        };
        let (user, group) = (process.ids.user, process.ids.group);
        let fs = (process.ids.file_user, process.ids.file_group);
        let capabilities = process.ids.capabilities.effective;
        let crowded = process.crowded;
        for slot in process.threads.clone() {
            if let Some(who) = self.table.thread(slot).map(|thread| thread.endpoint) {
                let request = vfs::SetIds {
                    who,
                    uids: (user.real, user.effective),
                    gids: (group.real, group.effective),
                    fs,
                    capabilities,
                    crowded,
                };
                let _ = self.sys.call(Endpoint::VFS, request);
            }
        }
    }

    /// Tells VFS whether a process's programs get a fixed layout.
    pub fn tell_vfs_layout(&mut self, pid: u32) {
        let Some(process) = self.table.process(pid) else {
            return;
        };
        let fixed = process.personality & ADDR_NO_RANDOMIZE != 0;
        for slot in process.threads.clone() {
            if let Some(who) = self.table.thread(slot).map(|thread| thread.endpoint) {
                let request = vfs::SetFixedLayout { who, fixed };
                let _ = self.sys.call(Endpoint::VFS, request);
            }
        }
    }

    /// Raises a signal of the kernel's own for a process.
    pub fn raise(&mut self, pid: u32, signal: i32) {
        let _ = self.send_process(pid, Info::kernel(signal));
    }
}
