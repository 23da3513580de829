//! Local APIC and IOAPIC, by MMIO in both gates.

use super::layout::{PHYSICAL_BASE, VECTOR_LINES, VECTOR_SPURIOUS, VECTOR_TIMER};
use abi::kernel::PINS;

const LOCAL: u64 = PHYSICAL_BASE + 0xfee0_0000;
const IO: u64 = PHYSICAL_BASE + 0xfec0_0000;

const EOI: u64 = 0xb0;
const SPURIOUS: u64 = 0xf0;
const TIMER: u64 = 0x320;
const LINT0: u64 = 0x350;
const LINT1: u64 = 0x360;
const INITIAL_COUNT: u64 = 0x380;
const CURRENT_COUNT: u64 = 0x390;
const DIVIDE: u64 = 0x3e0;
const MASKED: u32 = 1 << 16;

fn write(base: u64, register: u64, value: u32) {
    // SAFETY: the APICs' pages are mapped uncached in the kernel's view; 4-byte accesses.
    unsafe { ((base + register) as *mut u32).write_volatile(value) };
}

fn read(base: u64, register: u64) -> u32 {
    // SAFETY: as in `write`.
    unsafe { ((base + register) as *const u32).read_volatile() }
}

/// Enables the local APIC with a one-shot timer; masks everything else.
pub fn init() {
    write(LOCAL, SPURIOUS, 0x100 | VECTOR_SPURIOUS as u32);
    write(LOCAL, LINT0, MASKED);
    write(LOCAL, LINT1, MASKED);
    write(LOCAL, DIVIDE, 0b1011);
    write(LOCAL, TIMER, VECTOR_TIMER as u32);
    for pin in 0..PINS {
        io_write(0x10 + 2 * pin, MASKED);
    }
}

fn io_write(register: u32, value: u32) {
    write(IO, 0, register);
    write(IO, 0x10, value);
}

/// Unmasks an edge-triggered line. One without a pin has nothing that masks it here.
pub fn unmask(line: u32) {
    if line >= PINS {
        return;
    }
    io_write(0x11 + 2 * line, 0);
    io_write(0x10 + 2 * line, VECTOR_LINES as u32 + line);
}

/// Acknowledges the interrupt in service.
pub fn acknowledge() {
    write(LOCAL, EOI, 0);
}

/// Interrupts after `ns` (the timer's bus clock is 1 GHz under KVM and QEMU), at most 4 s.
pub fn arm(ns: u64) {
    write(LOCAL, INITIAL_COUNT, ns.clamp(1, 4_000_000_000) as u32);
}

/// Counts `ticks` for a millisecond of the APIC timer: how many a second has.
pub fn calibrate(ticks: impl Fn() -> u64) -> u64 {
    const SPAN: u32 = 1_000_000;
    write(LOCAL, TIMER, MASKED | VECTOR_TIMER as u32);
    write(LOCAL, INITIAL_COUNT, u32::MAX);
    let (c0, t0) = (read(LOCAL, CURRENT_COUNT), ticks());
    let (mut c1, mut t1) = (c0, t0);
    while c0.wrapping_sub(c1) < SPAN {
        (c1, t1) = (read(LOCAL, CURRENT_COUNT), ticks());
    }
    write(LOCAL, INITIAL_COUNT, 0);
    write(LOCAL, TIMER, VECTOR_TIMER as u32);
    ((t1 - t0) as u128 * 1_000_000_000 / c0.wrapping_sub(c1) as u128) as u64
}
