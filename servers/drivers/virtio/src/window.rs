//! The device's registers: found by the driver's arguments `mmio=` and `irq=`.

use abi::proto::vm::MapPhysical;
use abi::{Endpoint, Errno, PAGE, page_down};
use core::ptr::NonNull;
use virtio_drivers::transport::mmio::{MmioTransport, VirtIOHeader};
use virtio_drivers::transport::{DeviceType, Transport};

/// Bytes of a register block: the header and 256 bytes of configuration. QEMU packs blocks
/// of this size, several to a page.
const BLOCK: u64 = 0x200;

/// A device's registers. All accesses are volatile 32-bit loads and stores, which is what
/// every host can emulate for a user-mode driver.
pub type Registers = MmioTransport<'static>;

/// Whether this run wants the device to be asked, again and again, whether it is done: an
/// interrupt would come at no particular moment.
pub fn polled() -> bool {
    rt::args::number("poll").is_some_and(|poll| poll != 0)
}

/// Maps the register block that the arguments name, checks that it is a `kind`, and binds
/// the interrupt unless the device is [`polled`]. Logs what is wrong.
pub fn open(kind: DeviceType) -> Result<Registers, Errno> {
    let base = rt::args::number("mmio").ok_or(Errno::EINVAL)?;
    let irq = rt::args::number("irq").ok_or(Errno::EINVAL)?;
    let first = page_down(base);
    let end = base.checked_add(BLOCK).ok_or(Errno::EINVAL)?;
    let window = MapPhysical {
        phys: first,
        len: (end - first).next_multiple_of(PAGE),
    };
    let mapped = rt::ipc::call(Endpoint::VM, window)?;
    let header = (mapped.addr + (base - first)) as *mut VirtIOHeader;
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
    if !polled() {
        rt::kernel::irq_bind(irq as u32)?;
    }
    Ok(registers)
}

/// Whether the kernel's notification `word` names an interrupt line. The driver has one.
pub fn is_interrupt(word: u64) -> bool {
    word & abi::kernel::KernelNotify::IRQS.bits() != 0
}
