//! The host link: what travels on the virtio console between the console driver and the
//! host.
//!
//! One byte stream each way carries *packets*: a 4-byte header and a payload. The same
//! protocol is spoken under our VMM and under QEMU (whose chardev the `absentia` command
//! holds), so that standard output and standard error stay apart, end of file is visible
//! and the exit status arrives.
//!
//! Header: byte 0 [`Channel`], byte 1 zero, bytes 2..4 payload length, little endian.
//!
//! Why so: docs/decisions/005-host-link.md.

/// Bytes of a packet header.
pub const HEADER: usize = 4;
/// Longest payload.
pub const MAX_PAYLOAD: usize = 4096;

/// What a packet carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Channel {
    /// To the guest: standard input. Length 0 is end of file.
    Stdin = 0,
    /// To the host: standard output.
    Stdout = 1,
    /// To the host: standard error.
    Stderr = 2,
    /// To the host: PROGRAM ended. Payload: status word as wait4 reports it, u32 LE, and
    /// [`EXIT_UNSAVED`].
    Exit = 3,
    /// To the guest: the terminal's size. Payload: rows, columns, u16 LE each.
    WindowSize = 4,
    /// To the host: credit. The guest consumed u32 LE bytes of standard input and can take
    /// as many more. The host starts with [`STDIN_CREDIT`] and never has more outstanding.
    StdinCredit = 5,
    /// To the host: paths that were looked for in the guest and not there, a NUL behind each.
    Absent = 6,
    /// To the guest: the run is to end now. The guest ends all programs, writes back what was
    /// written, and powers off. No payload.
    End = 7,
}

/// Bit of [`Channel::Exit`]'s word, above those that wait4 has: a file system could not write
/// back all that was written to it.
pub const EXIT_UNSAVED: u32 = 1 << 16;

/// Bytes of standard input that the host may send before the first credit.
pub const STDIN_CREDIT: usize = 4096;

impl Channel {
    /// The channel with this number.
    pub const fn from_byte(byte: u8) -> Option<Channel> {
        Some(match byte {
            0 => Channel::Stdin,
            1 => Channel::Stdout,
            2 => Channel::Stderr,
            3 => Channel::Exit,
            4 => Channel::WindowSize,
            5 => Channel::StdinCredit,
            6 => Channel::Absent,
            7 => Channel::End,
            _ => return None,
        })
    }
}

/// The header of a packet of `len` bytes (at most [`MAX_PAYLOAD`]) on `channel`.
pub const fn header(channel: Channel, len: usize) -> [u8; HEADER] {
    let [low, high, ..] = len.to_le_bytes();
    [channel as u8, 0, low, high]
}

/// Reads a header: channel and payload length, or `None` when it is malformed.
pub const fn parse(header: [u8; HEADER]) -> Option<(Channel, usize)> {
    let len = header[2] as usize | (header[3] as usize) << 8;
    match Channel::from_byte(header[0]) {
        Some(channel) if header[1] == 0 && len <= MAX_PAYLOAD => Some((channel, len)),
        _ => None,
    }
}
