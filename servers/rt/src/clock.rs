//! Time since boot and of day.

use abi::Errno;

type Result<T> = core::result::Result<T, Errno>;

/// Time since boot and of day, read without a kernel visit.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Nanoseconds since boot at `ticks`.
    base_ns: u64,
    ticks: u64,
    /// 0 when unknown: then the kernel is asked each time.
    ticks_per_second: u64,
    /// Time of day at boot.
    epoch_ns: u64,
}

impl Clock {
    /// Reads the time of boot from the run specification; without one, days start at boot.
    pub fn new() -> Clock {
        Clock {
            ticks_per_second: crate::kernel::boot_info().map_or(0, |info| info.tsc_hz),
            epoch_ns: boot_epoch().unwrap_or(0),
            base_ns: crate::kernel::time_ns(),
            ticks: ticks(),
        }
    }

    /// Nanoseconds since boot.
    pub fn uptime_ns(&self) -> u64 {
        match self.ticks_per_second {
            0 => crate::kernel::time_ns(),
            hz => {
                let passed = ticks().saturating_sub(self.ticks) as u128;
                let passed = passed * 1_000_000_000 / hz as u128;
                self.base_ns.saturating_add(passed as u64)
            }
        }
    }

    /// Seconds and nanoseconds since 1970.
    pub fn now(&self) -> (i64, i64) {
        let ns = self.epoch_ns.saturating_add(self.uptime_ns());
        ((ns / 1_000_000_000) as i64, (ns % 1_000_000_000) as i64)
    }
}

impl Default for Clock {
    fn default() -> Self {
        Clock::new()
    }
}

fn ticks() -> u64 {
    // SAFETY: reading the time stamp counter has no effect; x86-64 always has it.
    unsafe { core::arch::x86_64::_rdtsc() }
}

fn boot_epoch() -> Result<u64> {
    use abi::boot::{RUN_MAGIC, RunHeader, names};
    let (index, _) = crate::kernel::module_find(names::RUN)?;
    let word = |offset: usize| {
        let mut bytes = [0; 8];
        crate::kernel::module_read(index, offset as u64, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    };
    if word(core::mem::offset_of!(RunHeader, magic))? != RUN_MAGIC {
        return Err(Errno::EINVAL);
    }
    word(core::mem::offset_of!(RunHeader, epoch_ns))
}
