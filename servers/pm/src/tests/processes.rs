//! fork, vfork, exec, exit, orphans, the end of the machine.

use super::fake::{DATA, World, names, nr};
use crate::signal::set::*;
use abi::hostlink::EXIT_UNSAVED;
use abi::proto::pm::{EndRun, ExecFailed, NameOf, NextPid, PidOf, ProcessOf};
use abi::{Endpoint, Errno};

#[test]
fn a_child_has_its_own_id_and_memory() {
    let (mut w, init) = World::new();
    w.poke(init, DATA, &[42]);
    let (child, pid) = w.fork(init);
    assert_eq!(pid, 3);
    assert_eq!(w.now(child, nr::__NR_getpid, &[]), Ok(3));
    assert_eq!(w.now(child, nr::__NR_getppid, &[]), Ok(2));
    assert_eq!(w.now(init, nr::__NR_getppid, &[]), Ok(1));
    w.poke(init, DATA, &[43]);
    assert_eq!(w.peek(child, DATA), 42);
}

#[test]
fn a_failed_fork_takes_everything_back() {
    for (server, undone) in [(Endpoint::VM, 0), (Endpoint::VFS, 1)] {
        let (mut w, init) = World::new();
        w.pm.sys.fail = Some((server, "Fork"));
        w.pm.sys.calls.clear();
        assert_eq!(w.now(init, nr::__NR_fork, &[]), Err(Errno::ENOMEM));
        assert_eq!(w.pm.sys.bodies.len(), 1);
        assert_eq!(w.pm.table.processes().count(), 1);
        let exits = w.pm.sys.calls.iter().filter(|c| c.0 == "Exit").count();
        assert_eq!(exits, undone, "VM gives back what it copied");
    }
}

#[test]
fn a_vfork_parent_waits_for_exec_or_exit() {
    let (mut w, init) = World::new();
    assert_eq!(w.call(init, nr::__NR_vfork, &[]), None);
    assert!(!w.runs(init));
    let child = w.endpoint(3);
    w.enter_vfs(child, nr::__NR_execve);
    w.exec_done(child);
    assert!(w.runs(init));
    assert_eq!(w.rax(init), Ok(3));
    assert_eq!(w.call(init, nr::__NR_vfork, &[]), None);
    let child = w.endpoint(4);
    w.call(child, nr::__NR_exit, &[1]);
    assert_eq!(w.rax(init), Ok(4));
}

#[test]
fn a_signal_waits_until_vfork_is_over() {
    let (mut w, init) = World::new();
    w.handle_signal(init, SIGUSR1, 0);
    assert_eq!(w.call(init, nr::__NR_vfork, &[]), None);
    let child = w.endpoint(3);
    w.call(child, nr::__NR_kill, &[2, SIGUSR1 as u64]);
    assert!(!w.in_handler(init));
    w.call(child, nr::__NR_exit, &[1]);
    assert!(w.in_handler(init));
    w.sigreturn(init);
    assert_eq!(w.rax(init), Ok(3));
}

#[test]
fn posix_spawn_s_clone_has_its_own_stack() {
    let (mut w, init) = World::new();
    let flags = (nr::CLONE_VM | nr::CLONE_VFORK) as u64 | SIGCHLD as u64;
    assert_eq!(
        w.call(init, nr::__NR_clone, &[flags, 0x70_0000, 0, 0, 0]),
        None
    );
    let child = w.endpoint(3);
    let parent_space = w.pm.sys.body(init).space;
    let body = w.pm.sys.body(child);
    assert_eq!(body.registers.rsp, 0x70_0000);
    assert_eq!(body.registers.rax, 0);
    assert_eq!(body.space, parent_space);
}

#[test]
fn orphans_go_to_pm_which_reaps_them() {
    let (mut w, init) = World::new();
    let (child, child_pid) = w.fork(init);
    let (grandchild, pid) = w.fork(child);
    w.call(child, nr::__NR_exit, &[0]);
    assert_eq!(w.now(grandchild, nr::__NR_getppid, &[]), Ok(1));
    w.call(grandchild, nr::__NR_exit, &[0]);
    assert!(w.pm.table.process(pid).is_none());
    assert!(w.pm.table.process(child_pid).is_some());
}

#[test]
fn a_stopped_orphaned_group_is_sent_on() {
    let (mut w, init) = World::new();
    let (child, child_pid) = w.fork(init);
    let (grandchild, pid) = w.fork(child);
    w.now(grandchild, nr::__NR_setpgid, &[0, 0])
        .expect("setpgid");
    w.call(child, nr::__NR_kill, &[pid as u64, SIGSTOP as u64]);
    assert!(w.pm.sys.body(grandchild).stopped);
    w.call(init, nr::__NR_kill, &[child_pid as u64, SIGKILL as u64]);
    assert!(!w.lives(grandchild), "SIGHUP ends it");
}

#[test]
fn an_end_within_a_group_that_nobody_could_continue_changes_nothing() {
    let (mut w, init) = World::new();
    let (stopped, pid) = w.fork(init);
    let (other, _) = w.fork(init);
    w.call(stopped, nr::__NR_kill, &[pid as u64, SIGSTOP as u64]);
    w.call(other, nr::__NR_exit, &[0]);
    assert!(w.lives(stopped) && w.lives(init));
    assert!(w.pm.sys.body(stopped).stopped);
}

#[test]
fn the_machine_ends_with_program() {
    let (mut w, init) = World::new();
    let (child, _) = w.fork(init);
    w.call(init, nr::__NR_exit_group, &[5]);
    assert!(!w.lives(child) && !w.lives(init));
    assert_eq!(w.posted(names().1), 1);
    assert_eq!(w.pm.sys.off, None);
    w.synced(Ok(()));
    assert_eq!(w.pm.sys.off, Some(5));
    let (name, message) = *w.pm.sys.calls.last().expect("a call");
    assert_eq!((name, message.words[0]), (names().2, 5 << 8));
}

#[test]
fn a_sync_that_hangs_does_not_keep_the_machine() {
    let (mut w, init) = World::new();
    w.call(init, nr::__NR_kill, &[2, SIGKILL as u64]);
    w.pass(11_000_000_000);
    assert_eq!(w.pm.sys.off, Some(128 + 9));
    let (_, message) = *w.pm.sys.calls.last().expect("a call");
    assert_eq!(message.words[0], u64::from(EXIT_UNSAVED) | 9);
}

#[test]
fn a_sync_that_fails_is_told() {
    let (mut w, init) = World::new();
    w.call(init, nr::__NR_exit_group, &[0]);
    w.synced(Err(Errno::EIO));
    let (_, message) = *w.pm.sys.calls.last().expect("a call");
    assert_eq!(message.words[0], u64::from(EXIT_UNSAVED));
}

#[test]
fn only_the_console_ends_the_run() {
    let (mut w, init) = World::new();
    w.post(EndRun {});
    assert!(w.lives(init));
    let console = w.pm.boot.console.expect("a console");
    w.handle(console, abi::Class::Post, &abi::Request::encode(EndRun {}));
    assert!(!w.lives(init));
    assert_eq!(w.posted(names().1), 1);
}

#[test]
fn a_program_that_cannot_start_ends_the_run() {
    for (errno, code) in [(Errno::ENOENT, 127), (Errno::EACCES, 126)] {
        let fake = super::fake::Fake::default();
        let mut pm = crate::Pm::new(fake, crate::Boot::default());
        pm.start_init().expect("init");
        let who = Endpoint(*pm.sys.bodies.keys().next().expect("a process"));
        let status = -(errno.0 as i64);
        pm.exec_failed(ExecFailed { who, status });
        assert_eq!(pm.sys.log.len(), 1);
        pm.synced(1, Ok(()));
        assert_eq!(pm.sys.off, Some(code));
    }
}

#[test]
fn exec_that_fails_late_kills() {
    let (mut w, init) = World::new();
    let (child, pid) = w.fork(init);
    w.enter_vfs(child, nr::__NR_execve);
    w.post(ExecFailed {
        who: child,
        status: -12,
    });
    assert!(!w.lives(child));
    assert_eq!(w.pm.table.process(pid).and_then(|p| p.status), Some(9));
    w.exec_done(child);
    assert!(!w.lives(child), "late news of a dead process is ignored");
}

#[test]
fn sessions_and_groups() {
    let (mut w, init) = World::new();
    assert_eq!(w.now(init, nr::__NR_setsid, &[]), Err(Errno::EPERM));
    let (child, pid) = w.fork(init);
    assert_eq!(w.now(child, nr::__NR_setpgid, &[0, 77]), Err(Errno::EPERM));
    assert_eq!(w.now(child, nr::__NR_setsid, &[]), Ok(pid as u64));
    assert_eq!(w.now(child, nr::__NR_getpgrp, &[]), Ok(pid as u64));
    assert_eq!(
        w.now(init, nr::__NR_setpgid, &[pid as u64, 2]),
        Err(Errno::EPERM)
    );
    let (other, other_pid) = w.fork(init);
    w.enter_vfs(other, nr::__NR_execve);
    w.exec_done(other);
    let result = w.now(init, nr::__NR_setpgid, &[other_pid as u64, 0]);
    assert_eq!(result, Err(Errno::EACCES));
}

#[test]
fn ids_follow_linux_s_rules() {
    let (mut w, init) = World::new();
    let (child, _) = w.fork(init);
    assert_eq!(w.now(child, nr::__NR_setresuid, &[5, 6, 7]), Ok(0));
    assert_eq!(w.now(child, nr::__NR_setuid, &[9]), Err(Errno::EPERM));
    assert_eq!(w.now(child, nr::__NR_setuid, &[7]), Ok(0));
    assert_eq!(w.now(child, nr::__NR_geteuid, &[]), Ok(7));
    assert_eq!(w.now(child, nr::__NR_getuid, &[]), Ok(5));
    assert_eq!(w.now(child, nr::__NR_setgid, &[1]), Err(Errno::EPERM));
    assert_eq!(w.now(child, nr::__NR_kill, &[2, 15]), Err(Errno::EPERM));
    assert_eq!(w.now(init, nr::__NR_setreuid, &[u64::MAX, u64::MAX]), Ok(0));
}

#[test]
fn other_servers_can_ask() {
    let (mut w, init) = World::new();
    let (child, pid) = w.fork(init);
    let figures = w.pm.process_of(ProcessOf { pid }).expect("figures");
    assert_eq!((figures.who, figures.parent_group), (child, (2, 2)));
    assert_eq!(w.pm.pid_of(PidOf { who: child }).map(|f| f.pid), Ok(pid));
    assert_eq!(w.pm.next_pid(NextPid { pid: 0 }).map(|f| f.pid), Ok(2));
    assert_eq!(w.pm.next_pid(NextPid { pid: 4 }), Err(Errno::ESRCH));
    let name = w.pm.name_of(NameOf { pid }).expect("name");
    assert_eq!(&name.name[..8], b"program\0");
    w.call(child, nr::__NR_exit, &[0]);
    let figures = w.pm.process_of(ProcessOf { pid }).expect("figures");
    assert_eq!(figures.session_state.1, 'Z' as u32);
    assert_eq!(w.pm.counters().zombies, 1);
}

#[test]
fn unknown_calls_are_named_once() {
    let (mut w, init) = World::new();
    for _ in 0..2 {
        let number = nr::__NR_io_submit;
        assert_eq!(w.now(init, number, &[]), Err(Errno::ENOSYS));
    }
    assert_eq!(w.now(init, 5000, &[]), Err(Errno::ENOSYS));
    assert_eq!(w.pm.sys.log.len(), 1);
}

#[test]
fn many_forks_leave_nothing() {
    let (mut w, init) = World::new();
    for _ in 0..200 {
        let (child, pid) = w.fork(init);
        w.enter_vfs(child, nr::__NR_execve);
        w.exec_done(child);
        w.call(child, nr::__NR_exit_group, &[0]);
        assert_eq!(
            w.now(init, nr::__NR_wait4, &[u64::MAX, 0, 0, 0]),
            Ok(pid as u64)
        );
    }
    assert_eq!(w.pm.table.processes().count(), 1);
    assert_eq!(w.pm.sys.bodies.len(), 1);
    assert!(w.pm.timers.is_empty() && w.pm.futexes.is_empty());
}

#[test]
fn who_ended_keeps_a_place_until_somebody_has_waited() {
    let (mut w, init) = World::new();
    let (user, _) = w.fork(init);
    assert_eq!(w.now(user, nr::__NR_setuid, &[1000]), Ok(0));
    let mut ended = 0;
    let error = loop {
        match w.now(user, nr::__NR_fork, &[]) {
            Ok(pid) => {
                let child = w.endpoint(pid as u32);
                w.call(child, nr::__NR_exit, &[0]);
                ended += 1;
            }
            Err(error) => break error,
        }
        assert!(ended < 1000, "zombies without a limit");
    };
    assert_eq!(error, Errno::EAGAIN);
    // Root has places left, and one that is waited for is free again.
    let (_, pid) = w.fork(init);
    let child = w.endpoint(pid);
    w.call(child, nr::__NR_exit, &[0]);
    assert_eq!(
        w.now(init, nr::__NR_wait4, &[pid.into(), 0, 0, 0]),
        Ok(pid.into())
    );
    assert!(w.now(user, nr::__NR_wait4, &[u64::MAX, 0, 0, 0]).is_ok());
    assert!(w.now(user, nr::__NR_fork, &[]).is_ok());
}
