//! The virtio devices that the kernel command line names: windows of virtio-mmio, and whatever is on
//! PCI bus 0.

use abi::boot::{CMDLINE_DETERMINISTIC, CMDLINE_PCI, CMDLINE_VIRTIO};
use abi::command_line::{has, texts};
use abi::kernel::PINS;
use abi::number;
use abi::proto::vm::{AllowPhysical, MapPhysical, Munmap};
use abi::{Endpoint, Errno, PAGE, page_down};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use rt::ipc;

use crate::pci::{self, Function, RESET_READS, Registers};
use crate::services::Device;

/// Bytes of the registers of a virtio-mmio window before its configuration.
const REGISTERS: u64 = 0x100;
/// "virt", little endian, at offset 0.
const MAGIC: u32 = 0x7472_6976;
const DEVICE_ID: usize = 0x08;
const STATUS: usize = 0x70;
/// Device types.
const BLOCK: u32 = 2;
const CONSOLE: u32 = 3;

/// A virtio-mmio window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    /// Physical address.
    pub address: u64,
    /// Bytes.
    pub len: u64,
    /// Interrupt line.
    pub irq: u32,
}

impl Window {
    /// The pages it touches: first address and bytes.
    pub const fn pages(&self) -> (u64, u64) {
        let (first, pages) = abi::kernel::page_span(self.address, self.len);
        (first, pages * PAGE)
    }
}

/// The windows that a command line names. Malformed words are left out.
pub fn windows(command_line: &str) -> impl Iterator<Item = Window> {
    texts(command_line, CMDLINE_VIRTIO).filter_map(window)
}

/// `<size>@<base>:<irq>[:<id>]`, Linux's syntax.
fn window(text: &str) -> Option<Window> {
    let (size, rest) = text.split_once('@')?;
    let mut parts = rest.split(':');
    let address = number::parse(parts.next()?)?;
    let irq = u32::try_from(number::parse(parts.next()?)?).ok()?;
    let len = number::parse(size)?;
    let end = address.checked_add(len)?;
    (len >= REGISTERS && end <= abi::kernel::HOLE.end && address % 4 == 0 && irq < PINS)
        .then_some(Window { address, len, irq })
}

/// Where a device is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// In a window of virtio-mmio.
    Mmio(Window),
    /// Behind PCI.
    Pci(Function),
}

impl Place {
    /// The pages of its registers: first address and bytes.
    pub const fn pages(&self) -> (u64, u64) {
        match self {
            Place::Mmio(window) => window.pages(),
            Place::Pci(function) => function.pages(),
        }
    }

    /// Its interrupt line.
    pub const fn irq(&self) -> u32 {
        match self {
            Place::Mmio(window) => window.irq,
            Place::Pci(function) => function.irq,
        }
    }

    /// What its driver is told.
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = match self {
            Place::Mmio(window) => [format!("mmio={:#x}", window.address)].into(),
            Place::Pci(function) => function.arguments(),
        };
        arguments.push(format!("irq={}", self.irq()));
        arguments
    }
}

/// The first block and the first console device.
#[derive(Clone, Copy, Default, Debug)]
pub struct Devices {
    block: Option<Place>,
    console: Option<Place>,
    /// Drivers ask their devices instead of waiting for interrupts.
    pub polled: bool,
}

impl Devices {
    /// Where the device is, if there is one.
    pub fn place(&self, device: Device) -> Option<Place> {
        match device {
            Device::Block => self.block,
            Device::Console => self.console,
        }
    }

    /// A device of this type was found there.
    fn found(&mut self, device_type: u32, place: Place) {
        match device_type {
            BLOCK => self.block.get_or_insert(place),
            CONSOLE => self.console.get_or_insert(place),
            _ => return,
        };
    }

    /// Whether a device of this type would be the first.
    fn lacks(&self, device_type: u32) -> bool {
        match device_type {
            BLOCK => self.block.is_none(),
            CONSOLE => self.console.is_none(),
            _ => false,
        }
    }
}

/// Looks into each window and at each function.
pub fn probe(command_line: &str) -> Devices {
    let mut devices = Devices {
        polled: has(command_line.as_bytes(), CMDLINE_DETERMINISTIC),
        ..Devices::default()
    };
    let mut mapped = Mapped::default();
    for window in windows(command_line) {
        match mapped.device_id(&window) {
            Ok(device_type) => devices.found(device_type, Place::Mmio(window)),
            Err(errno) => rt::log!("device at {:#x}: {errno}", window.address),
        }
    }
    if let Some(bus) = bus(command_line)
        && let Err(errno) = probe_bus(bus, &mut devices, &mut mapped)
    {
        rt::log!("PCI bus at {bus:#x}: {errno}");
    }
    mapped.unmap();
    devices
}

/// The configuration space of PCI bus 0 that a command line names.
fn bus(command_line: &str) -> Option<u64> {
    let bus = texts(command_line, CMDLINE_PCI).find_map(number::parse)?;
    let end = bus.checked_add(pci::BUS)?;
    (bus.is_multiple_of(PAGE) && end <= abi::kernel::HOLE.end).then_some(bus)
}

/// Looks for what is missing among the functions of a bus, and gives each a line of its own.
fn probe_bus(bus: u64, devices: &mut Devices, mapped: &mut Mapped) -> Result<(), Errno> {
    let mut irq = PINS;
    for (config, device_type) in pci::functions(mapped, bus)? {
        if !devices.lacks(device_type) {
            continue;
        }
        match pci::look(mapped, config, irq) {
            Ok(function) => {
                function.enable(mapped)?;
                devices.found(device_type, Place::Pci(function));
                irq += 1;
            }
            Err(trouble) => rt::log!("the device with its configuration at {config:#x}: {trouble}"),
        }
    }
    Ok(())
}

/// Stops a device whose driver died: whatever it was asked for, it must not write to memory
/// that others get now.
pub fn reset(place: &Place) -> Result<(), Errno> {
    let mut mapped = Mapped::default();
    let result = match place {
        Place::Mmio(window) => mapped.reset(window),
        Place::Pci(function) => function.reset(&mut mapped),
    };
    mapped.unmap();
    result
}

/// Pages of windows that RS has mapped; several windows may share one.
#[derive(Default)]
struct Mapped {
    /// Physical page, address here.
    pages: Vec<(u64, u64)>,
}

impl Registers for Mapped {
    fn load(&mut self, at: u64) -> Result<u32, Errno> {
        let register = self.register(at)?.cast::<u32>();
        // SAFETY: VM mapped the page, and the register is aligned.
        Ok(unsafe { register.read_volatile() })
    }

    fn store(&mut self, at: u64, value: u32) -> Result<(), Errno> {
        let register = self.register(at)?.cast::<u32>();
        // SAFETY: as in `load`; nobody drives the device yet.
        unsafe { register.write_volatile(value) };
        Ok(())
    }

    fn load8(&mut self, at: u64) -> Result<u8, Errno> {
        // SAFETY: as in `load`.
        Ok(unsafe { self.register(at)?.read_volatile() })
    }

    fn store8(&mut self, at: u64, value: u8) -> Result<(), Errno> {
        // SAFETY: as in `load`; nobody drives the device yet or any more.
        unsafe { self.register(at)?.write_volatile(value) };
        Ok(())
    }
}

impl Mapped {
    /// The register at a physical address, a multiple of its size.
    fn register(&mut self, at: u64) -> Result<*mut u8, Errno> {
        let page = page_down(at);
        Ok((self.page(page)? + (at - page)) as usize as *mut u8)
    }

    fn page(&mut self, phys: u64) -> Result<u64, Errno> {
        if let Some(&(_, address)) = self.pages.iter().find(|page| page.0 == phys) {
            return Ok(address);
        }
        let (target, len) = (Endpoint::RS, PAGE);
        ipc::call(Endpoint::VM, AllowPhysical { target, phys, len })?;
        let map = MapPhysical { phys, len: PAGE };
        let address = ipc::call(Endpoint::VM, map)?.addr;
        self.pages.push((phys, address));
        Ok(address)
    }

    /// The first register of a window: [`REGISTERS`] bytes from there are mapped.
    fn registers(&mut self, window: &Window) -> Result<*mut u8, Errno> {
        let page = page_down(window.address);
        let offset = window.address - page;
        if offset + REGISTERS > PAGE {
            return Err(Errno::EINVAL);
        }
        Ok((self.page(page)? + offset) as usize as *mut u8)
    }

    /// 0 for an empty window.
    fn device_id(&mut self, window: &Window) -> Result<u32, Errno> {
        let base = self.registers(window)?;
        // SAFETY: VM mapped the registers, and they are aligned, as the window is; reading
        // these two has no side effects.
        let (magic, id) = unsafe {
            (
                base.cast::<u32>().read_volatile(),
                base.add(DEVICE_ID).cast::<u32>().read_volatile(),
            )
        };
        Ok(if magic == MAGIC { id } else { 0 })
    }

    fn reset(&mut self, window: &Window) -> Result<(), Errno> {
        let status = self.registers(window)?.wrapping_add(STATUS).cast::<u32>();
        // SAFETY: VM mapped the register, which is aligned; nobody drives the device any more.
        // It has stopped when it reads as 0.
        let stopped = unsafe {
            status.write_volatile(0);
            (0..RESET_READS).any(|_| status.read_volatile() == 0)
        };
        if stopped { Ok(()) } else { Err(Errno::EIO) }
    }

    fn unmap(self) {
        for (_, addr) in self.pages {
            let request = Munmap {
                target: Endpoint::SELF,
                addr,
                len: PAGE,
            };
            if let Err(errno) = ipc::call(Endpoint::VM, request) {
                rt::log!("unmapping a probed page: {errno}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_command_line() {
        let line = "virtio_mmio.device=4K@0xd0000000:5 absentia.lab=0xd0010000 \
                    virtio_mmio.device=4K@0xd0001000:6";
        let found: Vec<_> = windows(line).collect();
        let window = |address, irq| Window {
            address,
            len: 4096,
            irq,
        };
        assert_eq!(found, [window(0xd000_0000, 5), window(0xd000_1000, 6)]);
    }

    #[test]
    fn qemu_puts_several_windows_into_a_page() {
        let line = "virtio_mmio.device=512@0xfeb00e00:12 virtio_mmio.device=512@0xfeb00c00:11";
        let found: Vec<_> = windows(line).collect();
        assert_eq!(found[0].pages(), (0xfeb0_0000, PAGE));
        assert_eq!(found[1].address, 0xfeb0_0c00);
        assert_eq!(found[1].irq, 11);
    }

    #[test]
    fn a_bus_lies_within_reach() {
        assert_eq!(bus("quiet absentia.pci=0xb0000000"), Some(0xb000_0000));
        for word in ["0xb0000800", "0xfff01000", "0xffffffffffffffff", "here", ""] {
            assert_eq!(bus(&format!("absentia.pci={word}")), None, "{word}");
        }
        assert_eq!(bus("pci=0xb0000000"), None);
    }

    #[test]
    fn malformed_words_are_left_out() {
        for word in [
            "",
            "4K",
            "4K@",
            "4K@0xd0000000",
            "4K@0xd0000000:",
            "4K@zzz:5",
            "@0xd0000000:5",
            "16@0xd0000000:5",
            "4K@0xd0000001:5",
            "4K@0xd0000000:24",
            "4K@0xffffffffffffffff:5",
            "99999999999G@0:5",
            "4K@0x100000000:5",
        ] {
            assert_eq!(window(word), None, "{word}");
        }
        assert!(window("0x200@0xd0000000:5:7").is_some());
        assert!(window("01000@3G:23").is_some());
    }
}
