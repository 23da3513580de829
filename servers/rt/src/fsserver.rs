//! What every file system server has in common: requests of [`abi::proto::fs`] become calls
//! of a [`FileSystem`], results become answers.
//!
//! One request at a time. Names and attribute structures are fetched before the file system
//! is asked; file data moves through [`UserBuffer`], whose copies may fail with `EFAULT`. A
//! method that sees such a failure must leave the file system as it found it and return the
//! error: VFS repairs the page and asks again.

use abi::fs::{Attributes, NAME_MAX, PATH_MAX, SetAttributes, Statistics};
use abi::kernel::{KernelNotify, MAX_VECTOR, SafeCopy};
use abi::proto::{fs, rs, vfs};
use abi::{Class, Endpoint, Errno, Message, PAGE_SIZE, Request};
use alloc::vec;
use alloc::vec::Vec;
use core::marker::PhantomData;

use crate::ipc::{self, Received};
use crate::{copy, outbox};

/// What operations return.
pub type Result<T> = core::result::Result<T, Errno>;

/// The attributes that an answer carries ("attrs").
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Node {
    /// Inode number.
    pub ino: u64,
    /// Linux `st_mode`.
    pub mode: u32,
    /// Links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes.
    pub size: u64,
    /// Device number of a device node.
    pub rdev: u64,
}

impl From<Attributes> for Node {
    fn from(a: Attributes) -> Node {
        Node {
            ino: a.ino,
            mode: a.mode,
            nlink: a.nlink,
            uid: a.uid,
            gid: a.gid,
            size: a.size,
            rdev: a.rdev,
        }
    }
}

/// What a write did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Written {
    /// Bytes.
    pub bytes: u64,
    /// The file's size afterwards.
    pub size: u64,
    /// Where they were written.
    pub position: u64,
}

/// What a new inode starts with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewNode {
    /// Linux `st_mode`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node.
    pub rdev: u64,
}

/// A file system. The methods are the requests of [`abi::proto::fs`]; where one is not
/// implemented the file system is read-only, or cannot map files. Methods that return a
/// [`Node`] take a reference on it, unless said otherwise.
#[allow(unused_variables)]
pub trait FileSystem {
    /// Mounts; the root.
    fn read_super(&mut self, dev: u64, flags: u64) -> Result<Node>;
    /// One name in a directory.
    fn lookup(&mut self, dir: u64, name: &[u8], who: Endpoint) -> Result<Node>;
    /// Gives references back.
    fn put(&mut self, ino: u64, count: u64) -> Result<()>;
    /// Copies to `to` (at most its length); returns how much.
    fn read(&mut self, ino: u64, offset: u64, to: &UserBuffer, who: Endpoint) -> Result<u64>;
    /// Copies from `from`; no offset appends.
    fn write(&mut self, ino: u64, offset: Option<u64>, from: &UserBuffer) -> Result<Written> {
        Err(Errno::EROFS)
    }
    /// Fills `to` from cookie `position` on until an entry does not fit; the next position.
    fn getdents(&mut self, ino: u64, position: u64, to: &mut Dirents, who: Endpoint)
    -> Result<u64>;
    /// The target of a symbolic link; returns how many bytes.
    fn readlink(&mut self, ino: u64, buffer: &mut [u8], who: Endpoint) -> Result<usize> {
        Err(Errno::EINVAL)
    }
    /// Creates what the type in the mode says.
    fn create(&mut self, dir: u64, name: &[u8], new: &NewNode) -> Result<Node> {
        Err(Errno::EROFS)
    }
    /// Creates a symbolic link.
    fn symlink(
        &mut self,
        dir: u64,
        name: &[u8],
        target: &[u8],
        uid: u32,
        gid: u32,
    ) -> Result<Node> {
        Err(Errno::EROFS)
    }
    /// Adds a name.
    fn link(&mut self, ino: u64, dir: u64, name: &[u8]) -> Result<()> {
        Err(Errno::EROFS)
    }
    /// Removes a name; the inode it was of.
    fn unlink(&mut self, dir: u64, name: &[u8], directory: bool) -> Result<u64> {
        Err(Errno::EROFS)
    }
    /// Renames.
    fn rename(
        &mut self,
        old_dir: u64,
        old: &[u8],
        new_dir: u64,
        new: &[u8],
        flags: u32,
    ) -> Result<()> {
        Err(Errno::EROFS)
    }
    /// Changes attributes. Takes no reference.
    fn set_attributes(&mut self, ino: u64, set: &SetAttributes) -> Result<Node> {
        Err(Errno::EROFS)
    }
    /// All attributes.
    fn attributes(&mut self, ino: u64, who: Endpoint) -> Result<Attributes>;
    /// The file system's figures.
    fn statistics(&mut self) -> Result<Statistics>;
    /// Writes back one file, or everything.
    fn sync(&mut self, ino: Option<u64>) -> Result<()> {
        Ok(())
    }
    /// Puts a page into VM's cache.
    fn peek(&mut self, ino: u64, offset: u64) -> Result<()> {
        Err(Errno::ENOSYS)
    }
    /// Pages of a file were changed through a mapping.
    fn pages_written(&mut self, ino: u64, offset: u64, len: u64) -> Result<()> {
        Ok(())
    }
    /// Forgets what is on the disk as well: file pages, or what is known of inodes and names;
    /// returns how many pages.
    fn drop_caches(&mut self, data: bool, names: bool) -> Result<u64> {
        Ok(0)
    }
    /// Writes back and forgets.
    fn unmount(&mut self) -> Result<()> {
        Ok(())
    }
    /// The server's timer expired.
    fn tick(&mut self) {}
}

/// Memory behind a grant of VFS: a program's, or VFS's own.
#[derive(Clone, Copy, Debug)]
pub struct UserBuffer {
    granter: Endpoint,
    grant: i32,
    len: u64,
}

impl UserBuffer {
    /// Its length.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Copies out of it, from `offset` on.
    pub fn copy_in(&self, offset: u64, data: &mut [u8]) -> Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        copy::safecopy_from(self.granter, self.grant, offset, data)
    }

    /// Copies into it, at `offset`.
    pub fn copy_out(&self, offset: u64, data: &[u8]) -> Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        copy::safecopy_to(self.granter, self.grant, offset, data)
    }

    /// Fills a part with zeroes.
    pub fn zero(&self, offset: u64, len: u64) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        copy::safe_memset(self.granter, self.grant, offset, len, 0)
    }

    /// A copy of many pieces to `offset` and on, in as few kernel visits as can be.
    pub fn gather<'a>(&self, offset: u64) -> Gather<'a> {
        Gather {
            to: *self,
            copies: Vec::new(),
            offset,
            pieces: PhantomData,
        }
    }
}

/// Data of a write on its way from a [`UserBuffer`] into the file system: fetched before any
/// of it is stored, so that a copy that fails has changed nothing.
#[derive(Default)]
pub struct Bounce(Vec<u8>);

impl Bounce {
    /// Bytes fetched at once. A longer write can fail half way, and then has to be undone.
    pub const LEN: usize = 256 << 10;

    /// Writes all of `from` at `position` by `store`, which may store less and then ends it.
    /// Returns how much was stored, and the failure that ended it if any did.
    pub fn write(
        &mut self,
        from: &UserBuffer,
        position: u64,
        mut store: impl FnMut(u64, &[u8]) -> Result<usize>,
    ) -> (u64, Result<()>) {
        let mut done = 0;
        while done < from.len() {
            let len = (from.len() - done).min(Self::LEN as u64) as usize;
            let part = self.fetch(from, done, len).and_then(|data| {
                let at = position.checked_add(done).ok_or(Errno::EFBIG)?;
                store(at, data)
            });
            match part {
                Ok(n) => {
                    done += n as u64;
                    if n < len {
                        break;
                    }
                }
                Err(errno) => return (done, Err(errno)),
            }
        }
        (done, Ok(()))
    }

    fn fetch(&mut self, from: &UserBuffer, offset: u64, len: usize) -> Result<&[u8]> {
        if self.0.len() < len {
            let more = len - self.0.len();
            self.0.try_reserve_exact(more).map_err(|_| Errno::ENOMEM)?;
            self.0.resize(len, 0);
        }
        let data = &mut self.0[..len];
        from.copy_in(offset, data)?;
        Ok(data)
    }
}

/// Pieces of the server's memory on their way into a [`UserBuffer`].
pub struct Gather<'a> {
    to: UserBuffer,
    copies: Vec<SafeCopy>,
    offset: u64,
    pieces: PhantomData<&'a [u8]>,
}

impl<'a> Gather<'a> {
    /// The next bytes.
    pub fn data(&mut self, data: &'a [u8]) -> Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        if self.copies.len() == MAX_VECTOR {
            self.flush()?;
        }
        self.copies.push(SafeCopy {
            granter: self.to.granter.0,
            grant: self.to.grant,
            offset: self.offset,
            address: data.as_ptr() as u64,
            len: data.len() as u64,
            to_grant: 1,
        });
        self.offset += data.len() as u64;
        Ok(())
    }

    /// The next `len` bytes are zero.
    pub fn zero(&mut self, len: u64) -> Result<()> {
        static ZEROES: [u8; PAGE_SIZE] = [0; PAGE_SIZE];
        if len <= ZEROES.len() as u64 {
            return self.data(&ZEROES[..len as usize]);
        }
        self.to.zero(self.offset, len)?;
        self.offset += len;
        Ok(())
    }

    /// Copies what was not copied yet.
    pub fn flush(&mut self) -> Result<()> {
        let result = match &self.copies[..] {
            [] => Ok(()),
            // SAFETY: each element was made from a slice that is borrowed for 'a, which
            // outlives `self`; the copies only read them.
            copies => unsafe { copy::safecopy_vector(copies) },
        };
        self.copies.clear();
        result
    }
}

/// Linux `linux_dirent64` records being collected.
pub struct Dirents {
    bytes: Vec<u8>,
    limit: usize,
    refused: bool,
}

impl Dirents {
    /// Room for `limit` bytes of records.
    pub fn new(limit: usize) -> Dirents {
        Dirents {
            bytes: Vec::new(),
            limit,
            refused: false,
        }
    }

    /// Adds a record; `next` is the position after it, `kind` a DT_*. False when it does not
    /// fit: the entry was not taken and no more can be.
    pub fn push(&mut self, ino: u64, next: u64, kind: u8, name: &[u8]) -> bool {
        const HEADER: usize = 19;
        let len = (HEADER + name.len() + 1).next_multiple_of(8);
        if self.refused || self.bytes.len() + len > self.limit {
            self.refused = true;
            return false;
        }
        let end = self.bytes.len() + len;
        self.bytes.extend_from_slice(&ino.to_le_bytes());
        self.bytes.extend_from_slice(&next.to_le_bytes());
        self.bytes.extend_from_slice(&(len as u16).to_le_bytes());
        self.bytes.push(kind);
        self.bytes.extend_from_slice(name);
        self.bytes.resize(end, 0);
        true
    }

    /// The records; `EINVAL` when there are entries and not one fits.
    pub fn finish(&self) -> Result<&[u8]> {
        if self.bytes.is_empty() && self.refused {
            return Err(Errno::EINVAL);
        }
        Ok(&self.bytes)
    }
}

/// Announces the service to RS with this outcome. A service that gave up is ended by RS.
pub fn started(status: Result<()>) {
    let status = status.map_or_else(|errno| -(errno.0 as i64), |()| 0);
    outbox::post(Endpoint::RS, rs::Started { status });
}

/// Serves VFS for ever.
pub fn serve(files: &mut dyn FileSystem) -> ! {
    let mut scratch = Scratch {
        name: [0; 2 * NAME_MAX],
        text: vec![0; PATH_MAX],
    };
    let mut next = ipc::receive();
    loop {
        let answer = match next {
            Ok(received) => accept(files, &mut scratch, &received),
            Err(_) => None,
        };
        next = match answer {
            Some(answer) if outbox::is_empty() => {
                let message = answer.encode();
                match ipc::post_receive(Endpoint::VFS, message) {
                    Err(Errno::EAGAIN) => {
                        outbox::post_message(Endpoint::VFS, message);
                        ipc::receive()
                    }
                    other => other,
                }
            }
            Some(answer) => {
                outbox::post(Endpoint::VFS, answer);
                ipc::receive()
            }
            None => ipc::receive(),
        };
    }
}

/// Deals with one message; the answer to it, if it has one.
fn accept(
    files: &mut dyn FileSystem,
    scratch: &mut Scratch,
    received: &Received,
) -> Option<vfs::Done> {
    match received.class {
        Class::Post if received.source == Endpoint::VFS => {
            let message = &received.message;
            // Every request starts with its transaction; 0 wants no answer.
            let txn = message.words[0];
            let result = scratch.dispatch(files, received.source, message);
            (txn != 0).then(|| done(txn, result))
        }
        Class::Kernel => {
            let bits = received.message.words[0];
            if bits & KernelNotify::OUTBOX.bits() != 0 {
                outbox::flush();
            }
            if bits & KernelNotify::TIMER.bits() != 0 {
                files.tick();
            }
            None
        }
        class => {
            if class.wants_reply() {
                // Nobody is left waiting for a service that has no calls.
                let _ = ipc::reply_raw(received.source, Message::error(Errno::ENOSYS));
            }
            None
        }
    }
}

fn done(txn: u64, result: Result<[u64; 5]>) -> vfs::Done {
    let [a, b, c, d, e] = result.unwrap_or_default();
    vfs::Done {
        txn,
        status: result.map(|_| ()),
        a,
        b,
        c,
        d,
        e,
    }
}

fn attrs(node: Node) -> [u64; 5] {
    [
        node.ino,
        node.mode as u64 | (node.nlink as u64) << 32,
        node.uid as u64 | (node.gid as u64) << 32,
        node.size,
        node.rdev,
    ]
}

/// Where names and link targets are fetched to.
struct Scratch {
    name: [u8; 2 * NAME_MAX],
    text: Vec<u8>,
}

fn decode<R: Request>(message: &Message) -> Result<R> {
    R::decode(message).ok_or(Errno::EINVAL)
}

/// A name's length, checked.
fn name_len(len: u64) -> Result<usize> {
    match len {
        0 => Err(Errno::ENOENT),
        len if len <= NAME_MAX as u64 => Ok(len as usize),
        _ => Err(Errno::ENAMETOOLONG),
    }
}

impl Scratch {
    /// Fetches a name.
    fn name(&mut self, from: Endpoint, grant: i32, len: u64) -> Result<&[u8]> {
        let name = &mut self.name[..name_len(len)?];
        copy::safecopy_from(from, grant, 0, name)?;
        Ok(name)
    }

    fn dispatch(
        &mut self,
        files: &mut dyn FileSystem,
        from: Endpoint,
        message: &Message,
    ) -> Result<[u64; 5]> {
        let nothing = |()| [0; 5];
        match message.kind {
            fs::ReadSuper::KIND => {
                let r: fs::ReadSuper = decode(message)?;
                files.read_super(r.dev, r.flags).map(attrs)
            }
            fs::Lookup::KIND => {
                let r: fs::Lookup = decode(message)?;
                let name = self.name(from, r.grant, r.len)?;
                files.lookup(r.dir, name, r.who).map(attrs)
            }
            fs::Put::KIND => {
                let r: fs::Put = decode(message)?;
                files.put(r.ino, r.count).map(nothing)
            }
            fs::Read::KIND => {
                let r: fs::Read = decode(message)?;
                let to = buffer(from, r.grant, r.len);
                let bytes = files.read(r.ino, r.offset, &to, r.who)?;
                Ok([bytes, 0, 0, 0, 0])
            }
            fs::Write::KIND => {
                let r: fs::Write = decode(message)?;
                let offset = (!r.append).then_some(r.offset);
                let w = files.write(r.ino, offset, &buffer(from, r.grant, r.len))?;
                Ok([w.bytes, w.size, w.position, 0, 0])
            }
            fs::Getdents::KIND => {
                let r: fs::Getdents = decode(message)?;
                // Programs ask for 32 KiB at most; more would only be held here.
                let mut to = Dirents::new(r.len.min(32 << 10) as usize);
                let next = files.getdents(r.ino, r.position, &mut to, r.who)?;
                let bytes = to.finish()?;
                buffer(from, r.grant, r.len).copy_out(0, bytes)?;
                Ok([bytes.len() as u64, next, 0, 0, 0])
            }
            fs::Readlink::KIND => {
                let r: fs::Readlink = decode(message)?;
                let len = self.text.len().min(r.len as usize);
                let len = files.readlink(r.ino, &mut self.text[..len], r.who)?;
                buffer(from, r.grant, r.len).copy_out(0, &self.text[..len])?;
                Ok([len as u64, 0, 0, 0, 0])
            }
            fs::GetAttr::KIND => {
                let r: fs::GetAttr = decode(message)?;
                let attributes = files.attributes(r.ino, r.who)?;
                buffer(from, r.grant, 0)
                    .copy_out(0, plain_bytes(&attributes))
                    .map(nothing)
            }
            fs::Statfs::KIND => {
                let r: fs::Statfs = decode(message)?;
                let statistics = files.statistics()?;
                buffer(from, r.grant, 0)
                    .copy_out(0, plain_bytes(&statistics))
                    .map(nothing)
            }
            fs::Sync::KIND => {
                let r: fs::Sync = decode(message)?;
                files.sync((r.ino != 0).then_some(r.ino)).map(nothing)
            }
            fs::Peek::KIND => {
                let r: fs::Peek = decode(message)?;
                files.peek(r.ino, r.offset).map(nothing)
            }
            fs::PagesWritten::KIND => {
                let r: fs::PagesWritten = decode(message)?;
                files.pages_written(r.ino, r.offset, r.len).map(nothing)
            }
            fs::DropCaches::KIND => {
                let r: fs::DropCaches = decode(message)?;
                let pages = files.drop_caches(r.data, r.names)?;
                Ok([pages, 0, 0, 0, 0])
            }
            fs::Unmount::KIND => files.unmount().map(nothing),
            _ => self.change(files, from, message),
        }
    }

    /// The requests that change names and attributes.
    fn change(
        &mut self,
        files: &mut dyn FileSystem,
        from: Endpoint,
        message: &Message,
    ) -> Result<[u64; 5]> {
        let nothing = |()| [0; 5];
        match message.kind {
            fs::Create::KIND => {
                let r: fs::Create = decode(message)?;
                let name = self.name(from, r.grant, r.len)?;
                let new = NewNode {
                    mode: r.mode,
                    uid: r.ids.0,
                    gid: r.ids.1,
                    rdev: r.rdev,
                };
                files.create(r.dir, name, &new).map(attrs)
            }
            fs::Symlink::KIND => {
                let r: fs::Symlink = decode(message)?;
                let target = self.text.get_mut(..r.lens.1 as usize);
                let target = target.ok_or(Errno::ENAMETOOLONG)?;
                buffer(from, r.grants.1 as i32, 0).copy_in(0, target)?;
                let name = &mut self.name[..name_len(r.lens.0 as u64)?];
                copy::safecopy_from(from, r.grants.0 as i32, 0, name)?;
                files
                    .symlink(r.dir, name, target, r.ids.0, r.ids.1)
                    .map(attrs)
            }
            fs::Link::KIND => {
                let r: fs::Link = decode(message)?;
                let name = self.name(from, r.grant, r.len)?;
                files.link(r.ino, r.dir, name).map(nothing)
            }
            fs::Unlink::KIND => {
                let r: fs::Unlink = decode(message)?;
                let name = self.name(from, r.grant, r.len)?;
                let ino = files.unlink(r.dir, name, r.directory)?;
                Ok([ino, 0, 0, 0, 0])
            }
            fs::Rename::KIND => {
                let r: fs::Rename = decode(message)?;
                let old = name_len(r.lens.0 as u64)?;
                let new = name_len(r.lens.1 as u64)?;
                let names = &mut self.name[..old + new];
                copy::safecopy_from(from, r.grant, 0, names)?;
                let (old, new) = names.split_at(old);
                files
                    .rename(r.old_dir, old, r.new_dir, new, r.flags)
                    .map(nothing)
            }
            fs::SetAttr::KIND => {
                let r: fs::SetAttr = decode(message)?;
                let mut bytes = [0; size_of::<SetAttributes>()];
                copy::safecopy_from(from, r.grant, 0, &mut bytes)?;
                // SAFETY: SetAttributes is plain integers, valid for any bits; the array has
                // its size, and read_unaligned asks for no alignment.
                let set = unsafe { bytes.as_ptr().cast::<SetAttributes>().read_unaligned() };
                files.set_attributes(r.ino, &set).map(attrs)
            }
            _ => Err(Errno::ENOSYS),
        }
    }
}

fn buffer(granter: Endpoint, grant: i32, len: u64) -> UserBuffer {
    UserBuffer {
        granter,
        grant,
        len,
    }
}

/// Structures of integers without padding, which may be looked at as bytes.
trait Plain: Copy {}
impl Plain for Attributes {}
impl Plain for Statistics {}

fn plain_bytes<T: Plain>(value: &T) -> &[u8] {
    // SAFETY: `Plain` types are integers without padding, so all their bytes are initialised;
    // the slice lives as long as the borrow.
    unsafe { core::slice::from_raw_parts((value as *const T).cast(), size_of::<T>()) }
}

/// Time since boot and of day, read without a kernel visit.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Nanoseconds since boot at `ticks`.
    base_ns: u64,
    ticks: u64,
    /// 0 when unknown: then the kernel is asked each time.
    ticks_per_second: u64,
    /// Time of day at boot.
    epoch_ns: u64,
}

impl Clock {
    /// Reads the time of boot from the run specification; without one, days start at boot.
    pub fn new() -> Clock {
        Clock {
            ticks_per_second: crate::kernel::boot_info().map_or(0, |info| info.tsc_hz),
            epoch_ns: boot_epoch().unwrap_or(0),
            base_ns: crate::kernel::time_ns(),
            ticks: ticks(),
        }
    }

    /// Nanoseconds since boot.
    pub fn uptime_ns(&self) -> u64 {
        match self.ticks_per_second {
            0 => crate::kernel::time_ns(),
            hz => {
                let passed = ticks().saturating_sub(self.ticks) as u128;
                let passed = passed * 1_000_000_000 / hz as u128;
                self.base_ns.saturating_add(passed as u64)
            }
        }
    }

    /// Seconds and nanoseconds since 1970.
    pub fn now(&self) -> (i64, i64) {
        let ns = self.epoch_ns.saturating_add(self.uptime_ns());
        ((ns / 1_000_000_000) as i64, (ns % 1_000_000_000) as i64)
    }
}

impl Default for Clock {
    fn default() -> Self {
        Clock::new()
    }
}

fn ticks() -> u64 {
    // SAFETY: reading the time stamp counter has no effect; x86-64 always has it.
    unsafe { core::arch::x86_64::_rdtsc() }
}

fn boot_epoch() -> Result<u64> {
    use abi::boot::{RUN_MAGIC, RunHeader, names};
    let (index, _) = crate::kernel::module_find(names::RUN)?;
    let word = |offset: usize| {
        let mut bytes = [0; 8];
        crate::kernel::module_read(index, offset as u64, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    };
    if word(core::mem::offset_of!(RunHeader, magic))? != RUN_MAGIC {
        return Err(Errno::EINVAL);
    }
    word(core::mem::offset_of!(RunHeader, epoch_ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dirents_are_linux_records() {
        let mut d = Dirents::new(48);
        assert!(d.push(7, 12, 4, b"."));
        assert!(!d.push(8, 24, 8, b"a-name-that-is-longer"));
        assert!(!d.push(9, 36, 8, b"b"), "none after one was refused");
        let bytes = d.finish().unwrap();
        assert_eq!(bytes.len(), 24);
        assert_eq!(bytes[0], 7);
        assert_eq!(bytes[8], 12);
        assert_eq!(bytes[16..19], [24, 0, 4]);
        assert_eq!(bytes[19..24], *b".\0\0\0\0");
        let mut d = Dirents::new(16);
        assert!(!d.push(1, 1, 0, b"x"));
        assert_eq!(d.finish(), Err(Errno::EINVAL));
        assert_eq!(Dirents::new(0).finish(), Ok(&[][..]));
    }

    #[test]
    fn plain_structures_have_no_padding() {
        assert_eq!(size_of::<Attributes>(), 3 * 8 + 4 * 4 + 8 + 2 * 4 + 3 * 16);
        assert_eq!(size_of::<Statistics>(), 9 * 8);
    }
}
