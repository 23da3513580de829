//! Time since boot and of day.

use abi::Errno;
use abi::clock::{tick_scale, ticks_to_ns};
use abi::kernel::BootInfo;

type Result<T> = core::result::Result<T, Errno>;

/// Time since boot and of day, read without a kernel visit where that is possible.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    /// The TSC at boot and its [`tick_scale`]; without a scale the kernel is asked each time.
    start: u64,
    scale: u64,
    /// Time of day at boot.
    epoch_ns: u64,
}

impl Clock {
    /// Reads the time of boot from the run specification; without one, days start at boot.
    pub fn new() -> Clock {
        let info = crate::kernel::boot_info().unwrap_or(BootInfo::NONE);
        Clock {
            start: info.tsc_start,
            scale: match info.tsc_hz {
                0 => 0,
                hz => tick_scale(hz),
            },
            epoch_ns: boot_epoch().unwrap_or(0),
        }
    }

    /// Nanoseconds since boot.
    pub fn uptime_ns(&self) -> u64 {
        match self.scale {
            0 => crate::kernel::time_ns(),
            scale => ticks_to_ns(ticks().saturating_sub(self.start), scale),
        }
    }

    /// Seconds and nanoseconds since 1970.
    pub fn now(&self) -> (i64, i64) {
        let ns = self.epoch_ns.saturating_add(self.uptime_ns());
        ((ns / 1_000_000_000) as i64, (ns % 1_000_000_000) as i64)
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
