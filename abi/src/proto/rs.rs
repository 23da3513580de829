//! Requests to RS, all posted.

use crate::{Endpoint, Errno, protocol};

protocol! {
    base = 0x4000;

    /// *Posted* by a service that finished its start-up and serves requests.
    #[from(PEERS, PM, VFS)]
    post Started = 1 {
        /// 0 or a negated errno: the service gives up.
        status: i64,
    };
    /// *Posted* by VFS: the answer to [`crate::proto::vfs::Mount`].
    #[from(VFS)]
    post Mounted = 2 {
        /// The file system.
        fs: Endpoint,
        /// Outcome.
        status: Result<(), Errno>,
        /// The device number that it got; 0 when the mount failed.
        dev: u64,
    };
    /// *Posted* by proc for root (/proc/absentia/crash): the service of this name is to die, RS and
    /// VM included.
    #[from(PROC)]
    post Crash = 4 {
        /// First half, zero padded.
        name: [u8; 8],
        /// Second half.
        name2: [u8; 8],
    };
    /// *Posted* by VM: a service touched memory that it does not have. It will not go on.
    #[from(VM)]
    post Faulted = 3 {
        /// The service.
        who: Endpoint,
        /// What it touched.
        address: u64,
        /// The page fault's error code.
        code: u64,
        /// The instruction.
        rip: u64,
    };
}
