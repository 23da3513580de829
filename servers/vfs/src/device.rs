//! Devices: requests to their drivers. What only block devices have is in [`crate::block`].

use crate::context::Context;
use crate::memory::Memory;
use crate::peer::{Peer, said};
use crate::transfer::{transfer, transfer_as, transfer_on, whole};
use crate::wait::{Either, either};
use abi::grant::{Access, ToEither};
use abi::kernel::user_range;
use abi::message::request::Ask;
use abi::proto::device::{self, numbers};
use abi::proto::pm;
use abi::{Endpoint, Errno, Request};
use core::cell::Cell;
use linux_raw_sys::general as linux;

/// A driver.
pub struct Driver {
    /// The server.
    pub peer: Peer,
    /// Its major number.
    pub major: u32,
    /// Advances when the driver says that a device became ready.
    pub readiness: Cell<u64>,
}

/// Bytes of a write that Linux's terminals take at once, or not at all when one of them is not there
/// (tty_io.c `iterate_tty_write`).
const TERMINAL_PIECE: u64 = 2048;

impl Driver {
    /// A driver that has said nothing yet.
    pub fn new(peer: Peer, major: u32) -> Driver {
        Driver {
            peer,
            major,
            readiness: Cell::new(0),
        }
    }

    /// Asks; a signal cancels the request, whose answer still comes.
    async fn ask<R: Request<How = Ask>>(
        &self,
        c: Context<'_>,
        request: R,
    ) -> Result<R::Reply, Errno> {
        let (txn, mut answer) = self.peer.start(request);
        let answer = match either(&mut answer, c.subject.interrupt.wait()).await {
            Either::First(answer) => answer,
            Either::Second(()) => {
                self.peer.tell(device::Cancel { target: txn });
                answer.await
            }
        };
        said::<R>(answer).map_err(|errno| match errno {
            Errno::EINTR => Errno::ERESTARTSYS,
            other => other,
        })
    }

    /// [`Driver::ask`] for who may be in the background of the terminal: PM says then whether
    /// to go on, and raises `signal` if not.
    async fn ask_job<R: Request<How = Ask>>(
        &self,
        c: Context<'_>,
        signal: u32,
        make: impl Fn((u32, u32)) -> R,
    ) -> Result<R::Reply, Errno> {
        let job = c.subject.job.get();
        match self.ask(c, make(job)).await {
            Err(Errno::EBACKGROUND) => {}
            other => return other,
        }
        let (who, signal) = (c.who(), signal as i32);
        let pm = c.base.peer(Endpoint::PM);
        let verdict = pm.ask(pm::JobControl { who, signal }).await?;
        match verdict.signalled {
            // No group is in the background.
            false => self.ask(c, make((job.0, 0))).await,
            true => Err(Errno::ERESTARTSYS),
        }
    }

    /// Whether its devices are terminals.
    pub fn is_terminal(&self) -> bool {
        numbers::is_terminal(self.major)
    }

    /// Opens a device; the minor of what follows. Terminals hear of it, and of
    /// [`Driver::close`].
    pub async fn open(&self, c: Context<'_>, minor: u32, flags: u32) -> Result<u32, Errno> {
        if !self.is_terminal() {
            return Ok(minor);
        }
        let major = self.major;
        let subject = c.subject;
        let (ids, pid, job) = (subject.ids.get(), subject.pid, subject.job.get());
        let open = device::Open {
            major,
            minor,
            flags,
            pid,
            ids: (ids.euid, ids.egid),
            job,
        };
        self.peer.ask(open).await.map(|opened| opened.minor)
    }

    /// What was opened is closed.
    pub fn close(&self, minor: u32) {
        if self.is_terminal() {
            self.peer.tell(device::Close { minor });
        }
    }

    /// Whether it is /dev/null, or with `zero` also /dev/zero: what is written there goes nowhere, unseen, and need not go to the
    /// driver for that, which says the same.
    fn is_nowhere(&self, minor: u32, zero: bool) -> bool {
        self.major == numbers::MEM_MAJOR
            && (minor == numbers::NULL_MINOR || zero && minor == numbers::ZERO_MINOR)
    }

    /// read(2).
    pub async fn read(
        &self,
        c: Context<'_>,
        minor: u32,
        memory: Memory<'_>,
        nonblock: bool,
    ) -> Result<u64, Errno> {
        if self.is_nowhere(minor, false) {
            return Ok(0);
        }
        let who = c.who();
        let attempt = async |grant, len| {
            self.ask_job(c, linux::SIGTTIN, |job| device::Read {
                minor,
                grant,
                len,
                nonblock,
                who,
                job,
            })
            .await
        };
        let moved = transfer(&c.base.vm, &self.peer, memory, attempt).await?;
        Ok(moved.bytes)
    }

    /// write(2).
    pub async fn write(
        &self,
        c: Context<'_>,
        minor: u32,
        memory: Memory<'_>,
        nonblock: bool,
    ) -> Result<u64, Errno> {
        if self.is_nowhere(minor, true) {
            return Ok(memory.len());
        }
        let who = c.who();
        let wanted = memory.len();
        let attempt = async |grant, len, done| {
            let len = match self.is_terminal() {
                true => whole(len, wanted - done, TERMINAL_PIECE)?,
                false => len,
            };
            self.ask_job(c, linux::SIGTTOU, |job| device::Write {
                minor,
                grant,
                len,
                nonblock,
                who,
                job,
            })
            .await
            .map(|moved| moved.bytes)
        };
        transfer_on(&c.base.vm, &self.peer, memory, attempt).await
    }

    /// ioctl(2) with a request the driver may know.
    pub async fn ioctl(
        &self,
        c: Context<'_>,
        minor: u32,
        request: u64,
        value: u64,
    ) -> Result<u64, Errno> {
        let pid = c.subject.pid;
        let call = async |grant| {
            self.ask_job(c, linux::SIGTTOU, |job| device::Ioctl {
                minor,
                request,
                grant,
                value,
                pid,
                job,
            })
            .await
        };
        let controlled = self.control(c, request, value, call).await?;
        Ok(controlled.value)
    }

    /// Has `call` carry out an ioctl with a grant of its argument, or -1.
    pub async fn control<T>(
        &self,
        c: Context<'_>,
        request: u64,
        value: u64,
        call: impl AsyncFn(ToEither) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let Some((access, len)) = argument(request as u32) else {
            return call(ToEither::NONE).await;
        };
        user_range(value, len)?;
        let memory = Memory::user(c.who(), value, len);
        let attempt = async |grant, granted| {
            // A structure is whole or not at all.
            if granted == len {
                call(grant).await
            } else {
                Err(Errno::EFAULT)
            }
        };
        transfer_as(&c.base.vm, &self.peer, memory, access, attempt).await
    }

    /// Which of `events` are ready. The driver will say when more become so.
    pub async fn poll(&self, minor: u32, events: u32) -> Result<u32, Errno> {
        let ready = self.peer.ask(device::Poll { minor, events }).await?;
        Ok(ready.events)
    }
}

/// How many bytes the argument of an ioctl has, and which way they go; `None` when the
/// argument is a value.
pub fn argument(request: u32) -> Option<(Access, u64)> {
    use linux_raw_sys::ioctl as i;
    // The kernel's struct termios and struct termio.
    const TERMIOS: u64 = 36;
    const TERMIO: u64 = 18;
    let known = match request {
        i::TCGETS => (Access::Write, TERMIOS),
        i::TCSETS | i::TCSETSW | i::TCSETSF => (Access::Read, TERMIOS),
        i::TCGETA => (Access::Write, TERMIO),
        i::TCSETA | i::TCSETAW | i::TCSETAF => (Access::Read, TERMIO),
        i::TIOCGWINSZ => (Access::Write, 8),
        i::TIOCSWINSZ => (Access::Read, 8),
        i::TIOCGPGRP | i::TIOCGSID | i::TIOCGETD | i::TIOCOUTQ | i::FIONREAD | i::TIOCMGET => {
            (Access::Write, 4)
        }
        i::TIOCPKT | i::TIOCSPGRP | i::TIOCSETD | i::TIOCMSET | i::TIOCMBIS | i::TIOCMBIC => {
            (Access::Read, 4)
        }
        i::TIOCSTI => (Access::Read, 1),
        i::BLKGETSIZE => (Access::Write, 8),
        // An int, whatever its number says.
        i::BLKSSZGET | i::BLKPBSZGET | i::BLKROGET | i::BLKBSZGET => (Access::Write, 4),
        // A signal's number, whatever its own says.
        i::TIOCSIG => return None,
        // Old numbers without a size in them whose argument is a value, or nothing.
        _ if request >> 16 == 0 => return None,
        _ => {
            // _IOC: direction in the top two bits, size in the fourteen below.
            let len = u64::from(request >> 16 & 0x3fff);
            match request >> 30 {
                _ if len == 0 => return None,
                1 => (Access::Read, len),
                2 => (Access::Write, len),
                3 => (Access::Both, len),
                _ => return None,
            }
        }
    };
    Some(known)
}

/// Encodes Linux's device number.
pub const fn makedev(major: u32, minor: u32) -> u64 {
    let (major, minor) = (major as u64, minor as u64);
    (minor & 0xff) | (major & 0xfff) << 8 | (minor & !0xff) << 12 | (major & !0xfff) << 32
}

/// The major number.
pub const fn major(dev: u64) -> u32 {
    ((dev >> 8 & 0xfff) | (dev >> 32 & !0xfff)) as u32
}

/// The minor number.
pub const fn minor(dev: u64) -> u32 {
    ((dev & 0xff) | (dev >> 12 & !0xff)) as u32
}
