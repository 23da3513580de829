//! Time: nanoseconds since boot from the TSC, and the one APIC timer behind all deadlines.

use crate::arch::apic;
use core::arch::x86_64::_rdtsc;

/// How long a process runs before another of its priority gets a turn, ns.
pub const QUANTUM: u64 = 10_000_000;

static mut START: u64 = 0;
/// Ns per tick, as a fraction of 2^32.
static mut SCALE: u64 = 0;
/// [`QUANTUM`] in ticks.
static mut QUANTUM_TICKS: u64 = 0;
/// When the APIC timer fires, ns; `u64::MAX` when it is not armed.
static mut ARMED: u64 = u64::MAX;

/// The TSC.
#[inline(always)]
pub fn ticks() -> u64 {
    // SAFETY: RDTSC is available at every privilege level on the hosts we run on.
    unsafe { _rdtsc() }
}

/// Starts the clock; `hz` ticks per second.
pub fn init(hz: u64) {
    // SAFETY: boot, single processor.
    unsafe {
        START = ticks();
        QUANTUM_TICKS = (hz as u128 * QUANTUM as u128 / 1_000_000_000) as u64;
        SCALE = ((1_000_000_000u128 << 32) / hz as u128) as u64;
    }
}

/// [`QUANTUM`] in TSC ticks.
#[inline(always)]
pub fn quantum_ticks() -> u64 {
    // SAFETY: written at boot only.
    unsafe { QUANTUM_TICKS }
}

/// The time of a TSC reading, ns since boot.
#[inline(always)]
pub fn time_of(tsc: u64) -> u64 {
    to_ns(tsc - start())
}

/// The TSC when the clock started.
#[inline(always)]
fn start() -> u64 {
    // SAFETY: written at boot only.
    unsafe { START }
}

/// Ticks to ns.
#[inline(always)]
pub fn to_ns(ticks: u64) -> u64 {
    // SAFETY: written at boot only.
    unsafe { ((ticks as u128 * SCALE as u128) >> 32) as u64 }
}

/// Ns since boot.
#[inline(always)]
pub fn now() -> u64 {
    time_of(ticks())
}

/// Makes sure that the timer fires at `deadline` or earlier. An early interrupt does no harm.
#[inline(always)]
pub fn arm(deadline: u64) {
    // SAFETY: single processor, kernel code is not interrupted.
    unsafe {
        if deadline < ARMED {
            let now = now();
            let wait = deadline.saturating_sub(now).min(4_000_000_000);
            ARMED = now + wait;
            apic::arm(wait);
        }
    }
}

/// The timer fired.
pub fn fired() {
    // SAFETY: as in `arm`.
    unsafe { ARMED = u64::MAX };
}
