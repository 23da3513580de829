//! A device behind PCI (virtio 1.2, section 4.1): structures of registers in its memory, which RS found,
//! and an interrupt by message, which RS set up.

use abi::Errno;
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{Error, PhysAddr, Result};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::map::map;

/// Offsets in the common configuration.
mod common {
    pub const LEN: u64 = 0x38;
    pub const DEVICE_FEATURE_SELECT: usize = 0x00;
    pub const DEVICE_FEATURE: usize = 0x04;
    pub const DRIVER_FEATURE_SELECT: usize = 0x08;
    pub const DRIVER_FEATURE: usize = 0x0c;
    pub const CONFIG_MSIX_VECTOR: usize = 0x10;
    pub const DEVICE_STATUS: usize = 0x14;
    pub const CONFIG_GENERATION: usize = 0x15;
    pub const QUEUE_SELECT: usize = 0x16;
    pub const QUEUE_SIZE: usize = 0x18;
    pub const QUEUE_MSIX_VECTOR: usize = 0x1a;
    pub const QUEUE_ENABLE: usize = 0x1c;
    pub const QUEUE_NOTIFY_OFF: usize = 0x1e;
    pub const QUEUE_DESC: usize = 0x20;
    pub const QUEUE_DRIVER: usize = 0x28;
    pub const QUEUE_DEVICE: usize = 0x30;
}

/// The entry of the device's MSI-X table that RS filled in.
const VECTOR: u16 = 0;
/// Queues that drivers have.
const QUEUES: usize = 2;
/// Reads of the status that a device may take to reset itself.
const RESET_READS: u32 = 100_000;

/// Registers at this address.
#[derive(Clone, Copy, Debug)]
struct Block(*mut u8);

macro_rules! access {
    ($read:ident, $write:ident, $type:ty) => {
        fn $read(self, offset: usize) -> $type {
            // SAFETY: `Pci`'s makers vouch for the blocks; offsets are constants within them or
            // checked, and multiples of the size.
            unsafe { self.0.add(offset).cast::<$type>().read_volatile() }
        }
        fn $write(self, offset: usize, value: $type) {
            // SAFETY: as above.
            unsafe { self.0.add(offset).cast::<$type>().write_volatile(value) }
        }
    };
}

impl Block {
    access!(get8, set8, u8);
    access!(get16, set16, u16);
    access!(get32, set32, u32);

    /// 64 bits are written by halves: not every host takes more at once.
    fn set64(self, offset: usize, value: u64) {
        self.set32(offset, value as u32);
        self.set32(offset + 4, (value >> 32) as u32);
    }
}

/// See the module.
#[derive(Debug)]
pub struct Pci {
    kind: DeviceType,
    common: Block,
    notify: Block,
    notify_len: usize,
    multiplier: usize,
    /// Where a notification of each queue goes; none before the queue is set.
    doors: [Option<usize>; QUEUES],
    config: Block,
    config_len: usize,
}

/// The registers there, mapped.
fn block(address: u64, len: u64) -> core::result::Result<Block, Errno> {
    Ok(Block(map(address, len)? as *mut u8))
}

impl Pci {
    /// Maps the registers that the arguments name. RS looked for a `kind`.
    pub fn open(kind: DeviceType) -> core::result::Result<Pci, Errno> {
        let number = |key| rt::args::number(key).ok_or(Errno::EINVAL);
        let (notify_len, config_len) = (number("notify_len")?, number("config_len")?);
        Ok(Pci {
            kind,
            common: block(number("common")?, common::LEN)?,
            notify: block(number("notify")?, notify_len)?,
            notify_len: notify_len as usize,
            multiplier: number("multiplier")? as usize,
            doors: [None; QUEUES],
            config: block(number("config")?, config_len)?,
            config_len: config_len as usize,
        })
    }

    fn select(&self, queue: u16) {
        self.common.set16(common::QUEUE_SELECT, queue);
    }
}

impl Transport for Pci {
    fn device_type(&self) -> DeviceType {
        self.kind
    }

    fn read_device_features(&mut self) -> u64 {
        [0, 32].into_iter().fold(0, |features, shift| {
            let select = common::DEVICE_FEATURE_SELECT;
            self.common.set32(select, shift / 32);
            features | u64::from(self.common.get32(common::DEVICE_FEATURE)) << shift
        })
    }

    fn write_driver_features(&mut self, features: u64) {
        for half in [0, 1] {
            self.common.set32(common::DRIVER_FEATURE_SELECT, half);
            let bits = (features >> (32 * half)) as u32;
            self.common.set32(common::DRIVER_FEATURE, bits);
        }
    }

    fn max_queue_size(&mut self, queue: u16) -> u32 {
        self.select(queue);
        self.common.get16(common::QUEUE_SIZE).into()
    }

    fn notify(&mut self, queue: u16) {
        if let Some(Some(door)) = self.doors.get(usize::from(queue)) {
            self.notify.set16(*door, queue);
        }
    }

    fn get_status(&self) -> DeviceStatus {
        DeviceStatus::from_bits_truncate(self.common.get8(common::DEVICE_STATUS).into())
    }

    fn set_status(&mut self, status: DeviceStatus) {
        self.common.set8(common::DEVICE_STATUS, status.bits() as u8);
        if status.is_empty() {
            // It is reset when it says so.
            (0..RESET_READS).any(|_| self.common.get8(common::DEVICE_STATUS) == 0);
            self.common.set16(common::CONFIG_MSIX_VECTOR, VECTOR);
        }
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
        driver_area: PhysAddr,
        device_area: PhysAddr,
    ) {
        self.select(queue);
        self.common.set16(common::QUEUE_SIZE, size as u16);
        self.common.set16(common::QUEUE_MSIX_VECTOR, VECTOR);
        self.common.set64(common::QUEUE_DESC, descriptors);
        self.common.set64(common::QUEUE_DRIVER, driver_area);
        self.common.set64(common::QUEUE_DEVICE, device_area);
        self.common.set16(common::QUEUE_ENABLE, 1);
        let offset = self.common.get16(common::QUEUE_NOTIFY_OFF);
        let door = usize::from(offset) * self.multiplier;
        // A device that wants to be told elsewhere is not told, and never done.
        let inside = door + 2 <= self.notify_len && door.is_multiple_of(2);
        if let Some(place) = self.doors.get_mut(usize::from(queue)) {
            *place = inside.then_some(door);
        }
    }

    /// A queue ends with the device's reset.
    fn queue_unset(&mut self, _: u16) {}

    fn queue_used(&mut self, queue: u16) -> bool {
        self.select(queue);
        self.common.get16(common::QUEUE_ENABLE) != 0
    }

    /// The one message stands for both causes.
    fn ack_interrupt(&mut self) -> InterruptStatus {
        InterruptStatus::QUEUE_INTERRUPT | InterruptStatus::DEVICE_CONFIGURATION_INTERRUPT
    }

    fn read_config_generation(&self) -> u32 {
        self.common.get8(common::CONFIG_GENERATION).into()
    }

    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T> {
        let end = offset.checked_add(size_of::<T>());
        if end.is_none_or(|end| end > self.config_len) {
            return Err(Error::ConfigSpaceTooSmall);
        }
        let mut value = T::new_zeroed();
        // Fields are read as what they are.
        match value.as_mut_bytes() {
            bytes if bytes.len() == 4 && offset.is_multiple_of(4) => {
                bytes.copy_from_slice(&self.config.get32(offset).to_le_bytes());
            }
            bytes => {
                for (index, byte) in bytes.iter_mut().enumerate() {
                    *byte = self.config.get8(offset + index);
                }
            }
        }
        Ok(value)
    }

    fn write_config_space<T: IntoBytes + Immutable>(&mut self, _: usize, _: T) -> Result<()> {
        Err(Error::Unsupported)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plain memory as registers: each reads as what was last written.
    fn device(memory: &mut [u64; 256]) -> Pci {
        let base = memory.as_mut_ptr().cast::<u8>();
        Pci {
            kind: DeviceType::Block,
            common: Block(base),
            notify: Block(base.wrapping_add(0x400)),
            notify_len: 0x400,
            multiplier: 4,
            doors: [None; QUEUES],
            config: Block(base.wrapping_add(0x100)),
            config_len: 0x40,
        }
    }

    #[test]
    fn a_queue_is_set_where_the_standard_has_it() {
        let mut memory = [0; 256];
        let mut device = device(&mut memory);
        device.queue_set(1, 16, 0x1_2345_6000, 0x2000, 0x3000);
        assert!(device.queue_used(1));
        let word = |at: usize| memory[at / 8];
        assert_eq!(word(0x20), 0x1_2345_6000);
        assert_eq!((word(0x28), word(0x30)), (0x2000, 0x3000));
        // Select, size, vector and enable; the offset of its notification is the device's.
        assert_eq!(word(0x10) >> 48, 1);
        assert_eq!(word(0x18) & 0xffff_ffff_ffff, 1 << 32 | 16);
    }

    #[test]
    fn a_notification_goes_where_the_device_wants_it_and_no_further() {
        let mut memory = [0; 256];
        let mut device = device(&mut memory);
        for (queue, offset) in [(0, 0x100), (1, 3)] {
            device.notify(queue);
            let common = device.common;
            common.set16(common::QUEUE_NOTIFY_OFF, offset);
            device.queue_set(queue, 4, 0, 0, 0);
            device.notify(queue);
        }
        assert_eq!(memory[0x408 / 8], 1 << 32);
        let told = memory[0x400 / 8..].iter().filter(|&&word| word != 0);
        assert_eq!(told.count(), 1);
    }

    #[test]
    fn configuration_is_read_by_fields_within_its_bounds() {
        let mut memory = [0; 256];
        memory[0x100 / 8] = 0x1122_3344_5566_7788;
        let device = device(&mut memory);
        assert_eq!(device.read_config_space::<u32>(4), Ok(0x1122_3344));
        assert_eq!(device.read_config_space::<u16>(1), Ok(0x6677));
        let beyond = device.read_config_space::<u32>(0x3e);
        assert_eq!(beyond, Err(Error::ConfigSpaceTooSmall));
    }
}
