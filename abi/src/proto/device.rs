//! Requests of VFS to drivers of character devices, asked and answered when there is something to
//! say. Buffers are magic grants with CPF_TRY: on `EFAULT` the driver has consumed nothing.

use crate::grant::{ToEither, ToRead, ToWrite};
use crate::{Endpoint, protocol};

protocol! {
    base = 0x6000;
    servers = [CONSOLE, MEMORY];

    /// Waits for data unless `nonblock` (`EAGAIN`).
    #[from(VFS)]
    ask Read = 1 {
        /// Minor number.
        minor: u32,
        /// The buffer.
        grant: ToWrite,
        /// Its length.
        len: u64,
        /// O_NONBLOCK.
        nonblock: bool,
        /// The caller.
        who: Endpoint,
        /// Its session and process group, for terminals.
        job: (u32, u32),
    } -> Moved {
        /// Bytes.
        bytes: u64,
    };
    /// Waits for room unless `nonblock` (`EAGAIN`).
    #[from(VFS)]
    ask Write = 2 {
        /// Minor number.
        minor: u32,
        /// The data.
        grant: ToRead,
        /// Its length.
        len: u64,
        /// O_NONBLOCK.
        nonblock: bool,
        /// The caller.
        who: Endpoint,
        /// Its session and process group, for terminals.
        job: (u32, u32),
    } -> Moved;
    /// Linux ioctl. `grant` covers the argument (as many bytes as VFS knows the request to
    /// have, from its table; -1 when the argument is a value), `value` is the raw argument.
    #[from(VFS)]
    ask Ioctl = 3 {
        /// Minor number.
        minor: u32,
        /// Request number.
        request: u64,
        /// Argument memory or -1.
        grant: ToEither,
        /// Raw argument.
        value: u64,
        /// The caller's process id.
        pid: u32,
        /// Its session and process group, for terminals.
        job: (u32, u32),
    } -> Controlled {
        /// What ioctl(2) returns.
        value: u64,
    };
    /// Answered at once: which of `events` (POLL*) are ready. If none is, the driver posts
    /// [`crate::proto::vfs::Ready`] once when one becomes so.
    #[from(VFS)]
    ask Poll = 4 {
        /// Minor number.
        minor: u32,
        /// POLL* bits.
        events: u32,
    } -> Events {
        /// Which of them are ready.
        events: u32,
    };
    /// End the waiting request `target` with `EINTR` (it may have been answered already).
    /// Not answered itself.
    #[from(VFS)]
    post Cancel = 5 {
        /// The request's transaction.
        target: u64,
    };
    /// A terminal is opened, and has another minor in what follows: /dev/tty means
    /// another one to every session, /dev/ptmx a new one. `ENXIO`, `EIO`.
    #[from(VFS)]
    ask Open = 6 {
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
    } -> Opened {
        /// The minor that names it in what follows.
        minor: u32,
    };
    /// What one [`Open`] opened is closed. Not answered.
    #[from(VFS)]
    post Close = 11 {
        /// Minor number, as `Open` answered it.
        minor: u32,
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
    /// `hello` driver: one of the majors that are for experiments (Linux, Documentation/admin-guide/devices.txt).
    pub const HELLO_MAJOR: u32 = 60;
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
}
