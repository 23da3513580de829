//! Rows of the matrix about things that happen at one time: D4, D7(b) with V12, D7(d), V13. A disk
//! that answers at once lets nothing overlap, so these are played in orders that chance makes
//! (`tests/scenarios/together.c`), all of them must end well, and the trace must show in at least
//! one that what the row speaks of did happen at once.

mod common;

use std::collections::BTreeSet;
use std::path::Path;

use abi::policy::CopyPolicy;
use abi::proto::{vfs, vm};
use abi::trace::{self, Event, Message, Record, Then};
use abi::{Class, Endpoint, Request};
use absentia_vmm::explore::engine;
use absentia_vmm::explore::judge;
use absentia_vmm::explore::row::Verdict;
use absentia_vmm::explore::run::{Stage, play};
use absentia_vmm::explore::scenario;
use absentia_vmm::inject::{Plan, Schedule, Window};
use common::Platform;

/// Orders that are tried, and how many at most, until one shows what is wanted.
const ORDERS: u64 = 12;
const ORDERS_AT_MOST: u64 = 120;

fn scenario_text(case: &str) -> String {
    let mut text = format!(
        r#"name = "together-{case}"
description = "Several processes whose memory has to be brought at one time."

[run]
program = ["/bin/together", "{case}"]

[[root]]
path = "/bin/together"
c = "together.c"
freestanding = true

[[root]]
path = "/bin/second"
c = "second.c"
freestanding = true

[explore]
policies = ["try"]
from = 1
to = 2

[expect]
stdout = "together: all of them did\n"
"#
    );
    for file in 0..10 {
        let seed = file + 1;
        text += &format!("\n[[root]]\npath = \"/work/{file}\"\nseed = {seed}\nsize = \"16K\"\n");
    }
    text
}

/// What was under way at once at some moment of a run.
#[derive(Default, Debug)]
struct Overlap {
    /// Repairs that VM was asked for and had not answered: the most.
    repairs: usize,
    /// Files that VM waited for VFS to bring pages of while a repair was under way: the most.
    files: usize,
    /// Steps of execs, which VFS has VM make, while VM waited for VFS to bring a page.
    calls: usize,
    /// Steps of an exec while PM was parked for a page.
    steps: usize,
}

impl Overlap {
    fn of(records: &[Record]) -> Overlap {
        let mut most = Overlap::default();
        let mut repairs = BTreeSet::new();
        let mut page_ins = BTreeSet::new();
        let mut executing = BTreeSet::new();
        let mut parked = false;
        for record in records {
            match record.event() {
                Some(
                    Event::Message(Message { sent }) | Event::Request(trace::Request { sent }),
                ) => {
                    let txn = sent.transaction();
                    match (sent.head.class, sent.head.kind, sent.ends) {
                        (Some(Class::Post), vm::HandleMemory::KIND, (Endpoint::VFS, _)) => {
                            repairs.insert(txn);
                        }
                        (Some(Class::Post), vm::HandleMemory::ANSWER, (Endpoint::VM, _)) => {
                            repairs.remove(&txn);
                        }
                        (Some(Class::Post), vfs::PageIn::KIND, (Endpoint::VM, _)) => {
                            let asked: vfs::PageIn = sent.request().expect("a page-in");
                            page_ins.insert((txn, asked.ino));
                        }
                        (Some(Class::Post), vfs::PageIn::ANSWER, (Endpoint::VFS, _)) => {
                            page_ins.retain(|&(asked, _)| asked != txn);
                        }
                        (Some(Class::Linux), EXECVE, _) => {
                            executing.insert(sent.ends.0);
                        }
                        _ => {}
                    }
                }
                Some(Event::Absent(absent)) if absent.copier == Endpoint::PM => {
                    parked = absent.then == Then::Parks;
                }
                Some(Event::Resumed(resumed)) if resumed.copier == Endpoint::PM => parked = false,
                Some(Event::Exec(step)) => {
                    most.calls += usize::from(!page_ins.is_empty());
                    most.steps += usize::from(parked && executing.contains(&step.target));
                    if step.stage == trace::Stage::Start {
                        executing.remove(&step.target);
                    }
                }
                _ => {}
            }
            most.repairs = most.repairs.max(repairs.len());
            if !repairs.is_empty() {
                let files: BTreeSet<u64> = page_ins.iter().map(|&(_, ino)| ino).collect();
                most.files = most.files.max(files.len());
            }
        }
        most
    }
}

const EXECVE: u64 = 59;

/// Plays `case` in many orders: all are well, and `wanted` is so in one of them at least.
fn in_many_orders(case: &str, wanted: impl Fn(&Overlap) -> bool) {
    Platform::Kvm.require();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/scenarios");
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("scenarios");
    let path = directory.join(format!("together-{case}.toml"));
    let scenario = scenario::parse(&path, &scenario_text(case));
    let scenario = scenario.unwrap_or_else(|problem| panic!("{problem}"));
    let stage = Stage {
        scenario: &scenario,
        policy: CopyPolicy::Try,
        gate: None,
        sabotage: common::sabotage(),
        cache: &cache,
        emulated: false,
        allocations: false,
    };
    let base = engine::base(&stage, &Schedule::First, false).expect("a run");
    let mut reference = match base.reference {
        Ok(reference) => reference,
        Err(judged) => panic!("{case} as it comes: {judged:?}"),
    };
    let mut seen: Vec<Overlap> = Vec::new();
    for seed in 1..=ORDERS_AT_MOST {
        if seed > ORDERS && seen.iter().any(&wanted) {
            break;
        }
        let plan = Plan {
            schedule: match seed % 2 {
                0 => Schedule::Random(seed, Window::ALL),
                _ => Schedule::Priorities(seed, Window::ALL),
            },
            ..Plan::plain(&scenario.name, CopyPolicy::Try)
        };
        let played = play(&stage, &plan, u64::MAX, false).expect("a run");
        // How many pieces the servers' heaps have at the end depends on the order; what leaks is for
        // the explorer to find.
        reference.accounts.clone_from(&played.ended.accounts);
        let judged = judge::judge(&scenario.expect, Some(&reference), &played.ended, &[]);
        assert_eq!(judged.verdict, Verdict::Ok, "{plan}: {judged:?}");
        seen.push(Overlap::of(played.player.records()));
    }
    let shown = seen.iter().filter(|overlap| wanted(overlap)).count();
    println!("{case}: {shown} of {} orders", seen.len());
    assert!(shown > 0, "{case}: it never happens at once: {seen:?}");
}

/// D4: VFS has VM make an exec's steps while VM waits for VFS.
#[test]
fn vfs_calls_vm_while_vm_waits_for_vfs() {
    in_many_orders("exec", |overlap| overlap.calls > 0);
}

/// D7(b), V12: the memory of a write to a file is repaired while others wait for pages of that
/// file and of another.
#[test]
fn a_file_is_copied_over_while_others_run_into_it() {
    in_many_orders("copy-over", |overlap| overlap.files >= 3);
}

/// D7(d), X9: PM is parked for a page while VFS executes a program.
#[test]
fn pm_waits_for_a_page_during_an_exec() {
    in_many_orders("action", |overlap| overlap.steps > 0);
}

/// V13: several of ten repairs are under way at once; in between VM asks for pages, and gets them.
#[test]
fn many_repairs_are_under_way_at_once() {
    in_many_orders("many", |overlap| overlap.repairs >= 4);
}
