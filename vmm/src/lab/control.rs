//! The kernel's [`Control`] and its trace ring, in guest memory: whatever is read here is the
//! guest's word.

use std::mem::offset_of;

use abi::trace::{CONTROL_MAGIC, Control, Mode, RING, Record};
use vm_memory::{Bytes, GuestAddress};

use crate::memory::Ram;
use zerocopy::{FromZeros, IntoBytes};

/// The VMM's half, in bytes.
const OURS: std::ops::Range<usize> = offset_of!(Control, on)..offset_of!(Control, points);

/// Reads the structure at this guest-physical address; `None` when there is none.
pub fn read(ram: &Ram, at: u64) -> Option<Control> {
    let mut control = Control::new_zeroed();
    ram.read_slice(control.as_mut_bytes(), GuestAddress(at))
        .ok()?;
    (control.magic == CONTROL_MAGIC).then_some(control)
}

/// Writes the VMM's half; `None` when it would not lie in RAM.
pub fn write(ram: &Ram, at: u64, control: &Control) -> Option<()> {
    let at = at.checked_add(OURS.start as u64)?;
    ram.write_slice(&control.as_bytes()[OURS], GuestAddress(at))
        .ok()
}

/// The VMM's half for a run that is traced, decides as `mode` says and has no point to stop at.
pub fn traced(mode: Mode, seed: u64) -> Control {
    Control {
        on: 1,
        mode: mode as u64,
        seed,
        ..Control::OFF
    }
}

/// The trace of a run, read from the ring before it is written over.
#[derive(Debug, Default)]
pub struct Trace {
    /// All records.
    pub records: Vec<Record>,
    /// How many of the kernel's records were looked at.
    pub seen: u64,
    /// Those of them that could not be read.
    pub lost: u64,
}

impl Trace {
    /// Takes the records that are new.
    pub fn drain(&mut self, ram: &Ram, control: &Control) {
        // A kernel that counts backwards starts again.
        let new = control.records.checked_sub(self.seen);
        let new = new.unwrap_or(control.records);
        let readable = new.min(RING as u64);
        self.lost = self.lost.saturating_add(new - readable);
        for number in control.records - readable..control.records {
            let offset = number % RING as u64 * size_of::<Record>() as u64;
            match control
                .ring
                .checked_add(offset)
                .and_then(|at| record(ram, at))
            {
                Some(record) => self.records.push(record),
                None => self.lost = self.lost.saturating_add(1),
            }
        }
        self.seen = control.records;
    }
}

fn record(ram: &Ram, at: u64) -> Option<Record> {
    let mut bytes = [0; size_of::<Record>()];
    ram.read_slice(&mut bytes, GuestAddress(at)).ok()?;
    let mut words = [0u64; 8];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    let [time, what, words @ ..] = words;
    Some(Record { time, what, words })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{GuestRam, MINIMUM};

    /// Memory with a kernel's half at `AT` and a ring.
    const AT: u64 = 0x7ff8;
    const RING_AT: u64 = 0x2_0000;

    fn announce(ram: &GuestRam, records: u64, ring: u64) {
        let word = |offset: usize, word: u64| {
            let at = GuestAddress(AT + offset as u64);
            ram.map.write_slice(&word.to_le_bytes(), at).unwrap();
        };
        word(offset_of!(Control, magic), CONTROL_MAGIC);
        word(offset_of!(Control, records), records);
        word(offset_of!(Control, ring), ring);
    }

    fn put(ram: &GuestRam, number: u64) {
        let at = RING_AT + number % RING as u64 * 64;
        let word = GuestAddress(at);
        ram.map.write_slice(&number.to_le_bytes(), word).unwrap();
    }

    #[test]
    fn only_our_half_is_written() {
        let ram = GuestRam::new(MINIMUM).unwrap();
        announce(&ram, 77, RING_AT);
        let mut wanted = traced(Mode::Random, 5);
        (wanted.ask, wanted.records, wanted.withdrawn[7]) = (9, 1, 0x1000);
        write(&ram.map, AT, &wanted).unwrap();
        let seen = read(&ram.map, AT).unwrap();
        assert_eq!((seen.records, seen.ring), (77, RING_AT));
        wanted.records = 77;
        wanted.ring = RING_AT;
        assert_eq!(seen, wanted);
    }

    #[test]
    fn what_is_no_control_is_none() {
        let ram = GuestRam::new(MINIMUM).unwrap();
        for at in [0, MINIMUM - 8, MINIMUM, u64::MAX - 7, u64::MAX] {
            assert!(read(&ram.map, at).is_none(), "{at:#x}");
        }
        assert!(write(&ram.map, MINIMUM - 16, &Control::OFF).is_none());
        assert!(write(&ram.map, u64::MAX, &Control::OFF).is_none());
    }

    #[test]
    fn the_ring_is_read_once_and_in_order() {
        let ram = GuestRam::new(MINIMUM).unwrap();
        let mut trace = Trace::default();
        let mut written = 0;
        for upto in [3, 3, 1000, 1024, 2048, 2060] {
            (written..upto).for_each(|number| put(&ram, number));
            written = upto;
            announce(&ram, upto, RING_AT);
            trace.drain(&ram.map, &read(&ram.map, AT).unwrap());
        }
        let times = trace.records.iter().map(|record| record.time);
        assert!(times.eq(0..2060));
        assert_eq!(trace.lost, 0);
    }

    #[test]
    fn a_ring_that_lies_loses_records_and_nothing_else() {
        let ram = GuestRam::new(MINIMUM).unwrap();
        for (records, ring) in [
            (5, MINIMUM - 64),
            (u64::MAX, RING_AT),
            (2, u64::MAX),
            (u64::MAX, u64::MAX - 100),
            (0, 0),
        ] {
            let mut trace = Trace::default();
            announce(&ram, records, ring);
            for _ in 0..2 {
                trace.drain(&ram.map, &read(&ram.map, AT).unwrap());
                assert!(trace.records.len() <= RING);
                assert_eq!(trace.seen, records);
                assert_eq!(trace.records.len() as u64 + trace.lost, records);
            }
        }
        let mut trace = Trace::default();
        for records in [10, 4] {
            announce(&ram, records, RING_AT);
            trace.drain(&ram.map, &read(&ram.map, AT).unwrap());
        }
        assert_eq!((trace.records.len(), trace.seen), (14, 4));
    }
}
