//! read(2), write(2) and their relatives.

use super::{Args, holes, sockets};
use crate::block::BlockDevice;
use crate::contents::{CHUNK, read_vnode, write_vnode};
use crate::file::{Kind, OpenFile};
use crate::memory::Memory;
use crate::sabotage;
use crate::state::Caller;
use abi::kernel::user_range;
use abi::proto::fs;
use abi::{Endpoint, Errno, page_down};
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use linux_raw_sys::general as linux;
use rt::room;

/// Linux's limit of one transfer.
pub const COUNT_MAX: u64 = 0x7fff_f000;
/// Bytes that segments of a vector which share a request have at most.
const SHARED: u64 = 64 << 10;
/// Elements of a vector (UIO_MAXIOV).
const VECTOR_MAX: u64 = 1024;

fn user(c: &Caller, address: u64, len: u64) -> Result<Memory<'static>, Errno> {
    user_range(address, len)?;
    Ok(Memory::user(c.who(), address, len.min(COUNT_MAX)))
}

/// A position argument: `EINVAL` for a negative one.
pub fn offset(arg: u64) -> Result<u64, Errno> {
    if arg as i64 >= 0 {
        Ok(arg)
    } else {
        Err(Errno::EINVAL)
    }
}

/// read(2)
pub async fn read(c: &Caller, a: Args) -> Result<u64, Errno> {
    let file = c.file(a[0])?;
    file.check_readable()?;
    read_file(c, &file, user(c, a[1], a[2])?, None).await
}

/// write(2)
pub async fn write(c: &Caller, a: Args) -> Result<u64, Errno> {
    let file = c.file(a[0])?;
    file.check_writable()?;
    write_file(c, &file, user(c, a[1], a[2])?, None).await
}

/// pread64(2)
pub async fn pread(c: &Caller, a: Args) -> Result<u64, Errno> {
    let position = offset(a[3])?;
    let file = c.file(a[0])?;
    file.check_readable()?;
    read_file(c, &file, user(c, a[1], a[2])?, Some(position)).await
}

/// pwrite64(2)
pub async fn pwrite(c: &Caller, a: Args) -> Result<u64, Errno> {
    let position = offset(a[3])?;
    let file = c.file(a[0])?;
    file.check_writable()?;
    write_file(c, &file, user(c, a[1], a[2])?, Some(position)).await
}

/// Reads into `memory` at `position`, or at the file's own and moves it.
pub async fn read_file(
    c: &Caller,
    file: &Rc<OpenFile>,
    memory: Memory<'_>,
    position: Option<u64>,
) -> Result<u64, Errno> {
    match &file.kind {
        Kind::File | Kind::Block(_) => match position {
            Some(position) => read_at(c, file, memory, position).await,
            None => {
                let turn = file.turn.take().await;
                let repairs = c.vfs.base.vm.repairs.get();
                let n = read_at(c, file, memory, file.position()).await?;
                file.set_position(file.position() + n);
                sabotage::leave(&c.vfs.base.vm, turn, repairs);
                Ok(n)
            }
        },
        _ if position.is_some() && !matches!(file.kind, Kind::Device(..)) => Err(Errno::ESPIPE),
        Kind::Pipe(end) => {
            end.pipe
                .read(c.context(), &[memory], file.nonblocking())
                .await
        }
        Kind::Event(counter) => counter.read(c.context(), memory, file.nonblocking()).await,
        Kind::Timer(timer) => timer.read(c.context(), memory, file.nonblocking()).await,
        Kind::Socket(socket) => {
            Box::pin(sockets::read(c, socket, &[memory], file.nonblocking())).await
        }
        Kind::Epoll(_) => Err(Errno::EINVAL),
        Kind::Device(driver, minor) => {
            if memory.is_empty() {
                return Ok(0);
            }
            driver
                .read(c.context(), *minor, memory, file.nonblocking())
                .await
        }
        Kind::Path => Err(Errno::EBADF),
    }
}

/// Reads what has a position.
async fn read_at(
    c: &Caller,
    file: &OpenFile,
    memory: Memory<'_>,
    position: u64,
) -> Result<u64, Errno> {
    if let Kind::Block(device) = &file.kind {
        return Box::pin(device.read(c.context(), memory, position)).await;
    }
    let vnode = file.vnode.as_ref().ok_or(Errno::EBADF)?;
    if vnode.is_directory() {
        return Err(Errno::EISDIR);
    }
    read_vnode(c, vnode, memory, position).await
}

/// Writes `memory` at `position`, or at the file's own and moves it.
pub async fn write_file(
    c: &Caller,
    file: &Rc<OpenFile>,
    memory: Memory<'_>,
    position: Option<u64>,
) -> Result<u64, Errno> {
    match &file.kind {
        Kind::File => {
            let vnode = file.vnode.as_ref().ok_or(Errno::EBADF)?;
            let append = file.flags() & linux::O_APPEND != 0;
            let done = match position {
                Some(position) => write_vnode(c, vnode, memory, position, append).await?.0,
                None => {
                    let _turn = file.turn.take().await;
                    let at = file.position();
                    let (n, end) = write_vnode(c, vnode, memory, at, append).await?;
                    file.set_position(end);
                    n
                }
            };
            if file.flags() & linux::O_DSYNC != 0 && done > 0 {
                let ino = vnode.ino;
                vnode.mount.peer.ask(fs::Sync { ino }).await?;
            }
            Ok(done)
        }
        Kind::Block(device) => Box::pin(write_block(c, file, device, memory, position)).await,
        _ if position.is_some() && !matches!(file.kind, Kind::Device(..)) => Err(Errno::ESPIPE),
        Kind::Pipe(end) => {
            end.pipe
                .write(c.context(), memory, file.nonblocking())
                .await
        }
        Kind::Event(counter) => counter.write(c.context(), memory, file.nonblocking()).await,
        Kind::Socket(socket) => {
            Box::pin(sockets::write(c, socket, &[memory], file.nonblocking())).await
        }
        Kind::Timer(_) | Kind::Epoll(_) => Err(Errno::EINVAL),
        Kind::Device(driver, minor) => {
            if memory.is_empty() {
                return Ok(0);
            }
            driver
                .write(c.context(), *minor, memory, file.nonblocking())
                .await
        }
        Kind::Path => Err(Errno::EBADF),
    }
}

async fn write_block(
    c: &Caller,
    file: &OpenFile,
    device: &BlockDevice,
    memory: Memory<'_>,
    position: Option<u64>,
) -> Result<u64, Errno> {
    let done = match position {
        Some(position) => device.write(c.context(), memory, position).await?,
        None => {
            let _turn = file.turn.take().await;
            let done = device.write(c.context(), memory, file.position()).await?;
            file.set_position(file.position() + done);
            done
        }
    };
    if file.flags() & linux::O_DSYNC != 0 && done > 0 {
        device.flush().await?;
    }
    Ok(done)
}

/// `EINVAL` for a length that is none.
fn checked_len(len: u64) -> Result<(), Errno> {
    i64::try_from(len).map(drop).map_err(|_| Errno::EINVAL)
}

/// The segments of a vector that have bytes, [`COUNT_MAX`] in all at most.
pub async fn vector(c: &Caller, address: u64, count: u64) -> Result<Vec<(u64, u64)>, Errno> {
    if count > VECTOR_MAX {
        return Err(Errno::EINVAL);
    }
    let bytes = match c.memory().read_vec(address, count as usize * 16).await {
        Ok(bytes) => bytes,
        // As Linux reads them, one after the other: what is wrong with one counts before the next is not there.
        Err(errno) => {
            for i in 0..count {
                let [_, len]: [u64; 2] = c.memory().get(address.wrapping_add(16 * i)).await?;
                checked_len(len)?;
            }
            return Err(errno);
        }
    };
    let word = |i: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[i * 8..][..8]);
        u64::from_le_bytes(word)
    };
    let mut left = COUNT_MAX;
    let mut segments = room::vector(count as usize)?;
    for i in 0..count as usize {
        checked_len(word(2 * i + 1))?;
    }
    for i in 0..count as usize {
        let (address, len) = (word(2 * i), word(2 * i + 1));
        user_range(address, len)?;
        let len = len.min(left);
        left -= len;
        if len > 0 {
            segments.push((address, len));
        }
    }
    Ok(segments)
}

/// Whether it is /dev/null or one of its kin, which never wait.
fn is_memory_device(file: &OpenFile) -> bool {
    match &file.kind {
        Kind::Device(driver, _) => driver.major == abi::proto::device::numbers::MEM_MAJOR,
        _ => false,
    }
}

/// Segments of a program's memory.
pub fn memories(who: Endpoint, segments: &[(u64, u64)]) -> Result<Vec<Memory<'static>>, Errno> {
    let segments = segments.iter();
    room::collect(segments.map(|&(address, len)| Memory::user(who, address, len)))
}

/// readv(2), preadv(2)
pub async fn readv(c: &Caller, a: Args, position: Option<u64>, flags: u64) -> Result<u64, Errno> {
    if flags & !u64::from(linux::RWF_HIPRI | linux::RWF_NOWAIT) != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    let position = position.map(offset).transpose()?;
    let file = c.file(a[0])?;
    file.check_readable()?;
    let segments = vector(c, a[1], a[2]).await?;
    if let (Kind::Socket(socket), None, false) = (&file.kind, position, segments.is_empty()) {
        // One message, whose bytes all segments share.
        let memory = memories(c.who(), &segments)?;
        return Box::pin(sockets::read(c, socket, &memory, file.nonblocking())).await;
    }
    if let (Kind::Pipe(end), None) = (&file.kind, position) {
        let memory = memories(c.who(), &segments)?;
        return end
            .pipe
            .read(c.context(), &memory, file.nonblocking())
            .await;
    }
    if let (Kind::File | Kind::Block(_), [_, _, ..]) = (&file.kind, &segments[..]) {
        return Box::pin(read_scattered(c, &file, &segments, position)).await;
    }
    let mut done = 0;
    for (address, len) in segments {
        let memory = Memory::user(c.who(), address, len);
        match read_file(c, &file, memory, position).await {
            Ok(n) => {
                done += n;
                // The next one might wait.
                if n < len || !is_memory_device(&file) {
                    break;
                }
            }
            Err(errno) if done == 0 => return Err(errno),
            Err(_) => break,
        }
    }
    Ok(done)
}

/// Reads for several segments what has a position, all in one turn of that: short ones that follow each other share a request.
async fn read_scattered(
    c: &Caller,
    file: &Rc<OpenFile>,
    segments: &[(u64, u64)],
    position: Option<u64>,
) -> Result<u64, Errno> {
    let _turn = match position {
        None => Some(file.turn.take().await),
        Some(_) => None,
    };
    let start = position.unwrap_or_else(|| file.position());
    let all = segments.iter().map(|segment| segment.1).sum::<u64>();
    let (most, _charge) = c.context().piece(all.min(SHARED));
    let (mut rest, mut done) = (segments, 0);
    while !rest.is_empty() {
        let (these, later) = rest.split_at(together(rest, most));
        let wanted = these.iter().map(|segment| segment.1).sum::<u64>();
        let at = start + done;
        let read = match *these {
            [(address, len)] => read_at(c, file, Memory::user(c.who(), address, len), at).await,
            _ => read_shared(c, file, these, wanted, at).await,
        };
        match read {
            Ok(n) => {
                done += n;
                if n < wanted {
                    break;
                }
            }
            Err(errno) if done == 0 => return Err(errno),
            Err(_) => break,
        }
        rest = later;
    }
    if position.is_none() {
        file.set_position(start + done);
    }
    Ok(done)
}

/// How many segments share a request of at most `most` bytes; one that is longer has it for itself.
fn together(segments: &[(u64, u64)], most: u64) -> usize {
    let mut bytes = 0;
    let fit = segments.iter().take_while(|segment| {
        bytes += segment.1;
        bytes <= most
    });
    fit.count().max(1)
}

/// Reads `wanted` bytes with one request into a buffer of VFS's own, and hands them to the segments as far as their memory goes.
async fn read_shared(
    c: &Caller,
    file: &OpenFile,
    segments: &[(u64, u64)],
    wanted: u64,
    position: u64,
) -> Result<u64, Errno> {
    let mut buffer = room::zeroed(wanted as usize)?;
    let there = read_at(c, file, Memory::own_mut(&mut buffer), position).await?;
    let mut data = &buffer[..there as usize];
    let mut given = 0;
    for &(address, len) in segments {
        let (piece, later) = data.split_at(data.len().min(len as usize));
        match c.memory().write_some(address, piece).await {
            Ok(good) => given += good as u64,
            Err(errno) if given == 0 => return Err(errno),
            Err(_) => break,
        }
        // What is behind bad memory is not transferred.
        if given < there - later.len() as u64 {
            break;
        }
        data = later;
    }
    Ok(given)
}

/// writev(2), pwritev(2): gathered first, so that what is written together stays together.
pub async fn writev(c: &Caller, a: Args, position: Option<u64>, flags: u64) -> Result<u64, Errno> {
    if flags & !u64::from(linux::RWF_HIPRI) != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    let position = position.map(offset).transpose()?;
    let file = c.file(a[0])?;
    file.check_writable()?;
    let segments = vector(c, a[1], a[2]).await?;
    if let (Kind::Socket(socket), None, false) = (&file.kind, position, segments.is_empty()) {
        let memory = memories(c.who(), &segments)?;
        return Box::pin(sockets::write(c, socket, &memory, file.nonblocking())).await;
    }
    if let [(address, len)] = segments[..] {
        return write_file(c, &file, Memory::user(c.who(), address, len), position).await;
    }
    let mut done = 0;
    if is_memory_device(&file) {
        // They keep nothing that could be torn, and some look at nothing.
        for (address, len) in segments {
            match write_file(c, &file, Memory::user(c.who(), address, len), position).await {
                Ok(n) => done += n,
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => break,
            }
        }
        return Ok(done);
    }
    let mut gathered = Vec::new();
    let all = segments.iter().fold(0u64, |all, s| all.saturating_add(s.1));
    let (size, _charge) = c.context().piece(all.min(CHUNK));
    let mut segments = segments.into_iter().peekable();
    while let Some((address, len)) = segments.next() {
        let mut taken = 0;
        while taken < len {
            let n = (len - taken).min(size - gathered.len() as u64);
            let start = gathered.len();
            gathered
                .try_reserve(n as usize)
                .map_err(|_| Errno::ENOMEM)?;
            gathered.resize(start + n as usize, 0);
            let memory = c.memory();
            let read = memory.read_some(address + taken, &mut gathered[start..]);
            let (good, bad) = match read.await {
                Ok(good) => (good, Errno::EFAULT),
                Err(errno) => (0, errno),
            };
            if (good as u64) < n {
                // Write what comes before the bad memory.
                gathered.truncate(start + good);
                if let Kind::Pipe(_) = file.kind {
                    gathered.truncate(page_down(gathered.len() as u64) as usize);
                }
                if gathered.is_empty() {
                    return if done == 0 { Err(bad) } else { Ok(done) };
                }
                let at = position.map(|p| p + done);
                let last = write_file(c, &file, Memory::own(&gathered), at).await;
                return if done == 0 {
                    last
                } else {
                    Ok(done + last.unwrap_or(0))
                };
            }
            taken += n;
            let full = gathered.len() as u64 == size;
            if full || taken == len && segments.peek().is_none() {
                let at = position.map(|p| p + done);
                match write_file(c, &file, Memory::own(&gathered), at).await {
                    Ok(n) => {
                        done += n;
                        if n < gathered.len() as u64 {
                            return Ok(done);
                        }
                    }
                    Err(errno) if done == 0 => return Err(errno),
                    Err(_) => return Ok(done),
                }
                gathered.clear();
            }
        }
    }
    Ok(done)
}

/// lseek(2)
pub async fn lseek(c: &Caller, a: Args) -> Result<u64, Errno> {
    let file = c.file(a[0])?;
    let vnode = match &file.kind {
        Kind::File | Kind::Block(_) => file.vnode.as_ref(),
        // /dev/null and its kin have no position but do not mind.
        Kind::Device(driver, _) if driver.major == abi::proto::device::numbers::MEM_MAJOR => {
            return Ok(0);
        }
        Kind::Event(_) | Kind::Timer(_) | Kind::Epoll(_) => return Ok(0),
        Kind::Path => return Err(Errno::EBADF),
        _ => return Err(Errno::ESPIPE),
    };
    let by = a[1] as i64;
    let size = match a[2] as u32 {
        linux::SEEK_END | linux::SEEK_DATA | linux::SEEK_HOLE => match (&file.kind, vnode) {
            (Kind::Block(device), _) => device.size(),
            (_, Some(vnode)) => match vnode.exact_size() {
                Some(size) => size,
                None => c.attributes(vnode).await?.size,
            },
            (_, None) => return Err(Errno::ESPIPE),
        },
        _ => 0,
    };
    let base = match a[2] as u32 {
        linux::SEEK_SET => 0,
        linux::SEEK_CUR => file.position(),
        linux::SEEK_END => size,
        linux::SEEK_DATA | linux::SEEK_HOLE => {
            if by < 0 || by as u64 >= size {
                return Err(Errno::ENXIO);
            }
            let hole = a[2] as u32 == linux::SEEK_HOLE;
            let position = match vnode.filter(|v| v.is_regular()) {
                Some(vnode) => holes::seek(c, vnode, by as u64, hole).await?,
                // Without holes.
                None if hole => size,
                None => by as u64,
            };
            file.set_position(position);
            return Ok(position);
        }
        _ => return Err(Errno::EINVAL),
    };
    let position = base.checked_add_signed(by).ok_or(Errno::EINVAL)?;
    if position > i64::MAX as u64 {
        return Err(Errno::EINVAL);
    }
    file.set_position(position);
    Ok(position)
}
