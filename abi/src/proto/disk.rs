//! Requests of VFS to drivers of block devices, as [`crate::proto::device`] has them of character devices.
//! Requests of file systems are [`crate::proto::block`].

use super::device::{Controlled, Moved};
use crate::grant::{ToEither, ToRead, ToWrite};
use crate::protocol;

protocol! {
    base = 0x6200;
    servers = [DISK];

    /// Ends at the end of the device; any byte may be the first.
    #[from(VFS)]
    ask ReadAt = 1 {
        /// Minor number.
        minor: u32,
        /// First byte.
        position: u64,
        /// The buffer.
        grant: ToWrite,
        /// Its length.
        len: u64,
    } -> Moved;
    /// Likewise; `EROFS`.
    #[from(VFS)]
    ask WriteAt = 2 {
        /// Minor number.
        minor: u32,
        /// First byte.
        position: u64,
        /// The data.
        grant: ToRead,
        /// Its length.
        len: u64,
    } -> Moved;
    /// Everything written before is on stable storage.
    #[from(VFS)]
    ask Flush = 3 {
        /// Minor number.
        minor: u32,
    };
    /// How large the device is. `ENXIO` when there is no such minor.
    #[from(VFS)]
    ask Size = 4 {
        /// Minor number.
        minor: u32,
    } -> Extent {
        /// Bytes.
        bytes: u64,
    };
    /// Linux ioctl, as [`super::device::Ioctl`].
    #[from(VFS)]
    ask Ioctl = 5 {
        /// Minor number.
        minor: u32,
        /// Request number.
        request: u64,
        /// Argument memory or -1.
        grant: ToEither,
    } -> Controlled;
}
