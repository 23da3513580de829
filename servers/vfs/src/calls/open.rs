//! open(2) and mknod(2): finding, making and opening files.

use super::Args;
use super::attributes::resize;
use crate::access::{EXECUTE, READ, WRITE};
use crate::block::BlockDevice;
use crate::device::{major, minor};
use crate::file::{Kind, OpenFile};
use crate::namei::{Follow, Found, Last, Node, place};
use crate::pipe::{Pipe, PipeEnd};
use crate::rights;
use crate::state::Caller;
use crate::vnode::{Cached, Place, Vnode, Writing};
use abi::proto::fs;
use abi::{Errno, capability};
use alloc::boxed::Box;
use alloc::rc::Rc;
use linux_raw_sys::general as linux;

/// openat(2)
pub async fn open(c: &Caller, dirfd: u64, path: u64, flags: u64, mode: u64) -> Result<u64, Errno> {
    let mut flags = flags as u32;
    let (create, directory) = (linux::O_CREAT, linux::O_DIRECTORY);
    let nameless = flags & linux::O_TMPFILE & !directory != 0;
    if flags & linux::O_PATH != 0 {
        flags &= linux::O_PATH | linux::O_CLOEXEC | linux::O_DIRECTORY | linux::O_NOFOLLOW;
    } else if flags & (create | directory) == create | directory
        || nameless && (flags & directory == 0 || flags & linux::O_ACCMODE == linux::O_RDONLY)
    {
        return Err(Errno::EINVAL);
    } else {
        // On 64 bits whatever is opened is.
        flags |= linux::O_LARGEFILE;
    }
    let path = c.path(path).await?;
    let files = c.process.files();
    files.free(0)?;
    c.check_files()?;
    let start = c.start(dirfd, &path)?;
    let file = open_path(c, &start, &path, flags, mode as u32).await?;
    let fd = files.add(0, file, flags & linux::O_CLOEXEC != 0, c.payer())?;
    Ok(fd as u64)
}

/// creat(2)
pub async fn creat(c: &Caller, a: Args) -> Result<u64, Errno> {
    let flags = u64::from(linux::O_CREAT | linux::O_WRONLY | linux::O_TRUNC);
    let cwd = linux::AT_FDCWD as u64;
    open(c, cwd, a[0], flags, a[1]).await
}

/// openat2(2), without its restrictions on the walk.
pub async fn openat2(c: &Caller, a: Args) -> Result<u64, Errno> {
    if a[3] < 24 {
        return Err(Errno::EINVAL);
    }
    if a[3] > 24 {
        let len = (a[3] - 24).min(4096) as usize;
        let extra = c.memory().read_vec(a[2].wrapping_add(24), len).await?;
        if a[3] > 4096 || extra.iter().any(|&b| b != 0) {
            return Err(Errno::E2BIG);
        }
    }
    let mut how = [[0u64; 2]; 2];
    how[0] = c.memory().get(a[2]).await?;
    how[1][0] = c.memory().get(a[2].wrapping_add(16)).await?;
    let [[flags, mode], [resolve, _]] = how;
    if resolve != 0 || flags >> 32 != 0 || mode & !0o7777 != 0 {
        return Err(Errno::EINVAL);
    }
    open(c, a[0], a[1], flags, mode).await
}

/// Opens a path.
pub async fn open_path(
    c: &Caller,
    start: &Rc<Vnode>,
    path: &[u8],
    flags: u32,
    mode: u32,
) -> Result<Rc<OpenFile>, Errno> {
    let create = flags & linux::O_CREAT != 0;
    let exclusive = create && flags & linux::O_EXCL != 0;
    let follow = if exclusive || flags & linux::O_NOFOLLOW != 0 {
        Follow::No
    } else {
        Follow::Yes
    };
    // A directory is not made here, whatever has that name.
    if create && path.ends_with(b"/") {
        let found = c.walk(start, path, Follow::Never).await?;
        if found.last == Last::Name {
            return Err(Errno::EISDIR);
        }
    }
    // Somebody else may make the file between our look and our creation.
    for _ in 0..8 {
        let found = c.walk(start, path, follow).await?;
        let node = match &found.node {
            Some(_) if exclusive => return Err(Errno::EEXIST),
            Some(node) => node.clone(),
            None if !create => return Err(Errno::ENOENT),
            None => {
                let mode = mode & 0o7777 | linux::S_IFREG;
                match make(c, &found, mode, 0).await {
                    Ok(vnode) => {
                        c.made(start, path);
                        // Whoever makes a file may open it whatever its mode says.
                        let place = found.place();
                        return OpenFile::new(c.context(), Kind::File, Some(vnode), place, flags);
                    }
                    Err(Errno::EEXIST) if !exclusive => continue,
                    Err(errno) => return Err(errno),
                }
            }
        };
        if create && let Node::File(vnode) = &node {
            if vnode.is_directory() {
                return Err(Errno::EISDIR);
            }
            c.may_create_at(&found, vnode)?;
        }
        return open_node(c, &node, found.place(), flags).await;
    }
    Err(Errno::EEXIST)
}

/// Opens what a path named.
pub async fn open_node(
    c: &Caller,
    node: &Node,
    place: Option<Place>,
    flags: u32,
) -> Result<Rc<OpenFile>, Errno> {
    let vnode = match node {
        Node::File(vnode) => vnode.clone(),
        Node::Open(file) => match &file.vnode {
            Some(vnode) => return open_vnode(c, vnode.clone(), file.place.clone(), flags).await,
            None => return again(c, file, flags).await,
        },
    };
    open_vnode(c, vnode, place, flags).await
}

/// Opens the object behind /proc/PID/fd/N that has no file: another open file of it.
async fn again(c: &Caller, file: &Rc<OpenFile>, flags: u32) -> Result<Rc<OpenFile>, Errno> {
    if flags & linux::O_DIRECTORY != 0 {
        return Err(Errno::ENOTDIR);
    }
    let access = flags & linux::O_ACCMODE;
    let kind = match &file.kind {
        _ if flags & linux::O_PATH != 0 => Kind::Path,
        Kind::Pipe(end) => {
            let mode = linux::S_IFIFO | 0o600;
            let credentials = c.credentials();
            credentials.check_mode(mode, file.owner.get(), wanted(access))?;
            Kind::Pipe(end.again(access != linux::O_WRONLY, access != linux::O_RDONLY))
        }
        Kind::Device(driver, minor) => {
            let minor = driver.open(c.context(), *minor, flags).await?;
            Kind::Device(driver.clone(), minor)
        }
        Kind::Block(device) => Kind::Block(device.clone()),
        Kind::Event(counter) => Kind::Event(counter.clone()),
        Kind::Timer(timer) => Kind::Timer(timer.clone()),
        Kind::Epoll(epoll) => Kind::Epoll(epoll.clone()),
        // A socket is reached by connect(2).
        Kind::Socket(_) | Kind::File | Kind::Path => return Err(Errno::ENXIO),
    };
    let new = OpenFile::new(c.context(), kind, None, None, flags)?;
    new.owner.set(file.owner.get());
    Ok(new)
}

/// What an access mode of open(2) asks for.
fn wanted(access: u32) -> u32 {
    match access {
        linux::O_RDONLY => READ,
        linux::O_WRONLY => WRITE,
        _ => READ | WRITE,
    }
}

/// Opens a file that exists.
async fn open_vnode(
    c: &Caller,
    vnode: Rc<Vnode>,
    place: Option<Place>,
    flags: u32,
) -> Result<Rc<OpenFile>, Errno> {
    // Even if its inode is remembered.
    vnode.mount.peer.check_alive()?;
    let kind = vnode.kind();
    if flags & linux::O_DIRECTORY != 0 && kind != linux::S_IFDIR {
        return Err(Errno::ENOTDIR);
    }
    if flags & linux::O_PATH != 0 {
        return OpenFile::new(c.context(), Kind::Path, Some(vnode), place, flags);
    }
    if kind == linux::S_IFLNK {
        return Err(Errno::ELOOP);
    }
    if flags & linux::O_TMPFILE == linux::O_TMPFILE {
        c.credentials().check(&vnode, WRITE | EXECUTE)?;
        return Err(Errno::EOPNOTSUPP);
    }
    let mut wanted = wanted(flags & linux::O_ACCMODE);
    if flags & linux::O_TRUNC != 0 {
        wanted |= WRITE;
    }
    if kind == linux::S_IFDIR && (wanted & WRITE != 0 || flags & linux::O_CREAT != 0) {
        return Err(Errno::EISDIR);
    }
    let credentials = c.credentials();
    if !c.own_descriptors(&vnode) {
        credentials.check(&vnode, wanted)?;
    }
    if vnode.mount.is_proc() {
        let (ino, who) = (vnode.ino, c.who());
        let peer = &vnode.mount.peer;
        peer.ask(fs::MayOpen { ino, who }).await?;
    }
    if flags & linux::O_NOATIME != 0 {
        credentials.check_owner(&vnode)?;
    }
    let _writing;
    let opened = match kind {
        linux::S_IFREG | linux::S_IFDIR => {
            // Held until the open file holds its own.
            _writing = if wanted & WRITE != 0 && kind == linux::S_IFREG {
                vnode.mount.check_writable()?;
                Some(Writing::start(&vnode)?)
            } else {
                None
            };
            // Even an empty file: its times change.
            if flags & linux::O_TRUNC != 0 && kind == linux::S_IFREG {
                resize(c, &vnode, 0).await?;
            }
            Kind::File
        }
        linux::S_IFCHR | linux::S_IFBLK
            if vnode.mount.flags.get() & u64::from(linux::MS_NODEV) != 0 =>
        {
            return Err(Errno::EACCES);
        }
        linux::S_IFBLK => {
            let driver = c.vfs.block_driver(major(vnode.rdev()));
            let device = BlockDevice::open(driver.ok_or(Errno::ENXIO)?, minor(vnode.rdev()));
            Kind::Block(Rc::new(Box::pin(device).await?))
        }
        linux::S_IFCHR => {
            let driver = c.vfs.driver(major(vnode.rdev())).ok_or(Errno::ENXIO)?;
            let minor = driver.open(c.context(), minor(vnode.rdev()), flags).await?;
            Kind::Device(driver, minor)
        }
        linux::S_IFIFO => Kind::Pipe(open_fifo(c, &vnode, flags).await?),
        // A socket is reached by connect(2).
        _ => return Err(Errno::ENXIO),
    };
    OpenFile::new(c.context(), opened, Some(vnode), place, flags)
}

/// Makes a file where a walk ended. Applies the umask.
pub async fn make(c: &Caller, found: &Found, mode: u32, rdev: u64) -> Result<Rc<Vnode>, Errno> {
    let directory = &found.directory;
    if found.last != Last::Name || found.node.is_some() {
        return Err(Errno::EEXIST);
    }
    directory.mount.check_writable()?;
    let credentials = c.credentials();
    rights::may_create(&credentials, directory)?;
    let kind = mode & linux::S_IFMT;
    // Whiteouts are everybody's.
    let device = kind == linux::S_IFBLK || kind == linux::S_IFCHR && rdev != 0;
    if device && !credentials.capable(capability::MKNOD) {
        return Err(Errno::EPERM);
    }
    let mode = rights::prepare_mode(&credentials, directory, mode, c.process.umask());
    let (group, mode) = rights::init_owner(&credentials, directory, mode);
    let owner = credentials.uid();
    let charge = c.vnode()?;
    let peer = &directory.mount.peer;
    directory.names_change(&found.name);
    let grant = peer.lend(&found.name)?;
    let created = peer
        .ask(fs::Create {
            dir: directory.ino,
            grant: grant.to(),
            len: found.name.len() as u64,
            mode,
            ids: (owner, group),
            rdev,
        })
        .await;
    drop(grant);
    directory.names_change(&found.name);
    let vnode = directory.mount.adopt(created?, Some(charge));
    place(directory, &found.name, &vnode);
    directory.remember(&found.name, Cached::Present(vnode.clone()));
    Ok(vnode)
}

/// mknodat(2)
pub async fn mknod(c: &Caller, dirfd: u64, path: u64, mode: u64, dev: u64) -> Result<u64, Errno> {
    let mode = mode as u32;
    let kind = match mode & linux::S_IFMT {
        0 => linux::S_IFREG,
        kind @ (linux::S_IFREG | linux::S_IFIFO | linux::S_IFSOCK) => kind,
        kind @ (linux::S_IFCHR | linux::S_IFBLK) => kind,
        linux::S_IFDIR => return Err(Errno::EPERM),
        _ => return Err(Errno::EINVAL),
    };
    let path = c.path(path).await?;
    let start = c.start(dirfd, &path)?;
    let found = c.walk(&start, &path, Follow::Never).await?;
    if found.node.is_none() && found.trailing_slash {
        return Err(Errno::ENOENT);
    }
    let rdev = if matches!(kind, linux::S_IFCHR | linux::S_IFBLK) {
        dev & 0xffff_ffff
    } else {
        0
    };
    make(c, &found, mode & 0o7777 | kind, rdev).await?;
    Ok(0)
}

/// Opens a fifo as Linux does: for reading waits for a writer, for writing for a reader
/// (`ENXIO` with O_NONBLOCK).
async fn open_fifo(c: &Caller, vnode: &Rc<Vnode>, flags: u32) -> Result<PipeEnd, Errno> {
    let access = flags & linux::O_ACCMODE;
    let reads = access != linux::O_WRONLY;
    let writes = access != linux::O_RDONLY;
    let nonblock = flags & linux::O_NONBLOCK != 0;
    let pipe = vnode.fifo.borrow().upgrade();
    let pipe = match pipe {
        Some(pipe) => pipe,
        None => {
            let pipe = Pipe::new(c.context()).ok_or(Errno::ENOMEM)?;
            *vnode.fifo.borrow_mut() = Rc::downgrade(&pipe);
            pipe
        }
    };
    if writes && !reads && nonblock && !pipe.is_read() {
        return Err(Errno::ENXIO);
    }
    let end = PipeEnd::new(&pipe, reads, writes);
    if reads && writes || nonblock {
        return Ok(end);
    }
    let seen = pipe.arrivals();
    loop {
        let now = pipe.arrivals();
        let met = if reads {
            pipe.is_written() || now.1 != seen.1
        } else {
            pipe.is_read() || now.0 != seen.0
        };
        if met {
            return Ok(end);
        }
        pipe.changes.wait(c.context(), false).await?;
    }
}
