//! The server: its state, and what each received message means.

use crate::calls::{Caller, Outcome};
use crate::futex::Futexes;
use crate::info::Uname;
use crate::random::Random;
use crate::shutdown::Ending;
use crate::signal::info::Info;
use crate::signal::set::SIGKILL;
use crate::system::System;
use crate::table::Table;
use crate::timers::{Event, Timers};
use abi::errno::result_to_word;
use abi::kernel::{Exception, KernelNotify};
use abi::message::{Asker, Handled, Server, answer_result, is_answer, transaction};
use abi::proto::{pm, vfs};
use abi::{Class, Endpoint, Errno, Message, Request};

/// What the run specification says that PM needs.
#[derive(Clone, Debug, Default)]
pub struct Boot {
    /// Wall clock at boot, ns since 1970.
    pub epoch_ns: u64,
    /// Seed of the entropy.
    pub seed: [u64; 4],
    /// Name unknown calls.
    pub verbose: bool,
    /// Say at the end what is still held.
    pub accounts: bool,
    /// PROGRAM's path, for messages.
    pub program: alloc::string::String,
    /// User and group PROGRAM runs as.
    pub ids: (u32, u32),
    /// Bytes of memory that programs can have.
    pub memory: u64,
    /// The console driver, which tells the host how PROGRAM ended.
    pub console: Option<Endpoint>,
}

/// The process manager.
pub struct Pm<S> {
    /// Everything outside.
    pub sys: S,
    /// Processes and threads.
    pub table: Table,
    /// Deadlines.
    pub timers: Timers,
    /// Threads that wait for a futex.
    pub futexes: Futexes,
    /// getrandom.
    pub random: Random,
    /// See [`Boot`].
    pub boot: Boot,
    /// What uname says.
    pub uname: Uname,
    /// The thread whose Linux call is being handled.
    pub current: Option<usize>,
    /// Set once PROGRAM has ended.
    pub ending: Option<Ending>,
    /// When a process was last ended for lack of memory, ns since boot.
    pub(crate) ended_for_memory: Option<u64>,
    /// Forks since boot.
    pub forks: u64,
    /// The next address space's number.
    pub next_space: u64,
    /// Unknown calls that were named, a bit each.
    pub named: [u64; 8],
    armed: u64,
    /// VM, which waits for what the last process that was ended still has.
    pub(crate) starving: Option<Asker<pm::Killed>>,
}

impl<S: System> Pm<S> {
    /// A server without processes.
    pub fn new(sys: S, boot: Boot) -> Pm<S> {
        Pm {
            sys,
            table: Table::new(),
            timers: Timers::default(),
            futexes: Futexes::default(),
            random: Random::new(boot.seed),
            uname: Uname::default(),
            current: None,
            ending: None,
            ended_for_memory: None,
            forks: 0,
            // 0 stands for no image.
            next_space: 1,
            named: [0; 8],
            armed: 0,
            starving: None,
            boot,
        }
    }

    /// Handles one message.
    pub fn handle(&mut self, source: Endpoint, class: Class, message: &Message) -> Handled {
        let handled = match class {
            Class::Linux => Handled {
                answer: self.linux(source, message),
                refused: None,
            },
            Class::Kernel => {
                self.notified(KernelNotify::of(message));
                Handled::NOTHING
            }
            Class::Exception if source == Endpoint::RS => {
                let Exception { vector, code, rip } = Exception::of(message);
                self.watcher_died(format_args!(
                    "exception {vector} (code {code:#x}) at {rip:#x}"
                ));
                Handled::NOTHING
            }
            Class::Exception => {
                self.exception(source, Exception::of(message));
                Handled::NOTHING
            }
            Class::PageFault | Class::Notify => Handled::NOTHING,
            Class::Call | Class::Send | Class::Post if is_answer(class, message) => {
                self.answered(source, class, message)
            }
            Class::Call | Class::Send | Class::Post => pm::serve(self, source, class, message),
        };
        self.arm();
        handled
    }

    /// What PM asked is answered.
    fn answered(&mut self, source: Endpoint, class: Class, message: &Message) -> Handled {
        let admitted = abi::proto::admit(source, class, message.kind);
        if admitted.is_ok() && message.kind == vfs::SyncAll::ANSWER {
            self.synced(transaction(message), answer_result::<vfs::SyncAll>(message));
        }
        Handled {
            answer: None,
            refused: admitted.err(),
        }
    }

    fn linux(&mut self, who: Endpoint, message: &Message) -> Option<Message> {
        let Some(slot) = self.table.slot_of(who) else {
            return Some(Message::error(Errno::ENOSYS));
        };
        let pid = self.table.thread(slot)?.pid;
        let caller = Caller { slot, pid, who };
        self.current = Some(slot);
        let outcome = self.dispatch(caller, message.kind, message.words);
        self.current = None;
        // The call may have ended the caller.
        self.table.slot_of(who)?;
        let answer = match outcome {
            Outcome::Done(result) => Message::new(result_to_word(result)),
            Outcome::Raw(answer) => answer,
            Outcome::Hold(call, deadline) => {
                self.hold(slot, call, deadline);
                self.attend(slot);
                return None;
            }
            Outcome::Answered => {
                self.attend(slot);
                return None;
            }
        };
        if self.has_signal(slot) {
            // A signal that the call raised or unblocked is taken before the next
            // instruction: programs run only when PM waits, which it does not in between.
            self.sys.reply(who, answer);
            self.attend(slot);
            return None;
        }
        Some(answer)
    }

    fn raise_asked(&mut self, r: pm::Raise) {
        if crate::signal::set::is_signal(r.signal)
            && let Some(slot) = self.table.slot_of(r.who)
        {
            let (pid, uid) = self.pid_and_user(slot);
            let _ = self.send_thread(slot, Info::from_process(r.signal, 0, pid, uid));
        }
    }

    fn raise_group_asked(&mut self, r: pm::RaiseGroup) {
        if r.signal != SIGKILL && crate::signal::set::is_signal(r.signal) {
            self.send_group(r.group, Info::kernel(r.signal));
        }
    }

    fn pid_and_user(&self, slot: usize) -> (u32, u32) {
        let pid = self.table.thread(slot).map_or(0, |thread| thread.pid);
        let user = self.table.process(pid).map_or(0, |p| p.ids.user.real);
        (pid, user)
    }

    /// The kernel has something to say.
    pub fn notified(&mut self, bits: KernelNotify) {
        if bits.contains(KernelNotify::STOPPED) {
            while let Some(who) = self.sys.next_stopped() {
                self.stopped(who);
            }
        }
        if bits.contains(KernelNotify::TIMER) {
            self.armed = 0;
            self.expire();
        }
        self.arm();
    }

    fn expire(&mut self) {
        let now = self.sys.now();
        while let Some((key, event)) = self.timers.take_due(now) {
            match event {
                Event::Call(who) => self.call_timed_out(who, key),
                Event::Interval(pid, which) => self.interval_expired(pid, which),
                Event::Posix(pid, id) => self.posix_expired(pid, id),
                Event::CpuLimit(pid) => self.cpu_limit_due(pid),
                Event::MemoryReleased => self.memory_released(),
                Event::SyncOverdue => self.sync_overdue(),
            }
        }
    }

    /// Sets the kernel's timer when the earliest deadline has changed.
    fn arm(&mut self) {
        let deadline = self.timers.next().map_or(0, |deadline| deadline.max(1));
        if deadline != self.armed {
            self.armed = deadline;
            self.sys.set_timer(deadline);
        }
    }
}

impl<S: System> Server for Pm<S> {
    fn trusts_all(&self) -> bool {
        self.sys.sabotaged(abi::sabotage::PM_TRUSTS_ALL)
    }
}

abi::serve! { [S: System] Pm<S>;
    pm::DebugCopy => |pm, from, r| pm.debug_copy(from, r);
    pm::StartInit => |pm, _, _| pm.start_init();
    pm::ProcessOf => |pm, _, r| pm.process_of(r);
    pm::OomScore => |pm, _, r| pm.oom_score(r);
    pm::SetOomAdjust => |pm, _, r| pm.set_oom_adjust(r);
    pm::NextPid => |pm, _, r| pm.next_pid(r);
    pm::NextTid => |pm, _, r| pm.next_tid(r);
    pm::PidOf => |pm, _, r| pm.pid_of(r);
    pm::NameOf => |pm, _, r| pm.name_of(r);
    pm::MayLook => |pm, _, r| pm.may_look(r);
    pm::CredentialsOf => |pm, _, r| pm.credentials_of(r);
    pm::PrivilegesOf => |pm, _, r| pm.privileges_of(r);
    pm::GroupOf => |pm, _, r| pm.supplementary_group(r);
    pm::PmCounters => |pm, _, _| Ok(pm.counters());
    pm::ExecDone => |pm, _, r| pm.exec_done(r);
    pm::ExecFailed => |pm, _, r| pm.exec_failed(r);
    pm::SetIdOver => |pm, _, r| pm.set_id_over(r.who);
    pm::MaySetId => |pm, _, r| pm.may_set_id_asked(r);
    pm::MayExec => |pm, _, r| pm.may_exec_asked(r);
    pm::ExecAlone => |pm, _, r| pm.exec_alone(r);
    pm::OutOfMemory => |pm, from, r| pm.out_of_memory(from, r);
    pm::FaultSignal => |pm, _, r| pm.fault(r);
    pm::Raise => |pm, _, r| pm.raise_asked(r);
    pm::RaiseGroup => |pm, _, r| pm.raise_group_asked(r);
    pm::JobControl => |pm, _, r| pm.job_control(r);
    pm::HangUp => |pm, _, r| pm.hang_up(r.session);
    pm::SwapMask => |pm, _, r| pm.swap_mask(r);
    pm::RestoreMask => |pm, _, r| pm.restore_mask(r.who);
    pm::EndRun => |pm, _, _| pm.end_run();
    pm::WatcherFaulted => |pm, _, r| {
        pm.watcher_died(format_args!("page fault at {:#x}, rip {:#x}", r.address, r.rip));
    };
}
