//! The explorer: it finds what is wrong without failable copies, finds nothing with them, and
//! finds every defect that is built in on purpose.

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use abi::policy::CopyPolicy;
use absentia_vmm::explore::engine::{self, Event, Options};
use absentia_vmm::explore::judge;
use absentia_vmm::explore::minimize::minimize;
use absentia_vmm::explore::orders::{Branch, Orders};
use absentia_vmm::explore::points;
use absentia_vmm::explore::row::{Give, Header, Layer, PointKind, Row, Verdict};
use absentia_vmm::explore::run::{Ended, Player, Stage, play};
use absentia_vmm::explore::scenario::{self, Scenario};
use absentia_vmm::explore::spots::{self, Pages};
use absentia_vmm::inject::plan::Token;
use absentia_vmm::inject::{Applied, Plan, Schedule, Side, Target};
use common::Platform;

fn find(name: &str) -> Scenario {
    Platform::Kvm.require();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/scenarios");
    scenario::find(&directory, name).unwrap_or_else(|problem| panic!("{problem}"))
}

fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("scenarios")
}

fn stage<'a>(scenario: &'a Scenario, policy: CopyPolicy, cache: &'a Path) -> Stage<'a> {
    Stage {
        scenario,
        policy,
        gate: None,
        sabotage: common::sabotage(),
        cache,
        emulated: false,
        allocations: false,
    }
}

fn options(layers: &[Layer]) -> Options {
    Options {
        layers: layers.to_vec(),
        kinds: PointKind::PAGES.to_vec(),
        at: Vec::new(),
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

fn explore(stage: &Stage<'_>, options: &Options) -> (Header, Vec<Row>) {
    let (mut header, mut rows) = (None, Vec::new());
    engine::campaign(stage, options, |event| {
        match event {
            Event::Begun(begun, _) => header = Some(*begun),
            Event::Row(row) => rows.push(*row),
            Event::Nothing | Event::PointDone => {}
        }
        Ok(())
    })
    .unwrap_or_else(|error| panic!("{}: {error:#}", stage.scenario.name));
    (header.expect("a header"), rows)
}

/// Demands that all is well, in at least so many runs.
fn all_is_well(name: &str, options: &Options, least: usize) {
    let scenario = find(name);
    let cache = cache();
    let (_, rows) = explore(&stage(&scenario, CopyPolicy::Try, &cache), options);
    let bad: Vec<_> = rows.iter().filter(|r| r.verdict != Verdict::Ok).collect();
    assert!(bad.is_empty(), "{name}: {bad:#?}");
    assert!(rows.len() >= least, "{name}: only {} runs", rows.len());
}

#[test]
fn d1_read_is_well_under_try_in_every_layer() {
    for layer in [Layer::Pte, Layer::Slot, Layer::ReadOnly] {
        all_is_well("d1-read", &options(&[layer]), 4);
    }
}

#[test]
fn d1_read_deadlocks_without_try() {
    let (scenario, cache) = (find("d1-read"), cache());
    let stage = stage(&scenario, CopyPolicy::Transparent, &cache);
    let (_, rows) = explore(&stage, &options(&[Layer::Pte]));
    let found: Vec<_> = rows
        .iter()
        .filter(|row| row.verdict == Verdict::Deadlock)
        .collect();
    assert!(!found.is_empty(), "{rows:#?}");
    for row in &found {
        for wait in [
            "ext2 waits for vm",
            "vm waits for vfs",
            "vfs waits for ext2",
        ] {
            assert!(row.cycle.contains(wait), "{}", row.cycle);
        }
        assert!(row.picture.starts_with("<svg"), "{}", row.token);
    }
    // The same pages, absent under the policy that is for it, do no harm.
    for row in found {
        let token = row.token.replace("@transparent", "@try");
        let plan: Plan = token.parse().expect("a token");
        let stage = self::stage(&scenario, CopyPolicy::Try, &cache);
        let played = play(&stage, &plan, u64::MAX, false).expect("a run");
        assert!(played.ended.log.iter().any(|l| l.contains("accounts")));
    }
}

#[test]
fn a_cold_exec_is_well_whatever_page_is_absent() {
    all_is_well("exec-cold", &options(&Layer::PAGES), 30);
}

/// Truncation, holes, futexes and splices, whose pages belong to files and to several processes.
#[test]
fn what_is_shared_or_taken_away_is_well_whatever_page_is_absent() {
    for (name, least) in [
        ("truncate", 80),
        ("punch", 20),
        ("futex", 30),
        ("splice", 80),
    ] {
        all_is_well(name, &options(&Layer::PAGES), least);
    }
}

#[test]
fn two_faults_are_no_worse_than_one() {
    let mut options = options(&[Layer::Pte]);
    (options.pairs, options.limit) = (4, Some(150));
    all_is_well("d6-two-files", &options, 20);
}

#[test]
fn the_order_of_things_does_not_matter() {
    let mut options = options(&[Layer::Pte]);
    (options.schedules, options.kinds) = (24, Vec::new());
    for name in ["two-repairs", "pipe"] {
        all_is_well(name, &options, 24);
    }
}

#[test]
fn every_single_other_choice_is_well() {
    let mut options = options(&[Layer::Pte]);
    (options.deviations, options.kinds) = (16, Vec::new());
    all_is_well("two-repairs", &options, 16);
}

/// Other orders of things, at random and one decision at a time.
fn orders(schedules: u64, deviations: u64) -> Options {
    Options {
        kinds: Vec::new(),
        schedules,
        deviations,
        ..options(&[Layer::Pte])
    }
}

/// Of the calling thread, the guest's included, in ticks of a hundredth of a second.
fn processor_time() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("/proc");
    let (_, fields) = stat.rsplit_once(')').expect("a name");
    let times = fields.split_whitespace().skip(11).take(2);
    times.map(|time| time.parse::<u64>().expect("a time")).sum()
}

/// A run that branches from where the program starts, or from a point behind that, is the run of its
/// token, which boots: record by record.
#[test]
fn another_order_from_a_snapshot_is_the_run_of_its_token() {
    for name in ["two-repairs", "pipe"] {
        let (scenario, cache) = (find(name), cache());
        let stage = stage(&scenario, CopyPolicy::Try, &cache);
        let options = orders(6, 40);
        let orders = Orders::of(&stage, &options).expect("two runs");
        let orders = orders.expect("other orders");
        let mut hashes = BTreeSet::new();
        let (mut branched, mut whole) = (0, 0);
        let mut same = |player: &mut Player, schedule: Schedule| {
            let begun = processor_time();
            player.decide_by(&schedule).expect("a schedule");
            let ended = player.finish().expect("a run");
            branched += processor_time() - begun;
            let mut plan = Plan::plain(name, CopyPolicy::Try);
            plan.schedule = schedule;
            let token = plan.to_string();
            assert_eq!(token.parse(), Ok(plan.clone()));
            let begun = processor_time();
            let booted = play(&stage, &plan, u64::MAX, false).expect("a run");
            whole += processor_time() - begun;
            assert_eq!(booted.start, orders.start.point);
            assert!(booted.player.records() == player.records(), "{token}");
            let of = |ended: &Ended| (ended.hash, ended.accounts.clone(), ended.told.clone());
            assert_eq!(of(&booted.ended), of(&ended), "{token}");
            hashes.insert(ended.hash);
        };
        // The second machine never booted.
        let mut players = [(); 2].map(|()| orders.start.player(&stage).expect("a machine"));
        for number in 0..6 {
            let player = &mut players[number as usize % 2];
            orders.start.put_back(player).expect("the start");
            same(player, orders.schedule(&options, number).0);
        }
        orders.start.put_back(&mut players[0]).expect("the start");
        let behind = |branch: &&Branch| branch.point.is_some();
        assert!(orders.branches.iter().any(|branch| behind(&branch)));
        for branch in orders.branches.iter().step_by(3) {
            let player = &mut players[0];
            Orders::reach(player, branch).expect("its point");
            let before = player.snapshot().expect("a snapshot");
            let deviation = branch.deviations[0];
            same(player, Schedule::List(vec![deviation]));
            player.restore(&before).expect("back");
        }
        assert!(hashes.len() > 6, "{name}: {hashes:?}");
        eprintln!("{name}: {branched} ticks without the boots, {whole} with them");
        assert!(branched * 2 < whole, "{name}: {branched} of {whole} ticks");
    }
}

/// What a campaign says of other orders is what their tokens come to.
#[test]
fn verdicts_of_other_orders_are_those_of_their_tokens() {
    let (scenario, cache) = (find("two-repairs"), cache());
    let mut stage = stage(&scenario, CopyPolicy::Try, &cache);
    stage.sabotage = "answer-crossed".into();
    let (_, rows) = explore(&stage, &orders(24, 24));
    let base = engine::base(&stage, &Schedule::First, false).expect("a run");
    let reference = base.reference.as_ref().ok();
    let (bad, well): (Vec<&Row>, Vec<&Row>) =
        rows.iter().partition(|row| row.verdict.is_violation());
    assert!(!bad.is_empty() && !well.is_empty());
    for row in bad.into_iter().take(6).chain(well.into_iter().step_by(5)) {
        let plan: Plan = row.token.parse().expect("a token");
        let played = play(&stage, &plan, base.budget(), false).expect("a run");
        let expect = &scenario.expect;
        let judged = judge::judge(expect, reference, &played.ended, &plan.faults);
        let (token, verdict) = (&row.token, row.verdict);
        assert_eq!(
            (judged.verdict, &judged.detail),
            (verdict, &row.detail),
            "{token}"
        );
        assert_eq!(played.ended.retries, row.retries, "{token}");
    }
}

#[test]
fn a_page_that_never_comes_back_is_an_error_and_nothing_worse() {
    let mut options = options(&[Layer::Slot]);
    options.give = Give::Never;
    // In `pipe` one side of the copies is VFS's own.
    for name in ["d1-read", "pipe"] {
        let (scenario, cache) = (find(name), cache());
        let (_, rows) = explore(&stage(&scenario, CopyPolicy::Try, &cache), &options);
        let bad: Vec<_> = rows.iter().filter(|r| r.verdict.is_violation()).collect();
        assert!(bad.is_empty(), "{name}: {bad:#?}");
        let surfaced = rows.iter().filter_map(|row| row.surfaced.as_ref());
        let errors: BTreeSet<&str> = surfaced.map(|surfaced| surfaced.error.as_str()).collect();
        assert!(
            errors.contains("EIO") || errors.contains("EFAULT"),
            "{name}: {errors:?}"
        );
    }
}

/// Where each defect shows, and in how many other orders of things it takes.
const DEFECTS: [(&str, &str, u64); 10] = [
    ("fill-ignores-try", "hole", 0),
    ("no-mark", "d1-read", 0),
    ("repair-for-reading", "d1-read", 0),
    ("offset-lost", "d1-read", 0),
    ("answer-crossed", "two-repairs", 24),
    ("lock-over-repair", "d1-read", 0),
    ("cache-not-shared", "coherence", 0),
    ("double-restart", "pipe", 0),
    ("frame-leaked", "d1-read", 0),
    ("lock-kept", "d1-read", 0),
];

#[test]
fn every_defect_is_found() {
    // The first ten are the explorer's; the others turn other tests red (tests/sabotage.rs).
    let known = abi::sabotage::NAMES[..DEFECTS.len()].iter();
    let known: BTreeSet<_> = known.map(|(name, _)| *name).collect();
    let here: BTreeSet<_> = DEFECTS.iter().map(|(name, ..)| *name).collect();
    assert_eq!(known, here);
    let cache = cache();
    for (defect, name, schedules) in DEFECTS {
        let scenario = find(name);
        let mut stage = stage(&scenario, CopyPolicy::Try, &cache);
        let mut options = options(&[Layer::Pte]);
        options.schedules = schedules;
        let (_, rows) = explore(&stage, &options);
        let well = rows.iter().all(|row| row.verdict == Verdict::Ok);
        assert!(well, "{name} without {defect}");
        stage.sabotage = defect.into();
        let (_, rows) = explore(&stage, &options);
        let found = rows.iter().filter(|row| row.verdict.is_violation()).count();
        println!("{defect}: {found} of {} runs of {name}", rows.len());
        assert!(found > 0, "{defect} was not found with {name}");
    }
}

/// A leak is called one, and named with how much it is.
#[test]
fn what_leaks_is_named() {
    let cache = cache();
    for (defect, what) in [
        ("frame-leaked", "lost 1 instead of 0"),
        ("lock-kept", "positions 1 instead of 0"),
    ] {
        let scenario = find("d1-read");
        let mut stage = stage(&scenario, CopyPolicy::Try, &cache);
        stage.sabotage = defect.into();
        let (_, rows) = explore(&stage, &options(&[Layer::Pte]));
        let leak = |row: &&Row| row.verdict == Verdict::Leak && row.detail.contains(what);
        assert!(rows.iter().any(|row| leak(&row)), "{defect}: {rows:#?}");
    }
}

#[test]
fn a_token_is_one_run() {
    let (scenario, cache) = (find("d1-read"), cache());
    let stage = stage(&scenario, CopyPolicy::Try, &cache);
    let (_, rows) = explore(&stage, &options(&Layer::PAGES));
    for row in rows.iter().step_by(7) {
        let plan: Plan = row.token.parse().expect("a token");
        assert_eq!(plan.to_string(), row.token);
        let hash = || {
            let played = play(&stage, &plan, u64::MAX, false).expect("a run");
            assert_eq!(played.applied.len(), plan.faults.len());
            played.ended.hash
        };
        assert_eq!(hash(), hash(), "{}", row.token);
    }
}

#[test]
fn what_does_not_matter_is_dropped() {
    let (scenario, cache) = (find("d1-read"), cache());
    let stage = stage(&scenario, CopyPolicy::Transparent, &cache);
    let (_, rows) = explore(&stage, &options(&[Layer::Pte]));
    let plan = |row: &Row| row.token.parse::<Plan>().expect("a token");
    let of = |verdict| rows.iter().filter(move |row| row.verdict == verdict);
    let deadly = plan(of(Verdict::Deadlock).next().expect("a deadlock"));
    // A fault before it would make other points of those that follow: one at the same.
    let harmless = of(Verdict::Ok)
        .map(plan)
        .find(|plan| plan.faults[0].point == deadly.faults[0].point);
    let both = deadly.with(&harmless.expect("a harmless fault").faults);
    let minimized = minimize(&stage, &both).expect("a smaller plan");
    assert_eq!(minimized.plan.faults.len(), 1, "{}", minimized.plan);
    assert_eq!(minimized.verdict, Verdict::Deadlock);
    assert!(minimize(&stage, &Plan::plain("d1-read", CopyPolicy::Transparent)).is_err());
}

#[test]
fn an_unlucky_order_is_reduced_to_its_decisions() {
    let (scenario, cache) = (find("two-repairs"), cache());
    let mut stage = stage(&scenario, CopyPolicy::Try, &cache);
    stage.sabotage = "answer-crossed".into();
    let mut options = options(&[Layer::Pte]);
    (options.schedules, options.kinds) = (24, Vec::new());
    let (_, rows) = explore(&stage, &options);
    // One that happens without any decision that matters, or only with very many, is no example.
    let mut tried = Vec::new();
    let violations = rows.iter().filter(|row| row.verdict.is_violation());
    let reduced = violations.into_iter().any(|row| {
        let plan: Plan = row.token.parse().expect("a token");
        let minimized = minimize(&stage, &plan).expect("a smaller plan");
        tried.push(minimized.plan.to_string());
        matches!(&minimized.plan.schedule, Schedule::List(list) if !list.is_empty() && list.len() < 32)
    });
    assert!(reduced, "{tried:?}");
}

#[test]
fn shards_make_the_whole() {
    let (scenario, cache) = (find("d6-two-files"), cache());
    let stage = stage(&scenario, CopyPolicy::Try, &cache);
    let tokens = |shard| {
        let mut options = options(&[Layer::Pte]);
        options.shard = shard;
        let (_, rows) = explore(&stage, &options);
        rows.into_iter()
            .map(|row| row.token)
            .collect::<BTreeSet<_>>()
    };
    let whole = tokens((0, 1));
    let (one, other) = (tokens((0, 2)), tokens((1, 2)));
    assert!(one.is_disjoint(&other));
    assert_eq!(&one | &other, whole);
}

#[test]
fn names_mean_the_points_that_they_were_given_to() {
    let (scenario, cache) = (find("d1-read"), cache());
    let stage = stage(&scenario, CopyPolicy::Try, &cache);
    let mut options = options(&[Layer::Pte]);
    let (_, rows) = explore(&stage, &options);
    for row in rows.iter().step_by(5) {
        let token: Token = row.portable.parse().expect("a token");
        let plan = points::resolve(&stage, &token).expect("a plan");
        assert_eq!(plan.to_string(), row.token, "{token}");
    }
    let names = |rows: &[Row]| {
        let names = rows.iter().map(|row| row.faults[0].point.name.clone());
        names.collect::<BTreeSet<_>>()
    };
    for name in [
        "copy/ext2/read/source/1",
        "grant/ext2/read/source/1",
        "request/vfs/HandleMemory/source/1",
    ] {
        assert!(names(&rows).contains(name), "{name}: {:?}", names(&rows));
    }
    // Second faults have names in the run with the first one.
    (options.pairs, options.limit) = (3, Some(40));
    let (_, rows) = explore(&stage, &options);
    let pairs: Vec<_> = rows.iter().filter(|row| row.faults.len() == 2).collect();
    assert!(!pairs.is_empty());
    for row in pairs.iter().step_by(5) {
        let plan = points::resolve(&stage, &row.portable.parse().expect("a token"));
        assert_eq!(
            plan.expect("a plan").to_string(),
            row.token,
            "{}",
            row.portable
        );
    }
    // A name without an ordinal chooses all points like it.
    (options.pairs, options.limit) = (0, None);
    options.at = vec!["copy/ext2/read//".parse().expect("a name")];
    let (_, rows) = explore(&stage, &options);
    let chosen = names(&rows);
    assert!(
        chosen.len() > 1
            && chosen
                .iter()
                .all(|name| name.starts_with("copy/ext2/read/"))
    );
}

#[test]
fn a_name_that_means_no_point_is_answered_with_those_near() {
    let (scenario, cache) = (find("d1-read"), cache());
    let stage = stage(&scenario, CopyPolicy::Try, &cache);
    let refused = |point: &str| {
        let token = format!("d1-read@try+{point}.t0.pte");
        let plan = points::resolve(&stage, &token.parse().expect("a token"));
        plan.expect_err(point).to_string()
    };
    let known = "copy/ext2/read/source/1";
    for (point, what) in [
        ("copy/ext2/read/source/", "is any of"),
        ("copy/ext2/read/source/999", "such points"),
        ("copy/ext/read/source/1", "no point"),
        ("copy/ext2/write/source/1", "no point"),
    ] {
        let error = refused(point);
        assert!(error.contains(what) && error.contains(known), "{error}");
    }
}

#[test]
fn every_stage_of_an_exec_is_a_point() {
    let (scenario, cache) = (find("exec-cold"), cache());
    let stage = stage(&scenario, CopyPolicy::Try, &cache);
    let mut options = options(&[Layer::Pte]);
    options.kinds = vec![PointKind::Exec];
    let base = engine::base(&stage, &Schedule::First, false).expect("a run");
    let spots = spots::spots(&stage, &options, &base);
    let list = points::list(&base, &spots);
    assert_eq!(list.lines().count(), spots.len());
    for stage in ["clear", "map", "stack", "start"] {
        let name = format!("  exec/vfs/{stage}/second/1 ");
        assert!(list.contains(name.trim_end()), "{name}: {list}");
    }
    // Pages of the program and of the server that executes it, at each of them.
    for who in ["program", "vfs"] {
        options.pages = Some(who.parse().expect("a process"));
        options.limit = Some(60);
        all_is_well("exec-cold", &options, 40);
    }
}

#[test]
fn the_page_of_a_grant_table_is_repaired() {
    let mut options = options(&[Layer::Pte, Layer::Slot, Layer::ReadOnly]);
    options.kinds = vec![PointKind::Grant];
    for name in ["d1-read", "d2-path", "exec-cold"] {
        all_is_well(name, &options, 2);
    }
    let (scenario, cache) = (find("d1-read"), cache());
    let stage = stage(&scenario, CopyPolicy::Try, &cache);
    let (_, rows) = explore(&stage, &options);
    let is = |row: &Row| row.faults[0].target == Target::Side(Side::Grant, 0);
    assert!(rows.iter().all(is), "{rows:#?}");
    // The copier was parked for it.
    let token = "d1-read@try+grant/ext2/read/source/1.g0.pte"
        .parse()
        .expect("a token");
    let plan = points::resolve(&stage, &token).expect("a plan");
    let played = play(&stage, &plan, u64::MAX, false).expect("a run");
    let known = points::known(played.player.records(), plan.faults[0].point);
    let same = known.iter().filter(|k| k.about == known[0].about).count();
    let without = engine::base(&stage, &Schedule::First, false).expect("a run");
    let before = points::known(&without.records, plan.faults[0].point);
    let before = before.iter().filter(|k| k.about == known[0].about).count();
    assert_eq!(same, before + 1, "the copy is made again");
}

#[test]
fn any_page_of_any_process_may_be_absent() {
    let mut options = options(&Layer::PAGES);
    (options.pages, options.limit) = (Some(Pages::All), Some(300));
    for name in ["d1-read", "d2-path", "exec-cold", "pipe"] {
        all_is_well(name, &options, 200);
    }
}

#[test]
fn a_frame_may_be_absent_unless_nobody_could_do_without() {
    let (scenario, cache) = (find("d1-read"), cache());
    let stage = stage(&scenario, CopyPolicy::Try, &cache);
    let played = |fault: &str| {
        let token: Token = format!("d1-read@try+{fault}").parse().expect("a token");
        let plan = points::resolve(&stage, &token).expect("a plan");
        play(&stage, &plan, u64::MAX, false)
    };
    let frame_of = |fault: &str| match &played(fault).expect("a run").applied[..] {
        [(_, Applied::Done { frame, .. })] => frame / abi::PAGE,
        other => panic!("{other:?}"),
    };
    let point = "grant/ext2/read/source/1";
    for layer in ["pte", "slot", "read-only"] {
        let frame = frame_of(&format!("{point}.g0.{layer}"));
        let run = played(&format!("{point}.p{frame:x}.{layer}")).expect("a run");
        let applied = &run.applied[0].1;
        assert!(matches!(applied, Applied::Done { .. }), "{applied:?}");
        assert!(run.ended.log.iter().any(|line| line.contains("accounts")));
    }
    for (fault, what) in [
        (format!("{point}.p1.slot"), "no process"),
        (format!("{point}.pffffffff.slot"), "frames of memory"),
        (format!("{point}.v/vm:0.pte"), "page tables"),
    ] {
        let error = format!("{:#}", played(&fault).err().expect("an error"));
        assert!(error.contains(what), "{error}");
    }
    let nobody = played(&format!("{point}.v/nobody:0.pte")).expect("a run");
    assert!(matches!(nobody.applied[0].1, Applied::Nothing(_)));
}

#[test]
fn a_page_that_comes_later_is_waited_for() {
    let mut options = options(&[Layer::Slot]);
    for give in ["50us", "2ms"] {
        options.give = give.parse().expect("a time");
        for name in ["d1-read", "d2-path", "exec-cold", "pipe"] {
            all_is_well(name, &options, 2);
        }
    }
    // The clock says that it was.
    let (scenario, cache) = (find("d1-read"), cache());
    let stage = stage(&scenario, CopyPolicy::Try, &cache);
    let time = |give: &str| {
        let token = format!("d1-read@try+copy/ext2/read/source/1.t0.slot{give}");
        let plan = points::resolve(&stage, &token.parse().expect("a token")).expect("a plan");
        let played = play(&stage, &plan, u64::MAX, false).expect("a run");
        played.player.records().last().expect("a trace").time
    };
    let (asked, later) = (time(""), time(".20ms"));
    assert!(later >= asked + 15_000_000, "{asked} ns, and {later} ns");
}
