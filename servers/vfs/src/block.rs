//! Block devices as files.
//!
//! What is read is what the disk has: a mounted file system's changes once they are synced.
//! What is written goes to the disk past the file system's cache, which may not see it and may
//! overwrite it; Linux is not coherent there either.

use crate::context::Context;
use crate::device::{Driver, makedev};
use crate::memory::Memory;
use crate::transfer::transfer;
use abi::Errno;
use abi::grant::{Direction, GrantTo};
use abi::proto::block::MAX_TRANSFER;
use abi::proto::device::Moved;
use abi::proto::disk;
use alloc::rc::Rc;

/// An open block device.
pub struct BlockDevice {
    driver: Rc<Driver>,
    minor: u32,
    /// Bytes.
    size: u64,
}

impl BlockDevice {
    /// Asks the driver how large the device is; `ENXIO` if it has no such device.
    pub async fn open(driver: Rc<Driver>, minor: u32) -> Result<BlockDevice, Errno> {
        let extent = driver.peer.ask(disk::Size { minor }).await?;
        Ok(BlockDevice {
            driver,
            minor,
            size: extent.bytes.min(i64::MAX as u64),
        })
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Linux's device number.
    pub fn number(&self) -> u64 {
        makedev(self.driver.major, self.minor)
    }

    /// Reads at `position`. Short only at the end, or where the memory ends.
    pub async fn read(
        &self,
        c: Context<'_>,
        memory: Memory<'_>,
        position: u64,
    ) -> Result<u64, Errno> {
        let memory = memory.first(self.size.saturating_sub(position));
        let ask = async |at, grant, len| {
            let minor = self.minor;
            let request = disk::ReadAt {
                minor,
                position: at,
                grant,
                len,
            };
            self.driver.peer.ask(request).await
        };
        self.pieces(c, memory, position, ask).await
    }

    /// Writes at `position`; `ENOSPC` at the end.
    pub async fn write(
        &self,
        c: Context<'_>,
        memory: Memory<'_>,
        position: u64,
    ) -> Result<u64, Errno> {
        if position >= self.size && !memory.is_empty() {
            return Err(Errno::ENOSPC);
        }
        let memory = memory.first(self.size.saturating_sub(position));
        let ask = async |at, grant, len| {
            let minor = self.minor;
            let request = disk::WriteAt {
                minor,
                position: at,
                grant,
                len,
            };
            self.driver.peer.ask(request).await
        };
        self.pieces(c, memory, position, ask).await
    }

    /// Moves `memory` in requests that leave the file system its turns at the driver.
    async fn pieces<D: Direction>(
        &self,
        c: Context<'_>,
        memory: Memory<'_>,
        position: u64,
        ask: impl AsyncFn(u64, GrantTo<D>, u64) -> Result<Moved, Errno>,
    ) -> Result<u64, Errno> {
        let mut done = 0;
        while done < memory.len() {
            let piece = memory.after(done).first(MAX_TRANSFER);
            let attempt = async |grant, len| ask(position + done, grant, len).await;
            let peer = &self.driver.peer;
            match transfer(&c.base.vm, peer, piece, attempt).await {
                Ok(moved) => {
                    let n = moved.bytes.min(piece.len());
                    done += n;
                    if n < piece.len() {
                        break;
                    }
                }
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    /// fsync(2).
    pub async fn flush(&self) -> Result<(), Errno> {
        let minor = self.minor;
        let request = disk::Flush { minor };
        self.driver.peer.ask(request).await
    }

    /// ioctl(2).
    pub async fn ioctl(&self, c: Context<'_>, request: u64, value: u64) -> Result<u64, Errno> {
        let minor = self.minor;
        let peer = &self.driver.peer;
        let call = async |grant| {
            let request = disk::Ioctl {
                minor,
                request,
                grant,
            };
            peer.ask(request).await
        };
        let controlled = self.driver.control(c, request, value, call).await?;
        Ok(controlled.value)
    }
}
