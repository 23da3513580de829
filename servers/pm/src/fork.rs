//! fork, vfork and clone: new processes and threads.

use crate::calls::{Caller, Outcome};
use crate::itimers::IntervalTimers;
use crate::server::Pm;
use crate::signal::pending::Pending;
use crate::signal::set::{SIGCHLD, SIGNALS};
use crate::system::System;
use crate::table::{AltStack, Call, Halt, Process, Thread};
use crate::trace::After;
use abi::endpoint::MAX_PROCESSES;
use abi::message::WORDS;
use abi::proto::{vfs, vm};
use abi::{Endpoint, Errno};
use linux_raw_sys::general as linux;

/// The clone flags that are understood; asking for others is `EINVAL`.
const KNOWN: u64 = (linux::CLONE_VM
    | linux::CLONE_FS
    | linux::CLONE_FILES
    | linux::CLONE_SIGHAND
    | linux::CLONE_PTRACE
    | linux::CLONE_VFORK
    | linux::CLONE_PARENT
    | linux::CLONE_THREAD
    | linux::CLONE_SYSVSEM
    | linux::CLONE_SETTLS
    | linux::CLONE_PARENT_SETTID
    | linux::CLONE_CHILD_CLEARTID
    | linux::CLONE_DETACHED
    | linux::CLONE_UNTRACED
    | linux::CLONE_CHILD_SETTID
    | linux::CLONE_IO) as u64
    | 0xff;

/// What clone was asked for.
#[derive(Clone, Copy, Debug, Default)]
struct Plan {
    flags: u64,
    stack: u64,
    parent_tid: u64,
    child_tid: u64,
    tls: u64,
}

impl Plan {
    fn has(&self, flag: u32) -> bool {
        self.flags & flag as u64 != 0
    }
}

/// Places for threads: some of the kernel's are the services'.
const PLACES: usize = MAX_PROCESSES - 32;
/// Of these, those that only root's threads get.
const ROOT_SHARE: usize = 24;

impl<S: System> Pm<S> {
    /// fork.
    pub fn fork(&mut self, caller: Caller) -> Result<Outcome, Errno> {
        self.clone_process(
            caller,
            Plan {
                flags: SIGCHLD as u64,
                ..Plan::default()
            },
        )
    }

    /// vfork.
    pub fn vfork(&mut self, caller: Caller) -> Result<Outcome, Errno> {
        self.clone_process(
            caller,
            Plan {
                flags: (linux::CLONE_VM | linux::CLONE_VFORK) as u64 | SIGCHLD as u64,
                ..Plan::default()
            },
        )
    }

    /// clone(flags, stack, parent_tid, child_tid, tls).
    pub fn clone_call(&mut self, caller: Caller, a: [u64; WORDS]) -> Result<Outcome, Errno> {
        let plan = Plan {
            flags: a[0],
            stack: a[1],
            parent_tid: a[2],
            child_tid: a[3],
            tls: a[4],
        };
        let needs = |flag, other| !plan.has(flag) || plan.has(other);
        if plan.flags & !KNOWN != 0
            || plan.flags & 0xff > SIGNALS as u64
            || !needs(linux::CLONE_THREAD, linux::CLONE_SIGHAND)
            || !needs(linux::CLONE_SIGHAND, linux::CLONE_VM)
            || plan.tls >= abi::kernel::USER_END
        {
            return Err(Errno::EINVAL);
        }
        self.clone_process(caller, plan)
    }

    /// The last places for threads are root's: `EAGAIN` for others. Who has ended keeps a place
    /// until somebody has waited for it, as on Linux: it is remembered here.
    fn check_share(&self, pid: u32) -> Result<(), Errno> {
        let table = &self.table;
        let ended = table.processes().filter(|p| p.is_zombie()).count() + table.ghosts().len();
        let used = table.slots().count() + ended;
        if used >= PLACES {
            return Err(Errno::EAGAIN);
        }
        if used + ROOT_SHARE >= PLACES && !self.is_root(pid) {
            return Err(Errno::EAGAIN);
        }
        Ok(())
    }

    fn clone_process(&mut self, caller: Caller, plan: Plan) -> Result<Outcome, Errno> {
        if self.ending.is_some() {
            return Err(Errno::EAGAIN);
        }
        self.check_share(caller.pid)?;
        self.check_processes(caller.pid)?;
        let thread = plan.has(linux::CLONE_THREAD);
        let who = self.sys.fork(caller.who)?;
        let tid = self.table.new_pid();
        let pid = if thread { caller.pid } else { tid };
        // Each step that fails takes back those before it.
        let mut done = 0;
        let result = self.build(caller, who, tid, pid, plan, &mut done);
        if let Err(errno) = result {
            if done > 1 {
                let _ = self.sys.call(Endpoint::VFS, vfs::Exit { who });
            }
            if done > 0 {
                let _ = self.sys.call(Endpoint::VM, vm::Exit { who });
            }
            self.sys.destroy(who);
            return Err(errno);
        }
        self.forks += 1;
        let event = self.trace_child(caller, who.slot(), plan.flags);
        self.let_child_go(
            caller,
            who,
            tid,
            event,
            plan.has(linux::CLONE_VFORK) && !thread,
        );
        if event.is_some() {
            return Ok(Outcome::Answered);
        }
        if plan.has(linux::CLONE_VFORK) && !thread {
            return Ok(Outcome::Hold(Call::Vfork { child: pid }, None));
        }
        Ok(Outcome::Done(Ok(tid as u64)))
    }

    /// Starts a child: it runs, or as a tracee it stops, after its parent when that stops for it.
    fn let_child_go(
        &mut self,
        caller: Caller,
        who: Endpoint,
        tid: u32,
        event: Option<u32>,
        vfork: bool,
    ) {
        let slot = who.slot();
        if let Some(event) = event {
            let after = match vfork {
                true => After::Vfork(tid),
                false => After::Return(tid as u64),
            };
            self.event_in_call(caller.slot, (event, tid as u64), after);
        }
        if self.trace(slot).is_none() {
            return self.sys.resume(who, 0);
        }
        // The kernel makes it stopped.
        if let Some(thread) = self.table.thread_mut(slot) {
            thread.halt = Halt::Stopped;
        }
        self.attend(slot);
    }

    fn build(
        &mut self,
        caller: Caller,
        who: Endpoint,
        tid: u32,
        pid: u32,
        plan: Plan,
        done: &mut u32,
    ) -> Result<(), Errno> {
        let share = plan.has(linux::CLONE_VM);
        let fork = vm::Fork {
            parent: caller.who,
            child: who,
            share,
        };
        while let Err(errno) = self.sys.call(Endpoint::VM, fork) {
            if errno != Errno::ENOMEM || !self.make_room_for_root(caller.pid) {
                return Err(errno);
            }
        }
        *done = 1;
        let fork = vfs::Fork {
            parent: caller.who,
            child: who,
            pid,
            share_files: plan.has(linux::CLONE_FILES),
            share_fs: plan.has(linux::CLONE_FS),
        };
        self.sys.call(Endpoint::VFS, fork)?;
        *done = 2;
        if plan.stack != 0 || plan.has(linux::CLONE_SETTLS) {
            let mut registers = self.sys.registers(who)?;
            if plan.stack != 0 {
                registers.rsp = plan.stack;
            }
            if plan.has(linux::CLONE_SETTLS) {
                registers.fs_base = plan.tls;
            }
            self.sys.set_registers(who, &registers)?;
        }
        // Linux, too, goes on when these cannot be written.
        if plan.has(linux::CLONE_PARENT_SETTID) {
            let _ = self.write_u32(caller.who, plan.parent_tid, tid);
        }
        if plan.has(linux::CLONE_CHILD_SETTID) {
            let _ = self.write_u32(who, plan.child_tid, tid);
        }
        if pid == tid {
            self.add_child_process(caller, pid, plan)?;
        }
        if self.add_child_thread(caller, who, tid, pid, plan) {
            Ok(())
        } else {
            if pid == tid {
                self.drop_timers(pid);
                self.table.remove_process(pid);
            }
            Err(Errno::EAGAIN)
        }
    }

    fn add_child_process(&mut self, caller: Caller, pid: u32, plan: Plan) -> Result<(), Errno> {
        let share = plan.has(linux::CLONE_VM);
        let start_ns = self.sys.now();
        let new_space = self.next_space;
        self.next_space += 1;
        let parent = self.table.process(caller.pid).ok_or(Errno::ESRCH)?;
        let child = Process {
            pid,
            parent: if plan.has(linux::CLONE_PARENT) {
                parent.parent
            } else {
                caller.pid
            },
            group: parent.group,
            session: parent.session,
            threads: alloc::vec::Vec::new(),
            status: None,
            exit_signal: (plan.flags & 0xff) as i32,
            actions: parent.actions.clone(),
            pending: Pending::default(),
            ids: parent.ids.clone(),
            limits: parent.limits,
            stopped: None,
            job_event: None,
            has_execed: false,
            vfork_parent: plan.has(linux::CLONE_VFORK).then_some(caller.who),
            space: if share { parent.space } else { new_space },
            start_ns,
            dead_cpu_ns: 0,
            children_cpu_ns: 0,
            timers: IntervalTimers::default(),
            nice: parent.nice,
            name: parent.name,
            personality: parent.personality,
            oom: parent.oom,
            dumpable: parent.dumpable,
            no_new_privileges: parent.no_new_privileges,
            death_signal: 0,
            set_id_exec: false,
            crowded: false,
            traced_by: None,
            tracer: false,
        };
        self.table.add_process(child);
        self.watch_cpu(pid);
        Ok(())
    }

    fn add_child_thread(
        &mut self,
        caller: Caller,
        who: Endpoint,
        tid: u32,
        pid: u32,
        plan: Plan,
    ) -> bool {
        let Some(parent) = self.table.thread(caller.slot) else {
            return false;
        };
        let share = plan.has(linux::CLONE_VM);
        let thread = Thread {
            endpoint: who,
            tid,
            pid,
            blocked: parent.blocked,
            saved_mask: None,
            pending: Pending::default(),
            // A thread on a stack of its own cannot share the alternate one.
            altstack: if share && !plan.has(linux::CLONE_VFORK) {
                AltStack::default()
            } else {
                parent.altstack
            },
            call: None,
            timer: None,
            halt: Halt::Running,
            clear_tid: if plan.has(linux::CLONE_CHILD_CLEARTID) {
                plan.child_tid
            } else {
                0
            },
            robust_list: 0,
            name: parent.name,
            trap: (0, 0, 0),
            restart: None,
            trace: None,
        };
        self.table.add_thread(thread)
    }

    /// The child of a vfork has its own image or is gone: its parent goes on.
    pub fn release_vfork_parent(&mut self, child: u32) {
        let parent = self
            .table
            .process_mut(child)
            .and_then(|process| process.vfork_parent.take());
        let Some(slot) = parent.and_then(|who| self.table.slot_of(who)) else {
            return;
        };
        let waits = self.table.thread(slot).and_then(|thread| thread.call);
        if waits == Some(Call::Vfork { child }) {
            self.vfork_is_done(slot, child);
            // Signals waited, too. A thread that job control stopped stays so.
            match self.table.thread(slot).map(|thread| thread.halt) {
                Some(Halt::Stopped) => self.act(slot),
                _ => self.attend(slot),
            }
        }
    }
}
