//! /dev/pts: a file system whose files are the pseudo-terminals there are. Wherever it is
//! mounted it is the same one.

use crate::ptys::{Label, Ptys};
use abi::fs::{Attributes, SetAttributes, SetMask, Statistics};
use abi::proto::device::numbers::{PTMX_MINOR, PTS_MAJOR, PTY_MAX, TTY_MAJOR};
use abi::{Endpoint, Errno};
use alloc::string::ToString;
use linux_raw_sys::general as linux;
use rt::fsserver::{Dirents, FileSystem, Node, Outgoing, Result, Root};

/// Inode numbers, as on Linux.
const ROOT: u64 = 1;
const PTMX: u64 = 2;
const FIRST: u64 = 3;

const DT_CHR: u8 = 2;
const DT_DIR: u8 = 4;
const BLOCK: u32 = 1024;

/// /dev/pts for as long as a request takes.
pub struct DevPts<'a> {
    /// The files.
    pub ptys: &'a mut Ptys,
    /// Ns of the wall clock at boot.
    pub epoch_ns: u64,
}

fn device(major: u32, minor: u32) -> u64 {
    let (major, minor) = (u64::from(major), u64::from(minor));
    minor & 0xff | major << 8 | (minor & !0xff) << 12
}

/// The device number of a slave.
pub fn slave_device(number: u32) -> u64 {
    device(PTS_MAJOR, number)
}

impl DevPts<'_> {
    fn time(&self, ns: u64) -> (i64, i64) {
        let ns = self.epoch_ns.saturating_add(ns);
        ((ns / 1_000_000_000) as i64, (ns % 1_000_000_000) as i64)
    }

    /// The number of the pseudo-terminal with this inode.
    fn number(&self, ino: u64) -> Result<u32> {
        let number = ino.checked_sub(FIRST).ok_or(Errno::EPERM)?;
        u32::try_from(number).map_err(|_| Errno::ENOENT)
    }

    fn find(&mut self, name: &[u8]) -> Result<u64> {
        if name == b"ptmx" {
            return Ok(PTMX);
        }
        let text = core::str::from_utf8(name).map_err(|_| Errno::ENOENT)?;
        let number: u32 = text.parse().map_err(|_| Errno::ENOENT)?;
        self.ptys.label(number)?;
        // Not 007, not +7.
        if number.to_string() == text {
            Ok(FIRST + u64::from(number))
        } else {
            Err(Errno::ENOENT)
        }
    }

    fn all(&mut self, ino: u64) -> Result<Attributes> {
        let (mode, nlink, rdev, label) = match ino {
            ROOT => (linux::S_IFDIR | 0o755, 2, 0, None),
            PTMX => (linux::S_IFCHR, 1, device(TTY_MAJOR, PTMX_MINOR), None),
            _ => {
                let number = self.number(ino)?;
                let label = *self.ptys.label(number)?;
                let mode = linux::S_IFCHR | label.mode;
                (mode, 1, slave_device(number), Some(label))
            }
        };
        let time = self
            .time(label.map_or(0, |label: Label| label.changed))
            .into();
        Ok(Attributes {
            ino,
            mode,
            nlink,
            uid: label.map_or(0, |label| label.uid),
            gid: label.map_or(0, |label| label.gid),
            rdev,
            block_size: BLOCK,
            atime: time,
            mtime: time,
            ctime: time,
            ..Attributes::default()
        })
    }
}

impl FileSystem for DevPts<'_> {
    fn read_super(&mut self, _dev: u64, _flags: u64, _options: &[u8]) -> Result<Root> {
        self.all(ROOT).map(|root| Node::from(root).into())
    }

    fn remount(&mut self, _root: u64, _flags: u64, _options: &[u8]) -> Result<()> {
        Ok(())
    }

    fn lookup(&mut self, dir: u64, name: &[u8], _who: Endpoint) -> Result<Node> {
        if dir != ROOT {
            return Err(Errno::ENOTDIR);
        }
        let ino = self.find(name)?;
        self.all(ino).map(Node::from)
    }

    fn put(&mut self, _ino: u64, _count: u64) -> Result<()> {
        Ok(())
    }

    fn read<'b>(&'b mut self, _: u64, _: u64, _: &mut Outgoing<'b>, _: Endpoint) -> Result<u64> {
        Err(Errno::EISDIR)
    }

    fn getdents(
        &mut self,
        ino: u64,
        position: u64,
        to: &mut Dirents,
        _who: Endpoint,
    ) -> Result<u64> {
        if ino != ROOT {
            return Err(Errno::ENOTDIR);
        }
        let fixed: [(&[u8], u64, u8); 3] = [
            (b".", ROOT, DT_DIR),
            (b"..", ROOT, DT_DIR),
            (b"ptmx", PTMX, DT_CHR),
        ];
        let mut position = position;
        while let Some((name, ino, kind)) = fixed.get(position as usize) {
            if !to.push(*ino, position + 1, *kind, name) {
                return Ok(position);
            }
            position += 1;
        }
        let first = fixed.len() as u64;
        let from = u32::try_from(position - first).unwrap_or(PTY_MAX);
        for number in self.ptys.listed(from) {
            let (ino, next) = (FIRST + u64::from(number), first + u64::from(number) + 1);
            if !to.push(ino, next, DT_CHR, number.to_string().as_bytes()) {
                break;
            }
            position = next;
        }
        Ok(position)
    }

    fn set_attributes(&mut self, ino: u64, set: &SetAttributes) -> Result<Node> {
        let now = self.ptys.now;
        let label = self.ptys.label(self.number(ino)?)?;
        let mask = SetMask::from_bits_truncate(set.mask);
        if mask.contains(SetMask::MODE) {
            label.mode = set.mode & 0o7777;
        }
        if mask.contains(SetMask::UID) {
            label.uid = set.uid;
        }
        if mask.contains(SetMask::GID) {
            label.gid = set.gid;
        }
        label.changed = now;
        self.all(ino).map(Node::from)
    }

    fn attributes(&mut self, ino: u64, _who: Endpoint) -> Result<Attributes> {
        self.all(ino)
    }

    fn statistics(&mut self, _root: u64) -> Result<Statistics> {
        Ok(Statistics {
            kind: u64::from(linux::DEVPTS_SUPER_MAGIC),
            block_size: 4096,
            name_max: 255,
            ..Statistics::default()
        })
    }
}
