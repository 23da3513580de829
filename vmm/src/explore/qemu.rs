//! Scenarios under QEMU: every run boots, and the guest's kernel itself makes pages absent, in
//! page tables only.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use abi::trace::{self, Kind, Record};
use anyhow::{Result, ensure};

use super::base::{Base, Event, Options, row_of};
use super::expect::Observed;
use super::judge;
use super::row::Layer;
use super::run::{Ended, Finish, Stage};
use super::spots::{faults, spots};
use super::told::told;
use crate::control::Reason;
use crate::deterministic::{Qemu, under_qemu};
use crate::ending::Ending;
use crate::hostlink::Streams;
use crate::hostlink::input::Source;
use crate::hostlink::output::Sink;
use crate::inject::{Fault, Schedule, Target};
use crate::inspect::graph::Graph;
use crate::inspect::{drawing, render};
use crate::lab::disk;
use crate::qemu::watch::Watch;
use crate::sandbox::Sandbox;

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
        faults
            .iter()
            .all(|f| (f.layer == Layer::Pte || f.layer.refuses())
                && matches!(f.target, Target::Side(..))),
        "under QEMU only sides of points, and no other layer of pages than pte, can be played"
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
        report: None,
        sandbox: Sandbox::Thread,
    };
    // What is confined is so for good: a thread that ends with the run.
    let whole = || under_qemu(setup, streams, request);
    let played = std::thread::scope(|scope| scope.spawn(whole).join())
        .map_err(|_| anyhow::anyhow!("the machine's thread panicked"))??;
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
            told: told(&records, &log),
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
        picture: graph.as_ref().map(drawing::svg).unwrap_or_default(),
        circle: graph.is_some_and(|graph| graph.cycle().is_some()),
    }
}

/// Number of the first point after the program's start.
fn first(records: &[Record]) -> u64 {
    let mut linux = Vec::new();
    let mut points = 0;
    for record in records {
        match record.event() {
            Some(trace::Event::Process(process)) if process.linux => linux.push(process.who),
            Some(trace::Event::Switch(switch)) if linux.contains(&switch.ends.1) => break,
            Some(event) if event.actor().is_some() => points = record.number() + 1,
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
    ensure!(
        options.pairs == 0
            && options.schedules == 0
            && options.deviations == 0
            && options.pages.is_none(),
        "under QEMU there are neither pairs nor schedules, deviations or pages of processes"
    );
    let mut layers = options.layers.clone();
    layers.retain(|layer| layer.refuses());
    layers.push(Layer::Pte);
    let options = &Options {
        layers,
        ..options.clone()
    };
    let plain = play(stage, &[], false)?;
    let base = Base {
        reference: judge::reference(&stage.scenario.expect, &plain.ended),
        first: first(&plain.records),
        records: plain.records,
        ended: plain.ended,
    };
    let spots = spots(stage, options, &base);
    let header = Box::new(base.header(stage));
    tell(Event::Begun(header, spots.len() as u64))?;
    let reference = match &base.reference {
        Ok(reference) => reference,
        Err(judged) => {
            let row = row_of(
                stage,
                &base.ended,
                (**judged).clone(),
                &[],
                &Schedule::First,
            );
            return tell(Event::Row(Box::new(row)));
        }
    };
    let mut left = options.limit.unwrap_or(u64::MAX);
    for spot in spots {
        for fault in faults(stage, options, &base.records[..=spot.at]) {
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
            let expect = &stage.scenario.expect;
            let judged = judge::judge(expect, Some(reference), &played.ended, &[fault]);
            let told = (fault, spot.point.clone());
            let row = row_of(stage, &played.ended, judged, &[told], &Schedule::First);
            tell(Event::Row(Box::new(row)))?;
        }
        tell(Event::PointDone)?;
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}
