//! Sleeping and timers.

use super::fake::{DATA, World, nr};
use crate::itimers::next_period;
use crate::signal::set::*;
use crate::sleep::duration;
use crate::timers::{Event, Timers};
use abi::Errno;

const MS: u64 = 1_000_000;

#[test]
fn events_come_in_order_and_cancelled_ones_do_not() {
    let mut timers = Timers::default();
    let late = timers.add(30, Event::SyncOverdue);
    let first = timers.add(10, Event::Interval(2, 0));
    let same = timers.add(10, Event::Interval(2, 1));
    assert_eq!(timers.next(), Some(10));
    assert_eq!(timers.take_due(9), None);
    assert_eq!(timers.take_due(10), Some((first, Event::Interval(2, 0))));
    timers.cancel(same);
    assert_eq!(timers.take_due(29), None);
    assert_eq!(timers.take_due(30).map(|(key, _)| key), Some(late));
    assert!(timers.is_empty());
}

#[test]
fn durations_are_checked_and_saturate() {
    assert_eq!(duration([1, 5]), Ok(1_000_000_005));
    assert_eq!(duration([0, 1_000_000_000]), Err(Errno::EINVAL));
    assert_eq!(duration([u64::MAX, 0]), Err(Errno::EINVAL));
    assert_eq!(duration([i64::MAX as u64, 0]), Ok(u64::MAX));
    assert_eq!(next_period(100, 10, 100), (110, 0));
    assert_eq!(next_period(100, 10, 135), (140, 3));
    assert_eq!(next_period(100, u64::MAX, 135), (u64::MAX, 0));
}

#[test]
fn nanosleep_ends_in_time() {
    let (mut w, init) = World::new();
    w.poke(init, DATA, &[0, 5 * MS]);
    assert_eq!(w.call(init, nr::__NR_nanosleep, &[DATA, 0]), None);
    assert_eq!(w.pm.sys.timer, 5 * MS);
    w.pass(4 * MS);
    assert!(!w.runs(init));
    w.pass(MS);
    assert_eq!(w.rax(init), Ok(0));
    assert_eq!(w.pm.sys.timer, 0);
    w.poke(init, DATA, &[0, u64::MAX]);
    assert_eq!(
        w.now(init, nr::__NR_nanosleep, &[DATA, 0]),
        Err(Errno::EINVAL)
    );
}

#[test]
fn an_interrupted_sleep_tells_the_rest() {
    let (mut w, init) = World::new();
    w.handle_signal(init, SIGALRM, 0x1000_0000);
    w.poke(init, DATA, &[0, 0, 0, 2000]);
    assert_eq!(w.now(init, nr::__NR_setitimer, &[0, DATA, 0]), Ok(0));
    w.poke(init, DATA, &[10, 0, 77, 77]);
    assert_eq!(w.call(init, nr::__NR_nanosleep, &[DATA, DATA + 16]), None);
    w.pass(2 * MS);
    assert!(w.in_handler(init));
    w.sigreturn(init);
    assert_eq!(w.rax(init), Err(Errno::EINTR), "SA_RESTART does not apply");
    assert_eq!(w.peek(init, DATA + 16), 9);
    assert_eq!(w.peek(init, DATA + 24), 998 * MS);
    assert!(w.pm.timers.is_empty());
}

#[test]
fn absolute_sleep_on_the_wall_clock() {
    let (mut w, init) = World::new();
    w.pass(MS);
    let epoch = w.pm.boot.epoch_ns;
    let target = epoch + 3 * MS;
    w.poke(
        init,
        DATA,
        &[target / 1_000_000_000, target % 1_000_000_000],
    );
    let sleep = [nr::CLOCK_REALTIME as u64, nr::TIMER_ABSTIME as u64, DATA, 0];
    assert_eq!(w.call(init, nr::__NR_clock_nanosleep, &sleep), None);
    w.pass(2 * MS);
    assert_eq!(w.rax(init), Ok(0));
    assert_eq!(
        w.now(init, nr::__NR_clock_nanosleep, &sleep),
        Ok(0),
        "it is past"
    );
}

#[test]
fn a_repeating_interval_timer_repeats() {
    let (mut w, init) = World::new();
    w.handle_signal(init, SIGALRM, 0);
    w.poke(init, DATA, &[0, 1000, 0, 3000]);
    w.now(init, nr::__NR_setitimer, &[0, DATA, 0])
        .expect("setitimer");
    w.pass(3 * MS);
    assert!(w.in_handler(init));
    w.sigreturn(init);
    w.pass(MS);
    assert!(w.in_handler(init));
    w.sigreturn(init);
    assert_eq!(w.now(init, nr::__NR_alarm, &[0]), Ok(1));
    w.pass(5 * MS);
    assert!(!w.in_handler(init));
}

#[test]
fn alarm_tells_what_was_left() {
    let (mut w, init) = World::new();
    assert_eq!(w.now(init, nr::__NR_alarm, &[10]), Ok(0));
    w.pass(3_400 * MS);
    assert_eq!(w.now(init, nr::__NR_alarm, &[5]), Ok(7));
    w.poke(init, DATA, &[0, 0, i64::MAX as u64, 0]);
    w.now(init, nr::__NR_setitimer, &[0, DATA, 0])
        .expect("a timer for ever");
    assert!(w.now(init, nr::__NR_alarm, &[5]).is_ok());
    w.pass(5_000 * MS);
    assert!(!w.lives(init), "SIGALRM ends it");
}

#[test]
fn posix_timers_signal_count_overruns_and_go_at_exec() {
    let (mut w, init) = World::new();
    w.handle_signal(init, SIGUSR1, 0);
    // sigevent: value, signal and SIGEV_SIGNAL.
    w.poke(init, DATA, &[0x1234, SIGUSR1 as u64, 0]);
    let create = [nr::CLOCK_MONOTONIC as u64, DATA, DATA + 64];
    assert_eq!(w.now(init, nr::__NR_timer_create, &create), Ok(0));
    let id = w.peek(init, DATA + 64) as u32 as u64;
    w.poke(init, DATA, &[0, MS, 0, MS]);
    assert_eq!(
        w.now(init, nr::__NR_timer_settime, &[id, 0, DATA, 0]),
        Ok(0)
    );
    w.pass(4 * MS + MS / 2);
    assert!(w.in_handler(init));
    let info = w.pm.sys.body(init).registers.rsi;
    assert_eq!(w.peek(init, info + 24), 0x1234);
    assert_eq!(w.now(init, nr::__NR_timer_getoverrun, &[id]), Ok(3));
    w.sigreturn(init);
    w.enter_vfs(init, nr::__NR_execve);
    w.exec_done(init);
    assert!(w.pm.timers.is_empty());
    assert_eq!(
        w.now(init, nr::__NR_timer_delete, &[id]),
        Err(Errno::EINVAL)
    );
}

#[test]
fn clocks_run() {
    let (mut w, init) = World::new();
    w.pass(2_000 * MS);
    w.now(
        init,
        nr::__NR_clock_gettime,
        &[nr::CLOCK_MONOTONIC as u64, DATA],
    )
    .expect("clock");
    assert_eq!(w.peek(init, DATA), 2);
    assert_eq!(w.now(init, nr::__NR_time, &[0]), Ok(1_000_000_002));
    assert_eq!(
        w.now(init, nr::__NR_clock_gettime, &[99, DATA]),
        Err(Errno::EINVAL)
    );
}

#[test]
fn sleep_goes_on_across_a_stop() {
    let (mut w, init) = World::new();
    let (child, pid) = w.fork(init);
    w.poke(child, DATA, &[0, 5 * MS]);
    assert_eq!(w.call(child, nr::__NR_nanosleep, &[DATA, 0]), None);
    w.call(init, nr::__NR_kill, &[pid as u64, SIGSTOP as u64]);
    w.pass(2 * MS);
    w.call(init, nr::__NR_kill, &[pid as u64, SIGCONT as u64]);
    assert!(!w.runs(child), "it sleeps on");
    w.pass(3 * MS);
    assert!(w.runs(child));
    assert_eq!(w.rax(child), Ok(0));
}
