//! Runs in which things happen in another order. Each branches from the run in which every
//! decision is the first choice: where the program starts, or at the last point before the
//! decision that is another. Its token has the same run begin with a boot.

use std::sync::atomic::{AtomicUsize, Ordering};

use abi::trace::{Event, Record, random};
use anyhow::{Context, Result, ensure};

use super::base::Options;
use super::run::{Player, Stage};
use super::start::Start;
use crate::inject::{Schedule, Window};

/// The choices that differ from the first at decisions with no point between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch {
    /// The point before them; none where there is none since the program's start.
    pub point: Option<u64>,
    /// Decisions and choices.
    pub deviations: Vec<(u32, u32)>,
}

/// What a campaign tries of other orders, and who has got how far.
pub struct Orders {
    /// Where the program starts when every decision is the first choice.
    pub start: Start,
    /// In the order of their points.
    pub branches: Vec<Branch>,
    schedules: u64,
    next_branch: AtomicUsize,
    next_schedule: AtomicUsize,
}

impl Orders {
    /// What the options want; `None` if that is nothing.
    pub fn of(stage: &Stage<'_>, options: &Options) -> Result<Option<Orders>> {
        if options.deviations == 0 && options.schedules == 0 {
            return Ok(None);
        }
        let start = Start::of(stage, &Schedule::List(Vec::new()))?;
        let mut branches = Vec::new();
        if options.deviations > 0 {
            let mut player = start.player(stage)?;
            player.finish()?;
            branches = self::branches(player.records(), &start, options)?;
            start.spare(player);
        }
        Ok(Some(Orders {
            start,
            branches,
            schedules: options.schedules,
            next_branch: AtomicUsize::new(0),
            next_schedule: AtomicUsize::new(0),
        }))
    }

    /// How many branches and schedules there are.
    pub fn count(&self) -> u64 {
        self.branches.len() as u64 + self.schedules
    }

    /// The next branch that nobody has.
    pub fn next_branch(&self) -> Option<&Branch> {
        let next = self.next_branch.fetch_add(1, Ordering::Relaxed);
        self.branches.get(next)
    }

    /// The number of the next schedule that nobody has.
    pub fn next_schedule(&self) -> Option<u64> {
        let next = self.next_schedule.fetch_add(1, Ordering::Relaxed) as u64;
        (next < self.schedules).then_some(next)
    }

    /// The schedule of this number, and its seed: chance from the program's start on.
    pub fn schedule(&self, options: &Options, number: u64) -> (Schedule, u64) {
        let (shard, shards) = options.shard;
        let seed = random(options.seed, number * shards.max(1) + shard);
        let window = Window {
            start: self.start.decision,
            end: u64::MAX,
        };
        let schedule = match number % 2 {
            0 => Schedule::Random(seed, window),
            _ => Schedule::Priorities(seed, window),
        };
        (schedule, seed)
    }

    /// Goes on to where a branch begins. The machine stands where the program starts, or where one before it
    /// began.
    pub fn reach(player: &mut Player, branch: &Branch) -> Result<()> {
        if let Some(point) = branch.point {
            let reached = player.reach(point)?;
            ensure!(
                reached,
                "point {point} was not reached again: the run is not deterministic"
            );
        }
        Ok(())
    }
}

/// All single deviations from the first choice, at the decisions that the options want: this
/// shard's part of them. `records` are of the run without any.
fn branches(records: &[Record], start: &Start, options: &Options) -> Result<Vec<Branch>> {
    let (shard, shards) = options.shard;
    let mut branches: Vec<Branch> = Vec::new();
    let (mut point, mut left, mut index) = (None, options.deviations, 0);
    for record in records {
        let number = record.number();
        match record.event() {
            Some(event) if event.actor().is_some() && number >= start.point => {
                point = Some(number);
            }
            Some(Event::Choice(made)) if number >= start.decision => {
                if left == 0 {
                    break;
                }
                left -= 1;
                let number = u32::try_from(number).context("so many decisions")?;
                for choice in 1..u32::try_from(made.choices).context("so many choices")? {
                    index += 1;
                    if (index - 1) % shards.max(1) != shard {
                        continue;
                    }
                    match branches.last_mut().filter(|last| last.point == point) {
                        Some(branch) => branch.deviations.push((number, choice)),
                        None => branches.push(Branch {
                            point,
                            deviations: vec![(number, choice)],
                        }),
                    }
                }
            }
            _ => {}
        }
    }
    Ok(branches)
}
