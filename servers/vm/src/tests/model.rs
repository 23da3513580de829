//! Random sequences of memory operations against a model of what programs must see, with
//! all of VM's invariants checked after each.

use super::machine::{DEV, INIT, Machine, byte};
use abi::proto::vm as proto;
use abi::{Endpoint, PAGE};
use linux_raw_sys::general as linux;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap};
use std::vec::Vec;

const BASE: u64 = 0x7000_0000 + 500 * PAGE;
const PAGES: u64 = 40;
const SIGBUS: i32 = 7;
const SIGSEGV: i32 = 11;

#[derive(Clone, Debug)]
enum Op {
    Map {
        p: usize,
        page: u64,
        len: u64,
        prot: u64,
        kind: Kind,
    },
    Unmap {
        p: usize,
        page: u64,
        len: u64,
    },
    Protect {
        p: usize,
        page: u64,
        len: u64,
        prot: u64,
    },
    Forget {
        p: usize,
        page: u64,
        len: u64,
    },
    Move {
        p: usize,
        page: u64,
        len: u64,
        new: u64,
        to: Option<u64>,
    },
    Read {
        p: usize,
        page: u64,
    },
    Write {
        p: usize,
        page: u64,
        value: u8,
    },
    Fork {
        p: usize,
    },
    Exit {
        p: usize,
    },
    Evict,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Private,
    Shared,
    FilePrivate { ino: u64, offset: u64, clear: u64 },
    FileShared { ino: u64, offset: u64 },
}

fn op() -> impl Strategy<Value = Op> {
    let p = 0usize..4;
    let page = 0..PAGES;
    let len = 1u64..9;
    let kind = prop_oneof![
        Just(Kind::Private),
        Just(Kind::Shared),
        (0u64..3, 0u64..4, prop_oneof![Just(0u64), 1u64..4096])
            .prop_map(|(ino, offset, clear)| Kind::FilePrivate { ino, offset, clear }),
        (0u64..3, 0u64..4).prop_map(|(ino, offset)| Kind::FileShared { ino, offset }),
    ];
    prop_oneof![
        4 => (p.clone(), page.clone(), len.clone(), 0u64..8, kind)
            .prop_map(|(p, page, len, prot, kind)| Op::Map { p, page, len, prot, kind }),
        2 => (p.clone(), page.clone(), len.clone())
            .prop_map(|(p, page, len)| Op::Unmap { p, page, len }),
        3 => (p.clone(), page.clone(), len.clone(), 0u64..8)
            .prop_map(|(p, page, len, prot)| Op::Protect { p, page, len, prot }),
        1 => (p.clone(), page.clone(), len.clone())
            .prop_map(|(p, page, len)| Op::Forget { p, page, len }),
        2 => (p.clone(), page.clone(), len.clone(), 1u64..9, proptest::option::of(page.clone()))
            .prop_map(|(p, page, len, new, to)| Op::Move { p, page, len, new, to }),
        8 => (p.clone(), page.clone()).prop_map(|(p, page)| Op::Read { p, page }),
        8 => (p.clone(), page, any::<u8>())
            .prop_map(|(p, page, value)| Op::Write { p, page, value }),
        2 => p.clone().prop_map(|p| Op::Fork { p }),
        1 => p.prop_map(|p| Op::Exit { p }),
        1 => Just(Op::Evict),
    ]
}

/// What a program sees at a page, by its first byte and its last.
#[derive(Clone, Copy, Debug)]
struct Page {
    prot: u64,
    shared: bool,
    /// Object and page in it.
    backing: Option<(u64, u64)>,
    /// The last byte of the page reads as zero.
    cleared: bool,
    /// Private and writable at some time: VM may have made the process's copy ahead of a write.
    ahead: bool,
    /// And the file has changed since: mmap(2) does not say whether that is seen.
    stale: bool,
    own: Option<u8>,
}

#[derive(Default)]
struct Model {
    processes: BTreeMap<usize, BTreeMap<u64, Page>>,
    objects: HashMap<(u64, u64), u8>,
    next_object: u64,
}

const FIRST_FILE: u64 = 1 << 32;

impl Model {
    fn value(&self, page: &Page) -> u8 {
        match (page.own, page.backing) {
            (Some(value), _) => value,
            (None, None) => 0,
            (None, Some(key)) => self.objects.get(&key).copied().unwrap_or_else(|| {
                match key.0.checked_sub(FIRST_FILE) {
                    Some(ino) => byte(ino, key.1 * PAGE),
                    None => 0,
                }
            }),
        }
    }
}

fn endpoint(p: usize, generations: &[u32; 4]) -> Endpoint {
    match (p, generations[p]) {
        (0, 0) => INIT,
        _ => Endpoint::new(20 + p, generations[p] + 1),
    }
}

fn run(ops: Vec<Op>) {
    let mut machine = Machine::new(8);
    let mut model = Model::default();
    let mut generations = [0u32; 4];
    model.processes.insert(0, BTreeMap::new());
    for op in ops {
        step(&mut machine, &mut model, &mut generations, &op);
    }
    for p in 0..4 {
        if model.processes.contains_key(&p) {
            let who = endpoint(p, &generations);
            machine.call(Endpoint::PM, proto::Exit { who }).unwrap();
        }
    }
    assert!(
        machine.references.values().all(|&n| n == 0),
        "a file reference leaked"
    );
    let figures = machine.call(Endpoint::RS, proto::VmCounters {}).unwrap();
    assert_eq!(figures.spaces, 4, "a space leaked");
}

fn step(machine: &mut Machine, model: &mut Model, generations: &mut [u32; 4], op: &Op) {
    let at = |page: u64| BASE + page * PAGE;
    let who = |p: usize| endpoint(p, generations);
    match *op {
        Op::Map {
            p,
            page,
            len,
            prot,
            kind,
        } => {
            if !model.processes.contains_key(&p) {
                return;
            }
            map(machine, model, who(p), p, (page, len), prot, kind);
        }
        Op::Unmap { p, page, len } => {
            let Some(pages) = model.processes.get_mut(&p) else {
                return;
            };
            let result = machine.linux(who(p), linux::__NR_munmap, &[at(page), len * PAGE]);
            assert_eq!(result, Some(Ok(0)));
            pages.retain(|&n, _| n < page || n >= page + len);
        }
        Op::Protect { p, page, len, prot } => {
            let Some(pages) = model.processes.get_mut(&p) else {
                return;
            };
            let result = machine
                .linux(who(p), linux::__NR_mprotect, &[at(page), len * PAGE, prot])
                .unwrap();
            let hole = (page..page + len).find(|n| !pages.contains_key(n));
            assert_eq!(result.is_ok(), hole.is_none(), "{result:?}");
            for n in page..hole.unwrap_or(page + len) {
                let page = pages.get_mut(&n).unwrap();
                page.prot = prot;
                page.ahead |= prot & 2 != 0;
            }
        }
        Op::Forget { p, page, len } => {
            let Some(pages) = model.processes.get_mut(&p) else {
                return;
            };
            let args = [at(page), len * PAGE, linux::MADV_DONTNEED as u64];
            let result = machine.linux(who(p), linux::__NR_madvise, &args).unwrap();
            let mapped = (page..page + len).all(|n| pages.contains_key(&n));
            assert_eq!(result.is_ok(), mapped);
            pages
                .range_mut(page..page + len)
                .for_each(|(_, p)| p.own = None);
        }
        Op::Move {
            p,
            page,
            len,
            new,
            to,
        } => {
            let Some(pages) = model.processes.get_mut(&p) else {
                return;
            };
            let fixed = to.map_or(0, |_| linux::MREMAP_FIXED);
            let flags = (linux::MREMAP_MAYMOVE | fixed) as u64;
            let args = [at(page), len * PAGE, new * PAGE, flags, at(to.unwrap_or(0))];
            let Ok(result) = machine.linux(who(p), linux::__NR_mremap, &args).unwrap() else {
                return;
            };
            // A place below the first page that is looked at has a number below zero.
            let target = (result.wrapping_sub(BASE) as i64 / PAGE as i64) as u64;
            if fixed == 0 && new <= len {
                // Shrinking does not look at what stays.
                assert_eq!(target, page);
                pages.retain(|&n, _| n < page + new || n >= page + len);
                return;
            }
            let moved: Vec<Page> = (page..page + len.min(new)).map(|n| pages[&n]).collect();
            pages.retain(|&n, _| n < page || n >= page + len);
            if fixed != 0 {
                pages.retain(|&n, _| n < target || n >= target + new);
            }
            let last = *moved.last().unwrap();
            let page_number = page;
            for n in 0..new {
                let page = match moved.get(n as usize) {
                    Some(page) => *page,
                    None => Page {
                        own: None,
                        cleared: false,
                        backing: last
                            .backing
                            .map(|(o, i)| (o, i + n - (moved.len() as u64 - 1))),
                        ..last
                    },
                };
                // A tail that reads as zero loses that when the mapping changes its size by
                // moving, but a page that was touched before takes its contents along.
                let cleared = page.cleared && target == page_number;
                pages.insert(target.wrapping_add(n), Page { cleared, ..page });
            }
        }
        Op::Read { p, page } => {
            let Some(pages) = model.processes.get(&p) else {
                return;
            };
            let found = machine.read(who(p), at(page));
            match pages.get(&page) {
                Some(entry) if entry.prot != 0 => {
                    if entry.stale && entry.own.is_none() {
                        assert!(found.is_ok(), "page {page} of {p}: {entry:?}");
                    } else {
                        let value = model.value(entry);
                        assert_eq!(found, Ok(value), "page {page} of {p}: {entry:?}");
                    }
                    if entry.cleared && entry.own.is_none() {
                        assert_eq!(machine.read(who(p), at(page) + PAGE - 1), Ok(0));
                    }
                }
                _ => assert_eq!(found, Err(SIGSEGV)),
            }
        }
        Op::Write { p, page, value } => {
            let Some(pages) = model.processes.get_mut(&p) else {
                return;
            };
            let done = machine.write(who(p), at(page), value);
            match pages.get_mut(&page) {
                Some(entry) if entry.prot & 2 != 0 => {
                    assert_eq!(done, Ok(()), "page {page} of {p}: {entry:?}");
                    match entry.backing {
                        Some(key) if entry.shared => {
                            model.objects.insert(key, value);
                            let all = model.processes.values_mut().flat_map(BTreeMap::values_mut);
                            all.filter(|page| {
                                page.ahead && !page.shared && page.backing == Some(key)
                            })
                            .for_each(|page| page.stale = true);
                        }
                        _ => entry.own = Some(value),
                    }
                }
                _ => assert_eq!(done, Err(SIGSEGV)),
            }
        }
        Op::Fork { p } => {
            let Some(pages) = model.processes.get(&p).cloned() else {
                return;
            };
            let Some(child) = (0..4).find(|c| !model.processes.contains_key(c)) else {
                return;
            };
            let parent = who(p);
            generations[child] += 1;
            let child_endpoint = endpoint(child, generations);
            let fork = proto::Fork {
                parent,
                child: child_endpoint,
                share: false,
            };
            machine.call(Endpoint::PM, fork).unwrap();
            model.processes.insert(child, pages);
        }
        Op::Exit { p } => {
            if model.processes.len() > 1 && model.processes.remove(&p).is_some() {
                machine
                    .call(Endpoint::PM, proto::Exit { who: who(p) })
                    .unwrap();
            }
        }
        Op::Evict => {
            let pool = &mut machine.vm().pool;
            pool.cache.evict(pool.frames, 1000);
            machine.vm().settle();
        }
    }
}

fn map(
    machine: &mut Machine,
    model: &mut Model,
    who: Endpoint,
    p: usize,
    (page, len): (u64, u64),
    prot: u64,
    kind: Kind,
) {
    let addr = BASE + page * PAGE;
    let fixed = linux::MAP_FIXED as u64;
    let (flags, fd, offset) = match kind {
        Kind::Private => (linux::MAP_PRIVATE | linux::MAP_ANONYMOUS, u64::MAX, 0),
        Kind::Shared => (linux::MAP_SHARED | linux::MAP_ANONYMOUS, u64::MAX, 0),
        Kind::FileShared { ino, offset } => (linux::MAP_SHARED, ino, offset),
        Kind::FilePrivate { ino, offset, clear } if clear != 0 => {
            *machine.references.entry((DEV, ino)).or_insert(0) += 1;
            let map = proto::VfsMmap {
                target: who,
                dev: DEV,
                ino,
                offset: offset * PAGE,
                addr,
                len: len * PAGE,
                prot_clearend: prot | clear << 16,
            };
            machine.call(Endpoint::VFS, map).unwrap();
            (u32::MAX, 0, 0)
        }
        Kind::FilePrivate { ino, offset, .. } => (linux::MAP_PRIVATE, ino, offset),
    };
    if flags != u32::MAX {
        let args = [
            addr,
            len * PAGE,
            prot,
            flags as u64 | fixed,
            fd,
            offset * PAGE,
        ];
        let result = machine.linux(who, linux::__NR_mmap, &args);
        assert_eq!(result, Some(Ok(addr)));
    }
    model.next_object += 1;
    let first = match kind {
        Kind::Private => None,
        Kind::Shared => Some((model.next_object, 0)),
        Kind::FilePrivate { ino, offset, .. } | Kind::FileShared { ino, offset } => {
            Some((FIRST_FILE + ino, offset))
        }
    };
    let clear = matches!(kind, Kind::FilePrivate { clear, .. } if clear != 0);
    for n in 0..len {
        let tail = clear && n == len - 1;
        let entry = Page {
            prot,
            shared: matches!(kind, Kind::Shared | Kind::FileShared { .. }),
            backing: first.map(|(object, index)| (object, index + n)),
            cleared: tail,
            ahead: prot & 2 != 0,
            stale: false,
            own: None,
        };
        model.processes.get_mut(&p).unwrap().insert(page + n, entry);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn programs_see_what_they_should(ops in proptest::collection::vec(op(), 1..120)) {
        run(ops);
    }
}

#[test]
fn a_page_that_cannot_be_read_is_a_bus_error() {
    let mut machine = Machine::new(8);
    machine.broken.push(7);
    let args = [0, PAGE, 1, linux::MAP_PRIVATE as u64, 7, 0];
    let at = machine
        .linux(INIT, linux::__NR_mmap, &args)
        .unwrap()
        .unwrap();
    assert_eq!(machine.read(INIT, at), Err(SIGBUS));
}
