//! Who may do what to whom, and how much of what is counted a user may have.

use super::fake::{DATA, World, nr};
use crate::signal::set::*;
use abi::grant::GrantTo;
use abi::kernel::Exception;
use abi::lab::POWEROFF_PANIC;
use abi::proto::pm::{CredentialsOf, DebugCopy, MayExec, MayLook};
use abi::{Class, Endpoint, Errno, Message};
use linux_raw_sys::general as linux;

const USER: u64 = 1000;

/// A child that is this user's and may be looked at.
fn user(w: &mut World, parent: Endpoint, id: u64) -> (Endpoint, u32) {
    let (who, pid) = w.fork(parent);
    assert_eq!(w.now(who, nr::__NR_setgid, &[id]), Ok(0));
    assert_eq!(w.now(who, nr::__NR_setuid, &[id]), Ok(0));
    dumpable(w, who, 1);
    (who, pid)
}

fn dumpable(w: &mut World, who: Endpoint, value: u64) {
    let set = linux_raw_sys::prctl::PR_SET_DUMPABLE as u64;
    assert_eq!(w.now(who, nr::__NR_prctl, &[set, value]), Ok(0));
}

fn limit(w: &mut World, who: Endpoint, resource: u32, soft: u64, hard: u64) {
    w.poke(who, DATA, &[soft, hard]);
    assert_eq!(
        w.now(who, nr::__NR_setrlimit, &[resource as u64, DATA]),
        Ok(0)
    );
}

#[test]
fn proc_asks_with_effective_ids_and_ptrace_with_real_ones() {
    let (mut w, root) = World::new();
    let (a, a_pid) = user(&mut w, root, USER);
    let (b, b_pid) = user(&mut w, root, USER);
    let (c, _) = user(&mut w, root, USER + 1);
    let look = |w: &World, who, pid| w.pm.may_look(MayLook { pid, who });
    assert_eq!(look(&w, a, b_pid), Ok(()));
    assert_eq!(look(&w, c, b_pid), Err(Errno::EACCES));
    assert_eq!(look(&w, a, 2), Err(Errno::EACCES));
    assert_eq!(look(&w, root, b_pid), Ok(()));
    dumpable(&mut w, b, 0);
    assert_eq!(look(&w, a, b_pid), Err(Errno::EACCES));
    assert_eq!(look(&w, b, b_pid), Ok(()));
    assert_eq!(look(&w, root, b_pid), Ok(()));
    // A set-id program: its user may trace, but it does not look as that.
    let process = w.pm.table.process_mut(a_pid).unwrap();
    process.ids.user.effective = 7;
    process.ids.group.effective = 7;
    dumpable(&mut w, b, 1);
    assert_eq!(look(&w, a, b_pid), Err(Errno::EACCES));
}

#[test]
fn an_image_is_gone_with_an_exec_and_while_ids_are_about_to_change() {
    let (mut w, root) = World::new();
    let (who, pid) = user(&mut w, root, USER);
    let image = |w: &World| w.pm.credentials_of(CredentialsOf { pid }).unwrap().image;
    let copy = |w: &mut World, image| {
        let (address, grant, len, write) = (DATA, GrantTo::new(0), 8, false);
        let request = DebugCopy {
            pid,
            image,
            address,
            grant,
            len,
            write,
        };
        w.pm.debug_copy(Endpoint::VFS, request)
    };
    let first = image(&w);
    assert_ne!(first, 0);
    assert_ne!(copy(&mut w, first), Err(Errno::ESRCH));
    let slot = w.pm.table.slot_of(who).unwrap();
    w.pm.may_set_id(slot).unwrap();
    assert_eq!((image(&w), copy(&mut w, first)), (0, Err(Errno::ESRCH)));
    w.enter_vfs(who, nr::__NR_execve);
    w.exec_done(who);
    assert_ne!(image(&w), first);
    assert_eq!(copy(&mut w, first), Err(Errno::ESRCH));
}

#[test]
fn a_user_has_no_more_processes_than_its_limit() {
    let (mut w, root) = World::new();
    let (who, _) = user(&mut w, root, USER);
    limit(&mut w, who, linux::RLIMIT_NPROC, 3, 3);
    let (child, _) = w.fork(who);
    let (other, _) = w.fork(child);
    for process in [who, child, other] {
        let again = w.now(process, nr::__NR_fork, &[]);
        assert_eq!(again, Err(Errno::EAGAIN));
    }
    // A zombie is one.
    assert_eq!(w.call(other, nr::__NR_exit_group, &[0]), None);
    assert_eq!(w.now(who, nr::__NR_fork, &[]), Err(Errno::EAGAIN));
    assert!(w.now(child, nr::__NR_wait4, &[u64::MAX, 0, 0, 0]).is_ok());
    w.fork(who);
    // Root's do not count, whatever the limit.
    limit(&mut w, root, linux::RLIMIT_NPROC, 1, 1);
    w.fork(root);
}

#[test]
fn who_joins_a_crowd_executes_nothing() {
    let (mut w, root) = World::new();
    let first = user(&mut w, root, USER).0;
    user(&mut w, root, USER);
    limit(&mut w, root, linux::RLIMIT_NPROC, 1, 10);
    let (late, pid) = user(&mut w, root, USER);
    assert!(w.pm.table.process(pid).unwrap().crowded);
    let answer = |w: &mut World| w.ask(MayExec { who: late }).expect("an answer");
    assert_eq!(answer(&mut w), Err(Errno::EAGAIN));
    w.poke(late, DATA, &[10, 10]);
    let nproc = linux::RLIMIT_NPROC as u64;
    assert_eq!(w.now(late, nr::__NR_setrlimit, &[nproc, DATA]), Ok(0));
    assert_eq!(answer(&mut w), Ok(()));
    assert!(!w.pm.table.process(pid).unwrap().crowded);
    assert!(w.lives(first));
}

#[test]
fn queued_signals_of_a_user_are_counted_together() {
    let (mut w, root) = World::new();
    w.pm.boot.memory = 64 << 20;
    let (who, pid) = user(&mut w, root, USER);
    let (other, other_pid) = user(&mut w, root, USER);
    for process in [who, other] {
        w.poke(process, DATA, &[u64::MAX]);
        let block = [linux::SIG_BLOCK as u64, DATA, 0, 8];
        assert_eq!(w.now(process, nr::__NR_rt_sigprocmask, &block), Ok(0));
        limit(&mut w, process, linux::RLIMIT_SIGPENDING, 3, 3);
    }
    const SI_QUEUE: u64 = -1i32 as u32 as u64;
    let queue = |w: &mut World, from, to: u32, signal: i32| {
        w.poke(from, DATA, &[signal as u64, SI_QUEUE, 0, 0, 0, 0]);
        w.now(
            from,
            nr::__NR_rt_sigqueueinfo,
            &[to as u64, signal as u64, DATA],
        )
    };
    for to in [pid, other_pid, pid] {
        assert_eq!(queue(&mut w, who, to, SIGRTMIN), Ok(0));
    }
    assert_eq!(queue(&mut w, who, other_pid, SIGRTMIN), Err(Errno::EAGAIN));
    let credentials = w.pm.credentials_of(CredentialsOf { pid }).unwrap();
    assert_eq!(credentials.queued, (3, 3));
    // Standard signals, and kill(2), never fail for that.
    assert_eq!(queue(&mut w, who, other_pid, SIGUSR2), Ok(0));
    let kill = [other_pid as u64, SIGRTMIN as u64 + 1];
    assert_eq!(w.now(who, nr::__NR_kill, &kill), Ok(0));
    assert_eq!(w.now(who, nr::__NR_kill, &kill), Ok(0));
    let pending = w.pm.table.process(other_pid).unwrap().pending.set();
    assert!(pending.has(SIGUSR2) && pending.has(SIGRTMIN + 1));
    // Another user has its own.
    let (third, third_pid) = user(&mut w, root, USER + 1);
    w.poke(third, DATA, &[u64::MAX]);
    let block = [linux::SIG_BLOCK as u64, DATA, 0, 8];
    assert_eq!(w.now(third, nr::__NR_rt_sigprocmask, &block), Ok(0));
    assert_eq!(queue(&mut w, third, third_pid, SIGRTMIN), Ok(0));
}

#[test]
fn nice_values_go_down_as_far_as_the_limit_says() {
    let (mut w, root) = World::new();
    let (who, _) = user(&mut w, root, USER);
    let (_, other) = user(&mut w, root, USER + 1);
    let set = |w: &mut World, pid: u32, nice: i32| {
        w.now(who, nr::__NR_setpriority, &[0, pid as u64, nice as u64])
    };
    assert_eq!(set(&mut w, 0, 10), Ok(0));
    assert_eq!(set(&mut w, 0, 9), Err(Errno::EACCES));
    assert_eq!(set(&mut w, other, 12), Err(Errno::EPERM));
    let process =
        w.pm.table
            .process_mut(w.pm.table.thread(who.slot()).unwrap().pid);
    let nice = linux::RLIMIT_NICE;
    process.unwrap().limits.set(nice, [15, 15], true).unwrap();
    assert_eq!(set(&mut w, 0, 5), Ok(0));
    assert_eq!(set(&mut w, 0, 4), Err(Errno::EACCES));
}

#[test]
fn a_disarmed_timer_has_no_period() {
    let (mut w, root) = World::new();
    w.poke(root, DATA, &[1, 1, 0, 0]);
    assert_eq!(w.now(root, nr::__NR_setitimer, &[0, DATA, 0]), Ok(0));
    assert_eq!(w.now(root, nr::__NR_getitimer, &[0, DATA]), Ok(0));
    assert_eq!((w.peek(root, DATA), w.peek(root, DATA + 8)), (0, 0));
}

#[test]
fn pm_ends_the_machine_in_order_when_rs_dies() {
    let (mut w, _) = World::new();
    let mut message = Message::default();
    message.words[..3].copy_from_slice(&[6, 0, 0x1234]);
    assert_eq!(Exception::of(&message).vector, 6);
    w.handle(Endpoint::RS, Class::Exception, &message);
    assert_eq!((w.posted("SyncAll"), w.pm.sys.off), (1, None));
    w.synced(Ok(()));
    assert_eq!(w.pm.sys.off, Some(POWEROFF_PANIC));
    assert!(
        w.pm.sys
            .log
            .iter()
            .any(|line| line.contains("service rs died"))
    );
}
