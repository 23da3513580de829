//! The disk as a file: the requests that VFS posts for programs that opened its node.
//!
//! A program's memory is granted with TRY and may be absent: then the copy fails, nothing of
//! that piece is written to the disk, and VFS goes by the grant's mark whatever is answered.
//! Positions need not be aligned: the sectors at the edges are read first.

use crate::disk::{Disk, Operation};
use crate::serve::Grants;
use abi::proto::block::{MAX_TRANSFER, SECTOR};
use abi::proto::device::numbers::DISK_MINOR;
use abi::proto::device::{Flush, Ioctl, ReadAt, Size, WriteAt};
use abi::proto::vfs::Done;
use abi::{Endpoint, Errno, Message, Request};
use linux_raw_sys::ioctl;
use virtio::Transport;

/// What Linux calls the block size of the device's cache.
const SOFT_BLOCK: u32 = 4096;

/// The answer to a posted request of `source`; `None` for what has no answer.
pub fn answer<T: Transport>(
    disk: &mut Disk<T>,
    grants: &mut impl Grants,
    source: Endpoint,
    message: &Message,
) -> Option<Done> {
    let (txn, minor, result) = match message.kind {
        ReadAt::KIND => {
            let r = ReadAt::decode(message)?;
            let place = (r.position, r.len);
            (
                r.txn,
                r.minor,
                move_data(disk, grants, Operation::Read, (source, r.grant), place),
            )
        }
        WriteAt::KIND => {
            let r = WriteAt::decode(message)?;
            let place = (r.position, r.len);
            (
                r.txn,
                r.minor,
                move_data(disk, grants, Operation::Write, (source, r.grant), place),
            )
        }
        Flush::KIND => {
            let r = Flush::decode(message)?;
            (r.txn, r.minor, flush(disk, grants))
        }
        Size::KIND => {
            let r = Size::decode(message)?;
            (r.txn, r.minor, Ok(disk.bytes()))
        }
        Ioctl::KIND => {
            let r = Ioctl::decode(message)?;
            (
                r.txn,
                r.minor,
                control(disk, grants, (source, r.grant), r.request as u32),
            )
        }
        _ => return None,
    };
    let result = if minor == DISK_MINOR {
        result
    } else {
        Err(Errno::ENXIO)
    };
    Some(Done {
        txn,
        status: result.map(|_| ()),
        a: result.unwrap_or(0),
        b: 0,
        c: 0,
        d: 0,
        e: 0,
    })
}

fn flush<T: Transport>(disk: &mut Disk<T>, grants: &mut impl Grants) -> Result<u64, Errno> {
    disk.run(Operation::Flush, 0, 0, |_| grants.wait())?;
    Ok(0)
}

/// Moves bytes between the disk and a grant, piece by piece; how many.
fn move_data<T: Transport>(
    disk: &mut Disk<T>,
    grants: &mut impl Grants,
    operation: Operation,
    (granter, grant): (Endpoint, i32),
    (position, len): (u64, u64),
) -> Result<u64, Errno> {
    let size = disk.bytes();
    let len = len.min(size.saturating_sub(position));
    let mut done = 0;
    while done < len {
        let at = position + done;
        let skip = (at % SECTOR) as usize;
        let n = (MAX_TRANSFER as usize - skip).min((len - done) as usize);
        let span = (skip + n).next_multiple_of(SECTOR as usize);
        let piece = Piece {
            sector: at / SECTOR,
            span,
            bytes: skip..skip + n,
            granter,
            grant,
            offset: done,
        };
        let moved = match operation {
            Operation::Write => piece.write(disk, grants),
            _ => piece.read(disk, grants),
        };
        match moved {
            Ok(()) => done += n as u64,
            Err(errno) if done == 0 => return Err(errno),
            Err(_) => break,
        }
    }
    Ok(done)
}

/// What one transfer of the disk moves.
struct Piece {
    sector: u64,
    /// Bytes of whole sectors.
    span: usize,
    /// Those of them that are meant.
    bytes: core::ops::Range<usize>,
    granter: Endpoint,
    grant: i32,
    /// Where in the grant.
    offset: u64,
}

impl Piece {
    fn fill<T: Transport>(
        &self,
        disk: &mut Disk<T>,
        grants: &mut impl Grants,
    ) -> Result<(), Errno> {
        disk.check(Operation::Read, self.sector, self.span as u64)?;
        disk.run(Operation::Read, self.sector, self.span, |_| grants.wait())
    }

    fn read<T: Transport>(
        &self,
        disk: &mut Disk<T>,
        grants: &mut impl Grants,
    ) -> Result<(), Errno> {
        self.fill(disk, grants)?;
        let data = &disk.data()[self.bytes.clone()];
        grants.store(self.granter, self.grant, self.offset, data)
    }

    fn write<T: Transport>(
        &self,
        disk: &mut Disk<T>,
        grants: &mut impl Grants,
    ) -> Result<(), Errno> {
        disk.check(Operation::Write, self.sector, self.span as u64)?;
        if self.bytes != (0..self.span) {
            self.fill(disk, grants)?;
        }
        let data = &mut disk.data()[self.bytes.clone()];
        grants.fetch(self.granter, self.grant, self.offset, data)?;
        disk.run(Operation::Write, self.sector, self.span, |_| grants.wait())
    }
}

/// ioctl(2). VFS knows how long each argument is.
fn control<T: Transport>(
    disk: &mut Disk<T>,
    grants: &mut impl Grants,
    (granter, grant): (Endpoint, i32),
    request: u32,
) -> Result<u64, Errno> {
    let mut tell = |bytes: &[u8]| grants.store(granter, grant, 0, bytes).map(|()| 0);
    match request {
        ioctl::BLKGETSIZE64 => tell(&(disk.bytes()).to_le_bytes()),
        ioctl::BLKGETSIZE => tell(&disk.sectors().to_le_bytes()),
        ioctl::BLKSSZGET | ioctl::BLKPBSZGET => tell(&(SECTOR as u32).to_le_bytes()),
        ioctl::BLKBSZGET => tell(&SOFT_BLOCK.to_le_bytes()),
        ioctl::BLKROGET => tell(&u32::from(disk.read_only()).to_le_bytes()),
        ioctl::BLKFLSBUF => flush(disk, grants),
        _ => Err(Errno::ENOTTY),
    }
}
