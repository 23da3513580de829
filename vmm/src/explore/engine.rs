//! The campaign: the run without a fault, then every fault at every point and other orders of
//! things, each from a snapshot of the moment before.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use abi::trace::{Kind, random};
use anyhow::{Context, Result, anyhow, ensure};

use super::judge;
use super::orders::{Branch, Orders};
use super::row::{self, Row};
use super::run::{Ended, Player, Stage};
use super::spots::{Spot, faults, page_faults, spots, told};
use super::start::Start;
use crate::inject::{Applied, Fault, Schedule};

pub use super::base::{
    Base, Event, Options, PLATFORM, base, budget, build, decisions, platform, row_of,
};
pub use super::told::names;

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
