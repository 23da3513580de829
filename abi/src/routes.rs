//! Which server answers which Linux call, and how much of it exists. The one table: PM loads
//! the kernel's routes from it, the documentation's list of calls is made from it.

use crate::kernel::{Brings, INBOX, LinuxRoute};
use linux_raw_sys::general as nr;

/// How much of a call there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// All that Linux specifies and programs can see.
    Done,
    /// The common uses; the rest fails cleanly.
    Partial,
    /// Fails with one error whatever is asked (`ENOSYS`, or what Linux says of a machine
    /// without the feature).
    Missing,
}

/// One Linux call.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Its number.
    pub number: u32,
    symbol: &'static str,
    /// Who answers.
    pub route: LinuxRoute,
    /// How much there is.
    pub status: Status,
}

impl Call {
    /// Linux's name of it.
    pub fn name(&self) -> &'static str {
        self.symbol.strip_prefix("__NR_").unwrap_or(self.symbol)
    }
}

macro_rules! calls {
    ($($table:ident $numbers:ident $route:ident { $($status:ident: $($symbol:ident)*;)* })*) => {
        $(
            /// Calls of one server, with their state.
            pub const $table: &[Call] = &[$($(Call {
                number: nr::$symbol,
                symbol: stringify!($symbol),
                route: LinuxRoute::$route,
                status: Status::$status,
            },)*)*];
            /// The numbers of the calls of one server.
            pub const $numbers: &[u32] = &[$($(nr::$symbol,)*)*];
        )*
    };
}

calls! {
    VFS_CALLS VFS Vfs {
        Done:
            __NR_read __NR_write __NR_pread64 __NR_pwrite64 __NR_readv __NR_writev
            __NR_preadv __NR_pwritev __NR_open __NR_openat __NR_creat __NR_close
            __NR_close_range __NR_stat __NR_fstat __NR_lstat __NR_newfstatat __NR_statx
            __NR_lseek __NR_access __NR_faccessat __NR_faccessat2 __NR_pipe __NR_pipe2
            __NR_dup __NR_dup2 __NR_dup3 __NR_flock __NR_fsync __NR_fdatasync
            __NR_sync __NR_syncfs __NR_truncate __NR_ftruncate __NR_getdents
            __NR_getdents64 __NR_getcwd __NR_chdir __NR_fchdir __NR_rename __NR_renameat
            __NR_renameat2 __NR_mkdir __NR_mkdirat __NR_rmdir __NR_link __NR_linkat
            __NR_unlink __NR_unlinkat __NR_symlink __NR_symlinkat __NR_readlink
            __NR_readlinkat __NR_chmod __NR_fchmod __NR_fchmodat __NR_chown __NR_fchown
            __NR_lchown __NR_fchownat __NR_umask __NR_mknod __NR_mknodat __NR_utime
            __NR_utimes __NR_utimensat __NR_futimesat __NR_statfs __NR_fstatfs __NR_poll
            __NR_select __NR_sendfile __NR_copy_file_range __NR_splice __NR_tee
            __NR_vmsplice __NR_fadvise64 __NR_readahead __NR_chroot __NR_eventfd __NR_eventfd2 __NR_epoll_create __NR_epoll_create1
            __NR_epoll_ctl __NR_epoll_wait __NR_epoll_pwait __NR_epoll_pwait2
            __NR_timerfd_create __NR_timerfd_settime __NR_timerfd_gettime
            __NR_socketpair __NR_accept __NR_accept4 __NR_shutdown __NR_listen
            __NR_getsockname __NR_getpeername;
        Partial:
            __NR_preadv2 __NR_pwritev2 __NR_openat2 __NR_fcntl __NR_ioctl __NR_ppoll
            __NR_pselect6 __NR_fallocate __NR_execve __NR_execveat __NR_sync_file_range
            __NR_fchmodat2 __NR_socket __NR_bind __NR_connect __NR_sendto __NR_recvfrom
            __NR_sendmsg __NR_recvmsg __NR_sendmmsg __NR_recvmmsg __NR_setsockopt
            __NR_getsockopt __NR_memfd_create __NR_mount __NR_umount2;
        Missing:
            __NR_inotify_init __NR_inotify_init1 __NR_inotify_add_watch
            __NR_inotify_rm_watch __NR_signalfd __NR_signalfd4 __NR_getxattr
            __NR_lgetxattr __NR_fgetxattr __NR_setxattr __NR_lsetxattr __NR_fsetxattr __NR_listxattr __NR_llistxattr
            __NR_flistxattr __NR_removexattr __NR_lremovexattr __NR_fremovexattr
            __NR_pivot_root __NR_io_setup __NR_io_uring_setup __NR_fanotify_init
            __NR_name_to_handle_at __NR_open_by_handle_at __NR_quotactl __NR_fsopen
            __NR_fsmount __NR_fspick __NR_fsconfig __NR_move_mount __NR_open_tree;
    }
    VM_CALLS VM Vm {
        Partial:
            __NR_mmap __NR_munmap __NR_mprotect __NR_brk __NR_madvise __NR_mremap
            __NR_msync __NR_mincore
            __NR_mlock __NR_mlock2 __NR_munlock __NR_mlockall __NR_munlockall;
        Missing:
            __NR_remap_file_pages __NR_pkey_mprotect __NR_pkey_alloc __NR_pkey_free;
    }
    PM_CALLS PM Pm {
        Done:
            __NR_getpid __NR_gettid __NR_getppid __NR_fork __NR_vfork __NR_exit
            __NR_exit_group __NR_wait4 __NR_kill __NR_tkill __NR_tgkill __NR_rt_sigaction
            __NR_rt_sigprocmask __NR_rt_sigpending __NR_rt_sigsuspend __NR_rt_sigtimedwait
            __NR_rt_sigqueueinfo __NR_rt_tgsigqueueinfo __NR_rt_sigreturn __NR_sigaltstack
            __NR_pause __NR_alarm __NR_setitimer __NR_getitimer __NR_nanosleep
            __NR_clock_gettime __NR_clock_getres __NR_clock_settime __NR_gettimeofday
            __NR_settimeofday __NR_time __NR_times __NR_uname __NR_sethostname
            __NR_setdomainname __NR_getrandom __NR_arch_prctl __NR_setpgid __NR_getpgid
            __NR_getpgrp __NR_setsid __NR_getsid __NR_getuid __NR_geteuid __NR_getgid
            __NR_getegid __NR_getresuid __NR_getresgid __NR_setuid __NR_setgid
            __NR_setreuid __NR_setregid __NR_setresuid __NR_setresgid __NR_getgroups
            __NR_setgroups __NR_set_tid_address __NR_set_robust_list __NR_get_robust_list
            __NR_sched_yield __NR_getcpu __NR_sched_getaffinity __NR_membarrier
            __NR_restart_syscall __NR_process_vm_readv __NR_process_vm_writev;
        Partial:
            __NR_clone __NR_waitid __NR_timer_create __NR_timer_settime __NR_timer_gettime
            __NR_timer_getoverrun __NR_timer_delete __NR_clock_nanosleep __NR_getrusage
            __NR_sysinfo __NR_prctl __NR_personality __NR_capget __NR_capset __NR_reboot
            __NR_setfsuid __NR_setfsgid __NR_futex __NR_prlimit64 __NR_getrlimit
            __NR_setrlimit __NR_getpriority __NR_setpriority __NR_sched_setaffinity
            __NR_sched_getscheduler __NR_sched_setscheduler __NR_sched_getparam
            __NR_sched_setparam __NR_sched_get_priority_max __NR_sched_get_priority_min
            __NR_sched_rr_get_interval __NR_ptrace;
        Missing:
            __NR_clone3 __NR_rseq __NR_syslog __NR_acct
            __NR_swapon __NR_swapoff __NR_iopl __NR_ioperm __NR_adjtimex __NR_clock_adjtime
            __NR_init_module __NR_finit_module __NR_delete_module __NR_unshare __NR_setns
            __NR_vhangup __NR_sched_setattr __NR_sched_getattr __NR_seccomp
            __NR_pidfd_open __NR_pidfd_send_signal __NR_pidfd_getfd __NR_modify_ldt
            __NR_shmget __NR_shmat __NR_shmctl __NR_shmdt __NR_semget __NR_semop
            __NR_semctl __NR_semtimedop __NR_msgget __NR_msgsnd __NR_msgrcv __NR_msgctl
            __NR_mq_open __NR_mq_unlink __NR_mq_timedsend __NR_mq_timedreceive
            __NR_mq_notify __NR_mq_getsetattr __NR_ioprio_get __NR_ioprio_set
            __NR_add_key __NR_request_key __NR_keyctl __NR_perf_event_open __NR_bpf
            __NR_userfaultfd __NR_kcmp
            __NR_process_madvise __NR_process_mrelease __NR_futex_waitv __NR_futex_wake
            __NR_futex_wait __NR_futex_requeue __NR_mbind __NR_set_mempolicy
            __NR_get_mempolicy __NR_migrate_pages __NR_move_pages __NR_kexec_load
            __NR_kexec_file_load __NR_landlock_create_ruleset __NR_landlock_add_rule
            __NR_landlock_restrict_self __NR_map_shadow_stack __NR_mseal;
    }
}

/// Calls whose first argument is a path.
const PATH_0: &[u32] = &[
    nr::__NR_open,
    nr::__NR_creat,
    nr::__NR_stat,
    nr::__NR_lstat,
    nr::__NR_access,
    nr::__NR_truncate,
    nr::__NR_chdir,
    nr::__NR_rename,
    nr::__NR_mkdir,
    nr::__NR_rmdir,
    nr::__NR_link,
    nr::__NR_unlink,
    nr::__NR_symlink,
    nr::__NR_readlink,
    nr::__NR_chmod,
    nr::__NR_chown,
    nr::__NR_lchown,
    nr::__NR_mknod,
    nr::__NR_utime,
    nr::__NR_utimes,
    nr::__NR_statfs,
    nr::__NR_chroot,
    nr::__NR_execve,
];
/// Calls whose second argument is one.
const PATH_1: &[u32] = &[
    nr::__NR_openat,
    nr::__NR_openat2,
    nr::__NR_newfstatat,
    nr::__NR_statx,
    nr::__NR_faccessat,
    nr::__NR_faccessat2,
    nr::__NR_mkdirat,
    nr::__NR_unlinkat,
    nr::__NR_linkat,
    nr::__NR_readlinkat,
    nr::__NR_renameat,
    nr::__NR_renameat2,
    nr::__NR_fchmodat,
    nr::__NR_fchmodat2,
    nr::__NR_fchownat,
    nr::__NR_mknodat,
    nr::__NR_utimensat,
    nr::__NR_futimesat,
    nr::__NR_execveat,
];
/// Calls with a structure: the argument that points at it, and its size.
const STRUCTURES: &[(u32, u8, u64)] = &[
    (nr::__NR_rt_sigaction, 1, 32),
    (nr::__NR_rt_sigprocmask, 1, 8),
    (nr::__NR_nanosleep, 0, 16),
    (nr::__NR_clock_nanosleep, 2, 16),
];

/// What a call brings along.
pub const fn brings(number: u64) -> Option<Brings> {
    match number {
        0..512 => Brings::decode(ROUTES[(number & 511) as usize] >> 2),
        _ => None,
    }
}

const ROUTES: [u8; 512] = routes();

/// The kernel's routing table ([`crate::kernel::Kcall::SetLinuxRoutes`]). Everything that is
/// not VFS's or VM's is PM's, which knows what to say of calls that do not exist.
pub const fn routes() -> [u8; 512] {
    let mut routes = [LinuxRoute::Pm as u8; 512];
    let mut i = 0;
    while i < VFS.len() {
        routes[VFS[i] as usize] = LinuxRoute::Vfs as u8;
        i += 1;
    }
    i = 0;
    while i < VM.len() {
        routes[VM[i] as usize] = LinuxRoute::Vm as u8;
        i += 1;
    }
    i = 0;
    while i < PATH_0.len() {
        add(&mut routes, PATH_0[i], 0, INBOX as u64);
        i += 1;
    }
    i = 0;
    while i < PATH_1.len() {
        add(&mut routes, PATH_1[i], 1, INBOX as u64);
        i += 1;
    }
    i = 0;
    while i < STRUCTURES.len() {
        let (number, argument, bytes) = STRUCTURES[i];
        add(&mut routes, number, argument, bytes);
        i += 1;
    }
    routes
}

const fn add(routes: &mut [u8; 512], number: u32, argument: u8, bytes: u64) {
    routes[number as usize] |= Brings { argument, bytes }.encode() << 2;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_call_has_two_servers() {
        for call in VFS {
            assert!(!VM.contains(call));
            assert_eq!(VFS.iter().filter(|c| *c == call).count(), 1);
        }
        let routes = routes();
        assert_eq!(routes[0], LinuxRoute::Vfs as u8);
        assert_eq!(routes[9], LinuxRoute::Vm as u8);
        assert_eq!(routes[39], LinuxRoute::Pm as u8);
        assert_eq!(routes[2] & 3, LinuxRoute::Vfs as u8);
        assert_eq!(VFS_CALLS[0].name(), "read");
    }

    #[test]
    fn calls_bring_what_they_point_at() {
        let check = |number, argument, bytes| {
            assert_eq!(brings(number), Some(Brings { argument, bytes }));
        };
        check(2, 0, 256);
        check(257, 1, 256);
        check(13, 1, 32);
        check(14, 1, 8);
        check(230, 2, 16);
        for number in [0, 1, 3, 9, 59 + 1, 511, 512, u64::MAX] {
            assert_eq!(brings(number), None, "{number}");
        }
        for code in 0..64 {
            if let Some(brings) = Brings::decode(code) {
                assert_eq!(brings.encode(), code);
                assert!(brings.bytes <= INBOX as u64);
            }
        }
    }
}
