//! The ext2 server's image: messages in front of a [`Volume`], the disk behind it.
//!
//! Arguments: `driver=<endpoint>` of the block driver, `cache=<pages>`: the most pages of file data that it caches.
#![cfg_attr(guest_image, no_std, no_main)]

extern crate alloc;

use abi::Endpoint;
use abi::fs::{
    Attributes, KEEP_SIZE, MS_NOATIME, MS_RDONLY, PUNCH_HOLE, SetAttributes, Statistics,
};
use alloc::vec::Vec;
use ext2::{Errno, New, Options, Piece, Volume};
use rt::clock::Clock;
use rt::fsserver::{
    self, Bounce, Dirents, FileSystem, NewNode, Node, Outgoing, Result, Root, UserBuffer, Written,
};

use crate::disk::Disk;
use crate::shared::SharedPages;

mod disk;
mod shared;

rt::entry!(main);

/// The most cache pages without a `cache=` argument.
const DEFAULT_CACHE: u64 = 1024;
/// Changes reach the disk at the latest after this time.
const WRITE_BACK_NS: u64 = 5_000_000_000;

/// A mounted disk.
struct Server {
    volume: Volume<Disk, SharedPages>,
    clock: Clock,
    pieces: Vec<Piece>,
    bounce: Bounce,
    /// The timer runs: there is something to write back.
    armed: bool,
}

fn main() -> ! {
    fsserver::run(mount())
}

fn mount() -> Result<Server> {
    let driver = rt::args::number("driver").and_then(|n| u32::try_from(n).ok());
    let driver = driver.map(Endpoint).ok_or_else(|| {
        rt::log!("driver=<endpoint> is missing");
        Errno::EINVAL
    })?;
    let clock = Clock::new();
    let disk = Disk::open(driver).inspect_err(|errno| rt::log!("the disk: {errno}"))?;
    let pages = rt::args::number("cache").unwrap_or(DEFAULT_CACHE).max(64);
    let pages = SharedPages::new(pages as usize)
        .inspect_err(|errno| rt::log!("memory for {pages} cache pages: {errno}"))?;
    let options = Options {
        read_only: disk.read_only(),
        now: clock.now(),
        ..Options::default()
    };
    let volume = Volume::mount_with(disk, pages, options).map_err(|error| {
        rt::log!("not mounted: {error}");
        error.errno
    })?;
    if volume.is_read_only() {
        rt::log!("mounted read-only");
    }
    Ok(Server {
        volume,
        clock,
        pieces: Vec::new(),
        bounce: Bounce::default(),
        armed: false,
    })
}

/// The library's inode number; one that does not fit never existed.
fn inode(ino: u64) -> Result<u32> {
    u32::try_from(ino).map_err(|_| Errno::ESTALE)
}

impl Server {
    /// Sets the time that the operation stamps.
    fn stamp(&mut self) {
        self.volume.set_time(self.clock.now());
    }

    /// Sets the time, for an operation that changes something.
    fn change(&mut self) {
        self.stamp();
        if !self.volume.is_read_only() {
            self.arm();
        }
    }

    /// Makes sure that changes are written back in a while.
    fn arm(&mut self) {
        if !self.armed {
            let deadline = self.clock.uptime_ns() + WRITE_BACK_NS;
            self.armed = rt::kernel::set_timer(deadline).is_ok();
        }
    }

    /// The attributes of an inode, with a reference on it.
    fn node(&mut self, ino: u32) -> Result<Node> {
        let attributes = self.volume.attributes(ino)?;
        self.volume.hold(ino);
        Ok(attributes.into())
    }

    /// Puts a file back to `size` after a write that failed half way.
    fn undo(&mut self, ino: u32, size: u64) {
        let set = SetAttributes {
            mask: abi::fs::SetMask::SIZE.bits(),
            size,
            ..SetAttributes::default()
        };
        if let Err(errno) = self.volume.set_attributes(ino, &set) {
            rt::log!("inode {ino} keeps part of a failed write: {errno}");
        }
    }
}

/// Gives `to` the pages and holes of a file.
fn give<'a>(pieces: &[Piece], store: &'a SharedPages, to: &mut Outgoing<'a>) -> Result<()> {
    for piece in pieces {
        match *piece {
            Piece::Data { slot, start, len } => {
                to.data(&ext2::PageStore::page(store, slot)[start..start + len])?;
            }
            Piece::Zero { len } => to.zero(len as u64)?,
        }
    }
    Ok(())
}

impl FileSystem for Server {
    fn read_super(&mut self, dev: u64, flags: u64, options: &[u8]) -> Result<Root> {
        if !options.is_empty() {
            return Err(Errno::EINVAL);
        }
        self.stamp();
        self.volume.store_mut().set_device(dev);
        self.volume.set_no_atime(flags & MS_NOATIME != 0);
        let read_only = flags & MS_RDONLY != 0 || self.volume.device().read_only();
        match self.volume.set_read_only(read_only) {
            // Unknown features: it stays as it is.
            Err(Errno::EROFS) => {}
            other => other?,
        }
        Ok(Root {
            read_only: self.volume.is_read_only(),
            ..self.node(ext2::ROOT)?.into()
        })
    }

    fn remount(&mut self, _root: u64, flags: u64, options: &[u8]) -> Result<()> {
        if !options.is_empty() {
            return Err(Errno::EINVAL);
        }
        self.stamp();
        let read_only = flags & MS_RDONLY != 0;
        if !read_only && self.volume.device().read_only() {
            return Err(Errno::EROFS);
        }
        self.volume.set_read_only(read_only)?;
        self.volume.set_no_atime(flags & MS_NOATIME != 0);
        Ok(())
    }

    fn lookup(&mut self, dir: u64, name: &[u8], _who: Endpoint) -> Result<Node> {
        let ino = self.volume.lookup(inode(dir)?, name)?;
        self.node(ino)
    }

    fn put(&mut self, ino: u64, count: u64) -> Result<()> {
        self.stamp();
        let result = self.volume.put(inode(ino)?, count);
        if self.volume.is_dirty() {
            self.arm();
        }
        result
    }

    fn read<'a>(
        &'a mut self,
        ino: u64,
        offset: u64,
        to: &mut Outgoing<'a>,
        _who: Endpoint,
    ) -> Result<u64> {
        self.stamp();
        let ino = inode(ino)?;
        let mut done = 0;
        loop {
            let at = offset.checked_add(done).ok_or(Errno::EINVAL)?;
            let want = usize::try_from(to.room()).unwrap_or(usize::MAX);
            self.pieces.clear();
            let got = self.volume.read_pieces(ino, at, want, &mut self.pieces)?;
            done += got as u64;
            if got == 0 || got as u64 == to.room() {
                give(&self.pieces, self.volume.store(), to)?;
                return Ok(done);
            }
            // The cache may need the room of these for the next ones.
            to.now(|to| give(&self.pieces, self.volume.store(), to))?;
        }
    }

    fn share(&mut self, ino: u64, offset: u64) {
        if let Ok(ino) = inode(ino) {
            self.volume.share(ino, offset);
        }
    }

    fn write(
        &mut self,
        ino: u64,
        offset: Option<u64>,
        from: &UserBuffer,
        _: Endpoint,
    ) -> Result<Written> {
        self.change();
        let ino = inode(ino)?;
        let before = self.volume.attributes(ino)?.size;
        let position = offset.unwrap_or(before);
        let (done, ended) = self
            .bounce
            .write(from, position, |at, data| self.volume.write(ino, at, data));
        match ended {
            Err(Errno::ENOSPC | Errno::EFBIG) if done > 0 => {}
            Err(errno) => {
                // What was overwritten is what VFS writes again when the page is there; what
                // was appended must not be there twice.
                if done > 0 && self.volume.attributes(ino)?.size > before {
                    self.undo(ino, before);
                }
                return Err(errno);
            }
            Ok(()) => {}
        }
        Ok(Written {
            bytes: done,
            size: self.volume.attributes(ino)?.size,
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
        self.volume.read_dir(inode(ino)?, position, &mut |entry| {
            to.push(entry.ino as u64, entry.next, entry.kind, entry.name)
        })
    }

    fn readlink(&mut self, ino: u64, buffer: &mut [u8], _who: Endpoint) -> Result<usize> {
        self.stamp();
        self.volume.readlink(inode(ino)?, buffer)
    }

    fn create(&mut self, dir: u64, name: &[u8], new: &NewNode) -> Result<Node> {
        self.change();
        let new = New {
            mode: new.mode,
            uid: new.uid,
            gid: new.gid,
            rdev: new.rdev,
        };
        let ino = self.volume.create(inode(dir)?, name, new)?;
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
        self.change();
        let new = New {
            uid,
            gid,
            ..New::default()
        };
        let ino = self.volume.symlink(inode(dir)?, name, target, new)?;
        self.node(ino)
    }

    fn link(&mut self, ino: u64, dir: u64, name: &[u8]) -> Result<()> {
        self.change();
        self.volume.link(inode(ino)?, inode(dir)?, name)
    }

    fn unlink(&mut self, dir: u64, name: &[u8], directory: bool) -> Result<u64> {
        self.change();
        let ino = self.volume.unlink(inode(dir)?, name, directory)?;
        Ok(ino as u64)
    }

    fn rename(
        &mut self,
        old_dir: u64,
        old: &[u8],
        new_dir: u64,
        new: &[u8],
        flags: u32,
    ) -> Result<()> {
        self.change();
        self.volume
            .rename(inode(old_dir)?, old, inode(new_dir)?, new, flags)
    }

    fn set_attributes(&mut self, ino: u64, set: &SetAttributes) -> Result<Node> {
        self.change();
        let ino = inode(ino)?;
        self.volume.set_attributes(ino, set)?;
        Ok(self.volume.attributes(ino)?.into())
    }

    fn attributes(&mut self, ino: u64, _who: Endpoint) -> Result<Attributes> {
        self.volume.attributes(inode(ino)?)
    }

    fn statistics(&mut self, _root: u64) -> Result<Statistics> {
        Ok(self.volume.statistics())
    }

    fn sync(&mut self, ino: Option<u64>) -> Result<()> {
        self.stamp();
        match ino {
            Some(ino) => self.volume.sync_file(inode(ino)?),
            None => self.volume.sync(),
        }
    }

    fn peek(&mut self, ino: u64, offset: u64, (before, after): (u64, u64)) -> Result<()> {
        let count = |pages| u32::try_from(pages).unwrap_or(u32::MAX);
        let around = (count(before), count(after));
        self.volume.publish(inode(ino)?, offset, around)
    }

    fn pages_written(&mut self, ino: u64, offset: u64, len: u64) -> Result<()> {
        self.change();
        let ino = inode(ino)?;
        let mut result = Ok(());
        let pages = offset..offset.saturating_add(len);
        for at in pages.step_by(ext2::PAGE) {
            if let Err(errno) = self.volume.page_written(ino, at) {
                rt::log!("inode {ino} loses what was written to its mapping at {at}: {errno}");
                result = Err(errno);
                break;
            }
        }
        // What could not be taken over is lost: VM cannot keep it for ever.
        self.volume.store_mut().taken_over(ino, offset, len);
        result
    }

    fn allocate(&mut self, ino: u64, offset: u64, len: u64, mode: u32) -> Result<(u64, u64)> {
        self.change();
        let ino = inode(ino)?;
        let done = match mode {
            0 => self.volume.reserve(ino, offset, len, false)?,
            KEEP_SIZE => self.volume.reserve(ino, offset, len, true)?,
            PUNCH_HOLE => {
                self.volume.punch(ino, offset, len)?;
                len
            }
            _ => return Err(Errno::EOPNOTSUPP),
        };
        Ok((done, self.volume.attributes(ino)?.size))
    }

    fn seek(&mut self, ino: u64, offset: u64, hole: bool) -> Result<u64> {
        self.volume.seek(inode(ino)?, offset, hole)
    }

    fn drop_caches(&mut self, data: bool, names: bool) -> Result<u64> {
        if names {
            self.volume.drop_metadata();
        }
        Ok(if data {
            self.volume.drop_pages() as u64
        } else {
            0
        })
    }

    fn give_back(&mut self, pages: usize) -> usize {
        self.volume.give_back(pages)
    }

    fn unmount(&mut self, _root: u64) -> Result<()> {
        self.stamp();
        self.volume.set_read_only(true)?;
        self.volume.store_mut().forget_device();
        Ok(())
    }

    fn tick(&mut self) {
        self.armed = false;
        self.stamp();
        if let Err(errno) = self.volume.sync() {
            rt::log!("writing back: {errno}");
        }
    }
}
