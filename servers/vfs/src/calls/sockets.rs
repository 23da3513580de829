//! What can be asked of an end of a socket pair: a stream socket of AF_UNIX without a name.

use super::{Args, fd};
use crate::file::Kind;
use crate::state::Caller;
use abi::Errno;

const AF_UNIX: u16 = 1;
const SOCK_STREAM: u32 = 1;
const SOL_SOCKET: u64 = 1;
const ENOPROTOOPT: Errno = Errno(92);

/// Options of SOL_SOCKET.
mod option {
    pub const TYPE: u64 = 3;
    pub const ERROR: u64 = 4;
    pub const SNDBUF: u64 = 7;
    pub const RCVBUF: u64 = 8;
    pub const PROTOCOL: u64 = 38;
    pub const DOMAIN: u64 = 39;
}

/// `EBADF`, or `ENOTSOCK` for a descriptor that is none.
fn check(c: &Caller, a: Args) -> Result<(), Errno> {
    let file = c.process.files().get(fd(a[0]))?;
    match &file.kind {
        Kind::Pipe(end) if end.is_socket() => Ok(()),
        _ => Err(Errno::ENOTSOCK),
    }
}

/// Writes as much of `value` as the caller's buffer takes, and `told` as its length.
async fn answer(c: &Caller, at: u64, len: u64, value: &[u8]) -> Result<u64, Errno> {
    let room: i32 = c.memory().get(len).await?;
    let room = usize::try_from(room).map_err(|_| Errno::EINVAL)?;
    let n = room.min(value.len());
    c.memory().write(at, &value[..n]).await?;
    c.memory().put(len, &(value.len() as u32)).await?;
    Ok(0)
}

/// getsockname(2), getpeername(2): the family, no name.
pub async fn name(c: &Caller, a: Args) -> Result<u64, Errno> {
    check(c, a)?;
    answer(c, a[1], a[2], &AF_UNIX.to_ne_bytes()).await
}

/// getsockopt(2).
pub async fn get_option(c: &Caller, a: Args) -> Result<u64, Errno> {
    check(c, a)?;
    let value = match (a[1], a[2]) {
        (SOL_SOCKET, option::TYPE) => SOCK_STREAM,
        (SOL_SOCKET, option::ERROR | option::PROTOCOL) => 0,
        (SOL_SOCKET, option::DOMAIN) => AF_UNIX.into(),
        (SOL_SOCKET, option::SNDBUF | option::RCVBUF) => crate::pipe::CAPACITY as u32,
        _ => return Err(ENOPROTOOPT),
    };
    answer(c, a[3], a[4], &value.to_ne_bytes()).await
}

/// setsockopt(2): sizes are hints and are taken as such.
pub fn set_option(c: &Caller, a: Args) -> Result<u64, Errno> {
    check(c, a)?;
    match (a[1], a[2]) {
        (SOL_SOCKET, option::SNDBUF | option::RCVBUF) => Ok(0),
        _ => Err(ENOPROTOOPT),
    }
}
