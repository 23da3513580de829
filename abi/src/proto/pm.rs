//! Requests to PM. Linux process calls arrive as [`crate::Class::Linux`].

use crate::{Endpoint, Errno, protocol};

protocol! {
    base = 0x3000;

    /// Call by RS when all services run: start PROGRAM.
    #[from(RS)]
    call StartInit = 1 {};
    /// *Posted* by VFS: `who`'s new image is in place. PM resets its signals, applies ids,
    /// releases a vfork parent and starts it.
    #[from(VFS)]
    post ExecDone = 2 {
        /// The process.
        who: Endpoint,
        /// First instruction.
        pc: u64,
        /// Stack pointer.
        sp: u64,
        /// Effective user and group to adopt (equal to the old unless set-id).
        ids: (u32, u32),
        /// First 16 bytes of the program's name.
        name: [u8; 8],
        /// See `name`.
        name2: [u8; 8],
        /// Bit 0: set-id was honoured. Bit 1: the program is not the process's to read.
        flags: u64,
    };
    /// *Posted* by VFS: exec failed after the old image was gone: kill with SIGKILL (or, for
    /// the first process, end the run with `status`).
    #[from(VFS)]
    post ExecFailed = 3 {
        /// The process.
        who: Endpoint,
        /// Negated errno.
        status: i64,
    };
    /// *Posted* by VM: `who` took a fault it cannot go on from; it is stopped.
    #[from(VM)]
    post FaultSignal = 4 {
        /// The process.
        who: Endpoint,
        /// SIGSEGV or SIGBUS; SIGKILL when memory ran out.
        signal: i32,
        /// Linux si_code.
        code: i32,
        /// si_addr.
        addr: u64,
        /// The processor's error code.
        error: u64,
    };
    /// *Posted* by VM: programs' memory is used up. PM ends the process that is to make room and
    /// answers with [`crate::proto::vm::OutOfMemoryDone`].
    #[from(VM)]
    post OutOfMemory = 48 {
        /// A process that waits for memory. `NONE`: services need some; only the end of a process
        /// that has much is a help.
        who: Endpoint,
    };
    /// Call by proc: how the choice of [`OutOfMemory`] sees a process.
    #[from(PROC)]
    call OomScore = 49 {
        /// Process or thread id.
        pid: u32,
    } -> OomFigures {
        /// Its part of memory in thousandths, adjusted and not negative.
        score: u32,
        /// Its adjustment, -1000 to 1000 (/proc/PID/oom_score_adj).
        adjust: i32,
    };
    /// Call by proc, for `who`, who may write the file: sets the adjustment. `EACCES` below the
    /// lowest that root set, unless `who` is root; `EINVAL`.
    #[from(PROC)]
    call SetOomAdjust = 50 {
        /// Process or thread id.
        pid: u32,
        /// Who asks.
        who: Endpoint,
        /// -1000 (never ended) to 1000.
        adjust: i32,
    };
    /// *Posted* by VFS: raise `signal` for the process (SIGPIPE).
    #[from(VFS)]
    post Raise = 5 {
        /// The process.
        who: Endpoint,
        /// Linux number.
        signal: i32,
    };
    /// *Posted* by the console: raise `signal` for the foreground process group.
    #[from(CONSOLE)]
    post RaiseGroup = 6 {
        /// Process group id.
        group: u32,
        /// Linux number.
        signal: i32,
    };
    /// *Posted* by VFS, to who asked: [`crate::proto::vfs::SyncAll`] is complete.
    #[from(VFS)]
    post Synced = 7 {
        /// Transaction.
        txn: u64,
        /// The first error of a file system whose contents outlive the machine.
        status: Result<(), Errno>,
    };
    /// Call by proc: figures of process `pid`, or of the process of thread `pid`. `ESRCH`.
    #[from(PROC)]
    call ProcessOf = 8 {
        /// Process or thread id.
        pid: u32,
    } -> ProcessFigures {
        /// Its endpoint.
        who: Endpoint,
        /// Parent and process group.
        parent_group: (u32, u32),
        /// Session, and state as the letter of /proc/PID/stat.
        session_state: (u32, u32),
        /// Effective user and group.
        ids: (u32, u32),
        /// User time and system time in ns, start time in ns since boot.
        cpu_ns: u64,
        /// See `cpu_ns`.
        start_ns: u64,
        /// Pending signals.
        pending: u64,
    };
    /// Call by proc: the lowest process id that is at least `pid`. `ESRCH` past the last.
    #[from(PROC)]
    call NextPid = 9 {
        /// From here on.
        pid: u32,
    } -> FoundPid {
        /// The process id.
        pid: u32,
    };
    /// Call by VFS or proc: the process id of an endpoint.
    #[from(PROC)]
    call PidOf = 10 {
        /// The process.
        who: Endpoint,
    } -> FoundPidOf {
        /// The process id.
        pid: u32,
    };
    /// Call by proc: the lowest thread id of a process that is at least `from`. `ESRCH` past the
    /// last.
    #[from(PROC)]
    call NextTid = 19 {
        /// Process id.
        pid: u32,
        /// From here on.
        from: u32,
    } -> FoundTid {
        /// The thread id.
        tid: u32,
    };
    /// Call by proc: the name of the program, or of a thread.
    #[from(PROC)]
    call NameOf = 11 {
        /// Process or thread id.
        pid: u32,
    } -> ProcessName {
        /// First half, zero padded.
        name: [u8; 8],
        /// Second half.
        name2: [u8; 8],
        /// Blocked signals.
        blocked: u64,
        /// Ignored signals.
        ignored: u64,
        /// Caught signals.
        caught: u64,
        /// Threads.
        threads: u64,
        /// Who traces its first thread, or 0.
        tracer: u32,
    };
    /// PM's own counters (leak checks, /proc/loadavg).
    #[from(PROC)]
    call PmCounters = 12 {} -> PmFigures {
        /// Processes.
        processes: u64,
        /// Zombies.
        zombies: u64,
        /// Forks since boot.
        forks: u64,
        /// Ns of the wall clock at boot.
        epoch_ns: u64,
    };
    /// *Posted* by VFS while `who` executes a program that would give it other effective ids than
    /// its real ones. Answered by [`crate::proto::vfs::Done`]: `EPERM` when it renounced such
    /// (PR_SET_NO_NEW_PRIVS), or when somebody traces it who may not look at that. Until the exec is
    /// over nobody begins to.
    #[from(VFS)]
    post MaySetId = 13 {
        /// Transaction.
        txn: u64,
        /// The process.
        who: Endpoint,
    };
    /// Call by proc: copies between memory of process `pid` and the caller's grant. That somebody
    /// may look at it was found with [`MayLook`] when the file was opened. Absent pages are repaired
    /// and protection is no hindrance, but to writing what is shared. `EIO` where nothing is;
    /// `ESRCH` when the process has another image by now, or none.
    #[from(PROC)]
    call DebugCopy = 18 {
        /// Process or thread id.
        pid: u32,
        /// The image that is meant ([`CredentialsOf`]).
        image: u64,
        /// First byte.
        address: u64,
        /// Where to, or with `write` where from.
        grant: i32,
        /// Bytes, at most a page.
        len: u64,
        /// Whether memory is written.
        write: bool,
    };
    /// *Posted* by VFS when `who` executes a program and [`crate::proto::vfs::SetIds`] said that it
    /// is crowded. Answered by [`crate::proto::vfs::Done`]: `EAGAIN` while its user has more
    /// processes than its RLIMIT_NPROC.
    #[from(VFS)]
    post MayExec = 62 {
        /// Transaction.
        txn: u64,
        /// The process.
        who: Endpoint,
    };
    /// *Posted* by VM: RS, which hears of the others' ends ([`crate::proto::rs::Faulted`]), touched
    /// memory that it does not have.
    #[from(VM)]
    post WatcherFaulted = 63 {
        /// What it touched.
        address: u64,
        /// Where it was.
        rip: u64,
    };
    /// Call by proc: whether `who` may look at process `pid` as ptrace(2) says, with its effective
    /// ids (PTRACE_MODE_READ_FSCREDS). `EACCES`, `ESRCH`.
    #[from(PROC)]
    call MayLook = 60 {
        /// Process or thread id.
        pid: u32,
        /// On whose behalf.
        who: Endpoint,
    };
    /// Call by proc: who a process is, and what it has of what is counted for each user.
    #[from(PROC)]
    call CredentialsOf = 61 {
        /// Process or thread id.
        pid: u32,
    } -> Credentials {
        /// Real and effective user.
        users: (u32, u32),
        /// Real and effective group.
        groups: (u32, u32),
        /// Saved user and group.
        saved: (u32, u32),
        /// Number of its memory image, which no other image ever had; 0 when it has none.
        image: u64,
        /// Signals queued for its user's processes, and how many there may be
        /// (RLIMIT_SIGPENDING; `u32::MAX` when that is more).
        queued: (u32, u32),
        /// Others of the same user may look at it (PR_SET_DUMPABLE).
        dumpable: bool,
    };
    /// Call by proc: what a process may do beside what its users may.
    #[from(PROC)]
    call PrivilegesOf = 64 {
        /// Process or thread id.
        pid: u32,
    } -> Privileges {
        /// Effective capabilities ([`crate::capability`]).
        effective: u64,
        /// Those it may make effective.
        permitted: u64,
        /// Those that programs of root keep.
        inheritable: u64,
        /// User and group in whose name files are looked at.
        file_ids: (u32, u32),
        /// Set-id bits of what it executes do not count (PR_SET_NO_NEW_PRIVS).
        no_new: bool,
    };
    /// Call by proc: a supplementary group of a process. `ENOENT` past the last.
    #[from(PROC)]
    call GroupOf = 65 {
        /// Process or thread id.
        pid: u32,
        /// From 0.
        index: u32,
    } -> SupplementaryGroup {
        /// The group.
        group: u32,
    };
    /// *Posted* by VFS: an exec of `who` failed for which [`MaySetId`] was asked.
    #[from(VFS)]
    post SetIdOver = 17 {
        /// The process.
        who: Endpoint,
    };
    /// *Posted* by VFS: until [`RestoreMask`], or until a handler has run, `mask` is the signal
    /// mask of `who`, which waits in a call at VFS (ppoll, pselect6). Answered by
    /// [`crate::proto::vfs::Done`], after [`crate::proto::vfs::Interrupt`] if the mask lets a
    /// signal through.
    #[from(VFS)]
    post SwapMask = 14 {
        /// Transaction.
        txn: u64,
        /// The process.
        who: Endpoint,
        /// Signals to block.
        mask: u64,
    };
    /// *Posted* by VFS: `who` executes a program and is about to lose its memory: its other
    /// threads end. Answered by [`crate::proto::vfs::Done`]; `ESRCH`.
    #[from(VFS)]
    post ExecAlone = 16 {
        /// Transaction.
        txn: u64,
        /// The thread that stays.
        who: Endpoint,
    };
    /// *Posted* by VFS: `who`, in the background, wants to read (SIGTTIN) or to change (SIGTTOU)
    /// its terminal. Answered by [`crate::proto::vfs::Done`]: a = 0 when it may after all, 1
    /// when its group has got the signal; `EIO` when there is nobody who could continue it.
    #[from(VFS)]
    post JobControl = 20 {
        /// Transaction.
        txn: u64,
        /// The process.
        who: Endpoint,
        /// SIGTTIN or SIGTTOU.
        signal: i32,
    };
    /// *Posted* by the console: the terminal of `session` is gone; its leader hears of it.
    #[from(CONSOLE)]
    post HangUp = 21 {
        /// The session.
        session: u32,
    };
    /// *Posted* by the console: the host wants the run to end ([`crate::hostlink::Channel::End`]).
    #[from(CONSOLE)]
    post EndRun = 40 {};
    /// *Posted* by VFS before it answers that call.
    #[from(VFS)]
    post RestoreMask = 15 {
        /// The process.
        who: Endpoint,
    };
}

/// What uname(2) and /proc say of the system.
pub mod identity {
    /// The Linux release whose interface is implemented.
    pub const RELEASE: &str = "6.12.0-absentia";
    /// The build, in Linux's form.
    pub const VERSION: &str = "#1 SMP PREEMPT_DYNAMIC";
    /// The host's name at boot.
    pub const NODENAME: &str = "absentia";
    /// The domain's name at boot.
    pub const DOMAINNAME: &str = "(none)";
}
