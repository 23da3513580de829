//! How many frames programs leave to services and to VM. It follows from what can be needed at once: a request
//! of a server that finds no memory must still be answered, and what it needs is bounded (docs/decisions/020-heaps.md).

use crate::cache::Key;
use crate::jobs::Job;
use abi::endpoint::MAX_PROCESSES;
use abi::kernel::HEAP_PIECE;
use abi::{PAGE, PAGE_SIZE};

/// Bytes that VM notes of a process that waits: what it waits for, in a vector that may have room for twice as many, and
/// the page that is asked for.
const NOTE: usize = 2 * size_of::<Job>() + 4 * size_of::<Key>();

/// Frames that are VM's alone: every process can wait, and so fragmented is its heap.
pub const OWN: u32 = (2 * MAX_PROCESSES * NOTE).div_ceil(PAGE_SIZE) as u32;

/// A service that handles one request needs one more piece of heap, and its page tables.
const OF_SERVICE: u32 = (HEAP_PIECE as u64 / PAGE) as u32 + 2;

/// Pages that come from a file at once, and are in the cache before anybody maps them.
const PAGE_IN: u32 = 64;

/// Frames that programs leave to `services` of them, in a machine of `total` frames: where there are many, more requests are
/// under way that have taken memory and not yet given it back.
pub fn of_services(services: u32, total: u32) -> u32 {
    let least = services * OF_SERVICE + PAGE_IN;
    least.max((total / 64).min(4 * least))
}

/// Frames that file systems' caches leave to programs in a machine of `total` frames, so that a program that needs some
/// gets them while the caches are asked for others, and a fork its page tables.
pub fn ahead_of(total: u32) -> u32 {
    (total / 64).max(PAGE_IN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_services_leave_a_machine_of_16_mib_most_of_its_memory() {
        assert!(OWN * PAGE as u32 <= 512 << 10, "{OWN}");
        let kept = OWN + of_services(10, 2830);
        assert!((220..400).contains(&kept), "{kept}");
        assert!(of_services(10, 1 << 20) <= 1024);
    }
}
