//! splice(2), tee(2), vmsplice(2): data between pipes and other files without a stop in the program.

use super::Args;
use super::readwrite::{COUNT_MAX, offset, read_file, readv, write_file, writev};
use crate::file::{Kind, OpenFile};
use crate::pipe::{Pipe, raise_pipe};
use crate::state::Caller;
use crate::transfer::Memory;
use crate::user::zeroed;
use abi::Errno;
use alloc::rc::Rc;
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

/// Whether to wait for the pipe of `file`.
fn waits(file: &OpenFile, flags: u32) -> bool {
    flags & linux::SPLICE_F_NONBLOCK == 0 && !file.nonblocking()
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
    if flags & !KNOWN != 0 {
        return Err(Errno::EINVAL);
    }
    let len = a[4].min(COUNT_MAX).min(PIECE_MAX as u64);
    if len == 0 {
        return Ok(0);
    }
    let (from, to) = (c.file(a[0])?, c.file(a[2])?);
    from.check_readable()?;
    to.check_writable()?;
    let from_at = position(c, &from, a[1]).await?;
    let to_at = position(c, &to, a[3]).await?;
    if to.flags() & linux::O_APPEND != 0 && matches!(to.kind, Kind::File) {
        return Err(Errno::EINVAL);
    }
    let done = match (pipe(&from), pipe(&to)) {
        (Some(source), Some(sink)) if Rc::ptr_eq(source, sink) => return Err(Errno::EINVAL),
        (Some(source), sink) => {
            let room = match sink {
                Some(sink) => room(c, sink, waits(&to, flags)).await?,
                None => len,
            };
            take(c, source, (&to, to_at), len.min(room), waits(&from, flags)).await?
        }
        (None, Some(sink)) => {
            let room = room(c, sink, waits(&to, flags)).await?;
            fill(c, (&from, from_at), sink, len.min(room)).await?
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
async fn data(c: &Caller, pipe: &Pipe, wait: bool) -> Result<u64, Errno> {
    while pipe.is_empty() && pipe.is_written() {
        pipe.changes.wait(c, !wait).await?;
    }
    Ok(pipe.len() as u64)
}

/// Waits for room in a pipe: bytes that fit. `EPIPE` with SIGPIPE when nobody reads.
async fn room(c: &Caller, pipe: &Pipe, wait: bool) -> Result<u64, Errno> {
    loop {
        if !pipe.is_read() {
            raise_pipe(c);
            return Err(Errno::EPIPE);
        }
        match pipe.capacity().saturating_sub(pipe.len()) {
            0 => pipe.changes.wait(c, !wait).await?,
            room => return Ok(room as u64),
        }
    }
}

/// From a pipe: what was not taken goes back.
async fn take(
    c: &Caller,
    source: &Pipe,
    to: (&Rc<OpenFile>, Option<u64>),
    len: u64,
    wait: bool,
) -> Result<u64, Errno> {
    let there = data(c, source, wait).await?;
    let mut bytes = source.take(there.min(len) as usize);
    if bytes.is_empty() {
        return Ok(0);
    }
    let written = write_file(c, to.0, Memory::own(&bytes), to.1).await;
    let done = *written.as_ref().unwrap_or(&0);
    source.give_back(bytes.split_off(done as usize));
    written
}

/// Into a pipe with room for `len` bytes.
async fn fill(
    c: &Caller,
    from: (&Rc<OpenFile>, Option<u64>),
    sink: &Pipe,
    len: u64,
) -> Result<u64, Errno> {
    let (len, _charge) = c.piece(len);
    let mut buffer = zeroed(len as usize)?;
    let before = from.0.position();
    let got = read_file(c, from.0, Memory::own_mut(&mut buffer), from.1).await? as usize;
    if got == 0 {
        return Ok(0);
    }
    // Who has filled the pipe meanwhile is waited for: what was read cannot always go back.
    let put = sink.put(c, &buffer[..got], false).await;
    let done = *put.as_ref().unwrap_or(&0);
    if from.1.is_none() && done < got as u64 && matches!(from.0.kind, Kind::File | Kind::Block(_)) {
        from.0.set_position(before + done);
    }
    put
}

/// tee(2)
pub async fn tee(c: &Caller, a: Args) -> Result<u64, Errno> {
    let flags = a[3] as u32;
    if flags & !KNOWN != 0 {
        return Err(Errno::EINVAL);
    }
    if a[2] == 0 {
        return Ok(0);
    }
    let (from, to) = (c.file(a[0])?, c.file(a[1])?);
    from.check_readable()?;
    to.check_writable()?;
    let (source, sink) = match (pipe(&from), pipe(&to)) {
        (Some(source), Some(sink)) if !Rc::ptr_eq(source, sink) => (source, sink),
        _ => return Err(Errno::EINVAL),
    };
    if data(c, source, waits(&from, flags)).await? == 0 {
        return Ok(0);
    }
    let room = room(c, sink, waits(&to, flags)).await?;
    let bytes = source.look(a[2].min(room).min(PIECE_MAX as u64) as usize);
    sink.put(c, &bytes, false).await
}

/// vmsplice(2): pages are copied, which no program can tell.
pub async fn vmsplice(c: &Caller, a: Args) -> Result<u64, Errno> {
    if a[3] as u32 & !KNOWN != 0 {
        return Err(Errno::EINVAL);
    }
    let file = c.file(a[0])?;
    if pipe(&file).is_none() {
        return Err(Errno::EBADF);
    }
    match file.check_writable() {
        Ok(()) => writev(c, a, None, 0).await,
        Err(_) => readv(c, a, None, 0).await,
    }
}
