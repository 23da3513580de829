//! Requests to RS, all posted.

use crate::{Endpoint, protocol};

protocol! {
    base = 0x4000;
    servers = [RS];

    /// The sender has finished its start-up and serves requests.
    #[from(PEERS, PM, VFS)]
    post Started = 1 {
        /// 0 or a negated errno: the service gives up.
        status: i64,
    };
    /// For root (/proc/absentia/crash): the service of this name is to die, RS and
    /// VM included.
    #[from(PROC)]
    post Crash = 4 {
        /// Zero padded.
        name: [u8; 16],
    };
    /// A service touched memory that it does not have. It will not go on.
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
