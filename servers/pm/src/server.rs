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
use abi::message::reply_message;
use abi::proto::pm;
use abi::senders::{Refusal, Refused};
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
    pub(crate) refused: Refused,
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
            refused: Refused::new(),
            boot,
        }
    }

    /// Handles one message. An answer that is due at once is returned, so that it can go out
    /// with the next receive.
    pub fn handle(
        &mut self,
        source: Endpoint,
        class: Class,
        message: &Message,
    ) -> Option<(Endpoint, Message)> {
        let answer = match class {
            Class::Linux => self.linux(source, message),
            Class::Call => Some((source, self.request(source, message))),
            Class::Send | Class::Post => {
                self.posted(source, message);
                None
            }
            Class::Kernel => {
                self.kernel(message);
                None
            }
            Class::Exception if source == Endpoint::RS => {
                let Exception { vector, code, rip } = Exception::from_words(&message.words);
                self.watcher_died(format_args!(
                    "exception {vector} (code {code:#x}) at {rip:#x}"
                ));
                None
            }
            Class::Exception => {
                self.exception(source, Exception::from_words(&message.words));
                None
            }
            Class::PageFault | Class::Notify => None,
        };
        self.arm();
        answer
    }

    fn linux(&mut self, who: Endpoint, message: &Message) -> Option<(Endpoint, Message)> {
        let Some(slot) = self.table.slot_of(who) else {
            return Some((who, Message::error(Errno::ENOSYS)));
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
        Some((who, answer))
    }

    /// A message of the protocol may not be sent by its sender, or is none.
    fn refuse(&mut self, source: Endpoint, message: &Message, refusal: Refusal) {
        if let Some(line) = self.refused.note(source, message, refusal) {
            self.sys.log(format_args!("{line}"));
        }
    }

    fn trusts_all(&self) -> bool {
        self.sys.sabotaged(abi::sabotage::PM_TRUSTS_ALL)
    }

    fn request(&mut self, source: Endpoint, message: &Message) -> Message {
        let admitted = pm::admit(source, Class::Call, message.kind);
        if let Err(refusal) = Refusal::unless(self.trusts_all(), admitted) {
            self.refuse(source, message, refusal);
            return Message::error(refusal.errno());
        }
        match message.kind {
            pm::DebugCopy::KIND => answer(message, |m| self.debug_copy(source, m)),
            pm::StartInit::KIND => reply_message(self.start_init()),
            pm::ProcessOf::KIND => answer(message, |m| self.process_of(m)),
            pm::OomScore::KIND => answer(message, |m| self.oom_score(m)),
            pm::SetOomAdjust::KIND => answer(message, |m| self.set_oom_adjust(m)),
            pm::NextPid::KIND => answer(message, |m| self.next_pid(m)),
            pm::NextTid::KIND => answer(message, |m| self.next_tid(m)),
            pm::PidOf::KIND => answer(message, |m| self.pid_of(m)),
            pm::NameOf::KIND => answer(message, |m| self.name_of(m)),
            pm::MayLook::KIND => answer(message, |m| self.may_look(m)),
            pm::CredentialsOf::KIND => answer(message, |m| self.credentials_of(m)),
            pm::PrivilegesOf::KIND => answer(message, |m| self.privileges_of(m)),
            pm::GroupOf::KIND => answer(message, |m| self.supplementary_group(m)),
            pm::PmCounters::KIND => answer(message, |_: pm::PmCounters| Ok(self.counters())),
            _ => Message::error(Errno::ENOSYS),
        }
    }

    /// A one-way message. What its sender may not send is dropped.
    fn posted(&mut self, source: Endpoint, message: &Message) {
        let admitted = pm::admit(source, Class::Post, message.kind);
        if let Err(refusal) = Refusal::unless(self.trusts_all(), admitted) {
            return self.refuse(source, message, refusal);
        }
        match message.kind {
            pm::ExecDone::KIND => with(message, |m| self.exec_done(m)),
            pm::SetIdOver::KIND => with(message, |m: pm::SetIdOver| self.set_id_over(m.who)),
            pm::MaySetId::KIND => with(message, |m| self.may_set_id_asked(m)),
            pm::MayExec::KIND => with(message, |m| self.may_exec_asked(m)),
            pm::ExecAlone::KIND => with(message, |m| self.exec_alone(m)),
            pm::ExecFailed::KIND => with(message, |m| self.exec_failed(m)),
            pm::OutOfMemory::KIND => with(message, |m| self.out_of_memory(m)),
            pm::FaultSignal::KIND => with(message, |m| self.fault(m)),
            pm::Raise::KIND => with(message, |m: pm::Raise| {
                if crate::signal::set::is_signal(m.signal)
                    && let Some(slot) = self.table.slot_of(m.who)
                {
                    let (pid, uid) = self.pid_and_user(slot);
                    let _ = self.send_thread(slot, Info::from_process(m.signal, 0, pid, uid));
                }
            }),
            pm::RaiseGroup::KIND => with(message, |m: pm::RaiseGroup| {
                if m.signal != SIGKILL && crate::signal::set::is_signal(m.signal) {
                    self.send_group(m.group, Info::kernel(m.signal));
                }
            }),
            pm::JobControl::KIND => with(message, |m: pm::JobControl| self.job_control(m)),
            pm::HangUp::KIND => with(message, |m: pm::HangUp| self.hang_up(m.session)),
            pm::SwapMask::KIND => with(message, |m: pm::SwapMask| self.swap_mask(m)),
            pm::RestoreMask::KIND => with(message, |m: pm::RestoreMask| self.restore_mask(m.who)),
            pm::Synced::KIND => with(message, |m: pm::Synced| self.synced(m.txn, m.status)),
            pm::EndRun::KIND => self.end_run(),
            pm::WatcherFaulted::KIND => with(message, |m: pm::WatcherFaulted| {
                self.watcher_died(format_args!(
                    "page fault at {:#x}, rip {:#x}",
                    m.address, m.rip
                ))
            }),
            _ => {}
        }
    }

    fn pid_and_user(&self, slot: usize) -> (u32, u32) {
        let pid = self.table.thread(slot).map_or(0, |thread| thread.pid);
        let user = self.table.process(pid).map_or(0, |p| p.ids.user.real);
        (pid, user)
    }

    fn kernel(&mut self, message: &Message) {
        let bits = KernelNotify::from_bits_truncate(message.words[0]);
        if bits.contains(KernelNotify::STOPPED) {
            while let Some(who) = self.sys.next_stopped() {
                self.stopped(who);
            }
        }
        if bits.contains(KernelNotify::TIMER) {
            self.armed = 0;
            self.expire();
        }
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

fn with<R: Request>(message: &Message, handle: impl FnOnce(R)) {
    if let Some(request) = R::decode(message) {
        handle(request);
    }
}

fn answer<R: Request>(
    message: &Message,
    handle: impl FnOnce(R) -> Result<R::Reply, Errno>,
) -> Message {
    match R::decode(message) {
        Some(request) => reply_message(handle(request)),
        None => Message::error(Errno::EINVAL),
    }
}
