//! What the driver needs from outside: copies, answers, signals, time, and the way to the
//! host. The image implements these with kernel calls and the virtio port; tests with lists.

use abi::grant::{ToRead, ToWrite};
use abi::hostlink::Channel;
use abi::message;
use abi::proto::device::{Controlled, Moved};
use abi::{Endpoint, Errno, Message};
use alloc::collections::VecDeque;

/// Kernel and servers.
pub trait World {
    /// Copies from a grant of `granter`, from `offset` on.
    fn fetch(
        &mut self,
        granter: Endpoint,
        grant: ToRead,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<(), Errno>;
    /// Copies to the start of a grant of `granter`.
    fn store(&mut self, granter: Endpoint, grant: ToWrite, buffer: &[u8]) -> Result<(), Errno>;
    /// Answers what was asked.
    fn answer(&mut self, asker: Endpoint, answer: Message);
    /// Tells VFS that a minor may have become ready.
    fn ready(&mut self, major: u32, minor: u32, events: u32);
    /// Has PM raise a signal for a process group.
    fn raise(&mut self, group: u32, signal: i32);
    /// Has PM tell the leader of a session that its terminal is gone.
    fn hang_up(&mut self, session: u32);
    /// Has PM end the run.
    fn end_run(&mut self);
    /// Answers a call.
    fn reply(&mut self, caller: Endpoint, message: Message);
    /// Ns since boot.
    fn now(&self) -> u64;
    /// Sets the timer, 0 disarms it.
    fn set_timer(&mut self, deadline: u64);
}

/// Longest payload of a packet that is sent: with its header it fills a page.
pub const PAYLOAD: usize = abi::PAGE_SIZE - abi::hostlink::HEADER;

/// The way to the host.
pub trait Port {
    /// Takes one packet of at most [`PAYLOAD`] bytes; `false` when there is no room now.
    fn send(&mut self, channel: Channel, payload: &[u8]) -> bool;
    /// Hands what was taken to the device and looks for what it is done with; whether there
    /// is room now.
    fn push(&mut self) -> bool;
    /// Whether the device is done with everything that was sent.
    fn drained(&self) -> bool;
}

/// Session and process group of who asks.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Job {
    /// Session; 0 has no terminal.
    pub session: u32,
    /// Process group; 0 for who may do as it likes.
    pub group: u32,
}

impl From<(u32, u32)> for Job {
    fn from((session, group): (u32, u32)) -> Job {
        Job { session, group }
    }
}

/// Who waits for the answer to what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asker {
    /// Who reads or writes.
    Moves(message::Asker<Moved>),
    /// Whose ioctl it is.
    Controls(message::Asker<Controlled>),
}

impl Asker {
    /// The server that asked.
    pub fn source(self) -> Endpoint {
        match self {
            Asker::Moves(asker) => asker.who,
            Asker::Controls(asker) => asker.who,
        }
    }

    /// Answers.
    pub fn done(self, world: &mut impl World, result: Result<u64, Errno>) {
        let answer = match self {
            Asker::Moves(asker) => asker.answer(result.map(|bytes| Moved { bytes })),
            Asker::Controls(asker) => asker.answer(result.map(|value| Controlled { value })),
        };
        if let Some(answer) = answer {
            world.answer(self.source(), answer);
        }
    }
}

/// A request that is to wait no longer.
#[derive(Clone, Copy, Debug)]
pub struct Cancelled {
    /// Who had asked.
    pub source: Endpoint,
    /// Its transaction.
    pub txn: u64,
}

impl Cancelled {
    /// Whether it is this one's.
    pub fn is(self, asker: Asker) -> bool {
        let txn = match asker {
            Asker::Moves(asker) => asker.txn,
            Asker::Controls(asker) => asker.txn,
        };
        (self.source, self.txn) == (asker.source(), txn)
    }

    /// Takes the first that it is out of `waiting`.
    pub fn take<T>(self, waiting: &mut VecDeque<T>, asker: impl Fn(&T) -> Asker) -> Option<T> {
        let index = waiting.iter().position(|one| self.is(asker(one)))?;
        waiting.remove(index)
    }
}
