//! The tmpfs server's image: messages in front of a [`Tmpfs`] for every mount.
//!
//! Arguments: `size=<bytes>` (default: half of the memory), `nodes=dev` for `/dev`. Further
//! file systems come and go with mount(2) and umount(2).
#![cfg_attr(guest_image, no_std, no_main)]

extern crate alloc;

use abi::Endpoint;
use abi::fs::{
    Attributes, KEEP_SIZE, MS_NOATIME, MS_RDONLY, PUNCH_HOLE, SetAttributes, SetMask, Statistics,
};
use abi::kernel::PROGRAMS_MEMORY_MIN;
use alloc::collections::BTreeMap;
use rt::clock::Clock;
use rt::fsserver::{
    self, Bounce, Dirents, FileSystem, NewNode, Node, Outgoing, Result, Root, UserBuffer, Written,
};
use tmpfs::{Errno, Limits, New, Options, Piece, ROOT, Shares, Tmpfs};

use crate::memory::Memory;

mod memory;

rt::entry!(main);

/// Size of a `/dev`: its nodes, and little beside.
const DEV_SIZE: u64 = 1 << 20;
/// Size when the memory's is unknown.
const DEFAULT_SIZE: u64 = 16 << 20;

/// Each file system's inode numbers have its own number from this bit on.
const NUMBER: u32 = 40;

struct Server {
    /// The mounted file systems.
    mounted: BTreeMap<u64, Tmpfs<Memory>>,
    /// The next one's number; none has an earlier one's.
    next: u64,
    /// It is `/dev`, of which there is one.
    dev: bool,
    /// Bytes that a file system may have unless an option says otherwise.
    size: u64,
    /// What all of them may have together.
    shares: Shares,
    /// Bytes of the machine's memory.
    memory: u64,
    clock: Clock,
    bounce: Bounce,
}

fn main() -> ! {
    fsserver::run(make())
}

fn make() -> Result<Server> {
    let dev = match rt::args::value("nodes") {
        None => false,
        Some("dev") => true,
        Some(other) => {
            rt::log!("nodes={other}: only dev is known");
            return Err(Errno::EINVAL);
        }
    };
    let memory = rt::kernel::boot_info().map_or(2 * DEFAULT_SIZE, |info| info.for_programs());
    // Half as on Linux, but programs keep what some of them need to run and to remove files.
    let half = (memory / 2).min(memory.saturating_sub(PROGRAMS_MEMORY_MIN));
    let default = if dev { DEV_SIZE } else { half.max(DEV_SIZE) };
    let size = rt::args::number("size").unwrap_or(default);
    Ok(Server {
        mounted: BTreeMap::new(),
        next: 0,
        dev,
        size,
        shares: Shares::of_size(size),
        memory,
        clock: Clock::new(),
        bounce: Bounce::default(),
    })
}

impl Server {
    /// The file system that an inode is in.
    fn files(&mut self, ino: u64) -> Result<&mut Tmpfs<Memory>> {
        self.mounted.get_mut(&(ino >> NUMBER)).ok_or(Errno::ESTALE)
    }

    /// [`Server::files`] for an operation that stamps the time.
    fn stamped(&mut self, ino: u64) -> Result<&mut Tmpfs<Memory>> {
        let now = self.clock.now();
        let files = self.files(ino)?;
        files.set_time(now);
        Ok(files)
    }

    /// `EXDEV` for inodes of two file systems.
    fn same(&self, a: u64, b: u64) -> Result<()> {
        if a >> NUMBER == b >> NUMBER {
            Ok(())
        } else {
            Err(Errno::EXDEV)
        }
    }
}

/// The attributes of an inode, with a reference on it.
fn node(files: &mut Tmpfs<Memory>, ino: u64) -> Result<Node> {
    let attributes = files.attributes(ino)?;
    files.hold(ino);
    Ok(attributes.into())
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
    fn read_super(&mut self, dev: u64, flags: u64, options: &[u8]) -> Result<Root> {
        let options = Options::parse(options, self.memory)?;
        if self.dev && !self.mounted.is_empty() {
            return Err(Errno::EBUSY);
        }
        let number = self.next;
        let mode = options
            .mode
            .unwrap_or(if self.dev { 0o755 } else { 0o1777 });
        let limits = options.limits(Limits::of_size(self.size));
        let mut memory = Memory::default();
        memory.set_device(dev);
        let root = (number << NUMBER) + ROOT;
        let now = self.clock.now();
        let mut files = Tmpfs::new(root, memory, &self.shares, limits, mode, now)?;
        if self.dev {
            tmpfs::dev::populate(&mut files)?;
        }
        let owner = SetAttributes {
            mask: (SetMask::UID | SetMask::GID).bits(),
            uid: options.uid.unwrap_or(0),
            gid: options.gid.unwrap_or(0),
            ..SetAttributes::default()
        };
        files.set_attributes(root, &owner)?;
        files.set_options(flags & MS_RDONLY != 0, flags & MS_NOATIME != 0);
        let node = node(&mut files, root)?;
        self.mounted.insert(number, files);
        self.next += 1;
        Ok(node.into())
    }

    fn remount(&mut self, root: u64, flags: u64, options: &[u8]) -> Result<()> {
        let options = Options::parse(options, self.memory)?;
        let files = self.files(root)?;
        let limits = options.limits(files.limits());
        files.set_limits(limits)?;
        files.set_options(flags & MS_RDONLY != 0, flags & MS_NOATIME != 0);
        Ok(())
    }

    fn unmount(&mut self, root: u64) -> Result<()> {
        let files = self.mounted.remove(&(root >> NUMBER));
        files.map(drop).ok_or(Errno::ESTALE)
    }

    fn lookup(&mut self, dir: u64, name: &[u8], _who: Endpoint) -> Result<Node> {
        let files = self.files(dir)?;
        let ino = files.lookup(dir, name)?;
        node(files, ino)
    }

    fn put(&mut self, ino: u64, count: u64) -> Result<()> {
        self.files(ino)?.put(ino, count)
    }

    fn read<'a>(
        &'a mut self,
        ino: u64,
        offset: u64,
        to: &mut Outgoing<'a>,
        _who: Endpoint,
    ) -> Result<u64> {
        let files = self.stamped(ino)?;
        files.touch(ino);
        files.read(ino, offset, to.room(), &mut |piece| match piece {
            Piece::Data(data) => to.data(data),
            Piece::Zero(len) => to.zero(len),
        })
    }

    fn write(
        &mut self,
        ino: u64,
        offset: Option<u64>,
        from: &UserBuffer,
        _: Endpoint,
    ) -> Result<Written> {
        let files = self
            .mounted
            .get_mut(&(ino >> NUMBER))
            .ok_or(Errno::ESTALE)?;
        files.set_time(self.clock.now());
        let before = files.attributes(ino)?.size;
        let position = offset.unwrap_or(before);
        let (done, ended) = self
            .bounce
            .write(from, position, |at, data| files.write(ino, at, data));
        match ended {
            Err(Errno::ENOSPC | Errno::EFBIG) if done > 0 => {}
            Err(errno) => {
                // What was overwritten is what VFS writes again when the page is there; what
                // was appended must not be there twice.
                if done > 0 && files.attributes(ino)?.size > before {
                    let set = SetAttributes {
                        mask: SetMask::SIZE.bits(),
                        size: before,
                        ..SetAttributes::default()
                    };
                    files.set_attributes(ino, &set)?;
                }
                return Err(errno);
            }
            Ok(()) => {}
        }
        Ok(Written {
            bytes: done,
            size: files.attributes(ino)?.size,
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
        let files = self.stamped(ino)?;
        let next = files.read_dir(ino, position, &mut |entry| {
            to.push(entry.ino, entry.next, entry.kind, entry.name)
        })?;
        files.touch(ino);
        Ok(next)
    }

    fn readlink(&mut self, ino: u64, buffer: &mut [u8], _who: Endpoint) -> Result<usize> {
        let files = self.stamped(ino)?;
        let target = files.readlink(ino)?;
        let len = target.len().min(buffer.len());
        buffer[..len].copy_from_slice(&target[..len]);
        files.touch(ino);
        Ok(len)
    }

    fn create(&mut self, dir: u64, name: &[u8], new: &NewNode) -> Result<Node> {
        let files = self.stamped(dir)?;
        let ino = match name {
            [] => files.create_unnamed(new_node(new))?,
            name => files.create(dir, name, new_node(new))?,
        };
        node(files, ino)
    }

    fn symlink(
        &mut self,
        dir: u64,
        name: &[u8],
        target: &[u8],
        uid: u32,
        gid: u32,
    ) -> Result<Node> {
        let new = New {
            uid,
            gid,
            ..New::default()
        };
        let files = self.stamped(dir)?;
        let ino = files.symlink(dir, name, target, new)?;
        node(files, ino)
    }

    fn link(&mut self, ino: u64, dir: u64, name: &[u8]) -> Result<()> {
        self.same(ino, dir)?;
        self.stamped(ino)?.link(ino, dir, name)
    }

    fn unlink(&mut self, dir: u64, name: &[u8], directory: bool) -> Result<u64> {
        self.stamped(dir)?.unlink(dir, name, directory)
    }

    fn rename(
        &mut self,
        old_dir: u64,
        old: &[u8],
        new_dir: u64,
        new: &[u8],
        flags: u32,
    ) -> Result<()> {
        self.same(old_dir, new_dir)?;
        self.stamped(old_dir)?
            .rename(old_dir, old, new_dir, new, flags)
    }

    fn set_attributes(&mut self, ino: u64, set: &SetAttributes) -> Result<Node> {
        let files = self.stamped(ino)?;
        files.set_attributes(ino, set)?;
        Ok(files.attributes(ino)?.into())
    }

    fn attributes(&mut self, ino: u64, _who: Endpoint) -> Result<Attributes> {
        self.files(ino)?.attributes(ino)
    }

    fn statistics(&mut self, root: u64) -> Result<Statistics> {
        Ok(self.files(root)?.statistics())
    }

    fn peek(&mut self, ino: u64, offset: u64, _around: (u64, u64)) -> Result<()> {
        self.files(ino)?.publish(ino, offset)
    }

    fn allocate(&mut self, ino: u64, offset: u64, len: u64, mode: u32) -> Result<(u64, u64)> {
        let files = self.stamped(ino)?;
        match mode {
            0 => files.reserve(ino, offset, len, false)?,
            KEEP_SIZE => files.reserve(ino, offset, len, true)?,
            PUNCH_HOLE => files.punch(ino, offset, len)?,
            _ => return Err(Errno::EOPNOTSUPP),
        }
        Ok((len, files.attributes(ino)?.size))
    }

    fn seek(&mut self, ino: u64, offset: u64, hole: bool) -> Result<u64> {
        self.files(ino)?.seek(ino, offset, hole)
    }

    fn drop_caches(&mut self, data: bool, _names: bool) -> Result<u64> {
        if data {
            let mounted = self.mounted.values_mut();
            mounted.for_each(|files| files.store_mut().trim(0));
        }
        Ok(0)
    }
}
