//! wait4 and waitid.

use super::fake::{DATA, World, nr};
use crate::signal::set::*;
use abi::Errno;
use abi::proto::pm;

const ANY: u64 = u64::MAX;

#[test]
fn a_waiting_parent_gets_the_status_and_the_zombie_goes() {
    let (mut w, init) = World::new();
    let (child, pid) = w.fork(init);
    assert_eq!(w.call(init, nr::__NR_wait4, &[ANY, DATA, 0, 0]), None);
    w.call(child, nr::__NR_exit_group, &[7]);
    assert_eq!(w.rax(init), Ok(pid as u64));
    assert_eq!(w.peek(init, DATA) as u32, 7 << 8);
    assert!(w.pm.table.process(pid).is_none());
    assert_eq!(
        w.now(init, nr::__NR_wait4, &[ANY, 0, 0, 0]),
        Err(Errno::ECHILD)
    );
}

#[test]
fn a_zombie_waits_for_its_parent() {
    let (mut w, init) = World::new();
    let (child, pid) = w.fork(init);
    let nohang = nr::WNOHANG as u64;
    assert_eq!(w.now(init, nr::__NR_wait4, &[ANY, 0, nohang, 0]), Ok(0));
    w.call(child, nr::__NR_exit, &[0]);
    assert!(w.pm.table.process(pid).is_some_and(|p| p.is_zombie()));
    assert_eq!(w.now(init, nr::__NR_kill, &[pid as u64, 0]), Ok(0));
    assert_eq!(
        w.now(init, nr::__NR_wait4, &[pid as u64, 0, 0, 0]),
        Ok(pid as u64)
    );
}

#[test]
fn waits_pick_by_pid_and_group() {
    let (mut w, init) = World::new();
    let (a, a_pid) = w.fork(init);
    let (b, b_pid) = w.fork(init);
    w.now(init, nr::__NR_setpgid, &[b_pid as u64, 0])
        .expect("setpgid");
    w.call(a, nr::__NR_exit, &[1]);
    let nohang = nr::WNOHANG as u64;
    let group = -(b_pid as i64) as u64;
    assert_eq!(w.now(init, nr::__NR_wait4, &[group, 0, nohang, 0]), Ok(0));
    assert_eq!(w.call(init, nr::__NR_wait4, &[group, 0, 0, 0]), None);
    w.call(b, nr::__NR_exit, &[2]);
    assert_eq!(w.rax(init), Ok(b_pid as u64));
    assert_eq!(w.now(init, nr::__NR_wait4, &[0, 0, 0, 0]), Ok(a_pid as u64));
    assert_eq!(
        w.now(init, nr::__NR_wait4, &[99, 0, 0, 0]),
        Err(Errno::ECHILD)
    );
}

#[test]
fn ignored_sigchld_leaves_no_zombie_and_ends_the_wait_with_echild() {
    let (mut w, init) = World::new();
    w.poke(init, DATA, &[1, 0, 0, 0]);
    w.now(init, nr::__NR_rt_sigaction, &[SIGCHLD as u64, DATA, 0, 8])
        .expect("ignore");
    let (child, pid) = w.fork(init);
    assert_eq!(w.call(init, nr::__NR_wait4, &[ANY, 0, 0, 0]), None);
    w.call(child, nr::__NR_exit, &[0]);
    assert!(w.pm.table.process(pid).is_none());
    assert_eq!(w.rax(init), Err(Errno::ECHILD));
}

#[test]
fn the_wait_has_its_result_when_the_sigchld_handler_runs() {
    let (mut w, init) = World::new();
    w.handle_signal(init, SIGCHLD, 0);
    let (child, pid) = w.fork(init);
    assert_eq!(w.call(init, nr::__NR_wait4, &[ANY, DATA, 0, 0]), None);
    w.call(child, nr::__NR_exit, &[3]);
    assert!(w.in_handler(init));
    let info = w.pm.sys.body(init).registers.rsi;
    assert_eq!(w.peek(init, info) as i32, SIGCHLD);
    assert_eq!(w.peek(init, info + 16) as u32, pid);
    assert_eq!(w.peek(init, info + 24) as u32, 3);
    w.sigreturn(init);
    assert_eq!(w.rax(init), Ok(pid as u64));
}

#[test]
fn a_signal_interrupts_a_wait() {
    let (mut w, init) = World::new();
    w.handle_signal(init, SIGUSR1, 0);
    let (child, _) = w.fork(init);
    assert_eq!(w.call(init, nr::__NR_wait4, &[ANY, 0, 0, 0]), None);
    w.call(child, nr::__NR_kill, &[2, SIGUSR1 as u64]);
    assert!(w.in_handler(init));
    w.sigreturn(init);
    assert_eq!(w.rax(init), Err(Errno::EINTR));
}

#[test]
fn waitid_reports_and_can_leave_the_child() {
    let (mut w, init) = World::new();
    let (child, pid) = w.fork(init);
    w.call(child, nr::__NR_exit, &[9]);
    let options = (nr::WEXITED | nr::WNOWAIT) as u64;
    let wait = [nr::P_ALL as u64, 0, DATA, options, 0];
    assert_eq!(w.now(init, nr::__NR_waitid, &wait), Ok(0));
    assert_eq!(w.peek(init, DATA) as i32, SIGCHLD);
    assert_eq!(w.peek(init, DATA + 8) as u32, nr::CLD_EXITED);
    assert_eq!(w.peek(init, DATA + 16) as u32, pid);
    assert_eq!(w.peek(init, DATA + 24), 9);
    assert!(w.pm.table.process(pid).is_some());
    let wait = [nr::P_PID as u64, pid as u64, 0, nr::WEXITED as u64, 0];
    assert_eq!(w.now(init, nr::__NR_waitid, &wait), Ok(0));
    assert!(w.pm.table.process(pid).is_none());
    let bad = [nr::P_ALL as u64, 0, 0, 0, 0];
    assert_eq!(w.now(init, nr::__NR_waitid, &bad), Err(Errno::EINVAL));
}

#[test]
fn continued_children_are_reported_once() {
    let (mut w, init) = World::new();
    let (_, pid) = w.fork(init);
    w.call(init, nr::__NR_kill, &[pid as u64, SIGSTOP as u64]);
    w.call(init, nr::__NR_kill, &[pid as u64, SIGCONT as u64]);
    let wait = [ANY, DATA, (nr::WCONTINUED | nr::WNOHANG) as u64, 0];
    assert_eq!(w.now(init, nr::__NR_wait4, &wait), Ok(pid as u64));
    assert_eq!(w.peek(init, DATA) as u32, 0xffff);
    assert_eq!(w.now(init, nr::__NR_wait4, &wait), Ok(0));
}

#[test]
fn a_job_in_the_background_is_stopped_by_its_terminal() {
    let (mut w, init) = World::new();
    let (job, pid) = w.fork(init);
    w.now(init, nr::__NR_setpgid, &[pid as u64, 0])
        .expect("setpgid");
    let ask = |w: &mut World, who, signal| {
        let verdict = w.ask(pm::JobControl { who, signal }).expect("an answer");
        verdict.map(|verdict| verdict.signalled)
    };
    let (input, output) = (nr::SIGTTIN as i32, nr::SIGTTOU as i32);
    w.enter_vfs(job, nr::__NR_read);
    assert_eq!(ask(&mut w, job, input), Ok(true));
    w.leave_vfs(job, Err(Errno::ERESTARTSYS));
    let untraced = nr::WUNTRACED as u64;
    let waited = w.now(init, nr::__NR_wait4, &[ANY, DATA, untraced, 0]);
    assert_eq!(waited, Ok(pid as u64));
    assert_eq!(w.peek(init, DATA) as i32, input << 8 | 0x7f);
    // Who leads a session has nobody to continue it.
    assert_eq!(ask(&mut w, init, input), Err(Errno::EIO));
    w.now(init, nr::__NR_kill, &[pid as u64, SIGCONT as u64])
        .expect("kill");
    w.poke(job, DATA, &[1, 0x0400_0000, 0, 0]);
    for signal in [input, output] {
        w.now(job, nr::__NR_rt_sigaction, &[signal as u64, DATA, 0, 8])
            .expect("sigaction");
    }
    w.enter_vfs(job, nr::__NR_read);
    assert_eq!(ask(&mut w, job, input), Err(Errno::EIO));
    assert_eq!(ask(&mut w, job, output), Ok(false));
    assert_eq!(ask(&mut w, job, SIGHUP), Err(Errno::EINVAL));
}
