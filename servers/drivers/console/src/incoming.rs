//! Cuts the host's byte stream into packets.

use abi::hostlink::{Channel, HEADER, MAX_PAYLOAD, parse};

/// Something the host said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event<'a> {
    /// Standard input; empty is end of file.
    Input(&'a [u8]),
    /// The terminal's size: rows, columns.
    Window(u16, u16),
    /// The run is to end.
    End,
    /// The stream makes no sense from here on.
    Malformed,
}

/// The packet being collected.
#[derive(Debug)]
pub struct Decoder {
    packet: [u8; HEADER + MAX_PAYLOAD],
    len: usize,
    broken: bool,
}

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder {
            packet: [0; HEADER + MAX_PAYLOAD],
            len: 0,
            broken: false,
        }
    }
}

impl Decoder {
    /// Takes bytes and calls `event` for each packet that is complete.
    pub fn feed(&mut self, mut bytes: &[u8], mut event: impl FnMut(Event<'_>)) {
        while !bytes.is_empty() && !self.broken {
            let wanted = match self.header() {
                None => HEADER,
                Some((_, len)) => HEADER + len,
            };
            let now = (wanted - self.len).min(bytes.len());
            self.packet[self.len..self.len + now].copy_from_slice(&bytes[..now]);
            self.len += now;
            bytes = &bytes[now..];
            self.complete(&mut event);
        }
    }

    fn complete(&mut self, event: &mut impl FnMut(Event<'_>)) {
        if self.len < HEADER {
            return;
        }
        let Some((channel, len)) = self.header() else {
            self.broken = true;
            event(Event::Malformed);
            return;
        };
        let payload = &self.packet[HEADER..HEADER + len];
        if self.len < HEADER + len {
            return;
        }
        self.len = 0;
        match (channel, payload) {
            (Channel::Stdin, data) => event(Event::Input(data)),
            (Channel::WindowSize, &[a, b, c, d]) => {
                event(Event::Window(
                    u16::from_le_bytes([a, b]),
                    u16::from_le_bytes([c, d]),
                ));
            }
            (Channel::End, []) => event(Event::End),
            _ => {
                self.broken = true;
                event(Event::Malformed);
            }
        }
    }

    /// The packet's header, once it is there and well formed.
    fn header(&self) -> Option<(Channel, usize)> {
        if self.len < HEADER {
            return None;
        }
        parse(*self.packet.first_chunk()?)
    }
}
