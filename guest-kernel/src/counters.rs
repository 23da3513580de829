//! What the kernel counts ([`abi::kernel::Counters`]).

use crate::global::Single;
use abi::kernel::CounterCells;
use core::cell::Cell;

/// The counters. The VMM reads them (`inspect`).
pub static COUNTERS: Single<CounterCells> = Single::of(CounterCells::new());

/// Adds to one of them.
#[inline(always)]
pub fn add(counter: &Cell<u64>, n: u64) {
    counter.set(counter.get() + n);
}
