//! ELF files made to order.

use std::vec::Vec;

pub const EXEC: u16 = 2;
pub const DYN: u16 = 3;
pub const LOAD: u32 = 1;
pub const INTERP: u32 = 3;
pub const GNU_STACK: u32 = 0x6474_e551;
pub const R: u32 = 4;
pub const W: u32 = 2;
pub const X: u32 = 1;

/// A program header.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    pub kind: u32,
    pub flags: u32,
    pub offset: u64,
    pub address: u64,
    pub file_len: u64,
    pub memory_len: u64,
    pub align: u64,
}

/// A LOAD header.
pub fn load(flags: u32, offset: u64, address: u64, file_len: u64, memory_len: u64) -> Header {
    Header {
        kind: LOAD,
        flags,
        offset,
        address,
        file_len,
        memory_len,
        align: 4096,
    }
}

/// A file of `size` bytes with these headers; the bytes after them are a pattern that
/// differs from place to place and is never 0.
pub fn file(kind: u16, entry: u64, headers: &[Header], size: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend([0x7f, b'E', b'L', b'F', 2, 1, 1, 0]);
    bytes.resize(16, 0);
    bytes.extend(kind.to_le_bytes());
    bytes.extend(62u16.to_le_bytes());
    bytes.extend(1u32.to_le_bytes());
    bytes.extend(entry.to_le_bytes());
    bytes.extend(64u64.to_le_bytes());
    bytes.extend(0u64.to_le_bytes());
    bytes.extend(0u32.to_le_bytes());
    bytes.extend(64u16.to_le_bytes());
    bytes.extend(56u16.to_le_bytes());
    bytes.extend((headers.len() as u16).to_le_bytes());
    bytes.extend([64, 0, 0, 0, 0, 0]);
    assert_eq!(bytes.len(), 64);
    for header in headers {
        bytes.extend(header.kind.to_le_bytes());
        bytes.extend(header.flags.to_le_bytes());
        for word in [
            header.offset,
            header.address,
            header.address,
            header.file_len,
            header.memory_len,
            header.align,
        ] {
            bytes.extend(word.to_le_bytes());
        }
    }
    while bytes.len() < size {
        let at = bytes.len();
        bytes.push(((at * 7 + at / 4096 * 13) % 255) as u8 + 1);
    }
    bytes
}

/// One text and one data segment with bss.
pub fn ordinary() -> Vec<u8> {
    file(
        EXEC,
        0x40_0400,
        &[
            load(R | X, 0, 0x40_0000, 0x1800, 0x1800),
            load(R | W, 0x1800, 0x40_2800, 0x900, 0x3000),
        ],
        0x2100,
    )
}
