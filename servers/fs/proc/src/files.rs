//! The file system: names, attributes and reads.

use crate::modes::{S_IFDIR, S_IFLNK, S_IFMT, descriptor_mode, global_mode, item_mode};
use crate::process::Strings;
use crate::snapshots::Snapshots;
use crate::source::{PathKind, Source};
use crate::tree::{GLOBAL, Global, IMAGE_BITS, Inode, Item, OfProcess, PROCESS, ROOT, decimal};
use crate::{global, process};
use abi::fs::{Attributes, NAME_MAX, SetAttributes, SetMask, Statistics};
use abi::{Endpoint, Errno, PAGE, PAGE_SIZE};
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use rt::fsserver::{Dirents, FileSystem, Node, Outgoing, Result, Root, UserBuffer, Written};

/// Directory positions of processes in the root: this plus the process id.
const FIRST_PROCESS: u64 = 1 << 20;
/// Linux's PROC_SUPER_MAGIC.
const MAGIC: u64 = 0x9fa0;

/// /proc.
pub struct Proc<S> {
    source: S,
    snapshots: Snapshots,
    boot_id: [u8; 16],
}

impl<S: Source> Proc<S> {
    /// A file system over these facts.
    pub fn new(source: S) -> Proc<S> {
        let mut boot_id = [0; 16];
        source.random(&mut boot_id);
        Proc {
            source,
            snapshots: Snapshots::default(),
            boot_id,
        }
    }

    fn inode(&self, ino: u64) -> Result<Inode> {
        Inode::from_number(ino).ok_or(Errno::ESTALE)
    }

    /// `EROFS` for what cannot be written.
    fn check_writable(&self, ino: u64) -> Result<Inode> {
        let inode = self.inode(ino)?;
        let writable = match inode {
            Inode::Global(index) => global_mode(GLOBAL[index].2) & 0o222 != 0,
            Inode::Process(of) => {
                matches!(of.item, Item::ExecFault | Item::Memory | Item::OomAdjust)
            }
        };
        writable.then_some(inode).ok_or(Errno::EROFS)
    }

    /// Attributes, and a check that it (still) exists.
    fn node(&self, inode: Inode) -> Result<Node> {
        let (mode, uid, gid) = match inode {
            Inode::Global(index) => (global_mode(GLOBAL[index].2), 0, 0),
            Inode::Process(of) => {
                let figures = self.source.process(of.pid).map_err(|_| Errno::ENOENT)?;
                let mut mode = item_mode(of.item);
                if matches!(of.item, Item::Descriptor | Item::DescriptorInfo) {
                    let flags = self.descriptor(figures.who, of.fd)?;
                    if of.item == Item::Descriptor {
                        mode = mode & !0o777 | descriptor_mode(flags);
                    }
                }
                let (uid, gid) = match of.item {
                    // Whoever the process is: to break a program is root's business.
                    Item::ExecFault => (0, 0),
                    Item::Directory | Item::Tasks => figures.ids,
                    // What nobody may look at but root is root's.
                    _ if self.source.credentials(of.pid).is_ok_and(|c| !c.dumpable) => (0, 0),
                    _ => figures.ids,
                };
                (mode, uid, gid)
            }
        };
        Ok(Node {
            ino: inode.number(),
            mode,
            nlink: if mode & S_IFMT == S_IFDIR { 2 } else { 1 },
            uid,
            gid,
            size: 0,
            rdev: 0,
        })
    }

    /// The flags of an open descriptor.
    fn descriptor(&self, who: Endpoint, fd: u32) -> Result<u64> {
        let fd = i32::try_from(fd).map_err(|_| Errno::ENOENT)?;
        match self.source.next_fd(who, fd) {
            Ok(found) if found.fd == fd => Ok(found.flags),
            _ => Err(Errno::ENOENT),
        }
    }

    fn find(&self, dir: Inode, name: &[u8]) -> Result<Inode> {
        let number = decimal(name);
        let found = match dir {
            Inode::Global(index) => {
                let is = |entry: &&(usize, &str, Global)| {
                    entry.0 == index && !entry.1.is_empty() && entry.1.as_bytes() == name
                };
                let entry = GLOBAL
                    .iter()
                    .position(|entry| is(&entry))
                    .map(Inode::Global);
                let process = || {
                    let pid = number.filter(|&pid| pid > 0 && index == 0)?;
                    Some(Inode::Process(OfProcess::directory(pid)))
                };
                entry.or_else(process)
            }
            Inode::Process(of) => match of.item {
                Item::Directory => entries(of)
                    .find(|entry| entry.0.as_bytes() == name)
                    .map(|entry| Inode::Process(self.entry_of(of, entry.1))),
                Item::Descriptors => number.map(|fd| {
                    Inode::Process(OfProcess {
                        fd,
                        ..of.with(Item::Descriptor)
                    })
                }),
                Item::DescriptorInfos => number.map(|fd| {
                    Inode::Process(OfProcess {
                        fd,
                        ..of.with(Item::DescriptorInfo)
                    })
                }),
                Item::Tasks => {
                    let is = |&tid: &u32| self.source.next_tid(of.pid, tid) == Ok(tid);
                    number.filter(is).map(thread)
                }
                _ => return Err(Errno::ENOTDIR),
            },
        };
        found.ok_or(Errno::ENOENT)
    }

    /// An entry of a process's directory.
    fn entry_of(&self, of: OfProcess, item: Item) -> OfProcess {
        let image = match item.is_of_image() {
            true => self.source.credentials(of.pid).map_or(0, |c| c.image),
            false => 0,
        };
        let image = image & ((1 << IMAGE_BITS) - 1);
        OfProcess {
            image,
            ..of.with(item)
        }
    }

    /// The number of the image that a file shows; `None` when it is gone.
    fn image_of(&self, of: OfProcess) -> Option<u64> {
        let image = self.source.credentials(of.pid).ok()?.image;
        let mask = (1 << IMAGE_BITS) - 1;
        (image != 0 && image & mask == of.image).then_some(image)
    }

    /// Whether a file shows memory that is there.
    fn shows_memory(&self, of: OfProcess) -> bool {
        of.item.is_of_image() && self.image_of(of).is_some()
    }

    /// The process of a thread.
    fn group(&self, tid: u32) -> u32 {
        let who = self.source.process(tid).map(|figures| figures.who);
        who.and_then(|who| self.source.pid_of(who)).unwrap_or(tid)
    }

    fn above(&self, inode: Inode) -> u64 {
        match inode {
            Inode::Global(index) => Inode::Global(GLOBAL[index].0).number(),
            Inode::Process(of) => match of.item {
                Item::Directory if of.task => {
                    let tasks = OfProcess::directory(self.group(of.pid)).with(Item::Tasks);
                    Inode::Process(tasks).number()
                }
                Item::Directory => ROOT,
                _ => Inode::Process(OfProcess {
                    fd: 0,
                    ..of.with(Item::Directory)
                })
                .number(),
            },
        }
    }

    /// The text of a file.
    fn text(&self, inode: Inode, who: Endpoint) -> Result<Vec<u8>> {
        let source = &self.source;
        let of = match inode {
            Inode::Global(index) => {
                return global::text(source, &self.boot_id, GLOBAL[index].2, who);
            }
            Inode::Process(of) => of,
        };
        if of.item.is_of_image() {
            let before = self.image_of(of);
            if before.is_none() {
                return Ok(Vec::new());
            }
            let text = match of.item {
                Item::Environ => process::strings(source, of.pid, Strings::Environment),
                Item::Auxv => process::strings(source, of.pid, Strings::Auxiliary),
                Item::Maps => process::maps(source, of.pid),
                _ => Err(Errno::EINVAL),
            };
            // What was collected while the process got another program may be of that one.
            return match self.image_of(of) == before {
                true => text,
                false => Ok(Vec::new()),
            };
        }
        match of.item {
            Item::Stat => process::stat(source, of.pid, who),
            Item::Status => process::status(source, of.pid, who),
            Item::Statm => process::statm(source, of.pid),
            Item::Comm => process::comm_text(source, of.pid),
            Item::Cmdline => process::strings(source, of.pid, Strings::Arguments),
            Item::Mounts => source.mounts(false),
            Item::MountInfo => source.mounts(true),
            Item::ExecFault => {
                let who = source.process(of.pid)?.who;
                Ok(format!("{}\n", source.exec_fault(who)?).into_bytes())
            }
            Item::OomScore => {
                let score = source.oom(of.pid)?.score;
                Ok(format!("{score}\n").into_bytes())
            }
            Item::OomAdjust => {
                let adjust = source.oom(of.pid)?.adjust;
                Ok(format!("{adjust}\n").into_bytes())
            }
            Item::DescriptorInfo => process::descriptor_info(source, of.pid, of.fd as i32),
            Item::Directory | Item::Descriptors | Item::DescriptorInfos | Item::Tasks => {
                Err(Errno::EISDIR)
            }
            _ => Err(Errno::EINVAL),
        }
    }

    /// The text of the file with this number.
    #[cfg(test)]
    pub(crate) fn shown(&self, ino: u64, who: Endpoint) -> Result<Vec<u8>> {
        self.text(self.inode(ino)?, who)
    }

    /// The text from its start, or the one that `who` is reading.
    fn snapshot(&mut self, ino: u64, offset: u64, who: Endpoint) -> Result<Rc<Vec<u8>>> {
        if offset > 0
            && let Some(text) = self.snapshots.get(ino, who)
        {
            return Ok(text);
        }
        let text = Rc::new(self.text(self.inode(ino)?, who)?);
        self.snapshots.keep(ino, who, text.clone());
        Ok(text)
    }

    /// Where a symbolic link leads.
    fn target(&self, inode: Inode, who: Endpoint) -> Result<Vec<u8>> {
        let own = || self.source.pid_of(who).map_err(|_| Errno::ENOENT);
        let of = match inode {
            Inode::Global(index) => {
                return match GLOBAL[index].2 {
                    Global::SelfLink => Ok(format!("{}", own()?).into_bytes()),
                    Global::ThreadSelf => {
                        let pid = own()?;
                        Ok(format!("{pid}/task/{pid}").into_bytes())
                    }
                    Global::Link(target) => Ok(target.into()),
                    _ => Err(Errno::EINVAL),
                };
            }
            Inode::Process(of) => of,
        };
        let kind = match of.item {
            Item::Exe => PathKind::Exe,
            Item::Cwd => PathKind::Cwd,
            Item::Root => PathKind::Root,
            Item::Descriptor => PathKind::Descriptor(of.fd as i32),
            _ => return Err(Errno::EINVAL),
        };
        let target = self.source.process(of.pid).map_err(|_| Errno::ENOENT)?.who;
        self.source.may_look(of.pid, who)?;
        self.source.path(target, kind).map_err(|_| Errno::ENOENT)
    }

    /// The entry of a directory at `position` or behind it: the position after it, its name
    /// and inode.
    fn entry(&self, dir: Inode, position: u64) -> Option<(u64, String, Inode)> {
        match dir {
            Inode::Global(index) => self.global_entry(index, position),
            Inode::Process(of) => self.process_entry(of, position),
        }
    }

    fn global_entry(&self, index: usize, position: u64) -> Option<(u64, String, Inode)> {
        let first = usize::try_from(position).ok()?;
        let mut entries = GLOBAL.iter().enumerate().skip(first);
        let found = entries.find(|(_, entry)| entry.0 == index && !entry.1.is_empty());
        if let Some((i, entry)) = found {
            return Some((i as u64 + 1, entry.1.into(), Inode::Global(i)));
        }
        if index != 0 {
            return None;
        }
        let from = u32::try_from(position.saturating_sub(FIRST_PROCESS)).ok()?;
        let pid = self.source.next_pid(from.max(1)).ok()?;
        let inode = Inode::Process(OfProcess::directory(pid));
        Some((FIRST_PROCESS + u64::from(pid) + 1, decimal_text(pid), inode))
    }

    fn process_entry(&self, of: OfProcess, position: u64) -> Option<(u64, String, Inode)> {
        let descriptor = |item| {
            let who = self.source.process(of.pid).ok()?.who;
            let from = i32::try_from(position).ok()?;
            let fd = self.source.next_fd(who, from).ok()?.fd as u32;
            let inode = Inode::Process(OfProcess {
                fd,
                ..of.with(item)
            });
            Some((u64::from(fd) + 1, decimal_text(fd), inode))
        };
        match of.item {
            Item::Directory => {
                let (name, item) = *entries(of).nth(usize::try_from(position).ok()?)?;
                let inode = Inode::Process(self.entry_of(of, item));
                Some((position + 1, name.into(), inode))
            }
            Item::Descriptors => descriptor(Item::Descriptor),
            Item::DescriptorInfos => descriptor(Item::DescriptorInfo),
            Item::Tasks => {
                let from = u32::try_from(position).ok()?;
                let tid = self.source.next_tid(of.pid, from).ok()?;
                Some((u64::from(tid) + 1, decimal_text(tid), thread(tid)))
            }
            _ => None,
        }
    }
}

/// Copies memory from `address` on by pages: `copy` gets how far it is, the address and a place
/// for the bytes. How much there was; an error where there was nothing.
fn by_pages(
    address: u64,
    len: u64,
    mut copy: impl FnMut(u64, u64, &mut [u8]) -> Result<()>,
) -> Result<u64> {
    let mut page = [0; PAGE_SIZE];
    let mut done = 0;
    while done < len {
        let at = address.checked_add(done).ok_or(Errno::EIO)?;
        let n = (PAGE - at % PAGE).min(len - done);
        match copy(done, at, &mut page[..n as usize]) {
            Ok(()) => done += n,
            Err(_) if done > 0 => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(done)
}

/// The directory of a thread.
fn thread(tid: u32) -> Inode {
    Inode::Process(OfProcess {
        task: true,
        ..OfProcess::directory(tid)
    })
}

/// What of descriptors only those see who may look at the process.
fn shows_descriptors(item: Item) -> bool {
    matches!(item, Item::DescriptorInfos | Item::DescriptorInfo)
}

/// Positions that "." and ".." take in every directory.
const DOTS: u64 = 2;

fn decimal_text(number: u32) -> String {
    let mut text = String::new();
    let _ = write!(text, "{number}");
    text
}

/// Entries of a process's directory.
fn entries(of: OfProcess) -> impl Iterator<Item = &'static (&'static str, Item)> {
    PROCESS
        .iter()
        .filter(move |entry| !(of.task && entry.1 == Item::Tasks))
}

/// DT_* of a mode.
fn dirent_kind(mode: u32) -> u8 {
    (mode >> 12) as u8
}

impl<S: Source> FileSystem for Proc<S> {
    fn read_super(&mut self, _: u64, _: u64, options: &[u8]) -> Result<Root> {
        if !options.is_empty() {
            return Err(Errno::EINVAL);
        }
        self.node(Inode::Global(0)).map(Root::from)
    }

    fn lookup(&mut self, dir: u64, name: &[u8], _: Endpoint) -> Result<Node> {
        let dir = self.inode(dir)?;
        match name {
            b"." => self.node(dir),
            b".." => self.node(self.inode(self.above(dir))?),
            _ => self.node(self.find(dir, name)?),
        }
    }

    fn may_open(&mut self, ino: u64, who: Endpoint) -> Result<()> {
        match self.inode(ino)? {
            Inode::Process(of) if self.shows_memory(of) || shows_descriptors(of.item) => {
                match self.source.may_look(of.pid, who) {
                    // Who is gone has nothing to hide.
                    Err(Errno::ESRCH) => Ok(()),
                    answer => answer,
                }
            }
            _ => Ok(()),
        }
    }

    fn put(&mut self, _: u64, _: u64) -> Result<()> {
        Ok(())
    }

    fn read<'a>(
        &'a mut self,
        ino: u64,
        offset: u64,
        to: &mut Outgoing<'a>,
        who: Endpoint,
    ) -> Result<u64> {
        if let Inode::Process(of) = self.inode(ino)?
            && of.item == Item::Memory
        {
            let source = &self.source;
            let Some(image) = self.image_of(of) else {
                return Ok(0);
            };
            return by_pages(offset, to.room(), |_, at, piece| {
                source.debug(of.pid, image, at, piece, false)?;
                to.now(|to| to.data(piece))
            });
        }
        let text = self.snapshot(ino, offset, who)?;
        let rest = usize::try_from(offset).ok().and_then(|at| text.get(at..));
        let rest = rest.unwrap_or_default();
        let len = usize::try_from(to.room()).map_or(rest.len(), |len| len.min(rest.len()));
        to.now(|to| to.data(&rest[..len]))?;
        if rest.is_empty() && to.room() > 0 {
            self.snapshots.forget(ino, who);
        }
        Ok(len as u64)
    }

    fn write(
        &mut self,
        ino: u64,
        offset: Option<u64>,
        from: &UserBuffer,
        who: Endpoint,
    ) -> Result<Written> {
        let inode = self.check_writable(ino)?;
        if let Inode::Process(of) = inode
            && of.item == Item::Memory
        {
            let position = offset.ok_or(Errno::EINVAL)?;
            let write = |image| {
                by_pages(position, from.len(), |done, at, piece| {
                    from.copy_in(done, piece)?;
                    self.source.debug(of.pid, image, at, piece, true)
                })
            };
            let bytes = self.image_of(of).map_or(Ok(0), write)?;
            return Ok(Written {
                bytes,
                size: 0,
                position,
            });
        }
        let mut text = [0; 32];
        let text = usize::try_from(from.len())
            .ok()
            .and_then(|n| text.get_mut(..n));
        let text = text.ok_or(Errno::EINVAL)?;
        from.copy_in(0, text)?;
        match inode {
            Inode::Process(of) if of.item == Item::OomAdjust => {
                let text = core::str::from_utf8(text.trim_ascii());
                let number = text.ok().and_then(|text| text.parse().ok());
                let adjust = number.ok_or(Errno::EINVAL)?;
                self.source.set_oom_adjust(of.pid, who, adjust)?;
            }
            Inode::Process(of) => {
                let (step, errno) = process::fault(text).ok_or(Errno::EINVAL)?;
                let who = self.source.process(of.pid)?.who;
                self.source.set_exec_fault(who, step, errno)?;
            }
            Inode::Global(index) => global::write(&self.source, GLOBAL[index].2, text)?,
        }
        Ok(Written {
            bytes: from.len(),
            size: 0,
            position: offset.unwrap_or(0),
        })
    }

    fn set_attributes(&mut self, ino: u64, set: &SetAttributes) -> Result<Node> {
        // A shell that writes to a file cuts it first.
        let inode = self.check_writable(ino)?;
        let cut = SetMask::SIZE | SetMask::MTIME;
        if set.mask & !cut.bits() != 0 || set.size != 0 {
            return Err(Errno::EPERM);
        }
        self.node(inode)
    }

    fn getdents(
        &mut self,
        ino: u64,
        mut position: u64,
        to: &mut Dirents,
        _: Endpoint,
    ) -> Result<u64> {
        let dir = self.inode(ino)?;
        if self.node(dir)?.mode & S_IFMT != S_IFDIR {
            return Err(Errno::ENOTDIR);
        }
        const DIRECTORY: u8 = 4;
        for (at, name, ino) in [(0, ".", ino), (1, "..", self.above(dir))] {
            if position == at {
                if !to.push(ino, at + 1, DIRECTORY, name.as_bytes()) {
                    return Ok(position);
                }
                position = at + 1;
            }
        }
        while let Some((next, name, inode)) = self.entry(dir, position - DOTS) {
            let mode = match inode {
                Inode::Global(index) => global_mode(GLOBAL[index].2),
                Inode::Process(of) => item_mode(of.item),
            };
            let next = next + DOTS;
            if !to.push(inode.number(), next, dirent_kind(mode), name.as_bytes()) {
                break;
            }
            position = next;
        }
        Ok(position)
    }

    fn readlink(&mut self, ino: u64, buffer: &mut [u8], who: Endpoint) -> Result<usize> {
        let target = self.target(self.inode(ino)?, who)?;
        let len = target.len().min(buffer.len());
        buffer[..len].copy_from_slice(&target[..len]);
        Ok(len)
    }

    fn attributes(&mut self, ino: u64, _: Endpoint) -> Result<Attributes> {
        let node = self.node(self.inode(ino)?)?;
        let now = self.source.now().into();
        Ok(Attributes {
            ino,
            mode: node.mode,
            nlink: node.nlink,
            uid: node.uid,
            gid: node.gid,
            // Programs that size their buffer by it read at least this much.
            size: if node.mode & S_IFMT == S_IFLNK { 64 } else { 0 },
            block_size: 1024,
            atime: now,
            mtime: now,
            ctime: now,
            ..Attributes::default()
        })
    }

    fn statistics(&mut self, _: u64) -> Result<Statistics> {
        Ok(Statistics {
            kind: MAGIC,
            block_size: PAGE,
            name_max: NAME_MAX as u64,
            ..Statistics::default()
        })
    }
}
