//! The requests, one after another.

use crate::disk::{Disk, Operation};
use abi::message::reply_message;
use abi::proto::block::{DiskInfo, Flush, Info, MAX_TRANSFER, Read, SECTOR, Write};
use abi::{Endpoint, Errno, Message, Request};
use virtio::Transport;

/// Where a request's data comes from and goes to.
pub trait Grants {
    /// Copies from a grant of `granter`, from `offset` on, into `buffer`.
    fn fetch(
        &mut self,
        granter: Endpoint,
        grant: i32,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<(), Errno>;
    /// Copies `buffer` into a grant of `granter`, from `offset` on.
    fn store(
        &mut self,
        granter: Endpoint,
        grant: i32,
        offset: u64,
        buffer: &[u8],
    ) -> Result<(), Errno>;
    /// Returns when the device has interrupted, or some time after the last look at it.
    fn wait(&mut self);
}

/// The reply to one request.
pub fn answer<T: Transport>(
    disk: &mut Disk<T>,
    grants: &mut impl Grants,
    source: Endpoint,
    message: &Message,
) -> Message {
    match message.kind {
        Info::KIND => reply_message(Ok(DiskInfo {
            sectors: disk.sectors(),
            read_only: disk.read_only(),
        })),
        Read::KIND => reply_message(read(disk, grants, source, Read::decode(message))),
        Write::KIND => reply_message(write(disk, grants, source, Write::decode(message))),
        Flush::KIND => reply_message(disk.run(Operation::Flush, 0, 0, |_| grants.wait())),
        _ => Message::error(Errno::ENOSYS),
    }
}

fn read<T: Transport>(
    disk: &mut Disk<T>,
    grants: &mut impl Grants,
    source: Endpoint,
    request: Option<Read>,
) -> Result<(), Errno> {
    let Read { sector, len, grant } = request.ok_or(Errno::EINVAL)?;
    disk.check(Operation::Read, sector, len)?;
    for done in (0..len).step_by(MAX_TRANSFER as usize) {
        let piece = (len - done).min(MAX_TRANSFER) as usize;
        let from = sector + done / SECTOR;
        disk.run(Operation::Read, from, piece, |_| grants.wait())?;
        grants.store(source, grant, done, &disk.data()[..piece])?;
    }
    Ok(())
}

fn write<T: Transport>(
    disk: &mut Disk<T>,
    grants: &mut impl Grants,
    source: Endpoint,
    request: Option<Write>,
) -> Result<(), Errno> {
    let Write { sector, len, grant } = request.ok_or(Errno::EINVAL)?;
    disk.check(Operation::Write, sector, len)?;
    grants.fetch(source, grant, 0, &mut disk.data()[..len as usize])?;
    disk.run(Operation::Write, sector, len as usize, |_| grants.wait())
}
