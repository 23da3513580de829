//! Linux's memory calls: results and errors.

use super::machine::{INIT, Machine};
use crate::region::STACK_GAP;
use crate::server::Effect;
use abi::kernel::USER_END;
use abi::proto::{vfs, vm as proto};
use abi::{Endpoint, Errno, PAGE, Request};
use alloc::vec::Vec;
use linux_raw_sys::general as linux;

const SIGSEGV: i32 = 11;
const PRIVATE: u64 = (linux::MAP_PRIVATE | linux::MAP_ANONYMOUS) as u64;
const FIXED: u64 = linux::MAP_FIXED as u64;
const NO_FD: u64 = u64::MAX;

fn mmap(machine: &mut Machine, args: [u64; 6]) -> Result<u64, Errno> {
    machine.linux(INIT, linux::__NR_mmap, &args).unwrap()
}

fn call(machine: &mut Machine, number: u32, args: &[u64]) -> Result<u64, Errno> {
    machine.linux(INIT, number, args).unwrap()
}

#[test]
fn mmap_errors() {
    let mut machine = Machine::new(8);
    let m = &mut machine;
    let at = 0x6000_0000;
    let noreplace = linux::MAP_FIXED_NOREPLACE as u64;
    let shared = linux::MAP_SHARED as u64;
    for (args, error) in [
        ([0, 0, 3, PRIVATE, NO_FD, 0], Errno::EINVAL),
        ([0, PAGE, 3, PRIVATE, NO_FD, 5], Errno::EINVAL),
        ([at + 1, PAGE, 3, PRIVATE | FIXED, NO_FD, 0], Errno::EINVAL),
        ([0, PAGE, 3, 0x20, NO_FD, 0], Errno::EINVAL),
        ([0, u64::MAX, 3, PRIVATE, NO_FD, 0], Errno::ENOMEM),
        ([0, USER_END + PAGE, 0, PRIVATE, NO_FD, 0], Errno::ENOMEM),
        ([0, 1 << 40, 3, PRIVATE, NO_FD, 0], Errno::ENOMEM),
        (
            [USER_END, PAGE, 3, PRIVATE | FIXED, NO_FD, 0],
            Errno::ENOMEM,
        ),
        ([0, PAGE, 3, PRIVATE | FIXED, NO_FD, 0], Errno::EPERM),
        ([0, PAGE, 3, shared, NO_FD, 0], Errno::EBADF),
        ([0, PAGE, 3, shared | 3 | 1 << 30, 3, 0], Errno::EOPNOTSUPP),
    ] {
        assert_eq!(mmap(m, args), Err(error), "{args:x?}");
    }
    assert_eq!(mmap(m, [at, PAGE, 3, PRIVATE, NO_FD, 0]), Ok(at));
    let again = [at, PAGE, 3, PRIVATE | noreplace, NO_FD, 0];
    assert_eq!(mmap(m, again), Err(Errno::EEXIST));
    assert_ne!(mmap(m, [at, PAGE, 3, PRIVATE, NO_FD, 0]), Ok(at));
    // Reserving without access is not limited by memory.
    assert!(mmap(m, [0, 1 << 40, 0, PRIVATE, NO_FD, 0]).is_ok());
}

#[test]
fn descriptor_access_limits_the_mapping() {
    let mut machine = Machine::new(8);
    let m = &mut machine;
    let shared = linux::MAP_SHARED as u64;
    m.access = 1;
    assert_eq!(mmap(m, [0, PAGE, 3, shared, 1, 0]), Err(Errno::EACCES));
    let at = mmap(m, [0, PAGE, 1, shared, 1, 0]).unwrap();
    let protect = [at, PAGE, 3];
    assert_eq!(call(m, linux::__NR_mprotect, &protect), Err(Errno::EACCES));
    m.access = 2;
    let private = linux::MAP_PRIVATE as u64;
    assert_eq!(mmap(m, [0, PAGE, 1, private, 1, 0]), Err(Errno::EACCES));
    // /dev/zero is memory.
    let zero = mmap(m, [0, PAGE, 3, private, 1000, 0]).unwrap();
    assert_eq!(m.read(INIT, zero), Ok(0));
    // One for each attempt, as long as something is mapped.
    assert_eq!(m.references[&(super::machine::DEV, 1)], 2);
    call(m, linux::__NR_munmap, &[at, PAGE]).unwrap();
    assert_eq!(m.references[&(super::machine::DEV, 1)], 0);
}

#[test]
fn other_errors() {
    let mut machine = Machine::new(8);
    let m = &mut machine;
    let at = mmap(m, [0, 2 * PAGE, 3, PRIVATE, NO_FD, 0]).unwrap();
    let hole = at - PAGE;
    for (number, args, error) in [
        (linux::__NR_munmap, [at + 1, PAGE, 0], Errno::EINVAL),
        (linux::__NR_munmap, [at, 0, 0], Errno::EINVAL),
        (linux::__NR_munmap, [at, u64::MAX - at, 0], Errno::EINVAL),
        (linux::__NR_mprotect, [at + 1, PAGE, 1], Errno::EINVAL),
        (linux::__NR_mprotect, [at, PAGE, 8 | 1 << 20], Errno::EINVAL),
        (linux::__NR_mprotect, [hole, PAGE, 1], Errno::ENOMEM),
        (linux::__NR_madvise, [at, PAGE, 999], Errno::EINVAL),
        (linux::__NR_madvise, [hole, 2 * PAGE, 4], Errno::ENOMEM),
        (linux::__NR_msync, [at, PAGE, 5], Errno::EINVAL),
        (linux::__NR_msync, [hole, PAGE, 4], Errno::ENOMEM),
        (linux::__NR_mlock, [hole, PAGE, 0], Errno::ENOMEM),
        (linux::__NR_mincore, [hole, PAGE, at], Errno::ENOMEM),
        (linux::__NR_mincore, [at, PAGE, hole], Errno::EFAULT),
        (linux::__NR_mremap, [hole, PAGE, 2 * PAGE], Errno::EFAULT),
        (linux::__NR_mremap, [at, PAGE, 0], Errno::EINVAL),
        (linux::__NR_mremap, [at, PAGE, 8 * PAGE], Errno::ENOMEM),
        (linux::__NR_remap_file_pages, [at, 0, 0], Errno::ENOSYS),
    ] {
        assert_eq!(call(m, number, &args), Err(error), "{number} {args:x?}");
    }
    for (number, args) in [
        (linux::__NR_munmap, [hole, PAGE, 0]),
        (linux::__NR_mprotect, [at, 0, 1]),
        (linux::__NR_msync, [at, 2 * PAGE, 4]),
        (linux::__NR_mlock, [at + 5, PAGE, 0]),
        (linux::__NR_mlockall, [3, 0, 0]),
        (linux::__NR_madvise, [at, 2 * PAGE, 4]),
    ] {
        assert_eq!(call(m, number, &args), Ok(0), "{number} {args:x?}");
    }
}

#[test]
fn what_is_locked_is_there() {
    let mut machine = Machine::new(8);
    let m = &mut machine;
    let there = |m: &mut Machine, at: u64, pages: u64| {
        let pages = 0..pages;
        pages.filter(|n| m.entry(INIT, at + n * PAGE) != 0).count()
    };
    // Farther apart than a fault fills ahead.
    let at = mmap(m, [0, 64 * PAGE, 3, PRIVATE, NO_FD, 0]).unwrap();
    let on_fault = u64::from(linux::MLOCK_ONFAULT);
    assert_eq!(
        call(m, linux::__NR_mlock2, &[at, PAGE, 2]),
        Err(Errno::EINVAL)
    );
    assert_eq!(
        call(m, linux::__NR_mlock2, &[at, 64 * PAGE, on_fault]),
        Ok(0)
    );
    assert_eq!(there(m, at, 64), 0);
    assert_eq!(call(m, linux::__NR_mlock, &[at, 64 * PAGE, 0]), Ok(0));
    assert_eq!(there(m, at, 64), 64);
    // What cannot be had: without access, and where the file system refuses.
    let none = mmap(m, [0, PAGE, 0, PRIVATE, NO_FD, 0]).unwrap();
    assert_eq!(
        call(m, linux::__NR_mlock, &[none, PAGE, 0]),
        Err(Errno::ENOMEM)
    );
    m.broken.push(4);
    let file = mmap(m, [0, 2 * PAGE, 1, linux::MAP_PRIVATE as u64, 4, 0]).unwrap();
    assert_eq!(
        call(m, linux::__NR_mlock, &[file, 2 * PAGE, 0]),
        Err(Errno::ENOMEM)
    );
    // All there is: what cannot be had is passed over, and what comes later is filled.
    let other = mmap(m, [0, 40 * PAGE, 3, PRIVATE, NO_FD, 0]).unwrap();
    assert_eq!(there(m, other, 40), 0);
    assert_eq!(call(m, linux::__NR_mlockall, &[3]), Ok(0));
    assert_eq!(there(m, other, 40), 40);
    let later = mmap(m, [0, 40 * PAGE, 3, PRIVATE, NO_FD, 0]).unwrap();
    assert_eq!(there(m, later, 40), 40);
    let grown = [later, 40 * PAGE, 80 * PAGE, linux::MREMAP_MAYMOVE as u64, 0];
    let grown = call(m, linux::__NR_mremap, &grown).unwrap();
    assert_eq!(there(m, grown, 80), 80);
    assert_eq!(call(m, linux::__NR_munlockall, &[]), Ok(0));
    let last = mmap(m, [0, 40 * PAGE, 3, PRIVATE, NO_FD, 0]).unwrap();
    assert_eq!(there(m, last, 40), 0);
}

#[test]
fn mincore_tells_what_is_there() {
    let mut machine = Machine::new(8);
    let m = &mut machine;
    let at = mmap(m, [0, 3 * PAGE, 3, PRIVATE, NO_FD, 0]).unwrap();
    let elsewhere = 0x6000_0000;
    let vector = mmap(m, [elsewhere, 2 * PAGE, 3, PRIVATE, NO_FD, 0]).unwrap();
    m.write(INIT, at + PAGE, 1).unwrap();
    // The vector straddles two absent pages.
    let out = vector + PAGE - 2;
    let args = [at, 3 * PAGE, out];
    assert_eq!(call(m, linux::__NR_mincore, &args), Ok(0));
    let found = [0, 1, 2].map(|n| m.read(INIT, out + n).unwrap());
    assert_eq!(found, [0, 1, 0]);
}

#[test]
fn the_break_moves_both_ways() {
    let mut machine = Machine::new(8);
    let m = &mut machine;
    let start = 0x50_0000;
    assert_eq!(call(m, linux::__NR_brk, &[0]), Ok(0));
    let set = proto::SetBreak {
        who: INIT,
        start: start - 5,
        mmap_top: 0x6000_0000,
    };
    m.call(Endpoint::VFS, set).unwrap();
    assert_eq!(call(m, linux::__NR_brk, &[0]), Ok(start));
    assert_eq!(call(m, linux::__NR_brk, &[start - 1]), Ok(start));
    assert_eq!(call(m, linux::__NR_brk, &[start + 5000]), Ok(start + 5000));
    m.write(INIT, start + 8000, 9).unwrap();
    assert_eq!(call(m, linux::__NR_brk, &[start + 100]), Ok(start + 100));
    assert_eq!(m.read(INIT, start + 5000), Err(SIGSEGV));
    assert_eq!(call(m, linux::__NR_brk, &[start + 5000]), Ok(start + 5000));
    assert_eq!(
        m.read(INIT, start + 8000),
        Ok(0),
        "the heap comes back empty"
    );
    // Something is in the way.
    let wall = start + 16 * PAGE;
    mmap(m, [wall, PAGE, 3, PRIVATE | FIXED, NO_FD, 0]).unwrap();
    assert_eq!(
        call(m, linux::__NR_brk, &[wall + 1]),
        Ok(start + 5000),
        "the old break when it cannot move"
    );
    assert_eq!(call(m, linux::__NR_brk, &[USER_END]), Ok(start + 5000));
}

#[test]
fn a_stack_grows_to_its_limit_and_keeps_its_gap() {
    let mut machine = Machine::new(8);
    let m = &mut machine;
    let top = USER_END;
    let map = proto::Mmap {
        target: INIT,
        addr: top - 2 * PAGE,
        len: 2 * PAGE,
        prot: proto::Prot::READ | proto::Prot::WRITE,
        flags: proto::MapFlags::FIXED | proto::MapFlags::THIRD_PARTY | proto::MapFlags::STACK,
    };
    m.call(Endpoint::VFS, map).unwrap();
    m.write(INIT, top - 100 * PAGE, 1).unwrap();
    assert_eq!(m.write(INIT, top - (8 << 20) - 1, 1), Err(SIGSEGV));
    m.write(INIT, top - (8 << 20), 1).unwrap();
    let limits = proto::SetLimits {
        who: INIT,
        stack: 16 << 20,
        data: u64::MAX,
        address_space: u64::MAX,
        locked: u64::MAX,
    };
    m.call(Endpoint::PM, limits).unwrap();
    let below = top - (12 << 20);
    mmap(m, [below, PAGE, 3, PRIVATE | FIXED, NO_FD, 0]).unwrap();
    let lowest = below + PAGE + STACK_GAP;
    assert_eq!(m.write(INIT, lowest - 1, 1), Err(SIGSEGV));
    m.write(INIT, lowest, 1).unwrap();
}

#[test]
fn execution_follows_protection() {
    use crate::fault::Access;
    let mut machine = Machine::new(8);
    let m = &mut machine;
    let at = mmap(m, [0, PAGE, 3, PRIVATE, NO_FD, 0]).unwrap();
    m.write(INIT, at, 0xc3).unwrap();
    assert_eq!(m.access(INIT, at, Access::Execute), Err(SIGSEGV));
    call(m, linux::__NR_mprotect, &[at, PAGE, 5]).unwrap();
    assert!(m.access(INIT, at, Access::Execute).is_ok());
    assert_eq!(m.write(INIT, at, 0), Err(SIGSEGV));
    call(m, linux::__NR_mprotect, &[at, PAGE, 0]).unwrap();
    assert_eq!(m.read(INIT, at), Err(SIGSEGV));
    call(m, linux::__NR_mprotect, &[at, PAGE, 1]).unwrap();
    assert_eq!(m.read(INIT, at), Ok(0xc3), "contents survive PROT_NONE");
}

#[test]
fn limits_are_enforced() {
    let mut machine = Machine::new(8);
    let m = &mut machine;
    let limits = proto::SetLimits {
        who: INIT,
        stack: 8 << 20,
        data: 8 * PAGE,
        address_space: 16 * PAGE,
        locked: u64::MAX,
    };
    assert_eq!(m.call(Endpoint::VFS, limits), Err(Errno::EPERM));
    m.call(Endpoint::PM, limits).unwrap();
    let data = mmap(m, [0, 9 * PAGE, 3, PRIVATE, NO_FD, 0]);
    assert_eq!(data, Err(Errno::ENOMEM));
    mmap(m, [0, 9 * PAGE, 1, PRIVATE, NO_FD, 0]).unwrap();
    let space = mmap(m, [0, 8 * PAGE, 1, PRIVATE, NO_FD, 0]);
    assert_eq!(space, Err(Errno::ENOMEM));
}

#[test]
fn neighbours_become_one_region_and_gaps_are_reused() {
    let mut machine = Machine::new(8);
    let m = &mut machine;
    let regions = |m: &mut Machine| {
        let figures = m.call(Endpoint::RS, proto::VmCounters {}).unwrap();
        figures.regions
    };
    let before = regions(m);
    let mut all = [0; 8];
    for at in &mut all {
        *at = mmap(m, [0, PAGE, 3, PRIVATE, NO_FD, 0]).unwrap();
    }
    assert_eq!(regions(m), before + 1);
    call(m, linux::__NR_munmap, &[all[3], PAGE]).unwrap();
    assert_eq!(regions(m), before + 2);
    let at = mmap(m, [0, PAGE, 3, PRIVATE, NO_FD, 0]).unwrap();
    assert_eq!(at, all[3]);
    assert_eq!(regions(m), before + 1);
}

#[test]
fn nothing_leaks() {
    let mut machine = Machine::new(8);
    let m = &mut machine;
    // The first round grows tables of VM's own.
    let mut used = 0;
    for round in 0..3 {
        let at = mmap(m, [0, 600 * PAGE, 3, PRIVATE, NO_FD, 0]).unwrap();
        (0..600).for_each(|n| m.write(INIT, at + n * PAGE, 1).unwrap());
        let child = Endpoint::new(30, round + 1);
        let fork = proto::Fork {
            parent: INIT,
            child,
            share: false,
        };
        m.call(Endpoint::PM, fork).unwrap();
        (0..300).for_each(|n| m.write(child, at + n * PAGE, 2).unwrap());
        call(m, linux::__NR_munmap, &[at, 600 * PAGE]).unwrap();
        m.call(Endpoint::PM, proto::Exit { who: child }).unwrap();
        if round > 0 {
            assert_eq!(m.in_use(), used);
        }
        used = m.in_use();
    }
}

#[test]
fn sequential_use_is_filled_ahead_and_sparse_use_is_not() {
    let mut machine = Machine::new(16);
    let m = &mut machine;
    let present = |m: &Machine, at: u64, pages: u64| {
        (0..pages)
            .filter(|n| m.entry(INIT, at + n * PAGE) != 0)
            .count()
    };
    let at = mmap(m, [0x6000_0000, 64 * PAGE, 3, PRIVATE, NO_FD, 0]).unwrap();
    (0..64)
        .step_by(3)
        .for_each(|n| m.write(INIT, at + n * PAGE, 1).unwrap());
    assert_eq!(present(m, at, 64), 22);
    let at = mmap(m, [0x6100_0000, 64 * PAGE, 3, PRIVATE, NO_FD, 0]).unwrap();
    (0..3).for_each(|n| m.write(INIT, at + n * PAGE, 1).unwrap());
    // The fault on page 1 filled page 2 as well.
    assert_eq!(present(m, at, 64), 3);
    m.write(INIT, at + 3 * PAGE, 1).unwrap();
    assert_eq!(present(m, at, 64), 7);
    // Downwards, as stacks go, and not past the region.
    let at = mmap(m, [0x6200_0000, 8 * PAGE, 3, PRIVATE, NO_FD, 0]).unwrap();
    (0..4).for_each(|n| m.write(INIT, at + (7 - n) * PAGE, 1).unwrap());
    assert_eq!(present(m, at - 8 * PAGE, 24), 7);
}

#[test]
fn a_heap_is_filled_in_blocks() {
    let mut machine = Machine::new(16);
    let m = &mut machine;
    let brk = proto::SetBreak {
        who: INIT,
        start: 0x6000_0000,
        mmap_top: 0x7000_0000,
    };
    m.call(Endpoint::VFS, brk).unwrap();
    let end = 0x6000_0000 + 10 * PAGE;
    assert_eq!(call(m, linux::__NR_brk, &[end]), Ok(end));
    let present = |m: &Machine| {
        let there = |n: &u64| m.entry(INIT, 0x6000_0000 + n * PAGE) != 0;
        (0..12).filter(there).collect::<Vec<_>>()
    };
    m.write(INIT, 0x6000_0000 + 5 * PAGE, 1).unwrap();
    assert_eq!(present(m), [4, 5, 6, 7]);
    // Not past its end.
    m.write(INIT, 0x6000_0000 + 8 * PAGE, 1).unwrap();
    assert_eq!(present(m)[4..], [8, 9]);
}

#[test]
fn pages_that_a_fork_protected_become_writable_together() {
    let mut machine = Machine::new(8);
    let m = &mut machine;
    let at = mmap(m, [0x6000_0000, 8 * PAGE, 3, PRIVATE, NO_FD, 0]).unwrap();
    (0..8).for_each(|n| m.write(INIT, at + n * PAGE, 1).unwrap());
    let child = Endpoint::new(30, 1);
    let fork = proto::Fork {
        parent: INIT,
        child,
        share: false,
    };
    m.call(Endpoint::PM, fork).unwrap();
    let writable = |m: &Machine| {
        (0..8)
            .filter(|n| m.entry(INIT, at + n * PAGE) & crate::table::WRITE != 0)
            .count()
    };
    m.write(INIT, at, 2).unwrap();
    assert_eq!(writable(m), 1, "the child still has the others");
    m.call(Endpoint::PM, proto::Exit { who: child }).unwrap();
    m.write(INIT, at + 3 * PAGE, 2).unwrap();
    assert_eq!(writable(m), 8);
}

/// The runs of pages that VFS was told of.
fn written(machine: &mut Machine) -> Vec<(u64, u64)> {
    let told = core::mem::take(&mut machine.seen);
    told.iter()
        .filter_map(|effect| match effect {
            Effect::Post(Endpoint::VFS, message) if message.kind == vfs::PagesWritten::KIND => {
                vfs::PagesWritten::decode(message)
            }
            _ => None,
        })
        .map(|r| (r.offset, r.len))
        .collect()
}

#[test]
fn what_shared_mappings_change_is_told_once() {
    let mut machine = Machine::new(8);
    let m = &mut machine;
    let shared = linux::MAP_SHARED as u64;
    let at = mmap(m, [0, 4 * PAGE, 3, shared, 1, 0]).unwrap();
    let sync = [at, 4 * PAGE, linux::MS_SYNC as u64];
    m.read(INIT, at).unwrap();
    assert_eq!(call(m, linux::__NR_msync, &sync), Ok(0));
    assert_eq!(written(m), []);
    for page in [0, 1, 3] {
        m.write(INIT, at + page * PAGE, 1).unwrap();
    }
    assert_eq!(call(m, linux::__NR_msync, &sync), Ok(0));
    assert_eq!(written(m), [(0, 2 * PAGE), (3 * PAGE, PAGE)]);
    assert_eq!(call(m, linux::__NR_msync, &sync), Ok(0));
    assert_eq!(written(m), []);
    // Protected, then unmapped, before anybody asked.
    m.write(INIT, at, 2).unwrap();
    let protect = [at, 4 * PAGE, 1];
    m.write(INIT, at + 3 * PAGE, 2).unwrap();
    assert_eq!(call(m, linux::__NR_mprotect, &protect), Ok(0));
    assert_eq!(written(m), [(0, PAGE), (3 * PAGE, PAGE)]);
    assert_eq!(call(m, linux::__NR_mprotect, &[at, 4 * PAGE, 3]), Ok(0));
    m.write(INIT, at + 2 * PAGE, 1).unwrap();
    assert_eq!(call(m, linux::__NR_munmap, &[at, 4 * PAGE]), Ok(0));
    assert_eq!(written(m), [(2 * PAGE, PAGE)]);
    // Private mappings and shared memory without a file are nobody's business.
    let private = mmap(m, [0, PAGE, 3, linux::MAP_PRIVATE as u64, 1, 0]).unwrap();
    m.write(INIT, private, 1).unwrap();
    let anonymous = [0, PAGE, 3, shared | linux::MAP_ANONYMOUS as u64, NO_FD, 0];
    let memory = mmap(m, anonymous).unwrap();
    m.write(INIT, memory, 1).unwrap();
    assert_eq!(call(m, linux::__NR_munmap, &[private, PAGE]), Ok(0));
    assert_eq!(call(m, linux::__NR_munmap, &[memory, PAGE]), Ok(0));
    assert_eq!(written(m), []);
}
