//! What a process does about each signal.

use super::set::{HARMLESS, SIGCHLD, SIGNALS, STOPS, SigSet, is_signal};
use linux_raw_sys::general as linux;

/// `sa_flags` bits.
pub mod flags {
    #![allow(missing_docs)]
    use super::linux;
    pub const NOCLDSTOP: u64 = linux::SA_NOCLDSTOP as u64;
    pub const NOCLDWAIT: u64 = linux::SA_NOCLDWAIT as u64;
    pub const SIGINFO: u64 = linux::SA_SIGINFO as u64;
    pub const ONSTACK: u64 = linux::SA_ONSTACK as u64;
    pub const RESTART: u64 = linux::SA_RESTART as u64;
    pub const NODEFER: u64 = linux::SA_NODEFER as u64;
    pub const RESETHAND: u64 = linux::SA_RESETHAND as u64;
    pub const RESTORER: u64 = linux::SA_RESTORER as u64;
    /// All that Linux knows; others read back as 0, which is how programs probe.
    pub const KNOWN: u64 = NOCLDSTOP
        | NOCLDWAIT
        | SIGINFO
        | ONSTACK
        | RESTART
        | NODEFER
        | RESETHAND
        | RESTORER
        | 0x800;
}

const SIG_DFL: u64 = 0;
const SIG_IGN: u64 = 1;

/// The kernel's struct sigaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Action {
    /// Handler address, or 0 (default) or 1 (ignore).
    pub handler: u64,
    /// [`flags`].
    pub flags: u64,
    /// Where the handler returns to.
    pub restorer: u64,
    /// Blocked while the handler runs.
    pub mask: SigSet,
}

impl Action {
    /// From the four words of the user's structure.
    pub fn from_words([handler, flags, restorer, mask]: [u64; 4]) -> Action {
        Action {
            handler,
            flags: flags & flags::KNOWN,
            restorer,
            mask: SigSet(mask).minus(super::set::SOVEREIGN),
        }
    }

    /// The four words.
    pub fn to_words(self) -> [u64; 4] {
        [self.handler, self.flags, self.restorer, self.mask.0]
    }

    /// Whether a flag is set.
    pub fn has(&self, flag: u64) -> bool {
        self.flags & flag != 0
    }
}

/// What a signal leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Nothing.
    Ignore,
    /// The process ends.
    Terminate,
    /// The process stops.
    Stop,
    /// A handler runs.
    Handle(Action),
}

/// The dispositions of a process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Actions([Action; SIGNALS as usize]);

impl Default for Actions {
    fn default() -> Self {
        Actions([Action::default(); SIGNALS as usize])
    }
}

impl Actions {
    /// The disposition of `signal`.
    pub fn get(&self, signal: i32) -> Action {
        if is_signal(signal) {
            self.0[signal as usize - 1]
        } else {
            Action::default()
        }
    }

    /// Replaces it.
    pub fn set(&mut self, signal: i32, action: Action) {
        if is_signal(signal) {
            self.0[signal as usize - 1] = action;
        }
    }

    /// What `signal` leads to.
    pub fn effect(&self, signal: i32) -> Effect {
        let action = self.get(signal);
        match action.handler {
            SIG_IGN => Effect::Ignore,
            SIG_DFL if HARMLESS.has(signal) => Effect::Ignore,
            SIG_DFL if STOPS.has(signal) => Effect::Stop,
            SIG_DFL => Effect::Terminate,
            _ => Effect::Handle(action),
        }
    }

    /// Whether children that end leave no zombie.
    pub fn reaps_children(&self) -> bool {
        let action = self.get(SIGCHLD);
        action.handler == SIG_IGN || action.has(flags::NOCLDWAIT)
    }

    /// exec: handlers are gone, ignored stays ignored.
    pub fn reset_handlers(&mut self) {
        for action in &mut self.0 {
            let handler = if action.handler == SIG_IGN {
                SIG_IGN
            } else {
                SIG_DFL
            };
            *action = Action {
                handler,
                ..Action::default()
            };
        }
    }

    fn select(&self, wanted: impl Fn(&Action) -> bool) -> SigSet {
        let mut set = SigSet::EMPTY;
        for (index, action) in self.0.iter().enumerate() {
            if wanted(action) {
                set = set.with(index as i32 + 1);
            }
        }
        set
    }

    /// Signals set to "ignore".
    pub fn ignored(&self) -> SigSet {
        self.select(|action| action.handler == SIG_IGN)
    }

    /// Signals with a handler.
    pub fn caught(&self) -> SigSet {
        self.select(|action| action.handler > SIG_IGN)
    }

    /// Signals that are dropped when they are raised unblocked.
    pub fn dropped(&self) -> SigSet {
        let default_harmless = self
            .select(|action| action.handler == SIG_DFL)
            .and(HARMLESS);
        self.ignored().union(default_harmless)
    }
}
