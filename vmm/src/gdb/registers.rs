//! The x86-64 registers as gdb wants them.

use gdbstub::arch::{Arch, Registers};

/// x86-64 with gdb's default layout.
pub enum X64 {}

/// The registers that a thread has. Floating-point state stays where it is: gdb shows it as
/// unavailable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// rax rbx rcx rdx rsi rdi rbp rsp r8-r15.
    pub general: [u64; 16],
    /// rip.
    pub rip: u64,
    /// The low half of rflags.
    pub flags: u32,
    /// cs ss ds es fs gs.
    pub segments: [u32; 6],
}

/// Bytes of all registers in gdb's order: ours, eight of 10 bytes, eight of 4, 16 of 16, mxcsr.
const ALL: usize = OURS + 8 * 10 + 8 * 4 + 16 * 16 + 4;
const OURS: usize = 16 * 8 + 8 + 4 + 6 * 4;

impl Registers for Frame {
    type ProgramCounter = u64;

    fn pc(&self) -> u64 {
        self.rip
    }

    fn gdb_serialize(&self, mut write_byte: impl FnMut(Option<u8>)) {
        let words = self.general.iter().chain([&self.rip]);
        let halves = [self.flags].into_iter().chain(self.segments);
        words
            .flat_map(|word| word.to_le_bytes())
            .chain(halves.flat_map(u32::to_le_bytes))
            .for_each(|byte| write_byte(Some(byte)));
        (OURS..ALL).for_each(|_| write_byte(None));
    }

    fn gdb_deserialize(&mut self, bytes: &[u8]) -> Result<(), ()> {
        let (words, _) = bytes.as_chunks::<8>().0.split_at_checked(17).ok_or(())?;
        let words: Vec<u64> = words.iter().map(|&word| u64::from_le_bytes(word)).collect();
        let halves = bytes.get(17 * 8..OURS).ok_or(())?.as_chunks::<4>().0;
        let halves: Vec<u32> = halves
            .iter()
            .map(|&half| u32::from_le_bytes(half))
            .collect();
        self.general.copy_from_slice(&words[..16]);
        self.rip = words[16];
        self.flags = halves[0];
        self.segments.copy_from_slice(&halves[1..]);
        Ok(())
    }
}

impl Arch for X64 {
    type Usize = u64;
    type Registers = Frame;
    type BreakpointKind = usize;
    type RegId = ();

    fn target_description_xml() -> Option<&'static str> {
        Some(
            "<target version=\"1.0\"><architecture>i386:x86-64</architecture>\
             <feature name=\"org.gnu.gdb.i386.sse\"></feature></target>",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let frame = Frame {
            general: std::array::from_fn(|n| n as u64 + 1),
            rip: 0x40_1000,
            flags: 0x202,
            segments: [0x33, 0x2b, 1, 2, 3, 4],
        };
        let mut bytes = Vec::new();
        frame.gdb_serialize(|byte| bytes.push(byte.unwrap_or(0)));
        assert_eq!(bytes.len(), 0x218);
        let mut back = Frame::default();
        back.gdb_deserialize(&bytes).unwrap();
        assert_eq!(back, frame);
        assert!(back.gdb_deserialize(&bytes[..OURS - 1]).is_err());
    }
}
