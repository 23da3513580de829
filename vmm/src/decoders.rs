//! Tests: whatever a guest writes where the VMM reads, nothing panics, hangs, or takes more memory
//! than there can be records of. (The rings of devices: `devices/virtio/tests.rs`.)

use std::mem::offset_of;
use std::time::{Duration, Instant};

use abi::lab::{INSPECTION_MAGIC, Inspection};
use abi::trace::{CONTROL_MAGIC, Control, RING, Record, random};
use vm_memory::{Bytes, GuestAddress};

use crate::hostlink::decoder::Decoder;
use crate::inspect::graph::Graph;
use crate::inspect::{drawing, render, table};
use crate::lab::control::{self, Trace};
use crate::log::Log;
use crate::memory::{GuestRam, MINIMUM};
use crate::trace::perfetto;
use crate::trace::words::{self, Names};
use largest::allocation_of;

#[path = "../../tests/common/largest.rs"]
mod largest;

/// Words that nobody would write, and some that somebody would.
fn word(seed: u64, index: u64) -> u64 {
    let chance = random(seed, index);
    let rest = chance >> 8;
    match chance % 9 {
        0 => 0,
        1 => rest & 0xff,
        2 => rest % 2000,
        3 => rest % MINIMUM,
        4 => MINIMUM - rest % 64,
        5 => u64::MAX - rest % 64,
        6 => 1 << (rest & 63),
        7 => rest & 0xffff_ffff,
        _ => chance,
    }
}

#[test]
fn a_host_link_of_anything_hands_on_what_it_was_fed() {
    let (mut refused, mut packets) = (0, 0);
    for seed in 0..5000 {
        let mut bytes: Vec<u8> = (0..random(seed, 0) % 300)
            .map(|n| match random(seed, n + 1) {
                // Channels and short lengths, mostly: headers that are some.
                chance if chance.is_multiple_of(8) => (chance >> 8) as u8,
                chance => (chance >> 8) as u8 & 7,
            })
            .collect();
        if seed.is_multiple_of(2) {
            bytes.splice(0..0, [1, 0, 200, 0]);
        }
        let mut decoder = Decoder::default();
        let mut fed = &bytes[..];
        let mut handed = 0;
        let took = allocation_of(|| {
            while !fed.is_empty() {
                let n = 1 + random(seed, fed.len() as u64) as usize % fed.len();
                let fine = decoder.feed(&fed[..n], |_, piece| {
                    handed += piece.len();
                    packets += 1;
                });
                fed = &fed[n..];
                if fine.is_err() {
                    refused += 1;
                    break;
                }
            }
        });
        assert!(handed <= bytes.len(), "{handed} of {}", bytes.len());
        assert_eq!(took, 0, "a decoder keeps no more than a header");
    }
    assert!(refused > 500 && packets > 500, "{refused} {packets}");
}

/// A kernel's table whose layout and contents are chance's.
#[test]
fn a_table_of_anything_is_drawn_or_is_none() {
    let ram = GuestRam::new(MINIMUM).unwrap();
    const AT: u64 = 0x1000;
    const WORDS: u64 = (size_of::<Inspection>() / 8) as u64;
    let (mut layouts, mut processes) = (0, 0);
    let begun = Instant::now();
    for seed in 0..300 {
        // Some of the guest's memory.
        for n in 0..4096 {
            let chance = random(seed, n);
            let at = GuestAddress(0x2000 + n * 8);
            let value = match chance % 4 {
                0 => chance >> 8 & 0x1ff,
                1 => (chance >> 8 & 0xff) << 32 | (chance >> 16 & 0xff),
                _ => word(seed, n),
            };
            ram.map.write_obj(value, at).unwrap();
        }
        for n in 0..WORDS {
            let chance = random(seed, 1 << 20 | n);
            // Mostly what could be: offsets in a small stride, tables in memory.
            let value = match chance % 40 {
                0 => word(seed, n),
                _ if n * 8 >= offset_of!(Inspection, regs) as u64 => ((chance >> 8) % 512) & !7,
                _ => 0x2000 + (chance >> 8) % 0x4000,
            };
            ram.map.write_obj(value, GuestAddress(AT + n * 8)).unwrap();
        }
        let put = |offset: usize, value: u64| {
            let at = GuestAddress(AT + offset as u64);
            ram.map.write_obj(value, at).unwrap();
        };
        put(offset_of!(Inspection, magic), INSPECTION_MAGIC);
        put(offset_of!(Inspection, slots), random(seed, 7) % 300);
        put(offset_of!(Inspection, stride), 640 + random(seed, 8) % 100);
        put(offset_of!(Inspection, post_count), word(seed, 9) % 5000);
        put(offset_of!(Inspection, post_stride), word(seed, 10) % 500);
        let took = allocation_of(|| {
            let Some(layout) = table::layout(&ram.map, AT) else {
                return;
            };
            layouts += 1;
            let _ = crate::counters::read(&ram.map, AT);
            let Some(snapshot) = table::snapshot(&ram.map, &layout) else {
                return;
            };
            let queued: usize = snapshot.processes.iter().map(|p| p.queue.len()).sum();
            assert!(snapshot.processes.len() as u64 <= layout.slots);
            assert!(queued as u64 <= layout.slots + layout.post_count);
            processes += snapshot.processes.len();
            let graph = Graph::new(&snapshot);
            let _ = graph.cycle();
            let text = render::text(&graph) + &render::dot(&graph) + &drawing::svg(&graph);
            let drawn = drawing::with_reasons(&graph);
            assert!(text.len() + drawn.len() < 4 << 20);
        });
        assert!(took < 4 << 20, "seed {seed}: {took} bytes at once");
    }
    assert!(layouts > 100 && processes > 1000, "{layouts} {processes}");
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(60), "{took:?}");
}

#[test]
fn records_of_anything_are_told_and_drawn() {
    let ram = GuestRam::new(MINIMUM).unwrap();
    const AT: u64 = 0x1000;
    let mut trace = Trace::default();
    for seed in 0..200 {
        let put = |offset: usize, value: u64| {
            let at = GuestAddress(AT + offset as u64);
            ram.map.write_obj(value, at).unwrap();
        };
        for n in 0..(size_of::<Control>() / 8) {
            put(n * 8, word(seed, n as u64));
        }
        put(offset_of!(Control, magic), CONTROL_MAGIC);
        // A piece of a ring, of chance.
        for n in 0..64 {
            let at = GuestAddress(0x10_0000 + n * 8);
            ram.map.write_obj(word(seed, 1000 + n), at).unwrap();
        }
        if seed.is_multiple_of(2) {
            put(offset_of!(Control, ring), 0x10_0000);
            put(offset_of!(Control, records), trace.seen.wrapping_add(8));
        }
        let control = control::read(&ram.map, AT).expect("a control");
        let before = trace.records.len();
        trace.drain(&ram.map, &control);
        let new = trace.records.len() - before;
        assert!(new <= RING, "{new} records of one ring");
    }
    trace.records.truncate(20_000);
    trace.records.extend((0..20_000).map(|seed| Record {
        time: word(seed, 0),
        // A kind that is one, mostly.
        what: (word(seed, 1) & !0xff) | (random(seed, 2) % 40),
        words: std::array::from_fn(|n| word(seed, 3 + n as u64)),
    }));
    let mut names = Names::default();
    let mut longest = 0;
    for record in &trace.records {
        names.learn(record);
        longest = longest.max(words::describe(record, &names).len());
        if let Some(sent) = record.sent() {
            let _ = (words::message(&sent), words::answer(&sent));
        }
    }
    assert!((1..4096).contains(&longest), "a line of {longest} bytes");
    let drawn = perfetto::encode(&trace.records, &names);
    let most = trace.records.len() * 4096;
    assert!(drawn.len() < most, "{} bytes of {most}", drawn.len());
}

#[test]
fn lines_of_anything_are_cut_and_printable() {
    let log = Log::new(false, 10);
    for seed in 0..200 {
        let len = random(seed, 0) % 100_000;
        let line: Vec<u8> = (0..len).map(|n| random(seed, n) as u8).collect();
        log.line("guest", &line);
        let kept = log.kept();
        assert!(kept.len() <= 10);
        for line in kept {
            let printable = line.chars().all(|c| c == '\t' || !c.is_control());
            assert!(line.len() < 16 << 10 && printable, "{line:?}");
        }
    }
}
