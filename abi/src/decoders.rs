//! What reads words and bytes that another address space wrote: whatever they are, it does not
//! panic, keeps to its input, and changes nothing in silence.

use crate::boot::{RUN_MAGIC, RunHeader, RunSpec};
use crate::kernel::{Brings, INBOX};
use crate::message::{Message, WORDS, Word};
use crate::trace::{Kind, Record, Stage, random};
use crate::{Class, Endpoint, grant, hostlink, policy, proto, sabotage};
use std::vec::Vec;
use zerocopy::IntoBytes;

/// Words that nobody would send, and some that somebody would.
pub fn word(seed: u64, index: u64) -> u64 {
    let chance = random(seed, index);
    let rest = chance >> 8;
    match chance % 10 {
        0 => 0,
        1 => rest & 1,
        2 => rest & 0xff,
        3 => u64::MAX - (rest & 0xff),
        4 => 1 << (rest & 63),
        5 => rest & 0xffff_ffff,
        6 => 0xffff_ffff,
        7 => i32::MIN as u64,
        8 => 0x1_0000_0000 | (rest & 0xff),
        _ => chance,
    }
}

/// A request whose words are read is the one that was sent: no word loses a part.
#[test]
fn messages_are_read_whole_or_not_at_all() {
    let again = proto::again;
    let rules = proto::PROTOCOLS.iter().flat_map(|protocol| protocol.rules);
    let (mut read, mut refused) = (0, 0);
    for rule in rules {
        for seed in 0..2000 {
            let mut message = Message::new(rule.kind);
            for (n, place) in message.words.iter_mut().enumerate() {
                // All of a message's words have to be good for it to be read.
                let small = !random(seed, n as u64).is_multiple_of(3);
                let chosen = word(seed ^ rule.kind << 32, n as u64);
                *place = if small { chosen & 1 } else { chosen };
            }
            let Some(written) = again(&message) else {
                refused += 1;
                continue;
            };
            read += 1;
            assert_eq!(written.kind, message.kind);
            assert_eq!(again(&written), Some(written), "{}", rule.name);
            for (sent, got) in message.words.iter().zip(written.words) {
                // What the request does not use is 0 after; a status that is none is success.
                assert!(
                    got == *sent || got == 0,
                    "{}: {sent:#x} {got:#x}",
                    rule.name
                );
            }
        }
        assert_eq!(again(&Message::new(rule.kind | 0xff)), None);
    }
    assert!(read > 10_000 && refused > 1_000, "{read} {refused}");
}

/// A specification with two arguments and a variable.
fn specification() -> Vec<u8> {
    let mut header = RunHeader::default();
    (header.magic, header.argc, header.envc) = (RUN_MAGIC, 2, 1);
    [header.as_bytes(), b"program\0argument\0A=B\0/\0"].concat()
}

#[test]
fn run_specifications_keep_to_their_bytes() {
    let whole = specification();
    let said = |bytes: &[u8]| -> Option<usize> {
        let spec = RunSpec::parse(bytes).ok()?;
        let pieces: Vec<&[u8]> = spec.args().chain(spec.env()).collect();
        assert_eq!(
            pieces.len() as u64,
            u64::from(spec.header.argc) + u64::from(spec.header.envc)
        );
        let all = pieces.iter().map(|piece| piece.len() + 1).sum::<usize>();
        assert!(all + spec.cwd().len() <= bytes.len());
        assert!(pieces.iter().all(|piece| !piece.contains(&0)));
        Some(pieces.len())
    };
    assert_eq!(said(&whole), Some(3));
    for end in 0..whole.len() {
        assert_eq!(said(&whole[..end]), None, "cut at {end}");
    }
    let mut read = 0;
    for seed in 0..20_000 {
        let mut bytes = whole.clone();
        for n in 0..1 + random(seed, 0) % 4 {
            let at = random(seed, n + 1) as usize % bytes.len();
            bytes[at] = word(seed, n + 9) as u8;
        }
        read += usize::from(said(&bytes).is_some());
    }
    assert!(read > 100, "{read}");
}

#[test]
fn small_codes_are_read_or_refused() {
    for code in 0..=u8::MAX {
        if let Some(brings) = Brings::decode(code) {
            assert!(brings.argument < 3 && brings.bytes <= INBOX as u64);
            assert_eq!(brings.encode(), code);
        }
        let _ = (Kind::of(code), hostlink::Channel::from_byte(code));
    }
    for seed in 0..100_000u64 {
        let [a, b, c, d, ..] = word(seed, 0).to_le_bytes();
        if let Some((channel, len)) = hostlink::parse([a, b, c, d]) {
            assert!(len <= hostlink::MAX_PAYLOAD);
            assert_eq!(hostlink::header(channel, len), [a, b, c, d]);
        }
        let id = word(seed, 1) as i32;
        match grant::split(id) {
            Ok((index, sequence)) => assert_eq!(grant::id(index, sequence), id),
            Err(_) => assert!(id < 0),
        }
        let endpoint = Endpoint(word(seed, 2) as u32);
        let _ = (
            endpoint.role(),
            endpoint.is_process(),
            endpoint.slot(),
            endpoint.generation(),
        );
        let _ = (
            Class::from_word(word(seed, 3)),
            Stage::from_word(word(seed, 4)),
        );
        let _ = proto::admit(endpoint, Class::Call, word(seed, 5));
        let record = Record {
            time: word(seed, 6),
            what: word(seed, 7),
            words: core::array::from_fn(|n| word(seed, 8 + n as u64)),
        };
        let kind = record.sent().map_or(0, |sent| sent.head.kind);
        let actor = record.event().and_then(|event| event.actor());
        let _ = (record.kind(), record.number(), actor, proto::name(kind));
    }
    const { assert!(WORDS == 7) };
}

#[test]
fn command_lines_of_anything_name_nothing() {
    for seed in 0..2000 {
        let mut line: Vec<u8> = (0..random(seed, 0) % 200)
            .map(|n| word(seed, n + 1) as u8)
            .collect();
        assert_eq!(sabotage::of_command_line(&line), 0);
        line.extend_from_slice(b" absentia.sabotage=lock-kept");
        assert_eq!(sabotage::of_command_line(&line), sabotage::LOCK_KEPT);
        let _ = policy::CopyPolicy::of_command_line(&line);
    }
}
