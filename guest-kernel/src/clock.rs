//! Time: nanoseconds since boot from the TSC, and the one APIC timer behind all deadlines.

use crate::arch::apic;
use crate::global::Global;
use core::arch::x86_64::_rdtsc;

/// How long a process runs before another of its priority gets a turn, ns.
pub const QUANTUM: u64 = 10_000_000;

static START: Global<u64> = Global::new(0);
/// Ns per tick, as a fraction of 2^32.
static SCALE: Global<u64> = Global::new(0);
/// [`QUANTUM`] in ticks.
static QUANTUM_TICKS: Global<u64> = Global::new(0);
/// When the APIC timer fires, ns; `u64::MAX` when it is not armed.
static ARMED: Global<u64> = Global::new(u64::MAX);

/// The TSC.
#[inline(always)]
pub fn ticks() -> u64 {
    // SAFETY: RDTSC is available at every privilege level on the hosts we run on.
    unsafe { _rdtsc() }
}

/// Starts the clock; `hz` ticks per second.
pub fn init(hz: u64) {
    START.set(ticks());
    QUANTUM_TICKS.set((hz as u128 * QUANTUM as u128 / 1_000_000_000) as u64);
    SCALE.set(((1_000_000_000u128 << 32) / hz as u128) as u64);
}

/// [`QUANTUM`] in TSC ticks.
#[inline(always)]
pub fn quantum_ticks() -> u64 {
    QUANTUM_TICKS.get()
}

/// The time of a TSC reading, ns since boot.
#[inline(always)]
pub fn time_of(tsc: u64) -> u64 {
    to_ns(tsc - start())
}

/// The TSC when the clock started.
#[inline(always)]
fn start() -> u64 {
    START.get()
}

/// Ticks to ns.
#[inline(always)]
pub fn to_ns(ticks: u64) -> u64 {
    ((ticks as u128 * SCALE.get() as u128) >> 32) as u64
}

/// Ns since boot.
#[inline(always)]
pub fn now() -> u64 {
    time_of(ticks())
}

/// Makes sure that the timer fires at `deadline` or earlier. An early interrupt does no harm.
#[inline(always)]
pub fn arm(deadline: u64) {
    if deadline < ARMED.get() {
        let now = now();
        let wait = deadline.saturating_sub(now).min(4_000_000_000);
        ARMED.set(now + wait);
        apic::arm(wait);
    }
}

/// The timer fired.
pub fn fired() {
    ARMED.set(u64::MAX);
}
