//! The machine around the processor: how the kernel logs and how it ends. Chosen at boot: the lab
//! device where the VMM has one, else COM1 and QEMU's debug-exit port.

use super::layout::{KERNEL_BASE, PHYSICAL_BASE};
use crate::global::Global;
use abi::lab;
use core::arch::asm;

/// Physical address of the lab device's page, 0 without one.
static LAB: Global<u64> = Global::new(0);
static LINE: Global<[u8; 640]> = Global::new([0; 640]);

/// Announces the lab device.
pub fn set_lab(physical: u64) {
    LAB.set(physical);
}

/// Whether there is a lab device, that is our own VMM.
pub fn has_lab() -> bool {
    LAB.get() != 0
}

fn lab_store(register: u64, value: u64) -> bool {
    if !has_lab() {
        return false;
    }
    // SAFETY: LAB is a device page below 4 GiB that the VMM named; volatile 8-byte stores
    // are what it takes.
    unsafe { ((PHYSICAL_BASE + LAB.get() + register) as *mut u64).write_volatile(value) };
    true
}

fn out(port: u16, value: u8) {
    // SAFETY: only reached without a lab device, that is in the direct gate at CPL0.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nostack, preserves_flags)) };
}

/// One byte to the serial port, once it has taken the one before.
fn serial(byte: u8) {
    const LINE_STATUS: u16 = lab::SERIAL_PORT + 5;
    const EMPTY: u8 = 1 << 5;
    loop {
        let status: u8;
        // SAFETY: as `out`.
        unsafe {
            asm!("in al, dx", in("dx") LINE_STATUS, out("al") status, options(nostack, preserves_flags))
        };
        if status & EMPTY != 0 {
            return out(lab::SERIAL_PORT, byte);
        }
    }
}

/// Writes one line to the host's log.
pub fn log(parts: &[&[u8]]) {
    let line = LINE.row();
    let bytes = parts.iter().flat_map(|part| part.iter());
    let mut n = 0;
    for (place, &byte) in line[..line.len() - 1].iter().zip(bytes) {
        place.set(byte);
        n += 1;
    }
    line[n].set(b'\n');
    n += 1;
    if lab_store(lab::LOG_ADDRESS, LINE.as_ptr() as u64 - KERNEL_BASE) {
        lab_store(lab::LOG_DOORBELL, n as u64);
    } else {
        line[..n].iter().for_each(|byte| serial(byte.get()));
    }
}

/// The program's first instruction is next.
pub fn program_started(visits: u64, messages: u64) {
    if !lab_store(lab::PROGRAM_STARTED, 1) {
        let (mut first, mut second) = ([0; 20], [0; 20]);
        log(&[
            lab::STARTED_LINE.as_bytes(),
            b" ",
            decimal(visits, &mut first),
            b" kernel visits, ",
            decimal(messages, &mut second),
            b" messages",
        ]);
    }
}

/// A number as text.
fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[at..];
        }
    }
}

/// Tells a VMM where it may look ([`abi::lab::Inspection`]); `false` without one.
pub fn announce_inspection(physical: u64) -> bool {
    lab_store(lab::INSPECTION, physical)
}

/// Tells a VMM where the laboratory's [`abi::trace::Control`] lies; it may fill it in.
pub fn announce_control(physical: u64) {
    lab_store(lab::CONTROL, physical);
}

/// Leaves to the VMM at a fault point.
pub fn point(number: u64) {
    lab_store(lab::POINT, number);
}

/// The trace ring is full: lets the VMM read it.
pub fn trace_full() {
    lab_store(lab::TRACE_FULL, 1);
}

/// Asks the VMM for a withdrawn frame.
pub fn restore(physical: u64) {
    lab_store(lab::RESTORE, physical);
}

/// Nobody will ever run again: the VMM may have another idea. `false` without one.
pub fn stuck() -> bool {
    lab_store(lab::STUCK, 1)
}

/// Ends the machine.
pub fn power_off(status: u64) -> ! {
    if !lab_store(lab::POWEROFF, status) {
        let value = match status {
            lab::POWEROFF_PANIC => lab::DEBUG_EXIT_PANIC,
            lab::POWEROFF_STUCK => lab::DEBUG_EXIT_STUCK,
            status => lab::DEBUG_EXIT_STATUS | status as u32 & 0x1f,
        };
        // SAFETY: as `out`; the debug-exit device ends QEMU.
        unsafe {
            asm!("out dx, eax", in("dx") lab::DEBUG_EXIT_PORT, in("eax") value, options(nostack))
        };
    }
    loop {
        // SAFETY: not reached where a device ended the machine. `ud2` in the kernel is a
        // fault inside, which comes back here, or a triple fault, which ends it as well.
        unsafe { asm!("pause", options(nostack)) };
    }
}
