//! virtio-blk over a raw disk, one request after the other.

use std::sync::Arc;

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO, VIRTIO_BLK_ID_BYTES,
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_FLUSH,
    VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
};
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};

use super::disk::{Backing, TransferError};
use super::size;
use super::virtio::{Device, RingError, next_chain};
use crate::control::Stop;
use crate::log::complain;
use crate::memory::Ram;

const SECTOR: u64 = SECTOR_SIZE as u64;
/// As the configuration has it.
const SECTOR_SIZE: u32 = 512;
/// Type, reserved, sector.
const HEADER: usize = 16;
/// virtio_blk_config up to and including blk_size.
const CONFIG: usize = 24;
const QUEUE: [u16; 1] = [256];
const ID: &[u8; 8] = b"absentia";

/// The device.
#[derive(Debug)]
pub struct Block {
    /// Where the sectors are.
    pub backing: Backing,
    sectors: u64,
    read_only: bool,
    config: [u8; CONFIG],
    stop: Arc<Stop>,
    /// An error of the host was told.
    failed: bool,
}

impl Block {
    /// A disk of the backing's size (whole sectors of it).
    pub fn new(
        backing: impl Into<Backing>,
        read_only: bool,
        stop: Arc<Stop>,
    ) -> std::io::Result<Block> {
        let backing = backing.into();
        let sectors = backing.len()? / SECTOR;
        let mut config = [0; CONFIG];
        config[..8].copy_from_slice(&sectors.to_le_bytes());
        config[20..].copy_from_slice(&SECTOR_SIZE.to_le_bytes());
        Ok(Block {
            backing,
            sectors,
            read_only,
            config,
            stop,
            failed: false,
        })
    }

    /// Executes one request; returns the status and the bytes written into the guest.
    fn request(&mut self, header: [u8; HEADER], data: &[Piece], ram: &Ram) -> (u32, u32) {
        let [t0, t1, t2, t3, _, _, _, _, sector @ ..] = header;
        let sector = u64::from_le_bytes(sector);
        let result = match u32::from_le_bytes([t0, t1, t2, t3]) {
            VIRTIO_BLK_T_IN => self.transfer(sector, data, true, ram),
            VIRTIO_BLK_T_OUT if self.read_only => None,
            VIRTIO_BLK_T_OUT => self.transfer(sector, data, false, ram),
            VIRTIO_BLK_T_FLUSH => {
                let flushed = self.backing.flush();
                self.told(flushed.map_err(TransferError::from)).map(|()| 0)
            }
            VIRTIO_BLK_T_GET_ID => identify(data, ram),
            _ => return (VIRTIO_BLK_S_UNSUPP, 0),
        };
        match result {
            Some(written) => (VIRTIO_BLK_S_OK, written),
            None => (VIRTIO_BLK_S_IOERR, 0),
        }
    }

    /// The guest hears of every error as one and the same; which it was, a person hears once.
    fn told(&mut self, result: Result<(), TransferError>) -> Option<()> {
        let error = result.err();
        if let Some(host) = error.as_ref().and_then(TransferError::of_the_host)
            && !std::mem::replace(&mut self.failed, true)
        {
            complain(&format!("absentia: the root disk's file: {host}"));
        }
        error.is_none().then_some(())
    }

    /// Moves whole sectors between disk and guest, all of them inside the disk.
    fn transfer(
        &mut self,
        sector: u64,
        data: &[Piece],
        into_guest: bool,
        ram: &Ram,
    ) -> Option<u32> {
        let total: u64 = data.iter().map(|p| p.len).sum();
        let end = sector.checked_add(total / SECTOR)?;
        let moved = u32::try_from(total).ok()?;
        if !total.is_multiple_of(SECTOR) || end > self.sectors {
            return None;
        }
        if data.iter().any(|piece| piece.writable != into_guest) {
            return None;
        }
        let mut offset = sector * SECTOR;
        for piece in data {
            // Overlapping buffers make a request longer than RAM.
            if self.stop.requested() {
                return None;
            }
            let len = size(piece.len);
            let done = if into_guest {
                self.backing.read(offset, piece.at, len, ram)
            } else {
                self.backing.write(offset, piece.at, len, ram)
            };
            self.told(done)?;
            offset += piece.len;
        }
        Some(if into_guest { moved } else { 0 })
    }
}

fn identify(data: &[Piece], ram: &Ram) -> Option<u32> {
    let piece = data.first().filter(|p| p.writable)?;
    let mut id = [0; VIRTIO_BLK_ID_BYTES as usize];
    id[..ID.len()].copy_from_slice(ID);
    let len = id.len().min(size(piece.len));
    ram.write_slice(&id[..len], piece.at).ok()?;
    u32::try_from(len).ok()
}

/// A run of guest memory.
#[derive(Clone, Copy, Debug)]
struct Piece {
    at: GuestAddress,
    len: u64,
    writable: bool,
}

/// Takes the request apart: header, data, where the status goes. Drivers may cut it into
/// descriptors as they like.
fn dissect(
    chain: &[Descriptor],
    ram: &Ram,
) -> Result<([u8; HEADER], Vec<Piece>, GuestAddress), RingError> {
    let mut pieces: Vec<Piece> = chain
        .iter()
        .map(|d| Piece {
            at: d.addr(),
            len: d.len().into(),
            writable: d.is_write_only(),
        })
        .collect();
    let mut header = [0; HEADER];
    let mut filled = 0;
    for piece in pieces.iter_mut().take_while(|p| !p.writable) {
        let take = size(piece.len.min((HEADER - filled) as u64));
        ram.read_slice(&mut header[filled..filled + take], piece.at)?;
        filled += take;
        piece.at = GuestAddress(piece.at.0 + take as u64);
        piece.len -= take as u64;
    }
    if filled < header.len() {
        return Err(RingError::Chain("block request without a header"));
    }
    let last = pieces
        .iter_mut()
        .rev()
        .find(|p| p.writable && p.len > 0)
        .ok_or(RingError::Chain("block request without a status byte"))?;
    last.len -= 1;
    let status = GuestAddress(last.at.0 + last.len);
    pieces.retain(|p| p.len > 0);
    Ok((header, pieces, status))
}

impl Device for Block {
    fn kind(&self) -> u32 {
        VIRTIO_ID_BLOCK
    }

    fn features(&self) -> u64 {
        let read_only = if self.read_only {
            1 << VIRTIO_BLK_F_RO
        } else {
            0
        };
        1 << VIRTIO_BLK_F_FLUSH | 1 << VIRTIO_BLK_F_BLK_SIZE | read_only
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &QUEUE
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn notify(&mut self, _: usize, queue: &mut Queue, ram: &Ram) -> Result<bool, RingError> {
        let mut used = false;
        // The driver runs on the one vCPU, which waits here: a queue's worth is all there can
        // be, unless the ring changes under us.
        for _ in 0..queue.size() {
            let Some((head, chain)) = next_chain(queue, ram)? else {
                break;
            };
            let (header, data, status_at) = dissect(&chain, ram)?;
            let (status, written) = self.request(header, &data, ram);
            ram.write_slice(&[(status & 0xff) as u8], status_at)?;
            queue.add_used(ram, head, written.saturating_add(1))?;
            used = true;
        }
        Ok(used)
    }
}
