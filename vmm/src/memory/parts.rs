//! Where RAM lies: it has one file, whose pages are numbered without a hole, and addresses that leave one out for
//! devices, as on a PC.

use abi::PAGE;
use abi::kernel::HOLE;

/// RAM without a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Guest-physical address of its first byte.
    pub address: u64,
    /// Where that is in the file.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

impl Part {
    /// The address behind it.
    pub fn end(&self) -> u64 {
        self.address + self.len
    }
}

/// The one or two parts of RAM of `size` bytes, ascending.
pub fn parts(size: u64) -> impl Iterator<Item = Part> {
    let low = size.min(HOLE.start);
    let part = |address, offset, len| Part {
        address,
        offset,
        len,
    };
    [part(0, 0, low), part(HOLE.end, low, size - low)]
        .into_iter()
        .filter(|part| part.len > 0)
}

/// The address of page `number`.
pub fn address_of(number: u64) -> u64 {
    let offset = number * PAGE;
    match offset < HOLE.start {
        true => offset,
        false => offset - HOLE.start + HOLE.end,
    }
}

/// The number of the page that has this address, in RAM of `size` bytes.
pub fn number_of(size: u64, address: u64) -> Option<u64> {
    let offset = match address {
        at if at < HOLE.start => at,
        at => HOLE.start + at.checked_sub(HOLE.end)?,
    };
    (offset < size).then_some(offset / PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_and_addresses_are_told_both_ways() {
        for size in [16 << 20, HOLE.start, HOLE.start + PAGE, 64 << 30] {
            let parts: Vec<Part> = parts(size).collect();
            assert_eq!(parts.iter().map(|part| part.len).sum::<u64>(), size);
            for part in &parts {
                for (at, offset) in [
                    (part.address, part.offset),
                    (part.end() - 1, part.offset + part.len - 1),
                ] {
                    assert_eq!(number_of(size, at), Some(offset / PAGE), "{at:#x}");
                    assert_eq!(address_of(offset / PAGE), abi::page_down(at));
                }
            }
            let end = parts.last().unwrap().end();
            for nowhere in [end, HOLE.end - 1, u64::MAX] {
                assert_eq!(number_of(size, nowhere), None, "{size:#x}: {nowhere:#x}");
            }
        }
        assert_eq!(parts(HOLE.start).count(), 1);
        assert_eq!(parts(HOLE.start + PAGE).count(), 2);
    }
}
