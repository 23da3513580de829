//! From a byte stream to packets, holding no more than a header and one short payload.

use abi::hostlink::{Channel, HEADER, parse};

/// Payload of the packets that carry one word.
const WORD: usize = 4;

/// The stream is not a host link's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A header that no packet has.
    #[error("packet header {0:02x?}")]
    Header([u8; HEADER]),
    /// A packet that does not travel this way, or not with this length.
    #[error("packet of {1} bytes on channel {0:?}")]
    Packet(Channel, usize),
}

/// State between two pieces of the stream.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    held: [u8; HEADER],
    held_len: usize,
    /// The packet whose payload is coming, and what is left of it.
    packet: Option<(Channel, usize)>,
}

impl Decoder {
    /// Takes the stream's next bytes. Output is handed on in the pieces in which it comes, at
    /// once; packets that carry a word are handed on whole.
    pub fn feed(
        &mut self,
        mut bytes: &[u8],
        mut packet: impl FnMut(Channel, &[u8]),
    ) -> Result<(), Malformed> {
        while !bytes.is_empty() {
            match self.packet {
                None => {
                    if !self.hold(&mut bytes) {
                        return Ok(());
                    }
                    self.held_len = 0;
                    let (channel, len) = parse(self.held).ok_or(Malformed::Header(self.held))?;
                    match channel {
                        Channel::Stdout | Channel::Stderr | Channel::Absent => {}
                        Channel::Exit | Channel::StdinCredit if len == WORD => {}
                        _ => return Err(Malformed::Packet(channel, len)),
                    }
                    self.packet = (len > 0).then_some((channel, len));
                }
                Some((channel @ (Channel::Stdout | Channel::Stderr | Channel::Absent), left)) => {
                    let (now, rest) = bytes.split_at(left.min(bytes.len()));
                    packet(channel, now);
                    bytes = rest;
                    self.packet = (left > now.len()).then_some((channel, left - now.len()));
                }
                Some((channel, _)) => {
                    if !self.hold(&mut bytes) {
                        return Ok(());
                    }
                    self.held_len = 0;
                    self.packet = None;
                    packet(channel, &self.held);
                }
            }
        }
        Ok(())
    }

    /// Collects four bytes, a header or a word; true when they are there.
    fn hold(&mut self, bytes: &mut &[u8]) -> bool {
        let take = (HEADER - self.held_len).min(bytes.len());
        self.held[self.held_len..self.held_len + take].copy_from_slice(&bytes[..take]);
        self.held_len += take;
        *bytes = &bytes[take..];
        self.held_len == HEADER
    }
}

const _: () = assert!(HEADER == WORD);

#[cfg(test)]
mod tests {
    use abi::hostlink::header;

    use super::*;

    fn stream() -> Vec<u8> {
        let mut stream = Vec::new();
        for (channel, data) in [
            (Channel::Stdout, &b"hello "[..]),
            (Channel::Stderr, b"oops"),
            (Channel::Stdout, b""),
            (Channel::StdinCredit, &[0, 16, 0, 0]),
            (Channel::Stdout, b"world"),
            (Channel::Absent, b"/a\0/b\0"),
            (Channel::Exit, &[0, 3, 0, 0]),
        ] {
            stream.extend_from_slice(&header(channel, data.len()));
            stream.extend_from_slice(data);
        }
        stream
    }

    #[test]
    fn packets_survive_any_fragmentation() {
        let stream = stream();
        for piece in 1..stream.len() {
            let mut decoder = Decoder::default();
            let (mut out, mut err, mut words) = (Vec::new(), Vec::new(), Vec::new());
            let mut absent = Vec::new();
            for bytes in stream.chunks(piece) {
                decoder
                    .feed(bytes, |channel, data| match channel {
                        Channel::Stdout => out.extend_from_slice(data),
                        Channel::Stderr => err.extend_from_slice(data),
                        Channel::Absent => absent.extend_from_slice(data),
                        other => words.push((other, data.to_vec())),
                    })
                    .unwrap();
            }
            assert_eq!(out, b"hello world");
            assert_eq!(err, b"oops");
            assert_eq!(absent, b"/a\0/b\0");
            assert_eq!(
                words,
                [
                    (Channel::StdinCredit, vec![0, 16, 0, 0]),
                    (Channel::Exit, vec![0, 3, 0, 0])
                ]
            );
        }
    }

    #[test]
    fn what_no_guest_sends_is_refused() {
        let feed = |bytes: &[u8]| Decoder::default().feed(bytes, |_, _| {});
        assert_eq!(feed(&[9, 0, 1, 0]), Err(Malformed::Header([9, 0, 1, 0])));
        assert_eq!(
            feed(&[1, 0, 0xff, 0xff]),
            Err(Malformed::Header([1, 0, 0xff, 0xff]))
        );
        assert_eq!(
            feed(&header(Channel::Stdin, 1)),
            Err(Malformed::Packet(Channel::Stdin, 1))
        );
        assert_eq!(
            feed(&header(Channel::Exit, 5)),
            Err(Malformed::Packet(Channel::Exit, 5))
        );
    }
}
