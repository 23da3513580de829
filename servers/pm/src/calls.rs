//! Linux calls: which number leads where, and how a call ends or waits.

use crate::server::Pm;
use crate::system::System;
use crate::table::{Call, Halt, Restart};
use crate::timers::{Event, TimerKey};
use abi::errno::result_to_word;
use abi::message::WORDS;
use abi::{Endpoint, Errno, Message};
use linux_raw_sys::general as nr;

/// Who makes the call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Caller {
    /// Its slot in the table of threads.
    pub slot: usize,
    /// Its process.
    pub pid: u32,
    /// Its endpoint.
    pub who: Endpoint,
}

/// How a call ends.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Outcome {
    /// With this result.
    Done(Result<u64, Errno>),
    /// With exactly this message.
    Raw(Message),
    /// Not yet; at the latest at the deadline (ns since boot).
    Hold(Call, Option<u64>),
    /// The handler has answered itself.
    Answered,
}

impl From<Result<u64, Errno>> for Outcome {
    fn from(result: Result<u64, Errno>) -> Outcome {
        Outcome::Done(result)
    }
}

impl From<Result<Outcome, Errno>> for Outcome {
    fn from(result: Result<Outcome, Errno>) -> Outcome {
        result.unwrap_or_else(|errno| Outcome::Done(Err(errno)))
    }
}

/// An infallible result.
pub fn ok(value: impl Into<u64>) -> Outcome {
    Outcome::Done(Ok(value.into()))
}

impl<S: System> Pm<S> {
    /// Runs the call with this number.
    pub fn dispatch(&mut self, caller: Caller, number: u64, a: [u64; WORDS]) -> Outcome {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        match number {
            nr::__NR_getpid => ok(caller.pid),
            nr::__NR_gettid => ok(self.tid(caller)),
            nr::__NR_getppid => ok(self.parent_of(caller.pid)),
            nr::__NR_fork => self.fork(caller).into(),
            nr::__NR_vfork => self.vfork(caller).into(),
            nr::__NR_clone => self.clone_call(caller, a).into(),
            nr::__NR_exit => self.exit_thread_call(caller, a[0]),
            nr::__NR_exit_group => self.exit_group(caller, a[0]),
            nr::__NR_wait4 => self.wait4(caller, a).into(),
            nr::__NR_waitid => self.waitid(caller, a).into(),

            nr::__NR_kill => self.kill(caller, a[0], a[1]).into(),
            nr::__NR_tkill => self.tgkill(caller, None, a[0], a[1]).into(),
            nr::__NR_tgkill => self.tgkill(caller, Some(a[0]), a[1], a[2]).into(),
            nr::__NR_rt_sigaction => self.rt_sigaction(caller, a).into(),
            nr::__NR_rt_sigprocmask => self.rt_sigprocmask(caller, a).into(),
            nr::__NR_rt_sigpending => self.rt_sigpending(caller, a).into(),
            nr::__NR_rt_sigsuspend => self.rt_sigsuspend(caller, a).into(),
            nr::__NR_rt_sigtimedwait => self.rt_sigtimedwait(caller, a).into(),
            nr::__NR_rt_sigqueueinfo => self.rt_sigqueueinfo(caller, None, a[0], a[1], a[2]).into(),
            nr::__NR_rt_tgsigqueueinfo => self
                .rt_sigqueueinfo(caller, Some(a[0]), a[1], a[2], a[3])
                .into(),
            nr::__NR_rt_sigreturn => self.rt_sigreturn(caller),
            nr::__NR_sigaltstack => self.sigaltstack(caller, a).into(),
            nr::__NR_pause => Outcome::Hold(Call::Pause, None),

            nr::__NR_alarm => self.alarm(caller, a[0]).into(),
            nr::__NR_setitimer => self.setitimer(caller, a).into(),
            nr::__NR_getitimer => self.getitimer(caller, a).into(),
            nr::__NR_timer_create => self.timer_create(caller, a).into(),
            nr::__NR_timer_settime => self.timer_settime(caller, a).into(),
            nr::__NR_timer_gettime => self.timer_gettime(caller, a).into(),
            nr::__NR_timer_getoverrun => self.timer_getoverrun(caller, a[0]).into(),
            nr::__NR_timer_delete => self.timer_delete(caller, a[0]).into(),
            nr::__NR_nanosleep => self.nanosleep(caller, a).into(),
            nr::__NR_clock_nanosleep => self.clock_nanosleep(caller, a).into(),
            nr::__NR_clock_gettime => self.clock_gettime(caller, a).into(),
            nr::__NR_clock_getres => self.clock_getres(caller, a).into(),
            nr::__NR_clock_settime | nr::__NR_settimeofday => {
                self.set_clock(caller, number, a).into()
            }
            nr::__NR_gettimeofday => self.gettimeofday(caller, a).into(),
            nr::__NR_time => self.time(caller, a[0]).into(),
            nr::__NR_times => self.times(caller, a[0]).into(),
            nr::__NR_getrusage => self.getrusage(caller, a).into(),

            nr::__NR_sysinfo => self.sysinfo(caller, a[0]).into(),
            nr::__NR_uname => self.uname_call(caller, a[0]).into(),
            nr::__NR_sethostname => self.sethostname(caller, a, false).into(),
            nr::__NR_setdomainname => self.sethostname(caller, a, true).into(),
            nr::__NR_getrandom => self.getrandom(caller, a).into(),
            nr::__NR_prctl => self.prctl(caller, a).into(),
            nr::__NR_arch_prctl => self.arch_prctl(caller, a).into(),
            nr::__NR_personality => self.personality(caller, a[0]).into(),
            nr::__NR_capget => self.capget(caller, a).into(),
            nr::__NR_capset => self.capset(caller, a).into(),
            nr::__NR_reboot => self.reboot(caller, a).into(),

            nr::__NR_setpgid => self.setpgid(caller, a).into(),
            nr::__NR_getpgid => self.getpgid(caller, a[0]).into(),
            nr::__NR_getpgrp => self.getpgid(caller, 0).into(),
            nr::__NR_setsid => self.setsid(caller).into(),
            nr::__NR_getsid => self.getsid(caller, a[0]).into(),
            nr::__NR_getuid
            | nr::__NR_geteuid
            | nr::__NR_getgid
            | nr::__NR_getegid
            | nr::__NR_getresuid
            | nr::__NR_getresgid
            | nr::__NR_setuid
            | nr::__NR_setgid
            | nr::__NR_setreuid
            | nr::__NR_setregid
            | nr::__NR_setresuid
            | nr::__NR_setresgid
            | nr::__NR_setfsuid
            | nr::__NR_setfsgid
            | nr::__NR_getgroups
            | nr::__NR_setgroups => self.ids_call(caller, number, a).into(),

            nr::__NR_set_tid_address => self.set_tid_address(caller, a[0]),
            nr::__NR_set_robust_list => self.set_robust_list(caller, a).into(),
            nr::__NR_get_robust_list => self.get_robust_list(caller, a).into(),
            nr::__NR_futex => self.futex(caller, a).into(),
            nr::__NR_membarrier => self.membarrier(a[0]).into(),
            nr::__NR_restart_syscall => self.restart_syscall(caller).into(),

            nr::__NR_ptrace => self.ptrace(caller, a).into(),
            nr::__NR_process_vm_readv => self.process_vm(caller, a, false).into(),
            nr::__NR_process_vm_writev => self.process_vm(caller, a, true).into(),

            nr::__NR_prlimit64 => self.prlimit64(caller, a).into(),
            nr::__NR_getrlimit => self.getrlimit(caller, a).into(),
            nr::__NR_setrlimit => self.setrlimit(caller, a).into(),
            nr::__NR_getpriority => self.getpriority(caller, a).into(),
            nr::__NR_setpriority => self.setpriority(caller, a).into(),
            nr::__NR_sched_yield => ok(0u64),
            nr::__NR_getcpu => self.getcpu(caller, a).into(),
            nr::__NR_sched_getaffinity
            | nr::__NR_sched_setaffinity
            | nr::__NR_sched_getscheduler
            | nr::__NR_sched_setscheduler
            | nr::__NR_sched_getparam
            | nr::__NR_sched_setparam
            | nr::__NR_sched_get_priority_max
            | nr::__NR_sched_get_priority_min
            | nr::__NR_sched_rr_get_interval => self.sched_call(caller, number, a).into(),

            // What Linux says to an unprivileged caller; root meets the same, since there is
            // nothing behind them.
            nr::__NR_syslog
            | nr::__NR_acct
            | nr::__NR_swapon
            | nr::__NR_swapoff
            | nr::__NR_iopl
            | nr::__NR_ioperm
            | nr::__NR_adjtimex
            | nr::__NR_clock_adjtime
            | nr::__NR_init_module
            | nr::__NR_finit_module
            | nr::__NR_delete_module
            | nr::__NR_unshare
            | nr::__NR_setns
            | nr::__NR_vhangup => Outcome::Done(Err(Errno::EPERM)),
            // libc asks for these and falls back.
            nr::__NR_clone3 | nr::__NR_rseq => Outcome::Done(Err(Errno::ENOSYS)),
            _ => {
                self.name_unknown(number);
                Outcome::Done(Err(Errno::ENOSYS))
            }
        }
    }

    fn name_unknown(&mut self, number: u32) {
        let (word, bit) = (number as usize / 64, 1u64 << (number % 64));
        let Some(named) = self.named.get_mut(word) else {
            return;
        };
        if self.boot.verbose && *named & bit == 0 {
            *named |= bit;
            let name = abi::routes::PM_CALLS
                .iter()
                .find(|call| call.number == number)
                .map_or("?", |call| call.name());
            self.sys.log(format_args!(
                "unknown system call {number} ({name}): ENOSYS"
            ));
        }
    }

    /// Makes the thread wait in its call.
    pub fn hold(&mut self, slot: usize, call: Call, deadline: Option<u64>) {
        let Some(thread) = self.table.thread_mut(slot) else {
            return;
        };
        let event = Event::Call(thread.endpoint);
        thread.timer = deadline.map(|deadline| self.timers.add(deadline, event));
        thread.call = Some(call);
        // A stop that came while the call was handled has nothing to wait for any more.
        if thread.halt == Halt::Stopping {
            thread.halt = Halt::Stopped;
        }
    }

    /// Ends the call that the thread waits in.
    pub fn finish_call(&mut self, slot: usize, result: Result<u64, Errno>) {
        let Some(thread) = self.table.thread_mut(slot) else {
            return;
        };
        thread.call = None;
        let who = thread.endpoint;
        if let Some(timer) = thread.timer.take() {
            self.timers.cancel(timer);
        }
        self.sys.reply(who, Message::new(result_to_word(result)));
    }

    /// A handler is to run, or a tracer looks: ends the call that the thread (stopped) waits in.
    /// Whether it is made again is the delivery's to say.
    pub fn interrupt_call(&mut self, slot: usize) {
        let Some(thread) = self.table.thread(slot) else {
            return;
        };
        let (who, call) = (thread.endpoint, thread.call);
        let errno = match call {
            Some(Call::Wait(_)) => Errno::ERESTARTSYS,
            Some(Call::Sleep {
                remaining,
                deadline,
            }) => {
                let left = deadline.saturating_sub(self.sys.now());
                let words = crate::sleep::timespec(left);
                match self.write_words_opt(who, remaining, words) {
                    Ok(()) => self.restart_later(slot, Restart::Sleep(remaining), deadline),
                    Err(errno) => errno,
                }
            }
            Some(Call::Futex { timed }) => {
                self.futexes.remove(slot);
                match (timed, self.sys.registers(who)) {
                    (Some(deadline), Ok(r)) => {
                        let args = [r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9, 0];
                        self.restart_later(slot, Restart::Futex(args), deadline)
                    }
                    _ => Errno::ERESTARTSYS,
                }
            }
            Some(Call::Pause) => Errno::ERESTARTNOHAND,
            Some(Call::SignalWait { .. } | Call::Vfork { .. }) => Errno::EINTR,
            Some(Call::Event) | None => return,
        };
        self.finish_call(slot, Err(errno));
    }

    fn restart_later(&mut self, slot: usize, call: Restart, deadline: u64) -> Errno {
        if let Some(thread) = self.table.thread_mut(slot) {
            thread.restart = Some((call, deadline));
        }
        Errno::ERESTART_RESTARTBLOCK
    }

    /// restart_syscall: goes on with a call that had some time left.
    fn restart_syscall(&mut self, caller: Caller) -> Result<Outcome, Errno> {
        let thread = self.table.thread_mut(caller.slot).ok_or(Errno::ESRCH)?;
        let (call, deadline) = thread.restart.take().ok_or(Errno::EINTR)?;
        match call {
            Restart::Sleep(remaining) if deadline > self.sys.now() => {
                let call = Call::Sleep {
                    remaining,
                    deadline,
                };
                Ok(Outcome::Hold(call, Some(deadline)))
            }
            Restart::Sleep(_) => Ok(Outcome::Done(Ok(0))),
            Restart::Futex(args) => self.futex_again(caller, args, deadline),
        }
    }

    /// The deadline of a held call has come.
    pub fn call_timed_out(&mut self, who: Endpoint, key: TimerKey) {
        let Some(slot) = self.table.slot_of(who) else {
            return;
        };
        let Some(thread) = self.table.thread_mut(slot) else {
            return;
        };
        if thread.timer != Some(key) {
            return;
        }
        thread.timer = None;
        let result = match thread.call {
            Some(Call::Sleep { .. }) => Ok(0),
            Some(Call::SignalWait { .. }) => Err(Errno::EAGAIN),
            Some(Call::Futex { .. }) => {
                self.futexes.remove(slot);
                Err(Errno::ETIMEDOUT)
            }
            _ => return,
        };
        self.finish_call(slot, result);
    }

    /// The thread's id.
    pub fn tid(&self, caller: Caller) -> u32 {
        self.table
            .thread(caller.slot)
            .map_or(caller.pid, |thread| thread.tid)
    }

    /// The parent's process id.
    pub fn parent_of(&self, pid: u32) -> u32 {
        self.table.process(pid).map_or(0, |process| process.parent)
    }
}
