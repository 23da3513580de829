//! Trace records in words.

use std::collections::HashMap;

use abi::routes::{PM_CALLS, VFS_CALLS, VM_CALLS};
use abi::trace::{Kind, Record, Stage, Wanted};
use abi::{Class, Endpoint, Errno};

/// Processes' names, by endpoint.
#[derive(Clone, Debug, Default)]
pub struct Names(HashMap<u32, String>);

impl Names {
    /// Takes what a record tells, if it is a [`Kind::Process`].
    pub fn learn(&mut self, record: &Record) {
        if record.kind() == Some(Kind::Process) {
            self.0.insert(record.words[0] as u32, process_name(record));
        }
    }

    /// Sets a name that no record tells.
    pub fn set(&mut self, endpoint: u32, name: &str) {
        self.0.insert(endpoint, name.into());
    }

    /// The name, if it is known.
    pub fn get(&self, endpoint: u32) -> Option<&str> {
        self.0.get(&endpoint).map(String::as_str)
    }

    /// What to call it.
    pub fn of(&self, endpoint: u32) -> String {
        match Endpoint(endpoint) {
            Endpoint::NONE => "physical memory".into(),
            Endpoint::KERNEL => "the kernel".into(),
            who => self
                .get(endpoint)
                .map_or_else(|| format!("process {}", who.slot()), str::to_string),
        }
    }
}

/// The name in a [`Kind::Process`] record.
pub fn process_name(record: &Record) -> String {
    text(&record.words[2..4])
}

/// Zero-padded text in words.
pub fn text(words: &[u64]) -> String {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let len = bytes.iter().position(|&byte| byte == 0);
    let text = String::from_utf8_lossy(&bytes[..len.unwrap_or(bytes.len())]);
    let safe = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(safe).collect()
}

/// Class and kind (or status) of a message's record.
pub fn class_and_kind(record: &Record) -> (Option<Class>, u64) {
    let word = record.words[0];
    (Class::from_word(word & 0xff), word >> 8)
}

/// The Linux call that a message's record is: its number.
pub fn linux_call(record: &Record) -> Option<u64> {
    match (record.kind()?, class_and_kind(record)) {
        (Kind::Message | Kind::Request, (Some(Class::Linux), number)) => Some(number),
        _ => None,
    }
}

/// What a message asks for.
pub fn message(record: &Record) -> String {
    match class_and_kind(record) {
        (Some(Class::Linux), number) => call_name(number),
        (Some(Class::PageFault), _) => "page fault".into(),
        (Some(Class::Exception), _) => "exception".into(),
        (Some(Class::Notify), _) => "notification".into(),
        (Some(Class::Kernel), _) => "from the kernel".into(),
        (_, kind) => {
            abi::proto::name(kind).map_or_else(|| format!("message {kind:#x}"), str::to_string)
        }
    }
}

/// The Linux call of this number.
pub fn call_name(number: u64) -> String {
    let mut calls = [VFS_CALLS, PM_CALLS, VM_CALLS].into_iter().flatten();
    calls
        .find(|call| u64::from(call.number) == number)
        .map_or_else(|| format!("call {number}"), |call| call.name().to_string())
}

/// What a call was answered with.
pub fn answer(record: &Record) -> String {
    let (class, word) = class_and_kind(record);
    match class {
        // The status lost its highest byte on the way into the record.
        Some(Class::Linux) => {
            let status = (word << 8) as i64 >> 8;
            match i32::try_from(-status) {
                Ok(number @ 1..=4095) => {
                    let name = Errno(number).name();
                    name.map_or_else(|| format!("error {number}"), str::to_string)
                }
                _ => format!("{status}"),
            }
        }
        Some(Class::PageFault | Class::Exception) => match word {
            0 => "resumed".into(),
            status => format!("stopped ({status})"),
        },
        _ => "answered".into(),
    }
}

/// What is allocated, after the name of who does.
fn allocation(wanted: u64, bytes: u64) -> String {
    match Wanted::of(wanted) {
        Some(Wanted::Small) => format!("allocates {bytes} bytes"),
        Some(Wanted::Large) => format!("allocates {bytes} bytes of whole pages"),
        Some(Wanted::Reserve) => format!("fills its reserve up, which lacks {bytes} bytes"),
        Some(Wanted::Program) => format!("takes {bytes} bytes of frames for a program"),
        Some(Wanted::Service) => format!("takes {bytes} bytes of frames for a service"),
        None => format!("allocates {bytes} bytes for it is not known what"),
    }
}

/// What a record tells, in one sentence.
pub fn describe(record: &Record, names: &Names) -> String {
    let w = &record.words;
    let who = |endpoint: u64| names.of(endpoint as u32);
    let (first, second) = record.pair();
    let (one, other) = (names.of(first), names.of(second));
    match record.kind() {
        Some(Kind::Copy) => format!(
            "{} copies {} bytes from {one} at {:#x} to {other} at {:#x}",
            who(w[0]),
            w[4],
            w[2],
            w[3]
        ),
        Some(Kind::Fill) => {
            format!(
                "{} fills {} bytes of {other} at {:#x}",
                who(w[0]),
                w[4],
                w[3]
            )
        }
        Some(Kind::Fault) => {
            format!(
                "{} faults at {:#x} (instruction {:#x})",
                who(w[0]),
                w[2],
                w[4]
            )
        }
        Some(Kind::Grant) => format!(
            "{}'s copy reads grant {:#x} of {one} at {:#x}",
            who(w[0]),
            w[2],
            w[3]
        ),
        Some(Kind::Exec) => {
            let stage = Stage::of(w[2]).map_or("?", Stage::name);
            match w[4] {
                0 => format!("{}: {stage} in an exec of {one}", who(w[0])),
                len => format!(
                    "{}: {stage} of {len} bytes at {:#x} in an exec of {one}",
                    who(w[0]),
                    w[3]
                ),
            }
        }
        Some(Kind::Allocation) => format!("{} {}", who(w[0]), allocation(w[2], w[3])),
        Some(Kind::Serves) => format!("{} works for {one}", who(w[0])),
        Some(Kind::Message | Kind::Request) => {
            format!("{one} sends {} to {other}", message(record))
        }
        Some(Kind::Reply) => format!("{one} answers {other}: {}", answer(record)),
        Some(Kind::Absent) => format!("{}'s copy meets an absent page at {:#x}", who(w[0]), w[2]),
        Some(Kind::Switch) => format!("{other} runs"),
        Some(Kind::Decision) => format!("choice {} of {}: {one}", w[3], w[2]),
        Some(Kind::Process) => format!("{} is here", process_name(record)),
        Some(Kind::Exit) => format!("{} is gone", who(w[0])),
        Some(Kind::Resumed) => format!("{one} goes on"),
        Some(Kind::Idle) => format!("nobody runs for {} ns", w[2]),
        None => format!("unknown record {:#x}", record.what),
    }
}

#[cfg(test)]
mod tests {
    use abi::Request;

    use super::*;

    fn record(kind: Kind, first: u64) -> Record {
        Record {
            what: kind as u64,
            words: [first, 0, 0, 0, 0, 0],
            ..Record::default()
        }
    }

    #[test]
    fn messages_have_names() {
        let of =
            |class: Class, kind: u64| message(&record(Kind::Message, class as u64 | kind << 8));
        assert_eq!(of(Class::Linux, 0), "read");
        assert_eq!(of(Class::Linux, 9999), "call 9999");
        assert_eq!(of(Class::Post, abi::proto::vfs::PageIn::KIND), "PageIn");
        assert_eq!(of(Class::Call, 0x00de_ad00), "message 0xdead00");
        assert_eq!(linux_call(&record(Kind::Message, 6 | 3 << 8)), Some(3));
        assert_eq!(linux_call(&record(Kind::Reply, 6 | 3 << 8)), None);
    }

    #[test]
    fn answers_have_meaning() {
        let of = |class: Class, status: i64| {
            answer(&record(Kind::Reply, class as u64 | (status as u64) << 8))
        };
        assert_eq!(of(Class::Linux, 4096), "4096");
        assert_eq!(of(Class::Linux, -14), "EFAULT");
        assert_eq!(of(Class::PageFault, 0), "resumed");
    }

    #[test]
    fn names_are_told_by_records() {
        let mut names = Names::default();
        let mut told = record(Kind::Process, 40);
        told.words[2] = u64::from_le_bytes(*b"d1-read\0");
        names.learn(&told);
        assert_eq!(
            (names.of(40).as_str(), names.of(7).as_str()),
            ("d1-read", "process 7")
        );
        assert_eq!(names.of(Endpoint::NONE.0), "physical memory");
    }
}
