//! The rows M of the test matrix (`docs/matrix.md`), one test each, and msync.

use super::machine::{DEV, FS, INIT, Machine, byte};
use crate::server::Effect;
use abi::message::reply_result;
use abi::proto::vm::{MapFlags, Prot};
use abi::proto::{vfs, vm as proto};
use abi::{Class, Endpoint, Errno, Message, PAGE, Request};
use linux_raw_sys::general as linux;
use std::vec::Vec;

const SIGBUS: i32 = 7;
const SIGSEGV: i32 = 11;
const AT: u64 = 0x5000_0000;

fn linux(machine: &mut Machine, number: u32, args: &[u64]) -> Result<u64, Errno> {
    machine.linux(INIT, number, args).expect("a result")
}

fn anonymous(machine: &mut Machine, at: u64, pages: u64, prot: u64) {
    let flags = u64::from(linux::MAP_PRIVATE | linux::MAP_ANONYMOUS | linux::MAP_FIXED);
    let args = [at, pages * PAGE, prot, flags, u64::MAX, 0];
    assert_eq!(linux(machine, linux::__NR_mmap, &args), Ok(at));
}

/// Maps file `ino`; the number of a descriptor is its file's here.
fn file(machine: &mut Machine, at: u64, pages: u64, prot: u64, ino: u64) {
    let flags = u64::from(linux::MAP_PRIVATE | linux::MAP_FIXED);
    let args = [at, pages * PAGE, prot, flags, ino, 0];
    assert_eq!(linux(machine, linux::__NR_mmap, &args), Ok(at));
}

fn handle_as(
    machine: &mut Machine,
    from: Endpoint,
    txn: u64,
    who: Endpoint,
    len: u64,
    write: bool,
) {
    let addr = AT;
    let request = proto::HandleMemory {
        txn,
        who,
        addr,
        len,
        write,
    };
    machine.message(from, Class::Post, request.encode());
}

fn handle(machine: &mut Machine, txn: u64, len: u64, write: bool) {
    handle_as(machine, Endpoint::VFS, txn, INIT, len, write);
}

/// The tagged answers to VFS so far.
fn handled(machine: &mut Machine) -> Vec<(u64, Result<(), Errno>)> {
    let seen = machine.seen.drain(..);
    let posts = seen.filter_map(|effect| match effect {
        Effect::Post(Endpoint::VFS, message) if message.kind == vfs::MemoryHandled::KIND => {
            vfs::MemoryHandled::decode(&message)
        }
        _ => None,
    });
    posts.map(|done| (done.txn, done.status)).collect()
}

fn third_party(target: Endpoint, addr: u64, len: u64) -> proto::Mmap {
    proto::Mmap {
        target,
        addr,
        len,
        prot: Prot::READ | Prot::WRITE,
        flags: MapFlags::THIRD_PARTY | MapFlags::FIXED,
    }
}

#[test]
fn m1_an_ordinary_service_maps_for_nobody_else() {
    let mut machine = Machine::new(8);
    for source in [FS, Endpoint::PM, INIT] {
        let map = third_party(Endpoint::VFS, AT, PAGE);
        assert_eq!(machine.call(source, map), Err(Errno::EPERM));
    }
    assert_eq!(machine.entry(Endpoint::VFS, AT), 0);
    for source in [Endpoint::VFS, Endpoint::RS] {
        let map = third_party(INIT, AT, PAGE);
        assert_eq!(machine.call(source, map).map(|m| m.addr), Ok(AT));
    }
}

#[test]
fn m2_third_party_mmap_of_nobody_of_nothing_over_something_and_at_zero() {
    let mut machine = Machine::new(8);
    let mut map = |target, addr, len| {
        let result = machine.call(Endpoint::VFS, third_party(target, addr, len));
        result.map(|mapped| mapped.addr)
    };
    let dead = Endpoint::new(INIT.slot(), 0);
    assert_eq!(map(dead, AT, PAGE), Err(Errno::ESRCH));
    assert_eq!(map(INIT, AT, 0), Err(Errno::EINVAL));
    assert_eq!(map(INIT, 0, PAGE), Ok(0));
    assert_eq!(map(INIT, AT, 3 * PAGE), Ok(AT));
    for page in 0..3 {
        machine.write(INIT, AT + page * PAGE, 7).unwrap();
    }
    machine.write(INIT, 0, 9).unwrap();
    // Replaced: the middle page is new, its neighbours are not.
    let over = third_party(INIT, AT + PAGE, PAGE);
    assert_eq!(
        machine.call(Endpoint::VFS, over).map(|m| m.addr),
        Ok(AT + PAGE)
    );
    let found = [0, 1, 2].map(|page| machine.read(INIT, AT + page * PAGE));
    assert_eq!(found, [Ok(7), Ok(0), Ok(7)]);
    assert_eq!(machine.read(INIT, 0), Ok(9));
}

#[test]
fn m3_clear_and_handle_memory_are_not_for_others() {
    let mut machine = Machine::new(8);
    file(&mut machine, AT, 1, 1, 1);
    let clear = proto::ProcCtl {
        param: proto::PROCCTL_CLEAR,
        who: INIT,
    };
    for source in [FS, Endpoint::PM, INIT] {
        assert_eq!(machine.call(source, clear), Err(Errno::EPERM));
        // It is posted: who may not do so is not answered, and nothing happens.
        handle_as(&mut machine, source, 5, INIT, PAGE, false);
    }
    assert!(machine.seen.is_empty());
    assert_eq!(machine.page_ins, 0);
    assert_eq!(machine.read(INIT, AT), Ok(byte(1, 0)));
}

#[test]
fn m4_nonsense_is_answered_and_vm_lives() {
    let mut machine = Machine::new(8);
    anonymous(&mut machine, AT, 1, 3);
    let endpoints = [
        Endpoint::new(INIT.slot(), 0),
        Endpoint::new(77, 3),
        Endpoint::NONE,
        Endpoint::ANY,
        Endpoint(u32::MAX),
    ];
    for (txn, who) in (1..).zip(endpoints) {
        handle_as(&mut machine, Endpoint::VFS, txn, who, PAGE, true);
        // The reference answers EINVAL, or nothing and ends.
        assert_eq!(handled(&mut machine), [(txn, Err(Errno::ESRCH))]);
        let clear = proto::ProcCtl {
            param: proto::PROCCTL_CLEAR,
            who,
        };
        assert_eq!(machine.call(Endpoint::VFS, clear), Err(Errno::EINVAL));
    }
    let param = proto::ProcCtl {
        param: 9,
        who: INIT,
    };
    assert_eq!(machine.call(Endpoint::VFS, param), Err(Errno::EINVAL));
    let mut message = Message::new(proto::HandleMemory::KIND);
    message.words = [u64::MAX; 7];
    machine.message(Endpoint::VFS, Class::Post, message);
    handle(&mut machine, 9, PAGE, true);
    assert_eq!(handled(&mut machine).last(), Some(&(9, Ok(()))));
}

#[test]
fn m5_a_range_over_three_regions_takes_one_page_in_a_page() {
    let mut machine = Machine::new(8);
    anonymous(&mut machine, AT, 2, 3);
    file(&mut machine, AT + 2 * PAGE, 3, 3, 1);
    file(&mut machine, AT + 5 * PAGE, 3, 3, 2);
    handle(&mut machine, 1, 8 * PAGE, true);
    assert_eq!(handled(&mut machine), [(1, Ok(()))]);
    assert_eq!(machine.page_ins, 6, "one for each page that was missing");
    let found = [0, 2, 4, 5, 7].map(|page| machine.read(INIT, AT + page * PAGE));
    let expected = [
        0,
        byte(1, 0),
        byte(1, 2 * PAGE),
        byte(2, 0),
        byte(2, 2 * PAGE),
    ];
    assert_eq!(found, expected.map(Ok));
}

#[test]
fn m6_a_gap_or_a_read_only_part_is_an_error_after_the_pages_before_it() {
    let mut machine = Machine::new(8);
    anonymous(&mut machine, AT, 1, 3);
    file(&mut machine, AT + PAGE, 1, 3, 1);
    // Page 2 is a gap.
    anonymous(&mut machine, AT + 3 * PAGE, 1, 3);
    handle(&mut machine, 1, 4 * PAGE, true);
    assert_eq!(handled(&mut machine), [(1, Err(Errno::EFAULT))]);
    let mapped = [0, 1, 3].map(|page| machine.entry(INIT, AT + page * PAGE) != 0);
    assert_eq!(mapped, [true, true, false]);
    // Now it is read-only.
    file(&mut machine, AT + 2 * PAGE, 1, 1, 2);
    handle(&mut machine, 2, 4 * PAGE, true);
    handle(&mut machine, 3, 4 * PAGE, false);
    let expected = [(2, Err(Errno::EFAULT)), (3, Ok(()))];
    assert_eq!(handled(&mut machine), expected);
}

#[test]
fn m7_an_io_error_the_end_of_the_file_and_a_page_of_one_use() {
    let mut machine = Machine::new(8);
    file(&mut machine, AT, 1, 1, 1);
    machine.broken.push(1);
    handle(&mut machine, 1, PAGE, false);
    assert_eq!(handled(&mut machine), [(1, Err(Errno::EIO))]);
    assert_eq!(machine.read(INIT, AT), Err(SIGBUS));

    // Past the end the file system has no page to give, and says that all is well: asked once
    // for each attempt, no more.
    machine.broken.clear();
    machine.empty = true;
    let before = machine.page_ins;
    handle(&mut machine, 2, PAGE, false);
    assert_eq!(handled(&mut machine), [(2, Err(Errno::EFAULT))]);
    assert_eq!(machine.page_ins, before + 1);

    // A page that is gone from the cache again is asked for again, and is what it is now.
    machine.empty = false;
    handle(&mut machine, 3, PAGE, false);
    assert_eq!(handled(&mut machine), [(3, Ok(()))]);
    let forget = proto::CacheForget {
        dev: DEV,
        ino: 1,
        offset: 0,
    };
    machine.call(FS, forget).unwrap();
    assert_eq!(linux(&mut machine, linux::__NR_munmap, &[AT, PAGE]), Ok(0));
    file(&mut machine, AT, 1, 1, 1);
    let before = machine.page_ins;
    assert_eq!(machine.read(INIT, AT), Ok(byte(1, 0)));
    assert_eq!(machine.page_ins, before + 1);
}

/// Holes are pages like others to VM: the file system gives zeroes (V10). Here the two that
/// are VM's own: an inode number in its second life, and the tail behind an exec's data.
#[test]
fn m8_a_reused_inode_has_new_data_and_a_tail_has_zeroes() {
    let mut machine = Machine::new(8);
    machine.cache(1, 0);
    file(&mut machine, AT, 1, 1, 1);
    assert_eq!(machine.read(INIT, AT + 5), Ok(byte(1, 5)));
    // Freed: the file system has VM forget it, and publishes another page of that name.
    let forget = proto::CacheForget {
        dev: DEV,
        ino: 1,
        offset: 0,
    };
    machine.call(FS, forget).unwrap();
    let page = machine.fs_page();
    machine.write(FS, page + 5, 99).unwrap();
    let set = proto::CacheSet {
        addr: page,
        dev: DEV,
        ino: 1,
        offset: 0,
    };
    machine.call(FS, set).unwrap();
    machine
        .call(FS, proto::CacheRelease { addr: page })
        .unwrap();
    file(&mut machine, AT + PAGE, 1, 1, 1);
    assert_eq!(machine.read(INIT, AT + PAGE + 5), Ok(99));
    assert_eq!(
        machine.read(INIT, AT + 5),
        Ok(byte(1, 5)),
        "the old mapping keeps its page"
    );

    let clear_end = 100;
    *machine.references.entry((DEV, 2)).or_insert(0) += 1;
    let map = proto::VfsMmap {
        target: INIT,
        dev: DEV,
        ino: 2,
        offset: 0,
        addr: AT + 4 * PAGE,
        len: 2 * PAGE,
        prot_clearend: 3 | clear_end << 16,
    };
    machine.call(Endpoint::VFS, map).unwrap();
    let last = AT + 6 * PAGE - 1;
    assert_eq!(machine.read(INIT, last), Ok(0));
    assert_eq!(machine.read(INIT, last + 1 - clear_end), Ok(0));
    let before = PAGE + PAGE - clear_end - 1;
    assert_eq!(machine.read(INIT, last - clear_end), Ok(byte(2, before)));
    assert_eq!(machine.read(INIT, AT + 4 * PAGE), Ok(byte(2, 0)));
    assert_eq!(machine.read(INIT, last + 1), Err(SIGSEGV));
}

/// VFS calls VM, for an exec, while the answer about memory is under way.
#[test]
fn m9_an_answer_about_memory_is_never_the_reply_to_a_call() {
    let mut machine = Machine::new(8);
    file(&mut machine, AT, 2, 1, 1);
    machine.hold = true;
    handle(&mut machine, 7, 2 * PAGE, false);
    *machine.references.entry((DEV, 2)).or_insert(0) += 1;
    let map = proto::VfsMmap {
        target: INIT,
        dev: DEV,
        ino: 2,
        offset: 0,
        addr: AT + 4 * PAGE,
        len: PAGE,
        prot_clearend: 1,
    };
    let reply = machine.message(Endpoint::VFS, Class::Call, map.encode());
    assert_eq!(reply_result::<()>(&reply.expect("at once")), Ok(()));
    assert_eq!(handled(&mut machine), [], "the memory is not there yet");
    machine.hold = false;
    machine.release();
    // The reply to VFS was the only one: what comes late is a post with its own number.
    let replies = machine.seen.iter();
    let replies = replies.filter(|effect| matches!(effect, Effect::Reply(Endpoint::VFS, _)));
    assert_eq!(replies.count(), 0);
    assert_eq!(handled(&mut machine), [(7, Ok(()))]);
}

#[test]
fn msync_waits_for_each_file_that_it_shares_and_tells_the_first_failure() {
    let mut machine = Machine::new(8);
    let m = &mut machine;
    let shared = u64::from(linux::MAP_SHARED | linux::MAP_FIXED);
    for (page, ino) in [(0, 1), (1, 2), (2, 1)] {
        let args = [AT + page * PAGE, PAGE, 3, shared, ino, 0];
        linux(m, linux::__NR_mmap, &args).unwrap();
        m.write(INIT, AT + page * PAGE, 1).unwrap();
    }
    m.hold_syncs = true;
    let args = |flags: u32| [AT, 3 * PAGE, u64::from(flags)];
    let asynchronous = m.linux(INIT, linux::__NR_msync, &args(linux::MS_ASYNC));
    assert_eq!(asynchronous, Some(Ok(0)));
    m.write(INIT, AT, 2).unwrap();
    m.seen.clear();
    assert_eq!(
        m.linux(INIT, linux::__NR_msync, &args(linux::MS_SYNC)),
        None
    );
    let mut results = Vec::new();
    for status in [Err(Errno::EIO), Ok(())] {
        let kinds: Vec<u64> = m.seen.iter().filter_map(kind_to_vfs).collect();
        let sync = to_sync(m);
        results.push(sync.ino);
        if results.len() == 1 {
            // What was changed is told of before.
            assert_eq!(kinds, [vfs::PagesWritten::KIND, vfs::SyncFile::KIND]);
        }
        let txn = sync.txn;
        let done = proto::SyncDone { txn, status }.encode();
        // A second answer is nobody's.
        m.message(Endpoint::VFS, Class::Post, done);
        m.message(Endpoint::VFS, Class::Post, done);
    }
    results.sort_unstable();
    assert_eq!(results, [1, 2], "each file once");
    let failed = Message::new(abi::errno::result_to_word(Err(Errno::EIO)));
    let replies: Vec<_> = m.seen.drain(..).collect();
    assert_eq!(replies, [Effect::Reply(INIT, failed)]);

    // Its process is gone before the answer: nobody is answered.
    m.linux(INIT, linux::__NR_msync, &args(linux::MS_SYNC));
    m.call(Endpoint::PM, proto::Exit { who: INIT }).unwrap();
    let (txn, status) = (to_sync(m).txn, Ok(()));
    m.message(
        Endpoint::VFS,
        Class::Post,
        proto::SyncDone { txn, status }.encode(),
    );
    assert!(m.seen.is_empty());
}

/// The file that VFS was asked to write back.
fn to_sync(machine: &mut Machine) -> vfs::SyncFile {
    let asked = machine.seen.drain(..).find_map(|effect| match effect {
        Effect::Post(Endpoint::VFS, message) if message.kind == vfs::SyncFile::KIND => {
            vfs::SyncFile::decode(&message)
        }
        _ => None,
    });
    asked.expect("a file to write back")
}

fn kind_to_vfs(effect: &Effect) -> Option<u64> {
    match effect {
        Effect::Post(Endpoint::VFS, message) => Some(message.kind),
        _ => None,
    }
}
