//! How the time stamp counter becomes time.

/// Nanoseconds a tick, as a fraction of 2^32. The kernel and those who read the TSC themselves reckon alike, so that
/// all have the same time.
#[expect(clippy::cast_possible_truncation, reason = "10^9 times 2^32 fits")]
pub const fn tick_scale(hz: u64) -> u64 {
    ((1_000_000_000u128 << 32) / hz as u128) as u64
}

/// Ticks to nanoseconds, by their [`tick_scale`].
#[expect(clippy::cast_possible_truncation, reason = "584 years fit")]
pub const fn ticks_to_ns(ticks: u64, scale: u64) -> u64 {
    ((ticks as u128 * scale as u128) >> 32) as u64
}
