//! Output processing (OPOST) and where the cursor is.

use crate::termios::Settings;
use alloc::vec::Vec;
use linux_raw_sys::general as linux;

/// Columns between tab stops.
pub const TAB: usize = 8;

/// Whether `byte` continues a UTF-8 sequence (and takes no column of its own).
pub fn is_continuation(byte: u8, settings: &Settings) -> bool {
    settings.input(linux::IUTF8) && byte & 0xc0 == 0x80
}

/// The cursor's column, as far as what was written tells.
#[derive(Clone, Copy, Default, Debug)]
pub struct Cursor {
    /// Columns from the left edge.
    pub column: usize,
}

impl Cursor {
    /// Appends `byte` to `out` as the terminal is to see it.
    pub fn put(&mut self, byte: u8, settings: &Settings, out: &mut Vec<u8>) {
        if !settings.output(linux::OPOST) {
            out.push(byte);
            return;
        }
        match byte {
            b'\n' => {
                if settings.output(linux::ONLRET) {
                    self.column = 0;
                }
                if settings.output(linux::ONLCR) {
                    self.column = 0;
                    out.push(b'\r');
                }
                out.push(b'\n');
            }
            b'\r' => {
                if settings.output(linux::ONOCR) && self.column == 0 {
                    return;
                }
                if settings.output(linux::OCRNL) {
                    if settings.output(linux::ONLRET) {
                        self.column = 0;
                    }
                    out.push(b'\n');
                    return;
                }
                self.column = 0;
                out.push(b'\r');
            }
            b'\t' => {
                let spaces = TAB - self.column % TAB;
                self.column += spaces;
                if settings.output & linux::TABDLY == linux::XTABS {
                    out.resize(out.len() + spaces, b' ');
                } else {
                    out.push(b'\t');
                }
            }
            0x08 => {
                self.column = self.column.saturating_sub(1);
                out.push(byte);
            }
            _ => {
                let upper = settings.output(linux::OLCUC);
                if !byte.is_ascii_control() && !is_continuation(byte, settings) {
                    self.column += 1;
                }
                out.push(if upper {
                    byte.to_ascii_uppercase()
                } else {
                    byte
                });
            }
        }
    }
}
