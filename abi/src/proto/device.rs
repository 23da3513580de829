//! Requests of VFS to drivers of character and block devices. All *posted*, answered by
//! [`crate::proto::vfs::Done`] when there is something to say. Buffers are magic grants with CPF_TRY: on
//! `EFAULT` the driver has consumed nothing.

use crate::{Endpoint, protocol};

protocol! {
    base = 0x6000;

    /// Done: a = bytes. Waits for data unless `nonblock` (`EAGAIN`).
    #[from(VFS)]
    post Read = 1 {
        /// Transaction.
        txn: u64,
        /// Minor number.
        minor: u32,
        /// The buffer.
        grant: i32,
        /// Its length.
        len: u64,
        /// O_NONBLOCK.
        nonblock: bool,
        /// The caller.
        who: Endpoint,
        /// Its session and process group, for terminals.
        job: (u32, u32),
    };
    /// Done: a = bytes.
    #[from(VFS)]
    post Write = 2 {
        /// Transaction.
        txn: u64,
        /// Minor number.
        minor: u32,
        /// The data.
        grant: i32,
        /// Its length.
        len: u64,
        /// O_NONBLOCK.
        nonblock: bool,
        /// The caller.
        who: Endpoint,
        /// Its session and process group, for terminals.
        job: (u32, u32),
    };
    /// Linux ioctl. `grant` covers the argument (as many bytes as VFS knows the request to
    /// have, from its table; -1 when the argument is a value), `value` is the raw argument.
    /// Done: a = result.
    #[from(VFS)]
    post Ioctl = 3 {
        /// Transaction.
        txn: u64,
        /// Minor number.
        minor: u32,
        /// Request number.
        request: u64,
        /// Argument memory or -1.
        grant: i32,
        /// Raw argument.
        value: u64,
        /// The caller's process id.
        pid: u32,
        /// Its session and process group, for terminals.
        job: (u32, u32),
    };
    /// Done at once: a = which of `events` (POLL*) are ready. If none is, the driver posts
    /// [`crate::proto::vfs::Ready`] once when one becomes so.
    #[from(VFS)]
    post Poll = 4 {
        /// Transaction.
        txn: u64,
        /// Minor number.
        minor: u32,
        /// POLL* bits.
        events: u32,
    };
    /// End the waiting request `target` with `EINTR` (it may have been answered already).
    /// Not answered itself.
    #[from(VFS)]
    post Cancel = 5 {
        /// The request's transaction.
        target: u64,
    };
    /// A block device: done: a = bytes. Ends at the end of the device; any byte may be the
    /// first.
    #[from(VFS)]
    post ReadAt = 7 {
        /// Transaction.
        txn: u64,
        /// Minor number.
        minor: u32,
        /// First byte.
        position: u64,
        /// The buffer.
        grant: i32,
        /// Its length.
        len: u64,
    };
    /// A block device: done: a = bytes, likewise; `EROFS`.
    #[from(VFS)]
    post WriteAt = 8 {
        /// Transaction.
        txn: u64,
        /// Minor number.
        minor: u32,
        /// First byte.
        position: u64,
        /// The data.
        grant: i32,
        /// Its length.
        len: u64,
    };
    /// A block device: everything written before is on stable storage. Done: nothing.
    #[from(VFS)]
    post Flush = 9 {
        /// Transaction.
        txn: u64,
        /// Minor number.
        minor: u32,
    };
    /// A block device: done: a = its size in bytes. `ENXIO` when there is no such minor.
    #[from(VFS)]
    post Size = 10 {
        /// Transaction.
        txn: u64,
        /// Minor number.
        minor: u32,
    };
    /// A terminal is opened. Done: a = the minor that names it in what follows: /dev/tty means
    /// another one to every session, /dev/ptmx a new one. `ENXIO`, `EIO`.
    #[from(VFS)]
    post Open = 6 {
        /// Transaction.
        txn: u64,
        /// Major number, of those that [`numbers::is_terminal`] knows.
        major: u32,
        /// Minor number.
        minor: u32,
        /// Linux open flags.
        flags: u32,
        /// The caller's process id.
        pid: u32,
        /// Its effective user and group.
        ids: (u32, u32),
        /// Its session and process group.
        job: (u32, u32),
    };
    /// What one [`Open`] opened is closed. Not answered.
    #[from(VFS)]
    post Close = 11 {
        /// Minor number, as `Open` answered it.
        minor: u32,
    };
    /// *Posted* by PM: the leader of a session ended; its terminal is nobody's any more.
    #[from(PM)]
    post SessionEnded = 12 {
        /// The session.
        session: u32,
    };
    /// Call by proc: the controlling terminal of a session. `ENXIO`.
    #[from(PROC)]
    call TerminalOf = 13 {
        /// The session.
        session: u32,
    } -> Terminal {
        /// Its device number, as stat(2) has it.
        device: u64,
        /// Its foreground process group.
        group: u32,
    };
    /// Call by proc: how many pseudo-terminals there are and may be.
    #[from(PROC)]
    call PtyLimits = 14 {} -> PtyFigures {
        /// There are.
        count: u64,
        /// There may be.
        most: u64,
        /// Of these, for root alone.
        reserve: u64,
    };
    /// Call by proc: sets how many pseudo-terminals there may be; those beyond it stay. `EINVAL`.
    #[from(PROC)]
    call SetPtyMax = 15 {
        /// There may be.
        most: u64,
    };
}

/// Device majors and minors served here (Linux numbers where Linux has them).
pub mod numbers {
    #![allow(missing_docs)]
    /// `mem` driver.
    pub const MEM_MAJOR: u32 = 1;
    pub const NULL_MINOR: u32 = 3;
    pub const ZERO_MINOR: u32 = 5;
    pub const FULL_MINOR: u32 = 7;
    pub const RANDOM_MINOR: u32 = 8;
    pub const URANDOM_MINOR: u32 = 9;
    /// Block major of the `virtio-blk` driver (what Linux gives its own first, as a rule).
    pub const DISK_MAJOR: u32 = 254;
    /// /dev/vda.
    pub const DISK_MINOR: u32 = 0;
    /// `console` driver: /dev/tty (5,0), /dev/console (5,1).
    pub const TTY_MAJOR: u32 = 5;
    pub const TTY_MINOR: u32 = 0;
    pub const CONSOLE_MINOR: u32 = 1;
    /// /dev/ptmx (5,2): each opening is the master of a new pseudo-terminal.
    pub const PTMX_MINOR: u32 = 2;
    /// `console` driver: /dev/pts/N is (136, N).
    pub const PTS_MAJOR: u32 = 136;
    /// Pseudo-terminals there can be (Linux's /proc/sys/kernel/pty/max).
    pub const PTY_MAX: u32 = 4096;
    /// In requests: the slave of pseudo-terminal N is minor `PTY_SLAVE + N`.
    pub const PTY_SLAVE: u32 = 0x10000;
    /// In requests: its master.
    pub const PTY_MASTER: u32 = 0x20000;

    /// Whether the devices of `major` are terminals, which want to hear of
    /// [`super::Open`] and [`super::Close`].
    pub const fn is_terminal(major: u32) -> bool {
        matches!(major, TTY_MAJOR | PTS_MAJOR)
    }

    /// `console` driver: the host's standard input, output and error as plain streams,
    /// used for descriptors 0, 1, 2 that are not a terminal on the host. Not seekable, no
    /// terminal ioctls (`ENOTTY`). Requests name minors only, so no minor of this major is
    /// one of [`TTY_MAJOR`]'s.
    pub const STREAM_MAJOR: u32 = 240;
    pub const STDIN_MINOR: u32 = 16;
    pub const STDOUT_MINOR: u32 = 17;
    pub const STDERR_MINOR: u32 = 18;
    /// `console` driver: what goes to [`crate::hostlink::Channel::Absent`]. VFS alone writes it; there
    /// is no node.
    pub const ABSENT_MINOR: u32 = 19;
    /// Control minor of the stream major, written only by PM through VFS-less calls: see
    /// [`super::ExitStatus`].
    pub const CONTROL_MINOR: u32 = 3;
}

pub use exit::ExitStatus;

/// What PM tells the console driver.
pub mod exit {
    use crate::protocol;
    protocol! {
        base = 0x6100;

        /// Call by PM to the console driver: PROGRAM ended with this wait status. Answered
        /// when all output before it and the exit packet have reached the host.
        #[from(PM)]
        call ExitStatus = 1 {
            /// As wait4 reports it.
            status: u32,
        };
    }
}
