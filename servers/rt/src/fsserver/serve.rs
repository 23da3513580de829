//! Serving: messages become calls of a [`FileSystem`], results become answers.

use super::{Dirents, FileSystem, NewNode, Node, Outgoing, Result, UserBuffer};
use abi::fs::{Attributes, NAME_MAX, PATH_MAX, SetAttributes, Statistics};
use abi::kernel::KernelNotify;
use abi::proto::{fs, rs, vfs};
use abi::{Class, Endpoint, Errno, Message, Request};
use alloc::vec;
use alloc::vec::Vec;

use crate::ipc::{self, Received};
use crate::mishap::Mishap;
use crate::{copy, gate, heap, outbox};
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
    let made = made.and_then(|files| Ok((files, Mishap::planned(&REQUESTS)?)));
    let status = made
        .as_ref()
        .map_or_else(|errno| -i64::from(errno.0), |_| 0);
    outbox::post(Endpoint::RS, rs::Started { status });
    match made {
        Ok((mut files, mishap)) => serve(&mut files, mishap),
        // RS ends a service that gave up.
        Err(_) => loop {
            let _ = ipc::receive();
        },
    }
}

fn serve(files: &mut dyn FileSystem, mishap: Option<Mishap>) -> ! {
    let mut scratch = Scratch::new(mishap);
    let mut next = ipc::receive();
    loop {
        let answer = match next {
            Ok(received) => accept(files, &mut scratch, &received),
            Err(_) => None,
        };
        next = match answer {
            Some((txn, result)) => answer_and_receive(txn, result),
            None => ipc::receive(),
        };
    }
}

/// Answers the request `txn`, and waits for the next message.
fn answer_and_receive(txn: u64, result: Result<Answer<'_>>) -> Result<Received> {
    let (words, mut along) = match result {
        Ok(Answer { words, along }) => (Ok(words), along),
        Err(errno) => (Err(errno), Outgoing::nothing()),
    };
    let message = done(txn, words).encode();
    if outbox::is_empty() {
        match along.leave_with(message) {
            Err(Errno::EAGAIN) => {}
            // Only copies fail otherwise, and an error has none.
            Err(errno) => return answer_and_receive(txn, Err(errno)),
            received => return received,
        }
    } else if let Err(errno) = along.flush() {
        return answer_and_receive(txn, Err(errno));
    }
    outbox::post_message(Endpoint::VFS, message);
    ipc::receive()
}

/// Deals with one message; its transaction and the answer, if it wants one.
fn accept<'a>(
    files: &'a mut dyn FileSystem,
    scratch: &'a mut Scratch,
    received: &Received,
) -> Option<(u64, Result<Answer<'a>>)> {
    if !gate::admits(received) {
        return None;
    }
    match received.class {
        // VFS or VM is gone, and RS ends the machine: what was written is not to be lost with it.
        Class::Post if received.source == Endpoint::RS => {
            let txn = received.message.words[0];
            let synced = scratch.dispatch(files, received.source, &received.message);
            let result = synced.map(|answer| answer.words);
            if txn != 0 {
                outbox::post(Endpoint::RS, done(txn, result));
            }
            None
        }
        Class::Post => {
            let message = &received.message;
            // Every request starts with its transaction; 0 wants no answer.
            let txn = message.words[0];
            let struck = scratch
                .mishap
                .as_mut()
                .and_then(|m| m.strikes(message.kind));
            let result = match struck {
                Some(errno) => Err(errno),
                None if !heap::ready() && keeps(message.kind) => Err(Errno::ENOMEM),
                None => scratch.dispatch(files, received.source, message),
            };
            (txn != 0).then_some((txn, result))
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

/// What a request came to.
struct Answer<'a> {
    words: [u64; 5],
    along: Outgoing<'a>,
}

impl<'a> Answer<'a> {
    /// With words only.
    fn words(words: [u64; 5]) -> Answer<'a> {
        let along = Outgoing::nothing();
        Answer { words, along }
    }

    /// With these bytes along.
    fn bytes(mut along: Outgoing<'a>, bytes: &'a [u8], words: [u64; 5]) -> Result<Answer<'a>> {
        along.data(bytes)?;
        Ok(Answer { words, along })
    }
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

/// For a server that is a file system beside other things.
pub struct Desk(Scratch);

impl Default for Desk {
    fn default() -> Desk {
        // A word that makes no sense plans nothing.
        Desk(Scratch::new(Mishap::planned(&REQUESTS).ok().flatten()))
    }
}

impl Desk {
    /// Deals with a request of [`abi::proto::fs`], and answers it if it wants that.
    pub fn answer(&mut self, files: &mut dyn FileSystem, request: &Received) {
        if let Some((txn, result)) = accept(files, &mut self.0, request) {
            let words = result.and_then(|mut answer| answer.along.flush().map(|()| answer.words));
            outbox::post(Endpoint::VFS, done(txn, words));
        }
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
    fn name(&mut self, from: Endpoint, grant: i32, len: u64) -> Result<&[u8]> {
        let name = &mut self.name[..name_len(len)?];
        copy::safecopy_from(from, grant, 0, name)?;
        Ok(name)
    }

    /// Fetches a mount's options.
    fn options(&mut self, from: Endpoint, grant: i32, len: u64) -> Result<&[u8]> {
        let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
        let options = self.text.get_mut(..len).ok_or(Errno::EINVAL)?;
        if len > 0 {
            copy::safecopy_from(from, grant, 0, options)?;
        }
        Ok(options)
    }

    fn dispatch<'a>(
        &'a mut self,
        files: &'a mut dyn FileSystem,
        from: Endpoint,
        message: &Message,
    ) -> Result<Answer<'a>> {
        match message.kind {
            fs::Read::KIND => {
                let r: fs::Read = decode(message)?;
                let mut along = outgoing(from, r.grant, r.len);
                if r.share {
                    files.share(r.ino, r.offset);
                }
                let bytes = files.read(r.ino, r.offset, &mut along, r.who)?;
                let words = [bytes, 0, 0, 0, 0];
                Ok(Answer { words, along })
            }
            fs::Getdents::KIND => {
                let r: fs::Getdents = decode(message)?;
                // Programs ask for 32 KiB at most; more would only be held here.
                self.dirents.start(r.len.min(32 << 10) as usize);
                let next = files.getdents(r.ino, r.position, &mut self.dirents, r.who)?;
                let bytes = self.dirents.finish()?;
                let words = [bytes.len() as u64, next, 0, 0, 0];
                Answer::bytes(outgoing(from, r.grant, r.len), bytes, words)
            }
            fs::Readlink::KIND => {
                let r: fs::Readlink = decode(message)?;
                let len = self.text.len().min(r.len as usize);
                let len = files.readlink(r.ino, &mut self.text[..len], r.who)?;
                let words = [len as u64, 0, 0, 0, 0];
                Answer::bytes(outgoing(from, r.grant, r.len), &self.text[..len], words)
            }
            fs::GetAttr::KIND => {
                let r: fs::GetAttr = decode(message)?;
                self.attributes = files.attributes(r.ino, r.who)?;
                let bytes = self.attributes.as_bytes();
                Answer::bytes(outgoing(from, r.grant, bytes.len() as u64), bytes, [0; 5])
            }
            fs::Statfs::KIND => {
                let r: fs::Statfs = decode(message)?;
                self.statistics = files.statistics(r.root)?;
                let bytes = self.statistics.as_bytes();
                Answer::bytes(outgoing(from, r.grant, bytes.len() as u64), bytes, [0; 5])
            }
            _ => self.other(files, from, message).map(Answer::words),
        }
    }

    /// The requests that are answered with words.
    fn other(
        &mut self,
        files: &mut dyn FileSystem,
        from: Endpoint,
        message: &Message,
    ) -> Result<[u64; 5]> {
        let nothing = |()| [0; 5];
        match message.kind {
            fs::ReadSuper::KIND => {
                let r: fs::ReadSuper = decode(message)?;
                let options = self.options(from, r.grant, r.len)?;
                files.read_super(r.dev, r.flags, options).map(attrs)
            }
            fs::Remount::KIND => {
                let r: fs::Remount = decode(message)?;
                let options = self.options(from, r.grant, r.len)?;
                files.remount(r.root, r.flags, options).map(nothing)
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
            fs::Write::KIND => {
                let r: fs::Write = decode(message)?;
                let offset = (!r.append).then_some(r.offset);
                let w = files.write(r.ino, offset, &buffer(from, r.grant, r.len), r.who)?;
                Ok([w.bytes, w.size, w.position, 0, 0])
            }
            fs::MayOpen::KIND => {
                let r: fs::MayOpen = decode(message)?;
                files.may_open(r.ino, r.who).map(nothing)
            }
            fs::Sync::KIND => {
                let r: fs::Sync = decode(message)?;
                files.sync((r.ino != 0).then_some(r.ino)).map(nothing)
            }
            fs::Peek::KIND => {
                let r: fs::Peek = decode(message)?;
                files
                    .peek(r.ino, r.offset, (r.before, r.after))
                    .map(nothing)
            }
            fs::PagesWritten::KIND => {
                let r: fs::PagesWritten = decode(message)?;
                files.pages_written(r.ino, r.offset, r.len).map(nothing)
            }
            fs::Allocate::KIND => {
                let r: fs::Allocate = decode(message)?;
                let (done, size) = files.allocate(r.ino, r.offset, r.len, r.mode)?;
                Ok([done, size, 0, 0, 0])
            }
            fs::Seek::KIND => {
                let r: fs::Seek = decode(message)?;
                let position = files.seek(r.ino, r.offset, r.hole)?;
                Ok([position, 0, 0, 0, 0])
            }
            fs::DropCaches::KIND => {
                let r: fs::DropCaches = decode(message)?;
                let pages = files.drop_caches(r.data, r.names)?;
                Ok([pages, 0, 0, 0, 0])
            }
            fs::GiveBack::KIND => {
                let r: fs::GiveBack = decode(message)?;
                let pages = files.give_back(usize::try_from(r.pages).unwrap_or(usize::MAX));
                Ok([pages as u64, 0, 0, 0, 0])
            }
            fs::Unmount::KIND => {
                let r: fs::Unmount = decode(message)?;
                files.unmount(r.root).map(nothing)
            }
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
                let name = match r.len {
                    0 => &[][..],
                    len => self.name(from, r.grant, len)?,
                };
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
                let mut set = SetAttributes::default();
                copy::safecopy_from(from, r.grant, 0, set.as_mut_bytes())?;
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

fn outgoing<'a>(granter: Endpoint, grant: i32, len: u64) -> Outgoing<'a> {
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
