//! Interrupt lines: who is told of which.

use crate::arch::{apic, layout};
use crate::clock;
use crate::global::Global;
use crate::notice::notice;
use abi::Endpoint;
use abi::kernel::KernelNotify;

static BOUND: Global<[Endpoint; layout::LINES as usize]> =
    Global::new([Endpoint::NONE; layout::LINES as usize]);

/// Interrupts of `line` go to `process`; where time is virtual there are none.
pub fn bind_line(line: u32, process: Endpoint) {
    BOUND.put(line as usize, process);
    if !clock::is_virtual() {
        apic::unmask(line);
    }
}

/// Tells who is bound to `line` of an interrupt, if it is one and somebody is.
pub fn interrupted(line: u64) {
    if line < layout::LINES {
        let bound = BOUND.at(line as usize);
        notice(bound, KernelNotify::from_bits_retain(1 << (32 + line)));
    }
}
