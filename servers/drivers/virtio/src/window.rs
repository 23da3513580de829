//! The device's registers: found by the driver's arguments, `mmio=` or those of [`Pci`], and `irq=`.

use abi::Errno;
use core::ptr::NonNull;
use virtio_drivers::transport::mmio::{MmioTransport, VirtIOHeader};
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{PhysAddr, Result as DriverResult};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::map::map;
use crate::pci::Pci;

/// Bytes of a register block: the header and 256 bytes of configuration. QEMU packs blocks
/// of this size, several to a page.
const BLOCK: u64 = 0x200;

/// A device's registers. All accesses are volatile loads and stores of 32 bits or of the register's
/// size, which is what every host can emulate for a user-mode driver.
pub enum Registers {
    /// A virtio-mmio window.
    Mmio(MmioTransport<'static>),
    /// Behind PCI.
    Pci(Pci),
}

/// Asks whichever it is.
macro_rules! either {
    ($self:ident, $device:ident => $call:expr) => {
        match $self {
            Registers::Mmio($device) => $call,
            Registers::Pci($device) => $call,
        }
    };
}

impl Transport for Registers {
    fn device_type(&self) -> DeviceType {
        either!(self, device => device.device_type())
    }
    fn read_device_features(&mut self) -> u64 {
        either!(self, device => device.read_device_features())
    }
    fn write_driver_features(&mut self, features: u64) {
        either!(self, device => device.write_driver_features(features))
    }
    fn max_queue_size(&mut self, queue: u16) -> u32 {
        either!(self, device => device.max_queue_size(queue))
    }
    fn notify(&mut self, queue: u16) {
        either!(self, device => device.notify(queue))
    }
    fn get_status(&self) -> DeviceStatus {
        either!(self, device => device.get_status())
    }
    fn set_status(&mut self, status: DeviceStatus) {
        either!(self, device => device.set_status(status))
    }
    fn set_guest_page_size(&mut self, size: u32) {
        either!(self, device => device.set_guest_page_size(size))
    }
    fn requires_legacy_layout(&self) -> bool {
        either!(self, device => device.requires_legacy_layout())
    }
    fn queue_set(
        &mut self,
        queue: u16,
        size: u32,
        descriptors: PhysAddr,
        driver_area: PhysAddr,
        device_area: PhysAddr,
    ) {
        either!(self, device => device.queue_set(queue, size, descriptors, driver_area, device_area))
    }
    fn queue_unset(&mut self, queue: u16) {
        either!(self, device => device.queue_unset(queue))
    }
    fn queue_used(&mut self, queue: u16) -> bool {
        either!(self, device => device.queue_used(queue))
    }
    fn ack_interrupt(&mut self) -> InterruptStatus {
        either!(self, device => device.ack_interrupt())
    }
    fn read_config_generation(&self) -> u32 {
        either!(self, device => device.read_config_generation())
    }
    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> DriverResult<T> {
        either!(self, device => device.read_config_space(offset))
    }
    fn write_config_space<T: IntoBytes + Immutable>(
        &mut self,
        offset: usize,
        value: T,
    ) -> DriverResult<()> {
        either!(self, device => device.write_config_space(offset, value))
    }
}

/// Whether this run wants the device to be asked, again and again, whether it is done: an
/// interrupt would come at no particular moment.
pub fn polled() -> bool {
    rt::args::number("poll").is_some_and(|poll| poll != 0)
}

/// Maps the registers that the arguments name and binds the interrupt unless the device is
/// [`polled`].
pub fn open(kind: DeviceType) -> Result<Registers, Errno> {
    let irq = rt::args::number("irq").ok_or(Errno::EINVAL)?;
    let registers = match rt::args::number("mmio") {
        Some(base) => Registers::Mmio(block(kind, base)?),
        None => Registers::Pci(Pci::open(kind)?),
    };
    if !polled() {
        rt::kernel::irq_bind(irq as u32)?;
    }
    Ok(registers)
}

/// Maps a register block and checks that it is a `kind`. Logs what is wrong.
fn block(kind: DeviceType, base: u64) -> Result<MmioTransport<'static>, Errno> {
    let header = map(base, BLOCK)? as *mut VirtIOHeader;
    let header = NonNull::new(header).ok_or(Errno::EFAULT)?;
    // SAFETY: VM mapped the whole block, uncached and for this process's life; nobody else in
    // this process knows of it. Register blocks are at least 4-byte aligned.
    let registers = unsafe { MmioTransport::new(header, BLOCK as usize) }.map_err(|error| {
        rt::log!("{base:#x}: {error}");
        Errno::ENODEV
    })?;
    if registers.device_type() != kind {
        rt::log!("{base:#x}: a {:?}, not a {kind:?}", registers.device_type());
        return Err(Errno::ENODEV);
    }
    Ok(registers)
}

/// Whether the kernel's notification `word` names an interrupt line. The driver has one.
pub fn is_interrupt(word: u64) -> bool {
    word & abi::kernel::KernelNotify::IRQS.bits() != 0
}
