//! Virtio devices on a PCI bus (PCI 3.0, and virtio 1.2, section 4.1): where firmware has put their
//! registers, and interrupts by message (MSI-X), which need no wires.
//!
//! Why so: docs/decisions/025-pci.md.

use abi::kernel::{HOLE, message_of, page_span};
use abi::{Errno, PAGE};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Bytes of a bus's configuration space: a page for each of 32 devices' 8 functions.
pub const BUS: u64 = 256 * FUNCTION;
const FUNCTION: u64 = 4096;
const FUNCTIONS: u64 = 8;

// Offsets in a function's configuration space.
const ID: u64 = 0x00;
const COMMAND: u64 = 0x04;
const HEADER_TYPE: u64 = 0x0e;
const BARS: u64 = 0x10;
const SUBSYSTEM: u64 = 0x2c;
const CAPABILITIES: u64 = 0x34;

/// Memory answers, the device may reach memory itself, and uses no wire.
const COMMANDS: u32 = 1 << 1 | 1 << 2 | 1 << 10;
const MANY_FUNCTIONS: u8 = 1 << 7;
const VIRTIO: u32 = 0x1af4;
/// A device of this id or a higher one has its type in it; of a lower one the subsystem's id is
/// the type.
const MODERN: u32 = 0x1040;

/// Kinds of capabilities, and of virtio's.
const MSI_X: u8 = 0x11;
const VENDOR: u8 = 0x09;
const COMMON: u8 = 1;
const NOTIFY: u8 = 2;
const DEVICE: u8 = 4;
/// More than fit: the list is a circle.
const CAPABILITIES_MAX: usize = 48;

/// MSI-X is on, and not masked as a whole.
const MSI_X_ON: u32 = 1 << 31;
const MSI_X_MASKED: u32 = 1 << 30;

/// Bytes of the common configuration, and the status in it.
const COMMON_LEN: u64 = 0x38;
const STATUS: u64 = 0x14;
/// Reads of the status that a device may take to stop.
pub const RESET_READS: u32 = 100_000;
/// A driver gets the pages from its first register to its last, which are no more than this.
const SPAN_MAX: u64 = 1 << 20;

/// Device registers by physical address, volatile.
pub trait Registers {
    /// Reads 32 bits.
    fn load(&mut self, at: u64) -> Result<u32, Errno>;
    /// Writes 32 bits.
    fn store(&mut self, at: u64, value: u32) -> Result<(), Errno>;
    /// Reads a byte.
    fn load8(&mut self, at: u64) -> Result<u8, Errno>;
    /// Writes a byte.
    fn store8(&mut self, at: u64, value: u8) -> Result<(), Errno>;
}

/// A part of a device's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Part {
    address: u64,
    len: u64,
}

/// A virtio device on the bus.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Function {
    /// Its configuration space.
    config: u64,
    common: Part,
    notify: Part,
    multiplier: u32,
    device: Part,
    /// The capability, and the table's first entry.
    msi_x: (u64, u64),
    /// Its interrupt line, which its message raises.
    pub irq: u32,
}

/// Why a device cannot be driven.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// Its registers cannot be reached.
    Registers(Errno),
    /// What it lacks.
    Lacks(&'static str),
}

impl From<Errno> for Trouble {
    fn from(errno: Errno) -> Trouble {
        Trouble::Registers(errno)
    }
}

impl core::fmt::Display for Trouble {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Trouble::Registers(errno) => write!(f, "{errno}"),
            Trouble::Lacks(what) => write!(f, "it has no {what} that could be used"),
        }
    }
}

/// The virtio functions of a bus: their configuration spaces and types.
pub fn functions(registers: &mut impl Registers, bus: u64) -> Result<Vec<(u64, u32)>, Errno> {
    let mut found = Vec::new();
    for first in (bus..bus + BUS).step_by((FUNCTION * FUNCTIONS) as usize) {
        let many = registers.load8(first + HEADER_TYPE)? & MANY_FUNCTIONS != 0;
        let last = if many { FUNCTIONS } else { 1 };
        for config in (0..last).map(|number| first + number * FUNCTION) {
            let id = registers.load(config + ID)?;
            let (vendor, device) = (id & 0xffff, id >> 16);
            if vendor != VIRTIO {
                continue;
            }
            let device_type = match device.checked_sub(MODERN) {
                Some(device_type) => device_type,
                None => registers.load(config + SUBSYSTEM)? >> 16,
            };
            found.push((config, device_type));
        }
    }
    Ok(found)
}

/// A function's parts. `irq` is to be its line.
pub fn look(registers: &mut impl Registers, config: u64, irq: u32) -> Result<Function, Trouble> {
    let (mut common, mut notify, mut device, mut msi_x) = (None, None, None, None);
    let mut next = registers.load8(config + CAPABILITIES)?;
    for _ in 0..CAPABILITIES_MAX {
        let at = config + u64::from(next & !3);
        if next < 0x40 {
            break;
        }
        let head = registers.load(at)?;
        let [kind, following, _, what] = head.to_le_bytes();
        next = following;
        match (kind, what) {
            (VENDOR, COMMON) => common = common.or(part(registers, config, at)?),
            (VENDOR, DEVICE) => device = device.or(part(registers, config, at)?),
            (VENDOR, NOTIFY) if notify.is_none() => {
                let multiplier = registers.load(at + 16)?;
                let found = part(registers, config, at)?;
                notify = found.map(|part| (part, multiplier));
            }
            (MSI_X, _) => {
                let table = registers.load(at + 4)?;
                let memory = memory(registers, config, table & 7)?;
                msi_x = memory.map(|memory| (at, memory + u64::from(table & !7)));
            }
            _ => {}
        }
    }
    let common = common.filter(|common| common.len >= COMMON_LEN);
    let (notify, multiplier) = notify.ok_or(Trouble::Lacks("place for notifications"))?;
    let function = Function {
        config,
        common: common.ok_or(Trouble::Lacks("modern interface"))?,
        notify,
        multiplier,
        device: device.ok_or(Trouble::Lacks("configuration"))?,
        msi_x: msi_x.ok_or(Trouble::Lacks("MSI-X table"))?,
        irq,
    };
    if function.pages().1 > SPAN_MAX {
        return Err(Trouble::Lacks("registers in one place"));
    }
    Ok(function)
}

/// What a capability of virtio tells of.
fn part(
    registers: &mut impl Registers,
    config: u64,
    capability: u64,
) -> Result<Option<Part>, Errno> {
    let bar = registers.load(capability + 4)? & 0xff;
    let offset = u64::from(registers.load(capability + 8)?);
    let len = u64::from(registers.load(capability + 12)?);
    let memory = memory(registers, config, bar)?;
    Ok(memory
        .map(|memory| Part {
            address: memory + offset,
            len,
        })
        .filter(|part| part.len > 0 && part.address + part.len <= HOLE.end))
}

/// Where a base address register has memory; `None` where firmware gave it none that is
/// within reach.
fn memory(registers: &mut impl Registers, config: u64, bar: u32) -> Result<Option<u64>, Errno> {
    const IO: u32 = 1;
    const WIDE: u32 = 2 << 1;
    if bar > 5 {
        return Ok(None);
    }
    let at = config + BARS + u64::from(bar) * 4;
    let low = registers.load(at)?;
    let high = match low & WIDE {
        WIDE if bar < 5 => registers.load(at + 4)?,
        _ => 0,
    };
    let address = u64::from(high) << 32 | u64::from(low & !0xf);
    Ok((low & IO == 0 && address != 0 && address < HOLE.end).then_some(address))
}

impl Function {
    /// The pages of its registers: first address and bytes.
    pub const fn pages(&self) -> (u64, u64) {
        let parts = [self.common, self.notify, self.device];
        let (mut start, mut end, mut i) = (u64::MAX, 0, 0);
        while i < parts.len() {
            let Part { address, len } = parts[i];
            if address < start {
                start = address;
            }
            if address + len > end {
                end = address + len;
            }
            i += 1;
        }
        let (first, pages) = page_span(start, end - start);
        (first, pages * PAGE)
    }

    /// What its driver is told.
    pub fn arguments(&self) -> Vec<String> {
        [
            format!("common={:#x}", self.common.address),
            format!("notify={:#x}", self.notify.address),
            format!("notify_len={}", self.notify.len),
            format!("multiplier={}", self.multiplier),
            format!("config={:#x}", self.device.address),
            format!("config_len={}", self.device.len),
        ]
        .into()
    }

    /// Lets it answer, reach memory, and raise its line.
    pub fn enable(&self, registers: &mut impl Registers) -> Result<(), Errno> {
        // The half above is cleared by ones.
        let command = registers.load(self.config + COMMAND)? & 0xffff;
        registers.store(self.config + COMMAND, command | COMMANDS)?;
        let (capability, entry) = self.msi_x;
        let (address, data) = message_of(self.irq);
        let words = [address as u32, (address >> 32) as u32, data, 0];
        for (at, word) in (entry..).step_by(4).zip(words) {
            registers.store(at, word)?;
        }
        let head = registers.load(capability)?;
        registers.store(capability, head & !MSI_X_MASKED | MSI_X_ON)
    }

    /// Stops it.
    pub fn reset(&self, registers: &mut impl Registers) -> Result<(), Errno> {
        let status = self.common.address + STATUS;
        registers.store8(status, 0)?;
        for _ in 0..RESET_READS {
            if registers.load8(status)? == 0 {
                return Ok(());
            }
        }
        Err(Errno::EIO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const ECAM: u64 = 0xb000_0000;
    const MEMORY: u64 = 0xfe00_0000;
    const TABLE: u64 = 0xfebd_5000;

    /// Words by address; what is not there reads as all ones, as on a bus.
    #[derive(Default)]
    struct Bus(BTreeMap<u64, u32>);

    impl Registers for Bus {
        fn load(&mut self, at: u64) -> Result<u32, Errno> {
            assert!(at.is_multiple_of(4));
            Ok(self.0.get(&at).copied().unwrap_or(u32::MAX))
        }
        fn store(&mut self, at: u64, value: u32) -> Result<(), Errno> {
            self.0.insert(at, value);
            Ok(())
        }
        fn load8(&mut self, at: u64) -> Result<u8, Errno> {
            Ok(self.load(at & !3)?.to_le_bytes()[(at & 3) as usize])
        }
        fn store8(&mut self, at: u64, value: u8) -> Result<(), Errno> {
            let mut bytes = self.load(at & !3)?.to_le_bytes();
            bytes[(at & 3) as usize] = value;
            self.store(at & !3, u32::from_le_bytes(bytes))
        }
    }

    impl Bus {
        fn put(&mut self, at: u64, words: &[u32]) {
            for (at, &word) in (at..).step_by(4).zip(words) {
                self.0.insert(at, word);
            }
        }
    }

    /// A function as QEMU's q35 has it: a transitional disk.
    fn disk(bus: &mut Bus, config: u64) {
        bus.put(config, &[0x1001_1af4, 0xf910_0103, 0x0100_0000, 0]);
        let bars = [0xc001, TABLE as u32, 0, 0, MEMORY as u32 | 0xc, 0];
        bus.put(config + BARS, &bars);
        bus.put(config + SUBSYSTEM, &[0x0002_1af4]);
        bus.put(config + CAPABILITIES, &[0x98]);
        bus.put(config + 0x98, &[0x0001_8411, 1, 0x801]);
        let part = |next: u32, kind: u32, offset, len| {
            [kind << 24 | 0x10 << 16 | next << 8 | 9, 4, offset, len]
        };
        bus.put(config + 0x84, &part(0x70, 5, 0, 0));
        bus.put(config + 0x70, &part(0x60, 2, 0x3000, 0x1000));
        bus.put(config + 0x80, &[4]);
        bus.put(config + 0x60, &part(0x50, 4, 0x2000, 0x1000));
        bus.put(config + 0x50, &part(0x40, 3, 0x1000, 0x1000));
        bus.put(config + 0x40, &part(0, 1, 0, 0x1000));
    }

    #[test]
    fn a_disk_of_qemus_is_found_and_enabled() {
        let mut bus = Bus::default();
        let at = ECAM + 3 * FUNCTION * FUNCTIONS;
        disk(&mut bus, at);
        // A bridge with a second function, which is a modern console.
        let bridge = ECAM + 31 * FUNCTION * FUNCTIONS;
        bus.put(bridge, &[0x2918_8086, 0, 0, 0x0080_0000]);
        bus.put(bridge + 2 * FUNCTION, &[0x1043_1af4]);
        let found = functions(&mut bus, ECAM).unwrap();
        assert_eq!(found, [(at, 2), (bridge + 2 * FUNCTION, 3)]);

        let disk = look(&mut bus, at, 24).unwrap();
        assert_eq!(disk.pages(), (MEMORY, 0x4000));
        let arguments = disk.arguments();
        let expected = ["common=0xfe000000", "notify=0xfe003000", "notify_len=4096"];
        assert_eq!(arguments[..3], expected);
        let expected = ["multiplier=4", "config=0xfe002000", "config_len=4096"];
        assert_eq!(arguments[3..], expected);

        disk.enable(&mut bus).unwrap();
        assert_eq!(bus.load(at + COMMAND), Ok(0x0507));
        let entry = [0, 4, 8, 12].map(|offset| bus.load(TABLE + offset).unwrap());
        assert_eq!(entry, [0xfee0_0000, 0, 33 + 24, 0]);
        assert_eq!(bus.load(at + 0x98), Ok(0x8001_8411));

        disk.reset(&mut bus).unwrap();
        assert_eq!(bus.load8(MEMORY + STATUS), Ok(0));
        assert_eq!(bus.load8(MEMORY + STATUS + 1), Ok(0xff));
    }

    #[test]
    fn what_cannot_be_driven_says_why() {
        let lacking = |change: &dyn Fn(&mut Bus)| {
            let mut bus = Bus::default();
            disk(&mut bus, ECAM);
            change(&mut bus);
            look(&mut bus, ECAM, 24).unwrap_err()
        };
        let bar = |number: u64| ECAM + BARS + 4 * number;
        // No memory, ports, memory beyond reach: all parts are in it.
        for words in [[0, 0], [0xc001, 0], [0xc, 1]] {
            let trouble = lacking(&|bus| bus.put(bar(4), &words));
            assert!(matches!(trouble, Trouble::Lacks(_)), "{words:x?}");
        }
        let table = lacking(&|bus| bus.put(bar(1), &[0]));
        assert_eq!(table, Trouble::Lacks("MSI-X table"));
        let apart = lacking(&|bus| bus.put(ECAM + 0x68, &[0x0100_0000]));
        assert_eq!(apart, Trouble::Lacks("registers in one place"));
        // A list that never ends.
        let circle = lacking(&|bus| bus.put(ECAM + 0x98, &[0x9805]));
        assert!(matches!(circle, Trouble::Lacks(_)));
        let empty = look(&mut Bus::default(), ECAM, 24);
        assert!(matches!(empty, Err(Trouble::Lacks(_))));
    }
}
