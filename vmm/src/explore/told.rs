//! What programs were told of memory that was refused: answers of Linux calls, and ends of
//! processes that make room. A program that was told may do what it likes; one that was not
//! must get everything right.
//!
//! Why so: docs/decisions/021-allocations-as-points.md.

use std::collections::HashMap;

use abi::proto::pm;
use abi::trace::{Event, Record, Reply, Sent};
use abi::{Class, Errno};

use super::row::Surfaced;
use crate::trace::words::{self, Names};

/// The processes that a trace names.
pub fn names(records: &[Record]) -> Names {
    let mut names = Names::default();
    records.iter().for_each(|record| names.learn(record));
    names
}

/// The errors that a call is answered with; the second where memory is the disk of a file system.
const ERRORS: [&str; 2] = ["ENOMEM", "ENOSPC"];

/// Lines of the log that tell of a process's end for want of memory, and the signal.
const ENDS: [(&str, &str); 2] = [
    ("out of memory: killed process", "SIGKILL"),
    ("no memory, and nobody who may be ended", "SIGBUS"),
];

/// All of it in a run, in order: first answers, then ends.
pub fn told(records: &[Record], log: &[String]) -> Vec<Surfaced> {
    let names = names(records);
    let mut calls = HashMap::new();
    let mut told = Vec::new();
    for record in records {
        if let Some(sent) = record.sent() {
            if let Some(call) = sent.linux_call() {
                calls.insert(sent.ends.0, call);
            }
            told.extend(killed(&sent, &names));
        }
        let Some(Event::Reply(Reply { sent })) = record.event() else {
            continue;
        };
        let answer = words::answer(&sent);
        if sent.head.class == Some(Class::Linux) && ERRORS.contains(&answer.as_str()) {
            let client = sent.ends.1;
            let call = calls.get(&client).map(|&call| words::call_name(call));
            let (who, call) = (names.of(client.0), call.unwrap_or_default());
            told.push(Surfaced {
                who: format!("{call} of {who} is answered {answer}"),
                error: answer,
            });
        }
    }
    let ends = log.iter().filter_map(|line| {
        let (at, signal) = ENDS
            .iter()
            .find_map(|(text, signal)| Some((line.find(text)?, signal)))?;
        Some(Surfaced {
            error: (*signal).into(),
            who: line[at..].into(),
        })
    });
    told.extend(ends);
    told
}

/// Servers have PM kill a process that has no call to be answered.
fn killed(sent: &Sent, names: &Names) -> Option<Surfaced> {
    if sent.head.class != Some(Class::Post) {
        return None;
    }
    let failed = sent
        .request()
        .map(|it: pm::ExecFailed| (it.who, it.status == -i64::from(Errno::ENOMEM.0)));
    let faulted = sent
        .request()
        .map(|it: pm::FaultSignal| (it.who, it.signal == libc::SIGKILL));
    let (who, why) = match (failed, faulted) {
        (Some((who, true)), _) => (who, "exec has no memory, and the old program is gone"),
        (_, Some((who, true))) => (who, "a page fault finds no memory"),
        _ => return None,
    };
    Some(Surfaced {
        error: "SIGKILL".into(),
        who: format!("{}: {why}", names.of(who.0)),
    })
}

#[cfg(test)]
mod tests {
    use abi::Errno;
    use abi::trace::{Kind, pair};

    use super::*;

    #[test]
    fn answers_and_ends_tell() {
        let record = |kind: Kind, class: Class, word: u64, ends: (u32, u32)| Record {
            time: 0,
            what: kind as u64,
            words: [class as u64 | word << 8, pair(ends.0, ends.1), 0, 0, 0, 0],
        };
        let (program, vfs) = (40, 3);
        let open = libc::SYS_openat as u64;
        let (no_memory, no_file) = (Errno::ENOMEM.to_word(), Errno::ENOENT.to_word());
        let asks = record(Kind::Message, Class::Linux, open, (program, vfs));
        let answer = |class, word| record(Kind::Reply, class, word, (vfs, program));
        let of = |records: &[Record], log: &[String]| {
            let told = told(records, log).into_iter();
            told.map(|told| told.error).collect::<Vec<_>>()
        };
        let quiet = [asks, answer(Class::Linux, no_file)];
        assert!(of(&quiet, &["accounts: files 0".into()]).is_empty());
        // Between servers it is nobody's business.
        assert!(of(&[asks, answer(Class::Call, no_memory)], &[]).is_empty());
        let loud = [asks, answer(Class::Linux, no_memory)];
        let log = ["pm: out of memory: killed process 7 (sh) of user 0, 400 KiB".into()];
        assert_eq!(of(&loud, &log), ["ENOMEM", "SIGKILL"]);
    }
}
