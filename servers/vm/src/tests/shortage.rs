//! Memory is used up.

use super::machine::{INIT, Machine, answer};
use crate::fault::Access;
use crate::frames::Claim;
use crate::server::Effect;
use abi::proto::{pm, vm as proto};
use abi::{Class, Endpoint, Errno, Message, PAGE, Request};
use linux_raw_sys::general as linux;
use std::vec;
use std::vec::Vec;

const OTHER: Endpoint = Endpoint::new(40, 1);
const SIGKILL: i32 = 9;

/// Maps `pages` of a process.
fn map(machine: &mut Machine, who: Endpoint, pages: u64) -> u64 {
    let flags = (linux::MAP_PRIVATE | linux::MAP_ANONYMOUS | linux::MAP_NORESERVE) as u64;
    let args = [0, pages * PAGE, 3, flags, u64::MAX, 0];
    machine
        .linux(who, linux::__NR_mmap, &args)
        .unwrap()
        .unwrap()
}

/// A process that has used up what programs may have, and one that waits for a page.
fn exhausted() -> (Machine, u64) {
    let mut machine = Machine::new(4);
    let new = proto::NewSpace {
        who: OTHER,
        service: false,
    };
    machine.call(Endpoint::RS, new).unwrap();
    for page in 0..200 {
        machine.cache(1, page * PAGE);
    }
    let at = map(&mut machine, OTHER, 4096);
    let waits = (0..4096)
        .map(|page| machine.access(OTHER, at + page * PAGE, Access::Write))
        .find_map(Result::err);
    assert_eq!(waits, Some(0), "no answer");
    let figures = machine.call(Endpoint::RS, proto::VmCounters {}).unwrap();
    assert_eq!(figures.cached, 0, "clean pages go before processes do");
    assert_eq!(asked(&mut machine), vec![OTHER]);
    (machine, at)
}

/// For whom PM was asked to choose.
fn asked(machine: &mut Machine) -> Vec<Endpoint> {
    let seen = machine.seen.drain(..);
    let asked = seen.filter_map(|effect| match effect {
        Effect::Post(Endpoint::PM, message) => pm::OutOfMemory::decode(&message),
        _ => None,
    });
    asked.map(|request| request.who).collect()
}

fn done(machine: &mut Machine, killed: u64) {
    let done = answer::<pm::OutOfMemory>(1, Ok(pm::Killed { processes: killed }));
    machine.message(Endpoint::PM, Class::Post, done);
}

/// Whether `who` was answered, and how.
fn answers(machine: &mut Machine, who: Endpoint) -> Vec<u64> {
    let seen = machine.seen.drain(..);
    let answers = seen.filter_map(|effect| match effect {
        Effect::Reply(to, message) if to == who => Some(message.kind),
        _ => None,
    });
    answers.collect()
}

#[test]
fn who_needs_a_page_waits_until_another_has_made_room() {
    let (mut machine, _) = exhausted();
    let at = map(&mut machine, INIT, 1);
    assert_eq!(machine.access(INIT, at, Access::Write), Err(0));
    assert_eq!(asked(&mut machine), vec![], "once");
    let footprint = |machine: &mut Machine, who| {
        let request = proto::Footprint { who };
        machine.call(Endpoint::PM, request).unwrap().bytes
    };
    assert!(footprint(&mut machine, OTHER) > 1 << 20);
    assert!(footprint(&mut machine, INIT) < 64 << 10);
    machine
        .call(Endpoint::PM, proto::Exit { who: OTHER })
        .unwrap();
    assert_eq!(answers(&mut machine, INIT), vec![0]);
    assert_ne!(machine.entry(INIT, at), 0);
    done(&mut machine, 1);
    assert_eq!(asked(&mut machine), vec![]);
}

#[test]
fn who_waits_ends_when_nobody_else_may() {
    let (mut machine, _) = exhausted();
    let before = machine.frames().free();
    done(&mut machine, 0);
    assert_eq!(machine.signal(OTHER), SIGKILL);
    machine
        .call(Endpoint::PM, proto::Exit { who: OTHER })
        .unwrap();
    assert!(machine.frames().free() > before + 256);
}

#[test]
fn a_death_is_answered_although_it_waits() {
    let (mut machine, _) = exhausted();
    let free = machine.frames().free();
    machine
        .call(Endpoint::PM, proto::Exit { who: OTHER })
        .unwrap();
    assert!(machine.frames().free() > free);
    let figures = machine.call(Endpoint::RS, proto::VmCounters {}).unwrap();
    assert_eq!(figures.waiting, 0);
}

#[test]
fn services_take_what_programs_leave_and_programs_make_room_then() {
    let (mut machine, _) = exhausted();
    done(&mut machine, 1);
    assert_eq!(asked(&mut machine), vec![OTHER], "it was not enough");
    let kept = machine.frames().kept_from(Claim::Service);
    let service = |machine: &mut Machine| {
        let request = proto::Mmap {
            target: Endpoint::SELF,
            addr: 0,
            len: PAGE,
            prot: proto::Prot::READ | proto::Prot::WRITE,
            flags: proto::MapFlags::PREALLOC,
        };
        machine.call(Endpoint::VFS, request)
    };
    let mut taken = 0;
    while service(&mut machine).is_ok() {
        taken += 1;
    }
    assert!(taken > 100, "{taken}");
    assert!(machine.frames().free() >= kept, "VM's own");
    assert!(machine.frames().low());
    // A call that would make VM keep something waits, and a fork fails.
    let flags = (linux::MAP_PRIVATE | linux::MAP_ANONYMOUS) as u64;
    let words = [0, PAGE, 3, flags, u64::MAX, 0];
    let mut message = Message::new(linux::__NR_mmap as u64);
    message.words[..6].copy_from_slice(&words);
    assert!(machine.message(INIT, Class::Linux, message).is_none());
    let fork = proto::Fork {
        parent: INIT,
        child: Endpoint::new(41, 1),
        share: false,
    };
    assert_eq!(machine.call(Endpoint::PM, fork), Err(Errno::ENOMEM));
    machine
        .call(Endpoint::PM, proto::Exit { who: OTHER })
        .unwrap();
    let answers = answers(&mut machine, INIT);
    assert_eq!(answers.len(), 1);
    assert!(abi::errno::result_from_word(answers[0]).is_ok());
}

#[test]
fn clean_pages_go_before_a_process_although_they_are_mapped() {
    let mut machine = Machine::new(4);
    let new = proto::NewSpace {
        who: OTHER,
        service: false,
    };
    machine.call(Endpoint::RS, new).unwrap();
    const PAGES: u64 = 200;
    for page in 0..PAGES {
        machine.cache(1, page * PAGE);
    }
    let args = [0, PAGES * PAGE, 1, linux::MAP_PRIVATE as u64, 1, 0];
    let text = machine.linux(INIT, linux::__NR_mmap, &args);
    let text = text.unwrap().unwrap();
    for page in 0..PAGES {
        machine.read(INIT, text + page * PAGE).unwrap();
    }
    let at = map(&mut machine, OTHER, 4096);
    let spare = machine.frames().free() - machine.frames().kept_from(Claim::Program);
    let written = (0..4096)
        .take_while(|page| {
            machine
                .access(OTHER, at + page * PAGE, Access::Write)
                .is_ok()
        })
        .count() as u32;
    assert!(written + 16 > spare + PAGES as u32, "{written} of {spare}");
    assert_eq!(asked(&mut machine), vec![OTHER]);
    let mapped = (0..PAGES).filter(|page| machine.entry(INIT, text + page * PAGE) != 0);
    assert_eq!(mapped.count(), 0);
    done(&mut machine, 1);
    assert_eq!(asked(&mut machine), vec![OTHER]);
}

/// A page comes, another makes room of it before its own process can map it, and by then there are
/// frames: nobody ends for that, however often it happens.
#[test]
fn a_page_that_another_made_room_of_is_asked_for_again() {
    let mut machine = Machine::new(4);
    let args = [0, PAGE, 1, linux::MAP_PRIVATE as u64, 9, 0];
    let at = machine.linux(INIT, linux::__NR_mmap, &args);
    let at = at.unwrap().unwrap();
    machine.hold = true;
    assert_eq!(machine.access(INIT, at, Access::Read), Err(0));
    for _ in 0..20 {
        let request = machine.held.pop_front().unwrap();
        machine.cache(9, 0);
        let frames = machine.vm().pool.frames;
        assert_eq!(machine.vm().pool.cache.evict(frames, 1), 1);
        machine.empty = true;
        machine.answer(request);
        machine.settle();
        assert_eq!(answers(&mut machine, INIT), vec![]);
    }
    let request = machine.held.pop_front().unwrap();
    machine.empty = false;
    machine.answer(request);
    machine.settle();
    assert_eq!(answers(&mut machine, INIT), vec![0]);
}

/// Frames are there, and yet the page does not come: not for ever, and not for a refusal or two.
#[test]
fn who_waits_in_vain_makes_room() {
    let mut machine = Machine::new(4);
    let args = [0, PAGE, 1, linux::MAP_PRIVATE as u64, 9, 0];
    let at = machine.linux(INIT, linux::__NR_mmap, &args);
    let at = at.unwrap().unwrap();
    machine.hold = true;
    machine.no_memory = true;
    assert_eq!(machine.access(INIT, at, Access::Read), Err(0));
    let mut tries = 0;
    while let Some(request) = machine.held.pop_front() {
        assert_eq!(asked(&mut machine), vec![], "after {tries}");
        machine.answer(request);
        machine.settle();
        tries += 1;
        assert!(tries < 100);
    }
    assert!(tries > 2, "{tries}");
    assert_eq!(asked(&mut machine), vec![INIT]);
    // Somebody has gone, and now there is memory.
    machine.no_memory = false;
    done(&mut machine, 1);
    machine.release();
    assert_eq!(answers(&mut machine, INIT), vec![0]);
    assert_ne!(machine.entry(INIT, at), 0);
}

/// A page comes from its file and goes again, since what programs need to map it is lacking: it comes once more.
#[test]
fn a_page_that_goes_before_there_is_memory_to_map_it_is_asked_for_again() {
    let mut machine = Machine::new(4);
    let new = proto::NewSpace {
        who: OTHER,
        service: false,
    };
    machine.call(Endpoint::RS, new).unwrap();
    let args = [0, PAGE, 1, linux::MAP_PRIVATE as u64, 9, 0];
    let at = machine.linux(INIT, linux::__NR_mmap, &args);
    let at = at.unwrap().unwrap();
    machine.hold = true;
    assert_eq!(machine.access(INIT, at, Access::Read), Err(0));
    let all = map(&mut machine, OTHER, 4096);
    let waits = (0..4096)
        .map(|page| machine.access(OTHER, all + page * PAGE, Access::Write))
        .find_map(Result::err);
    assert_eq!(waits, Some(0));
    machine.release();
    machine.hold = false;
    let signals = machine.seen.iter().filter_map(|effect| match effect {
        Effect::Post(Endpoint::PM, message) if message.kind == pm::FaultSignal::KIND => {
            pm::FaultSignal::decode(message)
        }
        _ => None,
    });
    let signals: Vec<_> = signals.map(|r| (r.who, r.signal)).collect();
    assert_eq!(signals, vec![], "for lack of memory");
    machine
        .call(Endpoint::PM, proto::Exit { who: OTHER })
        .unwrap();
    machine.release();
    assert_eq!(answers(&mut machine, INIT), vec![0]);
    assert_ne!(machine.entry(INIT, at), 0);
}
