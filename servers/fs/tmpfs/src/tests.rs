//! Operations against what Linux does.

use std::prelude::v1::*;
use std::vec;

use abi::fs::{SetAttributes, SetMask};

use crate::{Errno, HeapPages, Limits, New, PAGE, Piece, ROOT, Shares, Tmpfs, dev};

fn fresh(pages: u64) -> Tmpfs<HeapPages> {
    let limits = Limits {
        pages,
        nodes: 64,
        reserve: 0,
    };
    with(&Shares::of_size(256 << 10), limits)
}

fn with(shares: &Shares, limits: Limits) -> Tmpfs<HeapPages> {
    let pages = HeapPages::default();
    Tmpfs::new(ROOT, pages, shares, limits, 0o1777, (100, 5)).unwrap()
}

fn file(fs: &mut Tmpfs<HeapPages>, dir: u64, name: &[u8]) -> u64 {
    fs.create(
        dir,
        name,
        New {
            mode: 0o100644,
            ..New::default()
        },
    )
    .unwrap()
}

fn dir(fs: &mut Tmpfs<HeapPages>, dir: u64, name: &[u8]) -> u64 {
    fs.create(
        dir,
        name,
        New {
            mode: 0o040755,
            ..New::default()
        },
    )
    .unwrap()
}

fn read(fs: &Tmpfs<HeapPages>, ino: u64, offset: u64, len: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let n = fs
        .read(ino, offset, len, &mut |piece| {
            match piece {
                Piece::Data(data) => out.extend_from_slice(data),
                Piece::Zero(n) => out.resize(out.len() + n as usize, 0),
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(n, out.len() as u64);
    out
}

fn names(fs: &Tmpfs<HeapPages>, ino: u64, position: u64) -> Vec<Vec<u8>> {
    let mut names = Vec::new();
    fs.read_dir(ino, position, &mut |e| {
        names.push(e.name.to_vec());
        true
    })
    .unwrap();
    names
}

#[test]
fn sparse_files_and_truncation() {
    let mut fs = fresh(16);
    let f = file(&mut fs, ROOT, b"f");
    assert_eq!(fs.write(f, 10_000, b"tail").unwrap(), 4);
    assert_eq!(fs.store().in_use(), 1);
    let all = read(&fs, f, 0, 1 << 20);
    assert_eq!(all.len(), 10_004);
    assert!(all[..10_000].iter().all(|&b| b == 0));
    assert_eq!(&all[10_000..], b"tail");
    let size = |size| SetAttributes {
        mask: SetMask::SIZE.bits(),
        size,
        ..Default::default()
    };
    fs.set_attributes(f, &size(10_002)).unwrap();
    fs.set_attributes(f, &size(20_000)).unwrap();
    assert_eq!(read(&fs, f, 10_000, 6), b"ta\0\0\0\0");
    fs.set_attributes(f, &size(0)).unwrap();
    assert_eq!(fs.store().in_use(), 0);
    assert_eq!(fs.set_attributes(f, &size(u64::MAX)), Err(Errno::EFBIG));
    assert_eq!(fs.write(f, u64::MAX, b"x"), Err(Errno::EFBIG));
    assert_eq!(read(&fs, f, u64::MAX, u64::MAX), b"");
}

#[test]
fn limits_hold_exactly() {
    let mut fs = fresh(3);
    let f = file(&mut fs, ROOT, b"f");
    let data = vec![7; 5 * PAGE];
    assert_eq!(fs.write(f, 100, &data).unwrap(), 3 * PAGE - 100);
    assert_eq!(fs.write(f, 3 * PAGE as u64, b"x"), Err(Errno::ENOSPC));
    assert_eq!(fs.attributes(f).unwrap().size, 3 * PAGE as u64);
    assert_eq!(fs.statistics().free, 0);
    fs.unlink(ROOT, b"f", false).unwrap();
    assert_eq!(fs.statistics().free, 3);
    let mut made = 0u32;
    let failure = loop {
        let new = New {
            mode: 0o100644,
            ..New::default()
        };
        match fs.create(ROOT, &made.to_be_bytes().map(|b| b % 16 + b'a'), new) {
            Ok(_) => made += 1,
            Err(Errno::EEXIST) => made += 1,
            Err(errno) => break errno,
        }
    };
    assert_eq!(failure, Errno::ENOSPC);
    assert_eq!(fs.statistics().files_free, 0);
}

#[test]
fn an_open_file_outlives_its_name() {
    let mut fs = fresh(8);
    let f = file(&mut fs, ROOT, b"f");
    fs.hold(f);
    fs.write(f, 0, b"still").unwrap();
    fs.unlink(ROOT, b"f", false).unwrap();
    assert_eq!(read(&fs, f, 0, 9), b"still");
    assert_eq!(fs.attributes(f).unwrap().nlink, 0);
    fs.put(f, 1).unwrap();
    assert_eq!(fs.attributes(f), Err(Errno::ESTALE));
    assert_eq!(fs.store().in_use(), 0);
    // A removed directory takes no entries.
    let d = dir(&mut fs, ROOT, b"d");
    fs.hold(d);
    fs.unlink(ROOT, b"d", true).unwrap();
    assert_eq!(
        fs.create(
            d,
            b"x",
            New {
                mode: 0o100644,
                ..New::default()
            }
        ),
        Err(Errno::ENOENT)
    );
    fs.put(d, 1).unwrap();
    assert_eq!(fs.count(), 1);
}

#[test]
fn names_and_renames() {
    let mut fs = fresh(8);
    let a = dir(&mut fs, ROOT, b"a");
    let b = dir(&mut fs, ROOT, b"b");
    let c = dir(&mut fs, a, b"c");
    let x = file(&mut fs, a, b"x");
    assert_eq!(fs.rename(ROOT, b"a", c, b"a", 0), Err(Errno::EINVAL));
    assert_eq!(fs.rename(a, b"x", ROOT, b"b", 0), Err(Errno::EISDIR));
    assert_eq!(fs.rename(a, b"c", a, b"x", 0), Err(Errno::ENOTDIR));
    assert_eq!(fs.rename(ROOT, b"b", ROOT, b"a", 0), Err(Errno::ENOTEMPTY));
    assert_eq!(fs.rename(a, b"c", a, b"x", 1), Err(Errno::EEXIST));
    fs.rename(a, b"c", b, b"c", 0).unwrap();
    assert_eq!(fs.lookup(c, b".."), Ok(b));
    assert_eq!(fs.attributes(a).unwrap().nlink, 2);
    assert_eq!(fs.attributes(b).unwrap().nlink, 3);
    fs.rename(a, b"x", b, b"c", 2).unwrap();
    assert_eq!(fs.lookup(a, b"x"), Ok(c));
    assert_eq!(fs.attributes(b).unwrap().nlink, 2);
    fs.rename(ROOT, b"b", a, b"x", 0).unwrap();
    assert_eq!(fs.lookup(a, b"x"), Ok(b));
    assert_eq!(fs.attributes(c), Err(Errno::ESTALE));
    fs.link(x, ROOT, b"hard").unwrap();
    assert_eq!(fs.link(x, ROOT, b"hard"), Err(Errno::EEXIST));
    assert_eq!(fs.link(a, ROOT, b"no"), Err(Errno::EPERM));
    assert_eq!(fs.attributes(x).unwrap().nlink, 2);
    assert_eq!(fs.lookup(ROOT, b""), Err(Errno::ENOENT));
    assert_eq!(fs.lookup(ROOT, &[b'n'; 256]), Err(Errno::ENAMETOOLONG));
    assert_eq!(fs.lookup(x, b"y"), Err(Errno::ENOTDIR));
}

#[test]
fn directory_positions_survive_removals() {
    let mut fs = fresh(8);
    for name in [b"1", b"2", b"3", b"4"] {
        file(&mut fs, ROOT, name);
    }
    let mut taken = 0;
    let position = fs
        .read_dir(ROOT, 0, &mut |_| {
            taken += 1;
            taken <= 4
        })
        .unwrap();
    fs.unlink(ROOT, b"1", false).unwrap();
    fs.unlink(ROOT, b"3", false).unwrap();
    file(&mut fs, ROOT, b"5");
    assert_eq!(names(&fs, ROOT, position), [b"4", b"5"]);
    assert_eq!(names(&fs, ROOT, 0), [&b"."[..], b"..", b"2", b"4", b"5"]);
    assert!(names(&fs, ROOT, u64::MAX).is_empty());
}

#[test]
fn dev_has_what_programs_open() {
    let mut fs = fresh(8);
    dev::populate(&mut fs).unwrap();
    let null = fs.lookup(ROOT, b"null").unwrap();
    let a = fs.attributes(null).unwrap();
    assert_eq!((a.mode, a.rdev), (0o020666, 0x103));
    let stdin = fs.lookup(ROOT, b"stdin").unwrap();
    assert_eq!(fs.readlink(stdin).unwrap(), b"/proc/self/fd/0");
}

#[test]
fn names_and_targets_are_limited_and_given_back() {
    let mut fs = fresh(8);
    let empty = fs.shares.heap.used();
    let f = file(&mut fs, ROOT, b"f");
    let start = fs.shares.heap.used();
    let mut made = 0u32;
    let failure = loop {
        let name = std::format!("{made:0255}");
        match fs.link(f, ROOT, name.as_bytes()) {
            Ok(()) => made += 1,
            Err(errno) => break errno,
        }
    };
    assert_eq!(failure, Errno::ENOSPC);
    assert_eq!(
        fs.symlink(ROOT, b"l", &[b'x'; 4000], New::default()),
        Err(Errno::ENOSPC)
    );
    let first = std::format!("{:0255}", 0);
    let other = [b'z'; 255];
    fs.rename(ROOT, first.as_bytes(), ROOT, &other, 0).unwrap();
    fs.rename(ROOT, &other, ROOT, first.as_bytes(), 0).unwrap();
    for i in 0..made {
        fs.unlink(ROOT, std::format!("{i:0255}").as_bytes(), false)
            .unwrap();
    }
    assert_eq!(fs.shares.heap.used(), start);
    fs.symlink(ROOT, b"l", &[b'x'; 4000], New::default())
        .unwrap();
    fs.rename(ROOT, b"l", ROOT, b"a-longer-name", 0).unwrap();
    fs.rename(ROOT, b"a-longer-name", ROOT, b"f", 0).unwrap();
    fs.unlink(ROOT, b"f", false).unwrap();
    assert_eq!(fs.shares.heap.used(), empty);
}

#[test]
fn all_file_systems_share_what_memory_there_is_and_the_last_of_it_is_root_s() {
    const PAGES: u64 = 64;
    let shares = Shares::of_size(PAGES * PAGE as u64);
    let limits = Limits {
        nodes: 48,
        reserve: 6,
        ..Limits::of_size(PAGES * PAGE as u64)
    };
    let mut all = [with(&shares, limits), with(&shares, limits)];
    let new = |uid| New {
        mode: 0o100644,
        uid,
        ..New::default()
    };
    let mut written = 0;
    for fs in &mut all {
        let f = fs.create(ROOT, b"user's", new(1000)).unwrap();
        let pages = (0..PAGES / 2).map(|page| fs.write(f, page * PAGE as u64, &[1; PAGE]));
        written += pages.filter(|done| *done == Ok(PAGE)).count() as u64;
    }
    assert_eq!(written, PAGES / 8 * 7);
    let [first, second] = &mut all;
    let named = |fs: &mut Tmpfs<HeapPages>| {
        let mut made = 0;
        loop {
            match fs.create(ROOT, std::format!("{made:0255}").as_bytes(), new(1000)) {
                Ok(_) => made += 1,
                Err(errno) => break (made, errno),
            }
        }
    };
    // One reaches its number of inodes, the other then what is left of the heap.
    let (inodes, refused) = named(first);
    assert_eq!((inodes, refused), (40, Errno::ENOSPC));
    let (fewer, refused) = named(second);
    assert!(fewer < inodes && refused == Errno::ENOSPC);
    for fs in [&mut *first, &mut *second] {
        let f = fs.create(ROOT, b"root's", new(0)).unwrap();
        assert_eq!(fs.write(f, 0, &[2; PAGE]), Ok(PAGE));
    }
    // What the user has can be used by others when it is gone.
    second.unlink(ROOT, b"user's", false).unwrap();
    let f = first.lookup(ROOT, b"user's").unwrap();
    assert_eq!(
        first.write(f, PAGES / 2 * PAGE as u64, &[1; PAGE]),
        Ok(PAGE)
    );
    drop(all);
    assert_eq!((shares.pages.used(), shares.heap.used()), (0, 0));
}

#[test]
fn holes_are_made_filled_and_found() {
    let page = PAGE as u64;
    let mut fs = fresh(8);
    let ino = file(&mut fs, ROOT, b"f");
    fs.write(ino, 0, &[7; 4 * PAGE]).unwrap();
    fs.punch(ino, page + 10, 2 * page).unwrap();
    assert_eq!(fs.seek(ino, 0, true), Ok(2 * page));
    assert_eq!(fs.seek(ino, 2 * page, false), Ok(3 * page));
    assert_eq!(fs.attributes(ino).unwrap().size, 4 * page);
    let mut there = vec![];
    let mut each = |piece: Piece<'_>| {
        match piece {
            Piece::Data(data) => there.extend_from_slice(data),
            Piece::Zero(len) => there.resize(there.len() + len as usize, 0),
        }
        Ok(())
    };
    fs.read(ino, 0, 4 * page, &mut each).unwrap();
    let zero = PAGE + 10..3 * PAGE + 10;
    let right = |(at, &b): (usize, &u8)| b == if zero.contains(&at) { 0 } else { 7 };
    assert!(there.iter().enumerate().all(right));
    // All or nothing; and what nobody wrote to is a hole still.
    assert_eq!(fs.reserve(ino, 0, 10 * page, false), Err(Errno::ENOSPC));
    assert_eq!(fs.statistics().free, 5);
    fs.reserve(ino, 4 * page, 3 * page, true).unwrap();
    assert_eq!(fs.statistics().free, 2);
    assert_eq!(fs.attributes(ino).unwrap().size, 4 * page);
    fs.reserve(ino, 0, 5 * page, false).unwrap();
    assert_eq!(fs.statistics().free, 1);
    assert_eq!(fs.attributes(ino).unwrap().size, 5 * page);
    assert_eq!(fs.seek(ino, 0, true), Ok(2 * page));
    assert_eq!(fs.seek(ino, 4 * page, false), Err(Errno::ENXIO));
    fs.write(ino, 4 * page, b"x").unwrap();
    assert_eq!(fs.seek(ino, 4 * page, false), Ok(4 * page));
    assert_eq!(fs.seek(ino, 5 * page, true), Err(Errno::ENXIO));
    fs.punch(ino, 0, 100 * page).unwrap();
    assert_eq!(fs.statistics().free, 8);
    assert_eq!(fs.seek(ino, 0, false), Err(Errno::ENXIO));
}
