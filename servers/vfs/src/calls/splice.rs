//! splice(2), tee(2), vmsplice(2): data between pipes and other files without a stop in the program.

use super::Args;
use super::readwrite::{COUNT_MAX, offset, read_file, vector, write_file};
use crate::file::{Kind, OpenFile};
use crate::memory::Memory;
use crate::pipe::{Pipe, Room};
use crate::state::Caller;
use crate::user::zeroed;
use abi::{Errno, PAGE, PAGE_SIZE};
use alloc::rc::Rc;
use alloc::vec::Vec;
use linux_raw_sys::general as linux;

/// Most bytes of one call.
const PIECE_MAX: usize = 1 << 20;

const KNOWN: u32 =
    linux::SPLICE_F_MOVE | linux::SPLICE_F_NONBLOCK | linux::SPLICE_F_MORE | linux::SPLICE_F_GIFT;

fn pipe(file: &OpenFile) -> Option<&Rc<Pipe>> {
    match &file.kind {
        Kind::Pipe(end) => Some(&end.pipe),
        _ => None,
    }
}

/// Whether either end, or the call, would rather not wait.
fn hurries(files: &[&OpenFile], flags: u32) -> bool {
    flags & linux::SPLICE_F_NONBLOCK != 0 || files.iter().any(|file| file.nonblocking())
}

/// `EINVAL` for files that know no splice in either direction.
fn check_splices(file: &OpenFile) -> Result<(), Errno> {
    let directory = || file.vnode.as_ref().is_some_and(|v| v.is_directory());
    match &file.kind {
        Kind::Event(_) | Kind::Timer(_) | Kind::Epoll(_) => Err(Errno::EINVAL),
        Kind::File if directory() => Err(Errno::EINVAL),
        _ => Ok(()),
    }
}

/// The position at `address`, if there is one.
async fn position(c: &Caller, file: &OpenFile, address: u64) -> Result<Option<u64>, Errno> {
    match (address, &file.kind) {
        (0, _) => Ok(None),
        (_, Kind::Pipe(_)) => Err(Errno::ESPIPE),
        (_, Kind::File | Kind::Block(_)) => Ok(Some(offset(c.memory().get(address).await?)?)),
        _ => Err(Errno::EINVAL),
    }
}

/// splice(2)
pub async fn splice(c: &Caller, a: Args) -> Result<u64, Errno> {
    let flags = a[5] as u32;
    let len = a[4].min(COUNT_MAX).min(PIECE_MAX as u64);
    if len == 0 {
        return Ok(0);
    }
    if flags & !KNOWN != 0 {
        return Err(Errno::EINVAL);
    }
    let (from, to) = (c.file(a[0])?, c.file(a[2])?);
    from.check_readable()?;
    to.check_writable()?;
    let from_at = position(c, &from, a[1]).await?;
    let to_at = position(c, &to, a[3]).await?;
    let hurry = hurries(&[&from, &to], flags);
    let done = match (pipe(&from), pipe(&to)) {
        (Some(source), Some(sink)) if Rc::ptr_eq(source, sink) => return Err(Errno::EINVAL),
        (Some(source), Some(sink)) => {
            let (bytes, room) = move_along(c, source, sink, len, hurry).await?;
            let done = room.put(&source.look(bytes)?)?;
            source.skip(done as usize);
            done
        }
        (Some(source), None) => {
            // Before any wait: what cannot be had is said at once.
            if to.flags() & linux::O_APPEND != 0 {
                return Err(Errno::EINVAL);
            }
            check_splices(&to)?;
            let hurry = hurries(&[&from], flags);
            take(c, source, (&to, to_at), len, hurry).await?
        }
        (None, Some(sink)) => {
            let hurry = hurries(&[&to], flags);
            fill(c, (&from, from_at), sink, len, hurry).await?
        }
        (None, None) => return Err(Errno::EINVAL),
    };
    for (address, at) in [(a[1], from_at), (a[3], to_at)] {
        if let Some(at) = at {
            c.memory().put(address, &(at + done)).await?;
        }
    }
    Ok(done)
}

/// Waits for data in a pipe: bytes that are there, 0 when no more will come.
async fn data(c: &Caller, pipe: &Pipe, hurry: bool) -> Result<u64, Errno> {
    while pipe.is_empty() && pipe.is_written() {
        pipe.changes.wait(c.context(), hurry).await?;
    }
    Ok(pipe.len() as u64)
}

/// Waits for `least` bytes of room in a pipe, and keeps up to `len` bytes of what there is. `EPIPE`
/// with SIGPIPE when nobody reads.
async fn room<'a>(
    c: &Caller,
    pipe: &'a Pipe,
    least: usize,
    len: u64,
    hurry: bool,
) -> Result<Room<'a>, Errno> {
    loop {
        if !pipe.is_read() {
            c.context().raise(linux::SIGPIPE);
            return Err(Errno::EPIPE);
        }
        if pipe.room() >= least {
            return Ok(pipe.promise(len as usize));
        }
        pipe.changes.wait(c.context(), hurry).await?;
    }
}

/// Waits until one pipe has data and the other has room for it, both at once: how many bytes, none
/// when no more will come.
async fn move_along<'a>(
    c: &Caller,
    source: &Pipe,
    sink: &'a Pipe,
    len: u64,
    hurry: bool,
) -> Result<(usize, Room<'a>), Errno> {
    loop {
        let there = data(c, source, hurry).await?;
        let room = room(c, sink, 1, len.min(there.max(1)), hurry).await?;
        // While there was no room another reader may have come.
        if there == 0 || !source.is_empty() {
            return Ok((source.len().min(room.len()).min(there as usize), room));
        }
    }
}

/// From a pipe: what was not taken goes back.
async fn take(
    c: &Caller,
    source: &Pipe,
    to: (&Rc<OpenFile>, Option<u64>),
    len: u64,
    hurry: bool,
) -> Result<u64, Errno> {
    let there = data(c, source, hurry).await?;
    let (bytes, place) = source.take(there.min(len) as usize)?;
    if bytes.is_empty() {
        return Ok(0);
    }
    let written = write_file(c, to.0, Memory::own(&bytes), to.1).await;
    let done = *written.as_ref().unwrap_or(&0);
    source.give_back(&bytes[done as usize..], place);
    written
}

/// Into the room that a pipe has; only the first byte's is waited for.
async fn fill(
    c: &Caller,
    from: (&Rc<OpenFile>, Option<u64>),
    sink: &Pipe,
    len: u64,
    hurry: bool,
) -> Result<u64, Errno> {
    let room = room(c, sink, 1, len, hurry).await?;
    check_splices(from.0)?;
    let (len, _charge) = c.context().piece(room.len() as u64);
    let mut buffer = zeroed(len as usize)?;
    let got = read_file(c, from.0, Memory::own_mut(&mut buffer), from.1).await?;
    room.put(&buffer[..got as usize])
}

/// sendfile(2) into a pipe, from position `at` on: a splice. `None` when `to` is no pipe.
pub async fn send(
    c: &Caller,
    from: (&Rc<OpenFile>, u64),
    to: &OpenFile,
    len: u64,
) -> Option<Result<u64, Errno>> {
    let sink = pipe(to)?;
    let from = (from.0, Some(from.1));
    Some(match len.min(PIECE_MAX as u64) {
        0 => Ok(0),
        len => fill(c, from, sink, len, to.nonblocking()).await,
    })
}

/// tee(2)
pub async fn tee(c: &Caller, a: Args) -> Result<u64, Errno> {
    let flags = a[3] as u32;
    if flags & !KNOWN != 0 {
        return Err(Errno::EINVAL);
    }
    let len = a[2].min(PIECE_MAX as u64);
    if len == 0 {
        return Ok(0);
    }
    let (from, to) = (c.file(a[0])?, c.file(a[1])?);
    from.check_readable()?;
    to.check_writable()?;
    let (source, sink) = match (pipe(&from), pipe(&to)) {
        (Some(source), Some(sink)) if !Rc::ptr_eq(source, sink) => (source, sink),
        _ => return Err(Errno::EINVAL),
    };
    let hurry = hurries(&[&from, &to], flags);
    let (bytes, room) = move_along(c, source, sink, len, hurry).await?;
    room.put(&source.look(bytes)?)
}

/// vmsplice(2): pages are copied, which no program can tell. As on Linux only the flag says not to
/// wait, and only the first byte is waited for.
pub async fn vmsplice(c: &Caller, a: Args) -> Result<u64, Errno> {
    let flags = a[3] as u32;
    if flags & !KNOWN != 0 {
        return Err(Errno::EINVAL);
    }
    let file = c.file(a[0])?;
    let Some(pipe) = pipe(&file) else {
        return Err(Errno::EBADF);
    };
    file.check_not_path()?;
    let hurry = flags & linux::SPLICE_F_NONBLOCK != 0;
    let segments = vector(c, a[1], a[2]).await?;
    if segments.is_empty() {
        return Ok(0);
    }
    match file.check_writable() {
        Ok(()) => lay_in(c, pipe, &segments, hurry).await,
        Err(_) => hand_out(c, pipe, &segments, hurry).await,
    }
}

/// From memory into a pipe: as many pages as it has free, each that is begun counts.
async fn lay_in(
    c: &Caller,
    pipe: &Pipe,
    segments: &[(u64, u64)],
    hurry: bool,
) -> Result<u64, Errno> {
    // What is left of a page that has begun is for write(2).
    let room = room(c, pipe, PAGE_SIZE, u64::MAX, hurry).await?;
    let mut pages = room.len() as u64 / PAGE;
    let mut bytes = Vec::new();
    for &(address, len) in segments {
        let into = address % PAGE;
        let n = len.min((pages * PAGE).saturating_sub(into)) as usize;
        if n == 0 {
            break;
        }
        pages -= (into + n as u64).div_ceil(PAGE);
        let start = bytes.len();
        bytes.try_reserve(n).map_err(|_| Errno::ENOMEM)?;
        bytes.resize(start + n, 0);
        let memory = c.memory();
        let read = memory.read_some(address, &mut bytes[start..]).await;
        let good = match read {
            Err(errno) if start == 0 => return Err(errno),
            read => read.unwrap_or(0),
        };
        bytes.truncate(start + good);
        if good < n {
            break;
        }
    }
    room.put(&bytes)
}

/// From a pipe into memory: what there is.
async fn hand_out(
    c: &Caller,
    pipe: &Pipe,
    segments: &[(u64, u64)],
    hurry: bool,
) -> Result<u64, Errno> {
    let mut done = 0;
    for &(address, len) in segments {
        let memory = Memory::user(c.who(), address, len);
        match pipe.read(c.context(), &[memory], hurry || done > 0).await {
            Ok(n) => done += n,
            Err(errno) if done == 0 => return Err(errno),
            Err(_) => break,
        }
        if pipe.is_empty() {
            break;
        }
    }
    Ok(done)
}
