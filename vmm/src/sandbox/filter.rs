//! Which system calls a thread may make, by what it does. Default deny.

use std::collections::BTreeMap;

use anyhow::Result;
use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// What a thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Runs the vCPU and serves its exits: the devices, the disk, the program's output.
    Vcpu,
    /// Carries bytes from one descriptor to another.
    Input,
    /// Likewise, one of which is a socket that is connected.
    Socket,
    /// Looks into the guest's memory, and writes into the report directory if there is one.
    Inspector {
        /// There is one.
        report: bool,
    },
    /// Waits for signals, the deadline and the end, then says how the run ended.
    Supervisor {
        /// The process that runs the machine, when it is not this one.
        child: Option<u32>,
        /// Whether it writes into a report directory, too.
        report: bool,
    },
    /// Makes, runs, saves and restores machines of the laboratory, in threads that it starts.
    Laboratory,
    /// Likewise, and talks to gdb over a connection to a port that is open.
    Gdb,
}

/// What every thread needs: memory, locks, time, its signals, its end, and what is open.
const EVERY: &[c_long] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_close,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_futex,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigprocmask,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_getrandom,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// The disk image, which is open.
const DISK: &[c_long] = &[
    libc::SYS_lseek,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_fdatasync,
    libc::SYS_statx,
    libc::SYS_fstat,
];

/// Files below the report directory; which, is Landlock's to say.
const REPORT: &[c_long] = &[
    libc::SYS_openat,
    libc::SYS_mkdir,
    libc::SYS_mkdirat,
    libc::SYS_statx,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
];

/// The names of directories, for the advice about what was missing.
const NAMES: &[c_long] = &[
    libc::SYS_statx,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_getdents64,
    libc::SYS_readlink,
    libc::SYS_readlinkat,
];

/// A machine from nothing: its memory, its events, its timers.
const MACHINE: &[c_long] = &[
    libc::SYS_openat,
    libc::SYS_newfstatat,
    libc::SYS_memfd_create,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_eventfd2,
    libc::SYS_flock,
    libc::SYS_timer_create,
    libc::SYS_timer_settime,
    libc::SYS_timer_delete,
    libc::SYS_msync,
    libc::SYS_preadv,
    libc::SYS_pwritev,
];

/// A thread and its ways, beside `clone` with flags ([`THREAD`]).
const THREADS: &[c_long] = &[
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_setaffinity,
    // Never made: `threads_only` stands in front.
    libc::SYS_clone3,
];
/// Flags of `clone` that are looked at, and what they must be: a thread, in no new namespace.
const THREAD: (u64, u64) = (
    (libc::CLONE_THREAD
        | libc::CLONE_VM
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP) as u64,
    (libc::CLONE_THREAD | libc::CLONE_VM) as u64,
);

const CONNECTION: &[c_long] = &[
    libc::SYS_accept4,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_getsockopt,
    libc::SYS_getsockname,
    libc::SYS_shutdown,
];

/// KVM_RUN, and the registers of a machine that died.
const KVM_RUNNING: [u64; 7] = [
    0xae80,
    0x8090_ae81,
    0x4090_ae82,
    0x8138_ae83,
    0x4138_ae84,
    0x4004_ae99,
    0x8004_ae98,
];
/// The type of all of KVM's ioctls, and where in a request's number it stands.
const KVM_TYPE: (u64, u64) = (0xff00, 0xae00);
/// Terminal settings and size, asked and set. Not TIOCSTI, which types.
const TERMINAL: [u64; 9] = [
    0x5401,
    0x5402,
    0x5403,
    0x5404,
    0x5413,
    0x802c_542a,
    0x402c_542b,
    0x402c_542c,
    0x402c_542d,
];
/// Its settings and size, asked only: for progress bars.
const TERMINAL_ASKED: [u64; 3] = [libc::TCGETS, libc::TIOCGWINSZ, libc::TCGETS2];

fn rule(argument: u8, op: SeccompCmpOp, value: u64) -> Result<SeccompRule> {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, op, value)?;
    Ok(SeccompRule::new(vec![condition])?)
}

fn equal(argument: u8, value: u64) -> Result<SeccompRule> {
    rule(argument, SeccompCmpOp::Eq, value)
}

/// The filter of a role, for this process.
pub fn program(role: &Role) -> Result<BpfProgram> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let mut allow = |calls: &[c_long]| rules.extend(calls.iter().map(|&call| (call, Vec::new())));
    allow(EVERY);
    match role {
        Role::Vcpu => allow(DISK),
        Role::Input | Role::Socket => {}
        Role::Inspector { report } => {
            if *report {
                allow(REPORT);
            }
        }
        Role::Supervisor { child, report } => {
            allow(NAMES);
            if *report {
                allow(REPORT);
            }
            if child.is_some() {
                allow(&[libc::SYS_wait4, libc::SYS_waitid]);
            }
        }
        Role::Laboratory | Role::Gdb => {
            allow(DISK);
            allow(MACHINE);
            allow(REPORT);
            allow(THREADS);
            if *role == Role::Gdb {
                allow(CONNECTION);
            }
        }
    }
    // Nothing becomes code, and signals go to this process only.
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        let exec = SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64);
        rules.insert(call, vec![rule(2, exec, 0)?]);
    }
    let mut descriptors = vec![
        equal(1, libc::F_GETFD as u64)?,
        equal(1, libc::F_GETFL as u64)?,
    ];
    if matches!(role, Role::Laboratory | Role::Gdb) {
        descriptors.push(equal(1, libc::F_DUPFD_CLOEXEC as u64)?);
    }
    rules.insert(libc::SYS_fcntl, descriptors);
    if *role == Role::Socket {
        rules.insert(libc::SYS_recvfrom, Vec::new());
        // To whom it is connected.
        rules.insert(libc::SYS_sendto, vec![equal(4, 0)?]);
    }
    let own = u64::from(std::process::id());
    rules.insert(libc::SYS_tgkill, vec![equal(0, own)?]);
    if matches!(role, Role::Laboratory | Role::Gdb) {
        let (mask, flags) = THREAD;
        let thread = rule(0, SeccompCmpOp::MaskedEq(mask), flags)?;
        rules.insert(libc::SYS_clone, vec![thread]);
        // Threads have names.
        let name = equal(0, libc::PR_SET_NAME as u64)?;
        rules.insert(libc::SYS_prctl, vec![name]);
    }
    let ioctls = match role {
        Role::Vcpu => KVM_RUNNING
            .iter()
            .map(|&n| equal(1, n))
            .collect::<Result<Vec<_>>>()?,
        Role::Supervisor { .. } => TERMINAL
            .iter()
            .map(|&n| equal(1, n))
            .collect::<Result<_>>()?,
        Role::Laboratory | Role::Gdb => {
            let (mask, kind) = KVM_TYPE;
            let mut all = vec![rule(1, SeccompCmpOp::MaskedEq(mask), kind)?];
            for asked in TERMINAL_ASKED {
                all.push(equal(1, asked)?);
            }
            if *role == Role::Gdb {
                all.push(equal(1, libc::FIONBIO)?);
            }
            all
        }
        Role::Input | Role::Socket | Role::Inspector { .. } => Vec::new(),
    };
    if !ioctls.is_empty() {
        rules.insert(libc::SYS_ioctl, ioctls);
    }
    if let Role::Supervisor { child, report } = role {
        if !report {
            // For reading: directories, says Landlock.
            let mode = SeccompCmpOp::MaskedEq((libc::O_ACCMODE | libc::O_CREAT) as u64);
            rules.insert(libc::SYS_openat, vec![rule(2, mode, 0)?]);
        }
        if let Some(child) = child {
            rules.insert(libc::SYS_kill, vec![equal(0, (*child).into())?]);
        }
    }
    // SIGSYS rather than a silent end: the terminal is put back, and the call is named.
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Trap,
        SeccompAction::Allow,
        TargetArch::x86_64,
    )?;
    Ok(filter.try_into()?)
}

/// A filter in front of a role's that may start threads. What `clone3` is to do stands in memory,
/// where no filter can look: it does not exist, and who asked uses `clone`.
pub fn threads_only(role: &Role) -> Result<Option<BpfProgram>> {
    if !matches!(role, Role::Laboratory | Role::Gdb) {
        return Ok(None);
    }
    let filter = SeccompFilter::new(
        BTreeMap::from([(libc::SYS_clone3, Vec::new())]),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOSYS as u32),
        TargetArch::x86_64,
    )?;
    Ok(Some(filter.try_into()?))
}
