//! The disk: a block driver that is called.

use abi::proto::block;
use abi::{Endpoint, Errno};
use ext2::BlockDevice;
use rt::grants;
use rt::ipc;

const _: () = assert!(ext2::TRANSFER as u64 <= block::MAX_TRANSFER);
const _: () = assert!(ext2::REQUEST as u64 <= block::MAX_READ);

/// A driver's disk.
pub struct Disk {
    driver: Endpoint,
    sectors: u64,
    read_only: bool,
}

impl Disk {
    /// Asks the driver what it has.
    pub fn open(driver: Endpoint) -> Result<Disk, Errno> {
        let info = ipc::call(driver, block::Info {})?;
        Ok(Disk {
            driver,
            sectors: info.sectors,
            read_only: info.read_only,
        })
    }

    /// Whether it refuses writes.
    pub fn read_only(&self) -> bool {
        self.read_only
    }
}

/// An error of the driver, as programs may see it.
fn disk_error(errno: Errno) -> Errno {
    match errno {
        Errno::EROFS | Errno::ENOMEM => errno,
        _ => Errno::EIO,
    }
}

impl BlockDevice for Disk {
    fn sectors(&self) -> u64 {
        self.sectors
    }

    fn read(&mut self, sector: u64, buffer: &mut [u8]) -> Result<(), Errno> {
        let len = buffer.len();
        let grant = grants::lend_mut(self.driver, buffer)?;
        let request = block::Read {
            sector,
            len: len as u64,
            grant: grant.to(),
        };
        ipc::call(self.driver, request).map_err(disk_error)
    }

    fn write(&mut self, sector: u64, buffer: &[u8]) -> Result<(), Errno> {
        let len = buffer.len();
        let grant = grants::lend(self.driver, buffer)?;
        let request = block::Write {
            sector,
            len: len as u64,
            grant: grant.to(),
        };
        ipc::call(self.driver, request).map_err(disk_error)
    }

    fn flush(&mut self) -> Result<(), Errno> {
        ipc::call(self.driver, block::Flush {}).map_err(disk_error)
    }
}
