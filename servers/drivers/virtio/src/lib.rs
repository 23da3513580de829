//! What the virtio drivers share: the device's registers ([`window`], [`pci`]) and memory that
//! the device can reach ([`dma`]). The rings themselves are `virtio-drivers`'.
//!
//! A driver takes only VIRTIO_F_VERSION_1 and what it names in [`negotiate`]; without
//! EVENT_IDX the "no interrupt" flag of a ring works, which saves the interrupt of every
//! request that a synchronous device completes inside the notification.
#![no_std]

#[cfg(feature = "fake")]
extern crate alloc;

pub mod dma;
#[cfg(feature = "fake")]
pub mod fake;
mod map;
pub mod pci;
pub mod window;

pub use virtio_drivers::Error;
pub use virtio_drivers::queue::VirtQueue;
pub use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};

use abi::Errno;

bitflags::bitflags! {
    /// Feature bits that the drivers know.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Features: u64 {
        /// Block: the disk refuses writes.
        const BLK_RO = 1 << 5;
        /// Block: there is a cache and a flush command for it.
        const BLK_FLUSH = 1 << 9;
        /// The modern interface.
        const VERSION_1 = 1 << 32;
    }
}

/// Resets the device and agrees on features: those of `wanted` that it offers. `ENODEV` when
/// it is a legacy device or does not accept the set. Follow with the queues, then
/// [`Transport::finish_init`].
pub fn negotiate<T: Transport>(transport: &mut T, wanted: Features) -> Result<Features, Errno> {
    let agreed = transport.begin_init(wanted | Features::VERSION_1);
    let accepted = transport.get_status().contains(DeviceStatus::FEATURES_OK);
    if accepted && agreed.contains(Features::VERSION_1) {
        Ok(agreed)
    } else {
        transport.set_status(DeviceStatus::FAILED);
        Err(Errno::ENODEV)
    }
}
