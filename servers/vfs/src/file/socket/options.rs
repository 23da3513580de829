//! Options of sockets.

use crate::context::Context;
use abi::Errno;
use alloc::collections::BTreeMap;
use core::cell::{Cell, RefCell};
use linux_raw_sys::net;

/// Linux's default of the send and receive buffers, bytes (net.core.wmem_default).
const BUFFER: u32 = 212_992;
/// The smallest buffer.
const BUFFER_MIN: u32 = 4608;

/// The options of a socket.
pub struct Options {
    send_buffer: Cell<u32>,
    receive_buffer: Cell<u32>,
    /// SO_RCVTIMEO, ns; 0: none.
    pub receive_timeout: Cell<u64>,
    /// SO_SNDTIMEO, ns; 0: none.
    pub send_timeout: Cell<u64>,
    /// SO_PASSCRED.
    pub pass_credentials: Cell<bool>,
    /// Options that are remembered and change nothing here, by level and number.
    others: RefCell<BTreeMap<(u32, u32), i32>>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            send_buffer: Cell::new(BUFFER),
            receive_buffer: Cell::new(BUFFER),
            receive_timeout: Cell::new(0),
            send_timeout: Cell::new(0),
            pass_credentials: Cell::new(false),
            others: RefCell::default(),
        }
    }
}

impl Options {
    /// SO_SNDBUF, bytes.
    pub fn send_size(&self) -> usize {
        self.send_buffer.get() as usize
    }

    /// When a receive that starts now gives up.
    pub fn receive_deadline(&self, c: Context<'_>) -> Option<u64> {
        deadline(c, self.receive_timeout.get())
    }

    /// When a send that starts now gives up.
    pub fn send_deadline(&self, c: Context<'_>) -> Option<u64> {
        deadline(c, self.send_timeout.get())
    }

    /// An option whose value is an int; `ENOPROTOOPT`.
    pub fn get(&self, level: u32, option: u32) -> Result<i32, Errno> {
        match (level, option) {
            (net::SOL_SOCKET, net::SO_SNDBUF) => return Ok(self.send_buffer.get() as i32),
            (net::SOL_SOCKET, net::SO_RCVBUF) => return Ok(self.receive_buffer.get() as i32),
            (net::SOL_SOCKET, net::SO_PASSCRED) => {
                return Ok(i32::from(self.pass_credentials.get()));
            }
            _ => {}
        }
        let initial = initial(level, option)?;
        let others = self.others.borrow();
        Ok(others.get(&(level, option)).copied().unwrap_or(initial))
    }

    /// Sets an option whose value is an int; `ENOPROTOOPT`.
    pub fn set(&self, level: u32, option: u32, value: i32) -> Result<(), Errno> {
        // Linux gives twice what is asked for, within its limit.
        let size = (value.max(0) as u32).min(BUFFER) * 2;
        match (level, option) {
            (net::SOL_SOCKET, net::SO_SNDBUF | net::SO_SNDBUFFORCE) => {
                self.send_buffer.set(size.max(BUFFER_MIN));
            }
            (net::SOL_SOCKET, net::SO_RCVBUF | net::SO_RCVBUFFORCE) => {
                self.receive_buffer.set(size.max(BUFFER_MIN / 2));
            }
            (net::SOL_SOCKET, net::SO_PASSCRED) => self.pass_credentials.set(value != 0),
            _ => {
                let first = initial(level, option)?;
                let flag = level == net::SOL_SOCKET && first == 0 && option != net::SO_PRIORITY;
                let value = if flag { i32::from(value != 0) } else { value };
                self.others.borrow_mut().insert((level, option), value);
            }
        }
        Ok(())
    }
}

fn deadline(c: Context<'_>, timeout: u64) -> Option<u64> {
    (timeout != 0).then(|| c.base.machine.now().saturating_add(timeout))
}

/// What an option that is only remembered is at first; `ENOPROTOOPT`.
fn initial(level: u32, option: u32) -> Result<i32, Errno> {
    const TCP: u32 = net::IPPROTO_TCP as u32;
    const IP: u32 = net::IPPROTO_IP as u32;
    Ok(match (level, option) {
        (
            net::SOL_SOCKET,
            net::SO_REUSEADDR
            | net::SO_REUSEPORT
            | net::SO_KEEPALIVE
            | net::SO_BROADCAST
            | net::SO_DONTROUTE
            | net::SO_OOBINLINE
            | net::SO_PRIORITY
            | net::SO_TIMESTAMP_OLD,
        ) => 0,
        (net::SOL_SOCKET, net::SO_RCVLOWAT | net::SO_SNDLOWAT) => 1,
        (
            TCP,
            net::TCP_NODELAY
            | net::TCP_CORK
            | net::TCP_QUICKACK
            | net::TCP_DEFER_ACCEPT
            | net::TCP_FASTOPEN
            | net::TCP_USER_TIMEOUT,
        ) => 0,
        (TCP, net::TCP_KEEPIDLE) => 7200,
        (TCP, net::TCP_KEEPINTVL) => 75,
        (TCP, net::TCP_KEEPCNT) => 9,
        (TCP, net::TCP_MAXSEG) => 65_483,
        (IP, net::IP_TOS) => 0,
        (IP, net::IP_TTL) => 64,
        _ => return Err(Errno::ENOPROTOOPT),
    })
}
