//! ptrace: who traces whom, and what a tracee stops for.
//!
//! A tracee is a thread with a [`Trace`]. While it is in a stop ([`Trace::stop`]) it executes
//! nothing and its registers are at an instruction boundary; [`stop`] decides which stop is next,
//! [`resume`] lets it go on, [`call`] is the system call. A stop never leaves a thread in the
//! middle of a call: what it waited for has ended with a restart code, as on Linux, or (fork,
//! vfork, exit) is completed when it goes on ([`After`]).
//!
//! The kernel stops a thread at the entry and the end of a Linux call when it is resumed with
//! [`abi::kernel::resume`]; it knows nothing else of tracing, and an untraced thread meets
//! nothing of it.
//!
//! Why so: docs/decisions/010-ptrace.md.

pub mod access;
pub mod attach;
pub mod call;
pub mod copies;
pub mod leave;
pub mod memory;
pub mod registers;
pub mod regset;
pub mod resume;
pub mod stop;
pub mod syscall_info;

use crate::signal::info::Info;
use crate::signal::set::SIGTRAP;
use crate::table::Process;
use linux_raw_sys::ptrace as linux;

/// si_code of a step that ended with a system call.
pub const TRAP_BRKPT: i32 = 1;

/// How a tracee goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// PTRACE_CONT.
    Run,
    /// PTRACE_SYSCALL: to the next entry or end of a call.
    Syscall,
    /// PTRACE_SINGLESTEP.
    Step,
}

/// What a tracee is stopped for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// A signal was taken and is the tracer's to pass on.
    Signal,
    /// Before a Linux call.
    Entry,
    /// After one.
    Exit,
    /// PTRACE_EVENT_*.
    Event(u32),
    /// Job control, or PTRACE_INTERRUPT.
    Job,
    /// The first instruction of a handler, in single steps.
    Handler,
}

/// A stop.
#[derive(Clone, Copy, Debug)]
pub struct Stopped {
    /// What for.
    pub why: Why,
    /// What wait reports: signal, and an event in the second byte.
    pub code: u32,
    /// What PTRACE_GETSIGINFO says; nothing in a group stop of PTRACE_ATTACH.
    pub info: Option<Info>,
    /// wait has reported it.
    pub reported: bool,
    /// PTRACE_LISTEN: it is told of the end of the group stop.
    pub listening: bool,
}

/// What is left to do of a call, or an end, that an event stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum After {
    /// The call returns this.
    Return(u64),
    /// vfork: the thread waits for this child.
    Vfork(u32),
    /// exit or exit_group, with this code.
    Exit(u64, bool),
    /// This signal kills the process.
    Killed(i32),
}

/// That a thread is traced, and how.
#[derive(Debug)]
pub struct Trace {
    /// The tracer's process id. Any of its threads may use ptrace.
    pub tracer: u32,
    /// The tracer was root when it began.
    pub privileged: bool,
    /// PTRACE_SEIZE rather than PTRACE_ATTACH or PTRACE_TRACEME.
    pub seized: bool,
    /// PTRACE_O_*.
    pub options: u32,
    /// How it goes on, or went on last.
    pub mode: Mode,
    /// The stop that it is in.
    pub stop: Option<Stopped>,
    /// The kernel stopped it before a call that is not reported yet.
    pub at_entry: bool,
    /// The end of the call that it is in is to be reported.
    pub exit_due: bool,
    /// An event to stop for, with its message.
    pub event: Option<(u32, u64)>,
    /// See [`After`].
    pub after: Option<After>,
    /// PTRACE_INTERRUPT, or the first stop of a seized child.
    pub interrupt: bool,
    /// A group stop, or its end, that is not reported yet.
    pub notify: bool,
    /// PTRACE_GETEVENTMSG.
    pub message: u64,
    /// The trap flag is ours, not the program's.
    pub stepping: bool,
    /// Debug registers 0 to 3 and 6, which hold what was written and do nothing.
    pub debug: [u64; 8],
}

impl Trace {
    /// A tracee of `tracer` that runs.
    pub fn new(tracer: u32, privileged: bool) -> Trace {
        Trace {
            tracer,
            privileged,
            seized: false,
            options: 0,
            mode: Mode::Run,
            stop: None,
            at_entry: false,
            exit_due: false,
            event: None,
            after: None,
            interrupt: false,
            notify: false,
            message: 0,
            stepping: false,
            debug: [0; 8],
        }
    }

    /// Whether an option is set.
    pub fn has(&self, option: u32) -> bool {
        self.options & option != 0
    }

    /// Whether the options ask for this event.
    pub fn wants(&self, event: u32) -> bool {
        self.has(1 << event)
    }

    /// Whether it is in a stop in which the tracer may look at it.
    pub fn is_stopped(&self) -> bool {
        self.stop.is_some_and(|stop| !stop.listening)
    }

    /// Whether something other than a signal is to be reported.
    pub fn is_due(&self) -> bool {
        self.at_entry || self.event.is_some() || self.interrupt || self.notify
    }
}

impl Stopped {
    /// A stop with this code, which SIGTRAP's siginfo names as its own.
    pub fn new(why: Why, code: u32, info: Option<Info>) -> Stopped {
        Stopped {
            why,
            code,
            info,
            reported: false,
            listening: false,
        }
    }

    /// The stop for a signal.
    pub fn signal(info: Info) -> Stopped {
        Stopped::new(Why::Signal, info.signal() as u32, Some(info))
    }

    /// Whether the thread stands inside a call, whose end is still to come.
    pub fn is_inside(&self) -> bool {
        match self.why {
            Why::Entry => true,
            Why::Event(event) => event != linux::PTRACE_EVENT_EXIT,
            _ => false,
        }
    }
}

/// A tracee that is gone and that its tracer has not waited for yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ghost {
    /// Thread id.
    pub tid: u32,
    /// Process.
    pub pid: u32,
    /// Process group.
    pub group: u32,
    /// User, for siginfo.
    pub uid: u32,
    /// The tracer's process id.
    pub tracer: u32,
    /// Wait status.
    pub status: u32,
}

impl Ghost {
    /// Of thread `tid` of `process`.
    pub fn new(process: &Process, tid: u32, tracer: u32, status: u32) -> Ghost {
        Ghost {
            tid,
            pid: process.pid,
            group: process.group,
            uid: process.ids.user.real,
            tracer,
            status,
        }
    }

    /// Whether it stands for the whole process, of which the parent hears afterwards.
    pub fn is_leader(&self) -> bool {
        self.tid == self.pid
    }
}

/// A code of SIGTRAP with an event.
pub fn event_code(event: u32) -> u32 {
    SIGTRAP as u32 | event << 8
}
