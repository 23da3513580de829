//! The requests, one after another.

use crate::disk::{Disk, Operation};
use abi::grant::{ToRead, ToWrite};
use abi::message::Server;
use abi::proto::block::{self, DiskInfo, MAX_TRANSFER, SECTOR};
use abi::{Endpoint, Errno};
use virtio::Transport;

/// Where a request's data comes from and goes to.
pub trait Grants {
    /// Copies from a grant of `granter`, from `offset` on, into `buffer`.
    fn fetch(
        &mut self,
        granter: Endpoint,
        grant: ToRead,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<(), Errno>;
    /// Copies `buffer` into a grant of `granter`, from `offset` on.
    fn store(
        &mut self,
        granter: Endpoint,
        grant: ToWrite,
        offset: u64,
        buffer: &[u8],
    ) -> Result<(), Errno>;
    /// Returns when the device has interrupted, or some time after the last look at it.
    fn wait(&mut self);
}

/// A disk, and the way to who asks.
pub struct Driver<'a, T: Transport, G> {
    /// The disk.
    pub disk: &'a mut Disk<T>,
    /// Grants and interrupts.
    pub grants: &'a mut G,
}

impl<T: Transport, G> Server for Driver<'_, T, G> {}

abi::serve! { [T: Transport, G: Grants] Driver<'_, T, G>;
    block::Info => |on, _, _| Ok(DiskInfo {
        sectors: on.disk.sectors(),
        read_only: on.disk.read_only(),
    });
    block::Read => |on, from, r| on.read(from, r);
    block::Write => |on, from, r| on.write(from, r);
    block::Flush => |on, _, _| on.flush();
}

impl<T: Transport, G: Grants> Driver<'_, T, G> {
    fn read(&mut self, source: Endpoint, r: block::Read) -> Result<(), Errno> {
        let block::Read { sector, len, grant } = r;
        let Driver { disk, grants } = self;
        disk.check(Operation::Read, sector, len)?;
        for done in (0..len).step_by(MAX_TRANSFER as usize) {
            let piece = (len - done).min(MAX_TRANSFER) as usize;
            let from = sector + done / SECTOR;
            disk.run(Operation::Read, from, piece, |_| grants.wait())?;
            grants.store(source, grant, done, &disk.data()[..piece])?;
        }
        Ok(())
    }

    fn write(&mut self, source: Endpoint, r: block::Write) -> Result<(), Errno> {
        let block::Write { sector, len, grant } = r;
        let Driver { disk, grants } = self;
        disk.check(Operation::Write, sector, len)?;
        grants.fetch(source, grant, 0, &mut disk.data()[..len as usize])?;
        disk.run(Operation::Write, sector, len as usize, |_| grants.wait())
    }

    /// Everything written before is on stable storage.
    pub(crate) fn flush(&mut self) -> Result<(), Errno> {
        let Driver { disk, grants } = self;
        disk.run(Operation::Flush, 0, 0, |_| grants.wait())
    }
}
