//! Who may tell PM what: a message of anybody else changes nothing.

use super::fake::{At, STACK, START, World, nr};
use super::hostile::Dice;
use abi::proto::{PROTOCOLS, pm};
use abi::role::Role;
use abi::senders::Refusal;
use abi::{Class, Endpoint, Errno, Message, Request};

/// A service that is none of the core servers: proc, a file system or a driver.
const OTHER: Endpoint = Endpoint::service(Role::Proc, 10, 0);

/// An exec of `who` that made it root's, as VFS tells it.
fn done(who: Endpoint) -> Message {
    pm::ExecDone {
        who,
        pc: START,
        sp: STACK,
        ids: (0, 0),
        name: *b"program\0\0\0\0\0\0\0\0\0",
        flags: 0,
    }
    .encode()
}

#[test]
fn only_vfs_says_that_an_exec_is_done() {
    for (from, uid) in [
        (OTHER, 1000),
        (Endpoint::RS, 1000),
        (Endpoint::VM, 1000),
        (Endpoint::VFS, 0),
    ] {
        for class in [Class::Post, Class::Send] {
            let (mut w, init) = World::new();
            assert_eq!(w.now(init, nr::__NR_setresuid, &[1000, 1000, 1000]), Ok(0));
            w.enter_vfs(init, nr::__NR_read);
            assert_eq!(w.handle(from, class, &done(init)), None);
            // Whoever it was: the call in VFS ends.
            w.pm.sys.body(init).at = At::Home;
            assert_eq!(
                w.now(init, nr::__NR_geteuid, &[]),
                Ok(uid),
                "{from} {class:?}"
            );
        }
    }
}

#[test]
fn only_vm_says_that_memory_is_used_up_or_was_missed() {
    for from in [OTHER, Endpoint::RS, Endpoint::VFS] {
        let (mut w, init) = World::new();
        let posts = w.pm.sys.posts.len();
        let fault = pm::FaultSignal {
            who: init,
            signal: 11,
            code: 1,
            addr: 0,
            error: 6,
        };
        assert_eq!(w.handle(from, Class::Post, &fault.encode()), None);
        let out = pm::OutOfMemory { who: init };
        assert_eq!(w.handle(from, Class::Post, &out.ask(1)), None);
        assert_eq!(w.pm.sys.posts.len(), posts, "{from}");
        assert!(w.now(init, nr::__NR_getpid, &[]).is_ok(), "{from}");
    }
}

#[test]
fn only_rs_starts_the_first_program() {
    let (mut w, _) = World::new();
    let answer = w.handle(OTHER, Class::Call, &pm::StartInit {}.encode());
    assert_eq!(answer, Some(Message::error(Errno::EPERM)));
}

/// What others see of PM, and what it has changed of programs.
fn seen(w: &World) -> std::string::String {
    let bodies: std::vec::Vec<_> =
        w.pm.sys
            .bodies
            .iter()
            .map(|(who, body)| (*who, body.stopped, body.registers.rip, body.registers.rax))
            .collect();
    let sys = &w.pm.sys;
    std::format!(
        "{bodies:?} {:?} {:?} {} {} {:?} {}",
        sys.calls,
        sys.posts,
        sys.waits,
        sys.timer,
        sys.off,
        w.pm.forks
    )
}

/// Every kind of message there is, and some that are none.
fn kinds() -> impl Iterator<Item = u64> {
    let known = PROTOCOLS.iter().flat_map(|p| p.rules).map(|rule| rule.kind);
    known.chain([0, pm::BASE, pm::BASE + 255, u64::MAX])
}

#[test]
fn nobody_says_what_is_not_theirs() {
    let (mut w, init) = World::new();
    assert_eq!(w.now(init, nr::__NR_setresuid, &[1000, 1000, 1000]), Ok(0));
    for kind in kinds() {
        let rule = pm::RULES.iter().find(|rule| rule.kind == kind);
        for role in Role::ALL {
            let from = Endpoint::service(role, 9, 4);
            for class in [Class::Call, Class::Post, Class::Send] {
                let called = class == Class::Call;
                let refusal = match rule {
                    Some(rule) if rule.mode.is_call() != called => Refusal::Unknown,
                    Some(rule) if rule.senders.contains(role) => continue,
                    Some(_) => Refusal::NotYours,
                    None => Refusal::Unknown,
                };
                for words in [[0; 7], [u64::from(init.0), 0, 0, 0, 0, 0, 0], [u64::MAX; 7]] {
                    let (before, refused) = (seen(&w), w.refused);
                    let answer = w.handle(from, class, &Message { kind, words });
                    let expected = called.then(|| Message::error(refusal.errno()));
                    assert_eq!(answer, expected, "{kind:#x} {role:?} {class:?}");
                    assert_eq!(w.refused, refused + 1);
                    assert_eq!(seen(&w), before, "{kind:#x} {role:?} {class:?}");
                }
            }
        }
    }
    assert_eq!(w.now(init, nr::__NR_geteuid, &[]), Ok(1000));
}

#[test]
fn whoever_may_say_it_is_heard_and_nothing_upsets_pm() {
    let mut heard = 0;
    for seed in 1..30 {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        for rule in pm::RULES {
            let (mut w, init) = World::new();
            w.fork(init);
            for role in Role::ALL {
                let from = Endpoint::service(role, 9, 4);
                let mut words: [u64; 7] = core::array::from_fn(|_| dice.argument());
                for word in &mut words {
                    if dice.roll().is_multiple_of(4) {
                        *word = u64::from(init.0);
                    }
                }
                let class = match rule.mode.is_call() {
                    true => Class::Call,
                    false => Class::Post,
                };
                let kind = rule.kind;
                let handled = w.pm.handle(from, class, &Message { kind, words });
                let may = rule.senders.contains(role);
                assert_eq!(
                    !matches!(handled.refused, Some(Refusal::NotYours | Refusal::Unknown)),
                    may,
                    "{} {role:?}",
                    rule.name
                );
                heard += u64::from(may);
            }
        }
    }
    assert!(heard > 500);
}
