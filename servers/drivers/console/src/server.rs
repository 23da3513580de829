//! Requests in, answers out: puts terminal, streams and output together.

use crate::devpts::{self, DevPts};
use crate::incoming::{Decoder, Event};
use crate::ioctl::{Circumstances, IoctlCall};
use crate::outgoing::{Job, Outgoing, PIECE, Target, Writing};
use crate::pty::{End, Transfer};
use crate::ptys::{self, Ptys};
use crate::stream::{Stream, StreamRead};
use crate::tty::{FIRST_GROUP, Tty, TtyRead, Window};
use crate::world::{Asker, Port, World};
use abi::boot::{RunHeader, run_flags};
use abi::hostlink::{Channel, STDIN_CREDIT};
use abi::message::reply_message;
use abi::proto::device::numbers::{
    ABSENT_MINOR, CONSOLE_MINOR, PTS_MAJOR, STDERR_MINOR, STDIN_MINOR, STDOUT_MINOR, STREAM_MAJOR,
    TTY_MAJOR, TTY_MINOR,
};
use abi::proto::device::{
    Cancel, Close, ExitStatus, Ioctl, Open, Poll, PtyLimits, Read, SessionEnded, SetPtyMax,
    Terminal, TerminalOf, Write,
};
use abi::{Endpoint, Errno, Message, Request};
use linux_raw_sys::general as linux;

/// Credit is given back in packets of at least this much, or when all input is consumed.
const CREDIT_STEP: usize = STDIN_CREDIT / 4;

/// What a minor is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Device {
    Tty,
    Stdin,
    Output(Channel),
}

impl Device {
    fn of(minor: u32) -> Result<Device, Errno> {
        Ok(match minor {
            CONSOLE_MINOR => Device::Tty,
            STDIN_MINOR => Device::Stdin,
            STDOUT_MINOR => Device::Output(Channel::Stdout),
            STDERR_MINOR => Device::Output(Channel::Stderr),
            ABSENT_MINOR => Device::Output(Channel::Absent),
            _ => return Err(Errno::ENXIO),
        })
    }
}

const MINORS: [(u32, u32); 4] = [
    (TTY_MAJOR, CONSOLE_MINOR),
    (STREAM_MAJOR, STDIN_MINOR),
    (STREAM_MAJOR, STDOUT_MINOR),
    (STREAM_MAJOR, STDERR_MINOR),
];

/// The driver's state.
pub struct Server {
    tty: Tty,
    ptys: Ptys,
    /// Ns of the wall clock at boot.
    epoch_ns: u64,
    stdin: Stream,
    outgoing: Outgoing,
    decoder: Decoder,
    stdin_is_tty: bool,
    /// Input that the host has no credit for yet.
    owed: usize,
    /// Events of each of [`MINORS`] that VFS wants to hear of, once.
    watched: [u32; MINORS.len()],
    /// What the timer was last set to.
    timer: u64,
}

impl Server {
    /// A driver for a run that starts like this, on a machine with `memory` bytes.
    pub fn new(run: &RunHeader, memory: u64) -> Server {
        let has = |flag| run.flags & flag != 0;
        let stdin_is_tty = has(run_flags::STDIN_TTY);
        let tty_channel = if has(run_flags::STDOUT_TTY) {
            Some(Channel::Stdout)
        } else if has(run_flags::STDERR_TTY) {
            Some(Channel::Stderr)
        } else if stdin_is_tty {
            // No way to the terminal, and no business in the files.
            None
        } else {
            Some(Channel::Stdout)
        };
        let mut tty = Tty::default();
        (tty.window.rows, tty.window.columns) = (run.window as u16, (run.window >> 16) as u16);
        let mut stdin = Stream::default();
        if stdin_is_tty || has(run_flags::DETERMINISTIC) {
            stdin.end();
        }
        if !stdin_is_tty || has(run_flags::DETERMINISTIC) {
            tty.hung_up = true;
        }
        if stdin_is_tty || has(run_flags::STDOUT_TTY) || has(run_flags::STDERR_TTY) {
            tty.connect((FIRST_GROUP, FIRST_GROUP).into());
        }
        Server {
            tty,
            ptys: Ptys::new(memory),
            epoch_ns: run.epoch_ns,
            stdin,
            outgoing: Outgoing::new(tty_channel),
            decoder: Decoder::default(),
            stdin_is_tty,
            owed: 0,
            watched: [0; MINORS.len()],
            timer: 0,
        }
    }

    /// A posted request of VFS. What cannot be decoded is ignored: nobody knows its number.
    pub fn post(&mut self, world: &mut impl World, source: Endpoint, message: &Message) {
        let asker = |txn| Asker { source, txn };
        match message.kind {
            Read::KIND => {
                if let Some(read) = Read::decode(message) {
                    self.read(world, asker(read.txn), &read);
                }
            }
            Write::KIND => {
                if let Some(write) = Write::decode(message) {
                    self.write(world, asker(write.txn), &write);
                }
            }
            Ioctl::KIND => {
                if let Some(ioctl) = Ioctl::decode(message) {
                    self.ioctl(world, asker(ioctl.txn), &ioctl);
                }
            }
            Poll::KIND => {
                if let Some(Poll { txn, minor, events }) = Poll::decode(message) {
                    let result = self.poll(minor, events);
                    asker(txn).done(world, result);
                }
            }
            Open::KIND => {
                if let Some(open) = Open::decode(message) {
                    self.ptys.now = world.now();
                    let result = self.open(&open);
                    asker(open.txn).done(world, result.map(u64::from));
                }
            }
            Close::KIND => {
                if let Some(Close { minor }) = Close::decode(message)
                    && let Some((number, end)) = ptys::named(minor)
                {
                    self.ptys.close(world, number, end);
                }
            }
            SessionEnded::KIND => {
                if let Some(SessionEnded { session }) = SessionEnded::decode(message) {
                    self.end_session(world, session);
                }
            }
            Cancel::KIND => {
                if let Some(Cancel { target }) = Cancel::decode(message) {
                    self.cancel(world, asker(target));
                }
            }
            _ => {}
        }
    }

    /// A call. It is answered later; what is not known is refused at once.
    pub fn call(&mut self, world: &mut impl World, caller: Endpoint, message: &Message) {
        match message.kind {
            ExitStatus::KIND if let Some(exit) = ExitStatus::decode(message) => {
                let status = exit.status;
                self.outgoing.add(Job::Exit { caller, status });
            }
            TerminalOf::KIND if let Some(of) = TerminalOf::decode(message) => {
                world.reply(caller, reply_message(self.terminal_of(of.session)));
            }
            PtyLimits::KIND => world.reply(caller, reply_message(Ok(self.ptys.figures()))),
            // Programs call no driver: only services do.
            SetPtyMax::KIND if let Some(set) = SetPtyMax::decode(message) => {
                world.reply(caller, reply_message(self.ptys.set_most(set.most)));
            }
            _ => world.reply(caller, Message::error(Errno::ENOSYS)),
        }
    }

    /// /dev/pts.
    pub fn devpts(&mut self, world: &impl World) -> DevPts<'_> {
        self.ptys.now = world.now();
        DevPts {
            ptys: &mut self.ptys,
            epoch_ns: self.epoch_ns,
        }
    }

    /// Opens a terminal; the minor that names it from now on.
    fn open(&mut self, open: &Open) -> Result<u32, Errno> {
        let &Open { major, minor, .. } = open;
        if ptys::is_ptmx(major, minor) {
            let number = self.ptys.create(open.ids.0)?;
            return Ok(ptys::minor(number, End::Master));
        }
        let minor = match (major, minor) {
            (PTS_MAJOR, number) => ptys::minor(number, End::Slave),
            (_, TTY_MINOR) => self.controlling(open.job.0)?,
            (_, minor) => minor,
        };
        let Some((number, end)) = ptys::named(minor) else {
            return Device::of(minor).map(|_| minor);
        };
        let leads = open.job.0 == open.pid;
        let wants = open.flags & linux::O_NOCTTY == 0 && end == End::Slave;
        let connects = leads && wants && self.controlling(open.job.0).is_err();
        let pty = self.ptys.get(number).map_err(|_| Errno::ENXIO)?;
        pty.open(end)?;
        if connects && pty.tty.session == 0 {
            pty.tty.connect(open.job.into());
        }
        Ok(minor)
    }

    /// The minor of the terminal that controls a session.
    fn controlling(&self, session: u32) -> Result<u32, Errno> {
        if session != 0 && self.tty.session == session {
            return Ok(CONSOLE_MINOR);
        }
        let number = self.ptys.of_session(session).ok_or(Errno::ENXIO)?;
        Ok(ptys::minor(number, End::Slave))
    }

    fn terminal_of(&mut self, session: u32) -> Result<Terminal, Errno> {
        let minor = self.controlling(session)?;
        let (device, group) = match ptys::named(minor) {
            Some((number, _)) => {
                let group = self.ptys.get(number)?.tty.group;
                (devpts::slave_device(number), group)
            }
            None => ((TTY_MAJOR << 8 | minor).into(), self.tty.group),
        };
        Ok(Terminal { device, group })
    }

    fn end_session(&mut self, world: &mut impl World, session: u32) {
        if self.tty.controls((session, 0).into()) {
            self.tty.disconnect(world, &[linux::SIGHUP]);
        }
        self.ptys.end_session(world, session);
    }

    /// Bytes from the host.
    pub fn receive(&mut self, world: &mut impl World, bytes: &[u8]) {
        let Server {
            tty,
            stdin,
            decoder,
            stdin_is_tty,
            owed,
            ..
        } = self;
        decoder.feed(bytes, |event| match event {
            Event::Input(data) if *stdin_is_tty => {
                if data.is_empty() {
                    tty.hung_up = true;
                }
                tty.push(world, data);
                *owed += data.len();
            }
            Event::Input(data) => {
                if data.is_empty() {
                    stdin.end();
                }
                stdin.push(data);
            }
            Event::Window(rows, columns) => {
                tty.resize(
                    world,
                    Window {
                        rows,
                        columns,
                        ..Window::default()
                    },
                );
            }
            Event::End => world.end_run(),
            Event::Malformed => {
                tty.hung_up = true;
                stdin.end();
            }
        });
    }

    /// Carries everything as far as it goes. Call it after each event.
    pub fn run(&mut self, world: &mut impl World, port: &mut impl Port) {
        loop {
            let deadlines = [self.tty.serve(world), self.ptys.serve(world)];
            self.owed += self.stdin.serve(world);
            let deadline = deadlines.into_iter().flatten().min();
            self.set_timer(world, deadline.unwrap_or(0));
            self.give_credit();
            let echo = self.tty.ldisc.take_echo();
            self.outgoing.echo(echo);
            let Some(call) = self.outgoing.pump(world, port, &mut self.tty.ldisc) else {
                break;
            };
            let result = self.console_ioctl(world, &call);
            call.asker.done(world, result);
        }
        self.tell_ready(world);
        self.ptys.tell_ready(world);
    }

    fn set_timer(&mut self, world: &mut impl World, deadline: u64) {
        if self.timer != deadline {
            self.timer = deadline;
            world.set_timer(deadline);
        }
    }

    /// The timer expired.
    pub fn tick(&mut self) {
        self.timer = 0;
    }

    /// Lets the host send more input: as much as was consumed. A terminal consumes input as
    /// it comes (^C must get through) until a whole credit's worth is unread.
    fn give_credit(&mut self) {
        let unread = match self.stdin_is_tty {
            true => self.tty.ldisc.held(),
            false => self.stdin.available(),
        };
        let full = self.stdin_is_tty && unread >= STDIN_CREDIT;
        if self.owed > 0 && !full && (self.owed >= CREDIT_STEP || unread == 0) {
            let credit = (self.owed as u32).to_le_bytes();
            self.outgoing.stage(Channel::StdinCredit, credit.to_vec());
            self.owed = 0;
        }
    }

    fn read(&mut self, world: &mut impl World, asker: Asker, read: &Read) {
        let &Read {
            minor,
            grant,
            len,
            nonblock,
            job,
            ..
        } = read;
        if let Some(name) = ptys::named(minor) {
            let transfer = Transfer {
                asker,
                grant,
                len,
                nonblock,
                job: job.into(),
            };
            return self.ptys.transfer(world, name, transfer, false);
        }
        match Device::of(minor) {
            Ok(Device::Tty) => {
                if let Err(errno) = self.tty.check_foreground(job.into()) {
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
            Ok(Device::Stdin) => self
                .stdin
                .read(world, StreamRead { asker, grant, len }, nonblock),
            Ok(Device::Output(_)) => asker.done(world, Err(Errno::EBADF)),
            Err(errno) => asker.done(world, Err(errno)),
        }
    }

    fn write(&mut self, world: &mut impl World, asker: Asker, write: &Write) {
        if let Some(name) = ptys::named(write.minor) {
            let transfer = Transfer {
                asker,
                grant: write.grant,
                len: write.len,
                nonblock: write.nonblock,
                job: write.job.into(),
            };
            return self.ptys.transfer(world, name, transfer, true);
        }
        let target = match Device::of(write.minor) {
            Ok(Device::Tty) => Target::Tty,
            Ok(Device::Output(channel)) => Target::Stream(channel),
            Ok(Device::Stdin) => return asker.done(world, Err(Errno::EBADF)),
            Err(errno) => return asker.done(world, Err(errno)),
        };
        if target == Target::Tty
            && let Err(errno) = self.tty.check_output(write.job.into())
        {
            return asker.done(world, Err(errno));
        }
        let mut len = write.len;
        if write.nonblock {
            if !self.writable(target) {
                return asker.done(world, Err(Errno::EAGAIN));
            }
            len = len.min(PIECE as u64);
        }
        let grant = write.grant;
        self.outgoing.add(Job::Write(Writing {
            asker,
            grant,
            len,
            offset: 0,
            target,
        }));
    }

    fn writable(&self, target: Target) -> bool {
        self.outgoing.idle() && !(target == Target::Tty && self.tty.ldisc.stopped())
    }

    fn ioctl(&mut self, world: &mut impl World, asker: Asker, ioctl: &Ioctl) {
        let call = IoctlCall {
            asker,
            request: ioctl.request as u32,
            grant: ioctl.grant,
            value: ioctl.value,
            pid: ioctl.pid,
            job: ioctl.job.into(),
        };
        if let Some(name) = ptys::named(ioctl.minor) {
            let has_terminal = self.controlling(call.job.session).is_ok();
            let result = self.ptys.ioctl(world, name, &call, has_terminal);
            return asker.done(world, result);
        }
        let result = match Device::of(ioctl.minor) {
            Ok(Device::Tty) if call.waits_for_output() => {
                return self.outgoing.add(Job::Ioctl(call));
            }
            Ok(Device::Tty) => self.console_ioctl(world, &call),
            Ok(Device::Stdin) => call.on_stream(world, self.stdin.available()),
            Ok(Device::Output(_)) => call.on_stream(world, 0),
            Err(errno) => Err(errno),
        };
        asker.done(world, result);
    }

    fn console_ioctl(&mut self, world: &mut impl World, call: &IoctlCall) -> Result<u64, Errno> {
        let around = Circumstances {
            queued: self.outgoing.staged(),
            has_terminal: self.controlling(call.job.session).is_ok(),
            master: false,
        };
        call.on_tty(world, &mut self.tty, around)
    }

    fn poll(&mut self, minor: u32, events: u32) -> Result<u64, Errno> {
        if let Some((number, end)) = ptys::named(minor) {
            return Ok(self.ptys.get(number)?.poll(end, events).into());
        }
        let ready = self.ready(Device::of(minor)?) & events;
        if let Some(i) = MINORS.iter().position(|m| m.1 == minor)
            && ready == 0
        {
            self.watched[i] |= events;
        }
        Ok(ready.into())
    }

    fn ready(&self, device: Device) -> u32 {
        let (readable, target) = match device {
            Device::Tty => (self.tty.readable(), Some(Target::Tty)),
            Device::Stdin => (self.stdin.readable(), None),
            Device::Output(channel) => (false, Some(Target::Stream(channel))),
        };
        let mut ready = 0;
        if readable {
            ready |= linux::POLLIN | linux::POLLRDNORM;
        }
        if target.is_some_and(|target| self.writable(target)) {
            ready |= linux::POLLOUT | linux::POLLWRNORM;
        }
        ready
    }

    fn tell_ready(&mut self, world: &mut impl World) {
        for (i, (major, minor)) in MINORS.into_iter().enumerate() {
            if self.watched[i] == 0 {
                continue;
            }
            let ready = Device::of(minor).map_or(0, |device| self.ready(device));
            let news = ready & self.watched[i];
            if news != 0 {
                self.watched[i] = 0;
                world.ready(major, minor, news);
            }
        }
    }

    fn cancel(&mut self, world: &mut impl World, asker: Asker) {
        if self.tty.cancel(asker) || self.stdin.cancel(asker) {
            asker.done(world, Err(Errno::EINTR));
        } else if !self.ptys.cancel(world, asker) {
            self.outgoing.cancel(world, asker);
        }
    }
}
