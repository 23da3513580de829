//! Images in temporary files, and the tools that judge them.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::Command;

use std::prelude::v1::*;

use crate::{MemoryDisk, mkfs};

/// A disk image in a temporary file.
pub struct Image {
    _dir: tempfile::TempDir,
    path: PathBuf,
    disk: RefCell<MemoryDisk>,
}

impl Image {
    pub fn new(disk: MemoryDisk) -> Image {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::write(&path, disk.bytes()).unwrap();
        Image {
            _dir: dir,
            path,
            disk: RefCell::new(disk),
        }
    }

    pub fn disk(&self) -> MemoryDisk {
        self.disk.borrow().clone()
    }

    pub fn store(&self, disk: MemoryDisk) {
        std::fs::write(&self.path, disk.bytes()).unwrap();
        *self.disk.borrow_mut() = disk;
    }

    pub fn debugfs(&self, command: &str) -> Vec<u8> {
        let out = Command::new("/usr/sbin/debugfs")
            .args(["-R", command])
            .arg(&self.path)
            .output()
            .expect("debugfs (e2fsprogs) is needed");
        out.stdout
    }
}

pub fn format_image(len: usize, block_size: usize, inode_size: usize) -> Image {
    let mut disk = MemoryDisk::new(len);
    let format = mkfs::Format {
        block_size,
        inode_size,
        label: *b"a label\0\0\0\0\0\0\0\0\0",
        now: (1_600_000_000, 0),
        ..Default::default()
    };
    mkfs::format(&mut disk, &format).unwrap();
    Image::new(disk)
}

pub fn mke2fs(len: u64, args: &[&str], root: Option<&Path>) -> Image {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    std::fs::File::create(&path).unwrap().set_len(len).unwrap();
    let mut command = Command::new("/usr/sbin/mke2fs");
    command.arg("-q").arg("-F").args(args);
    if let Some(root) = root {
        command.arg("-d").arg(root);
    }
    let out = command
        .arg(&path)
        .output()
        .expect("mke2fs (e2fsprogs) is needed");
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let disk = MemoryDisk::from_bytes(std::fs::read(&path).unwrap());
    Image {
        _dir: dir,
        path,
        disk: RefCell::new(disk),
    }
}

/// Fails unless `e2fsck -fn` finds nothing.
pub fn fsck(image: &Image) {
    let out = Command::new("/usr/sbin/e2fsck")
        .args(["-f", "-n"])
        .arg(&image.path)
        .output()
        .expect("e2fsck is needed");
    assert!(
        out.status.success(),
        "e2fsck: {}\n{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
}

/// Reproducible bytes.
pub fn contents(len: usize, seed: u64) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            (x >> 32) as u8
        })
        .collect()
}
