//! Requests of file systems to block drivers. Calls: a file system may wait for its disk.

use crate::grant::{ToRead, ToWrite};
use crate::protocol;

/// Bytes of a sector.
pub const SECTOR: u64 = 512;
/// Longest write, and what a driver has a buffer for, bytes.
pub const MAX_TRANSFER: u64 = 128 * 1024;
/// Longest read, bytes.
pub const MAX_READ: u64 = 1 << 20;

protocol! {
    base = 0x7000;
    servers = [DISK];

    /// Size of the disk.
    #[from(FILES)]
    call Info = 1 {} -> DiskInfo {
        /// Sectors.
        sectors: u64,
        /// Writes are refused (`EROFS`).
        read_only: bool,
    };
    /// Reads into `grant` (write access, direct, of the caller).
    #[from(FILES)]
    call Read = 2 {
        /// First sector.
        sector: u64,
        /// Bytes, a multiple of [`SECTOR`], at most [`MAX_READ`].
        len: u64,
        /// The buffer.
        grant: ToWrite,
    };
    /// Writes from `grant`.
    #[from(FILES)]
    call Write = 3 {
        /// First sector.
        sector: u64,
        /// Bytes, likewise, at most [`MAX_TRANSFER`].
        len: u64,
        /// The buffer.
        grant: ToRead,
    };
    /// Everything written before is on stable storage afterwards.
    #[from(FILES)]
    call Flush = 4 {};
}
