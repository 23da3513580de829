//! Copies that name processes and addresses, without grants (rows K1 and K2).

use super::{PRESENT, WRITE, change, fill, holds, memset, page, requests, reset, row, window};
use crate::check;
use abi::kernel::{CP_FLAG_TRY, In, VM_WINDOW, VirCopy, calls};
use abi::{Endpoint, Errno, PAGE};
use core::sync::atomic::Ordering;
use rt::kernel;

fn vircopy(request: &VirCopy) -> Result<(), Errno> {
    let copy = In::of(request);
    // SAFETY: the pages are the rows' own, which nobody has borrowed.
    unsafe { kernel::call_with(calls::VirCopy { copy }) }
}

/// The part of K1 and K2 that only VM may do: copies from and to physical memory, and filling it.
pub fn physical() {
    reset();
    let frame = |n| window(n) as u64 - VM_WINDOW;
    let end = 1 << 40;
    let copy = |source: Endpoint, from, target: Endpoint, to| {
        let request = VirCopy {
            source: source.0,
            target: target.0,
            source_address: from,
            target_address: to,
            len: PAGE,
            flags: 0,
        };
        vircopy(&request)
    };
    let (us, memory) = (Endpoint::SELF, Endpoint::NONE);
    assert_eq!(copy(memory, frame(0), us, page(4)), Ok(()));
    assert_eq!(copy(us, page(1), memory, frame(5)), Ok(()));
    assert_eq!(copy(memory, frame(2), memory, frame(6)), Ok(()));
    assert!(holds(4, 1) && holds(5, 2) && holds(6, 3));
    let fill = |at| memset(memory, at, 9, 0);
    assert_eq!(fill(frame(7)), Ok(()));
    assert!(holds(7, 9));
    // What is not RAM is refused before anything moves.
    let absent = Err(Errno::EFAULT);
    assert_eq!(copy(memory, end, us, page(4)), absent);
    assert_eq!(copy(us, page(1), memory, end), absent);
    assert_eq!(fill(end), absent);
    assert_eq!(fill(u64::MAX - 1), absent);
    // VM cannot ask itself: what it has not is an error.
    change(0, PRESENT, 0);
    check("flush", kernel::call(calls::FlushSelf {}));
    assert_eq!(copy(us, page(0), memory, frame(4)), absent);
    reset();
}

/// The rows.
pub fn ungranted(me: Endpoint) {
    let fault = Err(Errno::EFAULT);
    let copy = |target: Endpoint, flags| {
        let request = VirCopy {
            source: Endpoint::SELF.0,
            target: target.0,
            source_address: page(4),
            target_address: page(0),
            len: PAGE,
            flags,
        };
        vircopy(&request)
    };
    change(0, PRESENT, 0);
    assert_eq!(copy(Endpoint::VM, CP_FLAG_TRY), fault);
    assert_eq!(copy(Endpoint::VM, 2), Err(Errno::EINVAL));
    assert_eq!(requests(), 0);
    assert_eq!(copy(Endpoint::VM, 0), Ok(()));
    assert!(holds(0, 5));
    // TRY is about the memory of others: the copier's own is repaired for it.
    change(0, PRESENT, 0);
    assert_eq!(copy(me, CP_FLAG_TRY), Ok(()));
    assert_eq!(requests(), 2);
    // Physical memory is VM's alone ([`physical`]).
    assert_eq!(copy(Endpoint::NONE, 0), Err(Errno::EPERM));
    row("K1");

    let memset =
        |who: Endpoint, tries| memset(who, page(0), 3, if tries { CP_FLAG_TRY } else { 0 });
    change(0, PRESENT, 0);
    assert_eq!(memset(Endpoint::VM, true), fault);
    assert_eq!(requests(), 0);
    assert!(holds(0, 1));
    assert_eq!(memset(Endpoint::VM, false), Ok(()));
    assert_eq!((requests(), WRITE.load(Ordering::Relaxed)), (1, 1));
    assert!(holds(0, 3));
    // The copier's own, with TRY and without.
    for tries in [true, false] {
        fill(0, 1);
        change(0, PRESENT, 0);
        assert_eq!(memset(Endpoint::SELF, tries), Ok(()));
        assert!(holds(0, 3));
    }
    assert_eq!(requests(), 3);
    fill(0, 1);
    for flags in [CP_FLAG_TRY << 1, CP_FLAG_TRY | 1 << 63] {
        let filled = super::memset(Endpoint::VM, page(0), 3, flags);
        assert_eq!(filled, Err(Errno::EINVAL));
    }
    assert_eq!(memset(Endpoint::NONE, false), Err(Errno::EPERM));
    assert!(holds(0, 1));
    row("K2");
}
