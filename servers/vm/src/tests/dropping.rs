//! Dropping caches: what goes, what must stay, and whose every frame is.

use super::machine::{DEV, FS, INIT, Machine, byte};
use abi::proto::vm::{self as proto, DropCaches, Prot, ServiceFrames, VmFrames};
use abi::{Class, Endpoint, Errno, PAGE, Request};
use linux_raw_sys::general as linux;

fn map_shared(m: &mut Machine, ino: u64, pages: u64) -> u64 {
    let prot = (linux::PROT_READ | linux::PROT_WRITE) as u64;
    let args = [0, pages * PAGE, prot, linux::MAP_SHARED as u64, ino, 0];
    // VFS tells the file before the call goes on.
    match m.linux(INIT, linux::__NR_mmap, &args) {
        Some(result) => result.unwrap(),
        None => panic!("mmap waits"),
    }
}

fn dropped(m: &mut Machine) -> u64 {
    m.call(Endpoint::VFS, DropCaches {}).unwrap().pages
}

#[test]
fn what_nobody_maps_is_dropped_and_fetched_again() {
    let m = &mut Machine::new(16);
    m.fs_page();
    let empty = m.in_use();
    for page in 0..20 {
        m.cache(7, page * PAGE);
    }
    let at = map_shared(m, 7, 4);
    assert_eq!(m.read(INIT, at), Ok(byte(7, 0)));
    let before = m.in_use();
    assert_eq!(dropped(m), 16, "all but what is mapped");
    assert_eq!(m.in_use(), before - 16);
    m.linux(INIT, linux::__NR_munmap, &[at, 4 * PAGE])
        .unwrap()
        .unwrap();
    assert_eq!(dropped(m), 4);
    assert_eq!(m.in_use(), empty);
    let at = map_shared(m, 7, 4);
    let asked = m.page_ins;
    assert_eq!(m.read(INIT, at), Ok(byte(7, 0)));
    assert_eq!(m.page_ins, asked + 1);
}

/// Only the file system's word makes a changed page one that may go.
#[test]
fn a_changed_page_stays_until_its_file_system_has_it() {
    let m = &mut Machine::new(16);
    m.cache(7, 0);
    let at = map_shared(m, 7, 1);
    m.write(INIT, at, 99).unwrap();
    m.linux(INIT, linux::__NR_munmap, &[at, PAGE])
        .unwrap()
        .unwrap();
    assert_eq!(dropped(m), 0);
    let at = map_shared(m, 7, 1);
    assert_eq!(m.read(INIT, at), Ok(99));
    m.linux(INIT, linux::__NR_munmap, &[at, PAGE])
        .unwrap()
        .unwrap();
    let clean = proto::CacheClean {
        dev: DEV,
        ino: 7,
        offset: 0,
        len: PAGE,
    };
    assert_eq!(m.call(INIT, clean), Err(Errno::EPERM));
    m.call(FS, clean).unwrap();
    assert_eq!(dropped(m), 1);
}

#[test]
fn a_file_system_gives_pages_up_and_gets_others() {
    let m = &mut Machine::new(16);
    let at = m.fs_page();
    let own = m.in_use();
    let discard = proto::Discard {
        addr: at,
        len: PAGE,
    };
    assert_eq!(m.call(INIT, discard), Err(Errno::EPERM));
    m.call(FS, discard).unwrap();
    assert_eq!((m.entry(FS, at), m.in_use() < own), (0, true));
    let populate = proto::Populate {
        addr: at,
        len: PAGE,
        needed: true,
    };
    m.call(FS, populate).unwrap();
    assert_eq!((m.entry(FS, at) != 0, m.in_use()), (true, own));
    for len in [0, 2 * PAGE, u64::MAX] {
        let beyond = proto::Discard { addr: at, len };
        assert!(m.call(FS, beyond).is_err(), "{len:#x}");
        let beyond = proto::Populate {
            addr: at,
            len,
            needed: true,
        };
        assert!(m.call(FS, beyond).is_err(), "{len:#x}");
    }
    // A page that programs map as well leaves the file system alone.
    m.cache(7, 0);
    let map = proto::CacheMap {
        addr: at,
        dev: DEV,
        ino: 7,
        offset: 0,
    };
    m.call(FS, map).unwrap();
    let mapped = map_shared(m, 7, 1);
    assert_eq!(m.read(INIT, mapped), Ok(byte(7, 0)));
    m.call(FS, discard).unwrap();
    assert_eq!(m.read(INIT, mapped), Ok(byte(7, 0)));
    assert!(
        m.seen.is_empty(),
        "its own changes are no news: {:?}",
        m.seen
    );
}

#[test]
fn every_frame_has_one_owner() {
    let m = &mut Machine::new(16);
    let owners = |m: &mut Machine| {
        let owners = m.call(FS, VmFrames {}).unwrap();
        let sum = owners.heap + owners.tables + owners.cached + owners.services + owners.programs;
        assert_eq!(sum + m.frames().free() as u64, owners.total);
        owners
    };
    let empty = owners(m);
    let (prot, flags) = (
        Prot::READ | Prot::WRITE,
        linux::MAP_PRIVATE | linux::MAP_ANONYMOUS,
    );
    let args = [0, 8 * PAGE, prot.bits(), flags as u64, u64::MAX, 0];
    let at = m.linux(INIT, linux::__NR_mmap, &args).unwrap().unwrap();
    for page in 0..8 {
        m.write(INIT, at + page * PAGE, 1).unwrap();
    }
    let full = owners(m);
    assert!(full.programs >= empty.programs + 8 && full.tables > empty.tables);
    let child = Endpoint::new(21, 1);
    let fork = proto::Fork {
        parent: INIT,
        child,
        share: false,
    };
    m.call(Endpoint::PM, fork).unwrap();
    assert_eq!(owners(m).programs, full.programs, "shared pages count once");
    m.call(Endpoint::PM, proto::Exit { who: child }).unwrap();
    m.cache(7, 0);
    let mapped = map_shared(m, 7, 1);
    m.read(INIT, mapped).unwrap();
    let cached = owners(m);
    assert_eq!((cached.cached, cached.programs), (1, full.programs));
    // Forgotten, it is nobody's.
    let forget = proto::CacheForget {
        dev: DEV,
        ino: 7,
        offset: 0,
        end: u64::MAX,
    };
    m.call(FS, forget).unwrap();
    let forgotten = owners(m);
    assert_eq!((forgotten.cached, forgotten.programs), (0, full.programs));
    let (mut slot, mut services) = (0, 0);
    while let Ok(owned) = m.call(FS, ServiceFrames { slot }) {
        services += owned.frames;
        slot = owned.slot + 1;
    }
    assert_eq!(services, forgotten.services);
    let message = VmFrames {}.encode();
    let reply = m.message(INIT, Class::Call, message).unwrap();
    assert_eq!(
        abi::message::reply_result::<proto::FrameFigures>(&reply),
        Err(Errno::EPERM)
    );
}
