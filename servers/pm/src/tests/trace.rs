//! ptrace: who is told, who is freed, who may.

use super::fake::{DATA, World, nr};
use abi::proto::pm;
use abi::{Endpoint, Errno};
use linux_raw_sys::ptrace as linux;

const SIGSTOP: u64 = 19;

fn ptrace(w: &mut World, who: Endpoint, request: u32, pid: u32, data: u64) -> Result<u64, Errno> {
    w.now(who, nr::__NR_ptrace, &[request as u64, pid as u64, 0, data])
}

fn wait(w: &mut World, who: Endpoint, pid: u32) -> Result<u64, Errno> {
    let options = (nr::__WALL | nr::WNOHANG) as u64;
    w.now(who, nr::__NR_wait4, &[pid as u64, DATA, options, 0])
}

/// PROGRAM, its child, and that one's child.
fn family() -> (World, Endpoint, Endpoint, (Endpoint, u32)) {
    let (mut w, program) = World::new();
    let (parent, _) = w.fork(program);
    let child = w.fork(parent);
    (w, program, parent, child)
}

#[test]
fn a_tracer_hears_of_an_end_before_the_parent() {
    let (mut w, program, parent, (child, pid)) = family();
    assert_eq!(ptrace(&mut w, program, linux::PTRACE_SEIZE, pid, 0), Ok(0));
    assert_eq!(w.call(parent, nr::__NR_wait4, &[pid as u64, 0, 0, 0]), None);
    w.call(child, nr::__NR_exit_group, &[3]);
    assert!(!w.runs(parent));
    assert_eq!(w.pm.table.ghosts().len(), 1);
    assert_eq!(wait(&mut w, program, pid), Ok(pid as u64));
    assert_eq!(w.peek(program, DATA) as u32, 3 << 8);
    assert!(w.pm.table.ghosts().is_empty());
    assert!(w.runs(parent));
    assert_eq!(w.rax(parent), Ok(pid as u64));
    assert!(w.pm.table.process(pid).is_none());
}

#[test]
fn a_tracer_that_ends_lays_its_ghosts_and_frees_its_tracees() {
    for options in [0, linux::PTRACE_O_EXITKILL] {
        let (mut w, program, parent, (child, pid)) = family();
        let (other, other_pid) = w.fork(parent);
        let (tracer, _) = w.fork(program);
        for pid in [pid, other_pid] {
            let seized = ptrace(&mut w, tracer, linux::PTRACE_SEIZE, pid, options as u64);
            assert_eq!(seized, Ok(0));
        }
        assert_eq!(
            ptrace(&mut w, tracer, linux::PTRACE_INTERRUPT, pid, 0),
            Ok(0)
        );
        assert!(!w.runs(child));
        w.call(other, nr::__NR_exit_group, &[0]);
        assert_eq!(wait(&mut w, parent, other_pid), Ok(0), "told too early");
        w.call(tracer, nr::__NR_exit_group, &[0]);
        assert_eq!(wait(&mut w, parent, other_pid), Ok(other_pid as u64));
        assert!(w.pm.table.ghosts().is_empty());
        assert_eq!(w.lives(child), options == 0);
        if options == 0 {
            assert!(w.runs(child));
        }
    }
}

#[test]
fn a_signal_is_the_tracer_s_to_pass_on() {
    let (mut w, program, _, (child, pid)) = family();
    assert_eq!(ptrace(&mut w, program, linux::PTRACE_ATTACH, pid, 0), Ok(0));
    assert!(!w.runs(child));
    assert_eq!(wait(&mut w, program, pid), Ok(pid as u64));
    assert_eq!(w.peek(program, DATA) as u32, (SIGSTOP as u32) << 8 | 0x7f);
    assert_eq!(wait(&mut w, program, pid), Ok(0), "reported twice");
    assert_eq!(
        ptrace(&mut w, program, linux::PTRACE_CONT, pid, 65),
        Err(Errno::EIO)
    );
    assert_eq!(ptrace(&mut w, program, linux::PTRACE_CONT, pid, 0), Ok(0));
    assert!(w.runs(child));
    let again = ptrace(&mut w, program, linux::PTRACE_CONT, pid, 0);
    assert_eq!(again, Err(Errno::ESRCH));
    // What is ignored is seen, too; SIGKILL is not.
    w.now(program, nr::__NR_kill, &[pid as u64, 28])
        .expect("kill");
    assert_eq!(wait(&mut w, program, pid), Ok(pid as u64));
    assert_eq!(ptrace(&mut w, program, linux::PTRACE_DETACH, pid, 0), Ok(0));
    assert!(w.runs(child));
    assert_eq!(wait(&mut w, program, pid), Err(Errno::ECHILD));
}

#[test]
fn only_root_s_tracers_let_a_program_become_another() {
    let (mut w, _, parent, (child, pid)) = family();
    let ask = |w: &mut World, who| w.ask(pm::MaySetId { who }).expect("an answer");
    assert_eq!(ask(&mut w, child), Ok(()));
    // While that exec is under way nobody looks but root.
    for who in [parent, child] {
        let ids = [1000; 3];
        w.now(who, nr::__NR_setresgid, &ids).expect("setresgid");
        w.now(who, nr::__NR_setresuid, &ids).expect("setresuid");
        w.now(who, nr::__NR_prctl, &[4, 1]).expect("dumpable");
    }
    let attach = |w: &mut World| ptrace(w, parent, linux::PTRACE_SEIZE, pid, 0);
    assert_eq!(attach(&mut w), Err(Errno::EPERM));
    w.post(pm::SetIdOver { who: child });
    assert_eq!(attach(&mut w), Ok(0));
    assert_eq!(ask(&mut w, child), Err(Errno::EPERM));
}
