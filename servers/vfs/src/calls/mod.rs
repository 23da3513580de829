//! Linux's file calls, by number.

pub mod attributes;
pub mod control;
pub mod descriptors;
pub mod directories;
pub mod epoll;
pub mod information;
pub mod memory_file;
pub mod messages;
pub mod mounts;
pub mod names;
pub mod open;
pub mod readiness;
pub mod readwrite;
pub mod sockets;

use crate::exec;
use crate::file::OpenFile;
use crate::namei::{Follow, Node};
use crate::state::Caller;
use crate::vnode::Vnode;
use abi::Errno;
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use linux_raw_sys::general as nr;

/// How a call ends.
pub enum Outcome {
    /// With a result.
    Reply(Result<u64, Errno>),
    /// Without a reply: the program that called is gone (execve).
    Gone,
}

/// Arguments of a call.
pub type Args = [u64; 6];

/// A descriptor argument: its low 32 bits.
pub const fn fd(arg: u64) -> i32 {
    arg as i32
}

/// Answers the call `number`.
pub async fn call(c: &Caller, number: u32, a: Args) -> Outcome {
    if number == nr::__NR_execve || number == nr::__NR_execveat {
        let done = Box::pin(exec::execve(c, number, a)).await;
        return match done {
            Ok(()) => Outcome::Gone,
            Err(errno) => Outcome::Reply(Err(errno)),
        };
    }
    Outcome::Reply(plain_call(c, number, a).await)
}

// Rare or large futures are boxed so that the common ones stay small.
async fn plain_call(c: &Caller, number: u32, a: Args) -> Result<u64, Errno> {
    let cwd = nr::AT_FDCWD as u64;
    match number {
        nr::__NR_read => readwrite::read(c, a).await,
        nr::__NR_write => readwrite::write(c, a).await,
        nr::__NR_pread64 => readwrite::pread(c, a).await,
        nr::__NR_pwrite64 => readwrite::pwrite(c, a).await,
        nr::__NR_readv => readwrite::readv(c, a, None, 0).await,
        nr::__NR_writev => readwrite::writev(c, a, None, 0).await,
        nr::__NR_preadv => readwrite::readv(c, a, Some(a[3]), 0).await,
        nr::__NR_pwritev => readwrite::writev(c, a, Some(a[3]), 0).await,
        nr::__NR_preadv2 => readwrite::readv(c, a, position2(a[3]), a[5]).await,
        nr::__NR_pwritev2 => readwrite::writev(c, a, position2(a[3]), a[5]).await,
        nr::__NR_sendfile => Box::pin(readwrite::sendfile(c, a)).await,
        nr::__NR_copy_file_range => Box::pin(readwrite::copy_file_range(c, a)).await,
        nr::__NR_lseek => readwrite::lseek(c, a).await,

        nr::__NR_open => Box::pin(open::open(c, cwd, a[0], a[1], a[2])).await,
        nr::__NR_openat => Box::pin(open::open(c, a[0], a[1], a[2], a[3])).await,
        nr::__NR_openat2 => Box::pin(open::openat2(c, a)).await,
        nr::__NR_creat => Box::pin(open::creat(c, a)).await,
        nr::__NR_mknod => Box::pin(open::mknod(c, cwd, a[0], a[1], a[2])).await,
        nr::__NR_mknodat => Box::pin(open::mknod(c, a[0], a[1], a[2], a[3])).await,

        nr::__NR_close => descriptors::close(c, a),
        nr::__NR_close_range => descriptors::close_range(c, a),
        nr::__NR_dup => descriptors::dup(c, a),
        nr::__NR_dup2 => descriptors::dup2(c, a),
        nr::__NR_dup3 => descriptors::dup3(c, a),
        nr::__NR_pipe => descriptors::pipe(c, a[0], 0).await,
        nr::__NR_pipe2 => descriptors::pipe(c, a[0], a[1]).await,
        nr::__NR_eventfd => descriptors::eventfd(c, a[0], 0),
        nr::__NR_eventfd2 => descriptors::eventfd(c, a[0], a[1]),

        nr::__NR_fcntl => control::fcntl(c, a).await,
        nr::__NR_ioctl => control::ioctl(c, a).await,
        nr::__NR_flock => control::flock(c, a).await,

        nr::__NR_stat => Box::pin(information::stat(c, cwd, a[0], a[1], 0)).await,
        nr::__NR_lstat => {
            let flags = u64::from(nr::AT_SYMLINK_NOFOLLOW);
            Box::pin(information::stat(c, cwd, a[0], a[1], flags)).await
        }
        nr::__NR_newfstatat => Box::pin(information::stat(c, a[0], a[1], a[2], a[3])).await,
        nr::__NR_fstat => information::fstat(c, a).await,
        nr::__NR_statx => Box::pin(information::statx(c, a)).await,
        nr::__NR_statfs => Box::pin(information::statfs(c, a)).await,
        nr::__NR_fstatfs => Box::pin(information::fstatfs(c, a)).await,
        nr::__NR_access => Box::pin(information::access(c, cwd, a[0], a[1], 0)).await,
        nr::__NR_faccessat => Box::pin(information::access(c, a[0], a[1], a[2], 0)).await,
        nr::__NR_faccessat2 => Box::pin(information::access(c, a[0], a[1], a[2], a[3])).await,
        nr::__NR_readlink => Box::pin(information::readlink(c, cwd, a[0], a[1], a[2])).await,
        nr::__NR_readlinkat => Box::pin(information::readlink(c, a[0], a[1], a[2], a[3])).await,

        nr::__NR_truncate => Box::pin(attributes::truncate(c, a)).await,
        nr::__NR_ftruncate => attributes::ftruncate(c, a).await,
        nr::__NR_fallocate => attributes::fallocate(c, a).await,
        nr::__NR_chmod => Box::pin(attributes::chmod(c, cwd, a[0], a[1], 0)).await,
        nr::__NR_fchmod => Box::pin(attributes::fchmod(c, a)).await,
        nr::__NR_fchmodat => Box::pin(attributes::chmod(c, a[0], a[1], a[2], 0)).await,
        nr::__NR_fchmodat2 => Box::pin(attributes::chmod(c, a[0], a[1], a[2], a[3])).await,
        nr::__NR_chown => Box::pin(attributes::chown(c, cwd, a[0], a[1], a[2], 0)).await,
        nr::__NR_lchown => {
            let flags = u64::from(nr::AT_SYMLINK_NOFOLLOW);
            Box::pin(attributes::chown(c, cwd, a[0], a[1], a[2], flags)).await
        }
        nr::__NR_fchown => Box::pin(attributes::fchown(c, a)).await,
        nr::__NR_fchownat => Box::pin(attributes::chown(c, a[0], a[1], a[2], a[3], a[4])).await,
        nr::__NR_utime => Box::pin(attributes::utime(c, a)).await,
        nr::__NR_utimes => Box::pin(attributes::utimes(c, cwd, a[0], a[1])).await,
        nr::__NR_futimesat => Box::pin(attributes::utimes(c, a[0], a[1], a[2])).await,
        nr::__NR_utimensat => Box::pin(attributes::utimensat(c, a)).await,
        nr::__NR_umask => attributes::umask(c, a),

        nr::__NR_mkdir => Box::pin(names::mkdir(c, cwd, a[0], a[1])).await,
        nr::__NR_mkdirat => Box::pin(names::mkdir(c, a[0], a[1], a[2])).await,
        nr::__NR_rmdir => Box::pin(names::unlink(c, cwd, a[0], u64::from(nr::AT_REMOVEDIR))).await,
        nr::__NR_unlink => Box::pin(names::unlink(c, cwd, a[0], 0)).await,
        nr::__NR_unlinkat => Box::pin(names::unlink(c, a[0], a[1], a[2])).await,
        nr::__NR_link => Box::pin(names::link(c, cwd, a[0], cwd, a[1], 0)).await,
        nr::__NR_linkat => Box::pin(names::link(c, a[0], a[1], a[2], a[3], a[4])).await,
        nr::__NR_symlink => Box::pin(names::symlink(c, a[0], cwd, a[1])).await,
        nr::__NR_symlinkat => Box::pin(names::symlink(c, a[0], a[1], a[2])).await,
        nr::__NR_rename => Box::pin(names::rename(c, cwd, a[0], cwd, a[1], 0)).await,
        nr::__NR_renameat => Box::pin(names::rename(c, a[0], a[1], a[2], a[3], 0)).await,
        nr::__NR_renameat2 => Box::pin(names::rename(c, a[0], a[1], a[2], a[3], a[4])).await,

        nr::__NR_getdents64 => directories::getdents64(c, a).await,
        nr::__NR_getdents => Box::pin(directories::getdents(c, a)).await,
        nr::__NR_getcwd => directories::getcwd(c, a).await,
        nr::__NR_chdir => Box::pin(directories::chdir(c, a)).await,
        nr::__NR_fchdir => directories::fchdir(c, a),
        nr::__NR_chroot => Box::pin(directories::chroot(c, a)).await,

        nr::__NR_fsync | nr::__NR_fdatasync | nr::__NR_sync_file_range => {
            control::fsync(c, a).await
        }
        nr::__NR_sync => control::sync(c).await,
        nr::__NR_syncfs => control::syncfs(c, a).await,
        nr::__NR_fadvise64 | nr::__NR_readahead => control::advise(c, a),

        nr::__NR_poll => Box::pin(readiness::poll(c, a)).await,
        nr::__NR_ppoll => Box::pin(readiness::ppoll(c, a)).await,
        nr::__NR_select => Box::pin(readiness::select(c, a)).await,
        nr::__NR_pselect6 => Box::pin(readiness::pselect(c, a)).await,

        nr::__NR_memfd_create => Box::pin(memory_file::create(c, a)).await,
        nr::__NR_epoll_create => epoll::create(c, a),
        nr::__NR_epoll_create1 => epoll::create1(c, a[0]),
        nr::__NR_epoll_ctl => epoll::control(c, a).await,
        nr::__NR_epoll_wait => Box::pin(epoll::wait(c, a, false)).await,
        nr::__NR_epoll_pwait => Box::pin(epoll::wait(c, a, true)).await,
        nr::__NR_epoll_pwait2 => Box::pin(epoll::pwait2(c, a)).await,
        nr::__NR_timerfd_create => epoll::timer_create(c, a),
        nr::__NR_timerfd_settime => epoll::timer_set(c, a).await,
        nr::__NR_timerfd_gettime => epoll::timer_get(c, a).await,

        nr::__NR_socket => sockets::socket(c, a),
        nr::__NR_socketpair => sockets::pair(c, a).await,
        nr::__NR_bind => Box::pin(sockets::bind(c, a)).await,
        nr::__NR_listen => sockets::listen(c, a),
        nr::__NR_connect => Box::pin(sockets::connect(c, a)).await,
        nr::__NR_accept => Box::pin(sockets::accept(c, a, 0)).await,
        nr::__NR_accept4 => Box::pin(sockets::accept(c, a, a[3])).await,
        nr::__NR_shutdown => sockets::shutdown(c, a),
        nr::__NR_getsockname => sockets::name(c, a).await,
        nr::__NR_getpeername => sockets::peer_name(c, a).await,
        nr::__NR_getsockopt => sockets::get_option(c, a).await,
        nr::__NR_setsockopt => sockets::set_option(c, a).await,
        nr::__NR_sendto => Box::pin(messages::send_to(c, a)).await,
        nr::__NR_recvfrom => Box::pin(messages::receive_from(c, a)).await,
        nr::__NR_sendmsg => Box::pin(messages::send(c, a)).await,
        nr::__NR_recvmsg => Box::pin(messages::receive(c, a)).await,
        nr::__NR_sendmmsg => Box::pin(messages::send_many(c, a)).await,
        nr::__NR_recvmmsg => Box::pin(messages::receive_many(c, a)).await,

        nr::__NR_getxattr | nr::__NR_lgetxattr | nr::__NR_fgetxattr => Err(Errno::ENODATA),
        nr::__NR_listxattr | nr::__NR_llistxattr | nr::__NR_flistxattr => Ok(0),
        nr::__NR_setxattr
        | nr::__NR_lsetxattr
        | nr::__NR_fsetxattr
        | nr::__NR_removexattr
        | nr::__NR_lremovexattr
        | nr::__NR_fremovexattr => Err(Errno::EOPNOTSUPP),
        nr::__NR_mount => Box::pin(mounts::mount(c, a)).await,
        nr::__NR_umount2 => Box::pin(mounts::umount(c, a)).await,
        nr::__NR_pivot_root => {
            if c.process.ids.get().euid == 0 {
                Err(Errno::ENOSYS)
            } else {
                Err(Errno::EPERM)
            }
        }
        _ => Err(Errno::ENOSYS),
    }
}

/// preadv2's position: -1 is the file's own.
fn position2(arg: u64) -> Option<u64> {
    (arg != u64::MAX).then_some(arg)
}

impl Caller {
    /// The path argument at `address`.
    pub async fn path(&self, address: u64) -> Result<Vec<u8>, Errno> {
        self.memory().path(address).await
    }

    /// The open file behind a descriptor argument.
    pub fn file(&self, arg: u64) -> Result<Rc<OpenFile>, Errno> {
        let file = self.process.files().get(fd(arg))?;
        self.uses_file(&file);
        Ok(file)
    }

    /// Where a path starts that is relative to the directory `dirfd`.
    pub fn start(&self, dirfd: u64, path: &[u8]) -> Result<Rc<Vnode>, Errno> {
        if path.starts_with(b"/") {
            return Ok(self.process.root());
        }
        if fd(dirfd) == nr::AT_FDCWD {
            return Ok(self.process.cwd());
        }
        let vnode = self.file(dirfd)?.vnode.clone().ok_or(Errno::ENOTDIR)?;
        if vnode.is_directory() {
            Ok(vnode)
        } else {
            Err(Errno::ENOTDIR)
        }
    }

    /// What `dirfd` and a path argument name, with AT_EMPTY_PATH and AT_SYMLINK_NOFOLLOW
    /// among `flags`.
    pub async fn node_at(&self, dirfd: u64, address: u64, flags: u64) -> Result<Node, Errno> {
        let empty_allowed = flags & u64::from(nr::AT_EMPTY_PATH) != 0;
        // Linux takes a null pointer for the empty path here.
        let path = if empty_allowed && address == 0 {
            Vec::new()
        } else {
            self.path(address).await?
        };
        if path.is_empty() && empty_allowed {
            return if fd(dirfd) == nr::AT_FDCWD {
                Ok(Node::File(self.process.cwd()))
            } else {
                self.file(dirfd).map(Node::Open)
            };
        }
        let follow = if flags & u64::from(nr::AT_SYMLINK_NOFOLLOW) != 0 {
            Follow::No
        } else {
            Follow::Yes
        };
        let start = self.start(dirfd, &path)?;
        self.walk(&start, &path, follow).await?.existing()
    }
}
