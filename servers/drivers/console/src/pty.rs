//! A pseudo-terminal: a terminal whose other end, the master, is a program instead of the host.
//!
//! What the master writes is typed at the [`Tty`]; what its users (of the slave) write, and the
//! echo, is what the master reads. As on Linux either direction holds so much and no more, and
//! who writes faster waits.

use crate::ioctl::{Circumstances, IoctlCall};
use crate::ldisc::Ldisc;
use crate::outgoing::TTY_PIECE;
use crate::postprocess::TAB;
use crate::termios::Settings;
use crate::tty::{Tty, TtyRead};
use crate::world::{Asker, Cancelled, Job, World};
use abi::Errno;
use abi::grant::{ToRead, ToWrite};
use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;
use linux_raw_sys::general as linux;
use linux_raw_sys::ioctl as request;

/// Bytes that wait in either direction (as on Linux).
pub const BUFFER: usize = 8192;

const READABLE: u32 = linux::POLLIN | linux::POLLRDNORM;
const WRITABLE: u32 = linux::POLLOUT | linux::POLLWRNORM;

/// The two ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Of the program that made it.
    Master,
    /// The terminal.
    Slave,
}

/// A read or write of an end.
#[derive(Clone, Copy, Debug)]
pub struct Transfer<G> {
    /// Whom to answer.
    pub asker: Asker,
    /// The buffer.
    pub grant: G,
    /// Its length.
    pub len: u64,
    /// O_NONBLOCK.
    pub nonblock: bool,
    /// Who asks.
    pub job: Job,
}

/// A write that has not ended.
#[derive(Clone, Copy, Debug)]
struct Writing {
    transfer: Transfer<ToRead>,
    done: u64,
}

/// A pseudo-terminal.
#[derive(Debug)]
pub struct Pty {
    /// The terminal.
    pub tty: Tty,
    /// TIOCSPTLCK: the slave cannot be opened.
    locked: bool,
    masters: u32,
    slaves: u32,
    /// The slave was open and is not now: the master reads `EIO`.
    left: bool,
    output: VecDeque<u8>,
    master_reads: VecDeque<Transfer<ToWrite>>,
    master_writes: VecDeque<Writing>,
    slave_writes: VecDeque<Writing>,
    /// TIOCPKT, and the TIOCPKT_* that the master has not read yet.
    packets: Option<u8>,
    /// Events that VFS wants to hear of: of the master, of the slave.
    watched: (u32, u32),
}

impl Default for Pty {
    /// With its master open and its slave locked.
    fn default() -> Pty {
        let mut tty = Tty::default();
        tty.ldisc.set(Settings::pseudo());
        Pty {
            tty,
            locked: true,
            masters: 1,
            slaves: 0,
            left: false,
            output: VecDeque::new(),
            master_reads: VecDeque::new(),
            master_writes: VecDeque::new(),
            slave_writes: VecDeque::new(),
            packets: None,
            watched: (0, 0),
        }
    }
}

impl Pty {
    /// Whether its master is open: its name is in /dev/pts.
    pub fn has_master(&self) -> bool {
        self.masters > 0
    }

    /// Whether nobody uses it.
    pub fn is_unused(&self) -> bool {
        self.masters == 0 && self.slaves == 0
    }

    /// Opens an end once more.
    pub fn open(&mut self, end: End) -> Result<(), Errno> {
        match end {
            End::Master => self.masters += 1,
            End::Slave if self.locked || self.masters == 0 => return Err(Errno::EIO),
            End::Slave => {
                self.slaves += 1;
                self.left = false;
            }
        }
        Ok(())
    }

    /// An opening of an end is closed. With the master the terminal hangs up.
    pub fn close(&mut self, world: &mut impl World, end: End) {
        let open = match end {
            End::Master => &mut self.masters,
            End::Slave => &mut self.slaves,
        };
        *open = open.saturating_sub(1);
        if *open > 0 {
            return;
        }
        match end {
            End::Slave => self.left = true,
            End::Master => {
                self.tty.hung_up = true;
                self.tty.ldisc.flush();
                if self.tty.session != 0 {
                    world.hang_up(self.tty.session);
                    self.tty.disconnect(world, &[]);
                }
            }
        }
    }

    /// read(2).
    pub fn read(&mut self, world: &mut impl World, end: End, transfer: Transfer<ToWrite>) {
        let Transfer {
            asker,
            grant,
            len,
            nonblock,
            job,
        } = transfer;
        match end {
            End::Master => {
                let waits = self.output.is_empty() && !self.left && !self.has_status();
                if waits && nonblock {
                    return asker.done(world, Err(Errno::EAGAIN));
                }
                self.master_reads.push_back(transfer);
            }
            End::Slave => {
                if let Err(errno) = self.tty.check_foreground(job) {
                    return asker.done(world, Err(errno));
                }
                let since = world.now();
                self.tty.read(TtyRead {
                    asker,
                    grant,
                    len,
                    nonblock,
                    since,
                });
            }
        }
    }

    /// write(2).
    pub fn write(&mut self, world: &mut impl World, end: End, mut transfer: Transfer<ToRead>) {
        let asker = transfer.asker;
        let refused = match end {
            End::Slave => self.tty.check_output(transfer.job),
            End::Master => Ok(()),
        };
        if let Err(errno) = refused {
            return asker.done(world, Err(errno));
        }
        if transfer.nonblock && !(end == End::Slave && self.tty.hung_up) {
            match self.room(end) as u64 {
                0 => return asker.done(world, Err(Errno::EAGAIN)),
                room => transfer.len = transfer.len.min(room),
            }
        }
        let writing = Writing { transfer, done: 0 };
        match end {
            End::Master => self.master_writes.push_back(writing),
            End::Slave => self.slave_writes.push_back(writing),
        }
    }

    /// Bytes that an end may write now.
    fn room(&self, end: End) -> usize {
        match end {
            End::Master if !self.master_writes.is_empty() => 0,
            End::Master => BUFFER.saturating_sub(self.tty.ldisc.held()),
            End::Slave if self.tty.ldisc.stopped() || !self.slave_writes.is_empty() => 0,
            End::Slave => BUFFER.saturating_sub(self.output.len()),
        }
    }

    /// Carries everything as far as it goes. Returns when to look again.
    pub fn serve(&mut self, world: &mut impl World) -> Option<u64> {
        loop {
            let state = |pty: &Pty| {
                let waiting = pty.master_writes.len() + pty.slave_writes.len();
                (waiting, pty.master_reads.len(), pty.tty.ldisc.held())
            };
            let before = state(self);
            self.take_input(world);
            let deadline = self.tty.serve(world);
            self.take_output(world);
            self.give_output(world);
            if state(self) == before {
                return deadline;
            }
        }
    }

    /// What the master writes is typed.
    fn take_input(&mut self, world: &mut impl World) {
        while let Some(writing) = self.master_writes.front().copied() {
            let room = BUFFER.saturating_sub(self.tty.ldisc.held());
            let Some(piece) = next_piece(world, &writing, room) else {
                return;
            };
            if let Ok(bytes) = &piece {
                let stopped = self.tty.ldisc.stopped();
                self.tty.push(world, bytes);
                self.echo();
                self.note_stop(stopped);
            }
            advance(world, &mut self.master_writes, piece);
        }
    }

    /// Echo that nobody reads is dropped.
    fn echo(&mut self) {
        let echo = self.tty.ldisc.take_echo();
        if self.output.len() < 2 * BUFFER && self.output.try_reserve(echo.len()).is_ok() {
            self.output.extend(echo);
        }
    }

    /// What the terminal's users write is for the master.
    fn take_output(&mut self, world: &mut impl World) {
        while let Some(writing) = self.slave_writes.front().copied() {
            if self.tty.hung_up {
                self.slave_writes.pop_front();
                writing.transfer.asker.done(world, Err(Errno::EIO));
                continue;
            }
            if self.tty.ldisc.stopped() {
                return;
            }
            let room = BUFFER.saturating_sub(self.output.len());
            let grown = room.min(TTY_PIECE) * TAB;
            let reserved = self.output.try_reserve(grown).map_err(|_| Errno::ENOMEM);
            let Some(piece) = next_piece(world, &writing, room) else {
                return;
            };
            let piece = reserved.and(piece);
            if let Ok(bytes) = &piece {
                let out = self.tty.ldisc.output(bytes);
                self.output.extend(out);
            }
            advance(world, &mut self.slave_writes, piece);
        }
    }

    fn give_output(&mut self, world: &mut impl World) {
        while let Some(read) = self.master_reads.front().copied() {
            let result = if read.len == 0 {
                Ok(0)
            } else if self.has_status() || !self.output.is_empty() {
                self.give(world, &read)
            } else if self.left {
                Err(Errno::EIO)
            } else {
                return;
            };
            self.master_reads.pop_front();
            read.asker.done(world, result);
        }
    }

    /// Nothing is taken away when the copy fails.
    fn give(&mut self, world: &mut impl World, read: &Transfer<ToWrite>) -> Result<u64, Errno> {
        let mut bytes = Vec::new();
        match self.packets {
            Some(0) => bytes.push(linux_packet::DATA),
            Some(status) => bytes.push(status),
            None => {}
        }
        let mut taken = 0;
        if !self.has_status() {
            let len = usize::try_from(read.len).unwrap_or(usize::MAX);
            taken = (len - bytes.len()).min(self.output.len());
            bytes.extend(self.output.iter().take(taken));
        }
        world.store(read.asker.source(), read.grant, &bytes)?;
        self.output.drain(..taken);
        if self.has_status() {
            self.packets = Some(0);
        }
        Ok(bytes.len() as u64)
    }

    fn has_status(&self) -> bool {
        self.packets.is_some_and(|status| status != 0)
    }

    fn note(&mut self, status: u8) {
        if let Some(packets) = &mut self.packets {
            *packets |= status;
        }
    }

    fn note_stop(&mut self, before: bool) {
        match (before, self.tty.ldisc.stopped()) {
            (false, true) => self.note(linux_packet::STOP),
            (true, false) => self.note(linux_packet::START),
            _ => {}
        }
    }

    /// ioctl(2).
    pub fn ioctl(
        &mut self,
        world: &mut impl World,
        number: u32,
        end: End,
        call: &IoctlCall,
        has_terminal: bool,
    ) -> Result<u64, Errno> {
        let master = end == End::Master;
        if master {
            match call.request {
                request::TIOCGPTN => return call.store_int(world, number as usize),
                request::TIOCSPTLCK => {
                    self.locked = call.fetch::<4>(world)? != [0; 4];
                    return Ok(0);
                }
                request::TIOCGPTLCK => return call.store_int(world, self.locked.into()),
                request::TIOCPKT => {
                    let on = call.fetch::<4>(world)? != [0; 4];
                    self.packets = on.then(|| self.packets.unwrap_or(0));
                    return Ok(0);
                }
                request::TIOCGPKT => return call.store_int(world, self.packets.is_some().into()),
                request::TIOCSIG => {
                    self.tty.raise(world, call.value as i32);
                    return Ok(0);
                }
                request::FIONREAD => return call.store_int(world, self.output.len()),
                request::TCFLSH => return self.flush_master(call),
                _ => {}
            }
        } else if self.tty.hung_up {
            return Err(Errno::EIO);
        }
        let around = Circumstances {
            queued: 0,
            has_terminal,
            master,
        };
        let before = self.tty.ldisc.stopped();
        let flow = flow_control(&self.tty.ldisc);
        let result = call.on_tty(world, &mut self.tty, around);
        self.note_stop(before);
        match flow_control(&self.tty.ldisc) {
            now if now == flow => {}
            true => self.note(linux_packet::DOSTOP),
            false => self.note(linux_packet::NOSTOP),
        }
        if call.request == request::TCFLSH && result.is_ok() {
            self.flush_slave(call.value as u32);
        }
        result
    }

    /// The master's input is the slave's output.
    fn flush_master(&mut self, call: &IoctlCall) -> Result<u64, Errno> {
        let queue = call.value as u32;
        if queue > linux::TCIOFLUSH {
            return Err(Errno::EINVAL);
        }
        if queue != linux::TCOFLUSH {
            self.output.clear();
        }
        if queue != linux::TCIFLUSH {
            self.tty.ldisc.flush();
        }
        Ok(0)
    }

    /// What the line discipline did not flush already.
    fn flush_slave(&mut self, queue: u32) {
        if queue != linux::TCOFLUSH {
            self.note(linux_packet::FLUSHREAD);
        }
        if queue != linux::TCIFLUSH {
            self.output.clear();
            self.note(linux_packet::FLUSHWRITE);
        }
    }

    /// POLL* of an end.
    pub fn ready(&self, end: End) -> u32 {
        let mut ready = 0;
        if self.room(end) > 0 {
            ready |= WRITABLE;
        }
        match end {
            End::Master => {
                if !self.output.is_empty() || self.has_status() {
                    ready |= READABLE;
                }
                if self.has_status() {
                    ready |= linux::POLLPRI;
                }
                if self.left {
                    ready |= linux::POLLHUP;
                }
            }
            End::Slave if self.tty.hung_up => {
                ready = READABLE | WRITABLE | linux::POLLERR | linux::POLLHUP;
            }
            End::Slave => {
                if self.tty.readable() {
                    ready |= READABLE;
                }
            }
        }
        ready
    }

    /// What is ready of `events`; if nothing is, [`Pty::news`] will say when.
    pub fn poll(&mut self, end: End, events: u32) -> u32 {
        let ready = self.ready(end) & events;
        if ready == 0 {
            *self.watched(end) |= events;
        }
        ready
    }

    /// What VFS wanted to hear of an end and has become ready.
    pub fn news(&mut self, end: End) -> u32 {
        let news = match *self.watched(end) {
            0 => 0,
            watched => self.ready(end) & watched,
        };
        if news != 0 {
            *self.watched(end) = 0;
        }
        news
    }

    fn watched(&mut self, end: End) -> &mut u32 {
        match end {
            End::Master => &mut self.watched.0,
            End::Slave => &mut self.watched.1,
        }
    }

    /// Ends a request that waits: with what a write has done already. Whether there was one.
    pub fn cancel(&mut self, world: &mut impl World, cancelled: Cancelled) -> bool {
        let read = self.tty.cancel(cancelled).or_else(|| {
            let read = cancelled.take(&mut self.master_reads, |read| read.asker);
            read.map(|read| read.asker)
        });
        let (asker, result) = match read {
            Some(asker) => (asker, Err(Errno::EINTR)),
            None => {
                let mut writes = [&mut self.master_writes, &mut self.slave_writes].into_iter();
                let asker = |writing: &Writing| writing.transfer.asker;
                let Some(writing) = writes.find_map(|writes| cancelled.take(writes, asker)) else {
                    return false;
                };
                let done = Some(writing.done).filter(|&done| done > 0);
                (writing.transfer.asker, done.ok_or(Errno::EINTR))
            }
        };
        asker.done(world, result);
        true
    }
}

/// TIOCPKT_*, which linux-raw-sys has in no module that is used here.
mod linux_packet {
    pub const DATA: u8 = 0;
    pub const FLUSHREAD: u8 = 1;
    pub const FLUSHWRITE: u8 = 2;
    pub const STOP: u8 = 4;
    pub const START: u8 = 8;
    pub const NOSTOP: u8 = 16;
    pub const DOSTOP: u8 = 32;
}

/// Whether ^S and ^Q stop and start output.
fn flow_control(ldisc: &Ldisc) -> bool {
    let settings = ldisc.settings();
    settings.input(linux::IXON)
        && settings.char(linux::VSTOP) == 0x13
        && settings.char(linux::VSTART) == 0x11
}

/// Fetches what is next of a write; `None` when there is no room.
fn next_piece(
    world: &mut impl World,
    writing: &Writing,
    room: usize,
) -> Option<Result<Vec<u8>, Errno>> {
    let Transfer {
        asker, grant, len, ..
    } = writing.transfer;
    let rest = usize::try_from(len - writing.done).unwrap_or(usize::MAX);
    if rest > 0 && room == 0 {
        return None;
    }
    let mut piece = vec![0; rest.min(room).min(TTY_PIECE)];
    let fetched = match piece.len() {
        0 => Ok(()),
        _ => world.fetch(asker.source(), grant, writing.done, &mut piece),
    };
    Some(fetched.map(|()| piece))
}

/// The first write has got on by a piece: answers it when that was the last. What was written
/// before a failure counts.
fn advance(world: &mut impl World, writes: &mut VecDeque<Writing>, piece: Result<Vec<u8>, Errno>) {
    let Some(writing) = writes.front_mut() else {
        return;
    };
    let result = match piece {
        Ok(bytes) => {
            writing.done += bytes.len() as u64;
            if writing.done < writing.transfer.len {
                return;
            }
            Ok(writing.done)
        }
        Err(_) if writing.done > 0 => Ok(writing.done),
        Err(errno) => Err(errno),
    };
    let asker = writing.transfer.asker;
    writes.pop_front();
    asker.done(world, result);
}
