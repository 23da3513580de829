//! Calls that only move descriptors around.

use super::{Args, fd};
use crate::event::Counter;
use crate::fd::OPEN_MAX;
use crate::file::{Kind, OpenFile};
use crate::pipe::{Pipe, PipeEnd};
use crate::state::Caller;
use abi::Errno;
use alloc::rc::Rc;
use linux_raw_sys::general as linux;

const CLOSE_RANGE_UNSHARE: u64 = 2;
const CLOSE_RANGE_CLOEXEC: u64 = 4;

/// close(2)
pub fn close(c: &Caller, a: Args) -> Result<u64, Errno> {
    c.process.files().close(fd(a[0])).map(|()| 0)
}

/// close_range(2)
pub fn close_range(c: &Caller, a: Args) -> Result<u64, Errno> {
    let (first, last) = (a[0] as u32 as usize, a[1] as u32 as usize);
    if first > last || a[2] & !(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC) != 0 {
        return Err(Errno::EINVAL);
    }
    if a[2] & CLOSE_RANGE_UNSHARE != 0 {
        c.unshare_files()?;
    }
    let files = c.process.files();
    if a[2] & CLOSE_RANGE_CLOEXEC != 0 {
        for fd in first..=last.min(OPEN_MAX) {
            let _ = files.set_close_on_exec(fd as i32, true);
        }
    } else {
        files.close_if(|fd, _| (first..=last).contains(&fd));
    }
    Ok(0)
}

/// dup(2)
pub fn dup(c: &Caller, a: Args) -> Result<u64, Errno> {
    let files = c.process.files();
    let file = files.get(fd(a[0]))?;
    files.add(0, file, false, c.payer()).map(|fd| fd as u64)
}

/// dup2(2)
pub fn dup2(c: &Caller, a: Args) -> Result<u64, Errno> {
    if fd(a[0]) == fd(a[1]) {
        c.process.files().get(fd(a[0]))?;
        return Ok(a[1] & 0xffff_ffff);
    }
    dup_to(c, a[0], a[1], false)
}

/// dup3(2)
pub fn dup3(c: &Caller, a: Args) -> Result<u64, Errno> {
    if a[2] & !u64::from(linux::O_CLOEXEC) != 0 || fd(a[0]) == fd(a[1]) {
        return Err(Errno::EINVAL);
    }
    dup_to(c, a[0], a[1], a[2] != 0)
}

fn dup_to(c: &Caller, from: u64, to: u64, close_on_exec: bool) -> Result<u64, Errno> {
    let files = c.process.files();
    let to = to as u32 as usize;
    if to >= files.limit() {
        return Err(Errno::EBADF);
    }
    let file = files.get(fd(from))?;
    files.set(to, file, close_on_exec, c.payer())?;
    Ok(to as u64)
}

/// pipe2(2)
pub async fn pipe(c: &Caller, address: u64, flags: u64) -> Result<u64, Errno> {
    let flags = flags as u32;
    if flags & !(linux::O_CLOEXEC | linux::O_NONBLOCK | linux::O_DIRECT) != 0 {
        return Err(Errno::EINVAL);
    }
    let pipe = Pipe::new(c.context()).ok_or(Errno::ENFILE)?;
    let status = flags & linux::O_NONBLOCK;
    let reader = Kind::Pipe(PipeEnd::new(&pipe, true, false));
    let reader = OpenFile::new(c.context(), reader, None, None, linux::O_RDONLY | status)?;
    let writer = Kind::Pipe(PipeEnd::new(&pipe, false, true));
    let writer = OpenFile::new(c.context(), writer, None, None, linux::O_WRONLY | status)?;
    two(c, address, [reader, writer], flags & linux::O_CLOEXEC != 0).await
}

/// Two descriptors, told at `address`.
pub async fn two(
    c: &Caller,
    address: u64,
    [reader, writer]: [Rc<OpenFile>; 2],
    close_on_exec: bool,
) -> Result<u64, Errno> {
    let files = c.process.files();
    let read_fd = files.add(0, reader, close_on_exec, c.payer())?;
    let write_fd = match files.add(0, writer, close_on_exec, c.payer()) {
        Ok(fd) => fd,
        Err(errno) => {
            let _ = files.close(read_fd);
            return Err(errno);
        }
    };
    if let Err(errno) = c.memory().put(address, &[read_fd, write_fd]).await {
        let _ = files.close(read_fd);
        let _ = files.close(write_fd);
        return Err(errno);
    }
    Ok(0)
}

/// eventfd2(2)
pub fn eventfd(c: &Caller, value: u64, flags: u64) -> Result<u64, Errno> {
    let flags = flags as u32;
    if flags & !(linux::EFD_SEMAPHORE | linux::EFD_CLOEXEC | linux::EFD_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    let semaphore = flags & linux::EFD_SEMAPHORE != 0;
    let counter = Counter::new(&c.vfs.base, value & 0xffff_ffff, semaphore);
    let status = linux::O_RDWR | flags & linux::O_NONBLOCK;
    let file = OpenFile::new(c.context(), Kind::Event(counter), None, None, status)?;
    let fd = c
        .process
        .files()
        .add(0, file, flags & linux::EFD_CLOEXEC != 0, c.payer())?;
    Ok(fd as u64)
}
