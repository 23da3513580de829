//! Open files: what a descriptor refers to. Two kinds of them hold others: a set watches files
//! ([`epoll`]), a socket carries them ([`socket`]).

pub mod epoll;
pub mod socket;

use crate::block::BlockDevice;
use crate::changes::{Counts, READABLE, UNASKED, WRITABLE};
use crate::context::Context;
use crate::counters::Counters;
use crate::device::Driver;
use crate::event::Counter;
use crate::locks::Owner;
use crate::pipe::PipeEnd;
use crate::timer::Timer;
use crate::vnode::{Place, Vnode, Writing};
use crate::wait::Turn;
use abi::Errno;
use alloc::boxed::Box;
use alloc::rc::Rc;
use core::cell::Cell;
use epoll::Epoll;
use linux_raw_sys::general as linux;
use rt::charge::Charge;
use socket::Socket;

/// What reading and writing means.
pub enum Kind {
    /// A regular file or directory: the file's vnode.
    File,
    /// An end (or both) of a pipe.
    Pipe(PipeEnd),
    /// A character device, opened by [`Driver::open`].
    Device(Rc<Driver>, u32),
    /// A block device.
    Block(Rc<BlockDevice>),
    /// eventfd(2).
    Event(Rc<Counter>),
    /// timerfd_create(2).
    Timer(Rc<Timer>),
    /// epoll_create(2).
    Epoll(Rc<Epoll>),
    /// socket(2).
    Socket(Rc<Socket>),
    /// O_PATH: only a place.
    Path,
}

/// An open file.
pub struct OpenFile {
    /// Names it as an owner of locks.
    pub id: u64,
    /// What it is.
    pub kind: Kind,
    /// Its file, if it has one.
    pub vnode: Option<Rc<Vnode>>,
    /// How it was found.
    pub place: Option<Place>,
    /// User and group of who made it: the owner of what has no file.
    pub owner: Cell<(u32, u32)>,
    /// [`crate::context::Subject::credential`] of who opened it.
    pub credential: u64,
    flags: Cell<u32>,
    position: Cell<u64>,
    /// Reads and writes that move the position take turns.
    pub turn: Turn,
    counters: Rc<Counters>,
    _writing: Option<Writing>,
    _charge: Charge,
}

/// The open flags that F_GETFL shows.
pub const STATUS_FLAGS: u32 = linux::O_ACCMODE
    | linux::O_APPEND
    | linux::O_NONBLOCK
    | linux::O_SYNC
    | linux::O_DIRECT
    | linux::O_LARGEFILE
    | linux::O_DIRECTORY
    | linux::O_NOFOLLOW
    | linux::O_NOATIME
    | linux::O_PATH;

/// The flags that F_SETFL changes.
pub const CHANGEABLE_FLAGS: u32 =
    linux::O_APPEND | linux::O_NONBLOCK | linux::O_DIRECT | linux::O_NOATIME;

impl OpenFile {
    /// An open file with the flags of open(2). `ENFILE`.
    pub fn new(
        c: Context<'_>,
        kind: Kind,
        vnode: Option<Rc<Vnode>>,
        place: Option<Place>,
        flags: u32,
    ) -> Result<Rc<OpenFile>, Errno> {
        let base = c.base;
        let charge = base.accounts.files.charge(c.payer(), 1);
        let charge = charge.ok_or(Errno::ENFILE)?;
        Counters::up(&base.counters.files);
        let writes = matches!(kind, Kind::File) && flags & linux::O_ACCMODE != linux::O_RDONLY;
        let writing = vnode.as_ref().filter(|v| writes && v.is_regular());
        let writing = writing.map(Writing::more);
        let ids = c.subject.ids.get();
        Ok(Rc::new(OpenFile {
            id: base.counters.unique(),
            kind,
            vnode,
            place,
            owner: Cell::new((ids.fsuid, ids.fsgid)),
            credential: c.subject.credential.get(),
            flags: Cell::new(flags & STATUS_FLAGS),
            position: Cell::new(0),
            turn: Turn::new(base.counters.clone()),
            counters: base.counters.clone(),
            _writing: writing,
            _charge: charge,
        }))
    }

    /// Access mode and status flags.
    pub fn flags(&self) -> u32 {
        self.flags.get()
    }

    /// F_SETFL.
    pub fn set_flags(&self, flags: u32) {
        let kept = self.flags.get() & !CHANGEABLE_FLAGS;
        self.flags.set(kept | flags & CHANGEABLE_FLAGS);
    }

    /// The position.
    pub fn position(&self) -> u64 {
        self.position.get()
    }

    /// Moves the position.
    pub fn set_position(&self, position: u64) {
        self.position.set(position);
    }

    /// O_NONBLOCK.
    pub fn nonblocking(&self) -> bool {
        self.flags.get() & linux::O_NONBLOCK != 0
    }

    /// How often it became ready, for who polls edges.
    pub fn counts(&self) -> Counts {
        match &self.kind {
            Kind::Pipe(end) => end.pipe.changes.counts(),
            Kind::Event(counter) => counter.changes.counts(),
            Kind::Timer(timer) => timer.changes.counts(),
            Kind::Epoll(epoll) => epoll.changes.counts(),
            Kind::Socket(socket) => socket.changes.counts(),
            Kind::Device(driver, _) => Counts {
                input: driver.readiness.get(),
                output: driver.readiness.get(),
            },
            Kind::File | Kind::Block(_) | Kind::Path => Counts::default(),
        }
    }

    /// `EBADF` unless open for reading.
    pub fn check_readable(&self) -> Result<(), Errno> {
        let flags = self.flags.get();
        if flags & linux::O_PATH != 0 || flags & linux::O_ACCMODE == linux::O_WRONLY {
            Err(Errno::EBADF)
        } else {
            Ok(())
        }
    }

    /// `EBADF` unless open for writing.
    pub fn check_writable(&self) -> Result<(), Errno> {
        let flags = self.flags.get();
        if flags & linux::O_PATH != 0 || flags & linux::O_ACCMODE == linux::O_RDONLY {
            Err(Errno::EBADF)
        } else {
            Ok(())
        }
    }

    /// `EBADF` for O_PATH.
    pub fn check_not_path(&self) -> Result<(), Errno> {
        match self.kind {
            Kind::Path => Err(Errno::EBADF),
            _ => Ok(()),
        }
    }
}

/// What a driver said when it was last asked, and at which [`Driver::readiness`].
pub type Asked = Option<(u64, u32)>;

/// POLL* bits of a file, among `events` and [`UNASKED`]. `round` is the number of the look that it is a
/// part of.
pub async fn look(file: &OpenFile, events: u32, asked: &mut Asked, round: u64) -> u32 {
    let ready = match &file.kind {
        Kind::File | Kind::Block(_) => READABLE | WRITABLE,
        Kind::Path => linux::POLLNVAL,
        Kind::Pipe(end) => end.poll(),
        Kind::Event(counter) => counter.poll(),
        Kind::Socket(socket) => socket.poll(),
        Kind::Timer(timer) => timer.poll(),
        Kind::Epoll(epoll) => Box::pin(epoll.poll(round)).await,
        Kind::Device(driver, minor) => {
            let now = driver.readiness.get();
            match *asked {
                Some((at, ready)) if at == now => ready,
                _ => {
                    let answer = driver.poll(*minor, events | UNASKED).await;
                    let ready = answer.unwrap_or(linux::POLLERR);
                    *asked = Some((now, ready));
                    ready
                }
            }
        }
    };
    ready & (events | UNASKED)
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        Counters::down(&self.counters.files);
        if let Kind::Device(driver, minor) = &self.kind {
            driver.close(*minor);
        }
        if let Some(vnode) = &self.vnode {
            vnode.locks.release(Owner::Open(self.id));
            vnode.locks.release(Owner::Flock(self.id));
        }
    }
}
