//! Exceptions of processes, as their servers hear of them.

/// A page fault of a process, the words of a [`crate::Class::PageFault`] message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageFault {
    /// Faulting linear address (cr2).
    pub address: u64,
    /// The processor's error code: bit 0 present, 1 write, 2 user, 4 fetch.
    pub code: u64,
    /// Instruction pointer.
    pub rip: u64,
}

/// Vectors of exceptions that somebody asks for by name (Intel SDM volume 3, 6.3.1).
pub mod vector {
    /// #DB: a step, or a watched access.
    pub const DEBUG: u64 = 1;
    /// #UD: no such instruction.
    pub const UNDEFINED: u64 = 6;
    /// #GP.
    pub const PROTECTION: u64 = 13;
    /// #PF.
    pub const PAGE_FAULT: u64 = 14;
}

/// A processor exception of a process, the words of a [`crate::Class::Exception`] message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exception {
    /// Vector: 0 #DE, 1 #DB, 3 #BP, 4 #OF, 6 #UD, 13 #GP, 16 #MF, 17 #AC, 19 #XM, ...
    pub vector: u64,
    /// The processor's error code, or 0.
    pub code: u64,
    /// Instruction pointer.
    pub rip: u64,
}

impl PageFault {
    /// Bit of the error code: the page is there, and forbids it.
    pub const PRESENT: u64 = 1;
    /// Bit of the error code: the access was a write.
    pub const WRITE: u64 = 2;
    /// Bit of the error code: at CPL3.
    pub const USER: u64 = 4;
    /// Bit of the error code: the access was an instruction fetch.
    pub const FETCH: u64 = 16;

    /// As message words.
    pub const fn to_words(self) -> [u64; 7] {
        [self.address, self.code, self.rip, 0, 0, 0, 0]
    }
    /// What a message says.
    pub const fn of(message: &crate::Message) -> Self {
        let w = &message.words;
        PageFault {
            address: w[0],
            code: w[1],
            rip: w[2],
        }
    }
    /// Whether the access was a write.
    pub const fn write(self) -> bool {
        self.code & Self::WRITE != 0
    }
    /// Whether the access was an instruction fetch.
    pub const fn fetch(self) -> bool {
        self.code & Self::FETCH != 0
    }
}

impl Exception {
    /// As message words.
    pub const fn to_words(self) -> [u64; 7] {
        [self.vector, self.code, self.rip, 0, 0, 0, 0]
    }
    /// What a message says.
    pub const fn of(message: &crate::Message) -> Self {
        let w = &message.words;
        Exception {
            vector: w[0],
            code: w[1],
            rip: w[2],
        }
    }
}
