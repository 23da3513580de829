//! All pseudo-terminals, by number, and how requests name them.

use crate::ioctl::IoctlCall;
use crate::pty::{End, Pty, Transfer};
use crate::world::{Cancelled, Job, World};
use abi::Errno;
use abi::grant::{ToRead, ToWrite};
use abi::proto::device::numbers::{
    PTMX_MINOR, PTS_MAJOR, PTY_MASTER, PTY_MAX, PTY_SLAVE, TTY_MAJOR,
};
use abi::proto::terminal::PtyFigures;
use alloc::collections::BTreeMap;
use rt::charge::{Account, Charge, Limits, Payer};

/// What /dev/pts says of a slave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Label {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
    /// When it was made or labelled anew, ns since boot.
    pub changed: u64,
}

/// The group of terminals in every distribution.
const TTY_GROUP: u32 = 5;

/// Bytes that one takes with all its buffers full: what its line holds, in cells of 4 bytes
/// in a ring of a power of two, either direction's bytes and the echo.
const COST: u64 = 48 << 10;

struct Entry {
    pty: Pty,
    label: Label,
    _charge: Charge,
}

/// Pseudo-terminals.
pub struct Ptys {
    all: BTreeMap<u32, Entry>,
    account: Account,
    /// Ns since boot, for labels.
    pub now: u64,
}

/// What a minor in a request names.
pub fn named(minor: u32) -> Option<(u32, End)> {
    let number = |first: u32| minor.checked_sub(first).filter(|&n| n < PTY_MAX);
    match number(PTY_SLAVE) {
        Some(number) => Some((number, End::Slave)),
        None => number(PTY_MASTER).map(|number| (number, End::Master)),
    }
}

/// The minor that names an end in requests.
pub fn minor(number: u32, end: End) -> u32 {
    match end {
        End::Master => PTY_MASTER + number,
        End::Slave => PTY_SLAVE + number,
    }
}

impl Ptys {
    /// None. As many as fit into an eighth of `memory` bytes can be made.
    pub fn new(memory: u64) -> Ptys {
        let most = (memory / 8 / COST).clamp(8, PTY_MAX.into());
        Ptys {
            all: BTreeMap::new(),
            account: Account::new(Limits::shared(most)),
            now: 0,
        }
    }

    /// How many there are and may be (/proc/sys/kernel/pty).
    pub fn figures(&self) -> PtyFigures {
        let limits = self.account.limits();
        PtyFigures {
            count: self.account.used(),
            most: limits.machine,
            reserve: limits.reserve,
        }
    }

    /// Sets how many there may be; those beyond it stay. `EINVAL`.
    pub fn set_most(&mut self, most: u64) -> Result<(), Errno> {
        if most > PTY_MAX.into() {
            return Err(Errno::EINVAL);
        }
        self.account.set_limits(Limits::shared(most));
        Ok(())
    }

    /// A new one, for /dev/ptmx; its number. `ENOSPC`.
    pub fn create(&mut self, owner: u32) -> Result<u32, Errno> {
        let payer = Payer {
            user: owner,
            privileged: owner == 0,
        };
        let charge = self.account.charge(payer, 1).ok_or(Errno::ENOSPC)?;
        let free = (0..PTY_MAX).find(|number| !self.all.contains_key(number));
        let number = free.ok_or(Errno::ENOSPC)?;
        let label = Label {
            uid: owner,
            gid: TTY_GROUP,
            mode: 0o620,
            changed: self.now,
        };
        let pty = Pty::default();
        let entry = Entry {
            pty,
            label,
            _charge: charge,
        };
        self.all.insert(number, entry);
        Ok(number)
    }

    /// One by its number. `EIO` when it is gone.
    pub fn get(&mut self, number: u32) -> Result<&mut Pty, Errno> {
        let entry = self.all.get_mut(&number).ok_or(Errno::EIO)?;
        Ok(&mut entry.pty)
    }

    /// The number of the one that controls a session.
    pub fn of_session(&self, session: u32) -> Option<u32> {
        let job = Job { session, group: 0 };
        let mut all = self.all.iter();
        let found = all.find(|(_, entry)| entry.pty.tty.controls(job));
        found.map(|(&number, _)| number)
    }

    /// The numbers from `from` on that are in /dev/pts.
    pub fn listed(&self, from: u32) -> impl Iterator<Item = u32> {
        let range = self.all.range(from..);
        let named = range.filter(|(_, entry)| entry.pty.has_master());
        named.map(|(&number, _)| number)
    }

    /// What /dev/pts says of one. `ENOENT`.
    pub fn label(&mut self, number: u32) -> Result<&mut Label, Errno> {
        let entry = self.all.get_mut(&number);
        let entry = entry.filter(|entry| entry.pty.has_master());
        entry.map(|entry| &mut entry.label).ok_or(Errno::ENOENT)
    }

    /// An opening is closed.
    pub fn close(&mut self, world: &mut impl World, number: u32, end: End) {
        if let Ok(pty) = self.get(number) {
            pty.close(world, end);
            // Whoever waits still has its answer coming, and has it open.
            if pty.is_unused() {
                self.all.remove(&number);
            }
        }
    }

    /// read(2).
    pub fn read(
        &mut self,
        world: &mut impl World,
        (number, end): (u32, End),
        transfer: Transfer<ToWrite>,
    ) {
        match self.get(number) {
            Ok(pty) => pty.read(world, end, transfer),
            Err(errno) => transfer.asker.done(world, Err(errno)),
        }
    }

    /// write(2).
    pub fn write(
        &mut self,
        world: &mut impl World,
        (number, end): (u32, End),
        transfer: Transfer<ToRead>,
    ) {
        match self.get(number) {
            Ok(pty) => pty.write(world, end, transfer),
            Err(errno) => transfer.asker.done(world, Err(errno)),
        }
    }

    /// ioctl(2).
    pub fn ioctl(
        &mut self,
        world: &mut impl World,
        (number, end): (u32, End),
        call: &IoctlCall,
        has_terminal: bool,
    ) -> Result<u64, Errno> {
        self.get(number)?
            .ioctl(world, number, end, call, has_terminal)
    }

    /// The leader of a session ended.
    pub fn end_session(&mut self, world: &mut impl World, session: u32) {
        if let Some(number) = self.of_session(session)
            && let Ok(pty) = self.get(number)
        {
            let hang_up = linux_raw_sys::general::SIGHUP;
            pty.tty.disconnect(world, &[hang_up]);
        }
    }

    /// Carries everything as far as it goes. Returns when to look again.
    pub fn serve(&mut self, world: &mut impl World) -> Option<u64> {
        let all = self.all.values_mut();
        all.filter_map(|entry| entry.pty.serve(world)).min()
    }

    /// Tells VFS what it wanted to hear.
    pub fn tell_ready(&mut self, world: &mut impl World) {
        for (&number, entry) in &mut self.all {
            for (end, major) in [(End::Master, TTY_MAJOR), (End::Slave, PTS_MAJOR)] {
                let news = entry.pty.news(end);
                if news != 0 {
                    world.ready(major, minor(number, end), news);
                }
            }
        }
    }

    /// Ends a request that waits; whether there was one.
    pub fn cancel(&mut self, world: &mut impl World, cancelled: Cancelled) -> bool {
        let mut all = self.all.values_mut();
        all.any(|entry| entry.pty.cancel(world, cancelled))
    }
}

/// Whether (major, minor) is /dev/ptmx.
pub fn is_ptmx(major: u32, minor: u32) -> bool {
    (major, minor) == (TTY_MAJOR, PTMX_MINOR)
}
