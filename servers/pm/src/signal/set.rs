//! Sets of signals, as Linux's 64-bit masks.

use linux_raw_sys::general as linux;

/// Highest signal number.
pub const SIGNALS: i32 = 64;

/// A set of signals: signal `n` is bit `n - 1`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SigSet(pub u64);

macro_rules! numbers {
    ($($name:ident)*) => {$(
        #[doc = concat!("Linux's `", stringify!($name), "`.")]
        pub const $name: i32 = linux::$name as i32;
    )*};
}
numbers! {
    SIGHUP SIGINT SIGQUIT SIGILL SIGTRAP SIGABRT SIGBUS SIGFPE SIGKILL SIGUSR1 SIGSEGV SIGUSR2
    SIGPIPE SIGALRM SIGTERM SIGCHLD SIGCONT SIGSTOP SIGTSTP SIGTTIN SIGTTOU SIGURG SIGXCPU
    SIGVTALRM SIGPROF SIGWINCH SIGSYS SIGRTMIN
}

/// Stop by default.
pub const STOPS: SigSet = SigSet::of(&[SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU]);
/// Ignored by default.
pub const HARMLESS: SigSet = SigSet::of(&[SIGCHLD, SIGCONT, SIGURG, SIGWINCH]);
/// Cannot be caught, blocked or ignored.
pub const SOVEREIGN: SigSet = SigSet::of(&[SIGKILL, SIGSTOP]);
/// Raised by the instruction that the thread is at, so they go first.
pub const SYNCHRONOUS: SigSet = SigSet::of(&[SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE, SIGSYS]);

/// Whether a number names a signal.
pub fn is_signal(signal: i32) -> bool {
    (1..=SIGNALS).contains(&signal)
}

impl SigSet {
    /// No signal.
    pub const EMPTY: SigSet = SigSet(0);

    /// These signals.
    pub const fn of(signals: &[i32]) -> SigSet {
        let mut bits = 0;
        let mut i = 0;
        while i < signals.len() {
            bits |= 1 << (signals[i] - 1);
            i += 1;
        }
        SigSet(bits)
    }

    /// Whether `signal` is in it. Numbers that are no signals are in no set.
    pub fn has(self, signal: i32) -> bool {
        is_signal(signal) && self.0 & (1 << (signal - 1)) != 0
    }

    /// With `signal`.
    pub fn with(self, signal: i32) -> SigSet {
        if is_signal(signal) {
            SigSet(self.0 | 1 << (signal - 1))
        } else {
            self
        }
    }

    /// All of both.
    pub fn union(self, other: SigSet) -> SigSet {
        SigSet(self.0 | other.0)
    }

    /// Without the signals of `other`.
    pub fn minus(self, other: SigSet) -> SigSet {
        SigSet(self.0 & !other.0)
    }

    /// What is in both.
    pub fn and(self, other: SigSet) -> SigSet {
        SigSet(self.0 & other.0)
    }

    /// Whether it has none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The signal to deliver first: synchronous ones, then by number.
    pub fn first(self) -> Option<i32> {
        let urgent = self.and(SYNCHRONOUS);
        let from = if urgent.is_empty() { self } else { urgent };
        (from.0 != 0).then(|| from.0.trailing_zeros() as i32 + 1)
    }
}
