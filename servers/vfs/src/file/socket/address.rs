//! Names of sockets.

use abi::Errno;
use alloc::vec::Vec;
use linux_raw_sys::net;

/// Bytes of a struct sockaddr_un.
pub const UNIX_LEN: usize = 2 + net::UNIX_PATH_MAX as usize;
/// Bytes of a struct sockaddr_in.
const INET_LEN: usize = 16;

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
    pub fn covers(&self, to: &Address) -> bool {
        match (self, to) {
            (Address::Inet(own, port), Address::Inet(to, to_port)) => {
                port == to_port && (own == to || *own == [0; 4] || *to == [0; 4])
            }
            _ => self == to,
        }
    }
}
