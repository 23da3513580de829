//! Terminal ioctls.

use crate::termios::{TERMIOS, TERMIOS2};
use crate::tty::{Tty, Window};
use crate::world::{Asker, Job, World};
use abi::Errno;
use abi::grant::ToEither;
use linux_raw_sys::general as linux;
use linux_raw_sys::ioctl as request;

/// An ioctl as VFS passes it on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IoctlCall {
    /// Whom to answer.
    pub asker: Asker,
    /// Request number.
    pub request: u32,
    /// Argument memory, or -1.
    pub grant: ToEither,
    /// Raw argument.
    pub value: u64,
    /// The process that asks.
    pub pid: u32,
    /// Its session and group.
    pub job: Job,
}

/// What an ioctl has to know beside the terminal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Circumstances {
    /// Bytes of output that are not sent yet.
    pub queued: usize,
    /// The caller's session has a controlling terminal, this or another.
    pub has_terminal: bool,
    /// It asks at the other end of a pseudo-terminal, which is in no background.
    pub master: bool,
}

impl IoctlCall {
    /// Whether output must drain before it is carried out.
    pub fn waits_for_output(&self) -> bool {
        match self.request {
            request::TCSETSW | request::TCSETSF | request::TCSETSW2 | request::TCSETSF2 => true,
            // With 0 these send a break instead, which means nothing here.
            request::TCSBRK => self.value != 0,
            _ => false,
        }
    }

    /// Whether somebody in the background may not do it.
    fn changes(&self) -> bool {
        self.waits_for_output()
            || matches!(
                self.request,
                request::TCSETS
                    | request::TCSETS2
                    | request::TIOCSPGRP
                    | request::TCSBRK
                    | request::TCSBRKP
                    | request::TCFLSH
                    | request::TCXONC
            )
    }

    /// Its argument.
    pub fn fetch<const N: usize>(&self, world: &mut impl World) -> Result<[u8; N], Errno> {
        let mut bytes = [0; N];
        let grant = self.memory()?.to_read();
        world.fetch(self.asker.source(), grant, 0, &mut bytes)?;
        Ok(bytes)
    }

    /// Its result.
    pub fn store(&self, world: &mut impl World, bytes: &[u8]) -> Result<u64, Errno> {
        let grant = self.memory()?.to_write();
        world.store(self.asker.source(), grant, bytes)?;
        Ok(0)
    }

    /// Where its argument is, when that is not a value.
    fn memory(&self) -> Result<ToEither, Errno> {
        let some = self.grant.is_some();
        some.then_some(self.grant).ok_or(Errno::EFAULT)
    }

    /// Its result, an int.
    pub fn store_int(&self, world: &mut impl World, value: usize) -> Result<u64, Errno> {
        self.store(
            world,
            &i32::try_from(value).unwrap_or(i32::MAX).to_le_bytes(),
        )
    }

    /// Carries it out on a stream.
    pub fn on_stream(&self, world: &mut impl World, available: usize) -> Result<u64, Errno> {
        match self.request {
            request::FIONREAD => self.store_int(world, available),
            _ => Err(Errno::ENOTTY),
        }
    }

    /// Carries it out on the terminal.
    pub fn on_tty(
        &self,
        world: &mut impl World,
        tty: &mut Tty,
        around: Circumstances,
    ) -> Result<u64, Errno> {
        if self.changes() && !around.master {
            tty.check_foreground(self.job)?;
        }
        match self.request {
            request::TCGETS => {
                let bytes = tty.ldisc.settings().to_bytes();
                self.store(world, &bytes[..TERMIOS])
            }
            request::TCGETS2 => {
                let bytes = tty.ldisc.settings().to_bytes();
                self.store(world, &bytes)
            }
            request::TCSETS | request::TCSETSW | request::TCSETSF => {
                let bytes = self.fetch::<TERMIOS>(world)?;
                self.set(tty, &bytes)
            }
            request::TCSETS2 | request::TCSETSW2 | request::TCSETSF2 => {
                let bytes = self.fetch::<TERMIOS2>(world)?;
                self.set(tty, &bytes)
            }
            request::TIOCGWINSZ => self.store(world, &tty.window.to_bytes()),
            request::TIOCSWINSZ => {
                let window = Window::from_bytes(self.fetch(world)?);
                tty.resize(world, window);
                Ok(0)
            }
            request::TIOCGPGRP if around.master || tty.controls(self.job) => {
                self.store_int(world, tty.group as usize)
            }
            request::TIOCSPGRP if tty.controls(self.job) => {
                match i32::from_le_bytes(self.fetch(world)?) {
                    group @ 1.. => {
                        tty.group = group as u32;
                        Ok(0)
                    }
                    _ => Err(Errno::EINVAL),
                }
            }
            request::TIOCGSID if tty.controls(self.job) || around.master && tty.session != 0 => {
                self.store_int(world, tty.session as usize)
            }
            request::TIOCSCTTY => self.connect(tty, around),
            request::TIOCNOTTY if tty.controls(self.job) => {
                // Who does not lead the session lets go of it alone, which VFS does.
                if self.job.session == self.pid {
                    tty.disconnect(world, &[linux::SIGHUP, linux::SIGCONT]);
                }
                Ok(0)
            }
            request::FIONREAD => self.store_int(world, tty.ldisc.available()),
            request::TIOCOUTQ => self.store_int(world, around.queued),
            request::TIOCGETD => self.store_int(world, 0),
            request::TCFLSH => match self.value as u32 {
                linux::TCIFLUSH | linux::TCIOFLUSH => {
                    tty.ldisc.flush();
                    Ok(0)
                }
                // Output that a program was told is written is on its way to the host.
                linux::TCOFLUSH => Ok(0),
                _ => Err(Errno::EINVAL),
            },
            request::TCXONC => {
                match self.value as u32 {
                    linux::TCOOFF => tty.ldisc.stop(true),
                    linux::TCOON => tty.ldisc.stop(false),
                    // Input needs no flow control from here: the host link has its own.
                    linux::TCIOFF | linux::TCION => {}
                    _ => return Err(Errno::EINVAL),
                }
                Ok(0)
            }
            // There is nothing to break, and exclusive use is the last opener's business.
            request::TCSBRK | request::TCSBRKP | request::TIOCEXCL | request::TIOCNXCL => Ok(0),
            _ => Err(Errno::ENOTTY),
        }
    }

    /// TIOCSCTTY. Nobody's terminal is stolen.
    fn connect(&self, tty: &mut Tty, around: Circumstances) -> Result<u64, Errno> {
        let leads = self.job.session != 0 && self.job.session == self.pid;
        if leads && tty.controls(self.job) {
            return Ok(0);
        }
        if !leads || around.has_terminal || tty.session != 0 {
            return Err(Errno::EPERM);
        }
        tty.connect(self.job);
        Ok(0)
    }

    fn set(&self, tty: &mut Tty, bytes: &[u8]) -> Result<u64, Errno> {
        if matches!(self.request, request::TCSETSF | request::TCSETSF2) {
            tty.ldisc.flush();
        }
        let settings = tty.ldisc.settings().updated(bytes);
        tty.ldisc.set(settings);
        Ok(0)
    }
}
