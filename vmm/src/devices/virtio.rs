//! The virtio-mmio transport, version 2, with split rings by virtio-queue.
//!
//! Everything the driver writes is hostile: a register that makes no sense is ignored, a ring
//! that makes no sense sets DEVICE_NEEDS_RESET and stops the device until the driver resets
//! it, and a descriptor chain is bounded by the queue's size.

use std::sync::atomic::Ordering;

use abi::low;
use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET,
    VIRTIO_F_VERSION_1,
};
use virtio_bindings::virtio_mmio as reg;
use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Queue, QueueOwnedT, QueueState, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};
use vmm_sys_util::eventfd::EventFd;

use crate::kvm::Line;
use crate::memory::Ram;

const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const VERSION: u32 = 2;
/// "ABS": the vendor of these devices.
const VENDOR: u32 = u32::from_le_bytes(*b"ABS\0");
/// Longest chain that is looked at; indirect tables may not make it longer.
const CHAIN_MAX: usize = 512;
const CONFIG: u64 = reg::VIRTIO_MMIO_CONFIG as u64;

/// A chain that no driver makes, or a ring that lies: the device must be reset.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The ring itself.
    #[error("virtio ring: {0}")]
    Queue(#[from] virtio_queue::Error),
    /// A buffer outside guest RAM.
    #[error("virtio buffer: {0}")]
    Memory(#[from] vm_memory::GuestMemoryError),
    /// A chain that is not a request of this device.
    #[error("virtio chain: {0}")]
    Chain(&'static str),
}

/// What is particular to a kind of device.
pub trait Device: Send {
    /// Virtio's number of this kind.
    fn kind(&self) -> u32;
    /// Feature bits offered beside VIRTIO_F_VERSION_1.
    fn features(&self) -> u64;
    /// Largest size of each queue.
    fn queue_sizes(&self) -> &'static [u16];
    /// The configuration space.
    fn config(&self) -> &[u8];
    /// Handles what the driver made available on `queue`; true when something was used.
    fn notify(&mut self, index: usize, queue: &mut Queue, ram: &Ram) -> Result<bool, RingError>;
    /// Forgets what a driver left half done.
    fn reset(&mut self) {}
}

/// How a device interrupts the guest.
#[derive(Debug)]
pub enum Interrupt {
    /// Whoever listens at the other end does it, some time.
    Event(EventFd),
    /// At once, by the thread that runs the vCPU.
    Line(Line),
}

impl Interrupt {
    fn pulse(&self) {
        match self {
            // A full counter is an interrupt that is pending already.
            Interrupt::Event(event) => drop(event.write(1)),
            // It fails only without interrupt controllers.
            Interrupt::Line(line) => drop(line.pulse()),
        }
    }
}

impl From<EventFd> for Interrupt {
    fn from(event: EventFd) -> Interrupt {
        Interrupt::Event(event)
    }
}

/// The registers in front of a device.
pub struct Transport<D> {
    /// The device itself.
    pub device: D,
    queues: Vec<Queue>,
    registers: Registers,
    interrupt: Interrupt,
}

/// What the driver sees beside the queues.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Registers {
    selected: usize,
    device_features_select: u32,
    driver_features_select: u32,
    driver_features: u64,
    status: u32,
    interrupt_status: u32,
}

/// A transport at one moment, without its device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportState {
    queues: Vec<QueueState>,
    registers: Registers,
}

impl<D: Device> Transport<D> {
    /// A device after reset; `interrupt` is pulsed for every interrupt.
    pub fn new(
        device: D,
        interrupt: impl Into<Interrupt>,
    ) -> Result<Transport<D>, virtio_queue::Error> {
        let queues = device
            .queue_sizes()
            .iter()
            .map(|&size| Queue::new(size))
            .collect::<Result<_, _>>()?;
        Ok(Transport {
            device,
            queues,
            registers: Registers::default(),
            interrupt: interrupt.into(),
        })
    }

    /// Its state without the device's own.
    pub fn save(&self) -> TransportState {
        TransportState {
            queues: self.queues.iter().map(Queue::state).collect(),
            registers: self.registers.clone(),
        }
    }

    /// Puts a state of a transport of this kind back.
    pub fn restore(&mut self, state: &TransportState) -> Result<(), virtio_queue::Error> {
        let queues = state.queues.iter().copied().map(Queue::try_from);
        self.queues = queues.collect::<Result<_, _>>()?;
        self.registers = state.registers.clone();
        Ok(())
    }

    fn offered(&self) -> u64 {
        self.device.features() | 1 << VIRTIO_F_VERSION_1
    }

    /// A load from the device's window.
    pub fn read(&mut self, offset: u64, data: &mut [u8]) {
        if offset >= CONFIG {
            data.fill(0);
            let config = self.device.config();
            let start = usize::try_from(offset - CONFIG).unwrap_or(usize::MAX);
            if let Some(rest) = config.get(start..) {
                let len = rest.len().min(data.len());
                data[..len].copy_from_slice(&rest[..len]);
            }
            return;
        }
        // Registers are read whole; anything else finds zeros.
        let value = match data.len() {
            4 => self.register(low(offset)),
            _ => 0,
        };
        let bytes = u64::from(value).to_le_bytes();
        let len = data.len().min(bytes.len());
        data[..len].copy_from_slice(&bytes[..len]);
    }

    fn register(&self, offset: u32) -> u32 {
        let queue = self.queues.get(self.registers.selected);
        match offset {
            reg::VIRTIO_MMIO_MAGIC_VALUE => MAGIC,
            reg::VIRTIO_MMIO_VERSION => VERSION,
            reg::VIRTIO_MMIO_DEVICE_ID => self.device.kind(),
            reg::VIRTIO_MMIO_VENDOR_ID => VENDOR,
            reg::VIRTIO_MMIO_DEVICE_FEATURES => match self.registers.device_features_select {
                0 => low(self.offered()),
                1 => (self.offered() >> 32) as u32,
                _ => 0,
            },
            reg::VIRTIO_MMIO_QUEUE_NUM_MAX => queue.map_or(0, |q| q.max_size().into()),
            reg::VIRTIO_MMIO_QUEUE_READY => queue.is_some_and(QueueT::ready).into(),
            reg::VIRTIO_MMIO_INTERRUPT_STATUS => self.registers.interrupt_status,
            reg::VIRTIO_MMIO_STATUS => self.registers.status,
            // No shared memory regions: length all ones.
            reg::VIRTIO_MMIO_SHM_LEN_LOW | reg::VIRTIO_MMIO_SHM_LEN_HIGH => u32::MAX,
            _ => 0,
        }
    }

    /// A store to the device's window.
    pub fn write(&mut self, offset: u64, data: &[u8], ram: &Ram) -> Result<(), RingError> {
        // No device here has a writable configuration field.
        let (Ok(bytes), true) = (<[u8; 4]>::try_from(data), offset < CONFIG) else {
            return Ok(());
        };
        let value = u32::from_le_bytes(bytes);
        match low(offset) {
            reg::VIRTIO_MMIO_DEVICE_FEATURES_SEL => self.registers.device_features_select = value,
            reg::VIRTIO_MMIO_DRIVER_FEATURES_SEL => self.registers.driver_features_select = value,
            reg::VIRTIO_MMIO_DRIVER_FEATURES
                if self.registers.status & VIRTIO_CONFIG_S_FEATURES_OK == 0 =>
            {
                let shift = match self.registers.driver_features_select {
                    0 => 0,
                    1 => 32,
                    _ => return Ok(()),
                };
                let mask = u64::from(u32::MAX) << shift;
                self.registers.driver_features =
                    self.registers.driver_features & !mask | u64::from(value) << shift;
            }
            reg::VIRTIO_MMIO_QUEUE_SEL => self.registers.selected = value as usize,
            reg::VIRTIO_MMIO_QUEUE_NOTIFY => return self.notify(value as usize, ram),
            reg::VIRTIO_MMIO_INTERRUPT_ACK => self.registers.interrupt_status &= !value,
            reg::VIRTIO_MMIO_STATUS => self.set_status(value),
            _ => self.write_queue(low(offset), value, ram),
        }
        Ok(())
    }

    fn write_queue(&mut self, offset: u32, value: u32, ram: &Ram) {
        let Some(queue) = self.queues.get_mut(self.registers.selected) else {
            return;
        };
        if offset == reg::VIRTIO_MMIO_QUEUE_READY {
            let ready = value & 1 != 0;
            if ready && !queue.ready() {
                queue.set_next_avail(0);
                queue.set_next_used(0);
            }
            queue.set_ready(ready);
            if ready && !queue.is_valid(ram) {
                queue.set_ready(false);
            }
            return;
        }
        // A live queue does not change under the device.
        if queue.ready() {
            return;
        }
        match offset {
            reg::VIRTIO_MMIO_QUEUE_NUM => {
                queue.set_size(u16::try_from(value).unwrap_or(0));
            }
            reg::VIRTIO_MMIO_QUEUE_DESC_LOW => queue.set_desc_table_address(Some(value), None),
            reg::VIRTIO_MMIO_QUEUE_DESC_HIGH => queue.set_desc_table_address(None, Some(value)),
            reg::VIRTIO_MMIO_QUEUE_AVAIL_LOW => queue.set_avail_ring_address(Some(value), None),
            reg::VIRTIO_MMIO_QUEUE_AVAIL_HIGH => queue.set_avail_ring_address(None, Some(value)),
            reg::VIRTIO_MMIO_QUEUE_USED_LOW => queue.set_used_ring_address(Some(value), None),
            reg::VIRTIO_MMIO_QUEUE_USED_HIGH => queue.set_used_ring_address(None, Some(value)),
            _ => {}
        }
    }

    fn set_status(&mut self, value: u32) {
        if value == 0 {
            self.queues.iter_mut().for_each(QueueT::reset);
            self.device.reset();
            self.registers = Registers::default();
            return;
        }
        let mut value = value & !VIRTIO_CONFIG_S_NEEDS_RESET;
        // FEATURES_OK sticks only when the driver took features we offer, and the modern ones.
        let acceptable = self.registers.driver_features & !self.offered() == 0
            && self.registers.driver_features & 1 << VIRTIO_F_VERSION_1 != 0;
        if value & VIRTIO_CONFIG_S_FEATURES_OK != 0 && !acceptable {
            value &= !VIRTIO_CONFIG_S_FEATURES_OK;
        }
        self.registers.status = value | self.registers.status & VIRTIO_CONFIG_S_NEEDS_RESET;
    }

    /// Lets the device look at one of its queues.
    pub fn notify(&mut self, index: usize, ram: &Ram) -> Result<(), RingError> {
        let live = self.registers.status & VIRTIO_CONFIG_S_DRIVER_OK != 0
            && self.registers.status & VIRTIO_CONFIG_S_NEEDS_RESET == 0;
        let Some(queue) = self.queues.get_mut(index).filter(|q| live && q.ready()) else {
            return Ok(());
        };
        match self.device.notify(index, queue, ram) {
            Ok(used) => {
                if used && wants_interrupt(queue, ram) {
                    self.registers.interrupt_status |= reg::VIRTIO_MMIO_INT_VRING;
                    self.interrupt.pulse();
                }
                Ok(())
            }
            Err(error) => {
                self.registers.status |= VIRTIO_CONFIG_S_NEEDS_RESET;
                self.registers.interrupt_status |= reg::VIRTIO_MMIO_INT_CONFIG;
                self.interrupt.pulse();
                Err(error)
            }
        }
    }
}

/// Whether the driver wants to hear of used buffers (virtio-queue does not look at the flag).
fn wants_interrupt(queue: &Queue, ram: &Ram) -> bool {
    let flags: u16 = ram
        .load(GuestAddress(queue.avail_ring()), Ordering::Acquire)
        .map_or(0, u16::from_le);
    u32::from(flags) & VRING_AVAIL_F_NO_INTERRUPT == 0
}

/// The next chain: its head and its descriptors, checked to lie in RAM, the readable ones
/// before the writable ones.
pub fn next_chain(
    queue: &mut Queue,
    ram: &Ram,
) -> Result<Option<(u16, Vec<Descriptor>)>, RingError> {
    let Some(chain) = queue.iter(ram)?.next() else {
        return Ok(None);
    };
    let head = chain.head_index();
    let mut descriptors: Vec<Descriptor> = Vec::new();
    let mut writable = false;
    for descriptor in chain {
        if descriptors.len() == CHAIN_MAX {
            return Err(RingError::Chain("too long"));
        }
        if writable && !descriptor.is_write_only() {
            return Err(RingError::Chain("readable buffer after a writable one"));
        }
        writable = descriptor.is_write_only();
        if !ram.check_range(descriptor.addr(), descriptor.len() as usize) {
            return Err(RingError::Chain("buffer outside RAM"));
        }
        descriptors.push(descriptor);
    }
    if descriptors.is_empty() {
        return Err(RingError::Chain("empty"));
    }
    Ok(Some((head, descriptors)))
}

#[cfg(test)]
mod tests;
