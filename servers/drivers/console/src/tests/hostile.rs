//! Requests, arguments and host packets that nobody sane sends: the driver answers or waits.

use super::largest::allocation_of;
use super::{Lists, Wire};
use crate::server::Server;
use abi::boot::{RunHeader, run_flags};
use abi::hostlink::{Channel, header};
use abi::proto::device::numbers::*;
use abi::proto::{device, terminal};
use abi::role::Role;
use abi::trace::random;
use abi::{Class, Endpoint, Message};
use std::vec::Vec;

/// More than what a terminal keeps of its input or output.
const WORTH: usize = 256 << 10;

#[test]
fn no_request_upsets_the_driver() {
    let minors = [
        CONSOLE_MINOR,
        STDIN_MINOR,
        PTMX_MINOR,
        PTY_MASTER,
        PTY_SLAVE,
    ];
    let mut answers = 0;
    for seed in 1..=20 {
        let mut index = 0;
        let mut roll = || {
            index += 1;
            random(seed, index)
        };
        let run = RunHeader {
            flags: run_flags::STDIN_TTY | run_flags::STDOUT_TTY | run_flags::STDERR_TTY,
            window: roll() as u32,
            ..RunHeader::default()
        };
        let (mut server, mut world) = (Server::new(&run, 64 << 20), Lists::default());
        let mut wire = Wire::open();
        for n in 0..3000 {
            // An argument for an ioctl or a write: a grant with chance in it.
            let bytes: Vec<u8> = (0..roll() % 80).map(|_| roll() as u8).collect();
            world.grants.insert(n % 8, bytes);
            let choice = roll() as usize;
            let rules = [device::RULES, terminal::RULES].concat();
            let rule = rules[choice % rules.len()];
            let mut message = Message::new(rule.kind);
            for word in &mut message.words {
                let chance = roll();
                let rest = chance >> 8;
                *word = match chance % 9 {
                    0 => rest & 1,
                    1 => rest & 7,
                    2 => minors[rest as usize % minors.len()].into(),
                    // Ioctls' numbers, both kinds of terminals' devices.
                    3 => 0x5400 | (rest & 0x7f),
                    4 => u64::from(if rest & 1 == 0 { TTY_MAJOR } else { PTS_MAJOR }),
                    5 => rest & 0xffff_ffff,
                    6 => 50 | 50 << 32,
                    7 => u64::MAX - (rest & 0xff),
                    _ => 1 << (rest & 63),
                };
            }
            wire.room = [0, 1, usize::MAX][roll() as usize % 3];
            let took = allocation_of(|| {
                let class = match rule.mode.is_call() {
                    true => Class::Call,
                    false => Class::Post,
                };
                let allowed = |role: &&Role| rule.senders.contains(**role);
                let role = *Role::ALL.iter().find(allowed).expect("a sender");
                let source = Endpoint::service(role, 7, 0);
                let handled = server.serve(&mut world, source, class, &message);
                world.sent(source, class, handled);
                server.run(&mut world, &mut wire);
            });
            assert!(took < WORTH, "{message:x?} allocates {took}");
            if n % 16 == 0 {
                let typed: Vec<u8> = (0..roll() % 40).map(|_| roll() as u8).collect();
                let mut packet = header(Channel::Stdin, typed.len()).to_vec();
                packet.extend_from_slice(&typed);
                server.receive(&mut world, &packet);
                world.now += roll() % 1_000_000_000;
                server.tick();
            }
            wire.packets.clear();
            answers += world.done.len() + world.replies.len();
            world.done.clear();
            world.replies.clear();
        }
        // The host's own bytes, whatever they are.
        for _ in 0..50 {
            let bytes: Vec<u8> = (0..roll() % 30).map(|_| (roll() % 9) as u8).collect();
            server.receive(&mut world, &bytes);
            server.run(&mut world, &mut wire);
        }
    }
    assert!(answers > 20_000, "{answers} answers");
}
