//! fcntl(2), ioctl(2), flock(2), fsync(2).

use super::{Args, fd, memory_file};
use crate::file::{Kind, OpenFile};
use crate::locks::{Lock, Owner};
use crate::state::Caller;
use crate::vnode::Vnode;
use crate::wait::{Either, either};
use abi::Errno;
use abi::proto::fs;
use alloc::boxed::Box;
use alloc::rc::Rc;
use linux_raw_sys::{general as linux, ioctl as requests};
use zerocopy::{FromBytes, Immutable, IntoBytes};

const FD_CLOEXEC: u64 = 1;

/// fcntl(2)
pub async fn fcntl(c: &Caller, a: Args) -> Result<u64, Errno> {
    let files = c.process.files();
    let descriptor = files.descriptor(fd(a[0]))?;
    let file = descriptor.file;
    let command = a[1] as u32;
    let allowed_on_path = matches!(
        command,
        linux::F_DUPFD | linux::F_DUPFD_CLOEXEC | linux::F_GETFD | linux::F_SETFD | linux::F_GETFL
    );
    if !allowed_on_path {
        file.check_not_path()?;
    }
    match command {
        linux::F_DUPFD | linux::F_DUPFD_CLOEXEC => {
            let from = a[2] as u32 as usize;
            if from >= files.limit() {
                return Err(Errno::EINVAL);
            }
            let close_on_exec = command == linux::F_DUPFD_CLOEXEC;
            files
                .add(from, file, close_on_exec, c.payer())
                .map(|fd| fd as u64)
        }
        linux::F_GETFD => Ok(u64::from(descriptor.close_on_exec)),
        linux::F_SETFD => files
            .set_close_on_exec(fd(a[0]), a[2] & FD_CLOEXEC != 0)
            .map(|()| 0),
        linux::F_GETFL => Ok(u64::from(file.flags())),
        linux::F_SETFL => {
            let begins = a[2] as u32 & !file.flags() & linux::O_NOATIME != 0;
            if begins && let Some(vnode) = &file.vnode {
                c.credentials().check_owner(vnode)?;
            }
            file.set_flags(a[2] as u32);
            Ok(0)
        }
        linux::F_GETLK | linux::F_SETLK | linux::F_SETLKW => {
            record_lock(c, &file, command, Owner::Table(files.id), a[2]).await
        }
        linux::F_OFD_GETLK | linux::F_OFD_SETLK | linux::F_OFD_SETLKW => {
            let command = command - linux::F_OFD_GETLK + linux::F_GETLK;
            record_lock(c, &file, command, Owner::Open(file.id), a[2]).await
        }
        linux::F_GETPIPE_SZ => match &file.kind {
            Kind::Pipe(end) => Ok(end.pipe.capacity() as u64),
            _ => Err(Errno::EBADF),
        },
        linux::F_SETPIPE_SZ => match &file.kind {
            Kind::Pipe(end) => {
                let size = i32::try_from(a[2]).map_err(|_| Errno::EINVAL)?;
                let size = usize::try_from(size).map_err(|_| Errno::EINVAL)?;
                end.pipe
                    .set_capacity(c.context(), size)
                    .map(|size| size as u64)
            }
            _ => Err(Errno::EBADF),
        },
        linux::F_ADD_SEALS => memory_file::add_seals(&file, a[2] as u32),
        linux::F_GET_SEALS => memory_file::get_seals(&file),
        // Nobody gets SIGIO.
        linux::F_GETOWN => Ok(0),
        linux::F_SETOWN => Ok(0),
        _ => Err(Errno::EINVAL),
    }
}

/// Linux's struct flock.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Flock {
    kind: u16,
    whence: u16,
    padding: u32,
    start: i64,
    len: i64,
    pid: u32,
    end: u32,
}

async fn record_lock(
    c: &Caller,
    file: &Rc<OpenFile>,
    command: u32,
    owner: Owner,
    address: u64,
) -> Result<u64, Errno> {
    let mut asked: Flock = c.memory().get(address).await?;
    let (kind, whence) = (u32::from(asked.kind), u32::from(asked.whence));
    let vnode = file.vnode.clone().ok_or(Errno::EBADF)?;
    let (mut start, len) = (asked.start, asked.len);
    start = match whence {
        linux::SEEK_SET => Some(start),
        linux::SEEK_CUR => start.checked_add(file.position() as i64),
        linux::SEEK_END => start.checked_add(c.attributes(&vnode).await?.size as i64),
        _ => return Err(Errno::EINVAL),
    }
    .ok_or(Errno::EOVERFLOW)?;
    let end = start.checked_add(len).ok_or(Errno::EOVERFLOW)?;
    let (start, end) = match len {
        0 => (start, i64::MAX),
        1.. => (start, end),
        _ => (end, start),
    };
    let start = u64::try_from(start).map_err(|_| Errno::EINVAL)?;
    let end = if len == 0 { u64::MAX } else { end as u64 };
    let lock = Lock {
        owner,
        pid: c.process.subject.pid,
        start,
        end,
        exclusive: kind == linux::F_WRLCK,
    };
    match (command, kind) {
        (_, linux::F_RDLCK | linux::F_WRLCK) => {}
        (linux::F_SETLK | linux::F_SETLKW, linux::F_UNLCK) => {
            // Only a part may leave two pieces.
            let spare = c.vfs.base.accounts.locks.charge(c.payer(), 1);
            vnode.locks.clear(owner, start, end, spare)?;
            return Ok(0);
        }
        _ => return Err(Errno::EINVAL),
    }
    if command == linux::F_GETLK {
        asked.kind = match vnode.locks.conflict(&lock) {
            None => linux::F_UNLCK,
            Some(held) => {
                asked.whence = linux::SEEK_SET as u16;
                asked.start = held.start.cast_signed();
                asked.len = match held.end {
                    u64::MAX => 0,
                    end => (end - held.start).cast_signed(),
                };
                asked.pid = match held.owner {
                    Owner::Table(_) => held.pid,
                    _ => u32::MAX,
                };
                if held.exclusive {
                    linux::F_WRLCK
                } else {
                    linux::F_RDLCK
                }
            }
        } as u16;
        return c.memory().put(address, &asked).await.map(|()| 0);
    }
    if kind == linux::F_RDLCK {
        file.check_readable()?;
    } else {
        file.check_writable()?;
    }
    set_lock(c, &vnode, lock, command == linux::F_SETLKW).await
}

async fn set_lock(c: &Caller, vnode: &Vnode, lock: Lock, wait: bool) -> Result<u64, Errno> {
    loop {
        // One more than it is: its range may part one that is there.
        let charge = c.vfs.base.accounts.locks.charge(c.payer(), 2);
        match vnode.locks.set(lock, charge.ok_or(Errno::ENOLCK)?) {
            Err(Errno::EAGAIN) if wait => {}
            result => return result.map(|()| 0),
        }
        let changed = vnode.locks.changed.wait();
        if let Either::Second(()) = either(changed, c.process.subject.interrupt.wait()).await {
            return Err(Errno::ERESTARTSYS);
        }
    }
}

/// flock(2)
pub async fn flock(c: &Caller, a: Args) -> Result<u64, Errno> {
    let file = c.file(a[0])?;
    file.check_not_path()?;
    let vnode = file.vnode.clone().ok_or(Errno::EBADF)?;
    let owner = Owner::Flock(file.id);
    let operation = a[1] as u32;
    let exclusive = match operation & !linux::LOCK_NB {
        linux::LOCK_SH => false,
        linux::LOCK_EX => true,
        linux::LOCK_UN => {
            vnode.locks.release(owner);
            return Ok(0);
        }
        _ => return Err(Errno::EINVAL),
    };
    let lock = Lock {
        owner,
        pid: c.process.subject.pid,
        start: 0,
        end: u64::MAX,
        exclusive,
    };
    set_lock(c, &vnode, lock, operation & linux::LOCK_NB == 0).await
}

/// ioctl(2)
pub async fn ioctl(c: &Caller, a: Args) -> Result<u64, Errno> {
    let files = c.process.files();
    let file = files.get(fd(a[0]))?;
    file.check_not_path()?;
    // The request is an unsigned int whatever the upper half holds.
    let request = a[1] as u32;
    match request {
        requests::FIOCLEX => return files.set_close_on_exec(fd(a[0]), true).map(|()| 0),
        requests::FIONCLEX => return files.set_close_on_exec(fd(a[0]), false).map(|()| 0),
        requests::FIONBIO => {
            let on: i32 = c.memory().get(a[2]).await?;
            let flags = file.flags() & !linux::O_NONBLOCK;
            file.set_flags(flags | if on != 0 { linux::O_NONBLOCK } else { 0 });
            return Ok(0);
        }
        _ => {}
    }
    match &file.kind {
        Kind::Device(driver, minor) => {
            let result = driver
                .ioctl(c.context(), *minor, u64::from(request), a[2])
                .await?;
            if request == requests::TIOCNOTTY {
                let pid = c.process.subject.pid;
                for thread in c.vfs.processes.borrow().threads(pid) {
                    let (session, group) = thread.subject.job.get();
                    // The leader's terminal has let go of the whole session.
                    if session != pid {
                        thread.subject.job.set((0, group));
                    }
                }
            }
            Ok(result)
        }
        Kind::Block(device) => Box::pin(device.ioctl(c.context(), u64::from(request), a[2])).await,
        Kind::Pipe(end) if request == requests::FIONREAD => c
            .memory()
            .put(a[2], &(end.pipe.len() as i32))
            .await
            .map(|()| 0),
        Kind::Socket(socket) => match socket.queued(request) {
            Some(bytes) => c.memory().put(a[2], &(bytes as i32)).await.map(|()| 0),
            None => Err(Errno::ENOTTY),
        },
        Kind::File if request == requests::FIONREAD => {
            let vnode = file.vnode.as_ref().ok_or(Errno::ENOTTY)?;
            if !vnode.is_regular() {
                return Err(Errno::ENOTTY);
            }
            let size = c.attributes(vnode).await?.size;
            let left = size.saturating_sub(file.position()).min(i32::MAX as u64);
            c.memory().put(a[2], &(left as i32)).await.map(|()| 0)
        }
        _ => Err(Errno::ENOTTY),
    }
}

/// fsync(2), fdatasync(2), sync_file_range(2)
pub async fn fsync(c: &Caller, a: Args) -> Result<u64, Errno> {
    let file = c.file(a[0])?;
    file.check_not_path()?;
    let vnode = match (&file.kind, &file.vnode) {
        (Kind::Block(device), _) => return device.flush().await.map(|()| 0),
        (Kind::File, Some(vnode)) => vnode,
        _ => return Err(Errno::EINVAL),
    };
    let ino = vnode.ino;
    c.vfs.collect_written(&vnode.mount, ino).await;
    vnode.mount.peer.ask(fs::Sync { ino }).await?;
    Ok(0)
}

/// sync(2)
pub async fn sync(c: &Caller) -> Result<u64, Errno> {
    let mounts = c.vfs.mounts.borrow().clone();
    for mount in mounts {
        c.vfs.collect_written(&mount, 0).await;
        // Linux's sync cannot fail either.
        let _ = mount.peer.ask(fs::Sync { ino: 0 }).await;
    }
    Ok(0)
}

/// syncfs(2)
pub async fn syncfs(c: &Caller, a: Args) -> Result<u64, Errno> {
    let file = c.file(a[0])?;
    file.check_not_path()?;
    if let Some(vnode) = &file.vnode {
        let mount = vnode.mount.clone();
        c.vfs.collect_written(&mount, 0).await;
        mount.peer.ask(fs::Sync { ino: 0 }).await?;
    }
    Ok(0)
}

/// fadvise64(2), readahead(2): advice that needs no taking.
pub fn advise(c: &Caller, a: Args) -> Result<u64, Errno> {
    let file = c.file(a[0])?;
    match file.kind {
        Kind::Pipe(_) | Kind::Socket(_) => Err(Errno::ESPIPE),
        Kind::Path => Err(Errno::EBADF),
        _ => Ok(0),
    }
}
