//! Copies between address spaces.

use crate::kernel::{call, call_with};
use abi::grant::{ToRead, ToWrite};
use abi::kernel::{CP_FLAG_TRY, In, InRow, SafeCopy, VirCopy, calls};
use abi::{Endpoint, Errno};

/// The caller's own end of a copy.
enum Own<'a> {
    Source(&'a [u8]),
    Target(&'a mut [u8]),
}

impl Own<'_> {
    fn parts(&self) -> (u64, u64) {
        match self {
            Own::Source(bytes) => (bytes.as_ptr() as u64, bytes.len() as u64),
            Own::Target(bytes) => (bytes.as_ptr() as u64, bytes.len() as u64),
        }
    }
}

#[inline(always)]
fn safecopy(granter: Endpoint, grant: i32, offset: u64, own: Own) -> Result<(), Errno> {
    let (address, len) = own.parts();
    let copy = SafeCopy {
        granter: granter.0,
        grant,
        offset,
        address,
        len,
        to_grant: u64::from(matches!(own, Own::Source(_))),
    };
    let copy = In::of(&copy);
    // SAFETY: only `Own::Target` is written, which is borrowed for that, and any bytes will do.
    unsafe { call_with(calls::SafeCopy { copy }) }
}

/// Copies from a grant into `buffer`.
pub fn safecopy_from(
    granter: Endpoint,
    grant: ToRead,
    offset: u64,
    buffer: &mut [u8],
) -> Result<(), Errno> {
    safecopy(granter, grant.id(), offset, Own::Target(buffer))
}

/// Copies `buffer` into a grant.
pub fn safecopy_to(
    granter: Endpoint,
    grant: ToWrite,
    offset: u64,
    buffer: &[u8],
) -> Result<(), Errno> {
    safecopy(granter, grant.id(), offset, Own::Source(buffer))
}

/// Several copies in one kernel visit; stops at the first failure.
///
/// # Safety
/// Every `address`/`len` must be memory that the caller may hand to the kernel: readable for
/// `to_grant` = 1, exclusively borrowed for `to_grant` = 0.
pub unsafe fn safecopy_vector(copies: &[SafeCopy]) -> Result<(), Errno> {
    let copies = InRow::of(copies);
    // SAFETY: the caller's promise.
    unsafe { call_with(calls::SafeCopyVector { copies }) }
}

/// Fills a part of a grant with `pattern`.
pub fn safe_memset(
    granter: Endpoint,
    grant: ToWrite,
    offset: u64,
    len: u64,
    pattern: u8,
) -> Result<(), Errno> {
    call(calls::SafeMemset {
        granter,
        grant: grant.id(),
        offset,
        len,
        pattern,
    })
}

#[inline(always)]
fn vircopy(other: Endpoint, there: u64, own: Own, flags: u64) -> Result<(), Errno> {
    let (here, len) = own.parts();
    if len == 0 {
        return Ok(());
    }
    let (us, them) = ((Endpoint::SELF.0, here), (other.0, there));
    let (source, target) = match own {
        Own::Source(_) => (us, them),
        Own::Target(_) => (them, us),
    };
    let copy = VirCopy {
        source: source.0,
        target: target.0,
        source_address: source.1,
        target_address: target.1,
        len,
        flags,
    };
    let copy = In::of(&copy);
    // SAFETY: of the caller's memory only `Own::Target` is written, which is borrowed for that, and any bytes will
    // do. Nobody names himself as the other end.
    unsafe { call_with(calls::VirCopy { copy }) }
}

/// Copies from another process; an absent page is `EFAULT` (TRY).
pub fn try_read(source: Endpoint, address: u64, buffer: &mut [u8]) -> Result<(), Errno> {
    vircopy(source, address, Own::Target(buffer), CP_FLAG_TRY)
}

/// Copies to another process; an absent or write-protected page is `EFAULT` (TRY).
pub fn try_write(target: Endpoint, address: u64, buffer: &[u8]) -> Result<(), Errno> {
    vircopy(target, address, Own::Source(buffer), CP_FLAG_TRY)
}

/// Copies from another process; the kernel has VM repair absent pages meanwhile. Only for
/// servers that nothing in the repair can wait for (PM, RS; never VFS, VM or a file system).
pub fn read(source: Endpoint, address: u64, buffer: &mut [u8]) -> Result<(), Errno> {
    vircopy(source, address, Own::Target(buffer), 0)
}

/// Copies to another process; see [`read`].
pub fn write(target: Endpoint, address: u64, buffer: &[u8]) -> Result<(), Errno> {
    vircopy(target, address, Own::Source(buffer), 0)
}
