//! The tmpfs server's image: messages in front of a [`Tmpfs`].
//!
//! Arguments: `size=<bytes>` (default: half of the memory), `nodes=dev` for `/dev`.
#![cfg_attr(guest_image, no_std, no_main)]

extern crate alloc;

use abi::Endpoint;
use abi::fs::{Attributes, SetAttributes, SetMask, Statistics};
use rt::clock::Clock;
use rt::fsserver::{self, Bounce, Dirents, FileSystem, NewNode, Node, Result, UserBuffer, Written};
use tmpfs::{Errno, Limits, New, Piece, ROOT, Tmpfs};

use crate::memory::Memory;

mod memory;

rt::entry!(main);

/// Size of a `/dev`: its nodes, and little beside.
const DEV_SIZE: u64 = 1 << 20;
/// Size when the memory's is unknown.
const DEFAULT_SIZE: u64 = 16 << 20;

/// Linux's mount flags.
const MS_RDONLY: u64 = 1;
const MS_NOATIME: u64 = 1024;

struct Server {
    files: Tmpfs<Memory>,
    clock: Clock,
    bounce: Bounce,
}

fn main() -> ! {
    fsserver::run(make())
}

fn make() -> Result<Server> {
    let clock = Clock::new();
    let dev = match rt::args::value("nodes") {
        None => false,
        Some("dev") => true,
        Some(other) => {
            rt::log!("nodes={other}: only dev is known");
            return Err(Errno::EINVAL);
        }
    };
    let size = rt::args::number("size").unwrap_or_else(|| {
        let half = rt::kernel::boot_info().map_or(DEFAULT_SIZE, |info| info.ram_bytes / 2);
        if dev { DEV_SIZE } else { half }
    });
    let mode = if dev { 0o755 } else { 0o1777 };
    let limits = Limits::of_size(size);
    let mut files = Tmpfs::new(Memory::default(), limits, mode, clock.now());
    if dev {
        tmpfs::dev::populate(&mut files)?;
    }
    Ok(Server {
        files,
        clock,
        bounce: Bounce::default(),
    })
}

impl Server {
    /// Sets the time that the operation stamps.
    fn stamp(&mut self) {
        self.files.set_time(self.clock.now());
    }

    /// The attributes of an inode, with a reference on it.
    fn node(&mut self, ino: u64) -> Result<Node> {
        let attributes = self.files.attributes(ino)?;
        self.files.hold(ino);
        Ok(attributes.into())
    }
}

fn new_node(new: &NewNode) -> New {
    New {
        mode: new.mode,
        uid: new.uid,
        gid: new.gid,
        rdev: new.rdev,
    }
}

impl FileSystem for Server {
    fn read_super(&mut self, dev: u64, flags: u64) -> Result<Node> {
        self.files.store_mut().set_device(dev);
        self.files
            .set_options(flags & MS_RDONLY != 0, flags & MS_NOATIME != 0);
        self.node(ROOT)
    }

    fn lookup(&mut self, dir: u64, name: &[u8], _who: Endpoint) -> Result<Node> {
        let ino = self.files.lookup(dir, name)?;
        self.node(ino)
    }

    fn put(&mut self, ino: u64, count: u64) -> Result<()> {
        self.files.put(ino, count)
    }

    fn read(&mut self, ino: u64, offset: u64, to: &UserBuffer, _who: Endpoint) -> Result<u64> {
        self.stamp();
        let mut gather = to.gather(0);
        let bytes = self
            .files
            .read(ino, offset, to.len(), &mut |piece| match piece {
                Piece::Data(data) => gather.data(data),
                Piece::Zero(len) => gather.zero(len),
            })?;
        gather.flush()?;
        self.files.touch(ino);
        Ok(bytes)
    }

    fn write(&mut self, ino: u64, offset: Option<u64>, from: &UserBuffer) -> Result<Written> {
        self.stamp();
        let before = self.files.attributes(ino)?.size;
        let position = offset.unwrap_or(before);
        let files = &mut self.files;
        let (done, ended) = self
            .bounce
            .write(from, position, |at, data| files.write(ino, at, data));
        match ended {
            Err(Errno::ENOSPC | Errno::EFBIG) if done > 0 => {}
            Err(errno) => {
                // What was overwritten is what VFS writes again when the page is there; what
                // was appended must not be there twice.
                if done > 0 && self.files.attributes(ino)?.size > before {
                    let set = SetAttributes {
                        mask: SetMask::SIZE.bits(),
                        size: before,
                        ..SetAttributes::default()
                    };
                    self.files.set_attributes(ino, &set)?;
                }
                return Err(errno);
            }
            Ok(()) => {}
        }
        Ok(Written {
            bytes: done,
            size: self.files.attributes(ino)?.size,
            position,
        })
    }

    fn getdents(
        &mut self,
        ino: u64,
        position: u64,
        to: &mut Dirents,
        _who: Endpoint,
    ) -> Result<u64> {
        self.stamp();
        let next = self.files.read_dir(ino, position, &mut |entry| {
            to.push(entry.ino, entry.next, entry.kind, entry.name)
        })?;
        self.files.touch(ino);
        Ok(next)
    }

    fn readlink(&mut self, ino: u64, buffer: &mut [u8], _who: Endpoint) -> Result<usize> {
        let target = self.files.readlink(ino)?;
        let len = target.len().min(buffer.len());
        buffer[..len].copy_from_slice(&target[..len]);
        self.stamp();
        self.files.touch(ino);
        Ok(len)
    }

    fn create(&mut self, dir: u64, name: &[u8], new: &NewNode) -> Result<Node> {
        self.stamp();
        let ino = self.files.create(dir, name, new_node(new))?;
        self.node(ino)
    }

    fn symlink(
        &mut self,
        dir: u64,
        name: &[u8],
        target: &[u8],
        uid: u32,
        gid: u32,
    ) -> Result<Node> {
        self.stamp();
        let new = New {
            uid,
            gid,
            ..New::default()
        };
        let ino = self.files.symlink(dir, name, target, new)?;
        self.node(ino)
    }

    fn link(&mut self, ino: u64, dir: u64, name: &[u8]) -> Result<()> {
        self.stamp();
        self.files.link(ino, dir, name)
    }

    fn unlink(&mut self, dir: u64, name: &[u8], directory: bool) -> Result<u64> {
        self.stamp();
        self.files.unlink(dir, name, directory)
    }

    fn rename(
        &mut self,
        old_dir: u64,
        old: &[u8],
        new_dir: u64,
        new: &[u8],
        flags: u32,
    ) -> Result<()> {
        self.stamp();
        self.files.rename(old_dir, old, new_dir, new, flags)
    }

    fn set_attributes(&mut self, ino: u64, set: &SetAttributes) -> Result<Node> {
        self.stamp();
        self.files.set_attributes(ino, set)?;
        Ok(self.files.attributes(ino)?.into())
    }

    fn attributes(&mut self, ino: u64, _who: Endpoint) -> Result<Attributes> {
        self.files.attributes(ino)
    }

    fn statistics(&mut self) -> Result<Statistics> {
        Ok(self.files.statistics())
    }

    fn peek(&mut self, ino: u64, offset: u64) -> Result<()> {
        self.files.publish(ino, offset)
    }

    fn drop_caches(&mut self, data: bool, _names: bool) -> Result<u64> {
        if data {
            self.files.store_mut().trim(0);
        }
        Ok(0)
    }
}
