//! Time: nanoseconds since boot from the TSC, and the one APIC timer behind all deadlines.
//!
//! In a deterministic run time is virtual: every entry into the kernel takes [`VISIT`], and
//! while nobody can run it jumps to the next deadline. Then nothing interrupts anybody; what is
//! due is noticed at the next entry.

use crate::arch::apic;
use crate::counters::COUNTERS;
use crate::global::Global;
use abi::clock::{tick_scale, ticks_to_ns};
use core::arch::x86_64::_rdtsc;

/// How long a process runs before another of its priority gets a turn, ns.
pub const QUANTUM: u64 = 10_000_000;

/// What a kernel visit takes in virtual time, ns: about what it takes on the hosts that
/// interpret CPL0.
const VISIT: u64 = 20_000;

static VIRTUAL: Global<bool> = Global::new(false);
/// Virtual time that was jumped over, ns.
static SKIPPED: Global<u64> = Global::new(0);
static START: Global<u64> = Global::new(0);
/// Ns per tick, as a fraction of 2^32.
static SCALE: Global<u64> = Global::new(0);
/// [`QUANTUM`] in ticks.
static QUANTUM_TICKS: Global<u64> = Global::new(0);
/// When the APIC timer fires, ns; `u64::MAX` when it is not armed.
static ARMED: Global<u64> = Global::new(u64::MAX);

/// The TSC, or virtual time.
#[inline(always)]
pub fn ticks() -> u64 {
    if VIRTUAL.get() {
        return COUNTERS.visits.get() * VISIT + SKIPPED.get();
    }
    tsc()
}

/// The TSC.
#[inline(always)]
pub fn tsc() -> u64 {
    // SAFETY: RDTSC is available at every privilege level on the hosts we run on.
    unsafe { _rdtsc() }
}

/// Starts the clock; `hz` TSC ticks per second. Returns how many a
/// second has for those who read it themselves: 0 when they must ask the kernel.
pub fn init(hz: u64, deterministic: bool) -> u64 {
    VIRTUAL.set(deterministic);
    let hz = if deterministic { 1_000_000_000 } else { hz };
    START.set(ticks());
    QUANTUM_TICKS.set((hz as u128 * QUANTUM as u128 / 1_000_000_000) as u64);
    SCALE.set(tick_scale(hz));
    if deterministic { 0 } else { hz }
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
pub fn start() -> u64 {
    START.get()
}

/// Ticks to ns.
#[inline(always)]
pub fn to_ns(ticks: u64) -> u64 {
    ticks_to_ns(ticks, SCALE.get())
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
        if VIRTUAL.get() {
            return ARMED.set(deadline);
        }
        let now = now();
        let wait = deadline.saturating_sub(now).min(4_000_000_000);
        ARMED.set(now + wait);
        apic::arm(wait);
    }
}

/// Whether time is virtual.
pub fn is_virtual() -> bool {
    VIRTUAL.get()
}

/// Whether a deadline has passed that no interrupt will tell of.
#[inline(always)]
pub fn due() -> bool {
    VIRTUAL.get() && ARMED.get() <= now()
}

/// Jumps to the next deadline; how far, ns. `None` without a deadline.
pub fn skip() -> Option<u64> {
    let armed = ARMED.get();
    if armed == u64::MAX {
        return None;
    }
    let ns = armed.saturating_sub(now());
    SKIPPED.set(SKIPPED.get() + ns);
    Some(ns)
}

/// The timer fired.
pub fn fired() {
    ARMED.set(u64::MAX);
}
