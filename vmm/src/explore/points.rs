//! What the points of a run are called, and which point a name means.

use std::collections::{BTreeMap, HashMap};

use abi::message::ANSWER;
use abi::proto::{device, disk, fs, vfs, vm};
use abi::senders::Mode;
use abi::trace::{Event, Message, NO_CALL, Record, Request, Sent, Serves, Serving};
use abi::{Class, Endpoint, Request as _};
use anyhow::{Result, bail};

use super::base::Base;
use super::filter::{actor_of, kind_of};
use super::row;
use super::run::{Stage, play};
use crate::inject::name::{About, PointName};
use crate::inject::plan::Token;
use crate::inject::{Place, Plan, point};
use crate::trace::words::{self, Names};

/// Names that an error lists.
const LISTED: usize = 8;

/// A point to explore.
#[derive(Clone, Debug)]
pub struct Spot {
    /// Its number.
    pub number: u64,
    /// Its place in the trace.
    pub at: usize,
    /// In words.
    pub point: row::Point,
}

/// What somebody does for whom.
#[derive(Clone, Debug, Default)]
struct Task {
    call: Option<String>,
    file: Option<String>,
}

/// A question that a server has not answered.
#[derive(Debug)]
struct Question {
    client: u32,
    /// Of a posted one.
    txn: Option<u64>,
    task: Task,
}

/// Follows a run and says what each point is about.
///
/// VFS says itself whom it serves. Any other server serves the oldest question that it has not
/// answered, and whoever that is for.
#[derive(Debug, Default)]
struct Follower {
    names: Names,
    /// What a server last said that it does.
    says: HashMap<u32, Task>,
    questions: HashMap<u32, Vec<Question>>,
    /// The Linux calls under way, by caller.
    calls: HashMap<u32, u64>,
    /// Names of files, by number.
    files: HashMap<u64, String>,
    /// For which file something was asked of VM, or VM asked: by asker and transaction.
    asked: HashMap<(u32, u64), Option<String>>,
}

impl Follower {
    /// Takes the next record; what it is about, if it is a point.
    fn take(&mut self, record: &Record) -> Option<About> {
        let event = record.event()?;
        match event {
            Event::Process(_) => self.names.learn(record),
            Event::Exit(exit) => self.forget(exit.who.0),
            Event::Serves(serves) => self.serves(&serves),
            _ => {}
        }
        let about = self.about(record, event);
        match event {
            Event::Message(Message { sent }) | Event::Request(Request { sent }) => {
                self.message(&sent);
            }
            Event::Reply(reply) => {
                let (server, client) = reply.sent.ends;
                self.calls.remove(&client.0);
                self.answered(server.0, client.0, None);
            }
            _ => {}
        }
        about
    }

    fn forget(&mut self, who: u32) {
        self.calls.remove(&who);
        self.says.remove(&who);
        self.questions.remove(&who);
        for questions in self.questions.values_mut() {
            questions.retain(|question| question.client != who);
        }
    }

    fn answered(&mut self, server: u32, client: u32, txn: Option<u64>) {
        if let Some(questions) = self.questions.get_mut(&server) {
            questions.retain(|question| (question.client, question.txn) != (client, txn));
        }
    }

    fn serves(&mut self, serves: &Serves) {
        let (_, call) = serves.client_and_call;
        let call = match u64::from(call) {
            _ if call == NO_CALL => None,
            number @ 0..0x1000 => Some(words::call_name(number)),
            kind => abi::proto::name(kind).map(str::to_string),
        };
        let name = words::text(&serves.name);
        let number = serves.file;
        if number != 0 && !name.is_empty() {
            self.files.insert(number, name.clone());
        }
        let known = self.files.get(&number).cloned();
        let file = Some(name).filter(|name| !name.is_empty()).or(known);
        self.says.insert(serves.server.0, Task { call, file });
    }

    fn message(&mut self, sent: &Sent) {
        let (from, to) = (sent.ends.0.0, sent.ends.1.0);
        let (class, kind) = (sent.head.class, sent.head.kind);
        let task = self.task_of(from);
        if let Some(number) = sent.linux_call() {
            self.calls.insert(from, number);
        }
        let txn = sent.transaction();
        let question = match class {
            Some(Class::Linux | Class::Call) => Some(None),
            Some(Class::Post | Class::Send) if asks(kind) && txn != 0 => Some(Some(txn)),
            _ => None,
        };
        if let Some(txn) = question {
            let task = match sent.linux_call() {
                Some(number) => Task {
                    call: Some(words::call_name(number)),
                    file: None,
                },
                None => task.clone(),
            };
            let client = from;
            let questions = self.questions.entry(to).or_default();
            questions.push(Question { client, txn, task });
        }
        match kind {
            _ if class != Some(Class::Post) => {}
            _ if kind & ANSWER != 0 => self.answered(from, to, Some(txn)),
            vm::HandleMemory::KIND => {
                self.asked.insert((from, txn), task.file);
            }
            vfs::PageIn::KIND => {
                let file = self.file_of(sent);
                self.asked.insert((from, txn), file);
            }
            _ => {}
        }
    }

    /// The file whose page VFS is asked for.
    fn file_of(&self, sent: &Sent) -> Option<String> {
        let asked: vfs::PageIn = sent.request()?;
        let file = Serving::file(asked.dev, asked.ino);
        self.files.get(&file).cloned()
    }

    /// What a process does, and for whom.
    fn task_of(&self, who: u32) -> Task {
        if let Some(task) = self.says.get(&who) {
            return task.clone();
        }
        let oldest = self.questions.get(&who).and_then(|all| all.first());
        let call = |&number: &u64| words::call_name(number);
        match oldest {
            Some(question) => question.task.clone(),
            None => Task {
                call: self.calls.get(&who).map(call),
                file: None,
            },
        }
    }

    fn about(&self, record: &Record, event: Event) -> Option<About> {
        let kind = kind_of(record)?;
        let actor = actor_of(record);
        let mut task = self.task_of(actor);
        match event {
            Event::Exec(step) => task.call = Some(step.stage.name().to_string()),
            Event::Fault(_) => task = Task::default(),
            Event::Request(Request { sent }) => {
                task.call = Some(words::message(&sent));
                let asked = match sent.head.kind {
                    vfs::PageIn::KIND => Some(self.file_of(&sent)),
                    vm::HandleMemory::ANSWER | vfs::PageIn::ANSWER => {
                        let question = (sent.ends.1.0, sent.transaction());
                        self.asked.get(&question).cloned()
                    }
                    _ => None,
                };
                task.file = asked.unwrap_or(task.file);
            }
            _ if task.call.is_none() => {
                // On behalf of the program whose memory it is.
                let ends = match event {
                    Event::Copy(copy) => [copy.ends.0, copy.ends.1],
                    Event::Fill(fill) => [fill.ends.0, fill.ends.1],
                    Event::Grant(grant) => [grant.granter, grant.granter],
                    _ => [Endpoint::NONE; 2],
                };
                let call = ends.iter().find_map(|end| self.calls.get(&end.0));
                task.call = call.map(|&number| words::call_name(number));
            }
            _ => {}
        }
        Some(About {
            kind,
            actor: self.names.of(actor),
            call: task.call,
            file: task.file,
        })
    }
}

/// Whether a posted message of this kind asks a file system or a driver something.
fn asks(kind: u64) -> bool {
    let files = matches!(abi::proto::base(kind), fs::BASE | device::BASE | disk::BASE);
    files && abi::proto::mode(kind) == Some(Mode::Ask)
}

/// A point with what is known of it.
#[derive(Clone, Debug)]
pub struct Known {
    /// Its place in the trace.
    pub at: usize,
    /// Its number.
    pub number: u64,
    /// What it is about.
    pub about: About,
    /// Which it is of those that are about the same, from 1.
    pub ordinal: u64,
}

impl Known {
    /// Its name.
    pub fn name(&self) -> PointName {
        PointName::of(&self.about, self.ordinal)
    }
}

/// All points of a trace from number `first` on.
pub fn known(records: &[Record], first: u64) -> Vec<Known> {
    let mut follower = Follower::default();
    let mut counts: HashMap<About, u64> = HashMap::new();
    let mut all = Vec::new();
    for (at, record) in records.iter().enumerate() {
        let about = follower.take(record);
        let Some(about) = about.filter(|_| record.number() >= first) else {
            continue;
        };
        let count = counts.entry(about.clone()).or_default();
        *count += 1;
        all.push(Known {
            at,
            number: record.number(),
            ordinal: *count,
            about,
        });
    }
    all
}

/// The number of the point that a name means.
pub fn find(known: &[Known], name: &PointName) -> Result<u64> {
    let matching: Vec<&Known> = known.iter().filter(|k| name.matches(&k.about)).collect();
    let count = matching.len();
    match name.ordinal {
        None if count == 1 => return Ok(matching[0].number),
        None if count > 1 => bail!(
            "{name} is any of {count} points: give the ordinal, 1 to {count}, or one of these names:\n{}",
            listed(matching)
        ),
        Some(ordinal) => {
            let index = usize::try_from(ordinal - 1).unwrap_or(usize::MAX);
            if let Some(point) = matching.get(index) {
                return Ok(point.number);
            }
            if count > 0 {
                bail!(
                    "{name}: the run has {count} such points:\n{}",
                    listed(matching)
                );
            }
        }
        None => {}
    }
    let most = known.iter().map(|k| name.agreement(&k.about)).max();
    let near = known
        .iter()
        .filter(|k| Some(name.agreement(&k.about)) == most);
    bail!(
        "the run has no point {name}; the nearest are\n{}",
        listed(near.collect())
    )
}

/// Names, those that differ in nothing but the ordinal on one line.
fn listed(points: Vec<&Known>) -> String {
    let mut groups: BTreeMap<&About, (u64, u64)> = BTreeMap::new();
    for point in points {
        let group = groups.entry(&point.about).or_insert((point.ordinal, 0));
        group.1 = point.ordinal;
    }
    let mut lines: Vec<String> = groups
        .iter()
        .take(LISTED)
        .map(|(about, &(from, to))| match PointName::of(about, from) {
            name if from == to => format!("  {name}"),
            name => format!("  {name} to {to}"),
        })
        .collect();
    if groups.len() > LISTED {
        lines.push(format!("  and {} more", groups.len() - LISTED));
    }
    lines.join("\n")
}

/// The plan with numbers for names. Names are looked up one after the other, each in the run with
/// the faults before it: the first one in the run without a fault.
pub fn resolve(stage: &Stage<'_>, token: &Token) -> Result<Plan> {
    let mut plan = Plan::plain(&token.scenario, token.policy);
    plan.schedule = token.schedule.clone();
    let mut budget = u64::MAX;
    for fault in &token.faults {
        let number = match &fault.point {
            Place::Number(number) => *number,
            Place::Name(name) => {
                let played = play(stage, &plan, budget, false)?;
                let known = known(played.player.records(), played.start);
                if plan.faults.is_empty() {
                    budget = super::base::budget(known.last().map_or(0, |last| last.number + 1));
                }
                find(&known, name)?
            }
        };
        plan = plan.with(&[fault.at(number)]);
    }
    Ok(plan)
}

/// These points, one a line: number, name, and the memory of its sides.
pub fn list(base: &Base, spots: &[Spot]) -> String {
    let names = super::told::names(&base.records);
    let mut text = String::new();
    for spot in spots {
        let (record, before) = (&base.records[spot.at], &base.records[..spot.at]);
        let kinds = record.kind().map_or(&[][..], point::sides);
        let sides = kinds.iter().filter_map(|&side| {
            let range = point::range(record, side, before)?;
            let (letter, who) = (char::from(side.letter()), names.of(range.who.0));
            let last = match range.pages() - 1 {
                0 => String::new(),
                last => format!("-{letter}{last}"),
            };
            let (address, len) = (range.address, range.len);
            Some(format!("{letter}0{last} {who} {address:#x}+{len}"))
        });
        let sides: Vec<String> = sides.collect();
        let (number, name) = (spot.number, &spot.point.name);
        let line = format!("{number:>6}  {name:<44}  {}", sides.join(", "));
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// Whether an endpoint is a program's in this trace.
pub fn programs(records: &[Record]) -> impl Fn(Endpoint) -> bool + use<> {
    let mut programs = std::collections::HashSet::new();
    for record in records {
        if let Some(Event::Process(process)) = record.event()
            && process.linux
        {
            programs.insert(process.who.0);
        }
    }
    move |who| programs.contains(&who.0)
}

#[cfg(test)]
mod tests {
    use abi::trace::{Kind, Stage as Step, pair};

    use super::super::row::PointKind;
    use super::*;

    const PROGRAM: u32 = 40;
    const VFS: u32 = Endpoint::VFS.0;
    const VM: u32 = Endpoint::VM.0;
    const FS: u32 = 9;

    /// A trace being written; points are numbered.
    #[derive(Default)]
    struct Trace(Vec<Record>, u64);

    impl Trace {
        fn add(&mut self, kind: Kind, words: [u64; 6]) {
            let number = if kind.is_point() { self.1 } else { 0 };
            self.1 += u64::from(kind.is_point());
            self.0.push(Record {
                time: 0,
                what: kind as u64 | number << 8,
                words,
            });
        }

        fn named(&mut self, who: u32, name: &[u8; 8]) {
            let name = u64::from_le_bytes(*name);
            let words = [who.into(), pair(who, 0), name, 0, 0, 0];
            self.add(Kind::Process, words);
        }

        fn serves(&mut self, client: u32, call: u32, file: u64, name: &[u8; 8]) {
            let name = u64::from_le_bytes(*name);
            let words = [VFS.into(), pair(client, call), file, name, 0, 0];
            self.add(Kind::Serves, words);
        }

        fn message(&mut self, kind: Kind, class: Class, what: u64, ends: (u32, u32), txn: u64) {
            let ends = pair(ends.0, ends.1);
            self.add(kind, [class as u64 | what << 8, ends, txn, 0, 0, 0]);
        }

        fn copy(&mut self, who: u32) {
            let words = [who.into(), pair(who, PROGRAM), 0x1000, 0x2000, 8, 1];
            self.add(Kind::Copy, words);
        }

        fn names(&self) -> Vec<String> {
            let all = known(&self.0, 0).into_iter();
            all.map(|known| known.name().to_string()).collect()
        }
    }

    fn trace() -> Trace {
        let mut trace = Trace::default();
        trace.named(VFS, b"vfs\0\0\0\0\0");
        trace.named(VM, b"vm\0\0\0\0\0\0");
        trace.named(FS, b"ext2\0\0\0\0");
        trace.named(PROGRAM, b"cat\0\0\0\0\0");
        let read = libc::SYS_read as u64;
        trace.message(Kind::Message, Class::Linux, read, (PROGRAM, VFS), 3);
        trace
    }

    #[test]
    fn a_file_system_works_for_whom_it_was_asked() {
        let mut trace = trace();
        let read = libc::SYS_read as u32;
        trace.serves(PROGRAM, read, Serving::file(1, 12), b"data\0\0\0\0");
        trace.message(Kind::Message, Class::Post, fs::Read::KIND, (VFS, FS), 7);
        // Meanwhile VFS does something else.
        trace.serves(VM, vfs::PageIn::KIND as u32, Serving::file(1, 12), &[0; 8]);
        trace.message(Kind::Message, Class::Post, fs::Peek::KIND, (VFS, FS), 8);
        trace.copy(VFS);
        trace.copy(FS);
        trace.message(Kind::Message, Class::Post, fs::Read::ANSWER, (FS, VFS), 7);
        trace.copy(FS);
        trace.message(Kind::Message, Class::Post, fs::Read::ANSWER, (FS, VFS), 8);
        trace.add(
            Kind::Serves,
            [VFS.into(), pair(Endpoint::NONE.0, NO_CALL), 0, 0, 0, 0],
        );
        trace.copy(FS);
        assert_eq!(
            trace.names(),
            [
                "copy/vfs/PageIn/data/1",
                "copy/ext2/read/data/1",
                "copy/ext2/PageIn/data/1",
                // Of nobody in particular, but into a program that reads.
                "copy/ext2/read/-/1",
            ]
        );
    }

    #[test]
    fn requests_and_answers_are_of_the_same_file() {
        let mut trace = trace();
        let read = libc::SYS_read as u32;
        trace.serves(PROGRAM, read, Serving::file(1, 12), b"data\0\0\0\0");
        let ask = vm::HandleMemory::KIND;
        trace.message(Kind::Request, Class::Post, ask, (VFS, VM), 7);
        trace.serves(PROGRAM, read, Serving::file(1, 13), b"b\0\0\0\0\0\0\0");
        let handled = vm::HandleMemory::ANSWER;
        trace.message(Kind::Request, Class::Post, handled, (VM, VFS), 7);
        trace.message(Kind::Request, Class::Post, handled, (VM, VFS), 8);
        let clear = Step::Clear as u64;
        let exec = [VFS.into(), pair(PROGRAM, 0), clear, 0, 0, 0];
        trace.add(Kind::Exec, exec);
        trace.add(Kind::Fault, [PROGRAM.into(), 0, 0x1000, 0, 0x2000, 0]);
        assert_eq!(
            trace.names(),
            [
                "request/vfs/HandleMemory/data/1",
                "request/vm/HandleMemoryDone/data/1",
                "request/vm/HandleMemoryDone/-/1",
                "exec/vfs/clear/b/1",
                "fault/cat/-/-/1",
            ]
        );
    }

    #[test]
    fn names_are_found_or_those_near_are_told() {
        let mut trace = trace();
        for _ in 0..3 {
            trace.copy(VFS);
        }
        trace.copy(FS);
        let known = known(&trace.0, 1);
        let find = |name: &str| {
            let found = find(&known, &name.parse().unwrap());
            found.map_err(|error| error.to_string())
        };
        // The first one lies before the program's start.
        assert_eq!(find("copy/vfs/read//2"), Ok(2));
        assert_eq!(find("//read//3"), Ok(3));
        assert_eq!(find("/ext2///"), Ok(3));
        for (name, what) in [
            ("copy/vfs///", "any of 2"),
            ("copy/vfs///3", "copy/vfs/read/-/1 to 2"),
            ("fill/ext2/read//", "copy/ext2/read/-/1"),
        ] {
            let error = find(name).unwrap_err();
            assert!(error.contains(what), "{name}: {error}");
        }
        assert_eq!(known[0].about.kind, PointKind::Copy);
    }
}
