//! A virtio device made of code, for tests of drivers on the host: it walks the rings as a
//! device does. Memory is [`crate::dma::init_identity`]'s.

use crate::Features;
use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;
use core::slice;
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{Error, PhysAddr, Result};
use zerocopy::{FromBytes, Immutable, IntoBytes};

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const NO_INTERRUPT: u16 = 1;

/// What the device does with a chain: the queue, what the driver wrote, room for an answer of
/// which it returns how much it filled; `None` leaves the chain for later.
pub type Handler = fn(u16, &[u8], &mut [u8]) -> Option<usize>;

#[derive(Clone, Copy, Default)]
struct Ring {
    size: u16,
    descriptors: PhysAddr,
    available: PhysAddr,
    used: PhysAddr,
    seen: u16,
}

/// The device.
pub struct FakeDevice {
    /// Features offered.
    pub features: u64,
    /// Features the driver took.
    pub accepted: u64,
    /// Configuration space.
    pub config: Vec<u8>,
    /// What it does.
    pub handler: Handler,
    /// Chains are handled inside the notification, not at [`FakeDevice::work`].
    pub synchronous: bool,
    /// Interrupts raised so far.
    pub interrupts: usize,
    pending: bool,
    status: DeviceStatus,
    rings: [Ring; 2],
    notified: VecDeque<u16>,
}

impl FakeDevice {
    /// A device after reset.
    pub fn new(features: Features, config: &[u8], handler: Handler) -> FakeDevice {
        FakeDevice {
            features: features.bits(),
            accepted: 0,
            config: config.to_vec(),
            handler,
            synchronous: true,
            interrupts: 0,
            pending: false,
            status: DeviceStatus::empty(),
            rings: [Ring::default(); 2],
            notified: VecDeque::new(),
        }
    }

    /// Handles what was notified and not yet handled.
    pub fn work(&mut self) {
        while let Some(queue) = self.notified.pop_front() {
            self.handle(queue);
        }
    }

    /// Looks at a queue.
    pub fn handle(&mut self, queue: u16) {
        assert!(self.status.contains(DeviceStatus::DRIVER_OK));
        let ring = &mut self.rings[usize::from(queue)];
        // SAFETY: the driver gave these addresses, of rings of `size` elements in memory
        // whose physical address is its address, and no driver code runs meanwhile.
        unsafe {
            let available = ring.available as *const u16;
            while ring.seen != available.add(1).read_volatile() {
                let head = available.add(2 + usize::from(ring.seen % ring.size)).read();
                let (mut readable, mut writable) = (Vec::new(), Vec::new());
                let mut next = Some(head);
                while let Some(index) = next {
                    assert!(index < ring.size);
                    let at = (ring.descriptors as *const u8).add(usize::from(index) * 16);
                    let address = at.cast::<u64>().read() as *mut u8;
                    let len = at.add(8).cast::<u32>().read() as usize;
                    let flags = at.add(12).cast::<u16>().read();
                    match flags & WRITE {
                        0 => readable.extend_from_slice(slice::from_raw_parts(address, len)),
                        _ => writable.push((address, len)),
                    }
                    next = (flags & NEXT != 0).then(|| at.add(14).cast::<u16>().read());
                }
                let mut answer = vec![0; writable.iter().map(|w| w.1).sum()];
                let Some(written) = (self.handler)(queue, &readable, &mut answer) else {
                    return;
                };
                let mut from = &answer[..];
                for (address, len) in writable {
                    address.copy_from_nonoverlapping(from.as_ptr(), len);
                    from = &from[len..];
                }
                ring.seen = ring.seen.wrapping_add(1);
                let used = ring.used as *mut u16;
                let slot = usize::from(used.add(1).read() % ring.size);
                let element = (ring.used as *mut u8).add(4 + slot * 8).cast::<u32>();
                element.write(head.into());
                element.add(1).write(written as u32);
                used.add(1)
                    .write_volatile(used.add(1).read().wrapping_add(1));
                if available.read_volatile() & NO_INTERRUPT == 0 {
                    self.pending = true;
                    self.interrupts += 1;
                }
            }
        }
    }
}

impl Transport for FakeDevice {
    fn device_type(&self) -> DeviceType {
        DeviceType::Block
    }
    fn read_device_features(&mut self) -> u64 {
        self.features
    }
    fn write_driver_features(&mut self, features: u64) {
        self.accepted = features;
    }
    fn max_queue_size(&mut self, _: u16) -> u32 {
        256
    }
    fn notify(&mut self, queue: u16) {
        self.notified.push_back(queue);
        if self.synchronous {
            self.work();
        }
    }
    fn get_status(&self) -> DeviceStatus {
        self.status
    }
    fn set_status(&mut self, mut status: DeviceStatus) {
        if self.accepted & !self.features != 0 {
            status.remove(DeviceStatus::FEATURES_OK);
        }
        self.status = status;
    }
    fn set_guest_page_size(&mut self, _: u32) {}
    fn requires_legacy_layout(&self) -> bool {
        false
    }
    fn queue_set(
        &mut self,
        queue: u16,
        size: u32,
        descriptors: PhysAddr,
        available: PhysAddr,
        used: PhysAddr,
    ) {
        let size = size as u16;
        self.rings[usize::from(queue)] = Ring {
            size,
            descriptors,
            available,
            used,
            seen: 0,
        };
    }
    fn queue_unset(&mut self, queue: u16) {
        self.rings[usize::from(queue)] = Ring::default();
    }
    fn queue_used(&mut self, queue: u16) -> bool {
        self.rings[usize::from(queue)].size != 0
    }
    fn ack_interrupt(&mut self) -> InterruptStatus {
        match core::mem::take(&mut self.pending) {
            true => InterruptStatus::QUEUE_INTERRUPT,
            false => InterruptStatus::empty(),
        }
    }
    fn read_config_generation(&self) -> u32 {
        0
    }
    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T> {
        let bytes = self.config.get(offset..offset + size_of::<T>());
        let bytes = bytes.ok_or(Error::ConfigSpaceTooSmall)?;
        T::read_from_bytes(bytes).map_err(|_| Error::ConfigSpaceTooSmall)
    }
    fn write_config_space<T: IntoBytes + Immutable>(&mut self, _: usize, _: T) -> Result<()> {
        Err(Error::ConfigSpaceTooSmall)
    }
}
