//! Scenarios under QEMU: every run boots, and the guest's kernel itself makes pages absent, in
//! page tables only.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use abi::trace::{Kind, Record};
use anyhow::{Result, ensure};

use super::engine::{Event, Options, row_of, told};
use super::expect::Observed;
use super::filter::{Filter, kind_of, spread};
use super::judge;
use super::row::{Give, Layer};
use super::run::{Ended, Finish, Stage};
use crate::control::Reason;
use crate::deterministic::{Qemu, under_qemu};
use crate::hostlink::input::Source;
use crate::hostlink::output::Sink;
use crate::inject::{Fault, Schedule, point};
use crate::inspect::graph::Graph;
use crate::inspect::render;
use crate::lab::disk;
use crate::machine::Ending;
use crate::program::Streams;
use crate::qemu::watch::Watch;

/// A run under QEMU that goes on for so long is endless.
const LIMIT: Duration = Duration::from_secs(120);

/// A run.
pub struct Played {
    /// How it ended.
    pub ended: Ended,
    /// Its trace.
    pub records: Vec<Record>,
    /// What became of each fault, in the kernel's words.
    pub applied: Vec<String>,
}

/// Boots and plays these faults, whose points ascend.
pub fn play(stage: &Stage<'_>, faults: &[Fault], verbose: bool) -> Result<Played> {
    ensure!(
        faults.iter().all(|fault| fault.layer == Layer::Pte),
        "under QEMU only the layer pte can be played"
    );
    let setup = stage.setup(&Schedule::First, verbose)?;
    let plan: Vec<String> = faults.iter().map(Fault::to_string).collect();
    let records = Arc::new(Mutex::new(Vec::new()));
    let ((out, stdout), (err, stderr)) = (Sink::capture(), Sink::capture());
    let streams = Streams {
        stdin: Source::Bytes(Vec::new()),
        stdout: out,
        stderr: err,
        terminals: 0,
        window: None,
        signals: None,
    };
    let recorder = {
        let records = records.clone();
        move |record| lock(&records).push(record)
    };
    let request = Qemu {
        plan: plan.join("+"),
        timeout: Some(LIMIT),
        recorder: Some(Box::new(recorder)),
        gate: None,
        arguments: Vec::new(),
    };
    let played = under_qemu(setup, streams, request)?;
    let finish = match played.outcome.ending {
        _ if played.watch.lock().stuck => stuck(&played.watch),
        Ending::Program(_) => {
            let mut files = BTreeMap::new();
            for file in &stage.scenario.expect.files {
                let content = disk::file(&played.disk, &file.path)?;
                files.insert(file.path.clone(), content);
            }
            Finish::Off {
                observed: Observed {
                    status: played.outcome.ending.code(),
                    stdout: std::mem::take(&mut *lock(&stdout)),
                    stderr: std::mem::take(&mut *lock(&stderr)),
                    files,
                },
                tree: disk::tree(&played.disk)?,
            }
        }
        Ending::Stopped(Reason::Timeout) => Finish::Endless,
        Ending::Stopped(reason) => Finish::Died(format!("{reason:?}")),
        Ending::Guest(what) => Finish::Died(what),
    };
    let records = std::mem::take(&mut *lock(&records));
    let log = played.outcome.log;
    let accounts = log
        .iter()
        .find_map(|line| line.split_once(abi::lab::ACCOUNTS));
    let absent = |record: &&Record| record.kind() == Some(Kind::Absent);
    let watch = played.watch.lock();
    Ok(Played {
        ended: Ended {
            finish,
            accounts: accounts.map_or_else(String::new, |(_, held)| held.trim().into()),
            retries: records.iter().filter(absent).count() as u64,
            hash: watch.trail.map_or(0, |trail| trail.hash),
            took: played.outcome.elapsed,
            log,
        },
        records,
        applied: watch.plan.clone(),
    })
}

fn stuck(watch: &Watch) -> Finish {
    let graph = watch.table().map(|table| Graph::new(&table));
    Finish::Stuck {
        text: graph.as_ref().map(render::text).unwrap_or_default(),
        picture: graph.as_ref().map(render::svg).unwrap_or_default(),
        circle: graph.is_some_and(|graph| graph.cycle().is_some()),
    }
}

/// Number of the first point after the program's start.
fn first(records: &[Record]) -> u64 {
    let mut linux = Vec::new();
    let mut points = 0;
    for record in records {
        match record.kind() {
            Some(Kind::Process) if record.words[4] != 0 => linux.push(record.words[0] as u32),
            Some(Kind::Switch) if linux.contains(&record.pair().1) => break,
            Some(kind) if kind.is_point() => points = record.number() + 1,
            _ => {}
        }
    }
    points
}

/// Every page of every point, one run each, as [`super::engine::campaign`] does: `tell` gets the
/// rows.
pub fn campaign(
    stage: &Stage<'_>,
    options: &Options,
    mut tell: impl FnMut(Event) -> Result<()>,
) -> Result<()> {
    let base = play(stage, &[], false)?;
    let expect = &stage.scenario.expect;
    let reference = match judge::reference(expect, &base.ended) {
        Ok(reference) => reference,
        Err(judged) => {
            let row = row_of(stage, &base.ended, *judged, &[], &Schedule::First);
            return tell(Event::Row(Box::new(row)));
        }
    };
    let (explore, first) = (&stage.scenario.explore, first(&base.records));
    let mut filter = Filter::new(explore);
    let mut spots = Vec::new();
    for (at, record) in base.records.iter().enumerate() {
        let wanted = filter.wants(record) && record.number() >= first;
        if wanted && kind_of(record).is_some_and(|kind| options.kinds.contains(&kind)) {
            spots.push(at);
        }
    }
    let (shard, shards) = options.shard;
    let mut left = options.limit.unwrap_or(u64::MAX);
    for (index, at) in spread(spots, explore.limit).into_iter().enumerate() {
        if index as u64 % shards.max(1) != shard {
            continue;
        }
        for fault in faults(stage, &base.records[..=at]) {
            if left == 0 {
                return Ok(());
            }
            left -= 1;
            let played = play(stage, &[fault], false)?;
            let done = |line: &String| line.contains(abi::lab::PLAN_DONE);
            if !played.applied.iter().any(done) {
                tell(Event::Nothing)?;
                continue;
            }
            let judged = judge::judge(expect, Some(&reference), &played.ended, &[fault]);
            let told = told(&base.records, &[fault]);
            let row = row_of(stage, &played.ended, judged, &told, &Schedule::First);
            tell(Event::Row(Box::new(row)))?;
        }
        tell(Event::PointDone)?;
    }
    Ok(())
}

/// The faults of the point with which `records` end.
fn faults(stage: &Stage<'_>, records: &[Record]) -> Vec<Fault> {
    let Some((record, before)) = records.split_last() else {
        return Vec::new();
    };
    let mut faults = Vec::new();
    let sides = record.kind().map_or(&[][..], point::sides);
    let wanted = &stage.scenario.explore.sides;
    for &side in sides.iter().filter(|side| wanted.contains(side)) {
        let pages = point::range(record, side, before).map_or(0, |range| range.pages());
        for page in 0..u32::try_from(pages).unwrap_or(u32::MAX) {
            faults.push(Fault {
                point: record.number(),
                side,
                page,
                layer: Layer::Pte,
                give: Give::Asked,
            });
        }
    }
    faults
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}
