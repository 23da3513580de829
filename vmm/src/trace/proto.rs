//! Writes protocol buffers' wire format: the four shapes that traces need.

/// A message under construction.
#[derive(Clone, Debug, Default)]
pub struct Message(Vec<u8>);

/// Wire types, in the low three bits of a key.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;

impl Message {
    /// Its bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn raw(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// An integer or enumeration.
    pub fn varint(&mut self, field: u32, value: u64) -> &mut Message {
        self.raw(u64::from(field) << 3 | VARINT);
        self.raw(value);
        self
    }

    /// A `fixed64`.
    pub fn fixed64(&mut self, field: u32, value: u64) -> &mut Message {
        self.raw(u64::from(field) << 3 | FIXED64);
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// A string or bytes.
    pub fn bytes(&mut self, field: u32, value: &[u8]) -> &mut Message {
        self.raw(u64::from(field) << 3 | BYTES);
        self.raw(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    /// A message in the message.
    pub fn message(&mut self, field: u32, fill: impl FnOnce(&mut Message)) -> &mut Message {
        let mut inner = Message::default();
        fill(&mut inner);
        self.bytes(field, &inner.0)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A field's value as the wire has it.
    #[derive(Clone, Debug, PartialEq)]
    pub enum Value {
        /// An integer, of either width.
        Number(u64),
        /// A string or message.
        Bytes(Vec<u8>),
    }

    /// Reads a message: its fields in order. Written from the wire format's description,
    /// sharing nothing with the writer.
    pub fn decode(mut bytes: &[u8]) -> Vec<(u64, Value)> {
        fn number(bytes: &mut &[u8]) -> u64 {
            let (mut value, mut shift) = (0u64, 0);
            loop {
                let (&byte, rest) = bytes.split_first().expect("a varint goes on");
                *bytes = rest;
                value += u64::from(byte % 128) << shift;
                shift += 7;
                if byte < 128 {
                    return value;
                }
            }
        }
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let key = number(&mut bytes);
            let value = match key % 8 {
                0 => Value::Number(number(&mut bytes)),
                1 => {
                    let (word, rest) = bytes.split_first_chunk::<8>().expect("eight bytes");
                    bytes = rest;
                    Value::Number(u64::from_le_bytes(*word))
                }
                2 => {
                    let len = number(&mut bytes) as usize;
                    let (content, rest) = bytes.split_at(len);
                    bytes = rest;
                    Value::Bytes(content.to_vec())
                }
                other => panic!("wire type {other}"),
            };
            fields.push((key / 8, value));
        }
        fields
    }

    /// The examples of the wire format's description.
    #[test]
    fn the_documented_examples() {
        let mut message = Message::default();
        message.varint(1, 150);
        assert_eq!(message.clone().into_bytes(), [0x08, 0x96, 0x01]);
        message.bytes(2, b"testing");
        assert_eq!(message.clone().into_bytes()[3..], *b"\x12\x07testing");
        let mut outer = Message::default();
        outer.message(3, |inner| {
            inner.varint(1, 150);
        });
        assert_eq!(outer.into_bytes(), [0x1a, 0x03, 0x08, 0x96, 0x01]);
    }

    #[test]
    fn what_is_written_can_be_read() {
        let mut message = Message::default();
        message.varint(60, u64::MAX).fixed64(47, 7).bytes(23, b"");
        let fields = decode(&message.into_bytes());
        let expected = [
            (60, Value::Number(u64::MAX)),
            (47, Value::Number(7)),
            (23, Value::Bytes(Vec::new())),
        ];
        assert_eq!(fields, expected);
    }
}
