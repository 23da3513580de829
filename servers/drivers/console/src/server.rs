//! Requests in, answers out: puts terminal, streams and output together.

use crate::devpts::{self, DevPts};
use crate::incoming::{Decoder, Event};
use crate::ioctl::{Circumstances, IoctlCall};
use crate::outgoing::{Job, Outgoing, PIECE, Target, Writing};
use crate::pty::{End, Transfer};
use crate::ptys::{self, Ptys};
use crate::stream::{Stream, StreamRead};
use crate::tty::{FIRST_GROUP, Tty, TtyRead, Window};
use crate::world::{Asker, Cancelled, Port, World};
use abi::boot::{RunHeader, run_flags};
use abi::hostlink::{Channel, STDIN_CREDIT};
use abi::message::{Answer, Handled};
use abi::proto::device::numbers::{
    ABSENT_MINOR, CONSOLE_MINOR, PTS_MAJOR, STDERR_MINOR, STDIN_MINOR, STDOUT_MINOR, STREAM_MAJOR,
    TTY_MAJOR, TTY_MINOR,
};
use abi::proto::terminal::Terminal;
use abi::proto::{device, terminal};
use abi::{Class, Endpoint, Errno, Message};
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

/// The driver while it serves a request.
struct Console<'a, W> {
    server: &'a mut Server,
    world: &'a mut W,
}

impl<W> abi::message::Server for Console<'_, W> {}

abi::serve! { [W: World] Console<'_, W>;
    device::Read => |on, from, r| {
        on.server.read(on.world, Asker::Moves(from), &r);
        Answer::Later
    };
    device::Write => |on, from, r| {
        on.server.write(on.world, Asker::Moves(from), &r);
        Answer::Later
    };
    device::Ioctl => |on, from, r| {
        on.server.ioctl(on.world, Asker::Controls(from), &r);
        Answer::Later
    };
    device::Poll => |on, _, r| {
        on.server.poll(r.minor, r.events).map(|events| device::Events { events })
    };
    device::Open => |on, _, r| on.server.open(&r).map(|minor| device::Opened { minor });
    device::Close => |on, _, r| {
        if let Some((number, end)) = ptys::named(r.minor) {
            on.server.ptys.close(on.world, number, end);
        }
    };
    device::Cancel => |on, source, r| {
        let txn = r.target;
        on.server.cancel(on.world, Cancelled { source, txn });
    };
    terminal::ExitStatus => |on, caller, r| {
        let status = r.status;
        on.server.outgoing.add(Job::Exit { caller, status });
        Answer::Later
    };
    terminal::SessionEnded => |on, _, r| on.server.end_session(on.world, r.session);
    terminal::TerminalOf => |on, _, r| on.server.terminal_of(r.session);
    terminal::PtyLimits => |on, _, _| Ok(on.server.ptys.figures());
    terminal::SetPtyMax => |on, _, r| on.server.ptys.set_most(r.most);
}

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

    /// A request of [`device`] or [`terminal`].
    pub fn serve(
        &mut self,
        world: &mut impl World,
        source: Endpoint,
        class: Class,
        message: &Message,
    ) -> Handled {
        self.ptys.now = world.now();
        let console = &mut Console {
            server: self,
            world,
        };
        match abi::proto::base(message.kind) {
            terminal::BASE => terminal::serve(console, source, class, message),
            _ => device::serve(console, source, class, message),
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
    fn open(&mut self, open: &device::Open) -> Result<u32, Errno> {
        let &device::Open { major, minor, .. } = open;
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

    fn read(&mut self, world: &mut impl World, asker: Asker, read: &device::Read) {
        let &device::Read {
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
            return self.ptys.read(world, name, transfer);
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

    fn write(&mut self, world: &mut impl World, asker: Asker, write: &device::Write) {
        if let Some(name) = ptys::named(write.minor) {
            let transfer = Transfer {
                asker,
                grant: write.grant,
                len: write.len,
                nonblock: write.nonblock,
                job: write.job.into(),
            };
            return self.ptys.write(world, name, transfer);
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

    fn ioctl(&mut self, world: &mut impl World, asker: Asker, ioctl: &device::Ioctl) {
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

    fn poll(&mut self, minor: u32, events: u32) -> Result<u32, Errno> {
        if let Some((number, end)) = ptys::named(minor) {
            return Ok(self.ptys.get(number)?.poll(end, events));
        }
        let ready = self.ready(Device::of(minor)?) & events;
        if let Some(i) = MINORS.iter().position(|m| m.1 == minor)
            && ready == 0
        {
            self.watched[i] |= events;
        }
        Ok(ready)
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

    fn cancel(&mut self, world: &mut impl World, cancelled: Cancelled) {
        let read = self.tty.cancel(cancelled);
        if let Some(asker) = read.or_else(|| self.stdin.cancel(cancelled)) {
            asker.done(world, Err(Errno::EINTR));
        } else if !self.ptys.cancel(world, cancelled) {
            self.outgoing.cancel(world, cancelled);
        }
    }
}
