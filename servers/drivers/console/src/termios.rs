//! The terminal's settings: the kernel's `struct termios` and `struct termios2`.

use linux_raw_sys::general as linux;

/// Bytes of `struct termios` (TCGETS).
pub const TERMIOS: usize = size_of::<linux::termios>();
/// Bytes of `struct termios2` (TCGETS2).
pub const TERMIOS2: usize = size_of::<linux::termios2>();

const CC: usize = 17;
const SPEEDS: usize = TERMIOS;

const _: () = assert!(TERMIOS == 36 && TERMIOS2 == 44);

/// Flags, special characters, speeds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// c_iflag.
    pub input: u32,
    /// c_oflag.
    pub output: u32,
    /// c_cflag.
    pub control: u32,
    /// c_lflag.
    pub local: u32,
    /// c_line.
    pub line: u8,
    /// c_cc.
    pub chars: [u8; linux::NCCS as usize],
    /// c_ispeed and c_ospeed.
    pub speeds: (u32, u32),
}

impl Default for Settings {
    /// What a Linux terminal starts with, and UTF-8 aware.
    fn default() -> Settings {
        let mut chars = [0; linux::NCCS as usize];
        for (index, byte) in [
            (linux::VINTR, 0x03),
            (linux::VQUIT, 0x1c),
            (linux::VERASE, 0x7f),
            (linux::VKILL, 0x15),
            (linux::VEOF, 0x04),
            (linux::VMIN, 1),
            (linux::VSTART, 0x11),
            (linux::VSTOP, 0x13),
            (linux::VSUSP, 0x1a),
            (linux::VREPRINT, 0x12),
            (linux::VDISCARD, 0x0f),
            (linux::VWERASE, 0x17),
            (linux::VLNEXT, 0x16),
        ] {
            chars[index as usize] = byte;
        }
        Settings {
            input: linux::ICRNL | linux::IXON | linux::IUTF8,
            output: linux::OPOST | linux::ONLCR,
            control: linux::B38400 | linux::CS8 | linux::CREAD | linux::HUPCL,
            local: linux::ISIG
                | linux::ICANON
                | linux::ECHO
                | linux::ECHOE
                | linux::ECHOK
                | linux::ECHOCTL
                | linux::ECHOKE
                | linux::IEXTEN,
            line: 0,
            chars,
            speeds: (38400, 38400),
        }
    }
}

impl Settings {
    /// What a pseudo-terminal starts with on Linux.
    pub fn pseudo() -> Settings {
        let mut settings = Settings::default();
        settings.input &= !linux::IUTF8;
        settings.control &= !linux::HUPCL;
        settings
    }

    /// Whether all of `flags` are set in c_lflag.
    pub fn local(&self, flags: u32) -> bool {
        self.local & flags == flags
    }

    /// Whether all of `flags` are set in c_iflag.
    pub fn input(&self, flags: u32) -> bool {
        self.input & flags == flags
    }

    /// Whether all of `flags` are set in c_oflag.
    pub fn output(&self, flags: u32) -> bool {
        self.output & flags == flags
    }

    /// Whether `byte` is special character `index` (0 disables one).
    pub fn is(&self, index: u32, byte: u8) -> bool {
        byte != 0 && self.char(index) == byte
    }

    /// Special character `index`.
    pub fn char(&self, index: u32) -> u8 {
        self.chars[index as usize]
    }

    /// As `struct termios2`, whose first [`TERMIOS`] bytes are `struct termios`.
    pub fn to_bytes(&self) -> [u8; TERMIOS2] {
        let mut bytes = [0; TERMIOS2];
        let words = [self.input, self.output, self.control, self.local];
        for (slot, word) in bytes.chunks_exact_mut(4).zip(words) {
            slot.copy_from_slice(&word.to_le_bytes());
        }
        bytes[16] = self.line;
        bytes[CC..CC + self.chars.len()].copy_from_slice(&self.chars);
        bytes[SPEEDS..SPEEDS + 4].copy_from_slice(&self.speeds.0.to_le_bytes());
        bytes[SPEEDS + 4..].copy_from_slice(&self.speeds.1.to_le_bytes());
        bytes
    }

    /// These settings with everything from `bytes`, a `struct termios` or `struct termios2`.
    pub fn updated(&self, bytes: &[u8]) -> Settings {
        let mut new = *self;
        let word = |at: usize| {
            let slot = bytes.get(at..at + 4).and_then(|b| b.first_chunk());
            slot.map_or(0, |b| u32::from_le_bytes(*b))
        };
        (new.input, new.output) = (word(0), word(4));
        (new.control, new.local) = (word(8), word(12));
        new.line = bytes.get(16).copied().unwrap_or(0);
        for (slot, byte) in new.chars.iter_mut().zip(bytes.iter().skip(CC)) {
            *slot = *byte;
        }
        if bytes.len() >= TERMIOS2 {
            new.speeds = (word(SPEEDS), word(SPEEDS + 4));
        }
        new
    }
}
