//! `docs/linux-calls.md` is made from the routing table and must not be stale.
//!
//! `ABSENTIA_UPDATE=1 cargo test -p absentia-abi` writes it anew.

use std::fmt::Write;
use std::path::Path;

use abi::routes::{Call, PM_CALLS, Status, VFS_CALLS, VM_CALLS};

fn table() -> String {
    let mut calls: Vec<(&str, &Call)> = [("PM", PM_CALLS), ("VFS", VFS_CALLS), ("VM", VM_CALLS)]
        .into_iter()
        .flat_map(|(server, calls)| calls.iter().map(move |call| (server, call)))
        .collect();
    calls.sort_by_key(|(_, call)| call.number);
    let count = |status| {
        calls
            .iter()
            .filter(|(_, call)| call.status == status)
            .count()
    };
    let mut text = String::from("# Linux calls\n\n");
    let _ = writeln!(
        text,
        "Made from `abi/src/routes.rs`, the table that also routes the calls; do not edit. {} calls are \
         done, {} partial (the common uses; the rest fails cleanly), {} missing (one error, whatever is \
         asked). A call that is not listed returns `ENOSYS`; with `--verbose` it is named once.\n",
        count(Status::Done),
        count(Status::Partial),
        count(Status::Missing)
    );
    text.push_str("| Number | Call | Server | State |\n| ---: | --- | --- | --- |\n");
    for (server, call) in calls {
        let state = match call.status {
            Status::Done => "done",
            Status::Partial => "partial",
            Status::Missing => "missing",
        };
        let _ = writeln!(
            text,
            "| {} | {} | {server} | {state} |",
            call.number,
            call.name()
        );
    }
    text
}

#[test]
fn the_table_of_linux_calls_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/linux-calls.md");
    let table = table();
    if std::env::var_os("ABSENTIA_UPDATE").is_some() {
        std::fs::write(&path, &table).expect("docs/linux-calls.md is written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == table,
        "docs/linux-calls.md is stale: run ABSENTIA_UPDATE=1 cargo test -p absentia-abi"
    );
}

#[test]
fn every_call_is_listed_once() {
    let mut numbers: Vec<u32> = [PM_CALLS, VFS_CALLS, VM_CALLS]
        .into_iter()
        .flatten()
        .map(|call| call.number)
        .collect();
    numbers.sort_unstable();
    let before = numbers.len();
    numbers.dedup();
    assert_eq!(numbers.len(), before, "a call has two servers");
}
