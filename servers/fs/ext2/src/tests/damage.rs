//! Damaged disks: errors, never a panic or an endless loop.

use std::prelude::v1::*;
use std::time::{Duration, Instant};
use std::{format, vec};

use abi::fs::{SetAttributes, SetMask};

use super::image::{contents, format_image, mke2fs};
use crate::{BlockDevice, Errno, MemoryDisk, New, Options, ROOT, Result, Volume};

/// Numbers of a fixed sequence.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// A volume with something of everything.
fn populated(block_size: usize) -> MemoryDisk {
    let image = format_image(1 << 20, block_size, 128);
    let mut v = Volume::mount(image.disk(), Options::default()).unwrap();
    let file = New {
        mode: 0o100644,
        ..New::default()
    };
    let dir = New {
        mode: 0o040755,
        ..New::default()
    };
    let d = v.create(ROOT, b"d", dir).unwrap();
    let e = v.create(d, b"e", dir).unwrap();
    for (i, parent) in [ROOT, d, e].into_iter().enumerate() {
        let f = v.create(parent, b"small", file).unwrap();
        v.write(f, 0, b"small").unwrap();
        let f = v.create(parent, b"large", file).unwrap();
        v.write(f, 0, &contents(90_000, i as u64)).unwrap();
        v.symlink(parent, b"fast", b"small", New::default())
            .unwrap();
        v.symlink(parent, b"slow", &[b'/'; 300], New::default())
            .unwrap();
        for n in 0..30 {
            v.create(parent, format!("{n:030}").as_bytes(), file)
                .unwrap();
        }
    }
    let f = v.create(ROOT, b"sparse", file).unwrap();
    v.write(f, 70 << 20, b"far").unwrap();
    v.link(f, e, b"hard").unwrap();
    v.unmount().unwrap()
}

/// Does something of everything; errors are fine.
fn exercise<D: BlockDevice>(v: &mut Volume<D>, dir: u32, depth: usize, random: &mut Random) {
    let mut found: Vec<(u32, Vec<u8>)> = Vec::new();
    let _ = v.read_dir(dir, 0, &mut |e| {
        found.push((e.ino, e.name.to_vec()));
        found.len() < 300
    });
    let mut buffer = vec![0; 10_000];
    for (_, name) in found {
        if name == b"." || name == b".." {
            continue;
        }
        let Ok(ino) = v.lookup(dir, &name) else {
            continue;
        };
        let Ok(attributes) = v.attributes(ino) else {
            continue;
        };
        v.hold(ino);
        let _ = v.read(ino, random.below(attributes.size.max(1)), &mut buffer);
        let _ = v.readlink(ino, &mut buffer);
        if depth < 4 {
            exercise(v, ino, depth + 1, random);
        }
        match random.below(6) {
            0 => {
                let _ = v.write(ino, random.below(100_000), &buffer);
            }
            1 => {
                let set = SetAttributes {
                    mask: SetMask::SIZE.bits(),
                    size: random.below(attributes.size.saturating_mul(2).max(1)),
                    ..Default::default()
                };
                let _ = v.set_attributes(ino, &set);
            }
            2 => {
                let _ = v.rename(dir, &name, ROOT, b"moved", random.below(3) as u32);
            }
            3 => {
                let _ = v.link(ino, dir, b"linked");
            }
            _ => {
                let _ = v.unlink(dir, &name, attributes.mode & 0o170000 == 0o040000);
            }
        }
        let _ = v.put(ino, 1);
    }
    for mode in [0o100644, 0o040755] {
        let new = New {
            mode,
            ..New::default()
        };
        if let Ok(ino) = v.create(dir, format!("new{mode:o}").as_bytes(), new) {
            let _ = v.write(ino, 0, &buffer);
        }
    }
    let _ = v.symlink(dir, b"newlink", &[b'x'; 100], New::default());
}

#[test]
fn random_damage() {
    let disks = [populated(1024), populated(4096)];
    for seed in 1..=400u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut bytes = disks[seed as usize % 2].bytes().to_vec();
        for _ in 0..1 + random.below(30) {
            // Most of the interesting bytes are in the first part.
            let reach = if random.below(4) == 0 {
                1 << 20
            } else {
                120_000
            };
            let at = 1024 + random.below(reach - 1024) as usize;
            bytes[at] = match random.below(3) {
                0 => 0xff,
                1 => bytes[at] ^ 1 << random.below(8),
                _ => random.next() as u8,
            };
        }
        let started = Instant::now();
        let Ok(mut v) = Volume::mount(MemoryDisk::from_bytes(bytes), Options::default()) else {
            continue;
        };
        exercise(&mut v, ROOT, 0, &mut random);
        let _ = v.statistics();
        let _ = v.sync();
        let _ = v.unmount();
        let took = started.elapsed();
        assert!(took < Duration::from_secs(20), "seed {seed}: {took:?}");
    }
}

#[test]
fn maps_and_directories_that_contain_themselves() {
    let disk = populated(1024);
    let v = Volume::mount(disk.clone(), Options::default()).unwrap();
    let mut v = v;
    let f = v.lookup(ROOT, b"large").unwrap();
    let set = |size| SetAttributes {
        mask: SetMask::SIZE.bits(),
        size,
        ..Default::default()
    };
    v.set_attributes(f, &set(10 << 30)).unwrap();
    let disk = v.unmount().unwrap();
    // The file's indirect block becomes its triple indirect block, and points to itself.
    let mut bytes = disk.into_bytes();
    let inode = find_inode(&bytes, 10 << 30);
    let indirect = u32::from_le_bytes(bytes[inode + 88..inode + 92].try_into().unwrap());
    bytes[inode + 96..inode + 100].copy_from_slice(&indirect.to_le_bytes());
    let at = indirect as usize * 1024;
    for pointer in bytes[at..at + 1024].chunks_exact_mut(4) {
        pointer.copy_from_slice(&indirect.to_le_bytes());
    }
    for action in 0..2 {
        let started = Instant::now();
        let disk = MemoryDisk::from_bytes(bytes.clone());
        let mut v = Volume::mount(disk, Options::default()).unwrap();
        let f = v.lookup(ROOT, b"large").unwrap();
        match action {
            0 => drop(v.unlink(ROOT, b"large", false)),
            _ => drop(v.set_attributes(f, &set(1 << 29))),
        }
        let _ = v.sync();
        assert!(started.elapsed() < Duration::from_secs(5));
    }
}

/// Where the inode of this size is on a disk with 1 KiB blocks.
fn find_inode(bytes: &[u8], size: u64) -> usize {
    let table = u32::from_le_bytes(bytes[2048 + 8..2048 + 12].try_into().unwrap()) as usize * 1024;
    (0..)
        .map(|i| table + i * 128)
        .find(|&at| {
            let field =
                |o: usize| u32::from_le_bytes(bytes[at + o..at + o + 4].try_into().unwrap());
            field(4) as u64 | (field(108) as u64) << 32 == size
        })
        .unwrap()
}

/// A disk that fails on some sectors.
struct Bad {
    disk: MemoryDisk,
    from: u64,
    writes: bool,
}

impl BlockDevice for Bad {
    fn sectors(&self) -> u64 {
        self.disk.sectors()
    }
    fn read(&mut self, sector: u64, buffer: &mut [u8]) -> Result<()> {
        if !self.writes && sector + buffer.len() as u64 / 512 > self.from {
            return Err(Errno::EIO);
        }
        self.disk.read(sector, buffer)
    }
    fn write(&mut self, sector: u64, buffer: &[u8]) -> Result<()> {
        if self.writes && sector + buffer.len() as u64 / 512 > self.from {
            return Err(Errno::EIO);
        }
        self.disk.write(sector, buffer)
    }
    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

#[test]
fn sectors_that_fail() {
    for (writes, from) in [
        (false, 60),
        (false, 300),
        (false, 900),
        (true, 60),
        (true, 300),
    ] {
        let disk = Bad {
            disk: populated(1024),
            from,
            writes,
        };
        let Ok(mut v) = Volume::mount(disk, Options::default()) else {
            continue;
        };
        exercise(&mut v, ROOT, 0, &mut Random(5));
        assert!(!writes || v.sync().is_err());
    }
}

#[test]
fn a_disk_that_cannot_be_written_can_be_read() {
    let disk = Bad {
        disk: populated(1024),
        from: 400,
        writes: true,
    };
    let options = Options {
        cache_pages: 64,
        ..Default::default()
    };
    let mut v = Volume::mount(disk, options).unwrap();
    let new = New {
        mode: 0o100644,
        ..New::default()
    };
    let f = v.create(ROOT, b"f", new).unwrap();
    assert_eq!(v.write(f, 0, &contents(100_000, 9)).unwrap(), 100_000);
    assert_eq!(v.sync(), Err(Errno::EIO));
    let large = v.lookup(ROOT, b"large").unwrap();
    let mut back = vec![0; 90_000];
    for _ in 0..3 {
        assert_eq!(v.read(large, 0, &mut back).unwrap(), 90_000);
        assert!(back == contents(90_000, 0));
    }
    assert_eq!(v.sync(), Err(Errno::EIO));
}

#[test]
fn a_cut_disk_is_refused() {
    let image = mke2fs(4 << 20, &["-b", "1024"], None);
    let mut bytes = image.disk().into_bytes();
    bytes.truncate(1 << 20);
    let error = Volume::mount(MemoryDisk::from_bytes(bytes), Options::default());
    assert_eq!(error.err().unwrap().errno, Errno::EUCLEAN);
}
