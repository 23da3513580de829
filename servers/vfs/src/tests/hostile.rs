//! Calls with arguments and memory that no sane program passes, and file systems that answer what
//! they like: VFS answers or waits, whatever they are, and asks for no more memory than a call is worth.

use super::largest::allocation_of;
use super::world::*;
use crate::context::Ids;
use abi::errno::result_to_word;
use abi::fs::{Attributes, Statistics};
use abi::message::{ANSWER, transaction};
use abi::proto::{fs, vfs};
use abi::trace::random;
use abi::{Class, Endpoint, Errno, Message, Request};
use linux_raw_sys::{general as linux, net};

/// Chance, the same every time.
pub struct Dice(u64, u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed, 0)
    }

    pub fn roll(&mut self) -> u64 {
        self.1 += 1;
        random(self.0, self.1)
    }

    /// Descriptors, addresses, lengths, flags, and what is none of them.
    fn argument(&mut self) -> u64 {
        let roll = self.roll();
        let rest = roll >> 8;
        match roll % 12 {
            0 => 0,
            1..=3 => rest % 24,
            4 => DATA + rest % 0x10000,
            5 => DATA + ((rest % 0x1000) & !7),
            6 => PATHS + ((rest % 4) << 12),
            7 => 1 << (rest & 63),
            8 => u64::MAX - (rest & 0xff),
            9 => rest & 0xfff,
            10 => linux::AT_FDCWD as u64,
            _ => roll,
        }
    }
}

/// A file system that answers what chance says.
impl Dice {
    pub fn answer(&mut self, fake: &Fake, me: Endpoint, message: &Message) -> Option<Message> {
        let txn = transaction(message);
        let mut junk = [0; 256];
        junk.fill_with(|| self.roll() as u8);
        // What it writes where it may: structures of VFS's and memory of programs.
        let _ = match message.kind {
            fs::GetAttr::KIND => {
                let r = fs::GetAttr::decode(message)?;
                fake.copy_to_grant(me, r.grant, 0, &junk[..size_of::<Attributes>()])
            }
            fs::Statfs::KIND => {
                let r = fs::Statfs::decode(message)?;
                fake.copy_to_grant(me, r.grant, 0, &junk[..size_of::<Statistics>()])
            }
            fs::Readlink::KIND => {
                let r = fs::Readlink::decode(message)?;
                fake.copy_to_grant(me, r.grant, 0, &junk[..(r.len as usize).min(junk.len())])
            }
            fs::Read::KIND => {
                let r = fs::Read::decode(message)?;
                fake.copy_to_grant(me, r.grant, 0, &junk[..(r.len as usize).min(junk.len())])
            }
            _ => Ok(()),
        };
        let status = match self.roll() % 8 {
            0 => Err(Errno(self.roll() as i32 & 0xff)),
            _ => Ok(0),
        };
        let mut word = || {
            let roll = self.roll();
            match roll % 6 {
                0 => 0,
                // A small number; the kind of an inode, with a mode and a link.
                1 => roll >> 8 & 0xff,
                2 => 1 << 32 | 0o644 | (roll >> 8 & 0xf) << 12,
                _ => roll >> (roll >> 8 & 63),
            }
        };
        // Whatever it was asked.
        let mut answer = Message::new(message.kind | ANSWER);
        answer.words = [
            txn,
            result_to_word(status),
            word(),
            word(),
            word(),
            word(),
            word(),
        ];
        (txn != 0).then_some(answer)
    }
}

/// What one request may have at once: the most that a read or a write is cut to, and something.
const WORTH: usize = 4 << 20;

/// A process with a descriptor of each kind.
fn arm(w: &mut World, who: Endpoint, pid: u32, dice: &mut Dice) {
    let ids = Ids::default();
    w.add_process(who, pid, ids);
    for n in 0..0x10000 / 8 {
        let word = dice.argument();
        w.fake.poke(who, DATA + n * 8, &word.to_le_bytes());
    }
    for (n, text) in ["/f", "/d", "/d/../new", "relative"]
        .into_iter()
        .enumerate()
    {
        w.fake.poke(who, PATHS + n as u64 * 0x1000, text.as_bytes());
    }
    let flags = u64::from(linux::O_RDWR | linux::O_CREAT);
    let name = [PATHS, PATHS + 0x1000, PATHS + 0x3000];
    let _ = w.start(who, linux::__NR_mkdir, [name[1], 0o755, 0, 0, 0, 0]);
    let _ = w.start(who, linux::__NR_open, [name[0], flags, 0o644, 0, 0, 0]);
    let _ = w.start(who, linux::__NR_open, [name[1], 0, 0, 0, 0, 0]);
    let space = DATA + 0xff00;
    let _ = w.start(who, linux::__NR_pipe2, [space, 0, 0, 0, 0, 0]);
    for kind in [u64::from(net::SOCK_STREAM), u64::from(net::SOCK_DGRAM)] {
        let unix = net::AF_UNIX.into();
        let _ = w.start(who, linux::__NR_socketpair, [unix, kind, 0, space, 0, 0]);
        let inet = net::AF_INET.into();
        let _ = w.start(who, linux::__NR_socket, [inet, kind, 0, 0, 0, 0]);
    }
    let _ = w.start(who, linux::__NR_epoll_create1, [0; 6]);
    let _ = w.start(who, linux::__NR_eventfd2, [3, 0, 0, 0, 0, 0]);
    let _ = w.start(who, linux::__NR_timerfd_create, [1, 0, 0, 0, 0, 0]);
    let _ = w.start(who, linux::__NR_memfd_create, [name[2], 0, 0, 0, 0, 0]);
    w.reply_of(who);
}

/// Makes `calls` calls of chance's choice; how many ended.
fn make_calls(w: &mut World, dice: &mut Dice, calls: usize) -> usize {
    let (mut who, mut pid, mut ended) = (PROGRAM, 1, 0);
    for n in 0..calls {
        let number = loop {
            let number = (dice.roll() % 463) as u32;
            // What execs read is libexec's and its tests'; an exec ends without a reply.
            if number != linux::__NR_execve && number != linux::__NR_execveat {
                break number;
            }
        };
        let args: [u64; 6] = core::array::from_fn(|_| dice.argument());
        let mut result = None;
        let took = allocation_of(|| result = w.start(who, number, args));
        assert!(
            took <= WORTH,
            "call {n}: {number} {args:x?} allocates {took}"
        );
        if result.is_none() {
            let interrupt = vfs::Interrupt { who };
            w.deliver(Endpoint::PM, Class::Post, interrupt.encode());
            result = w.reply_of(who);
        }
        ended += usize::from(result.is_some());
        if result.is_none() || n % 97 == 96 {
            let exit = vfs::Exit { who };
            w.deliver(Endpoint::PM, Class::Call, exit.encode());
            w.fake.replies.borrow_mut().clear();
            pid += 1;
            who = Endpoint::new(20 + pid as usize % 8, pid);
            arm(w, who, pid, dice);
        }
        w.others.clear();
    }
    ended
}

#[test]
fn no_arguments_upset_vfs() {
    for seed in 1..=12 {
        let mut dice = Dice::new(seed);
        let mut w = World::new();
        let first = Endpoint::new(30, 1);
        arm(&mut w, first, 99, &mut dice);
        let ended = make_calls(&mut w, &mut dice, 1500);
        assert!(ended > 1000, "seed {seed}: only {ended} calls ended");
    }
}

#[test]
fn no_answers_of_a_file_system_upset_vfs() {
    for seed in 100..112 {
        let mut dice = Dice::new(seed);
        let mut w = World::new();
        let first = Endpoint::new(30, 1);
        arm(&mut w, first, 99, &mut dice);
        w.lies = Some(Dice::new(seed + 1000));
        let ended = make_calls(&mut w, &mut dice, 1500);
        assert!(ended > 1000, "seed {seed}: only {ended} calls ended");
    }
}
