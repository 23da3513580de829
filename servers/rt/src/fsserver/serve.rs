//! Serving: messages become calls of a [`FileSystem`], results become answers.

use super::{Dirents, FileSystem, NewNode, Outgoing, Result, UserBuffer};
use abi::fs::{Attributes, NAME_MAX, PATH_MAX, SetAttributes, Statistics};
use abi::grant::{GrantTo, ToRead, ToWrite};
use abi::kernel::KernelNotify;
use abi::message::{Handled, Server};
use abi::proto::fs;
use abi::{Endpoint, Errno, Request};
use alloc::vec;
use alloc::vec::Vec;

use crate::ipc::Received;
use crate::mishap::Mishap;
use crate::serve::{self, Last, Service};
use crate::{copy, heap, outbox};
use zerocopy::IntoBytes;

/// The requests that [`Mishap`] can name.
const REQUESTS: [(&str, u64); 18] = [
    ("super", fs::ReadSuper::KIND),
    ("lookup", fs::Lookup::KIND),
    ("read", fs::Read::KIND),
    ("write", fs::Write::KIND),
    ("getdents", fs::Getdents::KIND),
    ("readlink", fs::Readlink::KIND),
    ("create", fs::Create::KIND),
    ("symlink", fs::Symlink::KIND),
    ("link", fs::Link::KIND),
    ("unlink", fs::Unlink::KIND),
    ("rename", fs::Rename::KIND),
    ("getattr", fs::GetAttr::KIND),
    ("setattr", fs::SetAttr::KIND),
    ("statfs", fs::Statfs::KIND),
    ("sync", fs::Sync::KIND),
    ("peek", fs::Peek::KIND),
    ("allocate", fs::Allocate::KIND),
    ("seek", fs::Seek::KIND),
];

/// Announces to RS what became of the start, and serves VFS for ever.
pub fn run(made: Result<impl FileSystem>) -> ! {
    serve::start(made.and_then(|files| {
        Ok(Files {
            files,
            scratch: Scratch::new(Mishap::planned(&REQUESTS)?),
            next: None,
        })
    }))
}

/// A file system as a service.
struct Files<F> {
    files: F,
    scratch: Scratch,
    /// What was received when the last answer left.
    next: Option<Result<Received>>,
}

impl<F: FileSystem> Service for Files<F> {
    fn serve(&mut self, received: &Received) -> Handled {
        let (handled, mut along) = self.scratch.serve(&mut self.files, received);
        flushed(handled, &mut along, received)
    }

    fn notified(&mut self, bits: KernelNotify) {
        if bits.contains(KernelNotify::TIMER) {
            self.files.tick();
        }
    }

    fn receive(&mut self, last: Option<Last>) -> Result<Received> {
        match self.next.take() {
            Some(received) if last.is_none() => received,
            _ => serve::receive(last),
        }
    }

    /// What goes along with an answer is the file system's own until the kernel has copied it, when the next message comes.
    fn take(&mut self, received: &Received) -> Option<Last> {
        let plain = received.class.wants_reply() || !outbox::is_empty();
        if plain || received.class == abi::Class::Kernel {
            return serve::take(self, received);
        }
        let (handled, mut along) = self.scratch.serve(&mut self.files, received);
        serve::note(received, &handled);
        let (to, answer) = (received.source, handled.answer?);
        match along.leave_with(to, answer) {
            // All was copied, and the outbox is full.
            Err(Errno::EAGAIN) => Some(Last::Post(to, answer)),
            // Only copies fail otherwise.
            Err(errno) => {
                let failed = Handled::failed(received.class, &received.message, errno).answer?;
                Some(Last::Post(to, failed))
            }
            received => {
                self.next = Some(received);
                None
            }
        }
    }
}

/// A message is handled, and what goes along with its answer has been copied.
fn flushed(handled: Handled, along: &mut Outgoing<'_>, received: &Received) -> Handled {
    match along.flush() {
        Ok(()) => handled,
        Err(errno) => Handled::failed(received.class, &received.message, errno),
    }
}

/// Whether a request makes a file system keep more than before: while there is no memory in reserve
/// it is refused. What reads, writes (there is room or there is not), gives back or synchronizes goes on.
fn keeps(kind: u64) -> bool {
    matches!(
        kind,
        fs::ReadSuper::KIND
            | fs::Lookup::KIND
            | fs::Create::KIND
            | fs::Symlink::KIND
            | fs::Link::KIND
    )
}

/// Where names are fetched to, what goes along with answers, and what is to go wrong.
struct Scratch {
    name: [u8; 2 * NAME_MAX],
    text: Vec<u8>,
    dirents: Dirents,
    attributes: Attributes,
    statistics: Statistics,
    mishap: Option<Mishap>,
}

/// A name's length, checked.
fn name_len(len: u64) -> Result<usize> {
    match len {
        0 => Err(Errno::ENOENT),
        len if len <= NAME_MAX as u64 => Ok(len as usize),
        _ => Err(Errno::ENAMETOOLONG),
    }
}

/// For a server that is a file system beside other things.
pub struct Desk(Scratch);

impl Default for Desk {
    fn default() -> Desk {
        // A word that makes no sense plans nothing.
        Desk(Scratch::new(Mishap::planned(&REQUESTS).ok().flatten()))
    }
}

impl Desk {
    /// Serves a request of [`abi::proto::fs`].
    pub fn serve(&mut self, files: &mut dyn FileSystem, received: &Received) -> Handled {
        let (handled, mut along) = self.0.serve(files, received);
        flushed(handled, &mut along, received)
    }
}

impl Scratch {
    fn new(mishap: Option<Mishap>) -> Scratch {
        Scratch {
            name: [0; 2 * NAME_MAX],
            text: vec![0; PATH_MAX],
            dirents: Dirents::default(),
            attributes: Attributes::default(),
            statistics: Statistics::default(),
            mishap,
        }
    }

    /// Fetches a name.
    fn name(&mut self, from: Endpoint, grant: ToRead, len: u64) -> Result<&[u8]> {
        let name = &mut self.name[..name_len(len)?];
        copy::safecopy_from(from, grant, 0, name)?;
        Ok(name)
    }

    /// Fetches a mount's options.
    fn options(&mut self, from: Endpoint, grant: ToRead, len: u64) -> Result<&[u8]> {
        let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
        let options = self.text.get_mut(..len).ok_or(Errno::EINVAL)?;
        if len > 0 {
            copy::safecopy_from(from, grant, 0, options)?;
        }
        Ok(options)
    }

    /// Serves a request; what goes along with the answer.
    fn serve<'a>(
        &'a mut self,
        files: &'a mut dyn FileSystem,
        received: &Received,
    ) -> (Handled, Outgoing<'a>) {
        let Received {
            source,
            class,
            ref message,
        } = *received;
        // When VFS or VM is gone RS has everything written back: that is not to be lost with it.
        if source != Endpoint::RS
            && let Some(errno) = self.refuses(received)
        {
            let failed = Handled::failed(class, message, errno);
            return (failed, Outgoing::nothing());
        }
        let mut work = Work {
            parts: Some((files, self)),
            along: Outgoing::nothing(),
        };
        let handled = fs::serve(&mut work, source, class, message);
        (handled, work.along)
    }

    /// The error of a request that is not to be served now.
    fn refuses(&mut self, received: &Received) -> Option<Errno> {
        let kind = received.message.kind;
        if self.mishap.is_none() && heap::ready()
            || fs::admit(received.source, received.class, kind).is_err()
        {
            return None;
        }
        let struck = self.mishap.as_mut().and_then(|m| m.strikes(kind));
        struck.or_else(|| (!heap::ready() && keeps(kind)).then_some(Errno::ENOMEM))
    }
}

/// One request.
struct Work<'a> {
    /// The file system, and where things are fetched to. Whoever answers with bytes keeps them.
    parts: Option<Parts<'a>>,
    along: Outgoing<'a>,
}

type Parts<'a> = (&'a mut dyn FileSystem, &'a mut Scratch);

impl Server for Work<'_> {}

abi::serve! { ['a] Work<'a>;
    fs::Read => |work, from, r| work.read(from.who, &r);
    fs::Getdents => |work, from, r| work.getdents(from.who, &r);
    fs::Readlink => |work, from, r| work.readlink(from.who, &r);
    fs::GetAttr => |work, from, r| work.attributes(from.who, &r);
    fs::Statfs => |work, from, r| work.statistics(from.who, &r);
    fs::ReadSuper => |work, from, r| work.with(|files, scratch| {
        let options = scratch.options(from.who, r.grant, r.len)?;
        files.read_super(r.dev, r.flags, options)
    });
    fs::Remount => |work, from, r| work.with(|files, scratch| {
        let options = scratch.options(from.who, r.grant, r.len)?;
        files.remount(r.root, r.flags, options)
    });
    fs::Unmount => |work, _, r| work.with(|files, _| files.unmount(r.root));
    fs::Lookup => |work, from, r| work.with(|files, scratch| {
        let name = scratch.name(from.who, r.grant, r.len)?;
        files.lookup(r.dir, name, r.who)
    });
    fs::MayOpen => |work, _, r| work.with(|files, _| files.may_open(r.ino, r.who));
    fs::Put => |work, _, r| {
        // Nobody hears of it.
        let _ = work.with(|files, _| files.put(r.ino, r.count));
    };
    fs::PagesWritten => |work, _, r| {
        let _ = work.with(|files, _| files.pages_written(r.ino, r.offset, r.len));
    };
    fs::Write => |work, from, r| work.with(|files, _| {
        let offset = (!r.append).then_some(r.offset);
        files.write(r.ino, offset, &buffer(from.who, r.grant, r.len), r.who)
    });
    fs::Sync => |work, _, r| work.with(|files, _| files.sync((r.ino != 0).then_some(r.ino)));
    fs::Peek => |work, _, r| work.with(|files, _| {
        files.peek(r.ino, r.offset, (r.before, r.after))
    });
    fs::Allocate => |work, _, r| work.with(|files, _| {
        let (bytes, size) = files.allocate(r.ino, r.offset, r.len, r.mode)?;
        Ok(fs::Allocated { bytes, size })
    });
    fs::Seek => |work, _, r| work.with(|files, _| {
        let position = files.seek(r.ino, r.offset, r.hole)?;
        Ok(fs::Position { position })
    });
    fs::DropCaches => |work, _, r| work.with(|files, _| {
        let pages = files.drop_caches(r.data, r.names)?;
        Ok(fs::Dropped { pages })
    });
    fs::GiveBack => |work, _, r| work.with(|files, _| {
        let pages = files.give_back(usize::try_from(r.pages).unwrap_or(usize::MAX));
        Ok(fs::GivenBack { pages: pages as u64 })
    });
    fs::Create => |work, from, r| work.with(|files, scratch| {
        let name = match r.len {
            0 => &[][..],
            len => scratch.name(from.who, r.grant, len)?,
        };
        let new = NewNode {
            mode: r.mode,
            uid: r.ids.0,
            gid: r.ids.1,
            rdev: r.rdev,
        };
        files.create(r.dir, name, &new)
    });
    fs::Symlink => |work, from, r| work.with(|files, scratch| {
        let target = scratch.text.get_mut(..r.lens.1 as usize);
        let target = target.ok_or(Errno::ENAMETOOLONG)?;
        if !target.is_empty() {
            copy::safecopy_from(from.who, r.target, 0, target)?;
        }
        let name = &mut scratch.name[..name_len(r.lens.0 as u64)?];
        copy::safecopy_from(from.who, r.name, 0, name)?;
        files.symlink(r.dir, name, target, r.ids.0, r.ids.1)
    });
    fs::Link => |work, from, r| work.with(|files, scratch| {
        let name = scratch.name(from.who, r.grant, r.len)?;
        files.link(r.ino, r.dir, name)
    });
    fs::Unlink => |work, from, r| work.with(|files, scratch| {
        let name = scratch.name(from.who, r.grant, r.len)?;
        let ino = files.unlink(r.dir, name, r.directory)?;
        Ok(fs::Unlinked { ino })
    });
    fs::Rename => |work, from, r| work.with(|files, scratch| {
        let old = name_len(r.lens.0 as u64)?;
        let new = name_len(r.lens.1 as u64)?;
        let names = &mut scratch.name[..old + new];
        copy::safecopy_from(from.who, r.grant, 0, names)?;
        let (old, new) = names.split_at(old);
        files.rename(r.old_dir, old, r.new_dir, new, r.flags)
    });
    fs::SetAttr => |work, from, r| work.with(|files, _| {
        let mut set = SetAttributes::default();
        copy::safecopy_from(from.who, r.grant, 0, set.as_mut_bytes())?;
        files.set_attributes(r.ino, &set)
    });
}

impl<'a> Work<'a> {
    /// What is answered with words only.
    #[inline(always)]
    fn with<T>(
        &mut self,
        serve: impl FnOnce(&mut dyn FileSystem, &mut Scratch) -> Result<T>,
    ) -> Result<T> {
        let (files, scratch) = self.parts()?;
        serve(files, scratch)
    }

    /// There is one request, so they are there.
    fn parts(&mut self) -> Result<Parts<'a>> {
        self.parts.take().ok_or(Errno::EIO)
    }

    /// The answer speaks of these bytes.
    fn bytes(&mut self, mut along: Outgoing<'a>, bytes: &'a [u8]) -> Result<u64> {
        along.data(bytes)?;
        self.along = along;
        Ok(bytes.len() as u64)
    }

    fn read(&mut self, from: Endpoint, r: &fs::Read) -> Result<fs::Moved> {
        let (files, _) = self.parts()?;
        let mut along = outgoing(from, r.grant, r.len);
        if r.share {
            files.share(r.ino, r.offset);
        }
        let bytes = files.read(r.ino, r.offset, &mut along, r.who)?;
        self.along = along;
        Ok(fs::Moved { bytes })
    }

    fn getdents(&mut self, from: Endpoint, r: &fs::Getdents) -> Result<fs::Listed> {
        let (files, Scratch { dirents, .. }) = self.parts()?;
        // Programs ask for 32 KiB at most; more would only be held here.
        dirents.start(r.len.min(32 << 10) as usize);
        let next = files.getdents(r.ino, r.position, dirents, r.who)?;
        let bytes = self.bytes(outgoing(from, r.grant, r.len), dirents.finish()?)?;
        Ok(fs::Listed { bytes, next })
    }

    fn readlink(&mut self, from: Endpoint, r: &fs::Readlink) -> Result<fs::Moved> {
        let (files, Scratch { text, .. }) = self.parts()?;
        let len = text.len().min(r.len as usize);
        let len = files.readlink(r.ino, &mut text[..len], r.who)?;
        let bytes = self.bytes(outgoing(from, r.grant, r.len), &text[..len])?;
        Ok(fs::Moved { bytes })
    }

    fn attributes(&mut self, from: Endpoint, r: &fs::GetAttr) -> Result<()> {
        let (files, Scratch { attributes, .. }) = self.parts()?;
        *attributes = files.attributes(r.ino, r.who)?;
        let bytes = attributes.as_bytes();
        let along = outgoing(from, r.grant, bytes.len() as u64);
        self.bytes(along, bytes).map(|_| ())
    }

    fn statistics(&mut self, from: Endpoint, r: &fs::Statfs) -> Result<()> {
        let (files, Scratch { statistics, .. }) = self.parts()?;
        *statistics = files.statistics(r.root)?;
        let bytes = statistics.as_bytes();
        let along = outgoing(from, r.grant, bytes.len() as u64);
        self.bytes(along, bytes).map(|_| ())
    }
}

fn buffer<D>(granter: Endpoint, grant: GrantTo<D>, len: u64) -> UserBuffer<D> {
    UserBuffer {
        granter,
        grant,
        len,
    }
}

fn outgoing<'a>(granter: Endpoint, grant: ToWrite, len: u64) -> Outgoing<'a> {
    Outgoing::new(buffer(granter, grant, len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_structures_have_no_padding() {
        assert_eq!(size_of::<Attributes>(), 3 * 8 + 4 * 4 + 8 + 2 * 4 + 3 * 16);
        assert_eq!(size_of::<Statistics>(), 9 * 8);
    }
}
