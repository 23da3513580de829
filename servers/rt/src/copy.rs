//! Copies between address spaces.

use crate::kernel::kcall;
use abi::kernel::{CP_FLAG_TRY, Kcall, SafeCopy, VirCopy};
use abi::{Endpoint, Errno};

fn safecopy(copy: SafeCopy) -> Result<(), Errno> {
    kcall(Kcall::SafeCopy, [&copy as *const _ as u64, 0, 0, 0, 0]).map(|_| ())
}

/// Copies from a grant into `buffer`.
pub fn safecopy_from(
    granter: Endpoint,
    grant: i32,
    offset: u64,
    buffer: &mut [u8],
) -> Result<(), Errno> {
    let (address, len) = (buffer.as_mut_ptr() as u64, buffer.len() as u64);
    safecopy(SafeCopy {
        granter: granter.0,
        grant,
        offset,
        address,
        len,
        to_grant: 0,
    })
}

/// Copies `buffer` into a grant.
pub fn safecopy_to(granter: Endpoint, grant: i32, offset: u64, buffer: &[u8]) -> Result<(), Errno> {
    let (address, len) = (buffer.as_ptr() as u64, buffer.len() as u64);
    safecopy(SafeCopy {
        granter: granter.0,
        grant,
        offset,
        address,
        len,
        to_grant: 1,
    })
}

/// Several copies in one kernel visit; stops at the first failure.
///
/// # Safety
/// Every `address`/`len` must be memory that the caller may hand to the kernel: readable for
/// `to_grant` = 1, exclusively borrowed for `to_grant` = 0.
pub unsafe fn safecopy_vector(copies: &[SafeCopy]) -> Result<(), Errno> {
    kcall(
        Kcall::SafeCopyVector,
        [copies.as_ptr() as u64, copies.len() as u64, 0, 0, 0],
    )
    .map(|_| ())
}

/// Fills a part of a grant with `pattern`.
pub fn safe_memset(
    granter: Endpoint,
    grant: i32,
    offset: u64,
    len: u64,
    pattern: u8,
) -> Result<(), Errno> {
    kcall(
        Kcall::SafeMemset,
        [
            granter.0 as u64,
            grant as u32 as u64,
            offset,
            len,
            pattern as u64,
        ],
    )
    .map(|_| ())
}

fn vircopy(copy: VirCopy) -> Result<(), Errno> {
    if copy.len == 0 {
        return Ok(());
    }
    kcall(Kcall::VirCopy, [&copy as *const _ as u64, 0, 0, 0, 0]).map(|_| ())
}

/// Copies from another process; an absent page is `EFAULT` (TRY).
pub fn try_read(source: Endpoint, address: u64, buffer: &mut [u8]) -> Result<(), Errno> {
    vircopy(VirCopy {
        source: source.0,
        target: Endpoint::SELF.0,
        source_address: address,
        target_address: buffer.as_mut_ptr() as u64,
        len: buffer.len() as u64,
        flags: CP_FLAG_TRY,
    })
}

/// Copies to another process; an absent or write-protected page is `EFAULT` (TRY).
pub fn try_write(target: Endpoint, address: u64, buffer: &[u8]) -> Result<(), Errno> {
    vircopy(VirCopy {
        source: Endpoint::SELF.0,
        target: target.0,
        source_address: buffer.as_ptr() as u64,
        target_address: address,
        len: buffer.len() as u64,
        flags: CP_FLAG_TRY,
    })
}

/// Copies from another process; the kernel has VM repair absent pages meanwhile. Only for
/// servers that nothing in the repair can wait for (PM, RS; never VFS, VM or a file system).
pub fn read(source: Endpoint, address: u64, buffer: &mut [u8]) -> Result<(), Errno> {
    vircopy(VirCopy {
        source: source.0,
        target: Endpoint::SELF.0,
        source_address: address,
        target_address: buffer.as_mut_ptr() as u64,
        len: buffer.len() as u64,
        flags: 0,
    })
}

/// Copies to another process; see [`read`].
pub fn write(target: Endpoint, address: u64, buffer: &[u8]) -> Result<(), Errno> {
    vircopy(VirCopy {
        source: Endpoint::SELF.0,
        target: target.0,
        source_address: buffer.as_ptr() as u64,
        target_address: address,
        len: buffer.len() as u64,
        flags: 0,
    })
}

/// Fills memory of another process. `try_only`: fail with `EFAULT` instead of asking VM.
pub fn memset(
    target: Endpoint,
    address: u64,
    len: u64,
    pattern: u8,
    try_only: bool,
) -> Result<(), Errno> {
    if len == 0 {
        return Ok(());
    }
    let flags = if try_only { CP_FLAG_TRY } else { 0 };
    kcall(
        Kcall::Memset,
        [target.0 as u64, address, len, pattern as u64, flags],
    )
    .map(|_| ())
}
