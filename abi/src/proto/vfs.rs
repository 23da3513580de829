//! Requests to VFS. Linux file calls arrive as [`crate::Class::Linux`].

use crate::exec::ExecBackend;
use crate::grant::{ToRead, ToWrite};
use crate::{Endpoint, protocol};

crate::fields! {
    /// References on a file that are gone.
    #[derive(Default)]
    pub struct References {
        /// Inode.
        pub ino: u64,
        /// How many.
        pub count: u64,
    }
}

protocol! {
    base = 0x2000;
    servers = [VFS];

    // -- from VM, all posted
    /// Bring page `offset` of (dev, ino) into VM's cache, and of the `before`
    /// pages before and the `after` pages after it what can be had.
    /// Takes no file, vnode or exec lock.
    #[from(VM)]
    ask PageIn = 1 {
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
    /// Memory is wanted for programs, and file systems cache files in some ([`crate::proto::vm::MapFlags::CACHE`]):
    /// they give back `pages` of it. Waits for no program and not for PM.
    #[from(VM)]
    ask GiveBack = 48 {
        /// How many.
        pages: u64,
    } -> GivenBack {
        /// Pages that file systems have given back; 0 when they keep the rest.
        pages: u64,
    };
    /// Which file is descriptor `fd` of `who`; takes a reference on it.
    #[from(VM)]
    ask FdLookup = 2 {
        /// The process.
        who: Endpoint,
        /// Descriptor.
        fd: i32,
    } -> FoundFile {
        /// Device; `u64::MAX` for a character device that maps as zero memory (`/dev/zero`).
        dev: u64,
        /// Inode.
        ino: u64,
        /// Bit 0 open for reading, bit 1 for writing, bit 2 never to be executed, bit 3 not for
        /// writing because of a seal.
        access: u64,
    };
    /// Mapping references on files of a device are gone.
    #[from(VM)]
    post MapClose = 3 {
        /// Device.
        dev: u64,
        /// Of up to three files.
        files: [References; 3],
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
        grant: ToRead,
        /// Groups.
        count: u32,
    };
    /// A signal is waiting for `who`: end its current call with `ERESTARTSYS` (or a
    /// partial result) as soon as that loses nothing.
    #[from(PM)]
    post Interrupt = 10 {
        /// The process.
        who: Endpoint,
    };
    /// The poll(2) that `who` makes next goes on with one that a signal cut short and no handler ran for
    /// (`ERESTART_RESTARTBLOCK`): it has the time that was left.
    #[from(PM)]
    post Resume = 49 {
        /// The process.
        who: Endpoint,
    };
    /// Make `who` (new, without files) run PROGRAM of the run specification with
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
    /// Mounts file system server `fs` at an absolute path of at most 16 bytes. The
    /// first mount must be "/". RS must hear of a death meanwhile.
    #[from(RS)]
    ask Mount = 13 {
        /// The server.
        fs: Endpoint,
        /// Path, zero padded.
        path: [u8; 16],
        /// Linux MS_* flags.
        flags: u64,
        /// Short name of the type for /proc/mounts ("ext2").
        kind: [u8; 8],
    } -> Mounted {
        /// The device number that it got.
        dev: u64,
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
    /// Write everything back. The first error of a file system whose contents outlive the
    /// machine.
    #[from(PM, RS)]
    ask SyncAll = 15 {
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
        grant: ToWrite,
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
        grant: ToWrite,
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
        grant: ToWrite,
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
    /// What the executable of `who` is called and where its argument strings
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
    /// Minor `minor` may have become ready for `events`
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
    /// Whether programs that `who` executes get a fixed layout (personality's
    /// ADDR_NO_RANDOMIZE). Children inherit it.
    #[from(PM)]
    call SetFixedLayout = 27 {
        /// The process.
        who: Endpoint,
        /// No randomisation.
        fixed: bool,
    };
    /// Makes a step of an exec of `who` fail with `errno`, for tests: the
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
    /// How many steps are still to come until the one that fails; 0 when none
    /// will.
    #[from(PROC)]
    call ExecFault = 26 {
        /// The process.
        who: Endpoint,
    } -> ExecFaultStep {
        /// Steps.
        step: u32,
    };
    /// A shared mapping changed the pages of `[offset, offset + len)` of a file.
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
    /// Every cache forgets what nobody uses and what a disk has as well, as a write
    /// to Linux's /proc/sys/vm/drop_caches. Answered when all have.
    #[from(PROC)]
    wait DropCaches = 24 {
        /// File pages.
        data: bool,
        /// Names, inodes, directories.
        names: bool,
    };
    /// How programs are loaded from now on.
    #[from(PROC)]
    call SetExecBackend = 40 {
        /// How.
        backend: ExecBackend,
    };
    /// How programs are loaded.
    #[from(PROC)]
    call GetExecBackend = 41 {} -> ExecBackendNow {
        /// How.
        backend: ExecBackend,
    };
    /// Whether execs are traced from now on.
    #[from(PROC)]
    call SetExecTrace = 42 {
        /// Whether.
        on: bool,
    };
    /// Writes the stages of the last traced exec into `grant`, a line each:
    /// `STAGE NS SERVICE=NS ...`, where the first figure is the time it took and the others
    /// are the processor times of the services that took part (with the kernel's work for
    /// them).
    #[from(PROC)]
    call ExecTrace = 43 {
        /// proc's grant.
        grant: ToWrite,
        /// Its length.
        len: u64,
    } -> ExecTraceLength {
        /// Bytes written.
        len: u64,
    };
    /// A limit of [`crate::tunable`]. `EINVAL` for what is none of VFS's.
    #[from(PROC)]
    call Tunable = 44 {
        /// Which.
        which: u32,
    } -> TunableValue {
        /// What it is.
        value: u64,
    };
    /// Sets a limit of [`crate::tunable`]; what is above it stays. `EINVAL`.
    #[from(PROC)]
    call SetTunable = 45 {
        /// Which.
        which: u32,
        /// What it is from now on.
        value: u64,
    };
    /// A file system or driver died. What is asked of it, and will be, is
    /// answered `EIO`.
    #[from(RS)]
    post Died = 29 {
        /// The service.
        who: Endpoint,
    };
    /// Write a file back to its disk; the pages that shared mappings have
    /// changed were told of before.
    #[from(VM)]
    ask SyncFile = 28 {
        /// Device.
        dev: u64,
        /// Inode.
        ino: u64,
    };
    /// Make a hole of a part of a file (madvise's MADV_REMOVE).
    #[from(VM)]
    ask PunchFile = 46 {
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
