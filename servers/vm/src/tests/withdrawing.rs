//! What is taken from a file is taken from all who map it.

use super::machine::{DEV, FS, INIT, Machine, byte};
use abi::proto::vm::{self as proto, CacheForget, ObjectAt, PRIVATE_OBJECT};
use abi::{Endpoint, Errno, PAGE};
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
    m.call(FS, CacheForget { dev, ino, offset }).unwrap();
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
