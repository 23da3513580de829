//! One file's data into another: sendfile(2), copy_file_range(2).

use super::Args;
use super::readwrite::{COUNT_MAX, offset, read_file, write_file};
use super::splice;
use crate::contents::CHUNK;
use crate::file::{Kind, OpenFile};
use crate::memory::Memory;
use crate::state::Caller;
use crate::user::zeroed;
use abi::Errno;
use alloc::rc::Rc;
use linux_raw_sys::general as linux;

/// One file's data from `from.1` on into another through VFS's own memory.
async fn copy(
    c: &Caller,
    from: (&Rc<OpenFile>, u64),
    to: (&Rc<OpenFile>, Option<u64>),
    len: u64,
) -> Result<u64, Errno> {
    from.0.check_readable()?;
    to.0.check_writable()?;
    let mut done = 0;
    let (size, _charge) = c.context().piece(len.min(CHUNK));
    let mut buffer = zeroed(size as usize)?;
    while done < len {
        let n = (len - done).min(buffer.len() as u64) as usize;
        let memory = Memory::own_mut(&mut buffer[..n]);
        let read = read_file(c, from.0, memory, Some(from.1 + done)).await;
        let got = match read {
            Ok(0) => break,
            Ok(got) => got,
            Err(errno) if done == 0 => return Err(errno),
            Err(_) => break,
        };
        let at = to.1.map(|p| p + done);
        let written = write_file(c, to.0, Memory::own(&buffer[..got as usize]), at).await;
        let put = match &written {
            Ok(put) => *put,
            Err(_) => 0,
        };
        done += put;
        // Only where nothing is left is the end: what is sent to itself grows.
        match written {
            Err(errno) if done == 0 => return Err(errno),
            _ if put < got => break,
            _ => {}
        }
    }
    Ok(done)
}

/// Where a file stands that has a position, for a transfer that moves it at its end.
fn standing(file: &OpenFile) -> Option<u64> {
    matches!(file.kind, Kind::File | Kind::Block(_)).then(|| file.position())
}

/// sendfile(2). Positions move when all is done: of a file that is sent to itself once.
pub async fn sendfile(c: &Caller, a: Args) -> Result<u64, Errno> {
    let (to, from) = (c.file(a[0])?, c.file(a[1])?);
    if !matches!(from.kind, Kind::File) {
        return Err(Errno::EINVAL);
    }
    let given = match a[2] {
        0 => None,
        address => Some(offset(c.memory().get(address).await?)?),
    };
    from.check_readable()?;
    to.check_writable()?;
    if to.flags() & linux::O_APPEND != 0 {
        return Err(Errno::EINVAL);
    }
    let start = given.unwrap_or(from.position());
    let end = standing(&to);
    let len = a[3].min(COUNT_MAX);
    let done = match splice::send(c, (&from, start), &to, len).await {
        Some(sent) => sent?,
        None => copy(c, (&from, start), (&to, end), len).await?,
    };
    if let Some(end) = end {
        to.set_position(end + done);
    }
    match given {
        Some(_) => c.memory().put(a[2], &(start + done)).await?,
        None => from.set_position(start + done),
    }
    Ok(done)
}

/// copy_file_range(2)
pub async fn copy_file_range(c: &Caller, a: Args) -> Result<u64, Errno> {
    let (from, to) = (c.file(a[0])?, c.file(a[2])?);
    let memory = c.memory();
    let from_at = match a[1] {
        0 => None,
        address => Some(memory.get::<u64>(address).await?),
    };
    let to_at = match a[3] {
        0 => None,
        address => Some(memory.get::<u64>(address).await?),
    };
    if a[5] != 0 {
        return Err(Errno::EINVAL);
    }
    let (Some(source), Some(sink)) = (&from.vnode, &to.vnode) else {
        return Err(Errno::EINVAL);
    };
    if source.is_directory() || sink.is_directory() {
        return Err(Errno::EISDIR);
    }
    if !source.is_regular() || !sink.is_regular() {
        return Err(Errno::EINVAL);
    }
    from.check_readable()?;
    to.check_writable()?;
    if to.flags() & linux::O_APPEND != 0 {
        return Err(Errno::EBADF);
    }
    if !Rc::ptr_eq(&source.mount, &sink.mount) {
        return Err(Errno::EXDEV);
    }
    let start = from_at.unwrap_or(from.position());
    let end = to_at.unwrap_or(to.position());
    if start.checked_add(a[4]).is_none() || end.checked_add(a[4]).is_none() {
        return Err(Errno::EOVERFLOW);
    }
    let (start, end) = (offset(start)?, offset(end)?);
    // No further than the source's end, and not over itself.
    let mut len = a[4].min(COUNT_MAX);
    if Rc::ptr_eq(source, sink) {
        let size = c.attributes(source).await?.size;
        len = len.min(size.saturating_sub(start));
        if end + len > start && end < start + len {
            return Err(Errno::EINVAL);
        }
    }
    let done = copy(c, (&from, start), (&to, Some(end)), len).await?;
    if done == 0 {
        return Ok(0);
    }
    match from_at {
        Some(_) => memory.put(a[1], &(start + done)).await?,
        None => from.set_position(start + done),
    }
    match to_at {
        Some(_) => memory.put(a[3], &(end + done)).await?,
        None => to.set_position(end + done),
    }
    Ok(done)
}
