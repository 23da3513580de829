//! What a fault point is about: the memory of its sides.

use abi::proto::{vfs, vm};
use abi::trace::{Kind, Record};
use abi::{Endpoint, Request, page_down};

use super::plan::Side;

/// A range of a process's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Whose.
    pub who: Endpoint,
    /// First byte.
    pub address: u64,
    /// Bytes, at least one.
    pub len: u64,
}

impl Range {
    /// Nothing can be made absent in memory of nobody (physical addresses), of VM, which owns
    /// all page tables, or in none at all.
    fn of(who: u32, address: u64, len: u64) -> Option<Range> {
        let who = Endpoint(who);
        let end = address.checked_add(len)?;
        let sound = len > 0 && end <= abi::kernel::USER_END;
        (sound && who.is_process() && who != Endpoint::VM).then_some(Range { who, address, len })
    }

    /// Pages it touches.
    pub fn pages(&self) -> u64 {
        (page_down(self.address + self.len - 1) - page_down(self.address)) / abi::PAGE + 1
    }

    /// Address of its page number `n`.
    pub fn page(&self, n: u32) -> Option<u64> {
        (u64::from(n) < self.pages()).then(|| page_down(self.address) + u64::from(n) * abi::PAGE)
    }
}

/// The memory of one side of the point `record`; `before` is the trace up to it. `None` when the
/// point has no such side.
pub fn range(record: &Record, side: Side, before: &[Record]) -> Option<Range> {
    let w = &record.words;
    let (first, second) = record.pair();
    match (record.kind()?, side) {
        (Kind::Copy, Side::Source) => Range::of(first, w[2], w[4]),
        (Kind::Copy | Kind::Fill, Side::Target) => Range::of(second, w[3], w[4]),
        (Kind::Fault, Side::Data) => Range::of(w[0] as u32, w[2], 1),
        (Kind::Fault, Side::Instruction) => Range::of(w[0] as u32, w[4], 1),
        (Kind::Request, Side::Range) => match record.message().1 {
            vm::HandleMemory::KIND => Range::of(w[3] as u32, w[4], w[5]),
            vfs::MemoryHandled::KIND => handled(w[2], before),
            _ => None,
        },
        _ => None,
    }
}

/// The range of the latest request to VM with this transaction number.
fn handled(txn: u64, before: &[Record]) -> Option<Range> {
    let asked = before.iter().rev().find(|record| {
        record.kind() == Some(Kind::Request)
            && record.message().1 == vm::HandleMemory::KIND
            && record.words[2] == txn
    })?;
    let w = &asked.words;
    Range::of(w[3] as u32, w[4], w[5])
}

/// All sides that a point of this kind can have.
pub fn sides(kind: Kind) -> &'static [Side] {
    match kind {
        Kind::Copy => &[Side::Source, Side::Target],
        Kind::Fill => &[Side::Target],
        Kind::Fault => &[Side::Instruction, Side::Data],
        Kind::Request => &[Side::Range],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::Class;
    use abi::trace::pair;

    fn record(kind: Kind, words: [u64; 6]) -> Record {
        Record {
            time: 0,
            what: kind as u64,
            words,
        }
    }

    #[test]
    fn sides_of_copies() {
        let ends = pair(40, 1);
        let copy = record(Kind::Copy, [5, ends, 0x1ff8, 0x5000, 16, 1]);
        let source = range(&copy, Side::Source, &[]).unwrap();
        assert_eq!((source.who, source.pages()), (Endpoint(40), 2));
        assert_eq!((source.page(1), source.page(2)), (Some(0x2000), None));
        // VM's memory is not touched.
        assert_eq!(range(&copy, Side::Target, &[]), None);
        assert_eq!(range(&copy, Side::Range, &[]), None);
        let forged = record(Kind::Copy, [5, ends, u64::MAX, 0, u64::MAX, 0]);
        assert_eq!(range(&forged, Side::Source, &[]), None);
    }

    #[test]
    fn an_answer_is_about_what_was_asked() {
        let kind = |kind: u64| Class::Post as u64 | kind << 8;
        let ask = |txn, address| {
            let ends = pair(Endpoint::VFS.0, Endpoint::VM.0);
            let words = [kind(vm::HandleMemory::KIND), ends, txn, 40, address, 8192];
            record(Kind::Request, words)
        };
        let before = [ask(7, 0x1000), ask(8, 0x9000)];
        let ends = pair(Endpoint::VM.0, Endpoint::VFS.0);
        let answer = |txn| {
            record(
                Kind::Request,
                [kind(vfs::MemoryHandled::KIND), ends, txn, 0, 0, 0],
            )
        };
        let found = range(&answer(7), Side::Range, &before).unwrap();
        assert_eq!((found.address, found.pages()), (0x1000, 2));
        assert_eq!(range(&answer(9), Side::Range, &before), None);
    }
}
