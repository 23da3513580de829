//! Registers of a device, mapped.

use abi::proto::vm::MapPhysical;
use abi::{Endpoint, Errno, PAGE, page_down};

/// Maps the pages with `len` bytes of registers at a physical address, uncached and for this process's life; where
/// the first register is.
pub(crate) fn map(address: u64, len: u64) -> Result<u64, Errno> {
    let first = page_down(address);
    let end = address.checked_add(len).ok_or(Errno::EINVAL)?;
    let window = MapPhysical {
        phys: first,
        len: (end - first).next_multiple_of(PAGE),
    };
    let mapped = rt::ipc::call(Endpoint::VM, window)?;
    Ok(mapped.addr + (address - first))
}
