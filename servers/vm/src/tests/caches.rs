//! Memory of file systems' caches: who may have how much of it, and how it comes back.

use super::machine::{FS, INIT, Machine, answer};
use crate::fault::Access;
use crate::frames::Claim;
use crate::server::Effect;
use abi::proto::vm::{self as proto, MapFlags, Prot};
use abi::proto::{pm, vfs};
use abi::{Class, Endpoint, Errno, Message, PAGE, Request};
use linux_raw_sys::general as linux;
use std::vec::Vec;

/// A file system with a cache of addresses for all memory, which begins at the address.
fn with_cache() -> (Machine, u64) {
    let mut machine = Machine::new(16);
    let at = machine.call(FS, range(Endpoint::SELF)).unwrap().addr;
    (machine, at)
}

fn range(target: Endpoint) -> proto::Mmap {
    proto::Mmap {
        target,
        addr: 0,
        len: 4096 * PAGE,
        prot: Prot::READ | Prot::WRITE,
        flags: MapFlags::CACHE,
    }
}

fn populate(machine: &mut Machine, addr: u64, pages: u64, needed: bool) -> Result<u64, Errno> {
    let len = pages * PAGE;
    let request = proto::Populate { addr, len, needed };
    machine.call(FS, request).map(|done| done.pages)
}

/// Fills the cache; how many pages it has.
fn fill(machine: &mut Machine, at: u64) -> u64 {
    let pages = populate(machine, at, 4096, false).unwrap();
    assert!(populate(machine, at + pages * PAGE, 16, false).is_err());
    pages
}

/// Requests for pages that VFS got.
fn asked(machine: &mut Machine) -> Vec<u64> {
    let seen = machine.seen.drain(..);
    let asked = seen.filter_map(|effect| match effect {
        Effect::Post(Endpoint::VFS, message) => vfs::GiveBack::decode(&message),
        Effect::Post(Endpoint::PM, message) => {
            assert!(pm::OutOfMemory::decode(&message).is_none(), "PM is asked");
            None
        }
        _ => None,
    });
    asked.map(|request| request.pages).collect()
}

/// The file system gives back `pages` from `at` on.
fn give(machine: &mut Machine, at: u64, pages: u64) {
    if pages > 0 {
        let (addr, len) = (at, pages * PAGE);
        machine.call(FS, proto::Discard { addr, len }).unwrap();
    }
    let done = answer::<vfs::GiveBack>(1, Ok(vfs::GivenBack { pages }));
    machine.message(Endpoint::VFS, Class::Post, done);
}

/// Maps `pages` of INIT and touches them until one has to wait; the address it stopped at.
fn touch(machine: &mut Machine, pages: u64) -> Option<u64> {
    let flags = (linux::MAP_PRIVATE | linux::MAP_ANONYMOUS | linux::MAP_NORESERVE) as u64;
    let args = [0, pages * PAGE, 3, flags, u64::MAX, 0];
    let at = machine.linux(INIT, linux::__NR_mmap, &args);
    let at = at.unwrap().unwrap();
    let mut addresses = (0..pages).map(|page| at + page * PAGE);
    addresses.find(|&at| machine.access(INIT, at, Access::Write).is_err())
}

#[test]
fn a_cache_takes_what_is_free_but_what_programs_may_need_next() {
    let (mut machine, at) = with_cache();
    assert!(machine.call(Endpoint::PM, range(Endpoint::SELF)).is_err());
    let free = machine.frames().free();
    let pages = fill(&mut machine, at);
    let frames = machine.frames();
    assert!(u64::from(free) - pages < 700, "{pages} of {free}");
    assert!(frames.free() >= frames.kept_from(Claim::Cache));
    assert!(frames.kept_from(Claim::Cache) >= frames.kept_from(Claim::Program) + 64);
    let figures = machine.call(Endpoint::RS, proto::VmCounters {}).unwrap();
    assert_eq!(figures.cached, pages * PAGE);
    // With what it needs to go on it is a service like others.
    assert_eq!(populate(&mut machine, at + pages * PAGE, 8, true), Ok(8));
    assert_eq!(asked(&mut machine), []);
}

#[test]
fn a_program_that_needs_memory_gets_the_caches() {
    let (mut machine, at) = with_cache();
    let held = fill(&mut machine, at);
    let stopped = touch(&mut machine, held).expect("more than is free");
    let first = asked(&mut machine);
    assert!(first.len() == 1 && first[0] >= 64, "{first:?}");
    give(&mut machine, at, first[0]);
    assert_ne!(machine.entry(INIT, stopped), 0, "it goes on");
    // And so on, until there is nothing: only then somebody has to end.
    let mut given = first[0];
    loop {
        if touch(&mut machine, 64).is_none() {
            continue;
        }
        let more = asked(&mut machine);
        let more = more.first().map_or(0, |&more| more.min(held - given));
        give(&mut machine, at + given * PAGE, more);
        given += more;
        if more == 0 {
            break;
        }
    }
    assert_eq!(given, held);
    let seen = core::mem::take(&mut machine.seen);
    let mut posts = seen.iter().filter_map(|effect| match effect {
        Effect::Post(Endpoint::PM, message) => pm::OutOfMemory::decode(message),
        _ => None,
    });
    assert!(posts.next().is_some(), "PM chooses now");
}

#[test]
fn caches_are_asked_before_programs_wait() {
    let (mut machine, at) = with_cache();
    fill(&mut machine, at);
    let ahead =
        machine.frames().kept_from(Claim::Cache) - machine.frames().kept_from(Claim::Program);
    assert_eq!(touch(&mut machine, u64::from(ahead) * 3 / 4), None);
    assert_eq!(asked(&mut machine).len(), 1, "once");
}

#[test]
fn a_fork_without_memory_waits_for_caches() {
    let (mut machine, at) = with_cache();
    let held = fill(&mut machine, at);
    touch(&mut machine, held).expect("more than is free");
    let first = asked(&mut machine);
    let child = Endpoint::new(41, 1);
    let fork = proto::Fork {
        parent: INIT,
        child,
        share: false,
    };
    let answered =
        |machine: &mut Machine| machine.message(Endpoint::PM, Class::Call, fork.encode());
    assert_eq!(answered(&mut machine), None, "no answer yet");
    give(&mut machine, at, first[0]);
    let reply = |effect: &Effect| match effect {
        Effect::Reply(Endpoint::PM, message) => Some(*message),
        _ => None,
    };
    let replies: Vec<Message> = machine.seen.iter().filter_map(reply).collect();
    assert_eq!(replies, [Message::new(0)]);
    assert!(machine.vm().space(child).is_ok());
}
