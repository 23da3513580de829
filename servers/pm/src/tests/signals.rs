//! Masks, pending sets, dispositions, restart.

use super::fake::{At, DATA, HANDLER, START, World, names, nr};
use crate::signal::action::flags;
use crate::signal::info::Info;
use crate::signal::pending::Pending;
use crate::signal::set::*;
use abi::kernel::Exception;
use abi::proto::pm::{FaultSignal, Raise, RestoreMask, SwapMask};
use abi::proto::vfs;
use abi::{Class, Errno, Message, Request};

const KILL: u32 = nr::__NR_kill;
const RESUME: &str = vfs::Resume::NAME;

#[test]
fn standard_signals_coalesce_and_real_time_signals_queue() {
    let mut pending = Pending::default();
    for code in 0..3 {
        assert!(pending.add(Info::new(SIGUSR1, code)));
        assert!(pending.add(Info::new(40, code)));
    }
    assert_eq!(pending.take(SIGUSR1).map(|i| i.code()), Some(0));
    assert_eq!(pending.take(SIGUSR1), None);
    for code in 0..3 {
        assert!(pending.set().has(40));
        assert_eq!(pending.take(40).map(|i| i.code()), Some(code));
    }
    assert!(pending.is_empty() && pending.set().is_empty());
}

#[test]
fn synchronous_signals_come_first() {
    let set = SigSet::of(&[SIGHUP, SIGSEGV, SIGUSR1]);
    assert_eq!(set.first(), Some(SIGSEGV));
    assert_eq!(set.minus(SYNCHRONOUS).first(), Some(SIGHUP));
}

#[test]
fn a_handler_runs_before_kill_returns_and_sees_its_result() {
    let (mut w, init) = World::new();
    w.handle_signal(init, SIGUSR1, 0);
    assert_eq!(w.call(init, KILL, &[2, SIGUSR1 as u64]), None);
    assert!(w.in_handler(init));
    let registers = w.pm.sys.body(init).registers;
    assert_eq!(registers.rdi, SIGUSR1 as u64);
    assert_eq!((registers.rsp + 8) % 16, 0);
    w.sigreturn(init);
    assert_eq!(w.rax(init), Ok(0));
    assert!(w.runs(init));
    assert_eq!(w.pm.sys.body(init).registers.orig_rax, u64::MAX);
}

#[test]
fn a_blocked_signal_waits_for_the_mask() {
    let (mut w, init) = World::new();
    w.handle_signal(init, SIGUSR1, 0);
    w.poke(init, DATA, &[SigSet::of(&[SIGUSR1, SIGKILL]).0]);
    let block = [nr::SIG_BLOCK as u64, DATA, DATA + 8, 8];
    assert_eq!(w.now(init, nr::__NR_rt_sigprocmask, &block), Ok(0));
    assert_eq!(w.now(init, KILL, &[2, SIGUSR1 as u64]), Ok(0));
    assert_eq!(w.now(init, KILL, &[2, SIGUSR1 as u64]), Ok(0));
    assert_eq!(w.now(init, nr::__NR_rt_sigpending, &[DATA + 16, 8]), Ok(0));
    assert_eq!(w.peek(init, DATA + 16), SigSet::of(&[SIGUSR1]).0);
    let unblock = [nr::SIG_SETMASK as u64, DATA + 8, 0, 8];
    assert_eq!(w.call(init, nr::__NR_rt_sigprocmask, &unblock), None);
    assert!(w.in_handler(init));
    w.sigreturn(init);
    assert!(w.runs(init) && !w.in_handler(init), "it came only once");
}

#[test]
fn the_signal_is_blocked_in_its_handler_unless_nodefer() {
    let (mut w, init) = World::new();
    w.handle_signal(init, SIGUSR1, 0);
    w.call(init, KILL, &[2, SIGUSR1 as u64]);
    assert_eq!(w.now(init, KILL, &[2, SIGUSR1 as u64]), Ok(0));
    let first = w.pm.sys.body(init).registers.rsp;
    w.sigreturn(init);
    assert!(w.in_handler(init), "the second one follows");
    assert_eq!(w.pm.sys.body(init).registers.rsp, first);
    w.sigreturn(init);
    w.handle_signal(init, SIGUSR1, flags::NODEFER);
    w.call(init, KILL, &[2, SIGUSR1 as u64]);
    let outer = w.pm.sys.body(init).registers.rsp;
    assert_eq!(w.call(init, KILL, &[2, SIGUSR1 as u64]), None);
    assert!(w.in_handler(init) && w.pm.sys.body(init).registers.rsp < outer);
}

#[test]
fn resethand_handles_once() {
    let (mut w, init) = World::new();
    let (child, _) = w.fork(init);
    w.handle_signal(child, SIGUSR1, flags::RESETHAND);
    w.call(child, KILL, &[3, SIGUSR1 as u64]);
    assert!(w.in_handler(child));
    w.sigreturn(child);
    w.call(child, KILL, &[3, SIGUSR1 as u64]);
    assert!(!w.lives(child));
}

#[test]
fn a_call_at_vfs_is_interrupted_then_restarted_or_not() {
    for (flags, expected) in [(flags::RESTART, None), (0, Some(Errno::EINTR))] {
        let (mut w, init) = World::new();
        let (child, pid) = w.fork(init);
        w.handle_signal(child, SIGUSR1, flags);
        w.enter_vfs(child, nr::__NR_read);
        let rip = w.pm.sys.body(child).registers.rip;
        assert_eq!(w.now(init, KILL, &[pid as u64, SIGUSR1 as u64]), Ok(0));
        assert_eq!(w.posted(names().0), 1);
        assert!(!w.in_handler(child), "VFS still has the call");
        w.leave_vfs(child, Err(Errno::ERESTARTSYS));
        assert!(w.in_handler(child));
        w.sigreturn(child);
        let body = w.pm.sys.body(child).registers;
        match expected {
            None => assert_eq!((body.rax, body.rip), (nr::__NR_read as u64, rip - 2)),
            Some(errno) => {
                assert_eq!(body.rip, rip);
                assert_eq!(w.rax(child), Err(errno));
            }
        }
    }
}

#[test]
fn a_call_that_finished_all_the_same_keeps_its_result() {
    let (mut w, init) = World::new();
    let (child, pid) = w.fork(init);
    w.handle_signal(child, SIGUSR1, 0);
    w.enter_vfs(child, nr::__NR_read);
    w.call(init, KILL, &[pid as u64, SIGUSR1 as u64]);
    w.leave_vfs(child, Ok(12));
    assert!(w.in_handler(child));
    w.sigreturn(child);
    assert_eq!(w.rax(child), Ok(12));
}

#[test]
fn an_ignored_signal_disturbs_nobody() {
    let (mut w, init) = World::new();
    let (child, pid) = w.fork(init);
    w.enter_vfs(child, nr::__NR_read);
    w.call(init, KILL, &[pid as u64, SIGWINCH as u64]);
    assert_eq!(w.posted(names().0), 0);
    assert!(!w.pm.sys.body(child).stopped);
}

#[test]
fn a_fatal_signal_ends_a_process_inside_a_call() {
    let (mut w, init) = World::new();
    let (child, pid) = w.fork(init);
    w.enter_vfs(child, nr::__NR_read);
    w.call(init, KILL, &[pid as u64, SIGTERM as u64]);
    assert!(!w.lives(child));
    assert_eq!(
        w.now(init, nr::__NR_wait4, &[u64::MAX, DATA, 0, 0]),
        Ok(pid as u64)
    );
    assert_eq!(w.peek(init, DATA) as u32, SIGTERM as u32);
}

#[test]
fn a_stopped_process_is_reported_and_keeps_its_signals() {
    let (mut w, init) = World::new();
    let (child, pid) = w.fork(init);
    w.enter_vfs(child, nr::__NR_read);
    w.call(init, KILL, &[pid as u64, SIGSTOP as u64]);
    w.leave_vfs(child, Err(Errno::ERESTARTSYS));
    assert!(w.pm.sys.body(child).stopped);
    let wait = [u64::MAX, DATA, nr::WUNTRACED as u64 | nr::WNOHANG as u64, 0];
    assert_eq!(w.now(init, nr::__NR_wait4, &wait), Ok(pid as u64));
    assert_eq!(w.peek(init, DATA) as u32, 0x137f);
    assert_eq!(w.now(init, nr::__NR_wait4, &wait), Ok(0), "told once");
    w.call(init, KILL, &[pid as u64, SIGTERM as u64]);
    assert!(w.lives(child), "a stopped process dies when it goes on");
    let (other, _) = w.fork(init);
    w.call(init, KILL, &[pid as u64, SIGCONT as u64]);
    assert!(!w.lives(child));
    assert!(w.runs(other));
}

#[test]
fn continue_without_more_gives_a_poll_the_time_that_was_left() {
    for handled in [false, true] {
        let (mut w, init) = World::new();
        let (child, pid) = w.fork(init);
        w.handle_signal(child, SIGUSR1, flags::RESTART);
        w.enter_vfs(child, nr::__NR_poll);
        let rip = w.pm.sys.body(child).registers.rip;
        let signal = if handled { SIGUSR1 } else { SIGSTOP };
        w.call(init, KILL, &[pid as u64, signal as u64]);
        w.leave_vfs(child, Err(Errno::ERESTART_RESTARTBLOCK));
        assert_eq!(w.posted(RESUME), 0);
        if handled {
            w.sigreturn(child);
            assert_eq!(w.rax(child), Err(Errno::EINTR));
            assert_eq!(w.posted(RESUME), 0);
            continue;
        }
        w.call(init, KILL, &[pid as u64, SIGCONT as u64]);
        let body = w.pm.sys.body(child);
        assert_eq!(body.registers.rip, rip - 2);
        assert_eq!(body.registers.rax, nr::__NR_poll as u64);
        assert_eq!(w.posted(RESUME), 1);
    }
}

#[test]
fn continue_without_more_restarts_the_read() {
    let (mut w, init) = World::new();
    let (child, pid) = w.fork(init);
    w.enter_vfs(child, nr::__NR_read);
    let rip = w.pm.sys.body(child).registers.rip;
    w.call(init, KILL, &[pid as u64, SIGSTOP as u64]);
    w.leave_vfs(child, Err(Errno::ERESTARTSYS));
    w.call(init, KILL, &[pid as u64, SIGCONT as u64]);
    let body = w.pm.sys.body(child);
    assert!(!body.stopped);
    assert_eq!(body.registers.rip, rip - 2);
    assert_eq!(body.registers.rax, nr::__NR_read as u64);
}

#[test]
fn keyboard_stop_spares_an_orphaned_group() {
    let (mut w, init) = World::new();
    w.call(init, KILL, &[2, SIGTSTP as u64]);
    assert!(w.runs(init), "PROGRAM's group has nobody to continue it");
    let (child, pid) = w.fork(init);
    assert_eq!(w.now(init, nr::__NR_setpgid, &[pid as u64, 0]), Ok(0));
    w.call(init, KILL, &[pid as u64, SIGTSTP as u64]);
    assert!(w.pm.sys.body(child).stopped);
}

#[test]
fn sigsuspend_brings_the_old_mask_back_after_the_handler() {
    let (mut w, init) = World::new();
    let (child, pid) = w.fork(init);
    w.handle_signal(child, SIGUSR1, 0);
    w.poke(child, DATA, &[SigSet::of(&[SIGUSR1]).0, 0]);
    w.now(
        child,
        nr::__NR_rt_sigprocmask,
        &[nr::SIG_SETMASK as u64, DATA, 0, 8],
    )
    .expect("mask");
    assert_eq!(w.call(child, nr::__NR_rt_sigsuspend, &[DATA + 8, 8]), None);
    assert!(!w.runs(child));
    w.call(init, KILL, &[pid as u64, SIGUSR1 as u64]);
    assert!(w.in_handler(child));
    w.sigreturn(child);
    assert_eq!(w.rax(child), Err(Errno::EINTR));
    w.now(child, nr::__NR_rt_sigprocmask, &[0, 0, DATA + 16, 8])
        .expect("mask");
    assert_eq!(w.peek(child, DATA + 16), SigSet::of(&[SIGUSR1]).0);
}

#[test]
fn a_swapped_mask_lasts_for_the_call_or_until_the_handler() {
    let (mut w, init) = World::new();
    let (child, pid) = w.fork(init);
    let mine = SigSet::of(&[SIGUSR1]).0;
    let mask = |w: &mut World| {
        w.now(child, nr::__NR_rt_sigprocmask, &[0, 0, DATA + 16, 8])
            .expect("mask");
        w.peek(child, DATA + 16)
    };
    w.handle_signal(child, SIGUSR1, 0);
    w.poke(child, DATA, &[mine]);
    let set = nr::SIG_SETMASK as u64;
    w.now(child, nr::__NR_rt_sigprocmask, &[set, DATA, 0, 8])
        .expect("mask");
    let swap = |w: &mut World| {
        let swapped = SwapMask {
            who: child,
            mask: 0,
        };
        assert_eq!(w.ask(swapped), Some(Ok(())));
    };
    swap(&mut w);
    assert_eq!(mask(&mut w), 0);
    w.post(RestoreMask { who: child });
    assert_eq!(mask(&mut w), mine);
    w.call(init, KILL, &[pid as u64, SIGUSR1 as u64]);
    assert!(!w.in_handler(child));
    swap(&mut w);
    assert!(w.in_handler(child), "it was pending");
    w.post(RestoreMask { who: child });
    w.sigreturn(child);
    assert_eq!(mask(&mut w), mine);
}

#[test]
fn sigtimedwait_takes_a_blocked_signal_now_later_or_never() {
    let (mut w, init) = World::new();
    let set = SigSet::of(&[SIGUSR1]).0;
    w.poke(init, DATA, &[set, 1, 0]);
    w.now(init, nr::__NR_rt_sigprocmask, &[0, DATA, 0, 8])
        .expect("mask");
    w.call(init, KILL, &[2, SIGUSR1 as u64]);
    let wait = [DATA, DATA + 64, DATA + 8, 8];
    assert_eq!(
        w.now(init, nr::__NR_rt_sigtimedwait, &wait),
        Ok(SIGUSR1 as u64)
    );
    assert_eq!(w.peek(init, DATA + 64) as i32, SIGUSR1);
    assert_eq!(w.call(init, nr::__NR_rt_sigtimedwait, &wait), None);
    w.post(Raise {
        who: init,
        signal: SIGUSR1,
    });
    assert_eq!(w.rax(init), Ok(SIGUSR1 as u64));
    assert_eq!(w.call(init, nr::__NR_rt_sigtimedwait, &wait), None);
    w.pass(2_000_000_000);
    assert_eq!(w.rax(init), Err(Errno::EAGAIN));
}

#[test]
fn an_exception_becomes_a_signal_and_kills_when_blocked() {
    let (mut w, init) = World::new();
    let (child, _) = w.fork(init);
    w.handle_signal(child, SIGILL, flags::SIGINFO);
    let raise = |w: &mut World| {
        w.pm.sys.body(child).at = At::Fault;
        let rip = w.pm.sys.body(child).registers.rip;
        let message = Message {
            kind: 0,
            words: Exception {
                vector: 6,
                code: 0,
                rip,
            }
            .to_words(),
        };
        w.handle(child, Class::Exception, &message);
        rip
    };
    let rip = raise(&mut w);
    assert!(w.in_handler(child));
    let info = w.pm.sys.body(child).registers.rsi;
    assert_eq!(w.peek(child, info) as i32, SIGILL);
    assert_eq!(w.peek(child, info + 16), rip);
    raise(&mut w);
    assert!(!w.lives(child), "SIGILL is blocked in its handler");
}

#[test]
fn a_fault_carries_its_address_and_a_bad_stack_kills() {
    let (mut w, init) = World::new();
    let (child, pid) = w.fork(init);
    w.handle_signal(child, SIGSEGV, flags::SIGINFO);
    let fault = FaultSignal {
        who: child,
        signal: SIGSEGV,
        code: 1,
        addr: 0xdead_0000,
        error: 6,
    };
    w.pm.sys.body(child).stopped = true;
    w.post(fault);
    assert!(w.in_handler(child));
    let registers = w.pm.sys.body(child).registers;
    assert_eq!(w.peek(child, registers.rsi + 16), 0xdead_0000);
    // cr2 in the context.
    assert_eq!(w.peek(child, registers.rdx + 27 * 8), 0xdead_0000);
    w.sigreturn(child);
    w.pm.sys.body(child).registers.rsp = 0x800;
    w.pm.sys.body(child).stopped = true;
    w.post(fault);
    assert!(!w.lives(child));
    assert_eq!(
        w.pm.table.process(pid).and_then(|p| p.status),
        Some(SIGSEGV as u32)
    );
}

#[test]
fn a_bad_frame_at_sigreturn_is_a_segmentation_fault() {
    let (mut w, init) = World::new();
    let (child, pid) = w.fork(init);
    w.pm.sys.body(child).registers.rsp = 0;
    w.call(child, nr::__NR_rt_sigreturn, &[]);
    assert!(!w.lives(child));
    assert_eq!(
        w.pm.table.process(pid).and_then(|p| p.status),
        Some(SIGSEGV as u32)
    );
}

#[test]
fn the_alternate_stack_is_used_and_cannot_be_changed_from_itself() {
    let (mut w, init) = World::new();
    let (base, size) = (0x50_0000, 0x4000);
    w.poke(init, DATA, &[base, 0, size]);
    assert_eq!(w.now(init, nr::__NR_sigaltstack, &[DATA, 0]), Ok(0));
    w.handle_signal(init, SIGUSR1, flags::ONSTACK);
    w.call(init, KILL, &[2, SIGUSR1 as u64]);
    let sp = w.pm.sys.body(init).registers.rsp;
    assert!(sp > base && sp < base + size);
    w.poke(init, DATA, &[base, nr::SS_DISABLE as u64, 0]);
    assert_eq!(
        w.now(init, nr::__NR_sigaltstack, &[DATA, 0]),
        Err(Errno::EPERM)
    );
    assert_eq!(w.now(init, nr::__NR_sigaltstack, &[0, DATA]), Ok(0));
    assert_eq!(w.peek(init, DATA + 8), nr::SS_ONSTACK as u64);
    w.sigreturn(init);
    w.now(init, nr::__NR_sigaltstack, &[0, DATA])
        .expect("query");
    assert_eq!(w.peek(init, DATA + 8), 0);
}

#[test]
fn exec_resets_handlers_and_keeps_ignored() {
    let (mut w, init) = World::new();
    w.handle_signal(init, SIGUSR1, 0);
    w.poke(init, DATA, &[1, 0, 0, 0]);
    w.now(init, nr::__NR_rt_sigaction, &[SIGUSR2 as u64, DATA, 0, 8])
        .expect("ignore");
    w.enter_vfs(init, nr::__NR_execve);
    w.exec_done(init);
    assert_eq!(w.pm.sys.body(init).registers.rip, START);
    w.now(init, nr::__NR_rt_sigaction, &[SIGUSR1 as u64, 0, DATA, 8])
        .expect("query");
    assert_eq!(w.peek(init, DATA), 0);
    w.now(init, nr::__NR_rt_sigaction, &[SIGUSR2 as u64, 0, DATA, 8])
        .expect("query");
    assert_eq!(w.peek(init, DATA), 1);
}

#[test]
fn frames_reach_absent_stack_pages() {
    let (mut w, init) = World::new();
    w.handle_signal(init, SIGUSR1, 0);
    let space = w.pm.sys.body(init).space;
    let page = (w.pm.sys.body(init).registers.rsp - 0x200) >> 12;
    w.pm.sys.absent.insert((space, page));
    w.call(init, KILL, &[2, SIGUSR1 as u64]);
    assert!(w.in_handler(init));
    assert_eq!(w.pm.sys.waits, 1);
    assert_eq!(w.pm.sys.body(init).registers.rip, HANDLER);
}

#[test]
fn signals_to_nobody_and_of_no_number() {
    let (mut w, init) = World::new();
    assert_eq!(w.now(init, KILL, &[99, 15]), Err(Errno::ESRCH));
    assert_eq!(w.now(init, KILL, &[2, 65]), Err(Errno::EINVAL));
    assert_eq!(w.now(init, KILL, &[2, 0]), Ok(0));
    assert_eq!(w.now(init, KILL, &[-5i64 as u64, 15]), Err(Errno::ESRCH));
}

#[test]
fn a_continue_handler_sees_the_call_that_the_stop_interrupted() {
    let (mut w, init) = World::new();
    let (child, pid) = w.fork(init);
    w.handle_signal(child, SIGCONT, 0);
    w.enter_vfs(child, nr::__NR_read);
    w.call(init, KILL, &[pid as u64, SIGSTOP as u64]);
    w.leave_vfs(child, Err(Errno::ERESTARTSYS));
    w.call(init, KILL, &[pid as u64, SIGCONT as u64]);
    assert!(w.in_handler(child));
    w.sigreturn(child);
    assert_eq!(w.rax(child), Err(Errno::EINTR));
}
