//! Processes and threads.
//!
//! A *thread* is what the kernel schedules: one endpoint, found by its slot. A *process* is
//! a thread group: what `getpid` names, what is waited for, what owns signal dispositions.
//! A process without threads is a zombie.

use crate::ids::Ids;
use crate::itimers::IntervalTimers;
use crate::limits::Limits;
use crate::signal::action::Actions;
use crate::signal::pending::Pending;
use crate::signal::set::SigSet;
use crate::timers::TimerKey;
use crate::trace::{Ghost, Trace};
use crate::wait::WaitFor;
use abi::{Endpoint, endpoint::MAX_PROCESSES};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// PM's own process id: the parent of orphans and of PROGRAM.
pub const PM_PID: u32 = 1;
/// PROGRAM's process id.
pub const PROGRAM_PID: u32 = 2;
/// One more than the highest process id.
pub const PID_MAX: u32 = 32768;
/// Where process ids start again after a wrap.
const PID_RESTART: u32 = 300;

/// A Linux call that PM holds: the thread waits in it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Call {
    /// wait4, waitid.
    Wait(WaitFor),
    /// nanosleep, clock_nanosleep; a relative one writes the remaining time there when it is
    /// interrupted.
    Sleep {
        /// Where the remaining time goes, or 0.
        remaining: u64,
        /// When it ends, ns since boot.
        deadline: u64,
    },
    /// pause, rt_sigsuspend.
    Pause,
    /// rt_sigtimedwait.
    SignalWait {
        /// The awaited signals.
        set: SigSet,
        /// Where the siginfo goes, or 0.
        info: u64,
    },
    /// futex wait; the queue entry is in [`crate::futex::Futexes`].
    Futex {
        /// Its deadline, ns since boot, if it has one.
        timed: Option<u64>,
    },
    /// vfork: until the child execs or exits.
    Vfork {
        /// The child.
        child: u32,
    },
    /// A traced call that stopped for an event and is completed afterwards
    /// ([`crate::trace::After`]).
    Event,
}

/// How far PM has stopped a thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Halt {
    /// Not at all.
    Running,
    /// Asked; its Linux call at another server has to end first.
    Stopping,
    /// Executes nothing until PM resumes it.
    Stopped,
}

/// The alternate signal stack.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AltStack {
    /// Lowest address.
    pub base: u64,
    /// Bytes; 0 when there is none.
    pub size: u64,
    /// SS_AUTODISARM or 0.
    pub flags: u32,
}

impl AltStack {
    /// Whether `sp` is on it.
    pub fn contains(&self, sp: u64) -> bool {
        self.size != 0 && sp > self.base && sp - self.base <= self.size
    }
}

/// One thread.
#[derive(Debug)]
pub struct Thread {
    /// Its endpoint; the slot is its index in the table.
    pub endpoint: Endpoint,
    /// Thread id.
    pub tid: u32,
    /// Its process.
    pub pid: u32,
    /// Blocked signals.
    pub blocked: SigSet,
    /// The mask that rt_sigsuspend replaced.
    pub saved_mask: Option<SigSet>,
    /// Signals for this thread alone.
    pub pending: Pending,
    /// See [`AltStack`].
    pub altstack: AltStack,
    /// The call PM holds.
    pub call: Option<Call>,
    /// The timeout of `call`.
    pub timer: Option<TimerKey>,
    /// See [`Halt`].
    pub halt: Halt,
    /// Cleared and woken when the thread exits (set_tid_address).
    pub clear_tid: u64,
    /// Head of the robust futex list.
    pub robust_list: u64,
    /// Name, zero padded.
    pub name: [u8; 16],
    /// The exception that stopped it, for the signal frame: vector, error code, address.
    pub trap: (u64, u64, u64),
    /// The call that restart_syscall goes on with, and its deadline.
    pub restart: Option<(Restart, u64)>,
    /// How it is traced.
    pub trace: Option<Box<Trace>>,
}

/// A call with a relative timeout that a signal interrupted, and that goes on with the time that
/// is left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Restart {
    /// A sleep; where the remaining time goes when it is interrupted again, or 0.
    Sleep(u64),
    /// A futex wait: its arguments.
    Futex([u64; 7]),
}

/// What a process did to its job-control state since the parent last looked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JobEvent {
    /// Stopped by this signal.
    Stopped(i32),
    /// Continued.
    Continued,
}

/// One process.
#[derive(Debug)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Parent's process id; [`PM_PID`] for orphans.
    pub parent: u32,
    /// Process group.
    pub group: u32,
    /// Session.
    pub session: u32,
    /// Slots of its threads; empty for a zombie.
    pub threads: Vec<usize>,
    /// Wait status of a zombie.
    pub status: Option<u32>,
    /// Signal that tells the parent of the end; 0 for none.
    pub exit_signal: i32,
    /// Signal dispositions.
    pub actions: Actions,
    /// Signals for whichever thread takes them.
    pub pending: Pending,
    /// User and group ids.
    pub ids: Ids,
    /// Resource limits.
    pub limits: Limits,
    /// The signal that stopped the process (job control).
    pub stopped: Option<i32>,
    /// Not yet reported to a waiting parent.
    pub job_event: Option<JobEvent>,
    /// An image was put in place (the first one for PROGRAM).
    pub has_execed: bool,
    /// The thread that waits in vfork for this process.
    pub vfork_parent: Option<Endpoint>,
    /// Which address space it runs in (futex keys).
    pub space: u64,
    /// Start, ns since boot.
    pub start_ns: u64,
    /// CPU time of threads that are gone.
    pub dead_cpu_ns: u64,
    /// CPU time of reaped children.
    pub children_cpu_ns: u64,
    /// setitimer and timer_create.
    pub timers: IntervalTimers,
    /// nice value.
    pub nice: i32,
    /// Name of the program, zero padded.
    pub name: [u8; 16],
    /// Exec personality bits.
    pub personality: u32,
    /// What it is worth when memory is used up.
    pub oom: crate::oom::OomAdjust,
    /// Others of the same user may look at it (PR_SET_DUMPABLE).
    pub dumpable: bool,
    /// Set-id bits of what it executes do not count, nor those of its children
    /// (PR_SET_NO_NEW_PRIVS).
    pub no_new_privileges: bool,
    /// What it gets when its parent ends (PR_SET_PDEATHSIG); 0: nothing.
    pub death_signal: i32,
    /// VFS executes a set-id program in it.
    pub set_id_exec: bool,
    /// It became a user's who had more processes than its RLIMIT_NPROC, and has executed nothing
    /// since.
    pub crowded: bool,
    /// Who traced its first thread when that ended.
    pub traced_by: Option<u32>,
    /// It has traced a thread: only then may threads and ghosts name it as their tracer.
    pub tracer: bool,
}

impl Process {
    /// Whether it ended and was not waited for.
    pub fn is_zombie(&self) -> bool {
        self.status.is_some()
    }
}

/// All of them.
#[derive(Debug)]
pub struct Table {
    threads: Vec<Option<Thread>>,
    /// Each by itself: a dozen of them in one block are more than the heap keeps in reserve.
    processes: BTreeMap<u32, Box<Process>>,
    ghosts: Vec<Ghost>,
    next_pid: u32,
}

impl Default for Table {
    fn default() -> Self {
        Table::new()
    }
}

impl Table {
    /// An empty table; the first process id handed out is [`PROGRAM_PID`].
    pub fn new() -> Table {
        Table {
            threads: (0..MAX_PROCESSES).map(|_| None).collect(),
            processes: BTreeMap::new(),
            ghosts: Vec::new(),
            next_pid: PROGRAM_PID,
        }
    }

    /// The slots in use, in order.
    pub fn slots(&self) -> impl Iterator<Item = usize> {
        let used = |(slot, thread): (usize, &Option<Thread>)| thread.as_ref().map(|_| slot);
        self.threads.iter().enumerate().filter_map(used)
    }

    /// Tracees that are gone and that their tracers have to be told of.
    pub fn ghosts(&self) -> &[Ghost] {
        &self.ghosts
    }

    /// One more.
    pub fn add_ghost(&mut self, ghost: Ghost) {
        self.ghosts.push(ghost);
    }

    /// Takes those that a predicate picks.
    pub fn take_ghosts(&mut self, mut wanted: impl FnMut(&Ghost) -> bool) -> Vec<Ghost> {
        let (taken, left) = self.ghosts.iter().partition(|ghost| wanted(ghost));
        self.ghosts = left;
        taken
    }

    /// The thread in a slot.
    pub fn thread(&self, slot: usize) -> Option<&Thread> {
        self.threads.get(slot)?.as_ref()
    }

    /// The thread in a slot.
    pub fn thread_mut(&mut self, slot: usize) -> Option<&mut Thread> {
        self.threads.get_mut(slot)?.as_mut()
    }

    /// The slot of exactly this endpoint; a dead predecessor's is not found.
    pub fn slot_of(&self, who: Endpoint) -> Option<usize> {
        if !who.is_process() {
            return None;
        }
        self.thread(who.slot())
            .is_some_and(|thread| thread.endpoint == who)
            .then_some(who.slot())
    }

    /// The slot of a thread id.
    pub fn slot_of_tid(&self, tid: u32) -> Option<usize> {
        self.threads
            .iter()
            .position(|thread| thread.as_ref().is_some_and(|thread| thread.tid == tid))
    }

    /// Adds a thread to its process. `false` when the slot cannot be used.
    pub fn add_thread(&mut self, thread: Thread) -> bool {
        let slot = thread.endpoint.slot();
        let pid = thread.pid;
        let Some(place @ None) = self.threads.get_mut(slot) else {
            return false;
        };
        let Some(process) = self.processes.get_mut(&pid) else {
            return false;
        };
        *place = Some(thread);
        process.threads.push(slot);
        true
    }

    /// Removes a thread from the table and from its process.
    pub fn remove_thread(&mut self, slot: usize) -> Option<Thread> {
        let thread = self.threads.get_mut(slot)?.take()?;
        if let Some(process) = self.processes.get_mut(&thread.pid) {
            process.threads.retain(|&other| other != slot);
        }
        Some(thread)
    }

    /// A process, zombies included.
    pub fn process(&self, pid: u32) -> Option<&Process> {
        self.processes.get(&pid).map(|process| &**process)
    }

    /// A process, zombies included.
    pub fn process_mut(&mut self, pid: u32) -> Option<&mut Process> {
        self.processes.get_mut(&pid).map(|process| &mut **process)
    }

    /// Adds a process.
    pub fn add_process(&mut self, process: Process) {
        self.processes.insert(process.pid, Box::new(process));
    }

    /// Forgets a process.
    pub fn remove_process(&mut self, pid: u32) -> Option<Process> {
        self.processes.remove(&pid).map(|process| *process)
    }

    /// All processes, by id.
    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        self.processes.values().map(|process| &**process)
    }

    /// All processes, by id.
    pub fn processes_mut(&mut self) -> impl Iterator<Item = &mut Process> {
        self.processes.values_mut().map(|process| &mut **process)
    }

    /// The first process whose id is at least `pid`.
    pub fn first_from(&self, pid: u32) -> Option<u32> {
        self.processes.range(pid..).next().map(|(&pid, _)| pid)
    }

    /// Ids of the processes that a predicate picks.
    pub fn select(&self, mut wanted: impl FnMut(&Process) -> bool) -> Vec<u32> {
        self.processes
            .values()
            .filter(|process| wanted(process))
            .map(|process| process.pid)
            .collect()
    }

    /// Whether the id names a process, thread, group or session.
    fn pid_in_use(&self, pid: u32) -> bool {
        self.processes.contains_key(&pid)
            || self
                .processes
                .values()
                .any(|process| process.group == pid || process.session == pid)
            || self.slot_of_tid(pid).is_some()
            || self.ghosts.iter().any(|ghost| ghost.tid == pid)
    }

    /// A free id. The table of threads is much smaller than the range, so one is found.
    pub fn new_pid(&mut self) -> u32 {
        loop {
            let pid = self.next_pid;
            self.next_pid = if pid + 1 >= PID_MAX {
                PID_RESTART
            } else {
                pid + 1
            };
            if !self.pid_in_use(pid) {
                return pid;
            }
        }
    }
}
