use super::{Lists, Wire};
use crate::server::Server;
use abi::boot::RunHeader;
use abi::grant::GrantTo;
use abi::message::reply_result;
use abi::message::request::{Ask, Post};
use abi::proto::device::numbers::*;
use abi::proto::device::{Cancel, Close, Ioctl, Open, Poll, Read, Write};
use abi::proto::terminal::{SessionEnded, Terminal, TerminalOf};
use abi::role::Role;
use abi::{Class, Endpoint, Errno, Message, Request};
use linux_raw_sys::{general as linux, ioctl};
use rt::fsserver::{Dirents, FileSystem};
use std::vec::Vec;

const WHO: Endpoint = Endpoint(77);
const MASTER: u32 = PTY_MASTER;
const SLAVE: u32 = PTY_SLAVE;
/// A leader of a session, and a member of another group.
const LEADER: (u32, u32) = (50, 50);
const BACKGROUND: (u32, u32) = (50, 60);

struct Bench {
    server: Server,
    world: Lists,
    wire: Wire,
}

impl Bench {
    fn new() -> Bench {
        Bench {
            server: Server::new(&RunHeader::default(), 64 << 20),
            world: Lists::default(),
            wire: Wire::open(),
        }
    }

    /// With a master and an unlocked slave that controls [`LEADER`]'s session.
    fn pair() -> Bench {
        let mut b = Bench::new();
        assert_eq!(b.open(TTY_MAJOR, PTMX_MINOR, 0), Ok(MASTER.into()));
        assert_eq!(b.ioctl(MASTER, ioctl::TIOCSPTLCK, &[0; 4], LEADER), Ok(0));
        assert_eq!(b.open(PTS_MAJOR, 0, 0), Ok(SLAVE.into()));
        b
    }

    fn post<R: Request<How = Post>>(&mut self, from: Endpoint, request: R) {
        self.give(from, Class::Post, &request.encode());
    }

    fn ask<R: Request<How = Ask>>(&mut self, txn: u64, request: R) {
        self.give(Endpoint::VFS, Class::Post, &request.ask(txn));
    }

    fn give(&mut self, source: Endpoint, class: Class, message: &Message) {
        let handled = self.server.serve(&mut self.world, source, class, message);
        self.world.sent(source, class, handled);
        self.server.run(&mut self.world, &mut self.wire);
    }

    fn last(&mut self) -> Result<u64, Errno> {
        let (txn, result) = self.world.done.pop().unwrap();
        assert_eq!(txn, 999);
        result
    }

    fn open(&mut self, major: u32, minor: u32, flags: u32) -> Result<u64, Errno> {
        self.ask(
            999,
            Open {
                major,
                minor,
                flags,
                pid: LEADER.0,
                ids: (7, 8),
                job: LEADER,
            },
        );
        self.last()
    }

    fn ioctl(
        &mut self,
        minor: u32,
        request: u32,
        argument: &[u8],
        job: (u32, u32),
    ) -> Result<u64, Errno> {
        self.world.grants.insert(9, argument.to_vec());
        self.ask(
            999,
            Ioctl {
                minor,
                request: request.into(),
                grant: GrantTo::new(9),
                value: 0,
                pid: job.1,
                job,
            },
        );
        self.last()
    }

    fn read(&mut self, minor: u32, txn: u64, len: u64, job: (u32, u32)) {
        self.world.grants.insert(txn as i32, Vec::new());
        self.ask(
            txn,
            Read {
                minor,
                grant: GrantTo::new(txn as i32),
                len,
                nonblock: false,
                who: WHO,
                job,
            },
        );
    }

    fn write(&mut self, minor: u32, txn: u64, data: &[u8], nonblock: bool) {
        self.world.grants.insert(txn as i32, data.to_vec());
        self.ask(
            txn,
            Write {
                minor,
                grant: GrantTo::new(txn as i32),
                len: data.len() as u64,
                nonblock,
                who: WHO,
                job: LEADER,
            },
        );
    }

    fn got(&self, txn: u64) -> &[u8] {
        &self.world.grants[&(txn as i32)]
    }

    fn terminal(&mut self, session: u32) -> Option<(u64, u32)> {
        let (world, request) = (&mut self.world, TerminalOf { session }.encode());
        let proc = Endpoint::service(Role::Proc, 7, 0);
        let handled = self.server.serve(world, proc, Class::Call, &request);
        let message = handled.answer.expect("an answer");
        let terminal = reply_result::<Terminal>(&message).ok()?;
        Some((terminal.device, terminal.group))
    }

    fn names(&mut self) -> usize {
        let mut entries = Dirents::new(4096);
        let mut files = self.server.devpts(&self.world);
        files.getdents(1, 0, &mut entries, WHO).unwrap();
        entries.finish().unwrap().len() / 24
    }
}

#[test]
fn what_the_master_writes_is_typed_and_what_the_slave_writes_is_processed() {
    let mut b = Bench::pair();
    b.read(SLAVE, 1, 100, LEADER);
    b.read(MASTER, 2, 100, LEADER);
    b.write(MASTER, 3, b"lx\x7fine\n", false);
    assert_eq!(b.world.done, [(3, Ok(7)), (1, Ok(5)), (2, Ok(10))]);
    assert_eq!(b.got(1), b"line\n");
    assert_eq!(b.got(2), b"lx\x08 \x08ine\r\n");
    b.world.done.clear();
    b.write(SLAVE, 4, b"out\n", false);
    b.read(MASTER, 5, 100, LEADER);
    assert_eq!(b.world.done, [(4, Ok(4)), (5, Ok(5))]);
    assert_eq!(b.got(5), b"out\r\n");
}

#[test]
fn who_writes_faster_waits_and_a_fault_loses_nothing() {
    let mut b = Bench::pair();
    b.write(SLAVE, 1, &[b'x'; 10_000], false);
    assert_eq!(b.world.done, []);
    b.write(SLAVE, 2, b"more", true);
    assert_eq!(b.world.done, [(2, Err(Errno::EAGAIN))]);
    b.ask(
        3,
        Read {
            minor: MASTER,
            grant: GrantTo::new(55),
            len: 6000,
            nonblock: false,
            who: WHO,
            job: LEADER,
        },
    );
    assert_eq!(b.world.done[1], (3, Err(Errno::EFAULT)));
    b.read(MASTER, 4, 6000, LEADER);
    assert_eq!(b.world.done[2..], [(4, Ok(6000)), (1, Ok(10_000))]);
    b.read(MASTER, 5, 6000, LEADER);
    assert_eq!(b.world.done[4], (5, Ok(4000)));
    b.write(SLAVE, 6, &[b'x'; 10_000], false);
    b.post(Endpoint::VFS, Cancel { target: 6 });
    assert_eq!(b.world.done[5], (6, Ok(8192)));
}

#[test]
fn the_background_is_stopped_and_signals_go_to_the_foreground() {
    let mut b = Bench::pair();
    assert_eq!(b.terminal(50), Some((0x8800, 50)));
    assert_eq!(b.terminal(51), None);
    b.read(SLAVE, 1, 10, BACKGROUND);
    assert_eq!(b.world.done.pop(), Some((1, Err(Errno::EBACKGROUND))));
    let change = b.ioctl(SLAVE, ioctl::TCSBRK, &[], BACKGROUND);
    assert_eq!(change, Err(Errno::EBACKGROUND));
    let group = 60u32.to_le_bytes();
    assert_eq!(b.ioctl(SLAVE, ioctl::TIOCSPGRP, &group, LEADER), Ok(0));
    assert_eq!(b.terminal(50), Some((0x8800, 60)));
    b.write(MASTER, 2, b"\x03", false);
    assert_eq!(b.world.raised, [(60, linux::SIGINT as i32)]);
    let stranger = (70, 70);
    let group = b.ioctl(SLAVE, ioctl::TIOCGPGRP, &[], stranger);
    assert_eq!(group, Err(Errno::ENOTTY));
    assert_eq!(b.ioctl(MASTER, ioctl::TIOCGPGRP, &[], stranger), Ok(0));
    // One session, one terminal, and the other way round.
    let steal = b.ioctl(SLAVE, ioctl::TIOCSCTTY, &[], stranger);
    assert_eq!(steal, Err(Errno::EPERM));
}

#[test]
fn ends_are_seen_at_the_other() {
    let mut b = Bench::new();
    assert_eq!(b.open(PTS_MAJOR, 0, 0), Err(Errno::ENXIO));
    assert_eq!(b.open(TTY_MAJOR, TTY_MINOR, 0), Err(Errno::ENXIO));
    assert_eq!(b.open(TTY_MAJOR, PTMX_MINOR, 0), Ok(MASTER.into()));
    assert_eq!(b.open(PTS_MAJOR, 0, 0), Err(Errno::EIO), "it is locked");
    let mut b = Bench::pair();
    assert_eq!(b.names(), 4);
    assert_eq!(b.open(TTY_MAJOR, TTY_MINOR, 0), Ok(SLAVE.into()));
    b.ask(
        1,
        Poll {
            minor: MASTER,
            events: linux::POLLIN | linux::POLLHUP,
        },
    );
    b.read(MASTER, 2, 10, LEADER);
    b.post(Endpoint::VFS, Close { minor: SLAVE });
    assert_eq!(b.world.done, [(1, Ok(0))]);
    b.post(Endpoint::VFS, Close { minor: SLAVE });
    assert_eq!(b.world.done[1], (2, Err(Errno::EIO)));
    assert_eq!(b.world.ready, [(TTY_MAJOR, MASTER, linux::POLLHUP)]);
    assert_eq!(b.open(PTS_MAJOR, 0, 0), Ok(SLAVE.into()));
    b.read(SLAVE, 3, 10, LEADER);
    b.post(Endpoint::VFS, Close { minor: MASTER });
    assert_eq!(b.world.done[2], (3, Ok(0)));
    assert_eq!(b.world.hung_up, [50]);
    assert_eq!(b.names(), 3);
    b.write(SLAVE, 4, b"x", false);
    assert_eq!(b.world.done[3], (4, Err(Errno::EIO)));
    b.post(Endpoint::VFS, Close { minor: SLAVE });
    assert_eq!(b.open(TTY_MAJOR, PTMX_MINOR, 0), Ok(MASTER.into()));
}

#[test]
fn a_session_lets_go_of_its_terminal() {
    let mut b = Bench::pair();
    b.post(Endpoint::PM, SessionEnded { session: 50 });
    assert_eq!(b.world.raised, [(50, linux::SIGHUP as i32)]);
    assert_eq!(b.terminal(50), None);
    assert_eq!(b.ioctl(SLAVE, ioctl::TIOCSCTTY, &[], LEADER), Ok(0));
    assert_eq!(b.ioctl(SLAVE, ioctl::TIOCNOTTY, &[], BACKGROUND), Ok(0));
    assert!(b.terminal(50).is_some(), "it was not the leader");
    assert_eq!(b.ioctl(SLAVE, ioctl::TIOCNOTTY, &[], LEADER), Ok(0));
    assert_eq!(b.terminal(50), None);
}
