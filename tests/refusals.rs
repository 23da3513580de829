//! The laboratory refuses memory: each allocation of each server in turn, once or from there on,
//! and each frame of VM. Nothing worse than an error may come of it.

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use abi::policy::CopyPolicy;
use absentia_vmm::explore::engine::{self, Event, Options};
use absentia_vmm::explore::points;
use absentia_vmm::explore::row::{Give, Layer, Named, PointKind, Row, Verdict};
use absentia_vmm::explore::run::{Stage, play};
use absentia_vmm::explore::scenario::{self, Scenario};
use absentia_vmm::inject::plan::Token;
use absentia_vmm::inject::{Applied, PointName};
use common::Platform;

fn find(name: &str) -> Scenario {
    Platform::Kvm.require();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/scenarios");
    scenario::find(&directory, name).unwrap_or_else(|problem| panic!("{problem}"))
}

fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("scenarios")
}

fn stage<'a>(scenario: &'a Scenario, cache: &'a Path, sabotage: &str) -> Stage<'a> {
    Stage {
        scenario,
        policy: CopyPolicy::Try,
        gate: None,
        sabotage: match sabotage {
            "" => common::sabotage(),
            defect => defect.into(),
        },
        cache,
        emulated: false,
        allocations: true,
    }
}

fn options(at: &[&str]) -> Options {
    let names = at.iter().map(|name| name.parse().expect("a name"));
    Options {
        layers: Layer::REFUSALS.to_vec(),
        kinds: vec![PointKind::Alloc],
        at: names.collect::<Vec<PointName>>(),
        pages: None,
        give: Give::Asked,
        pairs: 0,
        schedules: 0,
        deviations: 0,
        seed: 1,
        jobs: 2,
        limit: None,
        shard: (0, 1),
    }
}

fn explore(stage: &Stage<'_>, options: &Options) -> Vec<Row> {
    let mut rows = Vec::new();
    engine::campaign(stage, options, |event| {
        if let Event::Row(row) = event {
            rows.push(*row);
        }
        Ok(())
    })
    .unwrap_or_else(|error| panic!("{}: {error:#}", stage.scenario.name));
    rows
}

/// Every server that keeps something for programs, and what each of them allocates.
#[test]
fn refused_memory_is_an_error_and_nothing_worse() {
    let cache = cache();
    let scenario = find("allocations");
    let rows = explore(&stage(&scenario, &cache, ""), &options(&[]));
    let bad: Vec<_> = rows.iter().filter(|r| r.verdict.is_violation()).collect();
    assert!(bad.is_empty(), "{bad:#?}");
    assert!(rows.len() > 900, "only {} runs", rows.len());
    let servers: BTreeSet<&str> = rows
        .iter()
        .map(|row| row.faults[0].point.actor.as_str())
        .collect();
    for server in [
        "vm",
        "vfs",
        "pm",
        "ext2",
        "tmpfs",
        "proc",
        "devfs",
        "console",
        "virtio-blk",
        "mem",
    ] {
        assert!(servers.contains(server), "{server} is not in {servers:?}");
    }
    let what = |words: &str| rows.iter().any(|r| r.faults[0].point.what.contains(words));
    for words in [
        "fills its reserve",
        "allocates",
        "frames for a program",
        "frames for a service",
    ] {
        assert!(what(words), "nobody {words}");
    }
    // Refusals reach programs, and most of the time nobody notices.
    let surfaced = rows.iter().filter_map(|row| row.surfaced.as_ref());
    let errors: BTreeSet<&str> = surfaced.map(|surfaced| surfaced.error.as_str()).collect();
    assert!(
        errors.contains("ENOMEM") && errors.contains("SIGKILL"),
        "{errors:?}"
    );
    assert!(rows.iter().any(|row| row.verdict == Verdict::Ok));
    for layer in Layer::REFUSALS {
        let count = rows.iter().filter(|r| r.faults[0].layer == layer).count();
        assert!(count > 200, "{}: {count} runs", layer.name());
    }
}

/// Requests of every kind, as large as they may be: what one of them needs is there or is refused,
/// and who is refused once tries again and gets everything right. A part of the points, another
/// one of each scenario (`absentia explore requests-disk --kinds alloc` tries all).
#[test]
fn every_request_is_made_or_refused_as_a_whole() {
    let cache = cache();
    let groups = [
        "disk",
        "tmpfs",
        "descriptors",
        "reports",
        "processes",
        "memory",
    ];
    let mut rows = Vec::new();
    for (number, group) in groups.into_iter().enumerate() {
        let scenario = find(&format!("requests-{group}"));
        let mut options = options(&[]);
        options.shard = (7 * number as u64, 53);
        let some = explore(&stage(&scenario, &cache, ""), &options);
        assert!(some.len() > 20, "{group}: only {} runs", some.len());
        rows.extend(some);
    }
    let bad: Vec<_> = rows.iter().filter(|r| r.verdict.is_violation()).collect();
    assert!(bad.is_empty(), "{bad:#?}");
    assert!(rows.len() > 300, "only {} runs", rows.len());
    // Who tries again comes to its end, unless it is ended to make room.
    let once = rows.iter().filter(|r| r.faults[0].layer == Layer::Refused);
    let told = |row: &Row| row.surfaced.as_ref().map(|told| told.error.clone());
    let told: BTreeSet<_> = once.filter_map(told).collect();
    assert!(told.iter().all(|error| error == "SIGKILL"), "{told:?}");
}

/// A server that does not clean up behind a refusal is found.
#[test]
fn a_frame_that_a_refusal_leaves_behind_is_found() {
    let (scenario, cache) = (find("pipe"), cache());
    let options = options(&["alloc/vm/fork//"]);
    let rows = explore(&stage(&scenario, &cache, ""), &options);
    assert!(
        rows.iter().all(|row| !row.verdict.is_violation()),
        "{rows:#?}"
    );
    let rows = explore(&stage(&scenario, &cache, "refused-frame-kept"), &options);
    let leak = |row: &Row| row.verdict == Verdict::Leak && row.detail.contains("lost");
    assert!(rows.iter().any(leak), "{rows:#?}");
}

/// Under QEMU the kernel itself refuses, and comes to the same.
#[test]
fn the_same_is_refused_under_qemu() {
    Platform::Qemu.require();
    let (scenario, cache) = (find("allocations"), cache());
    let mut options = options(&["alloc/vfs/pipe//", "alloc/vm/fork//"]);
    (options.jobs, options.limit) = (1, Some(6));
    let kvm = stage(&scenario, &cache, "");
    let qemu = Stage {
        emulated: true,
        ..kvm.clone()
    };
    let came_to = |stage: &Stage<'_>| -> Vec<_> {
        let rows = explore(stage, &options).into_iter();
        rows.map(|row| (row.token, row.verdict, row.surfaced))
            .collect()
    };
    let (kvm, qemu) = (came_to(&kvm), came_to(&qemu));
    assert_eq!(kvm.len(), 6);
    assert_eq!(kvm, qemu);
    assert!(kvm.iter().any(|row| row.1 == Verdict::ErrorSurfaced));
}

/// A refusal has a token as any fault, by number and by name, and is the same run each time.
#[test]
fn a_refusal_is_replayed() {
    let (scenario, cache) = (find("d1-read"), cache());
    let stage = stage(&scenario, &cache, "");
    for layer in ["refused", "exhausted"] {
        let token = format!("d1-read@try+alloc/vfs/open//1.a0.{layer}");
        let token: Token = token.parse().expect("a token");
        let plan = points::resolve(&stage, &token).expect("a plan");
        let played = || play(&stage, &plan, u64::MAX, false).expect("a run");
        let (one, other) = (played(), played());
        assert_eq!(one.ended.hash, other.ended.hash);
        let applied = &one.applied[..];
        let refused = matches!(applied, [(_, Applied::Refused { who, .. })] if who == "vfs");
        assert!(refused, "{applied:?}");
    }
    // Elsewhere there is nothing to refuse.
    let token: Token = "d1-read@try+copy/ext2/read/source/1.a0.refused"
        .parse()
        .expect("a token");
    let plan = points::resolve(&stage, &token).expect("a plan");
    let played = play(&stage, &plan, u64::MAX, false).expect("a run");
    assert!(matches!(played.applied[..], [(_, Applied::Nothing(_))]));
}
