//! A trace as a file for Perfetto (<https://ui.perfetto.dev>): TrackEvent protocol buffers.
//!
//! A process has three tracks. On its own track are slices while it runs and, inside them, what
//! happened: messages with arrows from sender to receiver, copies, fills, faults, absent
//! pages. On the track "waits" below it are slices while it waits for an answer or for
//! memory; one that never ends is a wait that never ended. A process that is being made into
//! another has a track "exec" with the stages, as VFS's requests to VM tell them.
//!
//! Records at the same virtual time are drawn a nanosecond apart, so that their order can be seen.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::Write;
use std::path::Path;

use abi::proto::vm::{HandleMemory, Mmap, Munmap, ProcCtl, Protect, SetBreak, VfsMmap};
use abi::trace::{Decision, Kind, Record, Stage};
use abi::{Class, Endpoint, Request};
use anyhow::{Context, Result};

use super::proto::Message;
use super::words::{self, Names};

/// Field numbers, from Perfetto's `protos/perfetto/trace/`.
mod field {
    /// `Trace` (trace.proto).
    pub const TRACE_PACKET: u32 = 1;
    /// `TracePacket` (trace_packet.proto).
    pub const PACKET_TIMESTAMP: u32 = 8;
    pub const PACKET_SEQUENCE: u32 = 10;
    pub const PACKET_EVENT: u32 = 11;
    pub const PACKET_FLAGS: u32 = 13;
    pub const PACKET_TRACK: u32 = 60;
    /// `TrackDescriptor` (track_event/track_descriptor.proto).
    pub const TRACK_UUID: u32 = 1;
    pub const TRACK_NAME: u32 = 2;
    pub const TRACK_PARENT: u32 = 5;
    /// `TrackEvent` (track_event/track_event.proto).
    pub const EVENT_ANNOTATION: u32 = 4;
    pub const EVENT_TYPE: u32 = 9;
    pub const EVENT_TRACK: u32 = 11;
    pub const EVENT_CATEGORY: u32 = 22;
    pub const EVENT_NAME: u32 = 23;
    pub const EVENT_FLOW: u32 = 47;
    pub const EVENT_FLOW_END: u32 = 48;
    /// `DebugAnnotation` (track_event/debug_annotation.proto).
    pub const ANNOTATION_UINT: u32 = 3;
    pub const ANNOTATION_STRING: u32 = 6;
    pub const ANNOTATION_POINTER: u32 = 7;
    pub const ANNOTATION_NAME: u32 = 10;
}

/// `TrackEvent.Type`.
const BEGIN: u64 = 1;
const END: u64 = 2;
const INSTANT: u64 = 3;
/// `TracePacket.SequenceFlags`: nothing before this packet counts.
const CLEARED: u64 = 1;
/// All packets are of one sequence.
const SEQUENCE: u64 = 1;

/// A process's tracks: uuid is four times the endpoint, plus this.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Track {
    Own = 0,
    Waits = 1,
    Exec = 2,
}

/// The track on which nobody runs.
const IDLE: u64 = 3;

fn uuid(endpoint: u32, track: Track) -> u64 {
    4 + 4 * u64::from(endpoint) + track as u64
}

/// Something beside an event.
enum Argument {
    Number(&'static str, u64),
    Address(&'static str, u64),
    Text(&'static str, String),
}
use Argument::{Address, Number, Text};

/// Makes the file's content. `names` are of processes that no record names.
pub fn encode(records: &[Record], names: &Names) -> Vec<u8> {
    let mut drawing = Drawing {
        names: names.clone(),
        ..Drawing::default()
    };
    // A name is the same before it is told.
    records
        .iter()
        .for_each(|record| drawing.names.learn(record));
    records.iter().for_each(|record| drawing.record(record));
    drawing.finish()
}

/// Makes the file, or begins it anew.
pub fn create(path: &Path) -> Result<File> {
    File::create(path).with_context(|| format!("the trace {}", path.display()))
}

/// Writes the file.
pub fn write(mut file: File, records: &[Record], names: &Names) -> Result<()> {
    Ok(file.write_all(&encode(records, names))?)
}

#[derive(Default)]
struct Drawing {
    names: Names,
    events: Vec<(u64, Message)>,
    tracks: BTreeMap<u64, (String, Option<u64>)>,
    now: u64,
    running: Option<u32>,
    /// Who waits.
    waits: HashSet<u32>,
    /// Who is being made another, and whether a stage is under way.
    execs: HashMap<u32, bool>,
    /// Who asked VM for the stage under way.
    stage: Option<u32>,
    /// Messages sent and not received yet, by receiver.
    sent: HashMap<u32, Vec<(u64, String)>>,
    flows: u64,
}

impl Drawing {
    fn track(&mut self, endpoint: u32, track: Track) -> u64 {
        let own = uuid(endpoint, Track::Own);
        let name = self.names.of(endpoint);
        self.tracks.entry(own).or_insert((name, None));
        if track != Track::Own {
            let name = if track == Track::Waits {
                "waits"
            } else {
                "exec"
            };
            let inner = uuid(endpoint, track);
            self.tracks.entry(inner).or_insert((name.into(), Some(own)));
        }
        uuid(endpoint, track)
    }

    fn event(
        &mut self,
        at: u64,
        kind: u64,
        track: u64,
        (category, name): (&str, &str),
        flow: Option<(u32, u64)>,
        arguments: &[Argument],
    ) {
        let mut packet = Message::default();
        packet.varint(field::PACKET_TIMESTAMP, at);
        packet.varint(field::PACKET_SEQUENCE, SEQUENCE);
        packet.message(field::PACKET_EVENT, |event| {
            event
                .varint(field::EVENT_TYPE, kind)
                .varint(field::EVENT_TRACK, track);
            if kind != END {
                event.bytes(field::EVENT_CATEGORY, category.as_bytes());
                event.bytes(field::EVENT_NAME, name.as_bytes());
            }
            if let Some((field, id)) = flow {
                event.fixed64(field, id);
            }
            for argument in arguments {
                event.message(field::EVENT_ANNOTATION, |note| match argument {
                    Number(name, value) => {
                        note.bytes(field::ANNOTATION_NAME, name.as_bytes())
                            .varint(field::ANNOTATION_UINT, *value);
                    }
                    Address(name, value) => {
                        note.bytes(field::ANNOTATION_NAME, name.as_bytes())
                            .varint(field::ANNOTATION_POINTER, *value);
                    }
                    Text(name, value) => {
                        note.bytes(field::ANNOTATION_NAME, name.as_bytes())
                            .bytes(field::ANNOTATION_STRING, value.as_bytes());
                    }
                });
            }
        });
        self.events.push((at, packet));
    }

    fn instant(&mut self, who: u32, category: &str, name: &str, arguments: &[Argument]) {
        let track = self.track(who, Track::Own);
        self.event(self.now, INSTANT, track, (category, name), None, arguments);
    }

    fn begin(&mut self, track: u64, category: &str, name: &str, arguments: &[Argument]) {
        self.event(self.now, BEGIN, track, (category, name), None, arguments);
    }

    fn end(&mut self, track: u64) {
        self.event(self.now, END, track, ("", ""), None, &[]);
    }

    fn record(&mut self, record: &Record) {
        self.now = self.now.saturating_add(1).max(record.time);
        let (first, second) = record.pair();
        let words = &record.words;
        let actor = words[0] as u32;
        match record.kind() {
            Some(kind @ (Kind::Copy | Kind::Fill)) => self.copy(kind, record),
            Some(Kind::Absent) => {
                let what = [
                    "the copy fails",
                    "the copy fails and marks its grant",
                    "the copier is parked",
                ];
                let then = what.get(words[5] as usize).copied().unwrap_or("?");
                let whose = self.names.of(first);
                let name = format!("absent page of {whose}: {then}");
                let side = if words[4] == 1 { "target" } else { "source" };
                let arguments = [
                    Address("address", words[2]),
                    Number("bytes done", words[3]),
                    Text("side", side.into()),
                    Number("point", record.number()),
                ];
                self.instant(actor, "absence", &name, &arguments);
                if words[5] == 2 {
                    self.wait(actor, &format!("parked: a page of {whose}"));
                }
            }
            Some(Kind::Fault) => {
                let arguments = [
                    Address("address", words[2]),
                    Number("error code", words[3]),
                    Address("instruction", words[4]),
                    Number("point", record.number()),
                ];
                self.instant(actor, "fault", "page fault", &arguments);
                self.wait(actor, "page fault");
            }
            Some(Kind::Message | Kind::Request) => self.message(record, first, second),
            Some(Kind::Reply) => {
                self.send(first, second, &words::answer(record), "answer", record);
                self.waited(second);
                if self.stage == Some(second) && first == Endpoint::VM.0 {
                    self.stage_over();
                }
            }
            Some(Kind::Switch) => self.switch(first, second),
            Some(Kind::Decision) => {
                let what = match words[4] {
                    w if w == Decision::Process as u64 => "which process runs",
                    w if w == Decision::Message as u64 => "which message is received",
                    _ => "which task goes on",
                };
                let arguments = [
                    Number("choices", words[2]),
                    Number("choice", words[3]),
                    Number("decision", record.number()),
                ];
                self.instant(first, "decision", what, &arguments);
            }
            Some(Kind::Exit) => {
                self.waited(actor);
                self.exec_over(actor);
                self.instant(actor, "process", "gone", &[]);
            }
            Some(Kind::Resumed) => {
                self.instant(
                    actor,
                    "absence",
                    "lets a parked copier go on",
                    &[
                        Text("copier", self.names.of(first)),
                        Number("status", words[2]),
                    ],
                );
                self.waited(first);
            }
            Some(Kind::Idle) => {
                let since = self.now.saturating_sub(words[2]);
                self.tracks
                    .entry(IDLE)
                    .or_insert(("nobody can run".into(), None));
                self.event(since, BEGIN, IDLE, ("idle", "time passes"), None, &[]);
                self.end(IDLE);
            }
            Some(Kind::Grant) => {
                let name = format!("reads a grant of {}", self.names.of(first));
                let arguments = [
                    Number("grant", words[2]),
                    Address("entry", words[3]),
                    Number("point", record.number()),
                ];
                self.instant(actor, "copy", &name, &arguments);
            }
            Some(Kind::Exec) => {
                let stage = Stage::of(words[2]).map_or("?", Stage::name);
                let name = format!("{stage}, exec of {}", self.names.of(first));
                let arguments = [
                    Address("address", words[3]),
                    Number("bytes", words[4]),
                    Number("point", record.number()),
                ];
                self.instant(actor, "exec", &name, &arguments);
            }
            // Too many to be seen, and nothing comes of them.
            Some(Kind::Process | Kind::Serves | Kind::Allocation) | None => {}
        }
    }

    fn copy(&mut self, kind: Kind, record: &Record) {
        let (source, target) = record.pair();
        let words = &record.words;
        let (from, to) = (self.names.of(source), self.names.of(target));
        let bytes = words[4];
        let name = if kind == Kind::Copy {
            format!("copies {bytes} bytes: {from} to {to}")
        } else {
            format!("fills {bytes} bytes of {to}")
        };
        let mut arguments = vec![Text("target", to), Address("target address", words[3])];
        if kind == Kind::Copy {
            arguments.extend([Text("source", from), Address("source address", words[2])]);
        }
        arguments.extend([
            Number("bytes", bytes),
            Text("may fail", if words[5] == 1 { "yes" } else { "no" }.into()),
            Number("point", record.number()),
        ]);
        self.instant(words[0] as u32, "copy", &name, &arguments);
    }

    fn message(&mut self, record: &Record, from: u32, to: u32) {
        let what = words::message(record);
        self.send(from, to, &what, "message", record);
        let (class, kind) = words::class_and_kind(record);
        if class.is_some_and(Class::wants_reply) {
            let server = self.names.of(to);
            self.wait(from, &format!("{what}, of {server}"));
        }
        if to == Endpoint::VM.0 && class == Some(Class::Call) {
            self.stage(from, kind, record);
        }
    }

    /// An arrow to the next time the receiver runs.
    fn send(&mut self, from: u32, to: u32, what: &str, category: &str, record: &Record) {
        self.flows += 1;
        let (sender, receiver) = (self.names.of(from), self.names.of(to));
        let words = &record.words;
        let mut arguments = vec![
            Text("to", receiver),
            Number("word 0", words[2]),
            Number("word 1", words[3]),
            Number("word 2", words[4]),
            Number("word 3", words[5]),
        ];
        if record.kind() == Some(Kind::Request) {
            arguments.push(Number("point", record.number()));
        }
        let name = format!("→ {what}");
        let flow = Some((field::EVENT_FLOW, self.flows));
        let track = self.track(from, Track::Own);
        self.event(
            self.now,
            INSTANT,
            track,
            (category, &name),
            flow,
            &arguments,
        );
        let received = format!("← {what}, from {sender}");
        self.sent
            .entry(to)
            .or_default()
            .push((self.flows, received));
    }

    fn received(&mut self, who: u32) {
        for (flow, name) in self.sent.remove(&who).unwrap_or_default() {
            self.now = self.now.saturating_add(1);
            let track = self.track(who, Track::Own);
            let flow = Some((field::EVENT_FLOW_END, flow));
            self.event(self.now, INSTANT, track, ("message", &name), flow, &[]);
        }
    }

    fn switch(&mut self, before: u32, after: u32) {
        if let Some(who) = self.running.take() {
            let track = self.track(who, Track::Own);
            self.end(track);
        } else if Endpoint(before).is_process() && self.events.is_empty() {
            // It ran when the trace began.
            let track = self.track(before, Track::Own);
            self.begin(track, "run", "runs", &[]);
            self.now = self.now.saturating_add(1);
            self.end(track);
        }
        if Endpoint(after).is_process() {
            self.exec_over(after);
            let track = self.track(after, Track::Own);
            self.begin(track, "run", "runs", &[]);
            self.running = Some(after);
            self.received(after);
        }
    }

    fn wait(&mut self, who: u32, why: &str) {
        if self.waits.insert(who) {
            let track = self.track(who, Track::Waits);
            self.begin(track, "wait", why, &[]);
        }
    }

    fn waited(&mut self, who: u32) {
        if self.waits.remove(&who) {
            let track = self.track(who, Track::Waits);
            self.end(track);
        }
    }

    /// A stage of an exec, if this request of `asker` to VM is one.
    fn stage(&mut self, asker: u32, kind: u64, record: &Record) {
        let words = &record.words;
        let (whom, name, argument) = match kind {
            ProcCtl::KIND => (words[3], "clear", None),
            VfsMmap::KIND => (words[2], "map file", Some(Number("inode", words[4]))),
            Mmap::KIND => (words[2], "map memory", Some(Address("address", words[3]))),
            Munmap::KIND => (words[2], "unmap", Some(Address("address", words[3]))),
            SetBreak::KIND => (words[2], "set break", Some(Address("start", words[3]))),
            Protect::KIND => (words[2], "protect", Some(Address("address", words[3]))),
            HandleMemory::KIND => (words[3], "make present", Some(Address("address", words[4]))),
            _ => return,
        };
        let whom = whom as u32;
        if whom == asker || !Endpoint(whom).is_process() {
            return;
        }
        let track = self.track(whom, Track::Exec);
        if kind == ProcCtl::KIND && !self.execs.contains_key(&whom) {
            let by = self.names.of(asker);
            self.begin(track, "exec", "exec", &[Text("by", by)]);
            self.execs.insert(whom, false);
        }
        self.stage_over();
        if let Some(under_way) = self.execs.get_mut(&whom) {
            *under_way = true;
            let arguments: Vec<Argument> = argument.into_iter().collect();
            self.begin(track, "exec", name, &arguments);
            self.stage = Some(asker);
        }
    }

    fn stage_over(&mut self) {
        let under_way = self.execs.iter_mut().filter(|(_, under_way)| **under_way);
        let over: Vec<u32> = under_way
            .map(|(&who, under_way)| {
                *under_way = false;
                who
            })
            .collect();
        for who in over {
            let track = self.track(who, Track::Exec);
            self.end(track);
        }
        self.stage = None;
    }

    /// The new program runs, or never will.
    fn exec_over(&mut self, who: u32) {
        if let Some(&under_way) = self.execs.get(&who) {
            if under_way {
                self.stage_over();
            }
            self.execs.remove(&who);
            let track = self.track(who, Track::Exec);
            self.end(track);
        }
    }

    fn finish(mut self) -> Vec<u8> {
        if let Some(who) = self.running.take() {
            self.now = self.now.saturating_add(1);
            let track = self.track(who, Track::Own);
            self.end(track);
        }
        let mut left: Vec<u32> = self.sent.keys().copied().collect();
        left.sort_unstable();
        for who in left {
            for (_, name) in self.sent.get_mut(&who).into_iter().flatten() {
                name.push_str(" (never received)");
            }
            self.received(who);
        }
        // Slices need their events in order; a gap is known only when it is over.
        self.events.sort_by_key(|(at, _)| *at);
        let mut trace = Message::default();
        let mut flags = Some(CLEARED);
        for (uuid, (name, parent)) in &self.tracks {
            trace.message(field::TRACE_PACKET, |packet| {
                packet.varint(field::PACKET_SEQUENCE, SEQUENCE);
                if let Some(flags) = flags.take() {
                    packet.varint(field::PACKET_FLAGS, flags);
                }
                packet.message(field::PACKET_TRACK, |track| {
                    track
                        .varint(field::TRACK_UUID, *uuid)
                        .bytes(field::TRACK_NAME, name.as_bytes());
                    if let Some(parent) = parent {
                        track.varint(field::TRACK_PARENT, *parent);
                    }
                });
            });
        }
        for (_, packet) in self.events {
            trace.bytes(field::TRACE_PACKET, &packet.into_bytes());
        }
        trace.into_bytes()
    }
}

#[cfg(test)]
mod tests;
