//! The kernel's counters, read from guest memory where the kernel says that they are.

use abi::kernel::Counters;
use vm_memory::{Bytes, GuestAddress};

use crate::inspect::table;
use crate::memory::Ram;

/// The counters as they are now; `inspection` is what the kernel stored to
/// [`abi::lab::INSPECTION`].
pub fn read(ram: &Ram, inspection: u64) -> Option<Counters> {
    if inspection == 0 {
        return None;
    }
    let at = table::layout(ram, inspection)?.counters;
    let word = |n: u64| -> Option<u64> {
        let at = at.checked_add(n * 8)?;
        ram.read_obj(GuestAddress(at)).ok()
    };
    Some(Counters {
        visits: word(0)?,
        messages: word(1)?,
        copies: word(2)?,
        copied_bytes: word(3)?,
        soft_faults: word(4)?,
        memory_requests: word(5)?,
        page_faults: word(6)?,
        interrupts: word(7)?,
        switches: word(8)?,
        idle_ns: word(9)?,
    })
}

/// For a person.
pub fn describe(counters: &Counters) -> String {
    format!(
        "{} kernel visits, {} messages, {} copies of {} KiB, {} page faults, {} switches, \
         {} interrupts",
        counters.visits,
        counters.messages,
        counters.copies,
        counters.copied_bytes >> 10,
        counters.page_faults,
        counters.switches,
        counters.interrupts
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{GuestRam, MINIMUM};

    #[test]
    fn a_kernel_that_said_nothing_has_no_counters() {
        let ram = GuestRam::new(MINIMUM).unwrap();
        for at in [0, 0x1000, MINIMUM, u64::MAX - 3] {
            assert!(read(&ram.map, at).is_none(), "{at:#x}");
        }
    }

    #[test]
    fn the_order_is_the_kernel_s() {
        use std::mem::offset_of;
        assert_eq!(offset_of!(Counters, page_faults), 6 * 8);
        assert_eq!(offset_of!(Counters, idle_ns), 9 * 8);
    }
}
