//! The host's standard input as a plain stream, used when it is not a terminal.

use crate::world::{Asker, Cancelled, World};
use abi::Errno;
use abi::grant::ToWrite;
use alloc::collections::VecDeque;

/// A read that waits.
#[derive(Clone, Copy, Debug)]
pub struct StreamRead {
    /// Whom to answer.
    pub asker: Asker,
    /// The buffer.
    pub grant: ToWrite,
    /// Its length.
    pub len: u64,
}

/// Bytes from the host that nobody has read yet.
#[derive(Default, Debug)]
pub struct Stream {
    data: VecDeque<u8>,
    ended: bool,
    readers: VecDeque<StreamRead>,
}

impl Stream {
    /// Takes bytes from the host.
    pub fn push(&mut self, bytes: &[u8]) {
        self.data.extend(bytes);
    }

    /// There will be no more.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Bytes that can be read now.
    pub fn available(&self) -> usize {
        self.data.len()
    }

    /// Whether a read would not wait.
    pub fn readable(&self) -> bool {
        self.ended || !self.data.is_empty()
    }

    /// Asks for data.
    pub fn read(&mut self, world: &mut impl World, read: StreamRead, nonblock: bool) {
        if nonblock && (!self.readable() || !self.readers.is_empty()) {
            read.asker.done(world, Err(Errno::EAGAIN));
        } else {
            self.readers.push_back(read);
        }
    }

    /// Answers readers as far as there is data; returns the bytes consumed.
    pub fn serve(&mut self, world: &mut impl World) -> usize {
        let mut consumed = 0;
        while self.readable()
            && let Some(read) = self.readers.pop_front()
        {
            let len = usize::try_from(read.len).map_or(self.data.len(), |n| n.min(self.data.len()));
            let bytes = &self.data.make_contiguous()[..len];
            let stored = match len {
                0 => Ok(()),
                _ => world.store(read.asker.source(), read.grant, bytes),
            };
            if stored.is_ok() {
                self.data.drain(..len);
                consumed += len;
            }
            read.asker.done(world, stored.map(|()| len as u64));
        }
        consumed
    }

    /// Withdraws a waiting read, if it is one.
    pub fn cancel(&mut self, cancelled: Cancelled) -> Option<Asker> {
        let read = cancelled.take(&mut self.readers, |read| read.asker)?;
        Some(read.asker)
    }
}
