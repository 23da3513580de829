//! Sockets: AF_UNIX, and AF_INET within the machine, which has a loopback and nothing else.
//!
//! As with pipes, data is taken out only when it has reached the receiver, and between a copy
//! and its bookkeeping nothing waits. A socket refers weakly to its peer; each tells the other
//! of its end.

pub mod address;
pub mod inbox;
pub mod names;
pub mod network;
pub mod options;
pub mod transfer;

use crate::changes::{Changes, READABLE, WRITABLE};
use crate::context::Context;
use crate::vnode::Vnode;
use abi::Errno;
use address::Address;
use alloc::collections::VecDeque;
use alloc::rc::{Rc, Weak};
use core::cell::{Cell, RefCell};
use inbox::{Inbox, Sender};
use linux_raw_sys::{general as linux, ioctl as requests, net};
use network::Network;
use options::Options;
use rt::charge::Charge;

/// No more will be received.
const RECEIVE: u32 = 1;
/// No more can be sent.
const SEND: u32 = 2;
/// Most connections that wait to be accepted (SOMAXCONN).
const BACKLOG_MAX: usize = 4096;
/// Bytes that a socket takes before anything is sent to it.
const SOCKET_COST: u64 = 1024;
/// Packets a datagram socket holds before its senders wait, on Linux
/// /proc/sys/net/unix/max_dgram_qlen.
const DATAGRAMS_MAX: usize = 10;

/// The machine's own address.
pub const LOOPBACK: [u8; 4] = [127, 0, 0, 1];

/// How far a socket has come.
enum State {
    /// Made.
    Idle,
    /// listen(2): connections that wait to be accepted, and how many may.
    Listening(VecDeque<Rc<Socket>>, usize),
    /// connect(2), accept(2) or socketpair(2).
    Connected,
}

/// A socket.
pub struct Socket {
    /// Its number, for /proc/PID/fd and fstat.
    pub id: u64,
    /// AF_UNIX or AF_INET.
    pub domain: u32,
    /// SOCK_STREAM, SOCK_DGRAM or SOCK_SEQPACKET.
    pub kind: u32,
    state: RefCell<State>,
    name: RefCell<Option<Rc<Address>>>,
    /// The file that carries the name, kept so that it stays the same vnode.
    bound_to: RefCell<Option<Rc<Vnode>>>,
    peer: RefCell<Weak<Socket>>,
    peer_name: RefCell<Option<Rc<Address>>>,
    /// SO_PEERCRED.
    pub peer_sender: Cell<Sender>,
    /// What was sent to it.
    pub(crate) inbox: RefCell<Inbox>,
    shut: Cell<u32>,
    /// SO_ERROR.
    pub error: Cell<Option<Errno>>,
    /// It is connected, which connect(2) has yet to say.
    pub untold: Cell<bool>,
    /// setsockopt(2).
    pub options: Options,
    /// What waits for it.
    pub changes: Changes,
    network: Rc<Network>,
    _charge: Charge,
}

/// Who makes a call.
pub fn sender(c: Context<'_>) -> Sender {
    let ids = c.subject.ids.get();
    Sender {
        pid: c.subject.pid,
        uid: ids.euid,
        gid: ids.egid,
    }
}

impl Socket {
    /// A socket without a name. `ENOBUFS`.
    pub fn new(
        c: Context<'_>,
        network: &Rc<Network>,
        domain: u32,
        kind: u32,
    ) -> Result<Rc<Socket>, Errno> {
        let base = c.base;
        let charge = base.accounts.sockets.charge(c.payer(), SOCKET_COST);
        let charge = charge.ok_or(Errno::ENOBUFS)?;
        let socket = Rc::new(Socket {
            id: base.counters.unique(),
            domain,
            kind,
            state: RefCell::new(State::Idle),
            name: RefCell::new(None),
            bound_to: RefCell::new(None),
            peer: RefCell::new(Weak::new()),
            peer_name: RefCell::new(None),
            peer_sender: Cell::default(),
            inbox: RefCell::default(),
            shut: Cell::new(0),
            error: Cell::new(None),
            untold: Cell::new(false),
            options: Options::default(),
            changes: Changes::new(base),
            network: network.clone(),
            _charge: charge,
        });
        network.register(&socket);
        Ok(socket)
    }

    /// Two that are connected.
    pub fn pair(
        c: Context<'_>,
        network: &Rc<Network>,
        kind: u32,
    ) -> Result<[Rc<Socket>; 2], Errno> {
        let one = Socket::new(c, network, net::AF_UNIX, kind)?;
        let pair = [one, Socket::new(c, network, net::AF_UNIX, kind)?];
        let [one, other] = &pair;
        one.join(other, sender(c));
        other.join(one, sender(c));
        Ok(pair)
    }

    /// Is connected to `peer` from now on, which is `sender`.
    fn join(&self, peer: &Rc<Socket>, sender: Sender) {
        *self.peer.borrow_mut() = Rc::downgrade(peer);
        *self.peer_name.borrow_mut() = peer.name.borrow().clone();
        self.peer_sender.set(sender);
        self.shut.set(0);
        *self.state.borrow_mut() = State::Connected;
    }

    /// Whether data has no borders.
    pub fn is_stream(&self) -> bool {
        self.kind == net::SOCK_STREAM
    }

    /// Whether it needs a connection.
    fn is_connecting(&self) -> bool {
        self.kind != net::SOCK_DGRAM
    }

    /// SO_ACCEPTCONN.
    pub fn is_listening(&self) -> bool {
        matches!(*self.state.borrow(), State::Listening(..))
    }

    fn is_connected(&self) -> bool {
        matches!(*self.state.borrow(), State::Connected)
    }

    /// getsockname(2)
    pub fn name(&self) -> Address {
        let name = self.name.borrow();
        name.as_ref()
            .map_or_else(|| Address::none(self.domain), |name| (**name).clone())
    }

    /// getpeername(2): `ENOTCONN`.
    pub fn peer_name(&self) -> Result<Address, Errno> {
        if !self.is_connected() {
            return Err(Errno::ENOTCONN);
        }
        let name = self.peer_name.borrow();
        Ok(name
            .as_ref()
            .map_or_else(|| Address::none(self.domain), |name| (**name).clone()))
    }

    /// Whether it may still be given a name: `EINVAL`.
    pub fn check_nameless(&self) -> Result<(), Errno> {
        match *self.name.borrow() {
            Some(_) => Err(Errno::EINVAL),
            None => Ok(()),
        }
    }

    /// Has a name from now on; `vnode` carries it if it is a path.
    pub fn set_name(self: &Rc<Self>, name: Address, vnode: Option<Rc<Vnode>>) {
        if let Some(vnode) = &vnode {
            self.network.bind(vnode, self);
        }
        *self.bound_to.borrow_mut() = vnode;
        *self.name.borrow_mut() = Some(Rc::new(name));
    }

    /// A name for who needs one and has none: a free port.
    pub fn name_itself(self: &Rc<Self>, c: Context<'_>) -> Result<(), Errno> {
        if self.domain != net::AF_INET || self.name.borrow().is_some() {
            return Ok(());
        }
        let name = Address::Inet(LOOPBACK, 0);
        let names = &self.network.names;
        let name = names.take(self, name, true, &c.base.counters)?;
        self.set_name(name, None);
        Ok(())
    }

    /// listen(2)
    pub fn listen(self: &Rc<Self>, c: Context<'_>, backlog: i32) -> Result<(), Errno> {
        if !self.is_connecting() {
            return Err(Errno::EOPNOTSUPP);
        }
        self.name_itself(c)?;
        if self.name.borrow().is_none() || self.is_connected() {
            return Err(Errno::EINVAL);
        }
        // Linux lets one more wait than was asked for, and takes a negative number for many.
        let backlog = usize::try_from(backlog).map_or(BACKLOG_MAX, |n| n.min(BACKLOG_MAX)) + 1;
        self.peer_sender.set(sender(c));
        let mut state = self.state.borrow_mut();
        match &mut *state {
            State::Listening(_, most) => *most = backlog,
            state => *state = State::Listening(VecDeque::new(), backlog),
        }
        drop(state);
        self.changes.both();
        Ok(())
    }

    /// connect(2) of what needs a connection to a `server` that listens.
    pub async fn connect(
        self: &Rc<Self>,
        c: Context<'_>,
        server: &Rc<Socket>,
        to: &Address,
        nonblock: bool,
    ) -> Result<(), Errno> {
        let to = Rc::new(match *to {
            Address::Inet([0, 0, 0, 0], port) => Address::Inet(LOOPBACK, port),
            _ => to.clone(),
        });
        loop {
            if self.is_connected() {
                return Err(Errno::EISCONN);
            }
            if self.is_listening() {
                return Err(Errno::EINVAL);
            }
            if server.kind != self.kind {
                return Err(Errno::EPROTOTYPE);
            }
            match &mut *server.state.borrow_mut() {
                State::Listening(waiting, most) if waiting.len() < *most => {
                    self.name_itself(c)?;
                    waiting.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
                    let end = Socket::new(c, &self.network, self.domain, self.kind)?;
                    *end.name.borrow_mut() = Some(to.clone());
                    end.join(self, sender(c));
                    self.join(&end, server.peer_sender.get());
                    *self.peer_name.borrow_mut() = Some(to);
                    waiting.push_back(end);
                    break;
                }
                State::Listening(..) => {}
                _ => return Err(Errno::ECONNREFUSED),
            }
            let deadline = self.options.send_deadline(c);
            if nonblock {
                return Err(Errno::EAGAIN);
            }
            server.changes.wait_until(c, deadline).await?;
        }
        server.changes.input();
        self.changes.output();
        Ok(())
    }

    /// connect(2) of a datagram socket: where it sends to, and whom it hears, from now on.
    /// `peer` is who has that name; on IP there need not be anybody.
    pub fn connect_datagram(
        self: &Rc<Self>,
        c: Context<'_>,
        peer: Option<&Rc<Socket>>,
        name: Address,
    ) -> Result<(), Errno> {
        self.name_itself(c)?;
        if let Some(peer) = peer {
            if self.domain == net::AF_UNIX && !peer.hears(self) {
                return Err(Errno::EPERM);
            }
            *self.peer.borrow_mut() = Rc::downgrade(peer);
        }
        *self.peer_name.borrow_mut() = Some(Rc::new(name));
        *self.state.borrow_mut() = State::Connected;
        self.changes.both();
        Ok(())
    }

    /// connect(2) to no family: a datagram socket sends to nobody in particular again.
    pub fn disconnect(&self) {
        *self.peer.borrow_mut() = Weak::new();
        *self.peer_name.borrow_mut() = None;
        *self.state.borrow_mut() = State::Idle;
        self.changes.both();
    }

    /// Whether this datagram socket hears what `from` sends.
    fn hears(&self, from: &Rc<Socket>) -> bool {
        if !self.is_connected() {
            return true;
        }
        if self.domain == net::AF_UNIX {
            return core::ptr::eq(self.peer.borrow().as_ptr(), Rc::as_ptr(from));
        }
        *self.peer_name.borrow() == from.outward_name()
    }

    /// Its name as others see it: what is bound to every address sends from this machine's.
    fn outward_name(&self) -> Option<Rc<Address>> {
        let name = self.name.borrow().clone()?;
        match *name {
            Address::Inet([0, 0, 0, 0], port) => Some(Rc::new(Address::Inet(LOOPBACK, port))),
            _ => Some(name),
        }
    }

    /// accept(2): the server's end of the next connection.
    pub async fn accept(&self, c: Context<'_>, nonblock: bool) -> Result<Rc<Socket>, Errno> {
        let deadline = self.options.receive_deadline(c);
        loop {
            match &mut *self.state.borrow_mut() {
                State::Listening(waiting, _) => {
                    if let Some(end) = waiting.pop_front() {
                        self.changes.output();
                        return Ok(end);
                    }
                    if self.shut.get() & RECEIVE != 0 {
                        return Err(Errno::EINVAL);
                    }
                }
                _ if self.is_connecting() => return Err(Errno::EINVAL),
                _ => return Err(Errno::EOPNOTSUPP),
            }
            if nonblock {
                return Err(Errno::EAGAIN);
            }
            self.changes.wait_until(c, deadline).await?;
        }
    }

    /// shutdown(2): `ENOTCONN`, `EINVAL`.
    pub fn shutdown(&self, how: u32) -> Result<(), Errno> {
        // Over TCP the peer never hears that nobody reads.
        let unheard = if self.domain == net::AF_INET { 0 } else { SEND };
        let (own, others) = match how {
            net::SHUT_RD => (RECEIVE, unheard),
            net::SHUT_WR => (SEND, RECEIVE),
            net::SHUT_RDWR => (RECEIVE | SEND, RECEIVE | unheard),
            _ => return Err(Errno::EINVAL),
        };
        if !self.is_connected() && !self.is_listening() && self.domain == net::AF_INET {
            return Err(Errno::ENOTCONN);
        }
        self.shut(own);
        if self.is_connecting()
            && let Some(peer) = self.peer.borrow().upgrade()
        {
            peer.shut(others);
        }
        Ok(())
    }

    fn shut(&self, what: u32) {
        self.shut.set(self.shut.get() | what);
        self.changes.both();
    }

    /// The connection is broken, which is told once.
    pub fn fail(&self, errno: Errno) {
        self.error.set(Some(errno));
        self.shut(RECEIVE | SEND);
    }

    /// The peer's connection is broken.
    fn reset_peer(&self) {
        if let Some(peer) = self.peer.borrow().upgrade() {
            peer.fail(Errno::ECONNRESET);
        }
    }

    /// The error to tell once.
    pub fn take_error(&self) -> Option<Errno> {
        self.error.take()
    }

    /// FIONREAD and SIOCOUTQ: bytes to receive, bytes sent and not received.
    pub fn queued(&self, request: u32) -> Option<usize> {
        match request {
            requests::FIONREAD => Some(self.inbox.borrow().readable(self.is_connecting())),
            requests::TIOCOUTQ => {
                let peer = self.peer.borrow().upgrade();
                Some(peer.map_or(0, |peer| peer.inbox.borrow().cost()))
            }
            _ => None,
        }
    }

    /// Whether there is room for what `from` sends.
    fn has_room(&self, from: &Socket) -> bool {
        let inbox = self.inbox.borrow();
        let few = self.is_connecting() || inbox.len() <= DATAGRAMS_MAX;
        few && inbox.cost() < from.options.send_size()
    }

    /// POLL* bits.
    pub fn poll(&self) -> u32 {
        let mut ready = 0;
        let shut = self.shut.get();
        if let State::Listening(waiting, _) = &*self.state.borrow() {
            let readable = !waiting.is_empty() || shut & RECEIVE != 0;
            return if readable { READABLE } else { 0 };
        }
        if self.error.get().is_some() {
            ready |= linux::POLLERR;
        }
        if !self.inbox.borrow().is_empty() {
            ready |= READABLE;
        }
        if shut & RECEIVE != 0 {
            ready |= READABLE | linux::POLLRDHUP;
        }
        let alone = self.is_connecting() && !self.is_connected();
        if shut == RECEIVE | SEND || alone {
            ready |= linux::POLLHUP;
        }
        let room = match self.peer.borrow().upgrade() {
            // Told when a good part is free, not for each byte.
            Some(peer) if self.is_connecting() => {
                2 * peer.inbox.borrow().cost() <= self.options.send_size()
            }
            Some(peer) if self.domain == net::AF_UNIX => peer.has_room(self),
            _ => true,
        };
        if room || shut & SEND != 0 {
            ready |= WRITABLE | linux::POLLWRBAND;
        }
        ready
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let unread = !self.inbox.borrow().is_empty();
        if let State::Listening(waiting, _) = &*self.state.borrow() {
            for end in waiting {
                end.reset_peer();
            }
        }
        if let Some(peer) = self.peer.borrow().upgrade() {
            if self.is_connecting() {
                match self.domain {
                    _ if unread => self.reset_peer(),
                    // TCP says only that nothing more will come.
                    net::AF_INET => peer.shut(RECEIVE),
                    _ => peer.shut(RECEIVE | SEND),
                }
            } else {
                peer.changes.both();
            }
        }
        // Senders that wait for room find nobody.
        self.changes.both();
        self.network.forget(self.id);
        if let Some(vnode) = self.bound_to.take() {
            self.network.unbind(&vnode);
        }
        self.network.bury_all(&self.inbox);
    }
}
