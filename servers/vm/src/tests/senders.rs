//! Who may tell VM what: a message of anybody else changes nothing, and no message upsets it.

use super::machine::*;
use crate::server::Effect;
use abi::proto::{PROTOCOLS, vm as proto};
use abi::role::Role;
use abi::senders::Refusal;
use abi::{Class, Endpoint, Message, PAGE};
use std::vec::Vec;

/// An endpoint of every role; those that VM knows where there are such.
fn senders() -> impl Iterator<Item = (Role, Endpoint)> {
    Role::ALL.into_iter().map(|role| {
        let who = match role {
            Role::Program => INIT,
            Role::Vm => Endpoint::VM,
            Role::Rs => Endpoint::RS,
            Role::Pm => Endpoint::PM,
            Role::Vfs => Endpoint::VFS,
            Role::FileSystem => FS,
            _ => Endpoint::service(role, 10, 2),
        };
        (role, who)
    })
}

#[test]
fn nobody_says_what_is_not_theirs() {
    let m = &mut Machine::new(8);
    let known = PROTOCOLS.iter().flat_map(|p| p.rules).map(|rule| rule.kind);
    let kinds: Vec<u64> = known
        .chain([0, proto::BASE, proto::BASE + 255, u64::MAX])
        .collect();
    for kind in kinds {
        let rule = proto::RULES.iter().find(|rule| rule.kind == kind);
        for (role, from) in senders() {
            for class in [Class::Call, Class::Post] {
                let called = class == Class::Call;
                let refusal = match rule {
                    Some(rule) if rule.mode.is_call() != called => Refusal::Unknown,
                    Some(rule) if rule.senders.contains(role) => continue,
                    Some(_) => Refusal::NotYours,
                    None => Refusal::Unknown,
                };
                for words in [
                    [0; 7],
                    [u64::from(INIT.0), PAGE, PAGE, 3, 0, 0, 0],
                    [u64::MAX; 7],
                ] {
                    let used = m.in_use();
                    let handled = m.vm().handle(from, class, &Message { kind, words });
                    let mut effects = Vec::new();
                    m.vm().take_effects(&mut effects);
                    let reply = Effect::Reply(from, Message::error(refusal.errno()));
                    let expected: Vec<_> = called.then_some(reply).into_iter().collect();
                    assert_eq!(effects, expected, "{kind:#x} {role:?} {class:?}");
                    assert_eq!(handled.refused, Some(refusal));
                    assert_eq!(m.in_use(), used);
                }
            }
        }
    }
}

#[test]
fn whoever_may_say_it_is_heard_and_nothing_upsets_vm() {
    let mut dice = 0x9e37_79b9_7f4a_7c15_u64;
    let mut roll = move || {
        dice ^= dice >> 12;
        dice ^= dice << 25;
        dice ^= dice >> 27;
        dice.wrapping_mul(0x2545_f491_4f6c_dd1d)
    };
    for _ in 0..20 {
        let m = &mut Machine::new(8);
        for rule in proto::RULES {
            // Who ends or replaces the others ends the round.
            let last = matches!(rule.name, "Exit" | "NewSpace" | "Fork");
            for (role, from) in senders() {
                let mut words = [0; 7];
                for word in &mut words {
                    let roll = roll();
                    *word = match roll % 8 {
                        0 => 0,
                        1 => u64::from(INIT.0),
                        2 => u64::from(FS.0),
                        3 => (roll >> 8 & 0xff) * PAGE,
                        4 => roll >> 8 & 7,
                        5 => u64::MAX - (roll >> 8 & 7),
                        6 => 1 << (roll >> 8 & 63),
                        _ => roll,
                    };
                }
                if last {
                    words[0] = u64::from(Endpoint::new(50, 1).0);
                    words[1] = u64::from(Endpoint::new(51, 1).0);
                }
                let class = match rule.mode.is_call() {
                    true => Class::Call,
                    false => Class::Post,
                };
                let kind = rule.kind;
                let handled = m.vm().handle(from, class, &Message { kind, words });
                let mut effects = Vec::new();
                m.vm().take_effects(&mut effects);
                let may = rule.senders.contains(role);
                assert_eq!(
                    !matches!(handled.refused, Some(Refusal::NotYours | Refusal::Unknown)),
                    may,
                    "{} {role:?}",
                    rule.name
                );
            }
        }
    }
}
