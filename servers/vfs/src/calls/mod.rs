//! Linux's file calls, by number.

pub mod attributes;
pub mod control;
pub mod copying;
pub mod descriptors;
pub mod directories;
pub mod epoll;
pub mod holes;
pub mod information;
mod layouts;
pub mod memory_file;
pub mod messages;
pub mod mounts;
pub mod names;
pub mod open;
pub mod readiness;
pub mod readwrite;
pub mod sockets;
pub mod splice;

pub use crate::arguments::{Args, fd};

use crate::exec;
use crate::state::Caller;
use abi::Errno;
use alloc::boxed::Box;
use core::future::ready;
use core::pin::Pin;
use linux_raw_sys::general as nr;

/// How a call ends.
pub enum Outcome {
    /// With a result.
    Reply(Result<u64, Errno>),
    /// Without a reply: the program that called is gone (execve).
    Gone,
}

/// Answers a call that [`at_once`] does not.
pub async fn call(c: &Caller, number: u32, a: Args) -> Outcome {
    if number == nr::__NR_execve || number == nr::__NR_execveat {
        let done = Box::pin(exec::execve(c, number, a)).await;
        return match done {
            Ok(()) => Outcome::Gone,
            Err(errno) => Outcome::Reply(Err(errno)),
        };
    }
    Outcome::Reply(waiting_call(c, number, a).await)
}

/// Answers the calls that never wait; `None` for the others.
pub fn at_once(c: &Caller, number: u32, a: Args) -> Option<Result<u64, Errno>> {
    Some(match number {
        nr::__NR_close => descriptors::close(c, a),
        nr::__NR_close_range => descriptors::close_range(c, a),
        nr::__NR_dup => descriptors::dup(c, a),
        nr::__NR_dup2 => descriptors::dup2(c, a),
        nr::__NR_dup3 => descriptors::dup3(c, a),
        nr::__NR_eventfd => descriptors::eventfd(c, a[0], 0),
        nr::__NR_eventfd2 => descriptors::eventfd(c, a[0], a[1]),
        nr::__NR_umask => attributes::umask(c, a),
        nr::__NR_fchdir => directories::fchdir(c, a),
        nr::__NR_fadvise64 | nr::__NR_readahead => control::advise(c, a),
        nr::__NR_epoll_create => epoll::create(c, a),
        nr::__NR_epoll_create1 => epoll::create1(c, a[0]),
        nr::__NR_timerfd_create => epoll::timer_create(c, a),
        nr::__NR_socket => sockets::socket(c, a),
        nr::__NR_listen => sockets::listen(c, a),
        nr::__NR_shutdown => sockets::shutdown(c, a),
        nr::__NR_getxattr | nr::__NR_lgetxattr | nr::__NR_fgetxattr => Err(Errno::ENODATA),
        nr::__NR_listxattr | nr::__NR_llistxattr | nr::__NR_flistxattr => Ok(0),
        nr::__NR_setxattr
        | nr::__NR_lsetxattr
        | nr::__NR_fsetxattr
        | nr::__NR_removexattr
        | nr::__NR_lremovexattr
        | nr::__NR_fremovexattr => Err(Errno::EOPNOTSUPP),
        nr::__NR_pivot_root => {
            if c.process.subject.ids.get().euid == 0 {
                Err(Errno::ENOSYS)
            } else {
                Err(Errno::EPERM)
            }
        }
        _ => return None,
    })
}

/// A call that may wait. Each is boxed by itself: none pays for the largest.
type Waiting<'a> = Pin<Box<dyn Future<Output = Result<u64, Errno>> + 'a>>;

/// The call `number`.
fn waiting_call(c: &Caller, number: u32, a: Args) -> Waiting<'_> {
    let cwd = nr::AT_FDCWD as u64;
    match number {
        nr::__NR_read => Box::pin(readwrite::read(c, a)),
        nr::__NR_write => Box::pin(readwrite::write(c, a)),
        nr::__NR_pread64 => Box::pin(readwrite::pread(c, a)),
        nr::__NR_pwrite64 => Box::pin(readwrite::pwrite(c, a)),
        nr::__NR_readv => Box::pin(readwrite::readv(c, a, None, 0)),
        nr::__NR_writev => Box::pin(readwrite::writev(c, a, None, 0)),
        nr::__NR_preadv => Box::pin(readwrite::readv(c, a, Some(a[3]), 0)),
        nr::__NR_pwritev => Box::pin(readwrite::writev(c, a, Some(a[3]), 0)),
        nr::__NR_preadv2 => Box::pin(readwrite::readv(c, a, position2(a[3]), a[5])),
        nr::__NR_pwritev2 => Box::pin(readwrite::writev(c, a, position2(a[3]), a[5])),
        nr::__NR_sendfile => Box::pin(copying::sendfile(c, a)),
        nr::__NR_copy_file_range => Box::pin(copying::copy_file_range(c, a)),
        nr::__NR_splice => Box::pin(splice::splice(c, a)),
        nr::__NR_tee => Box::pin(splice::tee(c, a)),
        nr::__NR_vmsplice => Box::pin(splice::vmsplice(c, a)),
        nr::__NR_lseek => Box::pin(readwrite::lseek(c, a)),

        nr::__NR_open => Box::pin(open::open(c, cwd, a[0], a[1], a[2])),
        nr::__NR_openat => Box::pin(open::open(c, a[0], a[1], a[2], a[3])),
        nr::__NR_openat2 => Box::pin(open::openat2(c, a)),
        nr::__NR_creat => Box::pin(open::creat(c, a)),
        nr::__NR_mknod => Box::pin(open::mknod(c, cwd, a[0], a[1], a[2])),
        nr::__NR_mknodat => Box::pin(open::mknod(c, a[0], a[1], a[2], a[3])),

        nr::__NR_pipe => Box::pin(descriptors::pipe(c, a[0], 0)),
        nr::__NR_pipe2 => Box::pin(descriptors::pipe(c, a[0], a[1])),

        nr::__NR_fcntl => Box::pin(control::fcntl(c, a)),
        nr::__NR_ioctl => Box::pin(control::ioctl(c, a)),
        nr::__NR_flock => Box::pin(control::flock(c, a)),

        nr::__NR_stat => Box::pin(information::stat(c, cwd, a[0], a[1], 0)),
        nr::__NR_lstat => {
            let flags = u64::from(nr::AT_SYMLINK_NOFOLLOW);
            Box::pin(information::stat(c, cwd, a[0], a[1], flags))
        }
        nr::__NR_newfstatat => Box::pin(information::stat(c, a[0], a[1], a[2], a[3])),
        nr::__NR_fstat => Box::pin(information::fstat(c, a)),
        nr::__NR_statx => Box::pin(information::statx(c, a)),
        nr::__NR_statfs => Box::pin(information::statfs(c, a)),
        nr::__NR_fstatfs => Box::pin(information::fstatfs(c, a)),
        nr::__NR_access => Box::pin(information::access(c, cwd, a[0], a[1], 0)),
        nr::__NR_faccessat => Box::pin(information::access(c, a[0], a[1], a[2], 0)),
        nr::__NR_faccessat2 => Box::pin(information::access(c, a[0], a[1], a[2], a[3])),
        nr::__NR_readlink => Box::pin(information::readlink(c, cwd, a[0], a[1], a[2])),
        nr::__NR_readlinkat => Box::pin(information::readlink(c, a[0], a[1], a[2], a[3])),

        nr::__NR_truncate => Box::pin(attributes::truncate(c, a)),
        nr::__NR_ftruncate => Box::pin(attributes::ftruncate(c, a)),
        nr::__NR_fallocate => Box::pin(holes::fallocate(c, a)),
        nr::__NR_chmod => Box::pin(attributes::chmod(c, cwd, a[0], a[1], 0)),
        nr::__NR_fchmod => Box::pin(attributes::fchmod(c, a)),
        nr::__NR_fchmodat => Box::pin(attributes::chmod(c, a[0], a[1], a[2], 0)),
        nr::__NR_fchmodat2 => Box::pin(attributes::chmod(c, a[0], a[1], a[2], a[3])),
        nr::__NR_chown => Box::pin(attributes::chown(c, cwd, a[0], a[1], a[2], 0)),
        nr::__NR_lchown => {
            let flags = u64::from(nr::AT_SYMLINK_NOFOLLOW);
            Box::pin(attributes::chown(c, cwd, a[0], a[1], a[2], flags))
        }
        nr::__NR_fchown => Box::pin(attributes::fchown(c, a)),
        nr::__NR_fchownat => Box::pin(attributes::chown(c, a[0], a[1], a[2], a[3], a[4])),
        nr::__NR_utime => Box::pin(attributes::utime(c, a)),
        nr::__NR_utimes => Box::pin(attributes::utimes(c, cwd, a[0], a[1])),
        nr::__NR_futimesat => Box::pin(attributes::utimes(c, a[0], a[1], a[2])),
        nr::__NR_utimensat => Box::pin(attributes::utimensat(c, a)),

        nr::__NR_mkdir => Box::pin(names::mkdir(c, cwd, a[0], a[1])),
        nr::__NR_mkdirat => Box::pin(names::mkdir(c, a[0], a[1], a[2])),
        nr::__NR_rmdir => Box::pin(names::unlink(c, cwd, a[0], u64::from(nr::AT_REMOVEDIR))),
        nr::__NR_unlink => Box::pin(names::unlink(c, cwd, a[0], 0)),
        nr::__NR_unlinkat => Box::pin(names::unlink(c, a[0], a[1], a[2])),
        nr::__NR_link => Box::pin(names::link(c, cwd, a[0], cwd, a[1], 0)),
        nr::__NR_linkat => Box::pin(names::link(c, a[0], a[1], a[2], a[3], a[4])),
        nr::__NR_symlink => Box::pin(names::symlink(c, a[0], cwd, a[1])),
        nr::__NR_symlinkat => Box::pin(names::symlink(c, a[0], a[1], a[2])),
        nr::__NR_rename => Box::pin(names::rename(c, cwd, a[0], cwd, a[1], 0)),
        nr::__NR_renameat => Box::pin(names::rename(c, a[0], a[1], a[2], a[3], 0)),
        nr::__NR_renameat2 => Box::pin(names::rename(c, a[0], a[1], a[2], a[3], a[4])),

        nr::__NR_getdents64 => Box::pin(directories::getdents64(c, a)),
        nr::__NR_getdents => Box::pin(directories::getdents(c, a)),
        nr::__NR_getcwd => Box::pin(directories::getcwd(c, a)),
        nr::__NR_chdir => Box::pin(directories::chdir(c, a)),
        nr::__NR_chroot => Box::pin(directories::chroot(c, a)),

        nr::__NR_fsync | nr::__NR_fdatasync | nr::__NR_sync_file_range => {
            Box::pin(control::fsync(c, a))
        }
        nr::__NR_sync => Box::pin(control::sync(c)),
        nr::__NR_syncfs => Box::pin(control::syncfs(c, a)),

        nr::__NR_poll => Box::pin(readiness::poll(c, a)),
        nr::__NR_ppoll => Box::pin(readiness::ppoll(c, a)),
        nr::__NR_select => Box::pin(readiness::select(c, a)),
        nr::__NR_pselect6 => Box::pin(readiness::pselect(c, a)),

        nr::__NR_memfd_create => Box::pin(memory_file::create(c, a)),
        nr::__NR_epoll_ctl => Box::pin(epoll::control(c, a)),
        nr::__NR_epoll_wait => Box::pin(epoll::wait(c, a, false)),
        nr::__NR_epoll_pwait => Box::pin(epoll::wait(c, a, true)),
        nr::__NR_epoll_pwait2 => Box::pin(epoll::pwait2(c, a)),
        nr::__NR_timerfd_settime => Box::pin(epoll::timer_set(c, a)),
        nr::__NR_timerfd_gettime => Box::pin(epoll::timer_get(c, a)),

        nr::__NR_socketpair => Box::pin(sockets::pair(c, a)),
        nr::__NR_bind => Box::pin(sockets::bind(c, a)),
        nr::__NR_connect => Box::pin(sockets::connect(c, a)),
        nr::__NR_accept => Box::pin(sockets::accept(c, a, 0)),
        nr::__NR_accept4 => Box::pin(sockets::accept(c, a, a[3])),
        nr::__NR_getsockname => Box::pin(sockets::name(c, a)),
        nr::__NR_getpeername => Box::pin(sockets::peer_name(c, a)),
        nr::__NR_getsockopt => Box::pin(sockets::get_option(c, a)),
        nr::__NR_setsockopt => Box::pin(sockets::set_option(c, a)),
        nr::__NR_sendto => Box::pin(messages::send_to(c, a)),
        nr::__NR_recvfrom => Box::pin(messages::receive_from(c, a)),
        nr::__NR_sendmsg => Box::pin(messages::send(c, a)),
        nr::__NR_recvmsg => Box::pin(messages::receive(c, a)),
        nr::__NR_sendmmsg => Box::pin(messages::send_many(c, a)),
        nr::__NR_recvmmsg => Box::pin(messages::receive_many(c, a)),

        nr::__NR_mount => Box::pin(mounts::mount(c, a)),
        nr::__NR_umount2 => Box::pin(mounts::umount(c, a)),
        _ => Box::pin(ready(Err(Errno::ENOSYS))),
    }
}

/// preadv2's position: -1 is the file's own.
fn position2(arg: u64) -> Option<u64> {
    (arg != u64::MAX).then_some(arg)
}
