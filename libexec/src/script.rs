//! The `#!` line, split exactly as Linux splits it.
//!
//! The line counts up to its newline or to [`MAX`] bytes. After `#!` and blanks comes the
//! interpreter's path, and after further blanks *one* argument: the rest of the line, inner
//! blanks included, trailing ones not.

use abi::Errno;

/// Bytes of the file that are looked at.
pub const MAX: usize = 256;

/// A `#!` line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Line<'a> {
    /// Path of the interpreter.
    pub interpreter: &'a [u8],
    /// Its argument, if there is one. The script's path comes after it.
    pub argument: Option<&'a [u8]>,
}

/// Reads the line at the start of `header`, the file's first bytes (at least [`MAX`], or the
/// whole file). `None`: not a script. `ENOEXEC`: no interpreter, or a path that is cut off.
pub fn parse(header: &[u8]) -> Option<Result<Line<'_>, Errno>> {
    header
        .starts_with(b"#!")
        .then(|| split(header).ok_or(Errno::ENOEXEC))
}

fn split(header: &[u8]) -> Option<Line<'_>> {
    let text = &header[..header.len().min(MAX)];
    let text = text.get(2..)?;
    // What follows a NUL does not exist; a file that ends is as good as one.
    let visible = &text[..position(text, |b| b == 0)];
    let newline = visible.iter().position(|&b| b == b'\n');
    let line = &visible[..newline.unwrap_or(visible.len())];

    let line = &line[position(line, |b| !blank(b))..];
    let name_len = position(line, blank);
    let cut_off = newline.is_none() && visible.len() == MAX - 2;
    // The path reaches the end of what was looked at, so it may go on after it.
    if cut_off && name_len == line.len() {
        return None;
    }
    // The last byte of a line that is cut off is not part of it.
    let line = &line[..line.len() - usize::from(cut_off)];
    let end = line.iter().rposition(|&b| !blank(b))? + 1;
    let rest = &line[name_len..end];
    let argument = &rest[position(rest, |b| !blank(b))..];
    Some(Line {
        interpreter: &line[..name_len],
        argument: (!argument.is_empty()).then_some(argument),
    })
}

/// Where the first byte that `wanted` accepts is, or the length.
fn position(bytes: &[u8], wanted: impl Fn(u8) -> bool) -> usize {
    bytes.iter().position(|&b| wanted(b)).unwrap_or(bytes.len())
}

fn blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}
