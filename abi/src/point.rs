//! What a fault point is about: the memory of its sides. Whoever carries out a plan of faults,
//! the VMM or the kernel, finds the pages here.

use crate::grant::GrantEntry;
use crate::proto::vm;
use crate::trace::{Event, Record, Request, Sent};
use crate::{Endpoint, Request as _, page_down};

/// Whose page goes away.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Side {
    /// The page a copy reads.
    Source,
    /// The page a copy or fill writes.
    Target,
    /// A page of the range that VM is asked to repair, or that a step of an exec is about.
    Range,
    /// The page of the faulting instruction.
    Instruction,
    /// The page of the faulting access.
    Data,
    /// The page of a grant table whose entry is read.
    Grant,
    /// The allocation itself: no page, but what is refused.
    Allocation,
}

impl Side {
    /// All of them.
    pub const ALL: [Side; 7] = [
        Side::Source,
        Side::Target,
        Side::Range,
        Side::Instruction,
        Side::Data,
        Side::Grant,
        Side::Allocation,
    ];

    /// Its letter in a plan.
    pub const fn letter(self) -> u8 {
        match self {
            Side::Source => b's',
            Side::Target => b't',
            Side::Range => b'r',
            Side::Instruction => b'i',
            Side::Data => b'd',
            Side::Grant => b'g',
            Side::Allocation => b'a',
        }
    }
}

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
    fn of(who: Endpoint, address: u64, len: u64) -> Option<Range> {
        let end = address.checked_add(len)?;
        let sound = len > 0 && end <= crate::kernel::USER_END;
        (sound && who.is_process() && who != Endpoint::VM).then_some(Range { who, address, len })
    }

    /// Pages it touches.
    pub fn pages(&self) -> u64 {
        (page_down(self.address + self.len - 1) - page_down(self.address)) / crate::PAGE + 1
    }

    /// Address of its page number `n`.
    pub fn page(&self, n: u32) -> Option<u64> {
        (u64::from(n) < self.pages()).then(|| page_down(self.address) + u64::from(n) * crate::PAGE)
    }
}

/// The memory of one side of the point `record`; `before` is the trace up to it, or as much of
/// it as is known. `None` when the point has no such side.
pub fn range(
    record: &Record,
    side: Side,
    before: impl DoubleEndedIterator<Item = Record>,
) -> Option<Range> {
    match (record.event()?, side) {
        (Event::Copy(copy), Side::Source) => Range::of(copy.ends.0, copy.source, copy.len),
        (Event::Copy(copy), Side::Target) => Range::of(copy.ends.1, copy.target, copy.len),
        (Event::Fill(fill), Side::Target) => Range::of(fill.ends.1, fill.target, fill.len),
        (Event::Fault(fault), Side::Data) => Range::of(fault.who, fault.address, 1),
        (Event::Fault(fault), Side::Instruction) => Range::of(fault.who, fault.rip, 1),
        (Event::Grant(grant), Side::Grant) => {
            Range::of(grant.granter, grant.entry, size_of::<GrantEntry>() as u64)
        }
        (Event::Exec(step), Side::Range) => Range::of(step.target, step.address, step.len),
        (Event::Request(Request { sent }), Side::Range) => match sent.head.kind {
            vm::HandleMemory::KIND => repaired(&sent),
            vm::HandleMemory::ANSWER => handled(sent.transaction(), before),
            // A futex: a word.
            vm::ObjectAt::KIND => {
                let asked: vm::ObjectAt = sent.request()?;
                Range::of(asked.who, asked.address, 4)
            }
            _ => None,
        },
        _ => None,
    }
}

/// The range that VM is asked to repair.
fn repaired(sent: &Sent) -> Option<Range> {
    let asked: vm::HandleMemory = sent.request()?;
    Range::of(asked.who, asked.addr, asked.len)
}

/// The range of the latest request to VM with this transaction number.
fn handled(txn: u64, before: impl DoubleEndedIterator<Item = Record>) -> Option<Range> {
    let mut requests = before.rev().filter_map(|record| match record.event()? {
        Event::Request(Request { sent }) => Some(sent),
        _ => None,
    });
    let asks = |sent: &Sent| sent.head.kind == vm::HandleMemory::KIND && sent.transaction() == txn;
    repaired(&requests.find(asks)?)
}
