//! What campaigns, searches and single runs have in common: what is asked for, the run without a fault that others are
//! compared with, and the row of a run.

use abi::trace::{self, Kind, Record};
use anyhow::Result;

use super::judge::{self, Judged, Reference};
use super::row::{self, Baseline, Give, Hash, Header, Layer, PointKind, Row};
use super::run::{Ended, Player, Stage};
use crate::inject::{Fault, Plan, PointName, Schedule};

/// What executes laboratory machines.
pub const PLATFORM: &str = "kvm";

/// What executes the machines of a stage.
pub fn platform(stage: &Stage<'_>) -> &'static str {
    if stage.emulated { "qemu" } else { PLATFORM }
}

/// What to explore, beside what the scenario says.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where pages are made absent.
    pub layers: Vec<Layer>,
    /// Kinds of points.
    pub kinds: Vec<PointKind>,
    /// Only points of these names; all if empty.
    pub at: Vec<PointName>,
    /// At each point these pages, instead of those that the point is about.
    pub pages: Option<Pages>,
    /// When withdrawn frames come back.
    pub give: Give,
    /// Second faults at up to this many points after each first one.
    pub pairs: u64,
    /// Runs with other schedules.
    pub schedules: u64,
    /// Every other choice at each of this many decisions after the program's start, one at a
    /// time.
    pub deviations: u64,
    /// Seed of whatever is left to chance.
    pub seed: u64,
    /// Machines at once.
    pub jobs: usize,
    /// Runs at most.
    pub limit: Option<u64>,
    /// Part of the whole: number from 0, and of how many.
    pub shard: (u64, u64),
}

/// Pages that are made absent at every point, whatever the point is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pages {
    /// Of every process but VM.
    All,
    /// Of programs.
    Programs,
    /// Of the processes of this name.
    Of(String),
}

impl std::str::FromStr for Pages {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Pages, Self::Err> {
        Ok(match text {
            "all" => Pages::All,
            "program" => Pages::Programs,
            name => Pages::Of(name.into()),
        })
    }
}

/// What a campaign tells while it goes on.
#[derive(Clone, Debug)]
pub enum Event {
    /// The run without a fault is done, and this many points are to be explored.
    Begun(Box<Header>, u64),
    /// A run ended.
    Row(Box<Row>),
    /// A fault had no effect, because the page was absent or is none of RAM.
    Nothing,
    /// All faults of a point are done.
    PointDone,
}

/// The run without a fault.
pub struct Base {
    /// What runs are compared with; why there is nothing to compare with.
    pub reference: Result<Reference, Box<Judged>>,
    /// Its trace.
    pub records: Vec<Record>,
    /// How it ended.
    pub ended: Ended,
    /// Number of the first point after the program's start.
    pub first: u64,
}

/// Runs the scenario without a fault.
pub fn base(stage: &Stage<'_>, schedule: &Schedule, verbose: bool) -> Result<Base> {
    let mut player = Player::new(stage, schedule, verbose)?;
    let first = player.start()?;
    Base::of(stage, &mut player, first)
}

/// See [`Base::budget`].
pub fn budget(points: u64) -> u64 {
    points * 4 + 20_000
}

impl Base {
    /// From where the program starts, at point `first`, to the end.
    pub(super) fn of(stage: &Stage<'_>, player: &mut Player, first: u64) -> Result<Base> {
        let ended = player.finish()?;
        Ok(Base {
            reference: judge::reference(&stage.scenario.expect, &ended),
            records: player.records().to_vec(),
            ended,
            first,
        })
    }

    /// Points passed in all.
    pub fn points(&self) -> u64 {
        let last = self.records.iter().rev();
        let mut points = last.filter(|r| r.kind().is_some_and(Kind::is_point));
        points.next().map_or(0, |point| point.number() + 1)
    }

    /// At which point a run counts as endless: generously more than this one needed.
    pub fn budget(&self) -> u64 {
        budget(self.points())
    }

    /// The campaign's header.
    pub fn header(&self, stage: &Stage<'_>) -> Header {
        let (status, stdout) = match &self.reference {
            Ok(reference) => (
                reference.observed.status,
                reference.observed.stdout.as_slice(),
            ),
            Err(_) => (crate::ending::FAILED, &[][..]),
        };
        let output = crate::lab::disk::hash(stdout);
        Header {
            scenario: stage.scenario.name.clone(),
            description: stage.scenario.description.clone(),
            policy: stage.policy.name().into(),
            platform: platform(stage).into(),
            build: build(),
            baseline: Baseline {
                output: Hash(output ^ u64::from(status)),
                records: Hash(self.ended.hash),
                points: self.points(),
                status,
                stdout: String::from_utf8_lossy(stdout).chars().take(2000).collect(),
            },
            runs: 0,
        }
    }
}

/// Which guest images this binary carries, in a few digits: a token of another build may mean
/// something else.
pub fn build() -> String {
    let hash = crate::images::GuestImages::load()
        .ok()
        .map(|images| images.archive(Vec::new(), ""))
        .map_or(0, |(kernel, archive)| {
            let mut hash = crate::lab::disk::hash(&kernel);
            // The archive's writer hands out its bytes in order.
            let _ = archive.write(|offset, bytes| {
                hash = hash.rotate_left(7) ^ crate::lab::disk::hash(bytes) ^ offset;
                Ok(())
            });
            hash
        });
    format!("{hash:016x}")
}

/// The row of a run.
pub fn row_of(
    stage: &Stage<'_>,
    ended: &Ended,
    judged: Judged,
    faults: &[(Fault, row::Point)],
    schedule: &Schedule,
) -> Row {
    let plan = Plan {
        scenario: stage.scenario.name.clone(),
        policy: stage.policy,
        faults: faults.iter().map(|(fault, _)| *fault).collect(),
        schedule: schedule.clone(),
    };
    let portable = match faults.is_empty() {
        true => String::new(),
        false => plan
            .at(faults.iter().map(|(_, point)| &point.name))
            .to_string(),
    };
    Row {
        token: plan.to_string(),
        portable,
        scenario: plan.scenario,
        policy: plan.policy.name().into(),
        platform: platform(stage).into(),
        faults: faults
            .iter()
            .map(|(fault, point)| row::Fault {
                point: point.clone(),
                target: fault.target,
                layer: fault.layer,
                give: fault.give,
            })
            .collect(),
        schedule: schedule.to_string(),
        verdict: judged.verdict,
        surfaced: judged.surfaced,
        detail: judged.detail,
        cycle: judged.cycle.0,
        picture: judged.cycle.1,
        retries: ended.retries,
        micros: u64::try_from(ended.took.as_micros()).unwrap_or(u64::MAX),
    }
}

/// The decisions of a run that differ from the first choice, as a list: the same run, and one
/// that can be made shorter.
pub fn decisions(records: &[Record]) -> Vec<(u32, u32)> {
    let made = records.iter().filter_map(|record| match record.event()? {
        trace::Event::Choice(made) if made.choice != 0 => Some((record.number(), made.choice)),
        _ => None,
    });
    made.filter_map(|(number, choice)| Some((number.try_into().ok()?, choice.try_into().ok()?)))
        .collect()
}
