use super::{Lists, Wire};
use crate::server::Server;
use crate::termios::Settings;
use abi::boot::{RunHeader, run_flags};
use abi::grant::GrantTo;
use abi::hostlink::{Channel, header};
use abi::message::request::{Ask, Post};
use abi::proto::device::numbers::*;
use abi::proto::device::{Cancel, Ioctl, Poll, Read, Write};
use abi::proto::terminal::ExitStatus;
use abi::{Class, Endpoint, Errno, Message, Request};
use linux_raw_sys::{general as linux, ioctl};
use std::vec;
use std::vec::Vec;

struct Bench {
    server: Server,
    world: Lists,
    wire: Wire,
}

const WHO: Endpoint = Endpoint(77);
/// The session and group that PROGRAM starts in.
const JOB: (u32, u32) = (2, 2);

impl Bench {
    fn new(flags: u32) -> Bench {
        let run = RunHeader {
            flags,
            window: 24 | 80 << 16,
            ..RunHeader::default()
        };
        Bench {
            server: Server::new(&run, 64 << 20),
            world: Lists::default(),
            wire: Wire::open(),
        }
    }
    fn tty() -> Bench {
        Bench::new(run_flags::STDIN_TTY | run_flags::STDOUT_TTY | run_flags::STDERR_TTY)
    }
    fn run(&mut self) {
        self.server.run(&mut self.world, &mut self.wire);
    }
    fn post<R: Request<How = Post>>(&mut self, request: R) {
        self.give(Endpoint::VFS, Class::Post, &request.encode());
        self.run();
    }
    fn ask<R: Request<How = Ask>>(&mut self, txn: u64, request: R) {
        self.give(Endpoint::VFS, Class::Post, &request.ask(txn));
        self.run();
    }
    fn give(&mut self, source: Endpoint, class: Class, message: &Message) {
        let handled = self.server.serve(&mut self.world, source, class, message);
        self.world.sent(source, class, handled);
    }
    fn host(&mut self, channel: Channel, payload: &[u8]) {
        let mut bytes = header(channel, payload.len()).to_vec();
        bytes.extend_from_slice(payload);
        self.server.receive(&mut self.world, &bytes);
        self.run();
    }
    /// A read of `len` bytes into grant `txn`.
    fn read(&mut self, minor: u32, txn: u64, len: u64, nonblock: bool) {
        self.world.grants.insert(txn as i32, Vec::new());
        self.ask(
            txn,
            Read {
                minor,
                grant: GrantTo::new(txn as i32),
                len,
                nonblock,
                who: WHO,
                job: JOB,
            },
        );
    }
    fn write(&mut self, minor: u32, txn: u64, data: &[u8], nonblock: bool) {
        self.world.grants.insert(txn as i32, data.to_vec());
        let len = data.len() as u64;
        self.ask(
            txn,
            Write {
                minor,
                grant: GrantTo::new(txn as i32),
                len,
                nonblock,
                who: WHO,
                job: JOB,
            },
        );
    }
    fn ioctl(&mut self, request: u32, argument: &[u8], value: u64) -> Result<u64, Errno> {
        self.world.grants.insert(9, argument.to_vec());
        let grant = GrantTo::new(if argument.is_empty() { -1 } else { 9 });
        let request = request.into();
        self.ask(
            999,
            Ioctl {
                minor: CONSOLE_MINOR,
                request,
                grant,
                value,
                pid: 2,
                job: JOB,
            },
        );
        let (txn, result) = self.world.done.pop().unwrap();
        assert_eq!(txn, 999);
        result
    }
    fn set(&mut self, change: impl FnOnce(&mut Settings)) {
        let mut settings = Settings::default();
        change(&mut settings);
        let bytes = settings.to_bytes();
        assert_eq!(self.ioctl(ioctl::TCSETS, &bytes[..36], 0), Ok(0));
    }
    fn expire(&mut self, now: u64) {
        (self.world.now, self.world.timer) = (now, 0);
        self.server.tick();
        self.run();
    }
    fn raw(&mut self, min: u8, time: u8) {
        self.set(|s| {
            s.local &= !(linux::ICANON | linux::ECHO);
            s.chars[linux::VMIN as usize] = min;
            s.chars[linux::VTIME as usize] = time;
        });
    }
    fn got(&self, txn: u64) -> &[u8] {
        &self.world.grants[&(txn as i32)]
    }
}

#[test]
fn a_read_waits_for_a_line_and_typing_is_echoed() {
    let mut b = Bench::tty();
    b.read(CONSOLE_MINOR, 1, 100, false);
    b.host(Channel::Stdin, b"hel");
    assert!(b.world.done.is_empty());
    b.host(Channel::Stdin, b"lo\r");
    assert_eq!(b.world.done, [(1, Ok(6))]);
    assert_eq!(b.got(1), b"hello\n");
    assert_eq!(b.wire.sent(Channel::Stdout), b"hello\r\n");
}

#[test]
fn the_host_ends_the_run() {
    let mut b = Bench::tty();
    b.host(Channel::End, b"");
    assert_eq!(b.world.ends, 1);
    b.host(Channel::End, b"x");
    assert_eq!(b.world.ends, 1);
}

#[test]
fn a_fault_consumes_nothing() {
    let mut b = Bench::tty();
    b.host(Channel::Stdin, b"data\n");
    b.ask(
        1,
        Read {
            minor: CONSOLE_MINOR,
            grant: GrantTo::new(55),
            len: 10,
            nonblock: false,
            who: WHO,
            job: JOB,
        },
    );
    assert_eq!(b.world.done, [(1, Err(Errno::EFAULT))]);
    b.read(CONSOLE_MINOR, 2, 10, false);
    assert_eq!(b.got(2), b"data\n");
    let mut b = Bench::new(0);
    b.host(Channel::Stdin, b"data");
    b.ask(
        1,
        Read {
            minor: STDIN_MINOR,
            grant: GrantTo::new(55),
            len: 2,
            nonblock: false,
            who: WHO,
            job: JOB,
        },
    );
    b.read(STDIN_MINOR, 2, 10, false);
    assert_eq!(b.world.done, [(1, Err(Errno::EFAULT)), (2, Ok(4))]);
    b.ask(
        3,
        Write {
            minor: STDOUT_MINOR,
            grant: GrantTo::new(55),
            len: 2,
            nonblock: false,
            who: WHO,
            job: JOB,
        },
    );
    assert_eq!(b.world.done[2], (3, Err(Errno::EFAULT)));
    assert_eq!(b.wire.sent(Channel::Stdout), b"");
}

#[test]
fn signals_reach_the_foreground_group() {
    let mut b = Bench::tty();
    b.host(Channel::Stdin, b"\x03");
    assert_eq!(
        b.ioctl(ioctl::TIOCSPGRP, &(-7i32).to_le_bytes(), 0),
        Err(Errno::EINVAL)
    );
    assert_eq!(b.ioctl(ioctl::TIOCSPGRP, &7i32.to_le_bytes(), 0), Ok(0));
    b.host(Channel::Stdin, b"\x1c");
    assert_eq!(b.world.raised, [(2, 2), (7, 3)]);
    assert_eq!(b.ioctl(ioctl::TIOCGPGRP, &[0; 4], 0), Ok(0));
    assert_eq!(b.got(9), 7i32.to_le_bytes());
    assert_eq!(b.wire.sent(Channel::Stdout), b"^C^\\");
}

#[test]
fn window_changes_are_signalled_once() {
    let mut b = Bench::tty();
    assert_eq!(b.ioctl(ioctl::TIOCGWINSZ, &[0; 8], 0), Ok(0));
    assert_eq!(b.got(9), [24, 0, 80, 0, 0, 0, 0, 0]);
    b.host(Channel::WindowSize, &[30, 0, 100, 0]);
    b.host(Channel::WindowSize, &[30, 0, 100, 0]);
    assert_eq!(b.world.raised, [(2, linux::SIGWINCH as i32)]);
}

#[test]
fn vmin_and_vtime() {
    let tenth = 100_000_000;
    // Enough bytes.
    let mut b = Bench::tty();
    b.raw(3, 0);
    b.read(CONSOLE_MINOR, 1, 10, false);
    b.host(Channel::Stdin, b"ab");
    assert!(b.world.done.is_empty());
    b.host(Channel::Stdin, b"cd");
    assert_eq!(b.world.done, [(1, Ok(4))]);
    // The gap between bytes.
    let mut b = Bench::tty();
    b.raw(3, 2);
    b.read(CONSOLE_MINOR, 1, 10, false);
    assert_eq!(b.world.timer, 0);
    b.world.now = 1000;
    b.host(Channel::Stdin, b"a");
    assert_eq!(b.world.timer, 1000 + 2 * tenth);
    b.expire(1000 + 2 * tenth);
    assert_eq!(b.world.done, [(1, Ok(1))]);
    // Time alone.
    let mut b = Bench::tty();
    b.raw(0, 1);
    b.read(CONSOLE_MINOR, 1, 10, false);
    assert_eq!(b.world.timer, tenth);
    b.expire(tenth);
    assert_eq!(b.world.done, [(1, Ok(0))]);
    assert_eq!(b.world.timer, 0);
    // Neither: a poll. And O_NONBLOCK with VMIN.
    let mut b = Bench::tty();
    b.raw(0, 0);
    b.read(CONSOLE_MINOR, 1, 10, false);
    b.raw(1, 0);
    b.read(CONSOLE_MINOR, 2, 10, true);
    assert_eq!(b.world.done, [(1, Ok(0)), (2, Err(Errno::EAGAIN))]);
}

#[test]
fn a_full_ring_makes_writers_wait_in_order() {
    let mut b = Bench::new(0);
    b.wire.room = 2;
    b.wire.drained = false;
    let big = vec![b'1'; 3 * 4092];
    b.write(STDOUT_MINOR, 1, &big, false);
    b.write(STDERR_MINOR, 2, b"two", false);
    b.write(STDOUT_MINOR, 3, b"no", true);
    assert_eq!(b.world.done, [(3, Err(Errno::EAGAIN))]);
    b.ask(
        4,
        Poll {
            minor: STDOUT_MINOR,
            events: linux::POLLOUT,
        },
    );
    assert_eq!(b.world.done[1], (4, Ok(0)));
    b.give(
        Endpoint::PM,
        Class::Call,
        &ExitStatus { status: 0x300 }.encode(),
    );
    b.run();
    b.wire.room = 100;
    b.run();
    assert_eq!(b.world.done[2..], [(1, Ok(big.len() as u64)), (2, Ok(3))]);
    assert_eq!(
        b.world.ready,
        [(STREAM_MAJOR, STDOUT_MINOR, linux::POLLOUT)]
    );
    assert_eq!(
        b.wire.packets.last().unwrap(),
        &(Channel::Exit, vec![0, 3, 0, 0])
    );
    assert!(
        b.world.replies.is_empty(),
        "the device still has the packet"
    );
    b.wire.drained = true;
    b.run();
    assert_eq!(b.world.replies, [(Endpoint::PM, Ok(()))]);
}

#[test]
fn a_long_write_counts_what_it_wrote_before_a_fault() {
    let mut b = Bench::new(0);
    b.world.grants.insert(1, vec![b'x'; 70_000]);
    b.ask(
        1,
        Write {
            minor: STDOUT_MINOR,
            grant: GrantTo::new(1),
            len: 100_000,
            nonblock: false,
            who: WHO,
            job: JOB,
        },
    );
    assert_eq!(b.world.done, [(1, Ok(65_536))]);
    b.world.grants.insert(2, vec![b'x'; 200_000]);
    b.ask(
        2,
        Write {
            minor: STDOUT_MINOR,
            grant: GrantTo::new(2),
            len: 200_000,
            nonblock: false,
            who: WHO,
            job: JOB,
        },
    );
    assert_eq!(b.world.done[1], (2, Ok(200_000)));
    assert_eq!(b.wire.sent(Channel::Stdout).len(), 265_536);
}

#[test]
fn stop_holds_terminal_writes_but_not_the_streams_nor_the_end() {
    let mut b = Bench::new(run_flags::STDIN_TTY | run_flags::STDOUT_TTY);
    b.host(Channel::Stdin, b"\x13");
    b.write(CONSOLE_MINOR, 1, b"held", false);
    b.write(STDERR_MINOR, 2, b"free", false);
    assert_eq!(b.world.done, [(2, Ok(4))]);
    b.post(Cancel { target: 1 });
    assert_eq!(b.world.done[1], (1, Err(Errno::EINTR)));
    b.write(CONSOLE_MINOR, 3, b"last", false);
    b.give(
        Endpoint::PM,
        Class::Call,
        &ExitStatus { status: 0 }.encode(),
    );
    b.run();
    assert_eq!(b.world.replies.len(), 1);
    assert_eq!(b.wire.sent(Channel::Stdout), b"last");
}

#[test]
fn a_stream_ends_and_is_no_terminal() {
    let mut b = Bench::new(0);
    b.read(STDIN_MINOR, 1, 100, false);
    b.ask(
        2,
        Poll {
            minor: STDIN_MINOR,
            events: linux::POLLIN,
        },
    );
    b.host(Channel::Stdin, b"abc");
    b.read(STDIN_MINOR, 3, 100, true);
    b.host(Channel::Stdin, b"");
    b.read(STDIN_MINOR, 4, 100, false);
    b.read(STDIN_MINOR, 5, 100, false);
    let done = [
        (2, Ok(0)),
        (1, Ok(3)),
        (3, Err(Errno::EAGAIN)),
        (4, Ok(0)),
        (5, Ok(0)),
    ];
    assert_eq!(b.world.done, done);
    assert_eq!(b.world.ready, [(STREAM_MAJOR, STDIN_MINOR, linux::POLLIN)]);
    let request = ioctl::TCGETS.into();
    let minor = STDOUT_MINOR;
    b.ask(
        6,
        Ioctl {
            minor,
            request,
            grant: GrantTo::new(1),
            value: 0,
            pid: 2,
            job: JOB,
        },
    );
    assert_eq!(b.world.done[5], (6, Err(Errno::ENOTTY)));
    // A terminal that is not there reads as ended.
    b.read(CONSOLE_MINOR, 7, 100, false);
    assert_eq!(b.world.done[6], (7, Ok(0)));
}

#[test]
fn credit_is_what_was_consumed() {
    let credit = |b: &Bench| -> Vec<u32> {
        let words = b.wire.sent(Channel::StdinCredit);
        words
            .chunks(4)
            .map(|w| u32::from_le_bytes(w.try_into().unwrap()))
            .collect()
    };
    let mut b = Bench::new(0);
    b.host(Channel::Stdin, &[b'x'; 4096]);
    assert_eq!(credit(&b), []);
    b.read(STDIN_MINOR, 1, 100, false);
    assert_eq!(credit(&b), []);
    b.read(STDIN_MINOR, 2, 1000, false);
    b.read(STDIN_MINOR, 3, 10000, false);
    assert_eq!(credit(&b), [1100, 2996]);
    // A terminal takes a screenful ahead, then no more.
    let mut b = Bench::tty();
    b.raw(1, 0);
    b.host(Channel::Stdin, &[b'x'; 4000]);
    b.host(Channel::Stdin, &[b'x'; 96]);
    assert_eq!(credit(&b), [4000]);
    b.read(CONSOLE_MINOR, 1, 10, false);
    b.read(CONSOLE_MINOR, 2, 9000, false);
    assert_eq!(credit(&b), [4000, 96]);
}

#[test]
fn waiting_reads_are_cancelled_and_settings_wait_for_output() {
    let mut b = Bench::tty();
    b.read(CONSOLE_MINOR, 1, 10, false);
    b.post(Cancel { target: 1 });
    b.post(Cancel { target: 1 });
    assert_eq!(b.world.done, [(1, Err(Errno::EINTR))]);
    b.wire.room = 0;
    b.write(CONSOLE_MINOR, 2, b"x\n", false);
    b.world.grants.insert(9, vec![0; 36]);
    let request = ioctl::TCSETSW.into();
    b.ask(
        3,
        Ioctl {
            minor: CONSOLE_MINOR,
            request,
            grant: GrantTo::new(9),
            value: 0,
            pid: 2,
            job: JOB,
        },
    );
    assert_eq!(b.world.done.len(), 1);
    b.wire.room = 9;
    b.run();
    assert_eq!(b.world.done[1..], [(2, Ok(2)), (3, Ok(0))]);
    assert_eq!(b.wire.sent(Channel::Stdout), b"x\r\n");
    b.write(CONSOLE_MINOR, 4, b"\n", false);
    assert_eq!(b.wire.sent(Channel::Stdout), b"x\r\n\n");
}

#[test]
fn what_no_host_sends_ends_the_input() {
    let mut b = Bench::tty();
    b.read(CONSOLE_MINOR, 1, 10, false);
    b.server.receive(&mut b.world, &[9, 9, 9, 9, 1, 2, 3]);
    b.run();
    assert_eq!(b.world.done, [(1, Ok(0))]);
}

#[test]
fn packets_may_be_cut_anywhere() {
    let mut b = Bench::new(0);
    let mut bytes = header(Channel::Stdin, 4).to_vec();
    bytes.extend_from_slice(b"data");
    bytes.extend_from_slice(&header(Channel::Stdin, 0));
    for byte in bytes {
        b.server.receive(&mut b.world, &[byte]);
    }
    b.read(STDIN_MINOR, 1, 10, false);
    b.read(STDIN_MINOR, 2, 10, false);
    assert_eq!(b.world.done, [(1, Ok(4)), (2, Ok(0))]);
}
