//! socket(2) and what is asked of sockets; `messages` sends and receives.

use super::Args;
use super::descriptors::two;
use super::open::make;
use crate::access::{Credentials, WRITE};
use crate::file::socket::address::Address;
use crate::file::socket::transfer::{Outgoing, total};
use crate::file::socket::{self, Socket};
use crate::file::{Kind, OpenFile};
use crate::memory::Memory;
use crate::namei::Follow;
use crate::state::Caller;
use crate::vnode::Vnode;
use abi::Errno;
use alloc::rc::Rc;
use alloc::vec::Vec;
use linux_raw_sys::{general as linux, net};
use zerocopy::IntoBytes;

/// Most bytes of a name (struct sockaddr_storage).
const NAME_MAX: u32 = 128;

impl Caller {
    /// The open file behind a descriptor argument, which is a socket: `ENOTSOCK`.
    pub fn socket(&self, arg: u64) -> Result<(Rc<OpenFile>, Rc<Socket>), Errno> {
        let file = self.file(arg)?;
        match &file.kind {
            Kind::Socket(socket) => {
                let socket = socket.clone();
                Ok((file, socket))
            }
            Kind::Path => Err(Errno::EBADF),
            _ => Err(Errno::ENOTSOCK),
        }
    }

    /// A socket's name in the caller's memory, as bytes.
    async fn name_bytes(&self, address: u64, len: u64) -> Result<Vec<u8>, Errno> {
        if len as u32 > NAME_MAX {
            return Err(Errno::EINVAL);
        }
        self.memory().read_vec(address, len as u32 as usize).await
    }

    /// A socket's name in the caller's memory.
    pub async fn address(&self, socket: &Socket, at: u64, len: u64) -> Result<Address, Errno> {
        Address::parse(&self.name_bytes(at, len).await?, socket.domain)
    }

    /// Writes a name: as much as there is room for, and its whole length. `len` is where both
    /// lengths are.
    pub async fn put_address(&self, name: &Address, at: u64, len: u64) -> Result<(), Errno> {
        let room: i32 = self.memory().get(len).await?;
        let bytes = name.bytes();
        let room = usize::try_from(room).map_err(|_| Errno::EINVAL)?;
        let n = room.min(bytes.len());
        self.memory().write(at, &bytes[..n]).await?;
        self.memory().put(len, &(bytes.len() as u32)).await
    }

    /// The socket with that name: `ECONNREFUSED`, `ENOENT`, `EACCES`, `ENETUNREACH`. On IP there
    /// need not be anybody.
    pub async fn find_socket(
        &self,
        kind: u32,
        name: &Address,
    ) -> Result<Option<Rc<Socket>>, Errno> {
        match name {
            Address::Unnamed => Err(Errno::ECONNREFUSED),
            Address::Abstract(_) => {
                let names = &self.vfs.network.names;
                // A name of another type is not one to connect to.
                names.find(kind, name).map(Some).ok_or(Errno::ECONNREFUSED)
            }
            Address::Inet(address, port) => {
                // There is no network but the loopback.
                if !matches!(address, [127, ..] | [0, 0, 0, 0]) {
                    return Err(Errno::ENETUNREACH);
                }
                let to = Address::Inet(*address, *port);
                Ok(self.vfs.network.names.find(kind, &to))
            }
            Address::Path(path) => {
                let start = self.start(linux::AT_FDCWD as u64, path)?;
                let node = self.walk(&start, path, Follow::Yes).await?.existing()?;
                let vnode = node.vnode()?;
                Credentials::effective(&self.process).check(&vnode, WRITE)?;
                if vnode.kind() != linux::S_IFSOCK {
                    return Err(Errno::ECONNREFUSED);
                }
                let socket = self.vfs.network.bound_to(&vnode);
                let socket = socket.ok_or(Errno::ECONNREFUSED)?;
                if socket.kind != kind {
                    return Err(Errno::EPROTOTYPE);
                }
                Ok(Some(socket))
            }
        }
    }
}

/// Type and flags of socket(2)'s second argument, checked with domain and protocol.
fn parse(a: Args) -> Result<(u32, u32), Errno> {
    // SOCK_CLOEXEC and SOCK_NONBLOCK are the flags of open(2).
    let flags = a[1] as u32 & (linux::O_CLOEXEC | linux::O_NONBLOCK);
    let (domain, kind, protocol) = (a[0] as u32, a[1] as u32 & !flags, a[2] as u32);
    match (domain, kind) {
        (net::AF_UNIX, net::SOCK_STREAM | net::SOCK_DGRAM | net::SOCK_SEQPACKET) => {
            if !matches!(protocol, 0 | net::AF_UNIX) {
                return Err(Errno::EPROTONOSUPPORT);
            }
        }
        (net::AF_INET, net::SOCK_STREAM | net::SOCK_DGRAM) => {
            if protocol != 0 && protocol != inet_protocol(kind) {
                return Err(Errno::EPROTONOSUPPORT);
            }
        }
        (net::AF_INET, net::SOCK_RAW) => return Err(Errno::EPERM),
        (net::AF_UNIX | net::AF_INET, 0..=10) => return Err(Errno::ESOCKTNOSUPPORT),
        (net::AF_UNIX | net::AF_INET, _) => return Err(Errno::EINVAL),
        _ => return Err(Errno::EAFNOSUPPORT),
    }
    Ok((kind, flags))
}

const fn inet_protocol(kind: u32) -> u32 {
    match kind {
        net::SOCK_STREAM => net::IPPROTO_TCP as u32,
        _ => net::IPPROTO_UDP as u32,
    }
}

fn open(c: &Caller, socket: Rc<Socket>, flags: u32) -> Result<Rc<OpenFile>, Errno> {
    let status = linux::O_RDWR | flags & linux::O_NONBLOCK;
    OpenFile::new(c.context(), Kind::Socket(socket), None, None, status)
}

/// socket(2)
pub fn socket(c: &Caller, a: Args) -> Result<u64, Errno> {
    let (kind, flags) = parse(a)?;
    let file = open(
        c,
        Socket::new(c.context(), &c.vfs.network, a[0] as u32, kind)?,
        flags,
    )?;
    let files = c.process.files();
    let fd = files.add(0, file, flags & linux::O_CLOEXEC != 0, c.payer())?;
    Ok(fd as u64)
}

/// socketpair(2)
pub async fn pair(c: &Caller, a: Args) -> Result<u64, Errno> {
    let (kind, flags) = parse(a)?;
    if a[0] as u32 != net::AF_UNIX {
        return Err(Errno::EOPNOTSUPP);
    }
    let [one, other] = Socket::pair(c.context(), &c.vfs.network, kind)?;
    let ends = [open(c, one, flags)?, open(c, other, flags)?];
    two(c, a[3], ends, flags & linux::O_CLOEXEC != 0).await
}

/// bind(2)
pub async fn bind(c: &Caller, a: Args) -> Result<u64, Errno> {
    let (_, socket) = c.socket(a[0])?;
    let name = c.address(&socket, a[1], a[2]).await?;
    // With a path Linux looks at that first.
    if !matches!(name, Address::Path(_)) {
        socket.check_nameless()?;
    }
    let names = &c.vfs.network.names;
    let (name, vnode) = match name {
        Address::Unnamed => {
            let name = Address::Abstract(Vec::new());
            (names.take(&socket, name, true, &c.vfs.base.counters)?, None)
        }
        Address::Abstract(_) => (
            names.take(&socket, name, false, &c.vfs.base.counters)?,
            None,
        ),
        Address::Inet(address, port) => {
            if !matches!(address, [127, ..] | [0, 0, 0, 0]) {
                return Err(Errno::EADDRNOTAVAIL);
            }
            if (1..1024).contains(&port) && c.process.subject.ids.get().euid != 0 {
                return Err(Errno::EACCES);
            }
            (names.take(&socket, name, true, &c.vfs.base.counters)?, None)
        }
        Address::Path(path) => {
            let vnode = bind_path(c, &socket, &path).await?;
            (Address::Path(path), Some(vnode))
        }
    };
    socket.set_name(name, vnode);
    Ok(0)
}

/// Makes the file that carries a socket's name.
async fn bind_path(c: &Caller, socket: &Socket, path: &[u8]) -> Result<Rc<Vnode>, Errno> {
    let start = c.start(linux::AT_FDCWD as u64, path)?;
    let found = c.walk(&start, path, Follow::Never).await?;
    if found.node.is_none() && found.trailing_slash {
        return Err(Errno::ENOENT);
    }
    if found.node.is_none() {
        socket.check_nameless()?;
    }
    make(c, &found, linux::S_IFSOCK | 0o777, 0)
        .await
        .map_err(|errno| match errno {
            Errno::EEXIST => Errno::EADDRINUSE,
            errno => errno,
        })
}

/// listen(2)
pub fn listen(c: &Caller, a: Args) -> Result<u64, Errno> {
    let (_, socket) = c.socket(a[0])?;
    socket.listen(c.context(), a[1] as i32).map(|()| 0)
}

/// connect(2)
pub async fn connect(c: &Caller, a: Args) -> Result<u64, Errno> {
    let (file, socket) = c.socket(a[0])?;
    let bytes = c.name_bytes(a[1], a[2]).await?;
    if socket.kind == net::SOCK_DGRAM && bytes.get(..2) == Some(&[0, 0]) {
        socket.disconnect();
        return Ok(0);
    }
    let name = Address::parse(&bytes, socket.domain)?;
    let peer = c.find_socket(socket.kind, &name).await?;
    if socket.kind == net::SOCK_DGRAM {
        socket.connect_datagram(c.context(), peer.as_ref(), name)?;
        return Ok(0);
    }
    if socket.untold.take() {
        return Ok(0);
    }
    let nonblock = file.nonblocking();
    let connected = match peer {
        Some(server) => socket.connect(c.context(), &server, &name, nonblock).await,
        None => Err(Errno::ECONNREFUSED),
    };
    // TCP never has an answer at once: who does not wait hears of it later.
    if nonblock && socket.domain == net::AF_INET {
        match connected {
            Ok(()) => socket.untold.set(true),
            Err(Errno::ECONNREFUSED) => socket.fail(Errno::ECONNREFUSED),
            Err(errno) => return Err(errno),
        }
        return Err(Errno::EINPROGRESS);
    }
    connected.map(|()| 0)
}

/// accept4(2)
pub async fn accept(c: &Caller, a: Args, flags: u64) -> Result<u64, Errno> {
    let flags = flags as u32;
    if flags & !(linux::O_CLOEXEC | linux::O_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    let (file, socket) = c.socket(a[0])?;
    let files = c.process.files();
    files.free(0)?;
    c.check_files()?;
    let end = socket.accept(c.context(), file.nonblocking()).await?;
    let name = end.peer_name()?;
    let new = files.add(
        0,
        open(c, end, flags)?,
        flags & linux::O_CLOEXEC != 0,
        c.payer(),
    )?;
    if a[1] != 0
        && let Err(errno) = c.put_address(&name, a[1], a[2]).await
    {
        let _ = files.close(new);
        return Err(errno);
    }
    Ok(new as u64)
}

/// shutdown(2)
pub fn shutdown(c: &Caller, a: Args) -> Result<u64, Errno> {
    let (_, socket) = c.socket(a[0])?;
    socket.shutdown(a[1] as u32).map(|()| 0)
}

/// getsockname(2)
pub async fn name(c: &Caller, a: Args) -> Result<u64, Errno> {
    let (_, socket) = c.socket(a[0])?;
    c.put_address(&socket.name(), a[1], a[2]).await.map(|()| 0)
}

/// getpeername(2)
pub async fn peer_name(c: &Caller, a: Args) -> Result<u64, Errno> {
    let (_, socket) = c.socket(a[0])?;
    let name = socket.peer_name()?;
    c.put_address(&name, a[1], a[2]).await.map(|()| 0)
}

/// Writes as much of `value` as the caller's buffer takes, and its length.
async fn answer(c: &Caller, at: u64, len: u64, value: &[u8]) -> Result<u64, Errno> {
    let room: i32 = c.memory().get(len).await?;
    let room = usize::try_from(room).map_err(|_| Errno::EINVAL)?;
    let n = room.min(value.len());
    c.memory().write(at, &value[..n]).await?;
    c.memory().put(len, &(n as u32)).await?;
    Ok(0)
}

/// getsockopt(2)
pub async fn get_option(c: &Caller, a: Args) -> Result<u64, Errno> {
    let (_, socket) = c.socket(a[0])?;
    let (level, option) = (a[1] as u32, a[2] as u32);
    let value = match (level, option) {
        (net::SOL_SOCKET, net::SO_TYPE) => socket.kind as i32,
        (net::SOL_SOCKET, net::SO_DOMAIN) => socket.domain as i32,
        (net::SOL_SOCKET, net::SO_PROTOCOL) => match socket.domain {
            net::AF_INET => inet_protocol(socket.kind) as i32,
            _ => 0,
        },
        (net::SOL_SOCKET, net::SO_ERROR) => socket.take_error().map_or(0, |errno| errno.0),
        (net::SOL_SOCKET, net::SO_ACCEPTCONN) => i32::from(socket.is_listening()),
        (net::SOL_SOCKET, net::SO_LINGER) => return answer(c, a[3], a[4], &[0; 8]).await,
        (net::SOL_SOCKET, net::SO_RCVTIMEO | net::SO_SNDTIMEO) => {
            let ns = match option {
                net::SO_RCVTIMEO => socket.options.receive_timeout.get(),
                _ => socket.options.send_timeout.get(),
            };
            let words = [ns / 1_000_000_000, ns % 1_000_000_000 / 1000];
            return answer(c, a[3], a[4], words.as_bytes()).await;
        }
        (net::SOL_SOCKET, net::SO_PEERCRED) => {
            let peer = socket.peer_sender.get();
            // struct ucred; nobody is -1.
            let (uid, gid) = if peer.pid == 0 {
                (u32::MAX, u32::MAX)
            } else {
                (peer.uid, peer.gid)
            };
            let words = [peer.pid, uid, gid].map(u32::to_ne_bytes);
            return answer(c, a[3], a[4], words.as_flattened()).await;
        }
        _ if level == net::IPPROTO_TCP as u32 && !is_tcp(&socket) => {
            return Err(Errno::EOPNOTSUPP);
        }
        _ => socket.options.get(level, option)?,
    };
    answer(c, a[3], a[4], &value.to_ne_bytes()).await
}

fn is_tcp(socket: &Socket) -> bool {
    socket.domain == net::AF_INET && socket.is_stream()
}

/// setsockopt(2)
pub async fn set_option(c: &Caller, a: Args) -> Result<u64, Errno> {
    let (_, socket) = c.socket(a[0])?;
    let (level, option) = (a[1] as u32, a[2] as u32);
    if level == net::IPPROTO_TCP as u32 && !is_tcp(&socket) {
        return Err(Errno::EOPNOTSUPP);
    }
    if level == net::SOL_SOCKET && matches!(option, net::SO_RCVTIMEO | net::SO_SNDTIMEO) {
        if (a[4] as u32) < 16 {
            return Err(Errno::EINVAL);
        }
        let [seconds, us]: [i64; 2] = c.memory().get(a[3]).await?;
        if !(0..1_000_000).contains(&us) {
            return Err(Errno::EDOM);
        }
        // Linux takes a time before now for no waiting at all.
        let ns = match u64::try_from(seconds) {
            Ok(seconds) => seconds.saturating_mul(1_000_000_000) + us as u64 * 1000,
            Err(_) => 1,
        };
        let timeout = match option {
            net::SO_RCVTIMEO => &socket.options.receive_timeout,
            _ => &socket.options.send_timeout,
        };
        timeout.set(ns);
        return Ok(0);
    }
    if level == net::SOL_SOCKET && option == net::SO_LINGER {
        // Nothing lingers: what is sent is there.
        return if (a[4] as u32) < 8 {
            Err(Errno::EINVAL)
        } else {
            Ok(0)
        };
    }
    if (a[4] as u32) < 4 {
        return Err(Errno::EINVAL);
    }
    let value: i32 = c.memory().get(a[3]).await?;
    socket.options.set(level, option, value).map(|()| 0)
}

/// read(2) and readv(2) of a socket.
pub async fn read(
    c: &Caller,
    socket: &Rc<Socket>,
    segments: &[Memory<'_>],
    nonblock: bool,
) -> Result<u64, Errno> {
    if total(segments) == 0 {
        return Ok(0);
    }
    let offer = socket.receive(c.context(), segments, 0, nonblock).await?;
    Ok(offer.taken as u64)
}

/// write(2) and writev(2) of a socket: one message.
pub async fn write(
    c: &Caller,
    socket: &Rc<Socket>,
    segments: &[Memory<'_>],
    nonblock: bool,
) -> Result<u64, Errno> {
    let outgoing = Outgoing {
        segments,
        rights: Vec::new(),
        to: None,
        sender: socket::sender(c.context()),
        flags: 0,
    };
    socket.send(c.context(), outgoing, nonblock).await
}
