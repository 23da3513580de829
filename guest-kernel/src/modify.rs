//! Instructions that read memory and write it back.
//!
//! Where such an instruction's page is absent a processor reports a fault for writing (SDM 3A,
//! 4.7: the access that caused it is a write). QEMU's translator loads before it stores and
//! reports a fault for reading, and then, when the page is there for reading, another.

/// Longest instruction, bytes.
pub const LONGEST: usize = 15;

/// Whether the instruction that starts here reads its memory operand and writes it. Of those
/// that QEMU translates into a load and a store: integer instructions, with `lock` or without.
pub fn modifies(code: &[u8]) -> bool {
    let mut bytes = code.iter().copied();
    let mut next = || bytes.next();
    let prefix = |byte| {
        matches!(
            byte,
            0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3 | 0x40..=0x4f
        )
    };
    let Some(opcode) = core::iter::from_fn(&mut next).find(|&byte| !prefix(byte)) else {
        return false;
    };
    let (two, opcode) = match opcode {
        0x0f => (true, next()),
        opcode => (false, Some(opcode)),
    };
    let (Some(opcode), Some(modrm)) = (opcode, next()) else {
        return false;
    };
    // What some opcodes are is in the register's place.
    let (memory, extension) = (modrm >> 6 != 3, modrm >> 3 & 7);
    let modifies = match (two, opcode) {
        // add, or, adc, sbb, and, sub, xor; not cmp
        (false, 0x00..=0x37) => opcode & 7 < 2,
        (false, 0x80 | 0x81 | 0x83) => extension != 7,
        // xchg, rotations and shifts
        (false, 0x86 | 0x87 | 0xc0 | 0xc1 | 0xd0..=0xd3) => true,
        // not, neg; inc, dec
        (false, 0xf6 | 0xf7) => matches!(extension, 2 | 3),
        (false, 0xfe | 0xff) => extension < 2,
        // bts, btr, btc
        (true, 0xab | 0xb3 | 0xbb) => true,
        (true, 0xba) => extension > 4,
        // shld, shrd, cmpxchg, xadd, cmpxchg8b
        (true, 0xa4 | 0xa5 | 0xac | 0xad | 0xb0 | 0xb1 | 0xc0 | 0xc1) => true,
        (true, 0xc7) => extension == 1,
        _ => false,
    };
    memory && modifies
}
