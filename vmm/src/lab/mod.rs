//! The absence laboratory's machines: they run on the calling thread, stop where the world may
//! be changed, and can be put back to where they were.
//!
//! Why so: docs/decisions/008-laboratory.md.

pub mod control;
pub mod disk;
pub mod machine;
pub mod restored;
pub mod watchdog;

use anyhow::{Result, bail};

use crate::kvm::vcpu::Vcpu;
use crate::memory::GuestRam;

pub use machine::{Machine, Output, Setup, Snapshot, Stop};
pub use restored::Restored;

/// Wall clock of every laboratory machine at boot and the time of everything on its disk, ns since 1970: 1 January 2026.
pub const EPOCH_NS: u64 = 1_767_225_600_000_000_000;

/// Answers the guest where pages were taken away from it ([`GuestRam::withdraw`]).
pub trait Absences: Send {
    /// KVM_RUN failed with EFAULT: the guest wants a page that it may not use. Before the
    /// instruction; after `Ok` the guest runs on. `now` is the machine's clock, as far as it is
    /// known, ns.
    fn efault(&mut self, vcpu: &mut Vcpu, ram: &GuestRam, now: u64) -> Result<()>;

    /// VM wants the withdrawn frame at this guest-physical address back. The guest says so:
    /// the address may be any number. Whether it is there now.
    fn restore(&mut self, ram: &GuestRam, physical: u64, now: u64) -> Result<bool>;
}

/// Gives pages back that VM wants, and knows nothing of those that anybody else wants.
#[derive(Clone, Copy, Debug, Default)]
pub struct GiveBack;

impl Absences for GiveBack {
    fn efault(&mut self, _: &mut Vcpu, _: &GuestRam, _: u64) -> Result<()> {
        bail!("the guest uses a page that was taken away, and nobody answers for it")
    }

    fn restore(&mut self, ram: &GuestRam, physical: u64, _: u64) -> Result<bool> {
        ram.give_back(physical).map(|()| true)
    }
}
