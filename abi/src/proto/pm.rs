//! Requests to PM. Linux process calls arrive as [`crate::Class::Linux`].

use crate::grant::ToEither;
use crate::{Endpoint, protocol};

protocol! {
    base = 0x3000;
    servers = [PM];

    /// Start PROGRAM.
    #[from(RS)]
    call StartInit = 1 {};
    /// `who`'s new image is in place. PM resets its signals, applies ids,
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
        name: [u8; 16],
        /// Bit 0: set-id was honoured. Bit 1: the program is not the process's to read.
        flags: u64,
    };
    /// Exec failed after the old image was gone: kill with SIGKILL (or, for
    /// the first process, end the run with `status`).
    #[from(VFS)]
    post ExecFailed = 3 {
        /// The process.
        who: Endpoint,
        /// Negated errno.
        status: i64,
    };
    /// `who` took a fault it cannot go on from; it is stopped.
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
    /// Programs' memory is used up. PM ends the process that is to make room and
    /// says how it went.
    #[from(VM)]
    ask OutOfMemory = 48 {
        /// A process that waits for memory. `NONE`: services need some; only the end of a process
        /// that has much is a help.
        who: Endpoint,
    } -> Killed {
        /// Processes that were ended for it; 0 when none may be.
        processes: u64,
    };
    /// How the choice of [`OutOfMemory`] sees a process.
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
    /// Sets the adjustment. `EACCES` below the
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
    /// Raise `signal` for the process (SIGPIPE).
    #[from(VFS)]
    post Raise = 5 {
        /// The process.
        who: Endpoint,
        /// Linux number.
        signal: i32,
    };
    /// Raise `signal` for the foreground process group.
    #[from(CONSOLE)]
    post RaiseGroup = 6 {
        /// Process group id.
        group: u32,
        /// Linux number.
        signal: i32,
    };
    /// Figures of process `pid`, or of the process of thread `pid`. `ESRCH`.
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
    /// The lowest process id that is at least `pid`. `ESRCH` past the last.
    #[from(PROC)]
    call NextPid = 9 {
        /// From here on.
        pid: u32,
    } -> FoundPid {
        /// The process id.
        pid: u32,
    };
    /// The process id of an endpoint.
    #[from(PROC)]
    call PidOf = 10 {
        /// The process.
        who: Endpoint,
    } -> FoundPidOf {
        /// The process id.
        pid: u32,
    };
    /// The lowest thread id of a process that is at least `from`. `ESRCH` past the
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
    /// The name of the program, or of a thread.
    #[from(PROC)]
    call NameOf = 11 {
        /// Process or thread id.
        pid: u32,
    } -> ProcessName {
        /// Zero padded.
        name: [u8; 16],
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
    /// While `who` executes a program that would give it other effective ids than
    /// its real ones. `EPERM` when it renounced such
    /// (PR_SET_NO_NEW_PRIVS), or when somebody traces it who may not look at that. Until the exec is
    /// over nobody begins to.
    #[from(VFS)]
    ask MaySetId = 13 {
        /// The process.
        who: Endpoint,
    };
    /// Copies between memory of process `pid` and the caller's grant. That somebody
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
        grant: ToEither,
        /// Bytes, at most a page.
        len: u64,
        /// Whether memory is written.
        write: bool,
    };
    /// When `who` executes a program and [`crate::proto::vfs::SetIds`] said that it
    /// is crowded. `EAGAIN` while its user has more
    /// processes than its RLIMIT_NPROC.
    #[from(VFS)]
    ask MayExec = 62 {
        /// The process.
        who: Endpoint,
    };
    /// RS, which hears of the others' ends ([`crate::proto::rs::Faulted`]), touched
    /// memory that it does not have.
    #[from(VM)]
    post WatcherFaulted = 63 {
        /// What it touched.
        address: u64,
        /// Where it was.
        rip: u64,
    };
    /// Whether `who` may look at process `pid` as ptrace(2) says, with its effective
    /// ids (PTRACE_MODE_READ_FSCREDS). `EACCES`, `ESRCH`.
    #[from(PROC)]
    call MayLook = 60 {
        /// Process or thread id.
        pid: u32,
        /// On whose behalf.
        who: Endpoint,
    };
    /// Who a process is, and what it has of what is counted for each user.
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
    /// What a process may do beside what its users may.
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
    /// A supplementary group of a process. `ENOENT` past the last.
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
    /// An exec of `who` failed for which [`MaySetId`] was asked.
    #[from(VFS)]
    post SetIdOver = 17 {
        /// The process.
        who: Endpoint,
    };
    /// Until [`RestoreMask`], or until a handler has run, `mask` is the signal
    /// mask of `who`, which waits in a call at VFS (ppoll, pselect6). Answered after [`crate::proto::vfs::Interrupt`] if the mask lets a
    /// signal through.
    #[from(VFS)]
    ask SwapMask = 14 {
        /// The process.
        who: Endpoint,
        /// Signals to block.
        mask: u64,
    };
    /// `who` executes a program and is about to lose its memory: its other
    /// threads end. `ESRCH`.
    #[from(VFS)]
    ask ExecAlone = 16 {
        /// The thread that stays.
        who: Endpoint,
    };
    /// `who`, in the background, wants to read (SIGTTIN) or to change (SIGTTOU)
    /// its terminal. `EIO` when there is nobody who could continue it.
    #[from(VFS)]
    ask JobControl = 20 {
        /// The process.
        who: Endpoint,
        /// SIGTTIN or SIGTTOU.
        signal: i32,
    } -> JobVerdict {
        /// The group has got the signal; without it the process may after all.
        signalled: bool,
    };
    /// The terminal of `session` is gone; its leader hears of it.
    #[from(CONSOLE)]
    post HangUp = 21 {
        /// The session.
        session: u32,
    };
    /// The host wants the run to end ([`crate::hostlink::Channel::End`]).
    #[from(CONSOLE)]
    post EndRun = 40 {};
    /// The mask is as before: VFS is about to answer that call.
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
