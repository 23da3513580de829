//! Which Linux calls VFS refuses while it has no memory in reserve.

use linux_raw_sys::general as linux;

/// Whether a call may make VFS keep something and is not needed to release it: those are refused
/// with ENOMEM. What reads, writes (which is refused where there is no room), closes, removes or
/// synchronizes goes on.
pub fn refusable(number: u64) -> bool {
    matches!(
        number as u32,
        linux::__NR_open
            | linux::__NR_openat
            | linux::__NR_openat2
            | linux::__NR_creat
            | linux::__NR_pipe
            | linux::__NR_pipe2
            | linux::__NR_socket
            | linux::__NR_socketpair
            | linux::__NR_accept
            | linux::__NR_accept4
            | linux::__NR_connect
            | linux::__NR_listen
            | linux::__NR_dup
            | linux::__NR_dup3
            | linux::__NR_eventfd
            | linux::__NR_eventfd2
            | linux::__NR_timerfd_create
            | linux::__NR_signalfd
            | linux::__NR_signalfd4
            | linux::__NR_memfd_create
            | linux::__NR_epoll_create
            | linux::__NR_epoll_create1
            | linux::__NR_epoll_ctl
            | linux::__NR_inotify_add_watch
            | linux::__NR_mkdir
            | linux::__NR_mkdirat
            | linux::__NR_mknod
            | linux::__NR_mknodat
            | linux::__NR_symlink
            | linux::__NR_symlinkat
            | linux::__NR_link
            | linux::__NR_linkat
            | linux::__NR_mount
            | linux::__NR_execve
            | linux::__NR_execveat
    )
}
