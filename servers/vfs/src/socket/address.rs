//! Names of sockets, and who has which.

use crate::socket::Socket;
use crate::state::Counters;
use abi::Errno;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::rc::{Rc, Weak};
use alloc::vec::Vec;
use core::cell::RefCell;
use linux_raw_sys::net;

/// Bytes of a struct sockaddr_un.
pub const UNIX_LEN: usize = 2 + net::UNIX_PATH_MAX as usize;
/// Bytes of a struct sockaddr_in.
const INET_LEN: usize = 16;
/// The ports given to who asks for none in particular.
const EPHEMERAL: core::ops::RangeInclusive<u16> = 32768..=60999;

/// A name, as programs give it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Address {
    /// None (AF_UNIX).
    Unnamed,
    /// A path, without its NUL.
    Path(Vec<u8>),
    /// A name that is no path: what follows the leading NUL.
    Abstract(Vec<u8>),
    /// IPv4 address and port.
    Inet([u8; 4], u16),
}

impl Address {
    /// The name that a socket of `domain` has without one.
    pub fn none(domain: u32) -> Address {
        match domain {
            net::AF_INET => Address::Inet([0; 4], 0),
            _ => Address::Unnamed,
        }
    }

    /// From a struct sockaddr of a socket of `domain`: `EINVAL`, `EAFNOSUPPORT`.
    pub fn parse(bytes: &[u8], domain: u32) -> Result<Address, Errno> {
        let (&[f0, f1], rest) = bytes.split_first_chunk().ok_or(Errno::EINVAL)?;
        let family = u32::from(u16::from_ne_bytes([f0, f1]));
        if family != domain {
            return Err(match domain {
                net::AF_UNIX => Errno::EINVAL,
                _ => Errno::EAFNOSUPPORT,
            });
        }
        if domain == net::AF_INET {
            let &[p0, p1, a, b, c, d, ..] = rest else {
                return Err(Errno::EINVAL);
            };
            if bytes.len() < INET_LEN {
                return Err(Errno::EINVAL);
            }
            return Ok(Address::Inet([a, b, c, d], u16::from_be_bytes([p0, p1])));
        }
        match rest {
            _ if bytes.len() > UNIX_LEN => Err(Errno::EINVAL),
            [] => Ok(Address::Unnamed),
            [0, name @ ..] => Ok(Address::Abstract(name.to_vec())),
            path => {
                let len = path.iter().position(|&b| b == 0).unwrap_or(path.len());
                Ok(Address::Path(path[..len].to_vec()))
            }
        }
    }

    /// As a struct sockaddr.
    pub fn bytes(&self) -> Vec<u8> {
        let family = match self {
            Address::Inet(..) => net::AF_INET,
            _ => net::AF_UNIX,
        };
        let mut bytes = Vec::from((family as u16).to_ne_bytes());
        match self {
            Address::Unnamed => {}
            Address::Path(path) => {
                bytes.extend_from_slice(path);
                bytes.push(0);
            }
            Address::Abstract(name) => {
                bytes.push(0);
                bytes.extend_from_slice(name);
            }
            Address::Inet(address, port) => {
                bytes.extend_from_slice(&port.to_be_bytes());
                bytes.extend_from_slice(address);
                bytes.resize(INET_LEN, 0);
            }
        }
        bytes
    }

    /// Whether a socket with this name receives what is sent to `to`.
    fn covers(&self, to: &Address) -> bool {
        match (self, to) {
            (Address::Inet(own, port), Address::Inet(to, to_port)) => {
                port == to_port && (own == to || *own == [0; 4] || *to == [0; 4])
            }
            _ => self == to,
        }
    }
}

/// Names that are no files, by the type of their sockets. Those of sockets that are gone are
/// swept out when they are in the way.
#[derive(Default)]
pub struct Names(RefCell<BTreeMap<(u32, Address), Weak<Socket>>>);

impl Names {
    /// The socket of type `kind` that `to` names.
    pub fn find(&self, kind: u32, to: &Address) -> Option<Rc<Socket>> {
        let names = self.0.borrow();
        if let Some(socket) = names.get(&(kind, to.clone())) {
            return socket.upgrade();
        }
        let Address::Inet(..) = to else {
            return None;
        };
        let mut same_kind = names.iter().filter(|((k, _), _)| *k == kind);
        same_kind.find_map(|((_, name), socket)| socket.upgrade().filter(|_| name.covers(to)))
    }

    /// Whether nobody has `name`, or a name that covers it.
    fn is_free(&self, kind: u32, name: &Address) -> bool {
        let names = self.0.borrow();
        !names.iter().any(|((k, other), socket)| {
            *k == kind && socket.strong_count() > 0 && other.covers(name)
        })
    }

    /// Gives `socket` a name: `EADDRINUSE`. A port 0, and an abstract name of no bytes when
    /// `choose`, are replaced by free ones.
    pub fn take(
        &self,
        socket: &Rc<Socket>,
        name: Address,
        choose: bool,
        counters: &Counters,
    ) -> Result<Address, Errno> {
        self.0
            .borrow_mut()
            .retain(|_, socket| socket.strong_count() > 0);
        let free = |name: &Address| self.is_free(socket.kind, name);
        let name = match name {
            Address::Inet(address, 0) => EPHEMERAL
                .map(|port| Address::Inet(address, port))
                .find(free)
                .ok_or(Errno::EADDRINUSE)?,
            Address::Abstract(name) if choose && name.is_empty() => (0..0x10_0000)
                .map(|_| counters.unique() & 0xf_ffff)
                .map(|n| Address::Abstract(format!("{n:05x}").into_bytes()))
                .find(free)
                .ok_or(Errno::EADDRINUSE)?,
            name if free(&name) => name,
            _ => return Err(Errno::EADDRINUSE),
        };
        let key = (socket.kind, name.clone());
        self.0.borrow_mut().insert(key, Rc::downgrade(socket));
        Ok(name)
    }
}
