//! Kernels of a few instructions.

// Each test binary uses its part.
#![allow(dead_code)]

/// Where the code below is loaded and entered.
pub const ORIGIN: u32 = 0x10_0000;

/// A kernel image: 32-bit code and the PVH note that makes it one.
pub fn kernel(code: &[u8]) -> Vec<u8> {
    let (note_at, code_at) = (64 + 2 * 56u64, 0x1000u64);
    let mut file = Vec::new();
    file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    for half in [2u16, 62] {
        file.extend(half.to_le_bytes());
    }
    file.extend(1u32.to_le_bytes());
    for word in [u64::from(ORIGIN), 64, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 2, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    let mut header = |kind: u32, offset: u64, address: u64, len: u64| {
        file.extend(kind.to_le_bytes());
        file.extend(5u32.to_le_bytes());
        for word in [offset, address, address, len, len, 4] {
            file.extend(word.to_le_bytes());
        }
    };
    header(1, code_at, ORIGIN.into(), code.len() as u64);
    header(4, note_at, 0, 20);
    for word in [4u32, 4, 18] {
        file.extend(word.to_le_bytes());
    }
    file.extend(b"Xen\0");
    file.extend(ORIGIN.to_le_bytes());
    file.resize(code_at as usize, 0);
    file.extend(code);
    file
}

/// mov $9, %eax; out %eax, $0xf4
pub const POWER_OFF: [u8; 7] = [0xb8, 9, 0, 0, 0, 0xe7, 0xf4];
