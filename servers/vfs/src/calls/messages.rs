//! sendmsg(2), recvmsg(2) and their relatives.

use super::Args;
use super::readwrite::{memories, vector};
use crate::fd::OPEN_MAX;
use crate::file::OpenFile;
use crate::file::socket::Socket;
use crate::file::socket::inbox::{Offer, Sender};
use crate::file::socket::transfer::Outgoing;
use crate::file::socket::{self, address::Address};
use crate::memory::Memory;
use crate::state::Caller;
use abi::Errno;
use abi::kernel::user_range;
use alloc::rc::Rc;
use alloc::vec::Vec;
use linux_raw_sys::net;

/// Elements of a message's vector (UIO_MAXIOV), and messages of one call.
const MANY: u64 = 1024;
/// Most bytes of a message's control data (net.core.optmem_max).
const CONTROL_MAX: u64 = 131_072;
/// Files that one message may carry (SCM_MAX_FD).
const RIGHTS_MAX: usize = 253;
/// recvmmsg: only the first message is waited for (linux-raw-sys does not have it).
const MSG_WAITFORONE: u32 = 0x10000;
/// Bytes of a struct cmsghdr.
const HEADER: usize = 16;
/// Bytes of a struct msghdr, and of a struct mmsghdr.
const MESSAGE: u64 = 56;
const MANY_MESSAGE: u64 = 64;

/// A struct msghdr.
struct Header {
    /// Where it is.
    at: u64,
    name: u64,
    name_len: u64,
    segments: Vec<Memory<'static>>,
    control: u64,
    control_len: u64,
}

impl Header {
    async fn read(c: &Caller, at: u64) -> Result<Header, Errno> {
        let [name, name_len, vec, count, control, control_len, _] = c.memory().get(at).await?;
        let name_len = name_len & 0xffff_ffff;
        if name != 0 && i32::try_from(name_len).is_err() {
            return Err(Errno::EINVAL);
        }
        if count > MANY {
            return Err(Errno::EMSGSIZE);
        }
        let who = c.who();
        let segments = vector(c, vec, count).await?;
        Ok(Header {
            at,
            name,
            name_len,
            segments: memories(who, &segments)?,
            control,
            control_len,
        })
    }
}

/// Control data that is sent.
struct Control {
    rights: Vec<Rc<OpenFile>>,
    sender: Sender,
}

async fn control(c: &Caller, header: &Header) -> Result<Control, Errno> {
    let mut found = Control {
        rights: Vec::new(),
        sender: socket::sender(c.context()),
    };
    if header.control == 0 || header.control_len == 0 {
        return Ok(found);
    }
    if header.control_len > CONTROL_MAX {
        return Err(Errno::ENOBUFS);
    }
    let len = header.control_len as usize;
    let bytes = c.memory().read_vec(header.control, len).await?;
    let mut rest = &bytes[..];
    while let Some((&head, _)) = rest.split_first_chunk::<HEADER>() {
        let word = |i: usize| u32::from_le_bytes([head[i], head[i + 1], head[i + 2], head[i + 3]]);
        let len = u64::from(word(0)) | u64::from(word(4)) << 32;
        let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
        if len < HEADER || len > rest.len() {
            return Err(Errno::EINVAL);
        }
        let data = &rest[HEADER..len];
        let words = data
            .chunks_exact(4)
            .map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        match (word(8), word(12)) {
            (net::SOL_SOCKET, net::SCM_RIGHTS) => {
                for fd in words {
                    let file = c.process.files().get(fd)?;
                    file.check_not_path()?;
                    found.rights.push(file);
                }
                if found.rights.len() > RIGHTS_MAX {
                    return Err(Errno::EINVAL);
                }
            }
            (net::SOL_SOCKET, net::SCM_CREDENTIALS) => {
                let three = <[u8; 12]>::try_from(data).map_err(|_| Errno::EINVAL)?;
                let word =
                    |i| u32::from_le_bytes([three[i], three[i + 1], three[i + 2], three[i + 3]]);
                let [pid, uid, gid] = [0, 4, 8].map(word);
                check_credentials(c, Sender { pid, uid, gid })?;
                found.sender = Sender { pid, uid, gid };
            }
            (net::SOL_SOCKET, _) => return Err(Errno::EINVAL),
            _ => {}
        }
        rest = rest.get(len.next_multiple_of(8)..).unwrap_or(&[]);
    }
    Ok(found)
}

/// `EPERM` unless the caller is who it says, or may say what it likes.
fn check_credentials(c: &Caller, sender: Sender) -> Result<(), Errno> {
    let ids = c.process.subject.ids.get();
    let own = sender.pid == c.process.subject.pid
        && [ids.uid, ids.euid].contains(&sender.uid)
        && [ids.gid, ids.egid].contains(&sender.gid);
    if own || ids.euid == 0 {
        Ok(())
    } else {
        Err(Errno::EPERM)
    }
}

/// Whom a message goes to, if it says so.
async fn target(
    c: &Caller,
    socket: &Rc<Socket>,
    name: u64,
    len: u64,
) -> Result<Option<(Rc<Socket>, Address)>, Errno> {
    // Linux does not look at a name where there is a connection, but for AF_UNIX's streams.
    let ignored = match socket.domain {
        net::AF_UNIX => socket.kind == net::SOCK_SEQPACKET,
        _ => socket.is_stream(),
    };
    if name == 0 || len == 0 || ignored {
        return Ok(None);
    }
    let name = c.address(socket, name, len).await?;
    if socket.is_stream() {
        // The stream's own state decides the error.
        return Ok(Some((socket.clone(), name)));
    }
    let peer = c.find_socket(socket.kind, &name).await?;
    // What is sent to nobody on IP is lost: as well sent to a socket that is closed at once.
    let peer = match peer {
        Some(peer) => peer,
        None => Socket::new(c.context(), &c.vfs.network, socket.domain, socket.kind)?,
    };
    Ok(Some((peer, name)))
}

/// sendto(2)
pub async fn send_to(c: &Caller, a: Args) -> Result<u64, Errno> {
    let (file, socket) = c.socket(a[0])?;
    user_range(a[1], a[2])?;
    let outgoing = Outgoing {
        segments: &[Memory::user(c.who(), a[1], a[2])],
        rights: Vec::new(),
        to: target(c, &socket, a[4], a[5] & 0xffff_ffff).await?,
        sender: socket::sender(c.context()),
        flags: a[3] as u32,
    };
    socket.send(c.context(), outgoing, file.nonblocking()).await
}

async fn send_one(c: &Caller, fd: u64, at: u64, flags: u32) -> Result<u64, Errno> {
    let (file, socket) = c.socket(fd)?;
    let header = Header::read(c, at).await?;
    let control = control(c, &header).await?;
    if socket.domain != net::AF_UNIX && !control.rights.is_empty() {
        return Err(Errno::EINVAL);
    }
    let outgoing = Outgoing {
        segments: &header.segments,
        rights: control.rights,
        to: target(c, &socket, header.name, header.name_len).await?,
        sender: control.sender,
        flags,
    };
    socket.send(c.context(), outgoing, file.nonblocking()).await
}

/// sendmsg(2)
pub async fn send(c: &Caller, a: Args) -> Result<u64, Errno> {
    send_one(c, a[0], a[1], a[2] as u32).await
}

/// sendmmsg(2)
pub async fn send_many(c: &Caller, a: Args) -> Result<u64, Errno> {
    c.socket(a[0])?;
    let mut done = 0;
    while done < (a[2] & 0xffff_ffff).min(MANY) {
        let at = a[1].wrapping_add(done * MANY_MESSAGE);
        let sent = async {
            let n = send_one(c, a[0], at, a[3] as u32).await?;
            c.memory().put(at.wrapping_add(MESSAGE), &(n as u32)).await
        };
        match sent.await {
            Ok(()) => done += 1,
            Err(errno) if done == 0 => return Err(errno),
            Err(_) => break,
        }
    }
    Ok(done)
}

/// What recv says of its result: the bytes, or with MSG_TRUNC those there were.
fn length(socket: &Socket, offer: &Offer, flags: u32) -> u64 {
    if flags & net::MSG_TRUNC != 0 && !socket.is_stream() {
        offer.whole as u64
    } else {
        offer.taken as u64
    }
}

/// recvfrom(2)
pub async fn receive_from(c: &Caller, a: Args) -> Result<u64, Errno> {
    let (file, socket) = c.socket(a[0])?;
    user_range(a[1], a[2])?;
    let flags = a[3] as u32;
    let memory = Memory::user(c.who(), a[1], a[2]);
    let offer = socket
        .receive(c.context(), &[memory], flags, file.nonblocking())
        .await?;
    let length = length(&socket, &offer, flags);
    if a[4] != 0 {
        match &offer.from {
            Some(from) => c.put_address(from, a[4], a[5]).await?,
            None => c.memory().put(a[5], &0u32).await?,
        }
    }
    Ok(length)
}

/// Appends an element of control data if all of it fits; whether it did.
fn append(out: &mut Vec<u8>, room: usize, kind: u32, data: &[u8]) -> bool {
    let start = out.len().next_multiple_of(8);
    let len = HEADER + data.len();
    if start + len > room {
        return false;
    }
    out.resize(start, 0);
    out.extend_from_slice(&(len as u64).to_ne_bytes());
    out.extend_from_slice(&net::SOL_SOCKET.to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(8).min(room), 0);
    true
}

async fn receive_one(c: &Caller, fd: u64, at: u64, flags: u32) -> Result<u64, Errno> {
    let (file, socket) = c.socket(fd)?;
    let header = Header::read(c, at).await?;
    let segments = &header.segments;
    let offer = socket
        .receive(c.context(), segments, flags, file.nonblocking())
        .await?;
    let length = length(&socket, &offer, flags);
    let mut told = 0;
    if offer.whole > offer.taken && !socket.is_stream() {
        told |= net::MSG_TRUNC;
    }
    let mut out = Vec::new();
    let room = if header.control == 0 {
        0
    } else {
        header.control_len.min(CONTROL_MAX) as usize
    };
    if socket.options.pass_credentials.get() {
        let sender = offer.sender;
        let words = [sender.pid, sender.uid, sender.gid].map(u32::to_ne_bytes);
        if !append(&mut out, room, net::SCM_CREDENTIALS, words.as_flattened()) {
            told |= net::MSG_CTRUNC;
        }
    }
    let mut fds = Vec::new();
    if !offer.rights.is_empty() {
        let room = room.saturating_sub(out.len().next_multiple_of(8) + HEADER) / 4;
        let files = c.process.files();
        let close_on_exec = flags & net::MSG_CMSG_CLOEXEC != 0;
        for file in offer.rights.iter().take(room.min(OPEN_MAX)) {
            match files.add(0, file.clone(), close_on_exec, c.payer()) {
                Ok(fd) => fds.push(fd),
                Err(_) => break,
            }
        }
        if fds.len() < offer.rights.len() {
            told |= net::MSG_CTRUNC;
        }
        if !fds.is_empty() {
            let bytes: Vec<_> = fds.iter().map(|fd| fd.to_ne_bytes()).collect();
            append(
                &mut out,
                header.control_len as usize,
                net::SCM_RIGHTS,
                bytes.as_flattened(),
            );
        }
    }
    // Control data that has no room is cut off.
    if c.memory().write(header.control, &out).await.is_err() {
        out.clear();
        for fd in fds {
            told |= net::MSG_CTRUNC;
            let _ = c.process.files().close(fd);
        }
    }
    let written = write_back(c, &header, &offer, out.len(), told).await;
    c.vfs.network.bury(offer.rights);
    written.map(|()| length)
}

/// What recvmsg tells besides the data and its control data, of which there are `control` bytes.
async fn write_back(
    c: &Caller,
    header: &Header,
    offer: &Offer,
    control: usize,
    flags: u32,
) -> Result<(), Errno> {
    let memory = c.memory();
    if header.name != 0 {
        match &offer.from {
            Some(from) => {
                let bytes = from.bytes();
                let n = bytes.len().min(header.name_len as usize);
                memory.write(header.name, &bytes[..n]).await?;
                memory.put(header.at + 8, &(bytes.len() as u32)).await?;
            }
            None => memory.put(header.at + 8, &0u32).await?,
        }
    }
    memory.put(header.at + 40, &(control as u64)).await?;
    memory.put(header.at + 48, &flags).await
}

/// recvmsg(2)
pub async fn receive(c: &Caller, a: Args) -> Result<u64, Errno> {
    receive_one(c, a[0], a[1], a[2] as u32).await
}

/// recvmmsg(2): like Linux, the time is looked at between messages only.
pub async fn receive_many(c: &Caller, a: Args) -> Result<u64, Errno> {
    let (_, socket) = c.socket(a[0])?;
    let deadline = match a[4] {
        0 => None,
        address => {
            let ns = super::readiness::timespec(c.memory().get(address).await?)?;
            Some(c.vfs.base.machine.now().saturating_add(ns))
        }
    };
    let mut flags = a[3] as u32;
    let wait_for_one = flags & MSG_WAITFORONE != 0;
    flags &= !MSG_WAITFORONE;
    let mut done = 0;
    while done < (a[2] & 0xffff_ffff).min(MANY) {
        let at = a[1].wrapping_add(done * MANY_MESSAGE);
        let received = async {
            let n = receive_one(c, a[0], at, flags).await?;
            c.memory().put(at.wrapping_add(MESSAGE), &(n as u32)).await
        };
        match received.await {
            Ok(()) => done += 1,
            Err(errno) if done == 0 => return Err(errno),
            // The next call tells it.
            Err(errno) => {
                if errno != Errno::EAGAIN {
                    socket.error.set(Some(errno));
                }
                break;
            }
        }
        if wait_for_one {
            flags |= net::MSG_DONTWAIT;
        }
        if deadline.is_some_and(|deadline| c.vfs.base.machine.now() >= deadline) {
            break;
        }
    }
    Ok(done)
}
