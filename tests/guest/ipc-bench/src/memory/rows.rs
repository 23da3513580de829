//! The rows.

use super::byte;
use super::proto::{Copy, Create, End};
use super::vfs::{AT, Event, READ, Vfs, WRITE, Way, ask, clear, paged, tell, third_party};
use crate::check;
use abi::proto::vm::{HandleMemory, MapFlags, Mmap, Munmap, ProcCtl, RegionAt};
use abi::{Endpoint, Errno, Message, PAGE, Request};
use rt::{copy, ipc};

/// A check: it panics when something is wrong.
pub type Row = fn(&mut Vfs);

/// Names and checks; the program has no memory, and no file is used, before each.
pub const ROWS: [(&str, Row); 10] = [
    ("M1", others_map_for_nobody_else),
    ("M2", third_party_mmap),
    ("M3", clear_and_handle_memory_are_not_for_others),
    ("M4", nonsense_is_answered),
    ("M5", one_page_in_a_page),
    ("M6", gaps_and_read_only_parts),
    ("M7", errors_ends_and_pages_of_one_use),
    ("M8", holes_reused_inodes_and_tails),
    ("M9", crossed_answers),
    ("K4", deaths_while_vm_waits),
];

fn others_map_for_nobody_else(vfs: &mut Vfs) {
    let victims = [Endpoint::VFS, Endpoint::RS, vfs.cast.program];
    for victim in victims {
        let before = vfs.regions(victim);
        for by in [vfs.cast.file_system, Endpoint::PM] {
            let map = third_party(victim, AT, PAGE);
            assert_eq!(ask(by, map), Err(Errno::EPERM));
            let flags = MapFlags::FIXED;
            assert_eq!(ask(by, Mmap { flags, ..map }), Err(Errno::EPERM));
            let unmap = Munmap {
                target: victim,
                addr: 0x40_0000,
                len: PAGE,
            };
            assert_eq!(ask(by, unmap), Err(Errno::EPERM));
        }
        assert_eq!(vfs.regions(victim), before);
    }
    // Memory as it was left by others is not for them either.
    let junk = Mmap {
        target: Endpoint::SELF,
        flags: MapFlags::PREALLOC | MapFlags::UNINITIALIZED,
        ..third_party(Endpoint::SELF, 0, PAGE)
    };
    assert_eq!(ask(vfs.cast.file_system, junk), Err(Errno::EPERM));
    // Those who may.
    let program = vfs.cast.program;
    let mapped = ask(Endpoint::RS, third_party(program, AT, PAGE));
    assert_eq!(mapped.map(|m| m.addr), Ok(AT));
    let mapped = ipc::call(Endpoint::VM, third_party(program, AT + PAGE, PAGE));
    assert_eq!(mapped.map(|m| m.addr), Ok(AT + PAGE));
    assert_eq!(vfs.handle(AT, 2 * PAGE, true), Ok(()));
    assert!(vfs.full_of(AT, 0) && vfs.full_of(AT + PAGE, 0));
}

fn third_party_mmap(vfs: &mut Vfs) {
    let program = vfs.cast.program;
    let map =
        |target, addr, len| ipc::call(Endpoint::VM, third_party(target, addr, len)).map(|m| m.addr);
    assert_eq!(map(vfs.cast.dead, AT, PAGE), Err(Errno::ESRCH));
    assert_eq!(map(program, AT, 0), Err(Errno::EINVAL));
    assert_eq!(map(program, 0, PAGE), Ok(0));
    assert_eq!(map(program, AT, 3 * PAGE), Ok(AT));
    assert_eq!(vfs.handle(0, PAGE, true), Ok(()));
    assert_eq!(vfs.handle(AT, 3 * PAGE, true), Ok(()));
    vfs.fill(0, 9);
    for n in 0..3 {
        vfs.fill(AT + n * PAGE, 7);
    }
    // Replaced: the middle page is new, its neighbours are not.
    assert_eq!(map(program, AT + PAGE, PAGE), Ok(AT + PAGE));
    assert!(vfs.absent(AT + PAGE));
    assert_eq!(vfs.handle(AT, 3 * PAGE, true), Ok(()));
    assert!(vfs.full_of(AT, 7) && vfs.full_of(AT + PAGE, 0) && vfs.full_of(AT + 2 * PAGE, 7));
    assert!(vfs.full_of(0, 9));
    // A file's pages likewise, in the midst of them.
    vfs.file(AT, 3, READ, 1);
    assert_eq!(vfs.handle(AT, 3 * PAGE, false), Ok(()));
    assert_eq!(map(program, AT + PAGE, PAGE), Ok(AT + PAGE));
    assert_eq!(vfs.handle(AT + PAGE, PAGE, true), Ok(()));
    assert!(vfs.holds(AT, 1, 0) && vfs.full_of(AT + PAGE, 0));
    assert!(vfs.holds(AT + 2 * PAGE, 1, 2 * PAGE));
    // Populated at once.
    let now = Mmap {
        flags: MapFlags::THIRD_PARTY | MapFlags::FIXED | MapFlags::PREALLOC,
        ..third_party(program, AT, 2 * PAGE)
    };
    assert_eq!(ipc::call(Endpoint::VM, now).map(|m| m.addr), Ok(AT));
    assert!(vfs.full_of(AT, 0) && vfs.full_of(AT + PAGE, 0));
}

fn clear_and_handle_memory_are_not_for_others(vfs: &mut Vfs) {
    let who = vfs.cast.program;
    vfs.file(AT, 1, READ, 1);
    for by in [vfs.cast.file_system, Endpoint::PM, Endpoint::RS] {
        if by != Endpoint::RS {
            assert_eq!(ask(by, clear(who)), Err(Errno::EPERM));
        }
        // It is posted: who may not do so is not answered, and nothing happens. An answer to
        // the poster would end the test there.
        let request = HandleMemory {
            who,
            addr: AT,
            len: PAGE,
            write: false,
        };
        tell(by, request.ask(5));
        assert_eq!(ask(by, RegionAt { who, index: 0 }).map(|r| r.start), Ok(AT));
    }
    vfs.silence();
    assert_eq!(vfs.asked().len(), 0);
    assert!(vfs.absent(AT));
    assert_eq!(vfs.handle(AT, PAGE, false), Ok(()));
    assert!(vfs.holds(AT, 1, 0) && vfs.asked().len() == 1);
    // Those who may.
    assert_eq!(ask(Endpoint::RS, clear(who)), Ok(()));
    assert!(vfs.absent(AT) && vfs.regions(who) == 0);
}

fn nonsense_is_answered(vfs: &mut Vfs) {
    vfs.anonymous(AT, 1, WRITE);
    let endpoints = [
        vfs.cast.dead,
        Endpoint::new(200, 3),
        Endpoint::NONE,
        Endpoint::ANY,
        Endpoint(u32::MAX),
    ];
    for who in endpoints {
        // The reference answers EINVAL, or nothing and ends.
        assert_eq!(vfs.handle_of(who, AT, PAGE, true), Err(Errno::ESRCH));
        let cleared = ipc::call(Endpoint::VM, clear(who));
        assert_eq!(cleared, Err(Errno::EINVAL));
    }
    let who = vfs.cast.program;
    let param = ProcCtl { param: 9, who };
    assert_eq!(ipc::call(Endpoint::VM, param), Err(Errno::EINVAL));
    // Of a question whose fields are none the transaction can be told.
    let message = Message {
        kind: HandleMemory::KIND,
        words: [u64::MAX; 7],
    };
    check("post", ipc::post_raw(Endpoint::VM, message));
    assert_eq!(vfs.handled(), (u64::MAX, Err(Errno::EINVAL)));
    for (addr, len) in [
        (AT, u64::MAX),
        (u64::MAX - 1, 1),
        (u64::MAX, u64::MAX),
        (1 << 62, PAGE),
    ] {
        assert_eq!(vfs.handle(addr, len, true), Err(Errno::EFAULT));
    }
    assert_eq!(vfs.handle(AT, 0, true), Ok(()));
    assert!(vfs.absent(AT));
    assert_eq!(vfs.handle(AT + 1, 1, true), Ok(()));
    assert!(vfs.full_of(AT, 0));
}

fn one_page_in_a_page(vfs: &mut Vfs) {
    // One page is in the cache before it is mapped, one before it is wanted.
    vfs.publish(1, PAGE, 1);
    vfs.anonymous(AT, 2, WRITE);
    vfs.file(AT + 2 * PAGE, 3, WRITE, 1);
    vfs.file(AT + 5 * PAGE, 3, WRITE, 2);
    vfs.publish(2, 2 * PAGE, 2);
    assert_eq!(vfs.handle(AT + 17, 8 * PAGE - 17, true), Ok(()));
    let expected = [(1, 0), (1, 2 * PAGE), (2, 0), (2, PAGE)];
    assert_eq!(*vfs.asked(), expected);
    for n in 0..2 {
        assert!(vfs.full_of(AT + n * PAGE, 0));
    }
    for n in 0..3 {
        assert!(vfs.holds(AT + (2 + n) * PAGE, 1, n * PAGE));
        assert!(vfs.holds(AT + (5 + n) * PAGE, 2, n * PAGE));
    }
    // They are the program's own now: writable, and the files' pages are what they were.
    for n in 0..8 {
        vfs.fill(AT + n * PAGE, n as u8 + 1);
    }
    vfs.file(AT + 8 * PAGE, 3, READ, 1);
    assert_eq!(vfs.handle(AT, 11 * PAGE, false), Ok(()));
    assert_eq!(vfs.asked().len(), expected.len(), "all are there");
    for n in 0..8 {
        assert!(vfs.full_of(AT + n * PAGE, n as u8 + 1));
    }
    for n in 0..3 {
        assert!(vfs.holds(AT + (8 + n) * PAGE, 1, n * PAGE));
    }
}

fn gaps_and_read_only_parts(vfs: &mut Vfs) {
    vfs.anonymous(AT, 1, WRITE);
    vfs.file(AT + PAGE, 1, WRITE, 1);
    // Page 2 is a gap.
    vfs.anonymous(AT + 3 * PAGE, 1, WRITE);
    assert_eq!(vfs.handle(AT, 4 * PAGE, true), Err(Errno::EFAULT));
    assert!(vfs.full_of(AT, 0) && vfs.holds(AT + PAGE, 1, 0));
    vfs.fill(AT + PAGE, 3);
    assert!(vfs.absent(AT + 2 * PAGE) && vfs.absent(AT + 3 * PAGE));
    // Now it is read-only.
    vfs.file(AT + 2 * PAGE, 1, READ, 2);
    assert_eq!(vfs.handle(AT, 4 * PAGE, true), Err(Errno::EFAULT));
    assert!(vfs.absent(AT + 2 * PAGE) && vfs.absent(AT + 3 * PAGE));
    assert_eq!(*vfs.asked(), [(1, 0)], "not to be written, not asked for");
    assert_eq!(vfs.handle(AT, 4 * PAGE, false), Ok(()));
    assert!(vfs.full_of(AT, 0) && vfs.full_of(AT + PAGE, 3));
    assert!(vfs.holds(AT + 2 * PAGE, 2, 0) && vfs.full_of(AT + 3 * PAGE, 0));
    let page = [1; PAGE as usize];
    let written = copy::try_write(vfs.cast.program, AT + 2 * PAGE, &page);
    assert_eq!(written, Err(Errno::EFAULT), "read-only");
}

fn errors_ends_and_pages_of_one_use(vfs: &mut Vfs) {
    // An error ends it, after the pages before.
    vfs.anonymous(AT, 1, WRITE);
    vfs.file(AT + PAGE, 2, READ, 1);
    vfs.way = Way::Error(Errno::EIO);
    assert_eq!(vfs.handle(AT, 3 * PAGE, false), Err(Errno::EIO));
    assert!(vfs.full_of(AT, 0) && vfs.absent(AT + PAGE));
    assert_eq!(*vfs.asked(), [(1, 0)]);

    // Past the end the file system has no page to give, and says that all is well; or it takes the
    // page again before VM looks: there may be another by then, but not for ever.
    for (way, times) in [(Way::Nothing, 1), (Way::OneUse, 5)] {
        vfs.way = way;
        let before = vfs.asked().len();
        assert_eq!(vfs.handle(AT + PAGE, PAGE, false), Err(Errno::EFAULT));
        assert_eq!(vfs.asked()[before..], [(1, 0); 5][..times]);
        assert!(vfs.absent(AT + PAGE));
    }

    // A page that is gone from the cache is asked for again, and is what it is now.
    vfs.way = Way::Page;
    assert_eq!(vfs.handle(AT + PAGE, 2 * PAGE, false), Ok(()));
    assert!(vfs.holds(AT + PAGE, 1, 0) && vfs.holds(AT + 2 * PAGE, 1, PAGE));
    vfs.forget(1);
    vfs.unmap(AT + PAGE, 2);
    assert!(vfs.absent(AT + PAGE));
    vfs.file(AT + PAGE, 2, READ, 1);
    vfs.life = 60;
    let before = vfs.asked().len();
    assert_eq!(vfs.handle(AT + PAGE, 2 * PAGE, false), Ok(()));
    assert_eq!(vfs.asked()[before..], [(1, 0), (1, PAGE)]);
    assert!(vfs.holds(AT + PAGE, 61, 0) && vfs.holds(AT + 2 * PAGE, 61, PAGE));
}

/// Bytes behind an exec's data.
const TAIL: u64 = 100;

fn holes_reused_inodes_and_tails(vfs: &mut Vfs) {
    // A hole: a page of zeroes, to be written without harm to the hole.
    vfs.file(AT, 1, WRITE, 3);
    let txn = vfs.want(vfs.cast.program, AT, PAGE, true);
    let request = vfs.page_in();
    vfs.publish(3, 0, 0);
    vfs.done(request.txn, Ok(()));
    assert_eq!(vfs.handled(), (txn, Ok(())));
    assert!(vfs.full_of(AT, 0));
    vfs.fill(AT, 5);
    vfs.file(AT + PAGE, 1, READ, 3);
    assert!(
        vfs.full_of(AT + PAGE, 0),
        "cached pages are entered at once"
    );

    // An inode number in its second life: nothing of the first is left in any page table.
    vfs.file(AT + 2 * PAGE, 1, READ, 1);
    assert_eq!(vfs.handle(AT + 2 * PAGE, PAGE, false), Ok(()));
    vfs.forget(1);
    assert!(vfs.absent(AT + 2 * PAGE));
    vfs.life = 60;
    vfs.file(AT + 3 * PAGE, 1, READ, 1);
    assert!(vfs.absent(AT + 3 * PAGE));
    assert_eq!(vfs.handle(AT + 2 * PAGE, 2 * PAGE, false), Ok(()));
    assert!(vfs.holds(AT + 2 * PAGE, 61, 0) && vfs.holds(AT + 3 * PAGE, 61, 0));

    // The tail behind an exec's data is zero, whether the page was in the cache or not; in
    // the file it is what it was.
    vfs.life = 0;
    for cached in [false, true] {
        let at = AT + 4 * PAGE;
        let program = vfs.cast.program;
        check("map", vfs.map_file(program, at, 2, WRITE, 2, TAIL));
        assert_eq!(vfs.absent(at), !cached);
        assert_eq!(vfs.handle(at, 2 * PAGE, false), Ok(()));
        assert!(vfs.holds(at, 2, 0));
        let expected = |n: u64| match n < PAGE - TAIL {
            true => byte(2, PAGE + n),
            false => 0,
        };
        let Some(last) = vfs.page(at + PAGE) else {
            panic!("the last page is absent");
        };
        assert!((0..).zip(last).all(|(n, b)| b == expected(n)));
        assert_eq!(vfs.handle(at + 2 * PAGE, 1, false), Err(Errno::EFAULT));
        vfs.unmap(at, 2);
    }
    vfs.file(AT + 4 * PAGE, 2, READ, 2);
    assert!(vfs.holds(AT + 5 * PAGE, 2, PAGE));
}

/// VFS calls VM, for an exec, while answers about memory are under way, and page-ins are
/// answered in another order, twice, by others, and under numbers that nobody gave.
fn crossed_answers(vfs: &mut Vfs) {
    let program = vfs.cast.program;
    vfs.file(AT, 2, READ, 1);
    vfs.file(AT + 2 * PAGE, 1, READ, 2);
    vfs.anonymous(AT + 3 * PAGE, 1, WRITE);
    let slow = vfs.want(program, AT, 2 * PAGE, false);
    let first = vfs.page_in();
    let quick = vfs.want(program, AT + 2 * PAGE, PAGE, false);
    let second = vfs.page_in();
    assert!((first.ino, second.ino) == (1, 2) && first.txn != second.txn);
    // Nobody waits behind those who wait.
    assert_eq!(vfs.handle(AT + 3 * PAGE, PAGE, true), Ok(()));
    // A call's reply is its own, whatever is under way.
    check("map", vfs.map_file(program, AT + 4 * PAGE, 1, READ, 4, 0));
    let missing = ipc::call(Endpoint::VM, third_party(vfs.cast.dead, AT, PAGE));
    assert_eq!(missing, Err(Errno::ESRCH));

    // Nobody's numbers, and another's answer under the right number.
    for txn in [0, second.txn + 1000, u64::MAX] {
        vfs.done(txn, Ok(()));
        vfs.done(txn, Err(Errno::EIO));
    }
    let status = Err(Errno::EIO);
    for by in [vfs.cast.file_system, Endpoint::PM, Endpoint::RS] {
        tell(by, paged(first.txn, status));
    }
    vfs.silence();
    assert!(vfs.absent(AT) && vfs.absent(AT + 2 * PAGE));

    // The second first; its answer again is nobody's.
    vfs.answer(second);
    vfs.done(second.txn, status);
    assert_eq!(vfs.handled(), (quick, Ok(())));
    vfs.silence();
    assert!(vfs.holds(AT + 2 * PAGE, 2, 0) && vfs.absent(AT));
    // The page is there before its own answer: then the answer is a formality.
    vfs.answer(first);
    let third = vfs.page_in();
    assert_eq!((third.ino, third.offset), (1, PAGE));
    vfs.done(first.txn, status);
    vfs.done(second.txn, status);
    vfs.silence();
    vfs.answer(third);
    assert_eq!(vfs.handled(), (slow, Ok(())));
    vfs.silence();
    assert!(vfs.holds(AT, 1, 0) && vfs.holds(AT + PAGE, 1, PAGE));
    // Two who want the same page wait for one page-in.
    let wanted = [1, 2].map(|_| vfs.want(program, AT + 4 * PAGE, PAGE, false));
    let request = vfs.page_in();
    vfs.silence();
    vfs.answer(request);
    assert_eq!(
        wanted.map(|txn| (txn, Ok(()))),
        [vfs.handled(), vfs.handled()]
    );
    assert!(vfs.holds(AT + 4 * PAGE, 4, 0));
}

/// Row K4: who waits, or whose memory it is, dies meanwhile.
fn deaths_while_vm_waits(vfs: &mut Vfs) {
    let new = |service| check("create", ipc::call(Endpoint::RS, Create { service })).who;
    let ends = |who| check("end", ipc::call(Endpoint::RS, End { who }));
    let copy = |by: Endpoint, who| {
        let request = Copy { who, address: AT };
        check("copy", ipc::post_raw(by, request.encode()));
    };
    for posted in [true, false] {
        // Whose memory it is: VFS is told, and so is a copy that the kernel parked.
        let victim = new(false);
        check("map", vfs.map_file(victim, AT, 1, READ, 1, 0));
        let copier = new(true);
        let txn = match posted {
            true => vfs.want(victim, AT, PAGE, false),
            false => {
                copy(copier, victim);
                0
            }
        };
        let request = vfs.page_in();
        ends(victim);
        match (posted, vfs.next()) {
            (true, Event::Handled(answered, status)) => {
                assert_eq!((answered, status), (txn, Err(Errno::ESRCH)));
            }
            (false, Event::Copied(status, _)) => assert_eq!(status, Err(Errno::ESRCH)),
            (_, other) => panic!("{other:?} of the dead"),
        }
        vfs.answer(request);
        vfs.silence();
        ends(copier);
        vfs.forget(1);
    }
    // Who waits: nobody is woken, its successor in the slot least of all, and the page came.
    vfs.file(AT, 1, READ, 1);
    let copier = new(true);
    copy(copier, vfs.cast.program);
    let request = vfs.page_in();
    ends(copier);
    let successor = new(true);
    assert_eq!(successor.slot(), copier.slot());
    vfs.answer(request);
    vfs.silence();
    assert!(vfs.absent(AT));
    copy(successor, vfs.cast.program);
    match vfs.next() {
        Event::Copied(status, copied) => assert_eq!((status, copied), (Ok(()), byte(1, 0))),
        other => panic!("{other:?} instead of a copy"),
    }
    ends(successor);
}
