//! What has been sent to a socket and not been received.

use crate::file::OpenFile;
use crate::file::socket::address::Address;
use abi::Errno;
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec::Vec;
use rt::charge::Charge;

/// A stream is sent in pieces of this many bytes: what Linux has beside its own in a page, and 32 KiB. Of a piece all or
/// nothing goes.
pub const PIECE: u64 = 36_544;

/// Bytes charged for a packet besides its data, so that empty ones are not free.
pub const PACKET_COST: usize = 256;

/// Who sent something: SCM_CREDENTIALS.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sender {
    /// Process.
    pub pid: u32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// What was sent at once.
pub struct Packet {
    /// The data.
    pub data: Vec<u8>,
    /// Of it, already received (a stream's).
    taken: usize,
    /// SCM_RIGHTS.
    pub rights: Vec<Rc<OpenFile>>,
    /// By whom.
    pub sender: Sender,
    /// From where.
    pub from: Option<Rc<Address>>,
    charge: Charge,
}

impl Packet {
    /// A packet.
    pub fn new(data: Vec<u8>, rights: Vec<Rc<OpenFile>>, sender: Sender, charge: Charge) -> Packet {
        Packet {
            data,
            taken: 0,
            rights,
            sender,
            from: None,
            charge,
        }
    }

    fn cost(&self) -> usize {
        self.data.len() + PACKET_COST
    }
}

/// What one receive may take.
#[derive(Default)]
pub struct Offer {
    /// The data, as much as was asked for, until it is where it belongs.
    pub data: Vec<u8>,
    /// Its length; of what was received in several steps that of all of them.
    pub taken: usize,
    /// Bytes of a packet, however many were asked for.
    pub whole: usize,
    /// Files that come with it.
    pub rights: Vec<Rc<OpenFile>>,
    /// By whom.
    pub sender: Sender,
    /// From where.
    pub from: Option<Rc<Address>>,
}

impl Offer {
    /// Another step took more.
    pub fn follow(&mut self, next: Offer) {
        self.taken += next.taken;
        self.rights.extend(next.rights);
    }
}

/// The queue.
#[derive(Default)]
pub struct Inbox {
    packets: VecDeque<Packet>,
    cost: usize,
}

impl Inbox {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Packets.
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Bytes in use of the sender's buffer.
    pub fn cost(&self) -> usize {
        self.cost
    }

    /// FIONREAD: bytes of what is connected, or of the first datagram.
    pub fn readable(&self, all: bool) -> usize {
        let mut sizes = self.packets.iter().map(|p| p.data.len() - p.taken);
        if all {
            sizes.sum()
        } else {
            sizes.next().unwrap_or(0)
        }
    }

    /// The files in it.
    pub fn rights(&self) -> impl Iterator<Item = &Rc<OpenFile>> {
        self.packets.iter().flat_map(|packet| &packet.rights)
    }

    /// Adds a packet. A stream's small pieces grow together.
    pub fn push(&mut self, mut packet: Packet, stream: bool) -> Result<(), Errno> {
        if stream
            && packet.rights.is_empty()
            && let Some(last) = self.packets.back_mut()
            && last.rights.is_empty()
            && last.sender == packet.sender
            && last.charge.is_like(&packet.charge)
            && last.data.len() + packet.data.len() <= PIECE as usize
        {
            let more = packet.data.len();
            // Not much more than is charged.
            let whole = last.data.len() + more;
            let wanted = (2 * last.data.capacity()).clamp(whole, PIECE as usize);
            let room = wanted - last.data.len();
            last.data
                .try_reserve_exact(room)
                .map_err(|_| Errno::ENOMEM)?;
            last.data.extend_from_slice(&packet.data);
            self.cost += more;
            // One packet fewer.
            let charge = packet.charge.split(more as u64);
            let _ = last.charge.absorb(charge);
            return Ok(());
        }
        self.packets.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        self.cost += packet.cost();
        self.packets.push_back(packet);
        Ok(())
    }

    /// What a receive of `len` bytes would take; `None` when there is nothing. A stream's
    /// packets are told together up to one that brings files.
    pub fn offer(&self, len: usize, stream: bool) -> Result<Option<Offer>, Errno> {
        let Some(first) = self.packets.front() else {
            return Ok(None);
        };
        let mut offer = Offer {
            sender: first.sender,
            from: first.from.clone(),
            ..Offer::default()
        };
        for packet in &self.packets {
            let begun = !core::ptr::eq(packet, first);
            if begun && offer.data.len() == len {
                break;
            }
            let left = &packet.data[packet.taken..];
            let n = left.len().min(len - offer.data.len());
            offer.data.try_reserve(n).map_err(|_| Errno::ENOMEM)?;
            offer.data.extend_from_slice(&left[..n]);
            offer.whole += left.len();
            offer.taken += n;
            offer.rights.extend_from_slice(&packet.rights);
            if !stream || !packet.rights.is_empty() {
                break;
            }
        }
        Ok(Some(offer))
    }

    /// Takes what was offered: `len` bytes of a stream, or one packet. The files in it are the
    /// receiver's now; the caller has them from the offer.
    pub fn take(&mut self, len: usize, stream: bool) {
        let mut left = len;
        while let Some(first) = self.packets.front_mut() {
            first.rights.clear();
            let n = left.min(first.data.len() - first.taken);
            if stream && first.taken + n < first.data.len() {
                first.taken += n;
                return;
            }
            left -= n;
            self.cost -= first.cost();
            self.packets.pop_front();
            if !stream || left == 0 {
                return;
            }
        }
    }

    /// The files of each packet; the rest goes.
    pub fn into_rights(self) -> impl Iterator<Item = Vec<Rc<OpenFile>>> {
        self.packets.into_iter().map(|packet| packet.rights)
    }
}
