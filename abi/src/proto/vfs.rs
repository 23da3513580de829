//! Requests to VFS. Linux file calls arrive as [`crate::Class::Linux`].

use crate::exec::ExecBackend;
use crate::{Endpoint, Errno, protocol};

protocol! {
    base = 0x2000;

    // -- from VM, all posted
    /// *Posted*: bring page `offset` of (dev, ino) into VM's cache, and of the `before`
    /// pages before and the `after` pages after it what can be had; answered by
    /// [`crate::proto::vm::PageInDone`]. Takes no file, vnode or exec lock.
    #[from(VM)]
    post PageIn = 1 {
        /// Transaction.
        txn: u64,
        /// Device.
        dev: u64,
        /// Inode.
        ino: u64,
        /// File offset, page aligned.
        offset: u64,
        /// Pages before it that may come along.
        before: u64,
        /// Pages after it.
        after: u64,
    };
    /// *Posted*: memory is wanted for programs, and file systems cache files in some ([`crate::proto::vm::MapFlags::CACHE`]):
    /// they give back `pages` of it. Answered by [`crate::proto::vm::GaveBack`]. Waits for no program and not for PM.
    #[from(VM)]
    post GiveBack = 48 {
        /// How many.
        pages: u64,
    };
    /// *Posted*: which file is descriptor `fd` of `who`; takes a reference on it. Answered
    /// by [`crate::proto::vm::FdLookupDone`].
    #[from(VM)]
    post FdLookup = 2 {
        /// Transaction.
        txn: u64,
        /// The process.
        who: Endpoint,
        /// Descriptor.
        fd: i32,
    };
    /// *Posted*: mapping references on files of a device are gone.
    #[from(VM)]
    post MapClose = 3 {
        /// Device.
        dev: u64,
        /// Inode.
        ino: u64,
        /// How many.
        references: u64,
        /// Another inode.
        ino2: u64,
        /// How many; 0 for none.
        references2: u64,
        /// A third.
        ino3: u64,
        /// Likewise.
        references3: u64,
    };
    /// *Posted*: the answer to [`crate::proto::vm::HandleMemory`].
    #[from(VM)]
    post MemoryHandled = 4 {
        /// Transaction.
        txn: u64,
        /// What became of all of it.
        status: Result<(), Errno>,
        /// Bytes of its beginning that are usable: up to the first page that is not.
        good: u64,
    };

    // -- from file systems and drivers, posted answers
    /// *Posted* by a file system or character driver: the answer to a request of
    /// [`crate::proto::fs`] or [`crate::proto::device`]. The meaning of `a`..`e` stands at the request.
    #[from(PEERS, PM)]
    post Done = 5 {
        /// Transaction.
        txn: u64,
        /// Outcome.
        status: Result<(), Errno>,
        /// First result.
        a: u64,
        /// Second result.
        b: u64,
        /// Third result.
        c: u64,
        /// Fourth result.
        d: u64,
        /// Fifth result.
        e: u64,
    };

    // -- from PM, calls, answered at once
    /// A process forked: inherits descriptors, directory, ids, umask.
    #[from(PM)]
    call Fork = 6 {
        /// Parent.
        parent: Endpoint,
        /// Child.
        child: Endpoint,
        /// The child's process id.
        pid: u32,
        /// Share the descriptor table (CLONE_FILES).
        share_files: bool,
        /// Share directory and umask (CLONE_FS).
        share_fs: bool,
    };
    /// A process is gone: close everything, cancel its calls.
    #[from(PM)]
    call Exit = 7 {
        /// The process.
        who: Endpoint,
    };
    /// The process's ids changed.
    #[from(PM)]
    call SetIds = 8 {
        /// The process.
        who: Endpoint,
        /// Real and effective user.
        uids: (u32, u32),
        /// Real and effective group.
        gids: (u32, u32),
        /// File system user and group (setfsuid(2)).
        fs: (u32, u32),
        /// Effective capabilities ([`crate::capability`]).
        capabilities: u64,
        /// Its user has more processes than its RLIMIT_NPROC: it executes nothing before
        /// [`crate::proto::pm::MayExec`] says so.
        crowded: bool,
    };
    /// Supplementary groups of a process changed, those of all its threads: `count` u32 at `grant` of PM.
    #[from(PM)]
    call SetGroups = 9 {
        /// A thread of the process.
        who: Endpoint,
        /// PM's grant.
        grant: i32,
        /// Groups.
        count: u32,
    };
    /// *Posted*: a signal is waiting for `who`: end its current call with `ERESTARTSYS` (or a
    /// partial result) as soon as that loses nothing.
    #[from(PM)]
    post Interrupt = 10 {
        /// The process.
        who: Endpoint,
    };
    /// *Posted*: the poll(2) that `who` makes next goes on with one that a signal cut short and no handler ran for
    /// (`ERESTART_RESTARTBLOCK`): it has the time that was left.
    #[from(PM)]
    post Resume = 49 {
        /// The process.
        who: Endpoint,
    };
    /// *Posted*: make `who` (new, without files) run PROGRAM of the run specification with
    /// standard descriptors 0, 1 and 2 open. Answered by [`crate::proto::pm::ExecDone`] or
    /// [`crate::proto::pm::ExecFailed`].
    #[from(PM)]
    post ExecInit = 11 {
        /// The process.
        who: Endpoint,
        /// Its process id.
        pid: u32,
    };
    /// The process's session and process group, which terminals want to know. Children inherit
    /// them.
    #[from(PM)]
    call SetJob = 12 {
        /// The process.
        who: Endpoint,
        /// Session and process group.
        job: (u32, u32),
    };

    // -- from RS, calls
    /// *Posted*: mounts file system server `fs` at an absolute path of at most 16 bytes. The
    /// first mount must be "/". Answered by [`crate::proto::rs::Mounted`]: RS must hear of a
    /// death meanwhile.
    #[from(RS)]
    post Mount = 13 {
        /// The server.
        fs: Endpoint,
        /// Path, zero padded, first and second half.
        path: [u8; 8],
        /// See `path`.
        path2: [u8; 8],
        /// Linux MS_* flags.
        flags: u64,
        /// Short name of the type for /proc/mounts ("ext2").
        kind: [u8; 8],
    };
    /// Devices of `major` are served by `driver`.
    #[from(RS)]
    call Driver = 14 {
        /// Linux major number.
        major: u32,
        /// Block devices, whose numbers are others than those of character devices.
        block: bool,
        /// The server.
        driver: Endpoint,
    };
    /// *Posted* by PM or RS: write everything back; answered by [`crate::proto::pm::Synced`]
    /// to PM.
    #[from(PM, RS)]
    post SyncAll = 15 {
        /// Transaction.
        txn: u64,
    };

    // -- from proc, calls, answered at once
    /// Copies the path of a process's file into `grant` (of proc). `which`: 0 cwd, 1 exe, 2
    /// root, 3 descriptor `fd`. `ESRCH`, `ENOENT`.
    #[from(PROC)]
    call PathOf = 16 {
        /// The process.
        who: Endpoint,
        /// What.
        which: u64,
        /// Descriptor.
        fd: i32,
        /// proc's grant.
        grant: i32,
        /// Its length.
        len: u64,
    } -> PathLength {
        /// Bytes written.
        len: u64,
    };
    /// Copies the path of a file that `who` maps into `grant` (of proc), as `who` sees it.
    /// `ENOENT` for one that was found in no directory.
    #[from(PROC)]
    call MappedPath = 31 {
        /// The process.
        who: Endpoint,
        /// Device number of the file system.
        dev: u64,
        /// Inode.
        ino: u64,
        /// proc's grant.
        grant: i32,
        /// Its length.
        len: u64,
    } -> MappedPathLength {
        /// Bytes written.
        len: u64,
    };
    /// The lowest open descriptor of `who` that is at least `fd`. `ENOENT` past the last.
    #[from(PROC)]
    call NextFd = 17 {
        /// The process.
        who: Endpoint,
        /// From here on.
        fd: i32,
    } -> FoundFd {
        /// The descriptor.
        fd: i32,
        /// Position in the file.
        position: u64,
        /// Linux open flags, O_CLOEXEC for the descriptor's own among them.
        flags: u64,
    };
    /// What VFS keeps for `who` that /proc/PID/status shows.
    #[from(PROC)]
    call FilesOf = 47 {
        /// The process.
        who: Endpoint,
    } -> FilesFigures {
        /// umask(2).
        umask: u32,
        /// Places of its table of descriptors.
        descriptors: u32,
    };
    /// Writes the text of /proc/PID/mounts into `grant`, or with `long` of mountinfo.
    #[from(PROC)]
    call MountTable = 18 {
        /// mountinfo.
        long: bool,
        /// proc's grant.
        grant: i32,
        /// Its length.
        len: u64,
    } -> MountTableLength {
        /// Bytes written.
        len: u64,
    };
    /// VFS's own counters (leak checks).
    #[from(PROC, PM)]
    call VfsCounters = 19 {} -> VfsFigures {
        /// Open files.
        files: u64,
        /// Vnodes in use.
        vnodes: u64,
        /// Pipes.
        pipes: u64,
        /// Tasks.
        tasks: u64,
        /// Grants in use.
        grants: u64,
        /// Processes known.
        processes: u64,
        /// How often VM was asked to make memory present ([`crate::proto::vm::HandleMemory`]).
        repairs: u64,
    };
    /// What is locked (leak checks).
    #[from(PM)]
    call VfsLocks = 30 {} -> LockFigures {
        /// Positions of open files, by calls that move them.
        positions: u64,
        /// Ranges and whole files, by fcntl and flock.
        ranges: u64,
        /// Opens for writing, which keep a file from being executed.
        writing: u64,
        /// Executions, which keep a file from being opened for writing.
        executing: u64,
    };
    /// Call by PM: what the executable of `who` is called and where its argument strings
    /// are; unused words 0.
    #[from(PROC)]
    call ExecInfo = 20 {
        /// The process.
        who: Endpoint,
    } -> ExecFigures {
        /// First byte of the argument strings.
        arg_start: u64,
        /// One past their end.
        arg_end: u64,
        /// First byte of the environment strings.
        env_start: u64,
        /// One past their end.
        env_end: u64,
        /// First byte of the auxiliary vector.
        auxv_start: u64,
        /// One past its end.
        auxv_end: u64,
    };
    /// *Posted* by a character driver: minor `minor` may have become ready for `events`
    /// (Linux POLL*); VFS re-polls its waiters.
    #[from(CONSOLE)]
    post Ready = 21 {
        /// Device major.
        major: u32,
        /// Device minor.
        minor: u32,
        /// POLL* bits.
        events: u32,
    };
    /// Call by PM: `who` may have `files` descriptors (RLIMIT_NOFILE). Children inherit it.
    #[from(PM)]
    call SetFileLimit = 22 {
        /// The process.
        who: Endpoint,
        /// How many descriptors (RLIMIT_NOFILE).
        files: u64,
        /// How long its writes may make a file, bytes (RLIMIT_FSIZE).
        size: u64,
    };
    /// Call by PM: whether programs that `who` executes get a fixed layout (personality's
    /// ADDR_NO_RANDOMIZE). Children inherit it.
    #[from(PM)]
    call SetFixedLayout = 27 {
        /// The process.
        who: Endpoint,
        /// No randomisation.
        fixed: bool,
    };
    /// Call by proc: makes a step of an exec of `who` fail with `errno`, for tests: the
    /// `step`th from now on, whether it comes in the next exec or later. 0: none.
    #[from(PROC)]
    call SetExecFault = 25 {
        /// The process.
        who: Endpoint,
        /// Which step, counted from 1.
        step: u32,
        /// Linux error.
        errno: i32,
    };
    /// Call by proc: how many steps are still to come until the one that fails; 0 when none
    /// will.
    #[from(PROC)]
    call ExecFault = 26 {
        /// The process.
        who: Endpoint,
    } -> ExecFaultStep {
        /// Steps.
        step: u32,
    };
    /// *Posted* by VM: a shared mapping changed the pages of `[offset, offset + len)` of a file.
    /// Precedes the [`MapClose`] of that mapping.
    #[from(VM)]
    post PagesWritten = 23 {
        /// Device.
        dev: u64,
        /// Inode.
        ino: u64,
        /// Page-aligned offset.
        offset: u64,
        /// Bytes, page multiple.
        len: u64,
    };
    /// Call by proc: every cache forgets what nobody uses and what a disk has as well, as a write
    /// to Linux's /proc/sys/vm/drop_caches. Answered when all have.
    #[from(PROC)]
    call DropCaches = 24 {
        /// File pages.
        data: bool,
        /// Names, inodes, directories.
        names: bool,
    };
    /// Call by proc: how programs are loaded from now on.
    #[from(PROC)]
    call SetExecBackend = 40 {
        /// How.
        backend: ExecBackend,
    };
    /// Call by proc: how programs are loaded.
    #[from(PROC)]
    call GetExecBackend = 41 {} -> ExecBackendNow {
        /// How.
        backend: ExecBackend,
    };
    /// Call by proc: whether execs are traced from now on.
    #[from(PROC)]
    call SetExecTrace = 42 {
        /// Whether.
        on: bool,
    };
    /// Call by proc: writes the stages of the last traced exec into `grant`, a line each:
    /// `STAGE NS SERVICE=NS ...`, where the first figure is the time it took and the others
    /// are the processor times of the services that took part (with the kernel's work for
    /// them).
    #[from(PROC)]
    call ExecTrace = 43 {
        /// proc's grant.
        grant: i32,
        /// Its length.
        len: u64,
    } -> ExecTraceLength {
        /// Bytes written.
        len: u64,
    };
    /// Call by proc: a limit of [`crate::tunable`]. `EINVAL` for what is none of VFS's.
    #[from(PROC)]
    call Tunable = 44 {
        /// Which.
        which: u32,
    } -> TunableValue {
        /// What it is.
        value: u64,
    };
    /// Call by proc: sets a limit of [`crate::tunable`]; what is above it stays. `EINVAL`.
    #[from(PROC)]
    call SetTunable = 45 {
        /// Which.
        which: u32,
        /// What it is from now on.
        value: u64,
    };
    /// *Posted* by RS: a file system or driver died. What is asked of it, and will be, is
    /// answered `EIO`.
    #[from(RS)]
    post Died = 29 {
        /// The service.
        who: Endpoint,
    };
    /// *Posted* by VM: write a file back to its disk; the pages that shared mappings have
    /// changed were told of before. Answered by [`crate::proto::vm::SyncDone`].
    #[from(VM)]
    post SyncFile = 28 {
        /// Transaction.
        txn: u64,
        /// Device.
        dev: u64,
        /// Inode.
        ino: u64,
    };
    /// *Posted* by VM: make a hole of a part of a file (madvise's MADV_REMOVE). Answered by
    /// [`crate::proto::vm::SyncDone`].
    #[from(VM)]
    post PunchFile = 46 {
        /// Transaction.
        txn: u64,
        /// Device.
        dev: u64,
        /// Inode.
        ino: u64,
        /// First byte, page aligned.
        offset: u64,
        /// Bytes, page multiple.
        len: u64,
    };
}

impl MapClose {
    /// Inodes, and how many references to each are gone.
    pub fn files(&self) -> [(u64, u64); 3] {
        [
            (self.ino, self.references),
            (self.ino2, self.references2),
            (self.ino3, self.references3),
        ]
    }
}
