//! The disk as a file: the requests that VFS posts for programs that opened its node.
//!
//! A program's memory is granted with TRY and may be absent: then the copy fails, nothing of
//! that piece is written to the disk, and VFS goes by the grant's mark whatever is answered.
//! Positions need not be aligned: the sectors at the edges are read first.

use crate::disk::{Disk, Operation};
use crate::serve::{Driver, Grants};
use abi::grant::{Direction, GrantTo, Reading, ToEither, Writing};
use abi::proto::block::{MAX_TRANSFER, SECTOR};
use abi::proto::device::numbers::DISK_MINOR;
use abi::proto::device::{Controlled, Moved};
use abi::proto::disk::{self as special, Extent};
use abi::{Endpoint, Errno};
use linux_raw_sys::ioctl;
use virtio::Transport;

/// What Linux calls the block size of the device's cache.
const SOFT_BLOCK: u32 = 4096;

abi::serve! { [T: Transport, G: Grants] Driver<'_, T, G>;
    special::ReadAt => |on, from, r| {
        on.move_data(r.minor, (from.who, r.grant), (r.position, r.len), Piece::read)
    };
    special::WriteAt => |on, from, r| {
        on.move_data(r.minor, (from.who, r.grant), (r.position, r.len), Piece::write)
    };
    special::Flush => |on, _, r| known(r.minor).and_then(|()| on.flush());
    special::Size => |on, _, r| known(r.minor).map(|()| Extent { bytes: on.disk.bytes() });
    special::Ioctl => |on, from, r| {
        let done = known(r.minor).and_then(|()| on.control((from.who, r.grant), r.request as u32));
        done.map(|()| Controlled { value: 0 })
    };
}

/// There is one disk.
fn known(minor: u32) -> Result<(), Errno> {
    match minor {
        DISK_MINOR => Ok(()),
        _ => Err(Errno::ENXIO),
    }
}

impl<T: Transport, G: Grants> Driver<'_, T, G> {
    /// Moves bytes between the disk and a grant, piece by piece.
    fn move_data<D: Direction>(
        &mut self,
        minor: u32,
        (granter, grant): (Endpoint, GrantTo<D>),
        (position, len): (u64, u64),
        move_piece: impl Fn(&Piece<D>, &mut Disk<T>, &mut G) -> Result<(), Errno>,
    ) -> Result<Moved, Errno> {
        known(minor)?;
        let Driver { disk, grants } = self;
        let len = len.min(disk.bytes().saturating_sub(position));
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
            match move_piece(&piece, disk, grants) {
                Ok(()) => done += n as u64,
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => break,
            }
        }
        Ok(Moved { bytes: done })
    }

    /// ioctl(2). VFS knows how long each argument is.
    fn control(
        &mut self,
        (granter, grant): (Endpoint, ToEither),
        request: u32,
    ) -> Result<(), Errno> {
        let Driver { disk, grants } = self;
        let mut tell = |bytes: &[u8]| grants.store(granter, grant.to_write(), 0, bytes);
        match request {
            ioctl::BLKGETSIZE64 => tell(&(disk.bytes()).to_le_bytes()),
            ioctl::BLKGETSIZE => tell(&disk.sectors().to_le_bytes()),
            ioctl::BLKSSZGET | ioctl::BLKPBSZGET => tell(&(SECTOR as u32).to_le_bytes()),
            ioctl::BLKBSZGET => tell(&SOFT_BLOCK.to_le_bytes()),
            ioctl::BLKROGET => tell(&u32::from(disk.read_only()).to_le_bytes()),
            ioctl::BLKFLSBUF => self.flush(),
            _ => Err(Errno::ENOTTY),
        }
    }
}

/// What one transfer of the disk moves.
struct Piece<D> {
    sector: u64,
    /// Bytes of whole sectors.
    span: usize,
    /// Those of them that are meant.
    bytes: core::ops::Range<usize>,
    granter: Endpoint,
    grant: GrantTo<D>,
    /// Where in the grant.
    offset: u64,
}

impl<D> Piece<D> {
    fn fill<T: Transport>(
        &self,
        disk: &mut Disk<T>,
        grants: &mut impl Grants,
    ) -> Result<(), Errno> {
        disk.check(Operation::Read, self.sector, self.span as u64)?;
        disk.run(Operation::Read, self.sector, self.span, |_| grants.wait())
    }
}

impl Piece<Writing> {
    fn read<T: Transport>(
        &self,
        disk: &mut Disk<T>,
        grants: &mut impl Grants,
    ) -> Result<(), Errno> {
        self.fill(disk, grants)?;
        let data = &disk.data()[self.bytes.clone()];
        grants.store(self.granter, self.grant, self.offset, data)
    }
}

impl Piece<Reading> {
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
