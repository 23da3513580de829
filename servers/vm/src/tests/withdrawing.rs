//! What is taken from a file is taken from all who map it.

use super::machine::{DEV, FS, INIT, Machine, byte};
use crate::server::Effect;
use abi::proto::vfs;
use abi::proto::vm::{self as proto, CacheForget, ObjectAt, PRIVATE_OBJECT};
use abi::{Endpoint, Errno, PAGE, Request};
use linux_raw_sys::general as linux;

const CHILD: Endpoint = Endpoint::new(40, 0);
const SIGBUS: i32 = 7;

fn map(m: &mut Machine, who: Endpoint, flags: u32, pages: u64, ino: u64, offset: u64) -> u64 {
    let prot = u64::from(linux::PROT_READ | linux::PROT_WRITE);
    let args = [0, pages * PAGE, prot, u64::from(flags), ino, offset];
    m.linux(who, linux::__NR_mmap, &args).unwrap().unwrap()
}

fn fork(m: &mut Machine) {
    let fork = proto::Fork {
        parent: INIT,
        child: CHILD,
        share: false,
    };
    m.call(Endpoint::PM, fork).unwrap();
}

fn forget(m: &mut Machine, ino: u64, offset: u64) {
    let dev = DEV;
    m.call(
        FS,
        CacheForget {
            dev,
            ino,
            offset,
            end: u64::MAX,
        },
    )
    .unwrap();
}

#[test]
fn an_empty_range_takes_nothing() {
    let m = &mut Machine::new(16);
    m.cache(7, PAGE);
    m.cache(9, 0);
    let shared = map(m, INIT, linux::MAP_SHARED, 1, 7, PAGE);
    m.write(INIT, shared, 50).unwrap();
    let cached = m.server.as_ref().unwrap().pool.cache.len();
    for (offset, end) in [(PAGE, PAGE), (1, PAGE), (PAGE, 0), (0, 0)] {
        let (dev, ino) = (DEV, 7);
        let empty = CacheForget {
            dev,
            ino,
            offset,
            end,
        };
        m.call(FS, empty).unwrap();
    }
    assert_eq!(m.server.as_ref().unwrap().pool.cache.len(), cached);
    assert_ne!(m.entry(INIT, shared), 0);
}

#[test]
fn truncation_reaches_every_mapping_and_every_copy() {
    let m = &mut Machine::new(16);
    (0..3).for_each(|page| m.cache(7, page * PAGE));
    let shared = map(m, INIT, linux::MAP_SHARED, 3, 7, 0);
    let second = map(m, INIT, linux::MAP_SHARED, 1, 7, 2 * PAGE);
    let private = map(m, INIT, linux::MAP_PRIVATE, 3, 7, 0);
    let other = map(m, INIT, linux::MAP_PRIVATE, 1, 8, PAGE);
    for page in 0..3 {
        m.write(INIT, shared + page * PAGE, 50).unwrap();
        m.write(INIT, private + page * PAGE, 60).unwrap();
    }
    m.write(INIT, other, 70).unwrap();
    fork(m);
    m.seen.clear();
    // In the middle of the first page.
    forget(m, 7, 10);
    m.broken.push(7);
    for who in [INIT, CHILD] {
        assert_eq!(m.read(who, shared), Ok(50));
        assert_eq!(m.read(who, private), Ok(60));
        assert_eq!(m.read(who, other), Ok(70));
        for at in [shared, private]
            .map(|at| [at + PAGE, at + 2 * PAGE])
            .concat()
        {
            assert_eq!(m.entry(who, at), 0);
            assert_eq!(m.read(who, at), Err(SIGBUS));
        }
        assert_eq!(m.write(who, second, 1), Err(SIGBUS));
    }
    // The file has grown again: all agree on what is there now.
    m.broken.clear();
    assert_eq!(m.read(CHILD, second), Ok(byte(7, 2 * PAGE)));
    m.write(INIT, shared + 2 * PAGE, 9).unwrap();
    for at in [second, shared + 2 * PAGE, private + 2 * PAGE] {
        assert_eq!(m.read(CHILD, at), Ok(9));
    }
    m.vm().check().unwrap();
}

#[test]
fn a_page_that_loses_its_name_to_another_is_nobodys() {
    let m = &mut Machine::new(16);
    m.cache(7, 0);
    let shared = map(m, INIT, linux::MAP_SHARED, 1, 7, 0);
    let private = map(m, INIT, linux::MAP_PRIVATE, 1, 7, 0);
    let copy = map(m, INIT, linux::MAP_PRIVATE, 1, 7, 0);
    m.write(INIT, copy, 3).unwrap();
    let before = m.entry(INIT, shared);
    m.cache(7, 0);
    assert_eq!(m.entry(INIT, shared), 0);
    m.write(INIT, shared, 4).unwrap();
    assert_ne!(m.entry(INIT, shared), before);
    assert_eq!(m.read(INIT, private), Ok(4));
    assert_eq!(m.read(INIT, copy), Ok(3));
}

#[test]
fn of_a_file_system_that_is_gone_only_private_mappings_stay() {
    let m = &mut Machine::new(16);
    m.cache(7, 0);
    let shared = map(m, INIT, linux::MAP_SHARED, 1, 7, 0);
    let private = map(m, INIT, linux::MAP_PRIVATE, 1, 7, 0);
    assert_eq!(m.read(INIT, private), Ok(byte(7, 0)));
    forget(m, u64::MAX, 0);
    m.broken.push(7);
    assert_eq!(m.read(INIT, private), Ok(byte(7, 0)));
    m.write(INIT, private, 5).unwrap();
    assert_eq!(m.read(INIT, shared), Err(SIGBUS));
}

#[test]
fn an_object_is_named_by_regions_alone() {
    let m = &mut Machine::new(16);
    let shared = map(m, INIT, linux::MAP_SHARED, 2, 7, PAGE);
    let private = map(m, INIT, linux::MAP_PRIVATE, 2, 7, PAGE);
    let anonymous = linux::MAP_SHARED | linux::MAP_ANONYMOUS;
    let memory = map(m, INIT, anonymous, 2, 0, 0);
    fork(m);
    let at = |m: &mut Machine, who, address| {
        let object = m.call(Endpoint::PM, ObjectAt { who, address });
        object.map(|o| (o.dev, o.ino, o.offset))
    };
    for touched in [false, true] {
        let object = (DEV, 7, 2 * PAGE + 4);
        assert_eq!(at(m, INIT, shared + PAGE + 4), Ok(object));
        assert_eq!(at(m, CHILD, shared + PAGE + 4), Ok(object));
        assert_eq!(at(m, INIT, private).unwrap().0, PRIVATE_OBJECT);
        let (dev, ino, offset) = at(m, INIT, memory + 8).unwrap();
        assert_eq!(at(m, CHILD, memory + 8), Ok((dev, ino, offset)));
        assert!(dev != PRIVATE_OBJECT && dev != DEV && offset == 8);
        assert_eq!(at(m, INIT, 0x10_0000), Err(Errno::EFAULT));
        if !touched {
            m.read(INIT, private).unwrap();
            m.write(CHILD, memory, 1).unwrap();
        }
    }
    let address = memory;
    assert_eq!(
        m.call(FS, ObjectAt { who: INIT, address }),
        Err(Errno::EPERM)
    );
}

fn hole(m: &mut Machine, ino: u64, offset: u64, end: u64) {
    let dev = DEV;
    let forget = CacheForget {
        dev,
        ino,
        offset,
        end,
    };
    m.call(FS, forget).unwrap();
}

#[test]
fn a_hole_takes_what_was_not_copied_and_no_more() {
    let m = &mut Machine::new(24);
    (0..3).for_each(|page| m.cache(7, page * PAGE));
    let shared = map(m, INIT, linux::MAP_SHARED, 3, 7, 0);
    let clean = map(m, INIT, linux::MAP_PRIVATE, 3, 7, 0);
    let copy = map(m, INIT, linux::MAP_PRIVATE, 3, 7, 0);
    for page in 0..3 {
        m.write(INIT, shared + page * PAGE, 50).unwrap();
        assert_eq!(m.read(INIT, clean + page * PAGE), Ok(50));
        m.write(INIT, copy + page * PAGE, 60).unwrap();
    }
    fork(m);
    hole(m, 7, PAGE, 2 * PAGE);
    for who in [INIT, CHILD] {
        for at in [shared, clean] {
            assert_eq!(m.read(who, at), Ok(50));
            assert_eq!(m.entry(who, at + PAGE), 0);
            assert_eq!(m.read(who, at + 2 * PAGE), Ok(50));
        }
        assert_eq!(m.read(who, copy + PAGE), Ok(60));
    }
    for (who, at) in [(INIT, shared), (CHILD, shared), (INIT, clean)] {
        assert_eq!(m.read(who, at + PAGE), Ok(byte(7, PAGE)));
    }
    // Half a page is none.
    let (dev, ino, offset, end) = (DEV, 7, 0, 10);
    let half = CacheForget {
        dev,
        ino,
        offset,
        end,
    };
    assert_eq!(m.call(FS, half), Err(Errno::EINVAL));
    m.vm().check().unwrap();
}

#[test]
fn a_page_that_comes_into_a_hole_is_asked_for_again() {
    let m = &mut Machine::new(24);
    let shared = map(m, INIT, linux::MAP_SHARED, 1, 7, 0);
    m.hold = true;
    let before = m.page_ins;
    assert_eq!(m.read(INIT, shared), Err(0));
    let request = m.held.pop_front().unwrap();
    // It came, and went again before VM heard of it.
    m.cache(7, 0);
    m.empty = true;
    hole(m, 7, 0, PAGE);
    m.answer(request);
    (m.empty, m.hold) = (false, false);
    hole(m, 8, 0, PAGE);
    assert_eq!(m.page_ins, before + 2);
    assert_eq!(m.read(INIT, shared), Ok(byte(7, 0)));
    assert_eq!(m.page_ins, before + 2);
}

#[test]
fn removed_memory_is_a_hole() {
    let m = &mut Machine::new(24);
    let memory = map(m, INIT, linux::MAP_SHARED | linux::MAP_ANONYMOUS, 2, 0, 0);
    m.write(INIT, memory, 1).unwrap();
    m.write(INIT, memory + PAGE, 2).unwrap();
    fork(m);
    let remove = |m: &mut Machine, at: u64, pages: u64| {
        let advice = u64::from(linux::MADV_REMOVE);
        m.linux(INIT, linux::__NR_madvise, &[at, pages * PAGE, advice])
    };
    assert_eq!(remove(m, memory, 1), Some(Ok(0)));
    assert_eq!(m.read(CHILD, memory), Ok(0));
    assert_eq!(m.read(CHILD, memory + PAGE), Ok(2));
    let private = map(m, INIT, linux::MAP_PRIVATE, 1, 7, 0);
    assert_eq!(remove(m, private, 1), Some(Err(Errno::EACCES)));
    assert_eq!(remove(m, 0x10_0000, 1), Some(Err(Errno::ENOMEM)));
    let shared = map(m, INIT, linux::MAP_SHARED, 2, 7, PAGE);
    m.seen.clear();
    assert_eq!(remove(m, shared + PAGE, 1), None);
    let punch = m.seen.iter().find_map(|effect| match effect {
        Effect::Post(Endpoint::VFS, message) => vfs::PunchFile::decode(message),
        _ => None,
    });
    let punch = punch.unwrap();
    assert_eq!((punch.ino, punch.offset, punch.len), (7, 2 * PAGE, PAGE));
}
