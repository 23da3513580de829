//! Makes a plan smaller as long as it comes to the same: faults and decisions that do not matter
//! are dropped.

use anyhow::{Result, ensure};

use super::base::{self, Base};
use super::judge::{self, Judged};
use super::row::Verdict;
use super::run::{Stage, play};
use crate::inject::{Plan, Schedule, Window};

use abi::trace::{CHOICES, Record};

/// A smaller plan and what was tried for it.
#[derive(Clone, Debug)]
pub struct Minimized {
    /// The plan.
    pub plan: Plan,
    /// What it comes to.
    pub verdict: Verdict,
    /// Runs it took.
    pub runs: u64,
    /// Its trace.
    pub records: Vec<Record>,
    /// Number of the first point after the program's start.
    pub start: u64,
}

struct Search<'a> {
    stage: &'a Stage<'a>,
    base: &'a Base,
    wanted: Verdict,
    runs: u64,
}

/// What a plan comes to, and the decisions it made.
fn outcome(stage: &Stage<'_>, base: &Base, plan: &Plan) -> Result<(Judged, Vec<(u32, u32)>)> {
    let played = play(stage, plan, base.budget(), false)?;
    let faults: Vec<_> = played.applied.iter().map(|(fault, _)| *fault).collect();
    let reference = base.reference.as_ref().ok();
    let judged = judge::judge(&stage.scenario.expect, reference, &played.ended, &faults);
    Ok((judged, base::decisions(played.player.records())))
}

impl Search<'_> {
    /// Whether this plan comes to the same. One that cannot be played does not.
    fn same(&mut self, plan: &Plan) -> bool {
        self.runs += 1;
        outcome(self.stage, self.base, plan).is_ok_and(|(judged, _)| judged.verdict == self.wanted)
    }

    /// Drops the faults that do not matter.
    fn faults(&mut self, plan: &mut Plan) {
        let mut at = 0;
        while at < plan.faults.len() {
            let mut without = plan.clone();
            without.faults.remove(at);
            if self.same(&without) {
                *plan = without;
            } else {
                at += 1;
            }
        }
    }

    /// Replaces chance by nothing, or by as little of it as will do.
    fn schedule(&mut self, plan: &mut Plan) -> Result<()> {
        let with = |plan: &Plan, schedule| Plan {
            schedule,
            ..plan.clone()
        };
        if plan.schedule != Schedule::First {
            let first = with(plan, Schedule::First);
            if self.same(&first) {
                *plan = first;
                return Ok(());
            }
        }
        if let Schedule::Random(seed, window) | Schedule::Priorities(seed, window) = plan.schedule {
            let random = matches!(plan.schedule, Schedule::Random(..));
            let window = self.window(plan, seed, window, random)?;
            let narrow = if random {
                Schedule::Random(seed, window)
            } else {
                Schedule::Priorities(seed, window)
            };
            plan.schedule = narrow;
            let (_, made) = outcome(self.stage, self.base, plan)?;
            if made.len() <= CHOICES {
                let list = with(plan, Schedule::List(made));
                if self.same(&list) {
                    *plan = list;
                }
            }
        }
        if let Schedule::List(list) = plan.schedule.clone() {
            let mut list = list;
            let mut piece = list.len().div_ceil(2).max(1);
            // In ever smaller pieces, as in delta debugging.
            loop {
                let mut at = 0;
                while at < list.len() {
                    let mut fewer = list.clone();
                    fewer.drain(at..(at + piece).min(fewer.len()));
                    if self.same(&with(plan, Schedule::List(fewer.clone()))) {
                        list = fewer;
                    } else {
                        at += piece;
                    }
                }
                if piece == 1 {
                    break;
                }
                piece = piece.div_ceil(2);
            }
            plan.schedule = Schedule::List(list);
        }
        Ok(())
    }

    /// The smallest window of decisions that bisection finds.
    fn window(&mut self, plan: &Plan, seed: u64, window: Window, random: bool) -> Result<Window> {
        let (_, made) = outcome(self.stage, self.base, plan)?;
        let last = made.last().map_or(0, |&(number, _)| u64::from(number) + 1);
        let mut window = Window {
            start: window.start,
            end: window.end.min(last),
        };
        let still = |search: &mut Self, window| {
            let schedule = if random {
                Schedule::Random(seed, window)
            } else {
                Schedule::Priorities(seed, window)
            };
            search.same(&Plan {
                schedule,
                ..plan.clone()
            })
        };
        let mut step = (window.end - window.start) / 2;
        while step > 0 {
            let later = Window {
                start: window.start + step,
                ..window
            };
            let sooner = Window {
                end: window.end - step,
                ..window
            };
            if later.start < later.end && still(self, later) {
                window = later;
            } else if sooner.start < sooner.end && still(self, sooner) {
                window = sooner;
            } else {
                step /= 2;
            }
        }
        Ok(window)
    }
}

/// Makes `plan` smaller. It must come to something other than [`Verdict::Ok`].
pub fn minimize(stage: &Stage<'_>, plan: &Plan) -> Result<Minimized> {
    let base = base::base(stage, &Schedule::First, false)?;
    let (judged, _) = outcome(stage, &base, plan)?;
    ensure!(
        judged.verdict != Verdict::Ok,
        "{plan} comes to \"ok\": there is nothing to keep"
    );
    let mut search = Search {
        stage,
        base: &base,
        wanted: judged.verdict,
        runs: 1,
    };
    let mut plan = plan.clone();
    search.faults(&mut plan);
    search.schedule(&mut plan)?;
    // Without chance some faults may have become superfluous.
    search.faults(&mut plan);
    let played = play(stage, &plan, base.budget(), false)?;
    Ok(Minimized {
        records: played.player.records().to_vec(),
        start: played.start,
        plan,
        verdict: judged.verdict,
        runs: search.runs,
    })
}
