//! Memory from VM.

use abi::proto::vm::{MapFlags, Mmap, Prot};
use abi::{Endpoint, Errno, PAGE_SIZE};

/// Maps fresh, zeroed, populated memory: page-aligned address.
pub fn map(bytes: usize) -> Result<usize, Errno> {
    let request = Mmap {
        target: Endpoint::SELF,
        addr: 0,
        len: bytes as u64,
        prot: Prot::READ | Prot::WRITE,
        flags: MapFlags::PREALLOC,
    };
    crate::ipc::call(Endpoint::VM, request).map(|mapped| mapped.addr as usize)
}

/// The heap's default source: chunks of at least 256 KiB.
pub fn grow_heap(bytes: usize) -> Option<(usize, usize)> {
    let bytes = bytes.max(256 * 1024).checked_next_multiple_of(PAGE_SIZE)?;
    map(bytes).ok().map(|address| (address, bytes))
}
