//! Sockets where memory is absent, where processes end, and where files are under way.

use super::world::*;
use abi::proto::vfs;
use abi::{Class, Endpoint, Errno, Request};
use linux_raw_sys::{general as linux, net};
use std::vec::Vec;

/// Where the programs' structures are: vectors, headers, control data, data.
const VECTOR: u64 = DATA + 0x1000;
const HEADER: u64 = DATA + 0x2000;
const CONTROL: u64 = DATA + 0x3000;
const BYTES: u64 = DATA + 0x8000;

/// A pair at 0 and 1, which a child shares.
fn world(kind: u32) -> World {
    let mut w = World::new();
    w.fake.map(PROGRAM, DATA, 0x20000, true, true);
    pair(&mut w, kind);
    let fork = vfs::Fork {
        parent: PROGRAM,
        child: OTHER,
        pid: 2,
        share_files: false,
        share_fs: false,
    };
    w.deliver(Endpoint::PM, Class::Call, fork.encode());
    w.reply_of(Endpoint::PM);
    w.fake.map(OTHER, DATA, 0x20000, true, true);
    w
}

fn pair(w: &mut World, kind: u32) -> [u64; 2] {
    let call = [net::AF_UNIX.into(), kind.into(), 0, DATA];
    w.call(linux::__NR_socketpair, &call).unwrap();
    let fds = w.fake.peek(PROGRAM, DATA, 8);
    [fds[0].into(), fds[4].into()]
}

fn poke_words(w: &mut World, at: u64, words: &[u64]) {
    for (i, word) in words.iter().enumerate() {
        w.fake.poke(PROGRAM, at + 8 * i as u64, &word.to_le_bytes());
    }
}

/// A message of `len` bytes at [`BYTES`] with `control` bytes at [`CONTROL`].
fn header(w: &mut World, len: u64, control: u64) {
    poke_words(w, VECTOR, &[BYTES, len]);
    poke_words(w, HEADER, &[0, 0, VECTOR, 1, CONTROL, control, 0]);
}

/// Sends `fds` with a byte.
fn pass(w: &mut World, from: u64, fds: &[u64]) -> Result<u64, Errno> {
    let len = 16 + 4 * fds.len() as u64;
    header(w, 1, len);
    let kind = u64::from(net::SOL_SOCKET) | u64::from(net::SCM_RIGHTS) << 32;
    poke_words(w, CONTROL, &[len, kind]);
    for (i, fd) in fds.iter().enumerate() {
        let at = CONTROL + 16 + 4 * i as u64;
        w.fake.poke(PROGRAM, at, &(*fd as u32).to_le_bytes());
    }
    w.call(linux::__NR_sendmsg, &[from, HEADER, 0])
}

#[test]
fn an_absent_page_loses_and_doubles_nothing() {
    for kind in [net::SOCK_STREAM, net::SOCK_SEQPACKET, net::SOCK_DGRAM] {
        let mut w = world(kind);
        let data: Vec<u8> = (0..5000u32).map(|i| (i % 251) as u8).collect();
        w.fake.poke(PROGRAM, BYTES, &data);
        w.fake.set_present(PROGRAM, BYTES + 0x1000, false);
        assert_eq!(w.call(linux::__NR_write, &[0, BYTES, 5000]), Ok(5000));
        assert_eq!(w.call(linux::__NR_write, &[0, BYTES, 10]), Ok(10));
        // The receiver's second page is absent: the copy fails half way and starts again.
        w.fake.set_present(OTHER, BYTES + 0x1000, false);
        let read = [1, BYTES, if kind == net::SOCK_STREAM { 5000 } else { 9000 }];
        assert_eq!(w.call_as(OTHER, linux::__NR_read, &read), Ok(5000));
        assert_eq!(w.fake.peek(OTHER, BYTES, 5000), data);
        assert_eq!(w.call_as(OTHER, linux::__NR_read, &read), Ok(10));
        assert_eq!(w.fake.peek(OTHER, BYTES, 10), data[..10]);
    }
}

#[test]
fn memory_that_cannot_be_repaired_leaves_the_data_there() {
    let mut w = world(net::SOCK_STREAM);
    assert_eq!(w.call(linux::__NR_write, &[0, BYTES, 10]), Ok(10));
    let bad = 0x7000_0000_0000;
    let read = |at| [1, at, 10];
    let failed = w.call_as(OTHER, linux::__NR_read, &read(bad));
    assert_eq!(failed, Err(Errno::EFAULT));
    assert_eq!(w.call_as(OTHER, linux::__NR_read, &read(BYTES)), Ok(10));
}

#[test]
fn a_receiver_that_waits_hears_of_the_end() {
    let mut w = world(net::SOCK_STREAM);
    w.call_as(OTHER, linux::__NR_close, &[0]).unwrap();
    assert_eq!(
        w.start(OTHER, linux::__NR_read, [1, BYTES, 10, 0, 0, 0]),
        None
    );
    w.deliver(
        Endpoint::PM,
        Class::Call,
        vfs::Exit { who: PROGRAM }.encode(),
    );
    w.reply_of(Endpoint::PM);
    assert_eq!(w.reply_of(OTHER), Some(Ok(0)), "the peer is gone");
}

#[test]
fn files_under_way_are_closed_with_the_socket() {
    let mut w = world(net::SOCK_STREAM);
    let files = w.vfs.base.counters.files.get();
    w.call(linux::__NR_pipe, &[DATA]).unwrap();
    assert_eq!(pass(&mut w, 0, &[2, 3]), Ok(1));
    for fd in [2, 3] {
        w.call(linux::__NR_close, &[fd]).unwrap();
    }
    assert_eq!(w.vfs.base.counters.files.get(), files + 2);
    for who in [PROGRAM, OTHER] {
        for fd in [0, 1] {
            w.call_as(who, linux::__NR_close, &[fd]).unwrap();
        }
    }
    assert_eq!(w.vfs.base.counters.files.get(), files - 2);
}

/// Sockets that are under way only in each other, or in themselves, are freed.
#[test]
fn sockets_out_of_reach_are_collected() {
    let mut w = world(net::SOCK_DGRAM);
    let files = w.vfs.base.counters.files.get();
    for _ in 0..200 {
        let [a, b] = pair(&mut w, net::SOCK_DGRAM);
        let [c, d] = pair(&mut w, net::SOCK_DGRAM);
        // b has itself and d, d has b: a circle.
        assert_eq!(pass(&mut w, a, &[b, d]), Ok(1));
        assert_eq!(pass(&mut w, c, &[b]), Ok(1));
        for fd in [a, b, c, d] {
            w.call(linux::__NR_close, &[fd]).unwrap();
        }
    }
    let left = w.vfs.base.counters.files.get() - files;
    assert!(left < 200, "{left} files are out of reach");
    w.vfs.network.collect();
    assert_eq!(w.vfs.base.counters.files.get(), files);
}

/// One that can still be reached through another is not.
#[test]
fn sockets_within_reach_are_kept() {
    let mut w = world(net::SOCK_STREAM);
    let [a, b] = pair(&mut w, net::SOCK_STREAM);
    let [c, d] = pair(&mut w, net::SOCK_STREAM);
    assert_eq!(w.call(linux::__NR_write, &[c, BYTES, 7]), Ok(7));
    // d is under way to b, and b to 1, which is open.
    assert_eq!(pass(&mut w, a, &[d]), Ok(1));
    assert_eq!(pass(&mut w, 0, &[b]), Ok(1));
    for fd in [b, d] {
        w.call(linux::__NR_close, &[fd]).unwrap();
    }
    w.vfs.network.collect();
    let mut socket = 1;
    for _ in 0..2 {
        header(&mut w, 1, 64);
        assert_eq!(w.call(linux::__NR_recvmsg, &[socket, HEADER, 0]), Ok(1));
        socket = w.fake.peek(PROGRAM, CONTROL + 16, 1)[0].into();
    }
    assert_eq!(w.call(linux::__NR_read, &[socket, BYTES, 100]), Ok(7));
}

/// A socket in a socket in a socket, deeper than recursion would go.
#[test]
fn a_long_chain_is_let_go() {
    let mut w = world(net::SOCK_STREAM);
    let files = w.vfs.base.counters.files.get();
    let [mut a, mut b] = pair(&mut w, net::SOCK_STREAM);
    let mut depth = 0;
    loop {
        let [c, d] = pair(&mut w, net::SOCK_STREAM);
        // b goes to d; whoever has d has them all.
        let passed = pass(&mut w, c, &[b]);
        for fd in [a, b] {
            w.call(linux::__NR_close, &[fd]).unwrap();
        }
        (a, b) = (c, d);
        match passed {
            Ok(_) => depth += 1,
            Err(errno) => {
                assert_eq!((errno, depth), (Errno::ETOOMANYREFS, 4096));
                break;
            }
        }
    }
    for fd in [a, b] {
        w.call(linux::__NR_close, &[fd]).unwrap();
    }
    assert_eq!(w.vfs.base.counters.files.get(), files);
}
