//! Everything that goes to the host, in order.
//!
//! *Staged* chunks are bytes ready to be sent: echo, credit, the piece of a write in
//! progress. *Jobs* wait behind them: writes, whose data stays with the program until their
//! turn, and what must happen after the writes before it. A program that writes faster than
//! the host reads therefore waits, and memory stays bounded.

use crate::ioctl::IoctlCall;
use crate::ldisc::Ldisc;
use crate::world::{Asker, Cancelled, PAYLOAD, Port, World};
use abi::Errno;
use abi::grant::ToRead;
use abi::hostlink::Channel;
use abi::message::Caller;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use rt::room;

/// Bytes of a write that are fetched at a time: up to here a write is all or nothing.
pub const PIECE: usize = 64 * 1024;
/// Bytes that a terminal makes output of at once: tabs become eight times as many, which a server finds memory
/// for whatever programs do (docs/decisions/020-heaps.md).
pub const TTY_PIECE: usize = 2048;

/// Where a write goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// Through output processing to the terminal.
    Tty,
    /// To a stream as it is.
    Stream(Channel),
}

/// A write that waits or is in progress.
#[derive(Clone, Copy, Debug)]
pub struct Writing {
    /// Whom to answer.
    pub asker: Asker,
    /// The data.
    pub grant: ToRead,
    /// Its length.
    pub len: u64,
    /// Bytes fetched so far.
    pub offset: u64,
    /// Where it goes.
    pub target: Target,
}

/// Something to do when everything before it has been sent.
#[derive(Clone, Copy, Debug)]
pub enum Job {
    /// Write.
    Write(Writing),
    /// Carry out an ioctl that waits for output to drain.
    Ioctl(IoctlCall),
    /// Send PROGRAM's status, then answer the caller.
    Exit {
        /// PM.
        caller: Caller<()>,
        /// As wait4 reports it.
        status: u32,
    },
}

struct Chunk {
    channel: Channel,
    bytes: Vec<u8>,
    sent: usize,
}

/// The queues.
pub struct Outgoing {
    staged: VecDeque<Chunk>,
    jobs: VecDeque<Job>,
    /// The first job is a write whose current piece is staged.
    writing: bool,
    /// Callers to answer when the device has taken everything.
    exiting: Vec<Caller<()>>,
    /// Where the terminal's output goes; `None` when no output of the host is a terminal.
    pub tty_channel: Option<Channel>,
}

impl Outgoing {
    /// Empty queues.
    pub fn new(tty_channel: Option<Channel>) -> Outgoing {
        Outgoing {
            staged: VecDeque::new(),
            jobs: VecDeque::new(),
            writing: false,
            exiting: Vec::new(),
            tty_channel,
        }
    }

    /// Whether a write would begin at once.
    pub fn idle(&self) -> bool {
        self.staged.is_empty() && self.jobs.is_empty()
    }

    /// Bytes staged (TIOCOUTQ).
    pub fn staged(&self) -> usize {
        self.staged
            .iter()
            .map(|chunk| chunk.bytes.len() - chunk.sent)
            .sum()
    }

    /// Adds bytes that are ready.
    pub fn stage(&mut self, channel: Channel, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.staged.push_back(Chunk {
                channel,
                bytes,
                sent: 0,
            });
        }
    }

    /// Adds the terminal's echo.
    pub fn echo(&mut self, bytes: Vec<u8>) {
        if let Some(channel) = self.tty_channel {
            self.stage(channel, bytes);
        }
    }

    /// Adds something to do after all that is there.
    pub fn add(&mut self, job: Job) {
        self.jobs.push_back(job);
    }

    /// Ends a job with `EINTR`, or with what it has written already; whether
    /// there was one.
    pub fn cancel(&mut self, world: &mut impl World, cancelled: Cancelled) -> bool {
        let is = |job: &Job| match job {
            Job::Write(writing) => cancelled.is(writing.asker),
            Job::Ioctl(call) => cancelled.is(call.asker),
            Job::Exit { .. } => false,
        };
        let Some(index) = self.jobs.iter().position(is) else {
            return false;
        };
        if let Some(Job::Write(writing)) = self.jobs.get_mut(index)
            && index == 0
            && self.writing
        {
            // The piece on its way ends the write.
            writing.len = writing.offset;
            return true;
        }
        let (asker, done) = match self.jobs.remove(index) {
            Some(Job::Write(writing)) => (writing.asker, writing.offset),
            Some(Job::Ioctl(call)) => (call.asker, 0),
            Some(Job::Exit { .. }) | None => return false,
        };
        let partial = Some(done).filter(|&done| done > 0);
        asker.done(world, partial.ok_or(Errno::EINTR));
        true
    }

    /// Sends what can be sent. Returns an ioctl whose time has come; call again after it.
    pub fn pump(
        &mut self,
        world: &mut impl World,
        port: &mut impl Port,
        ldisc: &mut Ldisc,
    ) -> Option<IoctlCall> {
        let due = loop {
            if !self.send(port) {
                break None;
            }
            if self.writing {
                self.writing = false;
                self.finish_piece(world);
                continue;
            }
            match self.jobs.front() {
                None => break None,
                Some(Job::Write(writing)) => {
                    let stopped = ldisc.stopped() && writing.target == Target::Tty;
                    if stopped && !self.unblock() {
                        break None;
                    }
                    self.start_piece(world, ldisc);
                }
                Some(&Job::Ioctl(call)) => {
                    self.jobs.pop_front();
                    break Some(call);
                }
                Some(&Job::Exit { caller, status }) => {
                    self.jobs.pop_front();
                    self.exiting.push(caller);
                    self.stage(Channel::Exit, status.to_le_bytes().to_vec());
                }
            }
        };
        port.push();
        if self.staged.is_empty() && port.drained() {
            for caller in self.exiting.drain(..) {
                world.reply(caller.who, caller.reply(Ok(())));
            }
        }
        due
    }

    /// Moves a job that the stopped terminal does not hold back to the front; `false` when
    /// there is none. The end of the run is not held back either.
    fn unblock(&mut self) -> bool {
        if self.jobs.iter().any(|job| matches!(job, Job::Exit { .. })) {
            return true;
        }
        let free = |job: &Job| match job {
            Job::Write(writing) => writing.target != Target::Tty,
            Job::Ioctl(_) | Job::Exit { .. } => false,
        };
        let index = self.jobs.iter().position(free);
        if let Some(job) = index.and_then(|index| self.jobs.remove(index)) {
            self.jobs.push_front(job);
        }
        index.is_some()
    }

    /// Sends staged chunks; whether all are gone.
    fn send(&mut self, port: &mut impl Port) -> bool {
        while let Some(chunk) = self.staged.front_mut() {
            while chunk.sent < chunk.bytes.len() {
                let end = chunk.bytes.len().min(chunk.sent + PAYLOAD);
                let packet = &chunk.bytes[chunk.sent..end];
                let taken = port.send(chunk.channel, packet)
                    || port.push() && port.send(chunk.channel, packet);
                if !taken {
                    return false;
                }
                chunk.sent = end;
            }
            self.staged.pop_front();
        }
        true
    }

    /// Fetches the next piece of the write at the front and stages it.
    fn start_piece(&mut self, world: &mut impl World, ldisc: &mut Ldisc) {
        let Some(Job::Write(writing)) = self.jobs.front_mut() else {
            return;
        };
        let most = match writing.target {
            Target::Tty => TTY_PIECE,
            Target::Stream(_) => PIECE,
        };
        let mut len = (writing.len - writing.offset).min(most as u64);
        // Where memory is short a piece is smaller.
        let mut piece = room::vector(len as usize).unwrap_or_default();
        if piece.capacity() < len as usize {
            len = len.min(TTY_PIECE as u64);
        }
        piece.resize(len as usize, 0);
        let source = writing.asker.source();
        let fetched = match len {
            0 => Ok(()),
            _ => world.fetch(source, writing.grant, writing.offset, &mut piece),
        };
        match fetched {
            Ok(()) => writing.offset += len,
            // What was written before counts; without that nothing has been consumed.
            Err(_) if writing.offset > 0 => {
                writing.len = writing.offset;
                piece.clear();
            }
            Err(errno) => {
                let asker = writing.asker;
                self.jobs.pop_front();
                asker.done(world, Err(errno));
                return;
            }
        }
        self.writing = true;
        match writing.target {
            Target::Stream(channel) => self.stage(channel, piece),
            Target::Tty => {
                let processed = ldisc.output(&piece);
                self.echo(processed);
            }
        }
    }

    /// The piece has been sent: answers the write when it was the last.
    fn finish_piece(&mut self, world: &mut impl World) {
        if let Some(&Job::Write(writing)) = self.jobs.front()
            && writing.offset >= writing.len
        {
            self.jobs.pop_front();
            writing.asker.done(world, Ok(writing.offset));
        }
    }
}
