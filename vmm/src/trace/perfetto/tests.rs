use abi::trace::{Kind, pair};

use super::super::proto::tests::{Value, decode};
use super::*;

/// An event as a reader sees it. The numbers are those of Perfetto's .proto files, once more.
#[derive(Debug, Default)]
struct Event {
    at: u64,
    kind: u64,
    track: u64,
    name: String,
    category: String,
    flows: Vec<u64>,
    ends: Vec<u64>,
    arguments: Vec<(String, Value)>,
}

#[derive(Debug, Default)]
struct Decoded {
    /// Name and parent by uuid.
    tracks: HashMap<u64, (String, Option<u64>)>,
    events: Vec<Event>,
}

fn text(value: Value) -> String {
    match value {
        Value::Bytes(bytes) => String::from_utf8(bytes).expect("UTF-8"),
        other => panic!("{other:?} instead of a text"),
    }
}

fn number(value: Value) -> u64 {
    match value {
        Value::Number(number) => number,
        other => panic!("{other:?} instead of a number"),
    }
}

fn inner(value: Value) -> Vec<(u64, Value)> {
    match value {
        Value::Bytes(bytes) => decode(&bytes),
        other => panic!("{other:?} instead of a message"),
    }
}

fn read(bytes: &[u8]) -> Decoded {
    let mut decoded = Decoded::default();
    for (i, (field, packet)) in decode(bytes).into_iter().enumerate() {
        assert_eq!(field, 1, "a trace is packets");
        let mut event = Event::default();
        let (mut is_event, mut sequence, mut flags) = (false, 0, 0);
        for (field, value) in inner(packet) {
            match field {
                8 => event.at = number(value),
                10 => sequence = number(value),
                13 => flags = number(value),
                11 => {
                    is_event = true;
                    for (field, value) in inner(value) {
                        match field {
                            9 => event.kind = number(value),
                            11 => event.track = number(value),
                            22 => event.category = text(value),
                            23 => event.name = text(value),
                            47 => event.flows.push(number(value)),
                            48 => event.ends.push(number(value)),
                            4 => {
                                let mut fields = inner(value);
                                let (argument, name) =
                                    (fields.pop().unwrap(), fields.pop().unwrap());
                                assert_eq!(name.0, 10);
                                assert!([3, 6, 7].contains(&argument.0));
                                event.arguments.push((text(name.1), argument.1));
                            }
                            other => panic!("field {other} of an event"),
                        }
                    }
                }
                60 => {
                    let fields: HashMap<u64, Value> = inner(value).into_iter().collect();
                    let uuid = number(fields[&1].clone());
                    let parent = fields.get(&5).cloned().map(number);
                    decoded
                        .tracks
                        .insert(uuid, (text(fields[&2].clone()), parent));
                }
                other => panic!("field {other} of a packet"),
            }
        }
        assert_eq!(sequence, 1);
        assert_eq!(flags, u64::from(i == 0));
        if is_event {
            decoded.events.push(event);
        }
    }
    decoded
}

impl Decoded {
    fn track(&self, event: &Event) -> String {
        let (name, parent) = &self.tracks[&event.track];
        match parent {
            Some(parent) => format!("{}/{name}", self.tracks[parent].0),
            None => name.clone(),
        }
    }

    fn named(&self, name: &str) -> &Event {
        let found = self.events.iter().find(|event| event.name == name);
        found.unwrap_or_else(|| panic!("no event {name:?} in {:#?}", self.events))
    }

    /// Slices of each track nest, and time does not go backwards. The names of those that
    /// are open at the end.
    fn check(&self) -> Vec<String> {
        let mut open: HashMap<u64, Vec<String>> = HashMap::new();
        let mut last = 0;
        for event in &self.events {
            assert!(event.at >= last, "{event:?}");
            last = event.at;
            let slices = open.entry(event.track).or_default();
            match event.kind {
                1 => slices.push(event.name.clone()),
                2 => drop(
                    slices
                        .pop()
                        .unwrap_or_else(|| panic!("{event:?} ends nothing")),
                ),
                3 => {}
                other => panic!("type {other}"),
            }
            assert!(
                self.tracks.contains_key(&event.track),
                "{event:?} without a track"
            );
        }
        let mut left: Vec<String> = open.into_values().flatten().collect();
        left.sort();
        left
    }
}

const VM: u32 = Endpoint::VM.0;
const VFS: u32 = Endpoint::VFS.0;
const FS: u32 = 9;
const USER: u32 = 40;

fn record(time: u64, kind: Kind, words: [u64; 6]) -> Record {
    Record {
        time,
        what: kind as u64 | 5 << 8,
        words,
    }
}

fn named(endpoint: u32, name: &[u8; 8]) -> Record {
    record(
        0,
        Kind::Process,
        [
            endpoint.into(),
            pair(endpoint, 0),
            u64::from_le_bytes(*name),
            0,
            0,
            0,
        ],
    )
}

fn told(
    time: u64,
    kind: Kind,
    class: Class,
    what: u64,
    from: u32,
    to: u32,
    words: [u64; 4],
) -> Record {
    let [a, b, c, d] = words;
    record(
        time,
        kind,
        [class as u64 | what << 8, pair(from, to), a, b, c, d],
    )
}

fn switch(time: u64, before: u32, after: u32) -> Record {
    record(time, Kind::Switch, [0, pair(before, after), 0, 0, 0, 0])
}

fn names() -> Vec<Record> {
    vec![
        named(VM, b"vm\0\0\0\0\0\0"),
        named(VFS, b"vfs\0\0\0\0\0"),
        named(FS, b"ext2\0\0\0\0"),
        named(USER, b"d1-read\0"),
    ]
}

/// A read whose copy meets an absent page and parks the file system for ever.
fn deadlock() -> Vec<Record> {
    let mut records = names();
    records.extend([
        switch(100, Endpoint::NONE.0, USER),
        told(
            150,
            Kind::Message,
            Class::Linux,
            0,
            USER,
            VFS,
            [3, 0x5000, 4096, 0],
        ),
        switch(160, USER, VFS),
        told(
            160,
            Kind::Message,
            Class::Post,
            abi::proto::fs::Peek::KIND,
            VFS,
            FS,
            [1, 12, 0, 0],
        ),
        switch(170, VFS, FS),
        record(
            180,
            Kind::Copy,
            [FS.into(), pair(FS, USER), 0x9000, 0x5000, 4096, 1],
        ),
        record(
            181,
            Kind::Absent,
            [FS.into(), pair(USER, 0), 0x5000, 0, 1, 2],
        ),
        told(
            182,
            Kind::Request,
            Class::Post,
            abi::proto::vfs::PageIn::KIND,
            VM,
            VFS,
            [1, 2, 3, 4],
        ),
        record(1182, Kind::Idle, [0, 0, 1000, 0, 0, 0]),
    ]);
    records
}

#[test]
fn a_deadlock_is_a_wait_without_end() {
    let decoded = read(&encode(&deadlock(), &Names::default()));
    let open = decoded.check();
    assert_eq!(open, ["parked: a page of d1-read", "read, of vfs"]);
    let copy = decoded.named("copies 4096 bytes: ext2 to d1-read");
    assert_eq!(decoded.track(copy), "ext2");
    assert!(
        copy.arguments
            .contains(&("target address".into(), Value::Number(0x5000)))
    );
    assert!(copy.arguments.contains(&("point".into(), Value::Number(5))));
    let absent = decoded.named("absent page of d1-read: the copier is parked");
    assert_eq!(absent.category, "absence");
    assert!(
        absent
            .arguments
            .contains(&("side".into(), Value::Bytes(b"target".to_vec())))
    );
    let idle = decoded.named("time passes");
    assert_eq!(decoded.track(idle), "nobody can run");
    let ends = decoded
        .events
        .iter()
        .find(|event| event.track == idle.track && event.kind == 2);
    assert_eq!(ends.unwrap().at - idle.at, 1000);
    assert_eq!(
        decoded.track(decoded.named("read, of vfs")),
        "d1-read/waits"
    );
}

#[test]
fn arrows_go_from_sender_to_receiver() {
    let decoded = read(&encode(&deadlock(), &Names::default()));
    for (sent, from, received, to) in [
        ("→ read", "d1-read", "← read, from d1-read", "vfs"),
        ("→ Peek", "vfs", "← Peek, from vfs", "ext2"),
        (
            "→ PageIn",
            "vm",
            "← PageIn, from vm (never received)",
            "vfs",
        ),
    ] {
        let (sent, received) = (decoded.named(sent), decoded.named(received));
        assert_eq!(decoded.track(sent), from);
        assert_eq!(decoded.track(received), to);
        assert_eq!(sent.flows, received.ends);
        assert!(sent.at < received.at);
    }
    let mut flows: Vec<u64> = decoded
        .events
        .iter()
        .flat_map(|e| e.flows.clone())
        .collect();
    flows.sort_unstable();
    flows.dedup();
    assert_eq!(flows.len(), 3);
}

#[test]
fn an_exec_has_stages() {
    let mut records = names();
    let ask = |time, kind, words| told(time, Kind::Request, Class::Call, kind, VFS, VM, words);
    let done = |time| told(time, Kind::Reply, Class::Call, 0, VM, VFS, [0; 4]);
    let user = u64::from(USER);
    records.extend([
        switch(10, USER, VFS),
        // Before the exec: not a stage of one.
        ask(11, Mmap::KIND, [user, 0x1000, 0x1000, 3]),
        done(12),
        ask(
            20,
            ProcCtl::KIND,
            [abi::proto::vm::PROCCTL_CLEAR, user, 0, 0],
        ),
        done(22),
        ask(30, VfsMmap::KIND, [user, 1, 77, 0]),
        done(35),
        ask(40, SetBreak::KIND, [user, 0x7000, 0, 0]),
        done(41),
        switch(50, VFS, USER),
        record(60, Kind::Exit, [user, 0, 0, 0, 0, 0]),
    ]);
    let decoded = read(&encode(&records, &Names::default()));
    assert_eq!(decoded.check(), [""; 0]);
    let stages: Vec<&str> = decoded
        .events
        .iter()
        .filter(|event| event.category == "exec")
        .map(|event| event.name.as_str())
        .collect();
    assert_eq!(stages, ["exec", "clear", "map file", "set break"]);
    let map = decoded.named("map file");
    assert_eq!(decoded.track(map), "d1-read/exec");
    assert!(map.arguments.contains(&("inode".into(), Value::Number(77))));
}

#[test]
fn any_records_make_a_file() {
    // What a guest writes is the guest's word.
    let mut records = Vec::new();
    for i in 0..5000 {
        let random = |index| abi::trace::random(7, i * 16 + index);
        let words = std::array::from_fn(|w| random(w as u64) >> (random(9) % 64));
        let what = (random(10) % 16) | ((random(11) >> 40) << 8);
        records.push(Record {
            time: random(12) >> 30,
            what,
            words,
        });
    }
    read(&encode(&records, &Names::default()));
    assert!(encode(&[], &Names::default()).is_empty());
}
