//! What a fault point is about: the memory of its sides ([`abi::point`]).

use abi::point;
use abi::trace::{Kind, Record};

pub use abi::point::Range;

use super::plan::Side;

/// The memory of one side of the point `record`; `before` is the trace up to it. `None` when the
/// point has no such side.
pub fn range(record: &Record, side: Side, before: &[Record]) -> Option<Range> {
    point::range(record, side, before.iter().copied())
}

/// All sides that a point of this kind can have.
pub fn sides(kind: Kind) -> &'static [Side] {
    match kind {
        Kind::Copy => &[Side::Source, Side::Target],
        Kind::Fill => &[Side::Target],
        Kind::Fault => &[Side::Instruction, Side::Data],
        Kind::Request | Kind::Exec => &[Side::Range],
        Kind::Grant => &[Side::Grant],
        Kind::Allocation => &[Side::Allocation],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::proto::vm;
    use abi::trace::pair;
    use abi::{Class, Endpoint, Request};

    fn record(kind: Kind, words: [u64; 6]) -> Record {
        Record {
            time: 0,
            what: kind as u64,
            words,
        }
    }

    #[test]
    fn sides_of_copies() {
        let ends = pair(40, Endpoint::VM.0);
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
                [kind(vm::HandleMemory::ANSWER), ends, txn, 0, 0, 0],
            )
        };
        let found = range(&answer(7), Side::Range, &before).unwrap();
        assert_eq!((found.address, found.pages()), (0x1000, 2));
        assert_eq!(range(&answer(9), Side::Range, &before), None);
    }
}
