//! msync(MS_SYNC) waits for VFS. The rows M of the test matrix are in the guest: `tests/rows.rs`.

use super::machine::{INIT, Machine, answer};
use crate::server::Effect;
use crate::table;
use abi::message::transaction;
use abi::proto::{vfs, vm as proto};
use abi::{Class, Endpoint, Errno, Message, PAGE, Request};
use linux_raw_sys::general as linux;
use std::vec::Vec;

const AT: u64 = 0x5000_0000;

fn linux(machine: &mut Machine, number: u32, args: &[u64]) -> Result<u64, Errno> {
    machine.linux(INIT, number, args).expect("a result")
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
        let (txn, sync) = to_sync(m);
        results.push(sync.ino);
        if results.len() == 1 {
            // What was changed is told of before.
            assert_eq!(kinds, [vfs::PagesWritten::KIND, vfs::SyncFile::KIND]);
        }
        let done = answer::<vfs::SyncFile>(txn, status);
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
    let done = answer::<vfs::SyncFile>(to_sync(m).0, Ok(()));
    m.message(Endpoint::VFS, Class::Post, done);
    assert!(m.seen.is_empty());
}

/// The right to write may be taken from a page (the laboratory's layer `read-only`) after the change.
#[test]
fn a_changed_page_that_may_not_be_written_any_more_is_told_of() {
    let mut machine = Machine::new(8);
    let m = &mut machine;
    let shared = u64::from(linux::MAP_SHARED | linux::MAP_FIXED);
    linux(m, linux::__NR_mmap, &[AT, PAGE, 3, shared, 1, 0]).unwrap();
    m.write(INIT, AT, 1).unwrap();
    let entry = m.entry(INIT, AT) & !table::WRITE;
    let leaf = table::leaf(m.frames(), m.bound[&INIT], AT).unwrap();
    table::set_in(m.frames(), leaf, AT, entry);
    m.seen.clear();
    linux(
        m,
        linux::__NR_msync,
        &[AT, PAGE, u64::from(linux::MS_ASYNC)],
    )
    .unwrap();
    let told: Vec<u64> = m.seen.iter().filter_map(kind_to_vfs).collect();
    assert_eq!(told, [vfs::PagesWritten::KIND]);
}

/// The file that VFS was asked to write back.
fn to_sync(machine: &mut Machine) -> (u64, vfs::SyncFile) {
    let asked = machine.seen.drain(..).find_map(|effect| match effect {
        Effect::Post(Endpoint::VFS, message) if message.kind == vfs::SyncFile::KIND => {
            Some((transaction(&message), vfs::SyncFile::decode(&message)?))
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
