//! Threads and futexes.

use super::fake::{DATA, World, nr};
use crate::signal::set::*;
use abi::{Endpoint, Errno};

const WAIT: u64 = nr::FUTEX_WAIT as u64;
const WAKE: u64 = nr::FUTEX_WAKE as u64;

fn thread(w: &mut World, of: Endpoint, clear_tid: u64) -> (Endpoint, u32) {
    let flags = nr::CLONE_VM
        | nr::CLONE_FS
        | nr::CLONE_FILES
        | nr::CLONE_SIGHAND
        | nr::CLONE_THREAD
        | nr::CLONE_SYSVSEM
        | nr::CLONE_SETTLS
        | nr::CLONE_PARENT_SETTID
        | nr::CLONE_CHILD_CLEARTID;
    let args = [flags as u64, 0x70_0000, DATA + 512, clear_tid, 0x71_0000];
    let tid = w.now(of, nr::__NR_clone, &args).expect("clone") as u32;
    (w.endpoint(tid), tid)
}

#[test]
fn a_thread_shares_the_process_and_has_its_own_id() {
    let (mut w, init) = World::new();
    let (t, tid) = thread(&mut w, init, 0);
    assert_eq!(w.now(t, nr::__NR_getpid, &[]), Ok(2));
    assert_eq!(w.now(t, nr::__NR_gettid, &[]), Ok(tid as u64));
    assert_eq!(w.peek(init, DATA + 512) as u32, tid);
    assert_eq!(w.pm.sys.body(t).registers.fs_base, 0x71_0000);
    assert_eq!(w.pm.counters().processes, 1);
}

#[test]
fn a_join_wakes_when_the_thread_exits() {
    let (mut w, init) = World::new();
    let word = DATA + 256;
    let (t, tid) = thread(&mut w, init, word);
    w.poke(init, word, &[tid as u64]);
    assert_eq!(
        w.call(
            init,
            nr::__NR_futex,
            &[word, nr::FUTEX_WAIT as u64, tid as u64, 0]
        ),
        None
    );
    w.call(t, nr::__NR_exit, &[0]);
    assert!(!w.lives(t) && w.lives(init));
    assert_eq!(w.rax(init), Ok(0));
    assert_eq!(w.peek(init, word) as u32, 0);
}

#[test]
fn futexes_wait_wake_and_time_out() {
    let (mut w, init) = World::new();
    let (t, _) = thread(&mut w, init, 0);
    w.poke(init, DATA, &[1]);
    assert_eq!(
        w.now(t, nr::__NR_futex, &[DATA, WAIT, 2, 0]),
        Err(Errno::EAGAIN)
    );
    assert_eq!(
        w.now(t, nr::__NR_futex, &[DATA + 2, WAIT, 0, 0]),
        Err(Errno::EINVAL)
    );
    assert_eq!(w.call(t, nr::__NR_futex, &[DATA, WAIT, 1, 0]), None);
    assert_eq!(w.now(init, nr::__NR_futex, &[DATA, WAKE, 5]), Ok(1));
    assert_eq!(w.rax(t), Ok(0));
    assert_eq!(w.now(init, nr::__NR_futex, &[DATA, WAKE, 5]), Ok(0));
    w.poke(init, DATA + 64, &[0, 1_000_000]);
    assert_eq!(w.call(t, nr::__NR_futex, &[DATA, WAIT, 1, DATA + 64]), None);
    w.pass(1_000_000);
    assert_eq!(w.rax(t), Err(Errno::ETIMEDOUT));
    assert!(w.pm.futexes.is_empty());
}

/// Two address spaces, two addresses, no page present: one object.
#[test]
fn a_shared_futex_is_found_by_its_object() {
    let (mut w, init) = World::new();
    let (child, _) = w.fork(init);
    let spaces = [init, child].map(|who| w.pm.sys.body(who).space);
    let (here, there) = (DATA, DATA + 0x1000);
    w.pm.sys.shared.insert((spaces[0], here >> 12), (7, 3));
    w.pm.sys.shared.insert((spaces[1], there >> 12), (7, 3));
    w.pm.sys
        .absent
        .extend([(spaces[0], here >> 12), (spaces[1], there >> 12)]);
    assert_eq!(w.call(init, nr::__NR_futex, &[here, WAIT, 0, 0]), None);
    assert_eq!(w.now(child, nr::__NR_futex, &[there + 4, WAKE, 1]), Ok(0));
    assert_eq!(
        w.now(child, nr::__NR_futex, &[here, WAKE, 1]),
        Ok(0),
        "its own"
    );
    let private = WAKE | u64::from(nr::FUTEX_PRIVATE_FLAG);
    assert_eq!(w.now(child, nr::__NR_futex, &[there, private, 1]), Ok(0));
    assert_eq!(w.now(child, nr::__NR_futex, &[there, WAKE, 1]), Ok(1));
    assert_eq!(w.rax(init), Ok(0));
}

#[test]
fn private_waits_and_others_do_not_meet() {
    let (mut w, init) = World::new();
    let (t, _) = thread(&mut w, init, 0);
    let private = u64::from(nr::FUTEX_PRIVATE_FLAG);
    for (wait, other) in [(WAIT, WAKE | private), (WAIT | private, WAKE)] {
        assert_eq!(w.call(t, nr::__NR_futex, &[DATA, wait, 0, 0]), None);
        assert_eq!(w.now(init, nr::__NR_futex, &[DATA, other, 1]), Ok(0));
        let same = other ^ private;
        assert_eq!(w.now(init, nr::__NR_futex, &[DATA, same, 1]), Ok(1));
    }
}

#[test]
fn a_signal_for_the_process_goes_to_a_thread_that_does_not_block_it() {
    let (mut w, init) = World::new();
    let (t, _) = thread(&mut w, init, 0);
    w.handle_signal(init, SIGUSR1, 0);
    w.poke(init, DATA, &[SigSet::of(&[SIGUSR1]).0]);
    w.now(init, nr::__NR_rt_sigprocmask, &[0, DATA, 0, 8])
        .expect("mask");
    assert_eq!(w.now(init, nr::__NR_kill, &[2, SIGUSR1 as u64]), Ok(0));
    assert!(w.in_handler(t) && !w.in_handler(init));
}

#[test]
fn one_thread_s_exit_group_ends_all() {
    let (mut w, init) = World::new();
    let (child, pid) = w.fork(init);
    let (t, _) = thread(&mut w, child, 0);
    assert_eq!(w.call(child, nr::__NR_futex, &[DATA, WAIT, 0, 0]), None);
    w.call(t, nr::__NR_exit_group, &[4]);
    assert!(!w.lives(child) && !w.lives(t));
    assert_eq!(w.pm.table.process(pid).and_then(|p| p.status), Some(4 << 8));
    assert!(w.pm.futexes.is_empty());
}

#[test]
fn exec_leaves_one_thread_with_the_process_s_id() {
    let (mut w, init) = World::new();
    let (t, _) = thread(&mut w, init, 0);
    w.enter_vfs(t, nr::__NR_execve);
    w.exec_done(t);
    assert!(!w.lives(init) && w.runs(t));
    assert_eq!(w.now(t, nr::__NR_gettid, &[]), Ok(2));
}

#[test]
fn a_stop_stops_every_thread() {
    let (mut w, init) = World::new();
    let (child, pid) = w.fork(init);
    let (t, _) = thread(&mut w, child, 0);
    w.enter_vfs(t, nr::__NR_read);
    w.call(init, nr::__NR_kill, &[pid as u64, SIGSTOP as u64]);
    assert!(w.pm.sys.body(child).stopped && w.pm.sys.body(t).stopped);
    w.leave_vfs(t, Err(Errno::ERESTARTSYS));
    assert!(w.pm.sys.body(t).stopped);
    w.call(init, nr::__NR_kill, &[pid as u64, SIGCONT as u64]);
    assert!(w.runs(child) && w.runs(t));
    assert_eq!(w.rax(t), Ok(nr::__NR_read as u64), "the read starts again");
}
