//! Judged by the reference tools: images of `mke2fs` are read, what is written here passes
//! `e2fsck -fn` and reads back through `debugfs`.

use std::prelude::v1::*;
use std::{format, vec};

use super::image::{Image, contents, format_image, fsck, mke2fs};
use crate::{Errno, MemoryDisk, New, Options, ROOT, Volume, mkfs};

#[test]
fn a_fresh_format_is_clean() {
    for (block_size, inode_size, len) in [
        (1024, 128, 1 << 20),
        (1024, 256, 20 << 20),
        (2048, 256, 3 << 20),
        (4096, 256, 2 << 20),
        (4096, 128, 300 << 20),
        (1024, 128, (8 << 20) + 70 * 1024),
    ] {
        let image = format_image(len, block_size, inode_size);
        fsck(&image);
        let mut volume = Volume::mount(image.disk(), Options::default()).unwrap();
        assert!(volume.lookup(ROOT, b"lost+found").is_ok());
    }
}

#[test]
fn reads_what_mke2fs_made() {
    let tree = tempfile::tempdir().unwrap();
    let root = tree.path();
    std::fs::create_dir_all(root.join("a/b")).unwrap();
    std::fs::write(root.join("a/small"), b"hello").unwrap();
    let big = contents(5_000_000, 1);
    std::fs::write(root.join("a/b/big"), &big).unwrap();
    std::os::unix::fs::symlink("small", root.join("a/fast")).unwrap();
    let long = "x/".repeat(100);
    std::os::unix::fs::symlink(&long, root.join("a/slow")).unwrap();
    for i in 0..500 {
        std::fs::write(
            root.join(format!("a/b/file-with-a-long-name-{i:04}")),
            [i as u8],
        )
        .unwrap();
    }
    for args in [
        &["-b", "1024"][..],
        &["-b", "2048"],
        &["-b", "4096"],
        &["-b", "1024", "-r", "0", "-O", "none"],
        &["-b", "1024", "-I", "128"],
        &["-b", "4096", "-O", "^dir_index,^resize_inode"],
    ] {
        let image = mke2fs(16 << 20, args, Some(root));
        let mut volume = Volume::mount(image.disk(), Options::default()).unwrap();
        let a = volume.lookup(ROOT, b"a").unwrap();
        let b = volume.lookup(a, b"b").unwrap();
        let file = volume.lookup(b, b"big").unwrap();
        let mut back = vec![0; big.len() + 10];
        assert_eq!(volume.read(file, 0, &mut back).unwrap(), big.len());
        assert!(back[..big.len()] == big[..]);
        assert_eq!(volume.read(file, 4_999_990, &mut back[..100]).unwrap(), 10);
        let mut text = [0; 1024];
        let fast = volume.lookup(a, b"fast").unwrap();
        assert_eq!(volume.readlink(fast, &mut text).unwrap(), 5);
        assert_eq!(&text[..5], b"small");
        let slow = volume.lookup(a, b"slow").unwrap();
        assert_eq!(volume.readlink(slow, &mut text).unwrap(), 200);
        assert_eq!(&text[..200], long.as_bytes());
        let mut names = Vec::new();
        volume
            .read_dir(b, 0, &mut |e| {
                names.push(e.name.to_vec());
                true
            })
            .unwrap();
        assert_eq!(names.len(), 503);
        assert_eq!(volume.lookup(b, b"missing"), Err(Errno::ENOENT));
        // Modified, it is still sound.
        for i in 0..100 {
            let name = format!("new-{i}");
            let ino = volume
                .create(
                    b,
                    name.as_bytes(),
                    New {
                        mode: 0o100644,
                        ..Default::default()
                    },
                )
                .unwrap();
            volume.write(ino, i * 1000, &contents(3000, i)).unwrap();
        }
        for i in 0..250 {
            let name = format!("file-with-a-long-name-{i:04}");
            volume.unlink(b, name.as_bytes(), false).unwrap();
        }
        image.store(volume.unmount().unwrap());
        fsck(&image);
    }
}

#[test]
fn every_kind_of_file() {
    for (block_size, inode_size) in [(1024, 128), (4096, 256)] {
        let image = format_image(8 << 20, block_size, inode_size);
        let options = Options {
            now: (1_700_000_000, 123_456_789),
            ..Default::default()
        };
        let mut v = Volume::mount(image.disk(), options).unwrap();
        let new = |mode| New {
            mode,
            uid: 70_000,
            gid: 80_000,
            rdev: 0,
        };
        let dir = v.create(ROOT, b"dir", new(0o040755)).unwrap();
        let file = v.create(dir, b"file", new(0o100644)).unwrap();
        assert_eq!(v.write(file, 0, b"data\n").unwrap(), 5);
        v.create(dir, b"fifo", new(0o010600)).unwrap();
        v.create(dir, b"sock", new(0o140600)).unwrap();
        let null = New {
            rdev: 0x103,
            ..new(0o020666)
        };
        let null = v.create(dir, b"null", null).unwrap();
        assert_eq!(v.attributes(null).unwrap().rdev, 0x103);
        let wide = New {
            rdev: 0x12_345 << 8,
            ..new(0o060666)
        };
        v.create(dir, b"wide", wide).unwrap();
        v.symlink(dir, b"fast", b"file", new(0)).unwrap();
        v.symlink(dir, b"edge", &[b'y'; 59], new(0)).unwrap();
        v.symlink(dir, b"slow", &[b'z'; 60], new(0)).unwrap();
        v.link(file, ROOT, b"hard").unwrap();
        let a = v.attributes(file).unwrap();
        assert_eq!((a.nlink, a.uid, a.gid, a.size), (2, 70_000, 80_000, 5));
        let nanos = if inode_size == 256 { 123_456_789 } else { 0 };
        assert_eq!(a.mtime, (1_700_000_000, nanos).into());
        assert_eq!(v.create(dir, b"file", new(0o100644)), Err(Errno::EEXIST));
        assert_eq!(v.unlink(ROOT, b"dir", true), Err(Errno::ENOTEMPTY));
        assert_eq!(v.unlink(ROOT, b"dir", false), Err(Errno::EISDIR));
        assert_eq!(v.unlink(dir, b"file", true), Err(Errno::ENOTDIR));
        assert_eq!(v.link(dir, ROOT, b"no"), Err(Errno::EPERM));
        image.store(v.unmount().unwrap());
        fsck(&image);
        assert_eq!(image.debugfs("cat /dir/file"), b"data\n");
        let stat = String::from_utf8(image.debugfs("stat /dir/edge")).unwrap();
        assert!(stat.contains(&"y".repeat(59)), "{stat}");
        let stat = String::from_utf8(image.debugfs("stat /hard")).unwrap();
        assert!(
            stat.contains("Links: 2") && stat.contains("User: 70000"),
            "{stat}"
        );
        let mut v = Volume::mount(image.disk(), options).unwrap();
        let dir = v.lookup(ROOT, b"dir").unwrap();
        for name in [
            "file", "fifo", "sock", "null", "wide", "fast", "edge", "slow",
        ] {
            v.unlink(dir, name.as_bytes(), false).unwrap();
        }
        v.unlink(ROOT, b"dir", true).unwrap();
        v.unlink(ROOT, b"hard", false).unwrap();
        let before = format_image(8 << 20, block_size, inode_size);
        let before = Volume::mount(before.disk(), options).unwrap().statistics();
        assert_eq!(v.statistics(), before);
        image.store(v.unmount().unwrap());
        fsck(&image);
    }
}

#[test]
fn indirect_blocks_holes_and_truncation() {
    for block_size in [1024usize, 2048, 4096] {
        let image = format_image(24 << 20, block_size, 256);
        let mut v = Volume::mount(image.disk(), Options::default()).unwrap();
        let free = v.statistics().free;
        let ino = v
            .create(
                ROOT,
                b"f",
                New {
                    mode: 0o100644,
                    ..Default::default()
                },
            )
            .unwrap();
        let n = block_size as u64 / 4;
        let spots: Vec<u64> = [0, 8, 12, 12 + n, 12 + n + n * n, 12 + n + n * n + n + 3]
            .iter()
            .map(|b| b * block_size as u64 + 17)
            .collect();
        for &at in &spots {
            assert_eq!(v.write(ino, at, &contents(3000, at)).unwrap(), 3000);
        }
        let mut back = [1; 3000];
        for &at in &spots {
            assert_eq!(v.read(ino, at, &mut back).unwrap(), 3000);
            assert!(back[..] == contents(3000, at)[..], "{block_size} {at}");
        }
        // Holes read as zeroes.
        assert_eq!(v.read(ino, spots[2] + 100_000, &mut back).unwrap(), 3000);
        assert!(back.iter().all(|&b| b == 0));
        v.sync().unwrap();
        image.store(v.unmount().unwrap());
        fsck(&image);
        let mut v = Volume::mount(image.disk(), Options::default()).unwrap();
        for &at in spots.iter().rev() {
            let set = abi::fs::SetAttributes {
                mask: 8,
                size: at + 1000,
                ..Default::default()
            };
            v.set_attributes(ino, &set).unwrap();
            assert_eq!(v.read(ino, at, &mut back).unwrap(), 1000);
            assert!(back[..1000] == contents(3000, at)[..1000]);
            // Extended again, what was cut is zero.
            let set = abi::fs::SetAttributes {
                mask: 8,
                size: at + 5000,
                ..Default::default()
            };
            v.set_attributes(ino, &set).unwrap();
            assert_eq!(v.read(ino, at + 1000, &mut back).unwrap(), 3000);
            assert!(back.iter().all(|&b| b == 0));
            v.sync().unwrap();
            let image = Image::new(v.unmount().unwrap());
            fsck(&image);
            v = Volume::mount(image.disk(), Options::default()).unwrap();
        }
        v.unlink(ROOT, b"f", false).unwrap();
        assert_eq!(v.statistics().free, free);
        image.store(v.unmount().unwrap());
        fsck(&image);
    }
}

#[test]
fn renames() {
    let image = format_image(4 << 20, 1024, 128);
    let mut v = Volume::mount(image.disk(), Options::default()).unwrap();
    let d = |v: &mut Volume<_>, p, n: &[u8]| {
        v.create(
            p,
            n,
            New {
                mode: 0o040755,
                ..Default::default()
            },
        )
        .unwrap()
    };
    let f = |v: &mut Volume<_>, p, n: &[u8]| {
        v.create(
            p,
            n,
            New {
                mode: 0o100644,
                ..Default::default()
            },
        )
        .unwrap()
    };
    let a = d(&mut v, ROOT, b"a");
    let b = d(&mut v, ROOT, b"b");
    let c = d(&mut v, a, b"c");
    let x = f(&mut v, a, b"x");
    let y = f(&mut v, b, b"y");
    assert_eq!(v.rename(ROOT, b"a", c, b"a", 0), Err(Errno::EINVAL));
    assert_eq!(v.rename(ROOT, b"a", a, b"a", 0), Err(Errno::EINVAL));
    assert_eq!(v.rename(a, b"x", b, b"y", 1), Err(Errno::EEXIST));
    assert_eq!(v.rename(a, b"x", ROOT, b"b", 0), Err(Errno::EISDIR));
    assert_eq!(v.rename(a, b"c", b, b"y", 0), Err(Errno::ENOTDIR));
    assert_eq!(v.rename(a, b"c", ROOT, b"b", 0), Err(Errno::ENOTEMPTY));
    assert_eq!(v.rename(a, b"none", b, b"y", 0), Err(Errno::ENOENT));
    assert_eq!(v.rename(a, b".", b, b"z", 0), Err(Errno::EBUSY));
    v.rename(a, b"x", b, b"y", 0).unwrap();
    assert_eq!(v.lookup(b, b"y"), Ok(x));
    assert_eq!(v.attributes(y), Err(Errno::ESTALE));
    v.rename(a, b"c", b, b"c2", 0).unwrap();
    assert_eq!(v.lookup(c, b".."), Ok(b));
    assert_eq!(v.attributes(b).unwrap().nlink, 3);
    assert_eq!(v.attributes(a).unwrap().nlink, 2);
    // Onto an empty directory.
    let e = d(&mut v, ROOT, b"e");
    v.rename(b, b"c2", ROOT, b"e", 0).unwrap();
    assert_eq!(v.lookup(ROOT, b"e"), Ok(c));
    assert_eq!(v.attributes(e), Err(Errno::ESTALE));
    // Two names of one file: nothing happens.
    v.link(x, b, b"y2").unwrap();
    v.rename(b, b"y", b, b"y2", 0).unwrap();
    assert_eq!(v.attributes(x).unwrap().nlink, 2);
    // Exchange of a file and a directory.
    v.rename(b, b"y", ROOT, b"e", 2).unwrap();
    assert_eq!(v.lookup(b, b"y"), Ok(c));
    assert_eq!(v.lookup(ROOT, b"e"), Ok(x));
    assert_eq!(v.lookup(c, b".."), Ok(b));
    image.store(v.unmount().unwrap());
    fsck(&image);
}

#[test]
fn a_full_disk_stays_sound() {
    for block_size in [1024, 4096] {
        let image = format_image(1 << 20, block_size, 128);
        let mut v = Volume::mount(image.disk(), Options::default()).unwrap();
        let ino = v
            .create(
                ROOT,
                b"big",
                New {
                    mode: 0o100644,
                    ..Default::default()
                },
            )
            .unwrap();
        let data = contents(2 << 20, 7);
        let done = v.write(ino, 0, &data).unwrap();
        assert!(done < data.len() && done > 500_000);
        assert_eq!(v.attributes(ino).unwrap().size, done as u64);
        assert_eq!(v.write(ino, done as u64, b"x"), Err(Errno::ENOSPC));
        assert_eq!(v.statistics().free, 0);
        let new = New {
            mode: 0o040755,
            ..Default::default()
        };
        assert_eq!(v.create(ROOT, b"dir", new), Err(Errno::ENOSPC));
        assert_eq!(
            v.symlink(ROOT, b"l", &[b'q'; 100], New::default()),
            Err(Errno::ENOSPC)
        );
        // Overwriting needs no space.
        assert_eq!(v.write(ino, 5, b"over").unwrap(), 4);
        // Inodes run out as well.
        let mut files = 0;
        let failure = loop {
            let name = format!("{files:0200}");
            match v.create(
                ROOT,
                name.as_bytes(),
                New {
                    mode: 0o100644,
                    ..Default::default()
                },
            ) {
                Ok(_) => files += 1,
                Err(errno) => break errno,
            }
        };
        assert_eq!(failure, Errno::ENOSPC);
        v.sync().unwrap();
        let mut back = vec![0; done];
        assert_eq!(v.read(ino, 0, &mut back).unwrap(), done);
        assert!(back[9..] == data[9..done]);
        image.store(v.unmount().unwrap());
        fsck(&image);
    }
}

#[test]
fn an_open_file_outlives_its_name() {
    let image = format_image(1 << 20, 1024, 128);
    let mut v = Volume::mount(image.disk(), Options::default()).unwrap();
    let free = v.statistics();
    let new = New {
        mode: 0o100644,
        ..Default::default()
    };
    for name in [b"1", b"2", b"3"] {
        let ino = v.create(ROOT, name, new).unwrap();
        v.hold(ino);
        v.write(ino, 0, &contents(20_000, 1)).unwrap();
        v.unlink(ROOT, name, false).unwrap();
        assert_eq!(v.attributes(ino).unwrap().nlink, 0);
    }
    let mut back = [0; 10];
    assert_eq!(v.read(13, 100, &mut back).unwrap(), 10);
    v.put(13, 1).unwrap();
    assert_eq!(v.attributes(13), Err(Errno::ESTALE));
    assert_eq!(v.put(13, 1), Err(Errno::EINVAL));
    v.sync().unwrap();
    // A crash now: the next mount frees the two that are left.
    let crashed = v.crash();
    let image = Image::new(crashed);
    let mut v = Volume::mount(image.disk(), Options::default()).unwrap();
    assert_eq!(v.statistics().free, free.free);
    assert_eq!(v.statistics().files_free, free.files_free);
    v.sync().unwrap();
    image.store(v.unmount().unwrap());
    fsck(&image);
}

#[test]
fn the_clean_mark() {
    let image = mke2fs(4 << 20, &["-b", "4096"], None);
    let mut v = Volume::mount(image.disk(), Options::default()).unwrap();
    let state = |v: &Volume<MemoryDisk>| v.device().bytes()[1024 + 58] & 1;
    // Nothing written, nothing to repair.
    assert_eq!(state(&v), 1);
    v.sync().unwrap();
    assert!(v.device().bytes() == image.disk().bytes());
    let ino = v
        .create(
            ROOT,
            b"f",
            New {
                mode: 0o100644,
                ..Default::default()
            },
        )
        .unwrap();
    v.write(ino, 0, b"x").unwrap();
    v.sync_file(ino).unwrap();
    assert_eq!(state(&v), 0);
    v.sync().unwrap();
    assert_eq!(state(&v), 1);
    // Synced and stopped, as the power went.
    fsck(&Image::new(v.crash()));
}

#[test]
fn unknown_features_are_refused_or_read_only() {
    let image = mke2fs(4 << 20, &["-t", "ext4"], None);
    let error = Volume::mount(image.disk(), Options::default())
        .err()
        .unwrap();
    assert_eq!(error.errno, Errno::EINVAL);
    assert!(error.to_string().contains("extents"), "{error}");
    let image = mke2fs(8 << 20, &["-t", "ext3"], None);
    let v = Volume::mount(image.disk(), Options::default()).unwrap();
    image.store(v.unmount().unwrap());
    fsck(&image);
    let image = mke2fs(4 << 20, &["-O", "metadata_csum"], None);
    let mut v = Volume::mount(image.disk(), Options::default()).unwrap();
    assert!(v.is_read_only());
    let new = New {
        mode: 0o100644,
        ..Default::default()
    };
    assert_eq!(v.create(ROOT, b"f", new), Err(Errno::EROFS));
    assert!(mkfs::format(&mut MemoryDisk::new(1000), &Default::default()).is_err());
}
