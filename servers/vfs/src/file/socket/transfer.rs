//! Sending and receiving.

use super::address::Address;
use super::inbox::{Offer, PACKET_COST, PIECE, Packet};
use super::{RECEIVE, SEND, Socket};
use crate::context::Context;
use crate::file::OpenFile;
use crate::memory::{Memory, copy_out};
use crate::transfer::{repair, repairable};
use crate::user::zeroed;
use abi::Errno;
use alloc::rc::Rc;
use alloc::vec::Vec;
use linux_raw_sys::{general as linux, net};
use rt::charge::Charge;
use rt::room;

/// What to send.
pub struct Outgoing<'a> {
    /// The data.
    pub segments: &'a [Memory<'a>],
    /// Files that go with the first byte.
    pub rights: Vec<Rc<OpenFile>>,
    /// To whom, if not to the peer.
    pub to: Option<(Rc<Socket>, Address)>,
    /// In whose name.
    pub sender: super::Sender,
    /// MSG_*.
    pub flags: u32,
}

/// Bytes of all segments.
pub fn total(segments: &[Memory<'_>]) -> u64 {
    segments.iter().map(Memory::len).sum()
}

/// Reads `len` bytes after the first `skip` of the segments.
async fn gather(
    c: Context<'_>,
    segments: &[Memory<'_>],
    skip: u64,
    len: u64,
) -> Result<Vec<u8>, Errno> {
    let mut data = zeroed(len as usize)?;
    let (mut skip, mut done) = (skip, 0);
    for segment in segments {
        let piece = segment.after(skip).first(len - done);
        skip = skip.saturating_sub(segment.len());
        let to = &mut data[done as usize..][..piece.len() as usize];
        match piece {
            Memory::User { who, address, .. } => {
                c.memory_of(who).read(address, to).await?;
            }
            Memory::Data(data) => to.copy_from_slice(data),
            Memory::Buffer(_) => return Err(Errno::EFAULT),
        }
        done += piece.len();
    }
    Ok(data)
}

/// Copies `data` into the segments without waiting; the memory that was not there otherwise.
fn scatter<'s>(
    c: Context<'_>,
    segments: &[Memory<'s>],
    data: &[u8],
) -> Result<(), (Memory<'s>, Errno)> {
    let mut rest = data;
    for segment in segments {
        let (now, then) = rest.split_at(rest.len().min(segment.len() as usize));
        let piece = segment.first(now.len() as u64);
        if !now.is_empty() {
            copy_out(&*c.base.machine, piece, now).map_err(|errno| (piece, errno))?;
        }
        rest = then;
    }
    Ok(())
}

impl Socket {
    /// Sends: bytes sent.
    pub async fn send(
        self: &Rc<Self>,
        c: Context<'_>,
        mut what: Outgoing<'_>,
        nonblock: bool,
    ) -> Result<u64, Errno> {
        let nonblock = nonblock || what.flags & net::MSG_DONTWAIT != 0;
        // AF_UNIX keeps a stream's error for who receives.
        let kept = self.is_stream() && self.domain == net::AF_UNIX;
        if !kept && let Some(errno) = self.take_error() {
            return Err(errno);
        }
        let sent = if self.is_stream() {
            self.send_stream(c, &mut what, nonblock).await
        } else {
            self.send_packet(c, &mut what, nonblock).await
        };
        if sent == Err(Errno::EPIPE) && what.flags & net::MSG_NOSIGNAL == 0 && self.is_stream() {
            c.raise(linux::SIGPIPE);
        }
        sent
    }

    async fn send_stream(
        self: &Rc<Self>,
        c: Context<'_>,
        what: &mut Outgoing<'_>,
        nonblock: bool,
    ) -> Result<u64, Errno> {
        if what.to.is_some() {
            return Err(if self.is_connected() {
                Errno::EISCONN
            } else {
                Errno::EOPNOTSUPP
            });
        }
        if !self.is_connected() {
            return Err(if self.domain == net::AF_INET {
                Errno::EPIPE
            } else {
                Errno::ENOTCONN
            });
        }
        let deadline = self.options.send_deadline(c);
        let total = total(what.segments);
        let mut done = 0;
        while done < total {
            let n = (total - done).min(PIECE);
            let piece = async {
                let charge = self.pay(c, n, None, nonblock, deadline).await?;
                let data = gather(c, what.segments, done, n).await?;
                let rights = core::mem::take(&mut what.rights);
                let packet = Packet::new(data, rights, what.sender, charge);
                self.put(c, packet, None, nonblock, deadline).await
            };
            match piece.await {
                Ok(()) => done += n,
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    async fn send_packet(
        self: &Rc<Self>,
        c: Context<'_>,
        what: &mut Outgoing<'_>,
        nonblock: bool,
    ) -> Result<u64, Errno> {
        if what.to.is_some() && self.kind == net::SOCK_SEQPACKET {
            what.to = None;
        }
        let total = total(what.segments);
        let most = match self.domain {
            net::AF_INET => 65_507,
            _ => self.options.send_size().saturating_sub(32) as u64,
        };
        if total > most {
            return Err(Errno::EMSGSIZE);
        }
        self.name_itself(c)?;
        let deadline = self.options.send_deadline(c);
        let to = what.to.take().map(|(socket, _)| socket);
        let charge = self.pay(c, total, to.as_ref(), nonblock, deadline).await?;
        let data = gather(c, what.segments, 0, total).await?;
        let rights = core::mem::take(&mut what.rights);
        let mut packet = Packet::new(data, rights, what.sender, charge);
        packet.from = self.outward_name();
        self.put(c, packet, to, nonblock, deadline).await?;
        Ok(total)
    }

    /// What a packet of `len` bytes costs the caller. When the user's or the machine's share of
    /// socket memory is used up, waits for the receiver to take something out; `ENOBUFS` when it
    /// has nothing.
    async fn pay(
        &self,
        c: Context<'_>,
        len: u64,
        to: Option<&Rc<Socket>>,
        nonblock: bool,
        deadline: Option<u64>,
    ) -> Result<Charge, Errno> {
        loop {
            let cost = len + PACKET_COST as u64;
            if let Some(charge) = c.base.accounts.sockets.charge(c.payer(), cost) {
                return Ok(charge);
            }
            let peer = match to {
                Some(to) => Some(to.clone()),
                None => self.peer()?,
            };
            let Some(peer) = peer.filter(|peer| !peer.inbox.borrow().is_empty()) else {
                return Err(Errno::ENOBUFS);
            };
            if self.shut.get() & SEND != 0 {
                return Err(Errno::EPIPE);
            }
            if nonblock {
                return Err(Errno::EAGAIN);
            }
            peer.changes.wait_until(c, deadline).await?;
        }
    }

    /// Waits for room with the receiver and puts a packet there.
    async fn put(
        self: &Rc<Self>,
        c: Context<'_>,
        packet: Packet,
        to: Option<Rc<Socket>>,
        nonblock: bool,
        deadline: Option<u64>,
    ) -> Result<(), Errno> {
        loop {
            if self.shut.get() & SEND != 0 {
                return Err(Errno::EPIPE);
            }
            let peer = match &to {
                Some(to) => Some(to.clone()),
                None => self.peer()?,
            };
            let Some(peer) = peer else {
                return self.nobody();
            };
            if !self.is_connecting() {
                if !peer.hears(self) {
                    // A datagram to somebody who listens to another goes nowhere on IP.
                    return if self.domain == net::AF_INET {
                        Ok(())
                    } else {
                        Err(Errno::EPERM)
                    };
                }
                if peer.shut.get() & RECEIVE != 0 {
                    return Err(Errno::EPIPE);
                }
            } else if self.domain == net::AF_INET && peer.shut.get() == RECEIVE | SEND {
                return self.nobody();
            }
            if peer.has_room(self) {
                let files = packet.rights.len();
                self.network.check_room(files)?;
                peer.inbox.borrow_mut().push(packet, self.is_stream())?;
                self.network.sent(files);
                peer.changes.input();
                return Ok(());
            }
            if self.domain == net::AF_INET && !self.is_connecting() {
                // UDP drops.
                return Ok(());
            }
            if nonblock {
                return Err(Errno::EAGAIN);
            }
            peer.changes.wait_until(c, deadline).await?;
        }
    }

    /// Whom it sends to; `None` when that socket is gone.
    fn peer(&self) -> Result<Option<Rc<Socket>>, Errno> {
        if !self.is_connected() {
            return Err(match self.domain {
                net::AF_INET if !self.is_connecting() => Errno::EDESTADDRREQ,
                _ => Errno::ENOTCONN,
            });
        }
        if self.is_connecting() || self.domain == net::AF_UNIX {
            return Ok(self.peer.borrow().upgrade());
        }
        // A connected UDP socket knows a name; whose that is may change.
        let name = self.peer_name.borrow().clone();
        Ok(name.and_then(|name| self.network.names.find(self.kind, &name)))
    }

    /// What sending to nobody means.
    fn nobody(&self) -> Result<(), Errno> {
        if self.is_connecting() && self.domain == net::AF_INET {
            // TCP learns from the answer that nobody is there any more.
            self.fail(Errno::EPIPE);
            return Ok(());
        }
        if self.is_connecting() {
            return Err(Errno::EPIPE);
        }
        if self.domain == net::AF_UNIX {
            self.disconnect();
            return Err(Errno::ECONNREFUSED);
        }
        // What is sent is lost; that nobody was there is heard later.
        self.error.set(Some(Errno::ECONNREFUSED));
        Ok(())
    }

    /// Receives into the segments: what was taken; `data` is in the segments, and its length
    /// is the result.
    pub async fn receive(
        &self,
        c: Context<'_>,
        segments: &[Memory<'_>],
        flags: u32,
        nonblock: bool,
    ) -> Result<Offer, Errno> {
        if flags & net::MSG_OOB != 0 {
            // A stream could have urgent data, but never has any.
            return Err(if self.is_stream() {
                Errno::EINVAL
            } else {
                Errno::EOPNOTSUPP
            });
        }
        let nonblock = nonblock || flags & net::MSG_DONTWAIT != 0;
        let peek = flags & net::MSG_PEEK != 0;
        let stream = self.is_stream();
        let all = stream && flags & net::MSG_WAITALL != 0 && !peek;
        let deadline = self.options.receive_deadline(c);
        let total = total(segments);
        let mut segments = room::collect(segments.iter().copied())?;
        let mut received: Option<Offer> = None;
        loop {
            let step = self.step(
                c,
                &mut segments,
                peek,
                received.is_some(),
                nonblock,
                deadline,
            );
            match (step.await, &mut received) {
                (Ok(None), None) => return Ok(Offer::default()),
                (Err(errno), None) => return Err(errno),
                (Ok(None) | Err(_), Some(_)) => return Ok(received.unwrap_or_default()),
                (Ok(Some(offer)), None) => received = Some(offer),
                (Ok(Some(offer)), Some(received)) => received.follow(offer),
            }
            let done = received.as_ref().map_or(0, |r| r.taken as u64);
            let files = received.as_ref().is_some_and(|r| !r.rights.is_empty());
            if !all || done == total || files {
                return Ok(received.unwrap_or_default());
            }
        }
    }

    /// Waits for something and takes it; `None` at the end. What it took of the segments'
    /// room is gone from them.
    async fn step(
        &self,
        c: Context<'_>,
        segments: &mut [Memory<'_>],
        peek: bool,
        more: bool,
        nonblock: bool,
        deadline: Option<u64>,
    ) -> Result<Option<Offer>, Errno> {
        let stream = self.is_stream();
        if self.is_connecting() && !self.is_connected() {
            // Linux's two families differ.
            let unix = self.domain == net::AF_UNIX && stream;
            return Err(if unix { Errno::EINVAL } else { Errno::ENOTCONN });
        }
        // A stream tells its error when nothing is left to receive, the others at once.
        if !stream && let Some(errno) = self.take_error() {
            return Err(errno);
        }
        let mut bad = false;
        loop {
            let room = total(segments) as usize;
            let offer = self.inbox.borrow().offer(room, stream)?;
            let Some(mut offer) = offer else {
                if let Some(errno) = self.error.get().filter(|_| !more) {
                    self.error.set(None);
                    return Err(errno);
                }
                if self.shut.get() & RECEIVE != 0 {
                    return Ok(None);
                }
                if nonblock {
                    return Err(Errno::EAGAIN);
                }
                self.changes.wait_until(c, deadline).await?;
                continue;
            };
            match scatter(c, segments, &offer.data) {
                Ok(()) => {
                    if !peek {
                        self.inbox.borrow_mut().take(offer.data.len(), stream);
                        self.network.arrived(offer.rights.len());
                        if let Some(peer) = self.peer.borrow().upgrade() {
                            peer.changes.output();
                        }
                        self.changes.output();
                    }
                    offer.data = Vec::new();
                    let mut taken = offer.taken as u64;
                    for segment in segments.iter_mut() {
                        let n = segment.len().min(taken);
                        *segment = segment.after(n);
                        taken -= n;
                    }
                    return Ok(Some(offer));
                }
                // As on Linux what has no room is lost, the message and all that came with it.
                Err((_, errno)) if repairable(errno) && bad => {
                    if !peek && !stream {
                        self.inbox.borrow_mut().take(offer.data.len(), stream);
                        if let Some(peer) = self.peer.borrow().upgrade() {
                            peer.changes.output();
                        }
                        self.changes.output();
                    }
                    return Err(Errno::EFAULT);
                }
                // While VM works another reader may take the data: look again.
                Err((memory, errno)) if repairable(errno) => {
                    let good = repair(&c.base.vm, memory, true).await;
                    bad = !good.is_ok_and(|good| good.len() == memory.len());
                }
                Err((_, errno)) => return Err(errno),
            }
        }
    }
}
