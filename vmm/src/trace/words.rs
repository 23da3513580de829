//! Trace records in words.

use std::collections::HashMap;

use abi::routes::{PM_CALLS, VFS_CALLS, VM_CALLS};
use abi::trace::{self, Event, Kind, Record, Sent, Wanted};
use abi::{Class, Endpoint, Errno};

/// Processes' names, by endpoint.
#[derive(Clone, Debug, Default)]
pub struct Names(HashMap<u32, String>);

impl Names {
    /// Takes what a record tells, if it is a [`Kind::Process`].
    pub fn learn(&mut self, record: &Record) {
        if record.kind() == Some(Kind::Process)
            && let Some(Event::Process(process)) = record.event()
        {
            self.0.insert(process.who.0, text(&process.name));
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

/// Zero-padded text.
pub fn text(bytes: &[u8]) -> String {
    let len = bytes.iter().position(|&byte| byte == 0);
    let text = String::from_utf8_lossy(&bytes[..len.unwrap_or(bytes.len())]);
    let safe = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(safe).collect()
}

/// What a message asks for.
pub fn message(sent: &Sent) -> String {
    match (sent.head.class, sent.head.kind) {
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
pub fn answer(sent: &Sent) -> String {
    let word = sent.head.kind;
    match sent.head.class {
        Some(Class::Linux) => {
            // It lost its highest byte on the way into the record.
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
fn allocation(wanted: Wanted, bytes: u64) -> String {
    match wanted {
        Wanted::Small => format!("allocates {bytes} bytes"),
        Wanted::Large => format!("allocates {bytes} bytes of whole pages"),
        Wanted::Reserve => format!("fills its reserve up, which lacks {bytes} bytes"),
        Wanted::Program => format!("takes {bytes} bytes of frames for a program"),
        Wanted::Service => format!("takes {bytes} bytes of frames for a service"),
    }
}

/// What a record tells, in one sentence.
pub fn describe(record: &Record, names: &Names) -> String {
    let of = |who: Endpoint| names.of(who.0);
    let Some(event) = record.event() else {
        return format!("unknown record {:#x}", record.what);
    };
    match event {
        Event::Copy(copy) => format!(
            "{} copies {} bytes from {} at {:#x} to {} at {:#x}",
            of(copy.copier),
            copy.len,
            of(copy.ends.0),
            copy.source,
            of(copy.ends.1),
            copy.target
        ),
        Event::Fill(fill) => format!(
            "{} fills {} bytes of {} at {:#x}",
            of(fill.filler),
            fill.len,
            of(fill.ends.1),
            fill.target
        ),
        Event::Fault(fault) => format!(
            "{} faults at {:#x} (instruction {:#x})",
            of(fault.who),
            fault.address,
            fault.rip
        ),
        Event::Grant(grant) => format!(
            "{}'s copy reads grant {:#x} of {} at {:#x}",
            of(grant.user),
            grant.id,
            of(grant.granter),
            grant.entry
        ),
        Event::Exec(step) => {
            let (who, stage, target) = (of(step.who), step.stage.name(), of(step.target));
            match step.len {
                0 => format!("{who}: {stage} in an exec of {target}"),
                len => format!(
                    "{who}: {stage} of {len} bytes at {:#x} in an exec of {target}",
                    step.address
                ),
            }
        }
        Event::Allocation(it) => format!("{} {}", of(it.who), allocation(it.wanted, it.len)),
        Event::Serves(it) => {
            let client = names.of(it.client_and_call.0);
            format!("{} works for {client}", of(it.server))
        }
        Event::Message(trace::Message { sent }) | Event::Request(trace::Request { sent }) => {
            let (from, to) = (of(sent.ends.0), of(sent.ends.1));
            format!("{from} sends {} to {to}", message(&sent))
        }
        Event::Reply(trace::Reply { sent }) => {
            let (from, to) = (of(sent.ends.0), of(sent.ends.1));
            format!("{from} answers {to}: {}", answer(&sent))
        }
        Event::Absent(absent) => format!(
            "{}'s copy meets an absent page at {:#x}",
            of(absent.copier),
            absent.address
        ),
        Event::Switch(switch) => format!("{} runs", of(switch.ends.1)),
        Event::Choice(it) => {
            format!("choice {} of {}: {}", it.choice, it.choices, of(it.chosen))
        }
        Event::Process(process) => format!("{} is here", text(&process.name)),
        Event::Exit(exit) => format!("{} is gone", of(exit.who)),
        Event::Resumed(resumed) => format!("{} goes on", of(resumed.copier)),
        Event::Idle(idle) => format!("nobody runs for {} ns", idle.ns),
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
        let sent = |class: Class, kind: u64| {
            let record = record(Kind::Message, class as u64 | kind << 8);
            record.sent().unwrap()
        };
        let of = |class: Class, kind: u64| message(&sent(class, kind));
        assert_eq!(of(Class::Linux, 0), "read");
        assert_eq!(of(Class::Linux, 9999), "call 9999");
        assert_eq!(of(Class::Post, abi::proto::vfs::PageIn::KIND), "PageIn");
        assert_eq!(of(Class::Call, 0x00de_ad00), "message 0xdead00");
        assert_eq!(sent(Class::Linux, 3).linux_call(), Some(3));
        assert_eq!(record(Kind::Reply, 6 | 3 << 8).sent(), None);
    }

    #[test]
    fn answers_have_meaning() {
        let of = |class: Class, status: i64| {
            let record = record(Kind::Reply, class as u64 | (status as u64) << 8);
            match record.event() {
                Some(Event::Reply(reply)) => answer(&reply.sent),
                other => panic!("{other:?}"),
            }
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
