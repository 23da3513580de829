//! Memory from VM.

use abi::proto::vm::{MapFlags, Mmap, Munmap, Prot};
use abi::{Endpoint, Errno};

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

/// The heap's default source of memory.
pub fn grow_heap(bytes: usize, _least: bool) -> Option<usize> {
    map(bytes).ok()
}

/// Where it goes back to.
pub fn shrink_heap(addr: usize, bytes: usize) {
    let request = Munmap {
        target: Endpoint::SELF,
        addr: addr as u64,
        len: bytes as u64,
    };
    // What VM does not take back is lost, no more.
    let _ = crate::ipc::call(Endpoint::VM, request);
}
