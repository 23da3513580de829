//! Requests that wait for VFS: faults, the kernel's memory requests, handle-memory. What
//! `tests/rows.rs` sees in the guest (the rows M) is not repeated: here are the faults of
//! programs, orders of things and shortages that are easier to make on the host.

use super::machine::{DEV, FS, INIT, Machine, answer, byte};
use crate::server::Effect;
use abi::kernel::MemoryRequest;
use abi::message::reply_result;
use abi::message::{answer_result, transaction};
use abi::proto::{vfs, vm as proto};
use abi::{Class, Endpoint, Errno, Message, PAGE, Request};
use linux_raw_sys::general as linux;
use std::vec::Vec;

const SIGBUS: i32 = 7;
const SIGSEGV: i32 = 11;

fn map_file(machine: &mut Machine, ino: u64, pages: u64, prot: u64) -> u64 {
    let args = [0, pages * PAGE, prot, linux::MAP_PRIVATE as u64, ino, 0];
    machine
        .linux(INIT, linux::__NR_mmap, &args)
        .unwrap()
        .unwrap()
}

fn map_anonymous(machine: &mut Machine, at: u64, pages: u64, prot: u64) -> u64 {
    let fixed = if at == 0 { 0 } else { linux::MAP_FIXED };
    let flags = (linux::MAP_PRIVATE | linux::MAP_ANONYMOUS | fixed) as u64;
    machine
        .linux(
            INIT,
            linux::__NR_mmap,
            &[at, pages * PAGE, prot, flags, u64::MAX, 0],
        )
        .unwrap()
        .unwrap()
}

fn handle(machine: &mut Machine, txn: u64, addr: u64, len: u64, write: bool) {
    let request = proto::HandleMemory {
        who: INIT,
        addr,
        len,
        write,
    };
    machine.message(Endpoint::VFS, Class::Post, request.ask(txn));
}

fn handled(machine: &mut Machine) -> Vec<(u64, Result<(), Errno>)> {
    machine
        .seen
        .drain(..)
        .filter_map(|effect| match effect {
            Effect::Post(Endpoint::VFS, message) => Some(message),
            _ => None,
        })
        .filter(|message| message.kind == proto::HandleMemory::ANSWER)
        .map(|message| {
            let present = answer_result::<proto::HandleMemory>(&message);
            let status = present.and_then(|present| present.status);
            (transaction(&message), status)
        })
        .collect()
}

fn memory_replies(machine: &mut Machine) -> Vec<(Endpoint, Result<(), Errno>)> {
    machine
        .seen
        .drain(..)
        .filter_map(|effect| match effect {
            Effect::MemoryReply(who, result) => Some((who, result)),
            _ => None,
        })
        .collect()
}

#[test]
fn waiting_requests_are_answered_in_order_and_share_a_page_in() {
    let mut machine = Machine::new(8);
    let at = map_file(&mut machine, 1, 4, 1);
    machine.hold = true;
    handle(&mut machine, 1, at, 1, false);
    handle(&mut machine, 2, at + 2 * PAGE, 1, false);
    handle(&mut machine, 3, at + 5, 1, false);
    assert_eq!(
        machine.read(INIT, at + 9),
        Err(0),
        "the fault waits as well"
    );
    assert_eq!(machine.page_ins, 2);
    // VM serves others meanwhile.
    map_anonymous(&mut machine, 0, 1, 3);
    machine.hold = false;
    machine.release();
    let resumed = machine.seen.contains(&Effect::Reply(INIT, Message::new(0)));
    assert!(resumed);
    assert_eq!(
        handled(&mut machine),
        [(1, Ok(())), (3, Ok(())), (2, Ok(()))]
    );
    assert_eq!(machine.page_ins, 2);
}

#[test]
fn a_page_is_asked_for_once_only() {
    let mut machine = Machine::new(8);
    let at = map_file(&mut machine, 1, 4, 1);
    machine.empty = true;
    handle(&mut machine, 1, at, 1, false);
    assert_eq!(handled(&mut machine), [(1, Err(Errno::EFAULT))]);
    assert_eq!(machine.page_ins, 1);
    assert_eq!(machine.read(INIT, at), Err(SIGBUS));
    assert_eq!(machine.page_ins, 2);
    // The next attempt asks again.
    machine.empty = false;
    assert_eq!(machine.read(INIT, at), Ok(byte(1, 0)));
}

#[test]
fn an_io_error_is_a_bus_error() {
    let mut machine = Machine::new(8);
    machine.broken.push(1);
    let at = map_file(&mut machine, 1, 4, 1);
    assert_eq!(machine.read(INIT, at), Err(SIGBUS));
}

#[test]
fn vfs_and_file_systems_never_wait_for_vfs() {
    let mut machine = Machine::new(8);
    let at = map_file(&mut machine, 1, 4, 1);
    let anonymous = map_anonymous(&mut machine, 0, 1, 3);
    // The file system became one by its first cache call.
    machine.cache(9, 0);
    let request = |requestor: Endpoint, address, write| MemoryRequest {
        requestor: requestor.0,
        target: INIT.0,
        address,
        len: 1,
        write,
        soft: 0,
    };
    for who in [Endpoint::VFS, FS] {
        machine.memory_request(request(who, at, 0));
        assert_eq!(memory_replies(&mut machine), [(who, Err(Errno::EFAULT))]);
        machine.memory_request(request(who, anonymous, 1));
        assert_eq!(memory_replies(&mut machine), [(who, Ok(()))]);
    }
    assert_eq!(machine.page_ins, 0);
    machine.memory_request(request(Endpoint::PM, at, 0));
    assert_eq!(memory_replies(&mut machine), [(Endpoint::PM, Ok(()))]);
}

#[test]
fn the_copy_policy_decides_what_a_request_waits_for() {
    let mut machine = Machine::new(8);
    let at = map_file(&mut machine, 1, 4, 1);
    let anonymous = map_anonymous(&mut machine, 0, 1, 3);
    machine.cache(9, 0);
    let request = |requestor: Endpoint, address, soft| MemoryRequest {
        requestor: requestor.0,
        target: INIT.0,
        address,
        len: 1,
        write: 0,
        soft,
    };
    // file-only: nothing is asked for, what needs nobody is repaired.
    for who in [Endpoint::PM, FS] {
        machine.memory_request(request(who, at, 1));
        assert_eq!(memory_replies(&mut machine), [(who, Err(Errno::EFAULT))]);
        machine.memory_request(request(who, anonymous, 1));
        assert_eq!(memory_replies(&mut machine), [(who, Ok(()))]);
    }
    assert_eq!(machine.page_ins, 0);
    // transparent: even for those who are needed to bring the page.
    machine.vm().deadlocks = true;
    machine.memory_request(request(FS, at, 0));
    assert_eq!(memory_replies(&mut machine), [(FS, Ok(()))]);
    assert_eq!(machine.page_ins, 1);
}

/// D3: VFS cannot wait for VM in a call, because there is no such call.
#[test]
fn handle_memory_is_not_a_call() {
    let mut machine = Machine::new(8);
    let request = proto::HandleMemory {
        who: INIT,
        addr: 0x1000,
        len: 1,
        write: false,
    };
    let refused = machine.message(Endpoint::VFS, Class::Call, request.encode());
    assert_eq!(refused, Some(Message::error(Errno::ENOSYS)));
}

#[test]
fn death_while_waiting_is_harmless() {
    let mut machine = Machine::new(8);
    let at = map_file(&mut machine, 1, 4, 1);
    machine.hold = true;
    let before = machine.page_ins;
    handle(&mut machine, 1, at, 1, false);
    assert_eq!(machine.read(INIT, at), Err(0));
    machine.memory_request(MemoryRequest {
        requestor: Endpoint::PM.0,
        target: INIT.0,
        address: at,
        len: 1,
        write: 0,
        soft: 0,
    });
    assert_eq!(machine.page_ins, before + 1);
    machine
        .call(Endpoint::PM, proto::Exit { who: INIT })
        .unwrap();
    let replied = machine
        .seen
        .contains(&Effect::MemoryReply(Endpoint::PM, Err(Errno::ESRCH)));
    assert!(replied);
    assert_eq!(handled(&mut machine), [(1, Err(Errno::ESRCH))]);
    // A new process in the slot is not confused with the old one.
    let successor = Endpoint::new(INIT.slot(), 2);
    let new = proto::NewSpace {
        who: successor,
        service: false,
    };
    machine.call(Endpoint::PM, new).unwrap();
    machine.hold = false;
    machine.release();
    assert!(machine.seen.is_empty());
    assert_eq!(machine.read(successor, at), Err(SIGSEGV));
}

#[test]
fn death_during_mmap_gives_the_file_back() {
    let mut machine = Machine::new(8);
    let mut message = Message::new(linux::__NR_mmap as u64);
    message.words = [0, PAGE, 1, linux::MAP_PRIVATE as u64, 3, 0, 0];
    machine.vm().handle(INIT, Class::Linux, &message);
    let mut effects = Vec::new();
    machine.vm().take_effects(&mut effects);
    machine
        .call(Endpoint::PM, proto::Exit { who: INIT })
        .unwrap();
    let Some(Effect::Post(_, message)) = effects.pop() else {
        panic!("no lookup")
    };
    assert_eq!(message.kind, vfs::FdLookup::KIND);
    machine.references.insert((DEV, 3), 1);
    let found = vfs::FoundFile {
        dev: DEV,
        ino: 3,
        access: 1,
    };
    let done = answer::<vfs::FdLookup>(transaction(&message), Ok(found));
    machine.message(Endpoint::VFS, Class::Post, done);
    assert_eq!(machine.references[&(DEV, 3)], 0);
    assert!(machine.seen.is_empty());
}

#[test]
fn references_are_given_back_when_the_last_mapping_goes() {
    let mut machine = Machine::new(8);
    let first = map_file(&mut machine, 1, 4, 1);
    let second = map_file(&mut machine, 1, 4, 1);
    assert_eq!(machine.references[&(DEV, 1)], 2);
    let protect = [first + PAGE, PAGE, 3];
    machine.linux(INIT, linux::__NR_mprotect, &protect);
    machine.linux(INIT, linux::__NR_munmap, &[second, 4 * PAGE]);
    // Over itself: the old goes, the new comes, in one step.
    let again = [
        first,
        4 * PAGE,
        1,
        (linux::MAP_PRIVATE | linux::MAP_FIXED) as u64,
        1,
        0,
    ];
    machine.linux(INIT, linux::__NR_mmap, &again);
    assert_eq!(machine.references[&(DEV, 1)], 3);
    let moved = machine
        .linux(INIT, linux::__NR_mremap, &[first, 4 * PAGE, 64 * PAGE, 1])
        .unwrap()
        .unwrap();
    assert_eq!(machine.references[&(DEV, 1)], 3);
    machine.linux(INIT, linux::__NR_munmap, &[moved, 64 * PAGE]);
    assert_eq!(machine.references[&(DEV, 1)], 0);
}

#[test]
fn references_on_several_files_go_together() {
    let mut machine = Machine::new(8);
    for ino in 1..=5 {
        map_file(&mut machine, ino, 1, 1);
    }
    machine
        .call(Endpoint::PM, proto::Exit { who: INIT })
        .unwrap();
    assert!((1..=5).all(|ino| machine.references[&(DEV, ino)] == 0));
    assert_eq!(machine.closes, 2);
}

#[test]
fn populate_waits_for_its_pages() {
    let mut machine = Machine::new(8);
    machine.hold = true;
    let flags = (linux::MAP_PRIVATE | linux::MAP_POPULATE) as u64;
    let args = [0, 2 * PAGE, 1, flags, 4, 0];
    assert_eq!(machine.linux(INIT, linux::__NR_mmap, &args), None);
    machine.hold = false;
    machine.release();
    let Some(Effect::Reply(INIT, message)) = machine.seen.pop_back() else {
        panic!("no reply")
    };
    let at = abi::errno::result_from_word(message.kind).unwrap();
    assert_ne!(machine.entry(INIT, at + PAGE), 0);
}

#[test]
fn a_failed_fork_leaves_the_parent_alone() {
    let mut machine = Machine::new(4);
    let at = map_anonymous(&mut machine, 0, 300, 3);
    for page in 0..300 {
        machine.write(INIT, at + page * PAGE, page as u8).unwrap();
    }
    let mut children = Vec::new();
    for slot in 30..200 {
        let child = Endpoint::new(slot, 1);
        let fork = proto::Fork {
            parent: INIT,
            child,
            share: false,
        };
        match machine.call(Endpoint::PM, fork) {
            Ok(()) => children.push(child),
            Err(error) => {
                assert_eq!(error, Errno::ENOMEM);
                break;
            }
        }
    }
    assert!(children.len() < 170, "memory never ran out");
    for who in children {
        machine.call(Endpoint::PM, proto::Exit { who }).unwrap();
    }
    for page in 0..300 {
        assert_eq!(machine.read(INIT, at + page * PAGE), Ok(page as u8));
        machine.write(INIT, at + page * PAGE, 1).unwrap();
    }
}

#[test]
fn a_shared_space_is_left_by_clear() {
    let mut machine = Machine::new(8);
    let at = map_anonymous(&mut machine, 0, 1, 3);
    let child = Endpoint::new(30, 1);
    let fork = proto::Fork {
        parent: INIT,
        child,
        share: true,
    };
    machine.call(Endpoint::PM, fork).unwrap();
    machine.write(child, at, 42).unwrap();
    assert_eq!(machine.read(INIT, at), Ok(42));
    let clear = proto::ProcCtl {
        param: proto::PROCCTL_CLEAR,
        who: child,
    };
    assert_eq!(machine.call(INIT, clear), Err(Errno::EPERM));
    machine.call(Endpoint::VFS, clear).unwrap();
    assert_eq!(machine.read(child, at), Err(SIGSEGV));
    assert_eq!(machine.read(INIT, at), Ok(42));
    let bad = proto::ProcCtl { param: 9, ..clear };
    assert_eq!(machine.call(Endpoint::VFS, bad), Err(Errno::EINVAL));
    let dead = proto::ProcCtl {
        who: Endpoint::new(30, 7),
        ..clear
    };
    assert_eq!(machine.call(Endpoint::VFS, dead), Err(Errno::EINVAL));
}

#[test]
fn third_parties_need_the_right() {
    let mut machine = Machine::new(8);
    let map = proto::Mmap {
        target: INIT,
        addr: abi::kernel::USER_END,
        len: PAGE,
        prot: proto::Prot::READ,
        flags: proto::MapFlags::THIRD_PARTY | proto::MapFlags::FIXED,
    };
    assert_eq!(machine.call(Endpoint::VFS, map), Err(Errno::ENOMEM));
    let exit = proto::Exit { who: INIT };
    assert_eq!(machine.call(FS, exit), Err(Errno::EPERM));
    // Only drivers have devices, and only those that RS gave them.
    const DISK: Endpoint = Endpoint::service(abi::role::Role::Disk, 6, 0);
    let (who, service) = (DISK, true);
    machine
        .call(Endpoint::RS, proto::NewSpace { who, service })
        .unwrap();
    let physical = proto::MapPhysical {
        phys: 0xfeb0_0000,
        len: PAGE,
    };
    assert_eq!(machine.call(DISK, physical), Err(Errno::EPERM));
    let allow = proto::AllowPhysical {
        target: DISK,
        phys: 0xfeb0_0000,
        len: 0x200,
    };
    assert_eq!(machine.call(DISK, allow), Err(Errno::EPERM));
    machine.call(Endpoint::RS, allow).unwrap();
    let at = machine.call(DISK, physical).unwrap().addr;
    let entry = machine.entry(DISK, at);
    assert_eq!(entry & crate::table::ADDRESS, 0xfeb0_0000);
    assert_eq!(
        entry & crate::table::UNCACHED,
        crate::table::UNCACHED,
        "device registers are not cached"
    );
    // Memory is nobody's to map, allowed or not.
    let memory = proto::AllowPhysical {
        phys: 0x10_0000,
        ..allow
    };
    machine.call(Endpoint::RS, memory).unwrap();
    let steal = proto::MapPhysical {
        phys: 0x10_0000,
        len: PAGE,
    };
    assert_eq!(machine.call(DISK, steal), Err(Errno::EPERM));
}

#[test]
fn a_malformed_request_is_refused() {
    let mut machine = Machine::new(8);
    let mut message = Message::new(proto::Mmap::KIND);
    message.words = [u64::MAX; 7];
    let reply = machine.message(FS, Class::Call, message).unwrap();
    assert_eq!(reply_result::<()>(&reply), Err(Errno::EINVAL));
    let reply = machine
        .message(FS, Class::Call, Message::new(0x1fff))
        .unwrap();
    assert_eq!(reply_result::<()>(&reply), Err(Errno::ENOSYS));
}

#[test]
fn cache_pages_are_the_file_systems_own() {
    let mut machine = Machine::new(8);
    let page = machine.fs_page();
    machine.write(FS, page, 1).unwrap();
    let set = proto::CacheSet {
        addr: page,
        dev: DEV,
        ino: 8,
        offset: 0,
    };
    machine.call(FS, set).unwrap();
    machine.call(FS, set).unwrap();
    let other = proto::CacheSet { ino: 9, ..set };
    assert_eq!(machine.call(FS, other), Err(Errno::EBUSY));
    let at = map_file(&mut machine, 8, 1, 3);
    assert_eq!(machine.read(INIT, at), Ok(1));
    machine.write(FS, page, 2).unwrap();
    assert_eq!(machine.read(INIT, at), Ok(2), "one page for both");
    machine.write(INIT, at, 7).unwrap();
    assert_eq!(machine.read(FS, page), Ok(2), "private is private");
    machine
        .call(FS, proto::CacheRelease { addr: page })
        .unwrap();
    machine.write(FS, page, 3).unwrap();
    let map = proto::CacheMap {
        addr: page,
        dev: DEV,
        ino: 8,
        offset: 0,
    };
    machine.call(FS, map).unwrap();
    assert_eq!(machine.read(FS, page), Ok(2));
    let forget = proto::CacheForget {
        dev: DEV,
        ino: 8,
        offset: 0,
        end: u64::MAX,
    };
    machine.call(FS, forget).unwrap();
    assert_eq!(machine.call(FS, map), Err(Errno::ENOENT));
    machine
        .call(FS, proto::CacheRelease { addr: page })
        .unwrap();
    machine.write(FS, page, 4).unwrap();
}

#[test]
fn a_row_of_pages_is_put_into_the_cache_up_to_one_that_cannot_be() {
    let mut machine = Machine::new(8);
    let start = 0x7000_0000;
    let map = proto::Mmap {
        target: Endpoint::SELF,
        addr: start,
        len: 4 * PAGE,
        prot: proto::Prot::READ | proto::Prot::WRITE,
        flags: proto::MapFlags::FIXED | proto::MapFlags::PREALLOC,
    };
    machine.call(FS, map).unwrap();
    for page in 0..4 {
        machine.write(FS, start + page * PAGE, page as u8).unwrap();
    }
    let run = proto::CacheSetRun {
        addr: start,
        dev: DEV,
        ino: 8,
        offset: 2 * PAGE,
        count: 4,
    };
    // The third is in use under another name.
    let other = proto::CacheSet {
        addr: start + 2 * PAGE,
        dev: DEV,
        ino: 9,
        offset: 0,
    };
    machine.call(FS, other).unwrap();
    assert_eq!(machine.call(FS, run), Ok(proto::CacheRun { done: 2 }));
    let at = map_file(&mut machine, 8, 4, 1);
    assert_eq!(machine.read(INIT, at + 2 * PAGE), Ok(0));
    assert_eq!(machine.read(INIT, at + 3 * PAGE), Ok(1));
    // Nor may it leave the mapping, wrap around, or be a program's.
    let long = proto::CacheSetRun {
        addr: start + 3 * PAGE,
        ino: 10,
        count: u64::MAX,
        ..run
    };
    assert_eq!(machine.call(FS, long), Ok(proto::CacheRun { done: 1 }));
    assert_eq!(machine.call(INIT, run), Err(Errno::EPERM));
}

#[test]
fn a_forgotten_page_stays_with_those_who_map_it() {
    let mut machine = Machine::new(8);
    machine.cache(1, 0);
    let at = map_file(&mut machine, 1, 1, 1);
    assert_ne!(
        machine.entry(INIT, at),
        0,
        "cached pages are entered at once"
    );
    let forget = proto::CacheForget {
        dev: DEV,
        ino: u64::MAX,
        offset: 0,
        end: u64::MAX,
    };
    machine.call(FS, forget).unwrap();
    assert_eq!(machine.read(INIT, at), Ok(byte(1, 0)));
    assert_eq!(machine.page_ins, 0);
}
