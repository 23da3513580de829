//! The terminal: who waits for input, and when a read is complete.

use crate::ldisc::Ldisc;
use crate::world::{Asker, Cancelled, Job, World};
use abi::Errno;
use abi::grant::ToWrite;
use alloc::collections::VecDeque;
use linux_raw_sys::general as linux;

/// Ns of VTIME's unit.
const TENTH: u64 = 100_000_000;

/// The session and process group that PROGRAM starts in.
pub const FIRST_GROUP: u32 = 2;

/// A read that waits.
#[derive(Clone, Copy, Debug)]
pub struct TtyRead {
    /// Whom to answer.
    pub asker: Asker,
    /// The buffer.
    pub grant: ToWrite,
    /// Its length.
    pub len: u64,
    /// O_NONBLOCK.
    pub nonblock: bool,
    /// When it was asked, ns since boot.
    pub since: u64,
}

/// Rows, columns and two sizes in pixels that nobody uses.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Window {
    /// Rows.
    pub rows: u16,
    /// Columns.
    pub columns: u16,
    /// Width and height in pixels.
    pub pixels: (u16, u16),
}

impl Window {
    /// As `struct winsize`.
    pub fn to_bytes(self) -> [u8; 8] {
        let mut bytes = [0; 8];
        let words = [self.rows, self.columns, self.pixels.0, self.pixels.1];
        for (slot, word) in bytes.chunks_exact_mut(2).zip(words) {
            slot.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// From `struct winsize`.
    pub fn from_bytes(b: [u8; 8]) -> Window {
        let word = |i: usize| u16::from_le_bytes([b[i], b[i + 1]]);
        Window {
            rows: word(0),
            columns: word(2),
            pixels: (word(4), word(6)),
        }
    }
}

enum Verdict {
    /// Answer with up to this many bytes.
    Give(usize),
    /// Nothing there for a read that does not wait.
    Refuse,
    /// Wait for input, or until this time.
    Wait(Option<u64>),
}

/// The terminal.
#[derive(Default, Debug)]
pub struct Tty {
    /// The line discipline.
    pub ldisc: Ldisc,
    /// Size on the screen.
    pub window: Window,
    /// Foreground process group; 0 for none.
    pub group: u32,
    /// Session whose terminal this is; 0 for none.
    pub session: u32,
    /// The other end is gone: reads find the end of the file.
    pub hung_up: bool,
    readers: VecDeque<TtyRead>,
    last_input: u64,
}

impl Tty {
    /// Takes bytes from the keyboard.
    pub fn push(&mut self, world: &mut impl World, bytes: &[u8]) {
        self.last_input = world.now();
        for &byte in bytes {
            if let Some(signal) = self.ldisc.input(byte) {
                self.raise(world, signal);
            }
        }
    }

    /// Raises a signal for the foreground group.
    pub fn raise(&self, world: &mut impl World, signal: i32) {
        if self.group != 0 {
            world.raise(self.group, signal);
        }
    }

    /// Whether this is the controlling terminal of who asks.
    pub fn controls(&self, job: Job) -> bool {
        job.session != 0 && job.session == self.session
    }

    /// `EBACKGROUND` for who may not use its controlling terminal as it is.
    pub fn check_foreground(&self, job: Job) -> Result<(), Errno> {
        let other = self.group != 0 && job.group != 0 && self.group != job.group;
        if other && self.controls(job) {
            Err(Errno::EBACKGROUND)
        } else {
            Ok(())
        }
    }

    /// [`Tty::check_foreground`] before output, which TOSTOP alone forbids.
    pub fn check_output(&self, job: Job) -> Result<(), Errno> {
        match self.ldisc.settings().local(linux::TOSTOP) {
            true => self.check_foreground(job),
            false => Ok(()),
        }
    }

    /// Becomes the controlling terminal of a session.
    pub fn connect(&mut self, job: Job) {
        (self.session, self.group) = (job.session, job.group);
    }

    /// Is nobody's controlling terminal any more; the foreground group gets `signals`.
    pub fn disconnect(&mut self, world: &mut impl World, signals: &[u32]) {
        for &signal in signals {
            self.raise(world, signal as i32);
        }
        self.connect(Job::default());
    }

    /// Changes the size; the foreground group hears of it.
    pub fn resize(&mut self, world: &mut impl World, window: Window) {
        if self.window != window {
            self.window = window;
            self.raise(world, linux::SIGWINCH as i32);
        }
    }

    /// Whether a read would not wait, as poll sees it.
    pub fn readable(&self) -> bool {
        if self.hung_up {
            return true;
        }
        if self.ldisc.canonical() {
            return self.ldisc.has_line();
        }
        let (min, time) = self.min_time();
        let wanted = if time == 0 { min.max(1) } else { 1 };
        self.ldisc.available() >= wanted
    }

    fn min_time(&self) -> (usize, u64) {
        let settings = self.ldisc.settings();
        (
            settings.char(linux::VMIN).into(),
            u64::from(settings.char(linux::VTIME)) * TENTH,
        )
    }

    /// Asks for input.
    pub fn read(&mut self, read: TtyRead) {
        self.readers.push_back(read);
    }

    /// Answers readers as far as possible, in order. Returns when to look again.
    pub fn serve(&mut self, world: &mut impl World) -> Option<u64> {
        while let Some(read) = self.readers.front().copied() {
            let result = match self.judge(&read, world.now()) {
                Verdict::Wait(deadline) => {
                    self.refuse_others(world);
                    return deadline;
                }
                Verdict::Refuse => Err(Errno::EAGAIN),
                Verdict::Give(max) => self.give(world, &read, max),
            };
            self.readers.pop_front();
            read.asker.done(world, result);
        }
        None
    }

    /// Reads that do not wait do not queue behind one that does.
    fn refuse_others(&mut self, world: &mut impl World) {
        self.readers.retain(|read| {
            if read.nonblock {
                read.asker.done(world, Err(Errno::EAGAIN));
            }
            !read.nonblock
        });
    }

    fn judge(&self, read: &TtyRead, now: u64) -> Verdict {
        let len = usize::try_from(read.len).unwrap_or(usize::MAX);
        if len == 0 {
            return Verdict::Give(0);
        }
        let available = self.ldisc.available();
        if self.ldisc.canonical() {
            return match () {
                () if self.ldisc.has_line() => Verdict::Give(len),
                () if self.hung_up => Verdict::Give(0),
                () if read.nonblock => Verdict::Refuse,
                () => Verdict::Wait(None),
            };
        }
        let (min, time) = self.min_time();
        let enough = available > 0 && available >= min.min(len);
        if enough || self.hung_up || (min == 0 && time == 0) {
            return Verdict::Give(len);
        }
        if read.nonblock {
            return if available > 0 {
                Verdict::Give(len)
            } else {
                Verdict::Refuse
            };
        }
        // VMIN 0: the time runs from the read. Otherwise from the last byte, once there is one.
        let start = match min {
            0 => Some(read.since),
            _ if available > 0 => Some(self.last_input.max(read.since)),
            _ => None,
        };
        match start
            .filter(|_| time > 0)
            .map(|start| start.saturating_add(time))
        {
            Some(deadline) if deadline <= now => Verdict::Give(len),
            deadline => Verdict::Wait(deadline),
        }
    }

    /// Copies input out; nothing is consumed when the copy fails.
    fn give(&mut self, world: &mut impl World, read: &TtyRead, max: usize) -> Result<u64, Errno> {
        if max == 0 {
            return Ok(0);
        }
        let taken = self.ldisc.peek(max);
        if !taken.bytes.is_empty() {
            world.store(read.asker.source(), read.grant, &taken.bytes)?;
        }
        self.ldisc.consume(taken.cells);
        Ok(taken.bytes.len() as u64)
    }

    /// Withdraws a waiting read, if it is one.
    pub fn cancel(&mut self, cancelled: Cancelled) -> Option<Asker> {
        let read = cancelled.take(&mut self.readers, |read| read.asker)?;
        Some(read.asker)
    }
}
