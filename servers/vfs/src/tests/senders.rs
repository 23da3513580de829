//! Who may tell VFS what: a message of anybody else changes nothing, and no message upsets it.

use super::world::*;
use abi::proto::{PROTOCOLS, fs, vfs};
use abi::role::Role;
use abi::senders::Refusal;
use abi::{Class, Endpoint, Message};
use std::format;
use std::string::String;
use std::vec::Vec;

fn sender(role: Role) -> Endpoint {
    match role {
        Role::Program => PROGRAM,
        Role::Vm => Endpoint::VM,
        Role::Rs => Endpoint::RS,
        Role::Pm => Endpoint::PM,
        Role::Vfs => Endpoint::VFS,
        Role::FileSystem => FS,
        Role::Console => DRIVER,
        _ => Endpoint::service(role, 10, 2),
    }
}

/// What others see of VFS, and what it keeps.
fn seen(w: &World) -> String {
    let fake = &w.fake;
    format!(
        "{:?} {:?} {:?} {:?} {:?} {}",
        fake.posts.borrow(),
        fake.vm_calls.borrow().len(),
        w.others.len(),
        w.vfs.figures().unwrap(),
        w.vfs.locks(),
        w.vfs.base.questions.len()
    )
}

#[test]
fn nobody_says_what_is_not_theirs() {
    let mut w = World::new();
    let known = PROTOCOLS.iter().flat_map(|p| p.rules).map(|rule| rule.kind);
    let kinds: Vec<u64> = known
        .chain([0, vfs::BASE, vfs::BASE + 255, u64::MAX])
        .collect();
    for kind in kinds {
        let rule = vfs::RULES.iter().find(|rule| rule.kind == kind);
        for role in Role::ALL {
            let from = sender(role);
            for class in [Class::Call, Class::Post, Class::Send] {
                let called = class == Class::Call;
                let refusal = match rule {
                    Some(rule) if rule.mode.is_call() != called => Refusal::Unknown,
                    Some(rule) if rule.senders.contains(role) => continue,
                    Some(_) => Refusal::NotYours,
                    None => Refusal::Unknown,
                };
                for words in [
                    [0; 7],
                    [u64::from(PROGRAM.0), 0, 0, 0, 0, 0, 0],
                    [u64::MAX; 7],
                ] {
                    let before = seen(&w);
                    let refused = w.deliver(from, class, Message { kind, words });
                    let reply = (from, Message::error(refusal.errno()));
                    let expected: Vec<_> = called.then_some(reply).into_iter().collect();
                    let replies: Vec<_> = w.fake.replies.borrow_mut().drain(..).collect();
                    assert_eq!(replies, expected, "{kind:#x} {role:?} {class:?}");
                    assert_eq!(refused, Some(refusal));
                    assert_eq!(seen(&w), before, "{kind:#x} {role:?} {class:?}");
                }
            }
        }
    }
}

#[test]
fn an_answer_is_taken_from_whom_was_asked_alone() {
    let mut w = World::new();
    w.fs_held = true;
    let path = w.string(0, "/none");
    assert_eq!(
        w.start(PROGRAM, 2, [path, 0, 0, 0, 0, 0]),
        None,
        "open waits for a lookup"
    );
    let txn = w.asked::<fs::Lookup>(FS).0;
    let done = |txn| answer::<fs::Lookup>(txn, Err(abi::Errno::ENOENT));
    let peers = [
        Role::FileSystem,
        Role::Proc,
        Role::Disk,
        Role::Memory,
        Role::Console,
    ];
    for from in peers
        .map(|role| Endpoint::service(role, 11, 0))
        .into_iter()
        .chain([Endpoint::PM])
    {
        w.deliver(from, Class::Post, done(txn));
        assert_eq!(w.reply_of(PROGRAM), None, "{from}");
    }
    w.deliver(FS, Class::Post, done(txn + 1));
    assert_eq!(w.reply_of(PROGRAM), None, "another transaction");
    w.deliver(FS, Class::Post, done(txn));
    assert_eq!(w.reply_of(PROGRAM), Some(Err(abi::Errno::ENOENT)));
}

#[test]
fn whoever_may_say_it_is_heard_and_nothing_upsets_vfs() {
    let mut dice = 0x9e37_79b9_7f4a_7c15_u64;
    let mut roll = move || {
        dice ^= dice >> 12;
        dice ^= dice << 25;
        dice ^= dice >> 27;
        dice.wrapping_mul(0x2545_f491_4f6c_dd1d)
    };
    for _ in 0..30 {
        for rule in vfs::RULES {
            let mut w = World::new();
            for role in Role::ALL {
                let mut words = [0; 7];
                for word in &mut words {
                    let roll = roll();
                    *word = match roll % 8 {
                        0 => 0,
                        1 => u64::from(PROGRAM.0),
                        2 => u64::from(FS.0),
                        3 => (roll >> 8 & 0xff) * abi::PAGE,
                        4 => roll >> 8 & 7,
                        5 => u64::MAX - (roll >> 8 & 7),
                        6 => 1 << (roll >> 8 & 63),
                        _ => roll,
                    };
                }
                let class = match rule.mode.is_call() {
                    true => Class::Call,
                    false => Class::Post,
                };
                let kind = rule.kind;
                let refused = w.deliver(sender(role), class, Message { kind, words });
                let may = rule.senders.contains(role);
                let heard = !matches!(refused, Some(Refusal::NotYours | Refusal::Unknown));
                assert_eq!(heard, may, "{} {role:?}", rule.name);
            }
        }
    }
}
