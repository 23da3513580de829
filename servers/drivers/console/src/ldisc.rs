//! The line discipline: what happens to each byte typed.
//!
//! Linux's n_tty in behaviour. Bytes become *cells* in one queue. In canonical mode the
//! first `committed` cells belong to complete lines, each of which ends in a cell with a
//! mark; the rest is the line being edited. In raw mode every cell is readable.

use crate::postprocess::{Cursor, TAB, is_continuation};
use crate::termios::Settings;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use linux_raw_sys::general as linux;

/// Longest line in canonical mode, without its end.
pub const LINE_MAX: usize = 4095;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mark {
    None,
    /// Last byte of a line.
    End,
    /// End of file was typed here; the byte is not data.
    Eof,
}

#[derive(Clone, Copy, Debug)]
struct Cell {
    byte: u8,
    mark: Mark,
}

/// What a read may have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Taken {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// What to pass to [`Ldisc::consume`] once they have arrived.
    pub cells: usize,
}

/// The terminal's input queue and settings.
#[derive(Default, Debug)]
pub struct Ldisc {
    settings: Settings,
    cells: VecDeque<Cell>,
    committed: usize,
    /// The next byte is taken as it is (VLNEXT).
    literal: bool,
    /// Output is held back (VSTOP, TCOOFF).
    stopped: bool,
    cursor: Cursor,
    /// Where the line being edited starts on the screen.
    line_column: usize,
    echo: Vec<u8>,
}

impl Ldisc {
    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Changes the settings. What is queued stays readable.
    pub fn set(&mut self, settings: Settings) {
        let changed = self.settings.local ^ settings.local;
        self.settings = settings;
        if changed & linux::ICANON != 0 {
            self.literal = false;
            self.cells.retain(|cell| cell.mark != Mark::Eof);
            self.cells
                .iter_mut()
                .for_each(|cell| cell.mark = Mark::None);
            self.committed = 0;
            if self.canonical()
                && let Some(last) = self.cells.back_mut()
            {
                // What raw mode left is a line that wants no more.
                last.mark = Mark::End;
                self.committed = self.cells.len();
            }
        }
        if !self.settings.input(linux::IXON) {
            self.stopped = false;
        }
    }

    /// Whether lines are edited (ICANON).
    pub fn canonical(&self) -> bool {
        self.settings.local(linux::ICANON)
    }

    /// Whether output is held back.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// Holds output back or lets it go.
    pub fn stop(&mut self, stopped: bool) {
        self.stopped = stopped;
    }

    /// Cells held: what flow control counts.
    pub fn held(&self) -> usize {
        self.cells.len()
    }

    /// Bytes that a read could have now (FIONREAD).
    pub fn available(&self) -> usize {
        let readable = if self.canonical() {
            self.committed
        } else {
            self.cells.len()
        };
        let data = |cell: &&Cell| cell.mark != Mark::Eof;
        self.cells.iter().take(readable).filter(data).count()
    }

    /// Whether a canonical read would not wait.
    pub fn has_line(&self) -> bool {
        self.committed > 0
    }

    /// The echo since the last call, ready for the terminal.
    pub fn take_echo(&mut self) -> Vec<u8> {
        core::mem::take(&mut self.echo)
    }

    /// A program's output, ready for the terminal.
    pub fn output(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len() + bytes.len() / 8);
        for &byte in bytes {
            self.cursor.put(byte, &self.settings, &mut out);
        }
        out
    }

    /// Drops all input (TCIFLUSH).
    pub fn flush(&mut self) {
        self.cells.clear();
        self.committed = 0;
        self.literal = false;
    }

    /// Up to `max` bytes: of one line in canonical mode, of all there is in raw mode.
    pub fn peek(&self, max: usize) -> Taken {
        let readable = if self.canonical() {
            self.committed
        } else {
            self.cells.len()
        };
        let mut taken = Taken {
            bytes: Vec::new(),
            cells: 0,
        };
        for cell in self.cells.iter().take(readable) {
            // An end of file right behind the last byte that fits is for the next read.
            if taken.bytes.len() == max {
                break;
            }
            taken.cells += 1;
            if cell.mark == Mark::Eof {
                break;
            }
            taken.bytes.push(cell.byte);
            if cell.mark == Mark::End {
                break;
            }
        }
        taken
    }

    /// Removes what a read took.
    pub fn consume(&mut self, cells: usize) {
        let cells = cells.min(self.cells.len());
        self.cells.drain(..cells);
        self.committed = self.committed.saturating_sub(cells);
    }

    /// A byte from the keyboard; returns the signal it stands for.
    pub fn input(&mut self, byte: u8) -> Option<i32> {
        let settings = self.settings;
        let mut byte = byte;
        if settings.input(linux::ISTRIP) {
            byte &= 0x7f;
        }
        if settings.input(linux::IUCLC) && settings.local(linux::IEXTEN) {
            byte = byte.to_ascii_lowercase();
        }
        if self.literal {
            self.literal = false;
            self.insert(byte);
            return None;
        }
        if settings.input(linux::IXON) {
            if settings.is(linux::VSTART, byte) {
                self.stopped = false;
                return None;
            }
            if settings.is(linux::VSTOP, byte) {
                self.stopped = true;
                return None;
            }
        }
        if settings.local(linux::ISIG)
            && let Some(signal) = self.signal(byte)
        {
            return Some(signal);
        }
        if settings.input(linux::IXON | linux::IXANY) {
            self.stopped = false;
        }
        match byte {
            b'\r' if settings.input(linux::IGNCR) => return None,
            b'\r' if settings.input(linux::ICRNL) => byte = b'\n',
            b'\n' if settings.input(linux::INLCR) => byte = b'\r',
            _ => {}
        }
        let special = self.canonical() && (self.edit(byte) || self.end_line(byte));
        if !special {
            self.insert(byte);
        }
        None
    }

    fn signal(&mut self, byte: u8) -> Option<i32> {
        let signals = [
            (linux::VINTR, linux::SIGINT),
            (linux::VQUIT, linux::SIGQUIT),
            (linux::VSUSP, linux::SIGTSTP),
        ];
        let is = |(index, _): &&(u32, u32)| self.settings.is(*index, byte);
        let signal = signals.iter().find(is)?.1;
        if !self.settings.local(linux::NOFLSH) {
            self.flush();
        }
        if self.settings.input(linux::IXON) {
            self.stopped = false;
        }
        if self.settings.local(linux::ECHO) {
            self.echo_byte(byte);
        }
        Some(signal as i32)
    }

    /// Handles the bytes that edit the line; whether `byte` was one.
    fn edit(&mut self, byte: u8) -> bool {
        let settings = self.settings;
        let extended = settings.local(linux::IEXTEN);
        if settings.is(linux::VERASE, byte) {
            self.erase(1);
        } else if settings.is(linux::VKILL, byte) {
            self.kill();
        } else if extended && settings.is(linux::VWERASE, byte) {
            self.erase(self.last_word());
        } else if extended && settings.is(linux::VLNEXT, byte) {
            self.literal = true;
            if settings.local(linux::ECHO | linux::ECHOCTL) {
                self.echo_raw(b'^');
                self.echo_raw(0x08);
            }
        } else if settings.local(linux::ECHO | linux::IEXTEN) && settings.is(linux::VREPRINT, byte)
        {
            self.reprint(byte);
        } else {
            return false;
        }
        true
    }

    /// Handles the bytes that end a line; whether `byte` was one.
    fn end_line(&mut self, byte: u8) -> bool {
        let settings = self.settings;
        let mark = if byte == b'\n' {
            if settings.local & (linux::ECHO | linux::ECHONL) != 0 {
                self.echo_raw(b'\n');
            }
            Mark::End
        } else if settings.is(linux::VEOF, byte) {
            Mark::Eof
        } else if settings.is(linux::VEOL, byte)
            || settings.local(linux::IEXTEN) && settings.is(linux::VEOL2, byte)
        {
            if settings.local(linux::ECHO) {
                self.echo_byte(byte);
            }
            Mark::End
        } else {
            return false;
        };
        self.cells.push_back(Cell { byte, mark });
        self.committed = self.cells.len();
        true
    }

    fn insert(&mut self, byte: u8) {
        if self.canonical() && self.cells.len() - self.committed >= LINE_MAX {
            if self.settings.input(linux::IMAXBEL) {
                self.echo_raw(0x07);
            }
            return;
        }
        if self.cells.len() == self.committed {
            self.line_column = self.cursor.column;
        }
        if self.settings.local(linux::ECHO) {
            // A new line is echoed as one even when it was typed literally.
            if byte == b'\n' {
                self.echo_raw(byte);
            } else {
                self.echo_byte(byte);
            }
        }
        self.cells.push_back(Cell {
            byte,
            mark: Mark::None,
        });
    }

    /// Echoes one byte through output processing.
    fn echo_raw(&mut self, byte: u8) {
        self.cursor.put(byte, &self.settings, &mut self.echo);
    }

    /// Echoes one byte, control characters as `^X` with ECHOCTL.
    fn echo_byte(&mut self, byte: u8) {
        if self.settings.local(linux::ECHOCTL) && byte.is_ascii_control() && byte != b'\t' {
            self.echo_raw(b'^');
            self.echo_raw(byte ^ 0x40);
        } else {
            self.echo_raw(byte);
        }
    }

    /// Characters of the last word of the line being edited, with what follows it.
    fn last_word(&self) -> usize {
        let line = self.cells.range(self.committed..);
        let mut seen = false;
        let mut count = 0;
        for cell in line.rev() {
            if is_continuation(cell.byte, &self.settings) {
                continue;
            }
            let word = cell.byte.is_ascii_alphanumeric() || cell.byte == b'_' || cell.byte >= 0x80;
            if seen && !word {
                break;
            }
            seen |= word;
            count += 1;
        }
        count
    }

    /// Drops the line being edited.
    fn kill(&mut self) {
        let settings = self.settings;
        if self.cells.len() == self.committed {
            return;
        }
        if settings.local(linux::ECHO | linux::ECHOK | linux::ECHOKE | linux::ECHOE) {
            self.erase(usize::MAX);
            return;
        }
        self.cells.truncate(self.committed);
        if settings.local(linux::ECHO) {
            self.echo_byte(settings.char(linux::VKILL));
            if settings.local(linux::ECHOK) {
                self.echo_raw(b'\n');
            }
        }
    }

    /// Erases up to `count` characters (UTF-8 sequences whole) of the line being edited.
    fn erase(&mut self, count: usize) {
        let settings = self.settings;
        for _ in 0..count {
            let before = self.width();
            let mut erased = false;
            while self.cells.len() > self.committed
                && let Some(cell) = self.cells.pop_back()
            {
                erased = true;
                if !is_continuation(cell.byte, &settings) {
                    break;
                }
            }
            if !erased {
                return;
            }
            if !settings.local(linux::ECHO) {
                continue;
            }
            if !settings.local(linux::ECHOE) {
                self.echo_byte(settings.char(linux::VERASE));
                continue;
            }
            for _ in self.width()..before {
                for byte in [0x08, b' ', 0x08] {
                    self.echo_raw(byte);
                }
            }
        }
    }

    /// Columns that the line being edited takes on the screen.
    fn width(&self) -> usize {
        let mut column = self.line_column;
        for cell in self.cells.range(self.committed..) {
            column += match cell.byte {
                b'\t' => TAB - column % TAB,
                byte if byte.is_ascii_control() => {
                    2 * usize::from(self.settings.local(linux::ECHOCTL))
                }
                byte => usize::from(!is_continuation(byte, &self.settings)),
            };
        }
        column - self.line_column
    }

    fn reprint(&mut self, byte: u8) {
        self.echo_byte(byte);
        self.echo_raw(b'\n');
        self.line_column = self.cursor.column;
        for i in self.committed..self.cells.len() {
            self.echo_byte(self.cells[i].byte);
        }
    }
}
