use super::world::*;
use abi::proto::{pm, vfs};
use abi::{Class, Endpoint, Errno, Request};
use linux_raw_sys::general as linux;
use rt::charge::Limits;

const READ: u32 = linux::__NR_read;
const WRITE: u32 = linux::__NR_write;

/// A world with a pipe (3 and 4 would be usual; here 0 and 1) shared with a child.
fn world() -> World {
    let mut w = World::new();
    w.call(linux::__NR_pipe, &[DATA]).unwrap();
    assert_eq!(w.data(8), [0, 0, 0, 0, 1, 0, 0, 0]);
    fork(&mut w);
    w
}

/// A child that shares nothing but open files.
fn fork(w: &mut World) {
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
    w.fake.map(PROGRAM, DATA, 0x20000, true, true);
}

#[test]
fn a_reader_waits_and_sees_the_end() {
    let mut w = world();
    assert_eq!(w.start(OTHER, READ, [0, DATA, 100, 0, 0, 0]), None);
    w.fake.poke(PROGRAM, DATA, b"hello");
    assert_eq!(w.call(WRITE, &[1, DATA, 5]), Ok(5));
    assert_eq!(w.reply_of(OTHER), Some(Ok(5)));
    assert_eq!(w.fake.peek(OTHER, DATA, 5), b"hello");
    w.call_as(OTHER, linux::__NR_close, &[1]).unwrap();
    assert_eq!(w.start(OTHER, READ, [0, DATA, 1, 0, 0, 0]), None);
    w.call(linux::__NR_close, &[1]).unwrap();
    assert_eq!(w.reply_of(OTHER), Some(Ok(0)), "all writers are gone");
}

#[test]
fn a_writer_waits_for_room_and_small_writes_are_whole() {
    let mut w = world();
    assert_eq!(w.call(WRITE, &[1, DATA, 65536 - 100]), Ok(65536 - 100));
    assert_eq!(w.start(PROGRAM, WRITE, [1, DATA, 200, 0, 0, 0]), None);
    assert_eq!(w.call_as(OTHER, READ, &[0, DATA, 50]), Ok(50));
    assert_eq!(
        w.reply_of(PROGRAM),
        None,
        "150 bytes of room are not enough"
    );
    assert_eq!(w.call_as(OTHER, READ, &[0, DATA, 50]), Ok(50));
    assert_eq!(w.reply_of(PROGRAM), Some(Ok(200)));
    // A large one trickles.
    assert_eq!(w.start(PROGRAM, WRITE, [1, DATA, 0x20000, 0, 0, 0]), None);
    let mut total = 0;
    while w.reply_of(PROGRAM).is_none() {
        total += w.call_as(OTHER, READ, &[0, DATA, 0x20000]).unwrap();
    }
    while total < 65536 - 100 + 200 - 100 + 0x20000 {
        total += w.call_as(OTHER, READ, &[0, DATA, 0x20000]).unwrap();
    }
    assert_eq!(total, 65536 - 100 + 200 - 100 + 0x20000);
}

#[test]
fn without_readers_there_is_a_signal() {
    let mut w = world();
    w.call(linux::__NR_close, &[0]).unwrap();
    w.call_as(OTHER, linux::__NR_close, &[0]).unwrap();
    assert_eq!(w.call(WRITE, &[1, DATA, 1]), Err(Errno::EPIPE));
    let (to, message) = w.others.pop().unwrap();
    let raise = pm::Raise::decode(&message).unwrap();
    assert_eq!((to, raise.who, raise.signal), (Endpoint::PM, PROGRAM, 13));
}

#[test]
fn an_interrupted_call_ends_and_loses_nothing() {
    let mut w = world();
    let interrupt = vfs::Interrupt { who: OTHER }.encode();
    // One that comes too late for its call is forgotten by the next.
    w.deliver(Endpoint::PM, Class::Post, interrupt);
    assert_eq!(w.start(OTHER, READ, [0, DATA, 9, 0, 0, 0]), None);
    w.deliver(Endpoint::PM, Class::Post, interrupt);
    assert_eq!(w.reply_of(OTHER), Some(Err(Errno::ERESTARTSYS)));
    // A partial write reports what went.
    assert_eq!(w.start(OTHER, WRITE, [1, DATA, 0x20000, 0, 0, 0]), None);
    w.deliver(Endpoint::PM, Class::Post, interrupt);
    assert_eq!(w.reply_of(OTHER), Some(Ok(65536)));
}

#[test]
fn what_a_splice_reads_has_room_whoever_fills_the_pipe_meanwhile() {
    let mut w = World::new();
    w.call(linux::__NR_pipe2, &[DATA, linux::O_NONBLOCK.into()])
        .unwrap();
    let pair = [1, 1, 0, DATA];
    assert_eq!(w.call(linux::__NR_socketpair, &pair), Ok(0));
    fork(&mut w);
    let splice = linux::__NR_splice;
    // From the socket at 2, which has nothing yet.
    assert_eq!(w.start(OTHER, splice, [2, 0, 1, 0, 100, 0]), None);
    assert_eq!(w.call(WRITE, &[1, DATA, 0x20000]), Ok(65536 - 100));
    w.fake.poke(PROGRAM, DATA, b"0123456789");
    assert_eq!(w.call(WRITE, &[3, DATA, 10]), Ok(10));
    assert_eq!(w.reply_of(OTHER), Some(Ok(10)), "it need not wait");
    // The rest of what was kept is free again.
    assert_eq!(w.call(WRITE, &[1, DATA, 0x20000]), Ok(90));
    assert_eq!(w.call(READ, &[0, DATA, 65536 - 100]), Ok(65536 - 100));
    assert_eq!(w.call(READ, &[0, DATA, 10]), Ok(10));
    assert_eq!(w.data(10), b"0123456789");
    // So is all of it after a signal.
    assert_eq!(w.call(READ, &[0, DATA, 0x20000]), Ok(90));
    assert_eq!(w.start(OTHER, splice, [2, 0, 1, 0, 100, 0]), None);
    let interrupt = vfs::Interrupt { who: OTHER }.encode();
    w.deliver(Endpoint::PM, Class::Post, interrupt);
    assert_eq!(w.reply_of(OTHER), Some(Err(Errno::ERESTARTSYS)));
    assert_eq!(w.call(WRITE, &[1, DATA, 0x20000]), Ok(65536));
}

#[test]
fn absent_pages_neither_lose_nor_double_bytes() {
    let mut w = world();
    for i in 0..0x3000u64 {
        w.fake.poke(PROGRAM, DATA + i, &[(i % 251) as u8]);
    }
    w.fake.set_present(PROGRAM, DATA + 0x1000, false);
    assert_eq!(w.call(WRITE, &[1, DATA, 0x3000]), Ok(0x3000));
    w.fake.set_present(OTHER, DATA, false);
    w.fake.set_present(OTHER, DATA + 0x2000, false);
    w.fake
        .pages
        .borrow_mut()
        .get_mut(&(OTHER, DATA))
        .unwrap()
        .flaky = 3;
    assert_eq!(w.call_as(OTHER, READ, &[0, DATA, 0x10000]), Ok(0x3000));
    let got = w.fake.peek(OTHER, DATA, 0x3000);
    assert!(got.iter().enumerate().all(|(i, b)| *b == (i % 251) as u8));
    // What cannot be repaired stays in the pipe.
    assert_eq!(w.call(WRITE, &[1, DATA, 10]), Ok(10));
    assert_eq!(
        w.call_as(OTHER, READ, &[0, 0x900000, 10]),
        Err(Errno::EFAULT)
    );
    assert_eq!(w.call_as(OTHER, READ, &[0, DATA, 100]), Ok(10));
}

#[test]
fn a_poll_that_was_cut_short_goes_on_until_its_first_deadline() {
    let mut w = world();
    let poll = [DATA, 1, 5, 0, 0, 0];
    let interrupt = vfs::Interrupt { who: OTHER }.encode();
    let resume = vfs::Resume { who: OTHER }.encode();
    w.fake.poke(OTHER, DATA + 4, &linux::POLLIN.to_le_bytes());
    for resumed in [true, false] {
        let start = w.fake.time.get();
        assert_eq!(w.start(OTHER, linux::__NR_poll, poll), None);
        w.fake.time.set(start + 3_000_000);
        w.deliver(Endpoint::PM, Class::Post, interrupt);
        let cut_short = Some(Err(Errno::ERESTART_RESTARTBLOCK));
        assert_eq!(w.reply_of(OTHER), cut_short);
        if resumed {
            w.deliver(Endpoint::PM, Class::Post, resume);
        }
        // One that is made anew, after a handler, has all its time.
        let wanted = start + if resumed { 5_000_000 } else { 8_000_000 };
        assert_eq!(w.start(OTHER, linux::__NR_poll, poll), None);
        assert_eq!(w.fake.timer.get(), wanted);
        w.fake.time.set(wanted);
        w.vfs.base.timers.expired();
        w.settle();
        assert_eq!(w.reply_of(OTHER), Some(Ok(0)));
    }
}

#[test]
fn polling_sees_data_hang_up_and_time() {
    let mut w = world();
    let entry = |w: &World, fd: u32, events: u16| {
        w.fake.poke(OTHER, DATA, &fd.to_le_bytes());
        w.fake.poke(OTHER, DATA + 4, &events.to_le_bytes());
    };
    entry(&w, 0, linux::POLLIN as u16);
    let poll = linux::__NR_poll;
    assert_eq!(w.call_as(OTHER, poll, &[DATA, 1, 0]), Ok(0));
    assert_eq!(w.start(OTHER, poll, [DATA, 1, 5, 0, 0, 0]), None);
    assert_eq!(w.fake.timer.get(), 5_000_000);
    w.fake.time.set(5_000_000);
    w.vfs.base.timers.expired();
    w.settle();
    assert_eq!(w.reply_of(OTHER), Some(Ok(0)));
    let forever = u64::from(u32::MAX);
    assert_eq!(w.start(OTHER, poll, [DATA, 1, forever, 0, 0, 0]), None);
    w.call(WRITE, &[1, DATA, 1]).unwrap();
    assert_eq!(w.reply_of(OTHER), Some(Ok(1)));
    assert_eq!(w.fake.peek(OTHER, DATA + 6, 1), [linux::POLLIN as u8]);
    w.call_as(OTHER, READ, &[0, DATA + 64, 9]).unwrap();
    w.call_as(OTHER, linux::__NR_close, &[1]).unwrap();
    entry(&w, 0, linux::POLLIN as u16);
    assert_eq!(w.start(OTHER, poll, [DATA, 1, forever, 0, 0, 0]), None);
    w.call(linux::__NR_close, &[1]).unwrap();
    assert_eq!(w.reply_of(OTHER), Some(Ok(1)));
    assert_eq!(w.fake.peek(OTHER, DATA + 6, 1), [linux::POLLHUP as u8]);
}

#[test]
fn a_socket_pair_carries_bytes_both_ways_and_ends() {
    let mut w = World::new();
    let pair = [1, 5 | u64::from(linux::O_CLOEXEC), 0, DATA];
    assert_eq!(w.call(linux::__NR_socketpair, &pair), Ok(0));
    for (from, to, text) in [(0, 1, b"there"), (1, 0, b"again")] {
        w.fake.poke(PROGRAM, DATA, text);
        assert_eq!(w.call(linux::__NR_write, &[from, DATA, 5]), Ok(5));
        w.fake.poke(PROGRAM, DATA, b".....");
        assert_eq!(w.call(linux::__NR_recvfrom, &[to, DATA, 9, 0, 0, 0]), Ok(5));
        assert_eq!(w.data(5), text);
    }
    w.call(linux::__NR_close, &[1]).unwrap();
    assert_eq!(w.call(linux::__NR_recvfrom, &[0, DATA, 9, 0, 0, 0]), Ok(0));
    assert_eq!(w.call(linux::__NR_write, &[0, DATA, 1]), Err(Errno::EPIPE));
    let inet = [2, 1, 0, DATA];
    assert_eq!(
        w.call(linux::__NR_socketpair, &inet),
        Err(Errno::EOPNOTSUPP)
    );
}

#[test]
fn a_waiting_writer_s_piece_is_charged_and_small_when_there_is_no_more() {
    let mut w = world();
    let account = w.vfs.base.accounts.work.clone();
    let tables = account.used();
    for (left, held) in [(u64::MAX, 65536), (65535, 0)] {
        account.set_limits(Limits::of_machine(tables.saturating_add(left)));
        assert_eq!(w.start(PROGRAM, WRITE, [1, DATA, 0x20000, 0, 0, 0]), None);
        assert_eq!(account.used(), tables + held);
        let mut total = 0;
        while total < 0x20000 {
            total += w.call_as(OTHER, READ, &[0, DATA, 0x20000]).unwrap();
        }
        assert_eq!(w.reply_of(PROGRAM), Some(Ok(0x20000)));
        assert_eq!(account.used(), tables);
    }
}
