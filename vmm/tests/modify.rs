//! The kernel's list of instructions that read memory and write it back, against a disassembler.

#[path = "../../guest-kernel/src/modify.rs"]
mod modify;

use abi::trace::random;
use iced_x86::{
    Decoder, DecoderOptions, EncodingKind, Instruction, InstructionInfoFactory, Mnemonic, OpAccess,
    OpKind,
};
use modify::{LONGEST, modifies};

/// Whether a disassembler says so. `None` for what is no instruction, and for those of which the
/// kernel says nothing: state that is saved and restored, and instructions that no processor
/// with AVX2 has.
fn expected(instruction: &Instruction, info: &mut InstructionInfoFactory) -> Option<bool> {
    use Mnemonic::*;
    let left_out = matches!(
        instruction.mnemonic(),
        INVALID
            | Aadd
            | Aand
            | Aor
            | Axor
            | Xsave
            | Xsave64
            | Xsaveopt
            | Xsaveopt64
            | Xsavec
            | Xsavec64
            | Xsaves
            | Xsaves64
    );
    if left_out || instruction.encoding() != EncodingKind::Legacy {
        return None;
    }
    let operand = (0..instruction.op_count()).find(|&n| instruction.op_kind(n) == OpKind::Memory);
    let info = info.info(instruction);
    Some(operand.is_some_and(|n| {
        let access = info.op_access(n);
        matches!(access, OpAccess::ReadWrite | OpAccess::ReadCondWrite)
    }))
}

#[test]
fn a_disassembler_says_the_same() {
    let mut info = InstructionInfoFactory::new();
    let (mut yes, mut no) = (0, 0);
    // Any bytes, and so that two-byte opcodes and prefixes are not rare.
    let first = [0x0f, 0x66, 0x48, 0xf0, 0x65, 0xf3];
    for number in 0..2_000_000u64 {
        let words = [random(1, number), random(2, number)].map(u64::to_le_bytes);
        let mut bytes = [0; LONGEST];
        bytes.copy_from_slice(&words.concat()[..LONGEST]);
        if let Some(&byte) = first.get(number as usize % (2 * first.len())) {
            bytes[0] = byte;
        }
        let mut decoder = Decoder::new(64, &bytes, DecoderOptions::NONE);
        let instruction = decoder.decode();
        let Some(expected) = expected(&instruction, &mut info) else {
            continue;
        };
        *(if expected { &mut yes } else { &mut no }) += 1;
        let code = &bytes[..instruction.len()];
        assert_eq!(modifies(code), expected, "{instruction}: {code:02x?}");
        // What comes behind it does not matter.
        assert_eq!(modifies(&bytes), expected, "{instruction}: {bytes:02x?}");
    }
    assert!(yes > 10_000 && no > 10_000, "{yes} and {no}");
}

#[test]
fn pieces_are_no_instructions() {
    let cmpxchg = [0xf0, 0x0f, 0xb1, 0x15, 0, 0, 0, 0];
    assert!(modifies(&cmpxchg));
    (0..4).for_each(|len| assert!(!modifies(&cmpxchg[..len]), "{len}"));
    assert!(!modifies(&[0x66; LONGEST]));
}
