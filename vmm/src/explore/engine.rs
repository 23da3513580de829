//! The campaign: the run without a fault, then every fault at every point and other orders of
//! things, each from a snapshot of the moment before.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use abi::trace::{Kind, Record, random};
use anyhow::{Context, Result, anyhow, ensure};

use super::judge::{self, Judged, Reference};
use super::orders::{Branch, Orders};
use super::row::{self, Baseline, Give, Hash, Header, Layer, PointKind, Row};
use super::run::{Ended, Player, Stage};
use super::spots::{Pages, Spot, faults, page_faults, spots, told};
use super::start::Start;
use crate::inject::{Applied, Fault, Plan, PointName, Schedule};
use crate::trace::words::Names;

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
    fn of(stage: &Stage<'_>, player: &mut Player, first: u64) -> Result<Base> {
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
        .map(|images| images.archive(Vec::new()))
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

/// Runs a whole campaign over one scenario under one policy. `tell` gets every event in turn.
pub fn campaign(
    stage: &Stage<'_>,
    options: &Options,
    mut tell: impl FnMut(Event) -> Result<()>,
) -> Result<()> {
    if stage.emulated {
        return super::qemu::campaign(stage, options, tell);
    }
    let (start, base, orders) = begin(stage, options)?;
    let spots = spots(stage, options, &base);
    let mut header = base.header(stage);
    header.runs = 0;
    let orders_count = orders.as_ref().map_or(0, Orders::count);
    tell(Event::Begun(
        Box::new(header),
        spots.len() as u64 + orders_count,
    ))?;
    if let Err(judged) = &base.reference {
        // Nothing to compare with, and nothing more to learn: the plain run is the finding.
        let row = row_of(
            stage,
            &base.ended,
            (**judged).clone(),
            &[],
            &Schedule::First,
        );
        return tell(Event::Row(Box::new(row)));
    }
    let shared = Shared {
        stage,
        options,
        start: &start,
        base: &base,
        spots: &spots,
        orders: orders.as_ref(),
        next: AtomicUsize::new(0),
        runs: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
    };
    thread::scope(|scope| {
        let (send, receive) = channel();
        let workers: Vec<_> = (0..options.jobs.max(1))
            .map(|_| {
                let (shared, send) = (&shared, send.clone());
                scope.spawn(move || {
                    let result = shared.work(&send);
                    if result.is_err() {
                        shared.stop.store(true, Ordering::Relaxed);
                    }
                    result
                })
            })
            .collect();
        drop(send);
        let told = receive.into_iter().try_for_each(&mut tell);
        if told.is_err() {
            shared.stop.store(true, Ordering::Relaxed);
        }
        for worker in workers {
            worker
                .join()
                .map_err(|_| anyhow!("a worker of the campaign panicked"))??;
        }
        told
    })
}

/// The two boots of a campaign: of the run without a fault, which is run to its end, and where
/// they are wanted of other orders of things. At the same time, if two machines may run.
fn begin(stage: &Stage<'_>, options: &Options) -> Result<(Start, Base, Option<Orders>)> {
    let plain = || -> Result<(Start, Base)> {
        let start = Start::of(stage, &Schedule::First)?;
        let mut player = start.player(stage)?;
        let base = Base::of(stage, &mut player, start.point)?;
        start.spare(player);
        Ok((start, base))
    };
    if options.jobs < 2 {
        let (start, base) = plain()?;
        return Ok((start, base, Orders::of(stage, options)?));
    }
    thread::scope(|scope| {
        let orders = scope.spawn(|| Orders::of(stage, options));
        let plain = plain();
        let orders = orders.join();
        let orders = orders.map_err(|_| anyhow!("a worker of the campaign panicked"))?;
        let (start, base) = plain?;
        Ok((start, base, orders?))
    })
}

/// The processes that a trace names.
pub fn names(records: &[Record]) -> Names {
    let mut names = Names::default();
    records.iter().for_each(|record| names.learn(record));
    names
}

/// What the workers share.
struct Shared<'a> {
    stage: &'a Stage<'a>,
    options: &'a Options,
    start: &'a Start,
    base: &'a Base,
    spots: &'a [Spot],
    orders: Option<&'a Orders>,
    next: AtomicUsize,
    runs: AtomicUsize,
    stop: AtomicBool,
}

impl Shared<'_> {
    fn work(&self, send: &Sender<Event>) -> Result<()> {
        self.points(send)?;
        let Some(orders) = self.orders else {
            return Ok(());
        };
        let mut machine = None;
        self.deviations(orders, &mut machine, send)?;
        self.schedules(orders, &mut machine, send)
    }

    /// Runs in which one decision is another. The machine only ever goes forward, with a side
    /// trip for each.
    fn deviations(
        &self,
        orders: &Orders,
        machine: &mut Option<Player>,
        send: &Sender<Event>,
    ) -> Result<()> {
        while let Some(branch) = orders.next_branch().filter(|_| !self.stopped()) {
            let player = self.machine(machine, &orders.start)?;
            Orders::reach(player, branch)?;
            self.deviate(player, branch, send)?;
            let _ = send.send(Event::PointDone);
        }
        Ok(())
    }

    fn deviate(&self, player: &mut Player, branch: &Branch, send: &Sender<Event>) -> Result<()> {
        let before = player.snapshot()?;
        for &deviation in &branch.deviations {
            if self.stopped() || !self.may_run() {
                return Ok(());
            }
            let schedule = Schedule::List(vec![deviation]);
            player.decide_by(&schedule)?;
            let ended = player.finish()?;
            let _ = send.send(Event::Row(Box::new(self.row(&ended, &[], &schedule))));
            player.restore(&before)?;
        }
        Ok(())
    }

    /// This worker's machine, made where the program starts when it has none.
    fn machine<'m>(
        &self,
        machine: &'m mut Option<Player>,
        start: &Start,
    ) -> Result<&'m mut Player> {
        Ok(match machine {
            Some(player) => player,
            None => {
                let mut player = start.player(self.stage)?;
                player.set_budget(self.base.budget());
                machine.insert(player)
            }
        })
    }

    /// Whether another run may begin.
    fn may_run(&self) -> bool {
        if self.stop.load(Ordering::Relaxed) {
            return false;
        }
        let number = self.runs.fetch_add(1, Ordering::Relaxed) as u64;
        self.options.limit.is_none_or(|limit| number < limit)
    }

    fn stopped(&self) -> bool {
        let runs = self.runs.load(Ordering::Relaxed) as u64;
        self.stop.load(Ordering::Relaxed) || self.options.limit.is_some_and(|limit| runs >= limit)
    }

    /// One machine, which only ever goes forward: from point to point of the run without a
    /// fault, with a side trip for every fault.
    fn points(&self, send: &Sender<Event>) -> Result<()> {
        let mut machine = None;
        loop {
            let next = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(spot) = self.spots.get(next).filter(|_| !self.stopped()) else {
                return Ok(());
            };
            let player = self.machine(&mut machine, self.start)?;
            self.explore(player, spot, send)?;
            // Who no longer listens has said why.
            let _ = send.send(Event::PointDone);
        }
    }

    /// Every fault of one point.
    fn explore(&self, player: &mut Player, spot: &Spot, send: &Sender<Event>) -> Result<()> {
        let reached = player.reach(spot.number)?;
        ensure!(
            reached,
            "point {} was not reached again: the run is not deterministic",
            spot.number
        );
        let before = player.snapshot()?;
        let all = match (&self.options.pages, self.options.limit) {
            (None, _) => faults(self.stage, self.options, &self.base.records[..=spot.at]),
            (_, limit) => {
                let most = limit.map_or(u64::MAX, |limit| limit.div_ceil(self.spots.len() as u64));
                page_faults(player, self.options, spot.number, most)?
            }
        };
        for fault in all {
            if !self.stopped() {
                self.side_trip(player, &[fault], std::slice::from_ref(&spot.point), send)?;
                player.restore(&before)?;
            }
            if self.options.pairs > 0 {
                self.pairs(player, fault, &spot.point, send)?;
                player.restore(&before)?;
            }
        }
        Ok(())
    }

    /// Applies the last of `faults`, of which the others are in effect already, and runs to the
    /// end.
    fn side_trip(
        &self,
        player: &mut Player,
        faults: &[Fault],
        points: &[row::Point],
        send: &Sender<Event>,
    ) -> Result<()> {
        let (last, _) = faults.split_last().context("a fault")?;
        let event = match player.apply(last)? {
            Applied::Nothing(_) => Event::Nothing,
            Applied::Done { .. } | Applied::Refused { .. } if !self.may_run() => return Ok(()),
            Applied::Done { .. } | Applied::Refused { .. } => {
                let told: Vec<_> =
                    std::iter::zip(faults.iter().copied(), points.iter().cloned()).collect();
                let ended = player.finish()?;
                Event::Row(Box::new(self.row(&ended, &told, &Schedule::First)))
            }
        };
        let _ = send.send(event);
        Ok(())
    }

    /// A second fault at each of the next points after the first.
    fn pairs(
        &self,
        player: &mut Player,
        first: Fault,
        point: &row::Point,
        send: &Sender<Event>,
    ) -> Result<()> {
        if player.apply(&first)? == Applied::Nothing("the page is absent already") {
            return Ok(());
        }
        for number in first.point + 1..=first.point + self.options.pairs {
            if self.stopped() || !player.reach(number)? {
                return Ok(());
            }
            let here = player.snapshot()?;
            let records = player.records().to_vec();
            let at = records
                .iter()
                .rposition(|r| r.kind().is_some_and(Kind::is_point));
            let upto = at.map_or(&[][..], |at| &records[..=at]);
            let all = faults(self.stage, self.options, upto);
            let Some((_, here_point)) = told(upto, self.base.first, &all).into_iter().next() else {
                continue;
            };
            let points = [point.clone(), here_point];
            for second in all {
                if self.stopped() {
                    return Ok(());
                }
                self.side_trip(player, &[first, second], &points, send)?;
                player.restore(&here)?;
            }
        }
        Ok(())
    }

    /// Runs in another order, each with a fault somewhere in it every second time.
    fn schedules(
        &self,
        orders: &Orders,
        machine: &mut Option<Player>,
        send: &Sender<Event>,
    ) -> Result<()> {
        while let Some(number) = orders.next_schedule() {
            if self.stopped() || !self.may_run() {
                return Ok(());
            }
            let player = self.machine(machine, &orders.start)?;
            orders.start.put_back(player)?;
            let (schedule, seed) = orders.schedule(self.options, number);
            let row = self.scheduled(player, orders.start.point, &schedule, seed)?;
            let _ = send.send(Event::Row(Box::new(row)));
            let _ = send.send(Event::PointDone);
        }
        Ok(())
    }

    fn scheduled(
        &self,
        player: &mut Player,
        start: u64,
        schedule: &Schedule,
        seed: u64,
    ) -> Result<Row> {
        player.decide_by(schedule)?;
        let mut with = Vec::new();
        if seed.is_multiple_of(2) {
            // Somewhere in the run; the order of things decides what is there.
            let span = self.base.points().saturating_sub(self.base.first).max(1);
            let number = start + random(seed, 1) % span;
            if player.reach(number)? {
                let records = player.records().to_vec();
                let all = faults(self.stage, self.options, &records);
                let fault = all.get((random(seed, 2) % all.len().max(1) as u64) as usize);
                if let Some(fault) = fault
                    && !matches!(player.apply(fault)?, Applied::Nothing(_))
                {
                    with = told(&records, start, &[*fault]);
                }
            }
        }
        let ended = player.finish()?;
        Ok(self.row(&ended, &with, schedule))
    }

    fn row(&self, ended: &Ended, told: &[(Fault, row::Point)], schedule: &Schedule) -> Row {
        let reference = self.base.reference.as_ref().ok();
        let faults: Vec<Fault> = told.iter().map(|(fault, _)| *fault).collect();
        let judged = judge::judge(&self.stage.scenario.expect, reference, ended, &faults);
        row_of(self.stage, ended, judged, told, schedule)
    }
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
    let made = records.iter().filter(|r| r.kind() == Some(Kind::Decision));
    made.filter(|r| r.words[3] != 0)
        .filter_map(|r| Some((u32::try_from(r.number()).ok()?, r.words[3] as u32)))
        .collect()
}
