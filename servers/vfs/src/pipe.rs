//! Pipes and fifos.
//!
//! Data is consumed only after it has reached the reader, and taken in only after it has
//! been read from the writer; between a copy and its bookkeeping nothing waits, so an absent
//! page never loses or doubles a byte.

use crate::changes::Changes;
use crate::context::Context;
use crate::counters::Counters;
use crate::memory::{Memory, copy_out};
use crate::sabotage;
use crate::transfer::{repair, repairable, whole};
use crate::user::zeroed;
use abi::{Errno, PAGE, PAGE_SIZE};
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use linux_raw_sys::general as linux;
use rt::charge::Charge;
use rt::room;

/// Most bytes of a write that are read from the writer at once.
const PIECE: usize = 64 << 10;
/// Writes up to this are not torn.
pub const PIPE_BUF: usize = 4096;

/// How much of `wanted` bytes goes through a pipe when only the first `good` are in memory that is
/// there: as on Linux data comes and goes by the page.
fn whole_pages(good: u64, wanted: u64) -> Result<u64, Errno> {
    whole(good, wanted, PAGE)
}

/// A pipe.
pub struct Pipe {
    /// Its number, for /proc/PID/fd.
    pub id: u64,
    data: RefCell<VecDeque<u8>>,
    /// Bytes of room that are promised to [`Room`]s.
    promised: Cell<usize>,
    /// The pages it may fill.
    pages: RefCell<Charge>,
    readers: Cell<u64>,
    writers: Cell<u64>,
    /// Readers and writers there ever were: a fifo's open waits for a new one.
    arrivals: Cell<(u64, u64)>,
    /// What waits for it.
    pub changes: Changes,
    counters: Rc<Counters>,
}

/// An end of a pipe, or with both rights a fifo opened for both.
pub struct PipeEnd {
    /// The pipe.
    pub pipe: Rc<Pipe>,
    reads: bool,
    writes: bool,
}

impl PipeEnd {
    /// A new end.
    pub fn new(pipe: &Rc<Pipe>, reads: bool, writes: bool) -> PipeEnd {
        pipe.readers.set(pipe.readers.get() + u64::from(reads));
        pipe.writers.set(pipe.writers.get() + u64::from(writes));
        let (r, w) = pipe.arrivals.get();
        pipe.arrivals
            .set((r + u64::from(reads), w + u64::from(writes)));
        pipe.changes.both();
        PipeEnd {
            pipe: pipe.clone(),
            reads,
            writes,
        }
    }

    /// POLL* bits.
    pub fn poll(&self) -> u32 {
        self.pipe.poll(self)
    }

    /// The same end once more, with other rights.
    pub fn again(&self, reads: bool, writes: bool) -> PipeEnd {
        PipeEnd::new(&self.pipe, reads, writes)
    }
}

impl Drop for PipeEnd {
    fn drop(&mut self) {
        let pipe = &self.pipe;
        pipe.readers.set(pipe.readers.get() - u64::from(self.reads));
        pipe.writers
            .set(pipe.writers.get() - u64::from(self.writes));
        if pipe.readers.get() == 0 && pipe.writers.get() == 0 {
            pipe.data.take();
        }
        pipe.changes.both();
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        Counters::down(&self.counters.pipes);
    }
}

impl Pipe {
    /// An empty pipe without ends; `None` when there are too many.
    pub fn new(c: Context<'_>) -> Option<Rc<Pipe>> {
        let base = c.base;
        let pages = base.accounts.pipe(c.payer())?;
        Counters::up(&base.counters.pipes);
        Some(Rc::new(Pipe {
            id: base.counters.unique(),
            data: RefCell::default(),
            promised: Cell::new(0),
            pages: RefCell::new(pages),
            readers: Cell::new(0),
            writers: Cell::new(0),
            arrivals: Cell::new((0, 0)),
            changes: Changes::new(base),
            counters: base.counters.clone(),
        }))
    }

    /// Bytes in it.
    pub fn len(&self) -> usize {
        self.data.borrow().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether anybody can read from it.
    pub fn is_read(&self) -> bool {
        self.readers.get() > 0
    }

    /// Whether anybody can write to it.
    pub fn is_written(&self) -> bool {
        self.writers.get() > 0
    }

    /// Readers and writers there ever were.
    pub fn arrivals(&self) -> (u64, u64) {
        self.arrivals.get()
    }

    /// A copy of the first `n` bytes, or what there is. `ENOMEM`.
    pub fn look(&self, n: usize) -> Result<Vec<u8>, Errno> {
        let data = self.data.borrow();
        let n = n.min(data.len());
        let (front, back) = data.as_slices();
        let mut copy = room::vector(n)?;
        copy.extend_from_slice(&front[..n.min(front.len())]);
        copy.extend_from_slice(&back[..n - copy.len()]);
        Ok(copy)
    }

    /// Takes out the first `n` bytes, which there are.
    pub fn skip(&self, n: usize) {
        self.data.borrow_mut().drain(..n);
        self.changes.output();
    }

    /// Takes out the first `n` bytes, or what there is; their place is kept for what comes back. `ENOMEM`.
    pub fn take(&self, n: usize) -> Result<(Vec<u8>, Room<'_>), Errno> {
        let taken = self.look(n)?;
        self.data.borrow_mut().drain(..taken.len());
        let place = self.promise(taken.len());
        self.changes.output();
        Ok((taken, place))
    }

    /// Puts back what [`Pipe::take`] took, in front of what came meanwhile.
    pub fn give_back(&self, bytes: &[u8], place: Room<'_>) {
        if !bytes.is_empty() {
            let mut data = self.data.borrow_mut();
            // `append` leaves memory for what is promised.
            bytes.iter().rev().for_each(|&b| data.push_front(b));
            drop(data);
            self.changes.input();
        }
        drop(place);
    }

    /// F_GETPIPE_SZ.
    pub fn capacity(&self) -> usize {
        self.pages.borrow().amount() as usize * PAGE_SIZE
    }

    /// F_SETPIPE_SZ: `EPERM` beyond the size that a pipe may have, or when the user has too
    /// many pages.
    pub fn set_capacity(&self, c: Context<'_>, wanted: usize) -> Result<usize, Errno> {
        let accounts = &c.base.accounts;
        let payer = c.payer();
        let capacity = wanted.max(PIPE_BUF).next_power_of_two();
        let pages = (capacity / PAGE_SIZE) as u64;
        let grows = pages > self.pages.borrow().amount();
        if grows && !payer.privileged {
            let soft = accounts.pipe_soft.get();
            let used = accounts.pipes.used_by(payer.user) + pages;
            if capacity as u64 > accounts.pipe_max.get() || soft != 0 && used > soft {
                return Err(Errno::EPERM);
            }
        }
        if self.len() + self.promised.get() > capacity {
            return Err(Errno::EBUSY);
        }
        if !self.pages.borrow_mut().resize(payer, pages) {
            return Err(match payer.privileged {
                true => Errno::ENOMEM,
                false => Errno::EPERM,
            });
        }
        self.changes.output();
        Ok(capacity)
    }

    /// read(2), readv(2): what there is, at least a byte; 0 when all writers are gone.
    pub async fn read(
        &self,
        c: Context<'_>,
        segments: &[Memory<'_>],
        nonblock: bool,
    ) -> Result<u64, Errno> {
        let mut most: u64 = segments.iter().map(Memory::len).sum();
        let mut repaired = false;
        if most == 0 {
            return Ok(0);
        }
        loop {
            let n = self.len().min(most as usize);
            if n == 0 {
                if self.writers.get() == 0 {
                    return Ok(0);
                }
                self.changes.wait(c, nonblock).await?;
                continue;
            }
            let taken = n * sabotage::taken(&*c.base.machine, repaired);
            match self.hand_out(c, segments, n, taken) {
                Ok(()) => return Ok(n as u64),
                // While VM works another reader may take the data: look again.
                Err((before, memory, errno)) if repairable(errno) => {
                    let good = match repair(&c.base.vm, memory, true).await {
                        Ok(good) => good.len(),
                        Err(Errno::EFAULT) => 0,
                        Err(errno) => return Err(errno),
                    };
                    if good < memory.len() {
                        most = whole_pages(before as u64 + good, n as u64)?;
                    }
                    repaired = true;
                }
                Err((.., errno)) => return Err(errno),
            }
        }
    }

    /// Copies the first `n` bytes out and, if that worked, removes them (`taken` bytes). Otherwise
    /// says how many were copied before a piece of memory, and what is wrong with that.
    fn hand_out<'s>(
        &self,
        c: Context<'_>,
        segments: &[Memory<'s>],
        n: usize,
        taken: usize,
    ) -> Result<(), (usize, Memory<'s>, Errno)> {
        let mut data = self.data.borrow_mut();
        let mut bytes = &data.make_contiguous()[..n];
        for segment in segments {
            let (here, rest) = bytes.split_at(bytes.len().min(segment.len() as usize));
            let memory = segment.first(here.len() as u64);
            copy_out(&*c.base.machine, memory, here)
                .map_err(|errno| (n - bytes.len(), memory, errno))?;
            bytes = rest;
        }
        let taken = taken.min(data.len());
        data.drain(..taken);
        if data.is_empty() && data.capacity() > PIECE {
            *data = VecDeque::new();
        }
        drop(data);
        self.changes.output();
        Ok(())
    }

    /// write(2) of a process's memory.
    pub async fn write(
        &self,
        c: Context<'_>,
        memory: Memory<'_>,
        nonblock: bool,
    ) -> Result<u64, Errno> {
        let Memory::User { who, address, len } = memory else {
            let Memory::Data(data) = memory else {
                return Err(Errno::EFAULT);
            };
            return self.put(c, data, nonblock).await;
        };
        let user = c.memory_of(who);
        let mut done = 0;
        while done < len {
            // Who waits for room keeps it meanwhile.
            let (n, _charge) = c.piece((len - done).min(PIECE as u64));
            let n = n as usize;
            let put = async {
                let mut piece = zeroed(n)?;
                let good = user.read_some(address + done, &mut piece).await?;
                let whole = whole_pages(good as u64, n as u64)? as usize;
                self.put(c, &piece[..whole], nonblock).await
            };
            match put.await {
                Ok(put) => {
                    done += put;
                    if put < n as u64 {
                        break;
                    }
                }
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    /// Puts data in: all of it, or what fits when not blocking; up to [`PIPE_BUF`] in one
    /// piece. `EPIPE` with SIGPIPE without readers.
    pub async fn put(&self, c: Context<'_>, data: &[u8], nonblock: bool) -> Result<u64, Errno> {
        let mut done = 0;
        while done < data.len() || data.is_empty() {
            if self.readers.get() == 0 {
                if done > 0 {
                    break;
                }
                c.raise(linux::SIGPIPE);
                return Err(Errno::EPIPE);
            }
            if data.is_empty() {
                return Ok(0);
            }
            let left = data.len() - done;
            let room = self.room();
            // A small write waits until it fits whole.
            let n = if left <= PIPE_BUF && done == 0 && room < left {
                0
            } else {
                room.min(left)
            };
            if n == 0 {
                match self.changes.wait(c, nonblock).await {
                    Ok(()) => continue,
                    Err(_) if done > 0 => break,
                    Err(errno) => return Err(errno),
                }
            }
            self.append(&data[done..done + n])?;
            done += n;
        }
        Ok(done as u64)
    }

    /// Puts in data that fits.
    fn append(&self, data: &[u8]) -> Result<(), Errno> {
        let mut queue = self.data.borrow_mut();
        let len = queue.len() + data.len();
        // Never more than is charged; where there is not that much, as much as must be.
        let least = (len + self.promised.get()).min(self.capacity()).max(len);
        let wanted = (2 * queue.capacity()).min(self.capacity()).max(least);
        let (more, least) = (wanted - queue.len(), least - queue.len());
        let grown = queue.try_reserve_exact(more);
        let grown = grown.or_else(|_| queue.try_reserve_exact(least));
        grown.map_err(|_| Errno::ENOMEM)?;
        queue.extend(data);
        drop(queue);
        self.changes.input();
        Ok(())
    }

    /// Bytes that fit, without what is promised.
    pub fn room(&self) -> usize {
        let taken = self.len() + self.promised.get();
        self.capacity().saturating_sub(taken)
    }

    /// Keeps `len` bytes of [`Pipe::room`] from other writers.
    pub fn promise(&self, len: usize) -> Room<'_> {
        let len = len.min(self.room());
        self.promised.set(self.promised.get() + len);
        Room { pipe: self, len }
    }

    /// POLL* bits of an end.
    fn poll(&self, end: &PipeEnd) -> u32 {
        let mut ready = 0;
        if end.reads {
            if !self.is_empty() {
                ready |= linux::POLLIN | linux::POLLRDNORM;
            }
            if self.writers.get() == 0 && self.arrivals.get().1 > 0 {
                ready |= linux::POLLHUP;
            }
        }
        if end.writes {
            if self.room() >= PIPE_BUF {
                ready |= linux::POLLOUT | linux::POLLWRNORM;
            }
            if self.readers.get() == 0 {
                ready |= linux::POLLERR;
            }
        }
        ready
    }
}

/// Room in a pipe that nobody else fills: what is read from elsewhere meanwhile has a place to
/// go, so that putting it in never waits and a signal loses nothing.
pub struct Room<'a> {
    pipe: &'a Pipe,
    len: usize,
}

impl Room<'_> {
    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts `data` there, at most [`Room::len`] bytes, whoever reads it: how many. `ENOMEM`.
    pub fn put(mut self, data: &[u8]) -> Result<u64, Errno> {
        let data = &data[..data.len().min(self.len)];
        if !data.is_empty() {
            self.pipe.append(data)?;
            self.give_up(data.len());
        }
        Ok(data.len() as u64)
    }

    fn give_up(&mut self, len: usize) {
        self.len -= len;
        let promised = &self.pipe.promised;
        promised.set(promised.get() - len);
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        if self.len > 0 {
            self.give_up(self.len);
            self.pipe.changes.output();
        }
    }
}
