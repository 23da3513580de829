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
use abi::trace::{Absent, Decision, Event, Message, Record, Reply, Request, Sent, Then};
use abi::{Class, Endpoint, Request as _};
use anyhow::{Context, Result};

use super::proto;
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

fn may_fail(may: bool) -> Argument {
    Text("may fail", if may { "yes" } else { "no" }.into())
}

/// Whose exec a request to VM belongs to, if it is to one's own memory or another's; the stage's name, and what to say of it.
fn stage_of(sent: &Sent) -> Option<(Endpoint, &'static str, Option<Argument>)> {
    Some(match sent.head.kind {
        ProcCtl::KIND => (sent.request::<ProcCtl>()?.who, "clear", None),
        VfsMmap::KIND => {
            let asked: VfsMmap = sent.request()?;
            (asked.target, "map file", Some(Number("inode", asked.ino)))
        }
        Mmap::KIND => {
            let asked: Mmap = sent.request()?;
            (
                asked.target,
                "map memory",
                Some(Address("address", asked.addr)),
            )
        }
        Munmap::KIND => {
            let asked: Munmap = sent.request()?;
            (asked.target, "unmap", Some(Address("address", asked.addr)))
        }
        SetBreak::KIND => {
            let asked: SetBreak = sent.request()?;
            (asked.who, "set break", Some(Address("start", asked.start)))
        }
        Protect::KIND => {
            let asked: Protect = sent.request()?;
            (
                asked.target,
                "protect",
                Some(Address("address", asked.addr)),
            )
        }
        HandleMemory::KIND => {
            let asked: HandleMemory = sent.request()?;
            (
                asked.who,
                "make present",
                Some(Address("address", asked.addr)),
            )
        }
        _ => return None,
    })
}

#[derive(Default)]
struct Drawing {
    names: Names,
    events: Vec<(u64, proto::Message)>,
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
        let mut packet = proto::Message::default();
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
        let point = Number("point", record.number());
        let Some(event) = record.event() else {
            return;
        };
        match event {
            Event::Copy(copy) => {
                let (from, to) = (self.of(copy.ends.0), self.of(copy.ends.1));
                let name = format!("copies {} bytes: {from} to {to}", copy.len);
                let arguments = [
                    Text("target", to),
                    Address("target address", copy.target),
                    Text("source", from),
                    Address("source address", copy.source),
                    Number("bytes", copy.len),
                    may_fail(copy.may_fail),
                    point,
                ];
                self.instant(copy.copier.0, "copy", &name, &arguments);
            }
            Event::Fill(fill) => {
                let to = self.of(fill.ends.1);
                let name = format!("fills {} bytes of {to}", fill.len);
                let arguments = [
                    Text("target", to),
                    Address("target address", fill.target),
                    Number("bytes", fill.len),
                    may_fail(fill.may_fail),
                    point,
                ];
                self.instant(fill.filler.0, "copy", &name, &arguments);
            }
            Event::Absent(absent) => self.absent(&absent, point),
            Event::Fault(fault) => {
                let arguments = [
                    Address("address", fault.address),
                    Number("error code", fault.code),
                    Address("instruction", fault.rip),
                    point,
                ];
                self.instant(fault.who.0, "fault", "page fault", &arguments);
                self.wait(fault.who.0, "page fault");
            }
            Event::Message(Message { sent }) => self.message(&sent, None),
            Event::Request(Request { sent }) => self.message(&sent, Some(point)),
            Event::Reply(Reply { sent }) => {
                let (server, client) = (sent.ends.0, sent.ends.1.0);
                self.send(&sent, &words::answer(&sent), "answer", None);
                self.waited(client);
                if self.stage == Some(client) && server == Endpoint::VM {
                    self.stage_over();
                }
            }
            Event::Switch(switch) => self.switch(switch.ends.0.0, switch.ends.1.0),
            Event::Choice(made) => {
                let what = match made.about {
                    Decision::Process => "which process runs",
                    Decision::Message => "which message is received",
                    Decision::Task => "which task goes on",
                };
                let arguments = [
                    Number("choices", made.choices),
                    Number("choice", made.choice),
                    Number("decision", record.number()),
                ];
                self.instant(made.chosen.0, "decision", what, &arguments);
            }
            Event::Exit(exit) => {
                self.waited(exit.who.0);
                self.exec_over(exit.who.0);
                self.instant(exit.who.0, "process", "gone", &[]);
            }
            Event::Resumed(resumed) => {
                let arguments = [
                    Text("copier", self.of(resumed.copier)),
                    Number("status", resumed.status),
                ];
                let name = "lets a parked copier go on";
                self.instant(resumed.by.0, "absence", name, &arguments);
                self.waited(resumed.copier.0);
            }
            Event::Idle(idle) => {
                let since = self.now.saturating_sub(idle.ns);
                self.tracks
                    .entry(IDLE)
                    .or_insert(("nobody can run".into(), None));
                self.event(since, BEGIN, IDLE, ("idle", "time passes"), None, &[]);
                self.end(IDLE);
            }
            Event::Grant(grant) => {
                let name = format!("reads a grant of {}", self.of(grant.granter));
                let arguments = [
                    Number("grant", u64::from(grant.id)),
                    Address("entry", grant.entry),
                    point,
                ];
                self.instant(grant.user.0, "copy", &name, &arguments);
            }
            Event::Exec(step) => {
                let name = format!("{}, exec of {}", step.stage.name(), self.of(step.target));
                let arguments = [
                    Address("address", step.address),
                    Number("bytes", step.len),
                    point,
                ];
                self.instant(step.who.0, "exec", &name, &arguments);
            }
            // Too many to be seen, and nothing comes of them.
            Event::Process(_) | Event::Serves(_) | Event::Allocation(_) => {}
        }
    }

    fn of(&self, who: Endpoint) -> String {
        self.names.of(who.0)
    }

    fn absent(&mut self, absent: &Absent, point: Argument) {
        let then = match absent.then {
            Then::Fails => "the copy fails",
            Then::Marks => "the copy fails and marks its grant",
            Then::Parks => "the copier is parked",
        };
        let whose = self.of(absent.whose);
        let name = format!("absent page of {whose}: {then}");
        let side = if absent.in_target { "target" } else { "source" };
        let arguments = [
            Address("address", absent.address),
            Number("bytes done", absent.done),
            Text("side", side.into()),
            point,
        ];
        let copier = absent.copier.0;
        self.instant(copier, "absence", &name, &arguments);
        if absent.then == Then::Parks {
            self.wait(copier, &format!("parked: a page of {whose}"));
        }
    }

    fn message(&mut self, sent: &Sent, point: Option<Argument>) {
        let what = words::message(sent);
        self.send(sent, &what, "message", point);
        let (from, to) = sent.ends;
        if sent.head.class.is_some_and(Class::wants_reply) {
            let server = self.of(to);
            self.wait(from.0, &format!("{what}, of {server}"));
        }
        if to == Endpoint::VM && sent.head.class == Some(Class::Call) {
            self.stage(from.0, sent);
        }
    }

    /// An arrow to the next time the receiver runs.
    fn send(&mut self, sent: &Sent, what: &str, category: &str, point: Option<Argument>) {
        self.flows += 1;
        let (from, to) = sent.ends;
        let (sender, receiver) = (self.of(from), self.of(to));
        let [first, second, third, fourth] = sent.words;
        let mut arguments = vec![
            Text("to", receiver),
            Number("word 0", first),
            Number("word 1", second),
            Number("word 2", third),
            Number("word 3", fourth),
        ];
        arguments.extend(point);
        let name = format!("→ {what}");
        let flow = Some((field::EVENT_FLOW, self.flows));
        let track = self.track(from.0, Track::Own);
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
            .entry(to.0)
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
    fn stage(&mut self, asker: u32, sent: &Sent) {
        let Some((whom, name, argument)) = stage_of(sent) else {
            return;
        };
        if whom.0 == asker || !whom.is_process() {
            return;
        }
        let whom = whom.0;
        let track = self.track(whom, Track::Exec);
        if sent.head.kind == ProcCtl::KIND && !self.execs.contains_key(&whom) {
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
        let mut trace = proto::Message::default();
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
