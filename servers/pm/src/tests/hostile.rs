//! Calls with arguments that no sane program passes: PM answers, whatever they are.

use super::fake::{At, DATA, World, nr};
use abi::errno::result_from_word;
use abi::{Class, Endpoint, Message};

/// xorshift64*.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn argument(&mut self) -> u64 {
        let roll = self.roll();
        match roll % 8 {
            0 => 0,
            1 => roll >> 8 & 0x7f,
            2 => DATA + (roll >> 8 & 0xff8),
            3 => u64::MAX - (roll >> 8 & 7),
            4 => 1 << (roll >> 8 & 63),
            5 => i32::MIN as u64,
            6 => 0x8000 - (roll >> 8 & 0xff),
            _ => roll,
        }
    }
}

#[test]
fn no_arguments_upset_pm() {
    let mut calls_made = 0;
    for seed in 1..14 {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        let (mut w, init) = World::new();
        // Nothing but SIGKILL and SIGSTOP can disturb PROGRAM or its children.
        w.poke(init, DATA, &[1, 0, 0, 0]);
        for signal in 1..=64 {
            let ignore = [signal, DATA, 0, 8];
            w.call(init, nr::__NR_rt_sigaction, &ignore);
        }
        for _ in 0..4 {
            w.fork(init);
        }
        for offset in (0..4096).step_by(8) {
            let word = dice.argument();
            w.poke(init, DATA + offset, &[word]);
        }
        for _ in 0..2000 {
            let running: std::vec::Vec<u32> =
                w.pm.sys
                    .bodies
                    .iter()
                    .filter(|(_, body)| !body.stopped && body.at == At::Home)
                    .map(|(&who, _)| who)
                    .collect();
            if w.pm.ending.is_some() {
                break;
            }
            if let Some(&who) = running.get(dice.roll() as usize % running.len().max(1)) {
                let who = Endpoint(who);
                let args: [u64; 6] = core::array::from_fn(|_| dice.argument());
                let calls = abi::routes::PM;
                let number = calls[dice.roll() as usize % calls.len()];
                // What ends the machine or PROGRAM would end the test.
                let ends = number == nr::__NR_reboot
                    || who == init && [nr::__NR_exit, nr::__NR_exit_group].contains(&number)
                    || w.pm.sys.bodies.len() > 20;
                if !ends && let Some(word) = w.call(who, number, &args) {
                    assert_ne!(result_from_word(word).err().map(|e| e.0), Some(512));
                }
                calls_made += 1;
            } else {
                let kill = Message::default();
                w.handle(Endpoint::KERNEL, Class::Kernel, &kill);
            }
            w.deliver_news();
            w.pass(dice.roll() % 3_000_000_000);
        }
        check(&mut w);
    }
    assert!(calls_made > 5_000, "only {calls_made} calls");
}

/// What must hold after anything.
fn check(w: &mut World) {
    let bodies: std::vec::Vec<u32> = w.pm.sys.bodies.keys().copied().collect();
    for who in bodies {
        let slot = w.pm.table.slot_of(Endpoint(who)).expect("a thread of PM's");
        let thread = w.pm.table.thread(slot).expect("a thread");
        let process = w.pm.table.process(thread.pid).expect("its process");
        assert!(process.threads.contains(&slot));
        let body = &w.pm.sys.bodies[&who];
        assert_eq!(
            thread.call.is_some(),
            body.at == At::Server(Endpoint::PM),
            "a thread waits exactly when PM holds its call"
        );
        let halted = thread.halt != crate::table::Halt::Running;
        assert_eq!(
            halted, body.stopped,
            "PM and the kernel agree who is stopped"
        );
    }
}
