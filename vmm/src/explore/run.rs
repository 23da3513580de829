//! One machine that plays a scenario, from a plan to what it came to.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use abi::boot::{CMDLINE_ALLOCATIONS, CMDLINE_COPY, CMDLINE_DETERMINISTIC, run_flags};
use abi::policy::CopyPolicy;
use abi::sabotage::CMDLINE_SABOTAGE;
use abi::trace::{Control, Kind, NEVER, Record};
use anyhow::{Context, Result, bail, ensure};

use super::expect::Observed;
use super::row::Surfaced;
use super::scenario::Scenario;
use super::told::told;
use crate::devices::disk::Overlay;
use crate::images::{GuestImages, RunSpecification};
use crate::inject::withdrawn::Withdrawals;
use crate::inject::{Applied, Fault, Plan, Schedule, apply};
use crate::inspect::graph::Graph;
use crate::inspect::{drawing, render};
use crate::kvm::gate::Gate;
use crate::lab::disk::{self, Node};
use crate::lab::{EPOCH_NS, Machine, Setup, Snapshot, Stop};
use crate::log::{KEPT, Log};

/// Entropy of every laboratory machine.
const SEED: [u64; 4] = [1, 2, 3, 4];
/// So much of its thread's time without a record is a hang. A host that is emulated itself takes long for a run,
/// but not between two records.
const SILENCE: Duration = Duration::from_secs(20);
/// So many times as much is too long for any stay in the guest, whatever is recorded.
const STAYS: u32 = 20;

/// How machines for a scenario are made.
#[derive(Clone, Debug)]
pub struct Stage<'a> {
    /// The scenario.
    pub scenario: &'a Scenario,
    /// What copies do.
    pub policy: CopyPolicy,
    /// The gate, when it is not to be measured.
    pub gate: Option<Gate>,
    /// Deliberate defects, by name, with commas between them.
    pub sabotage: String,
    /// Where compiled programs are kept.
    pub cache: &'a Path,
    /// Under QEMU ([`super::qemu`]) and not on KVM.
    pub emulated: bool,
    /// Servers' allocations are points, and change the numbers of all others.
    pub allocations: bool,
}

impl Stage<'_> {
    /// A machine's setup. `verbose` prints the guest's log.
    pub fn setup(&self, schedule: &Schedule, verbose: bool) -> Result<Setup> {
        let run = &self.scenario.run;
        ensure!(
            run.stdin.is_empty(),
            "scenario {}: a laboratory machine has no standard input: put it into a file",
            self.scenario.name
        );
        let specification = RunSpecification {
            args: run.program.iter().map(|a| a.clone().into()).collect(),
            env: run
                .env
                .iter()
                .map(|(name, value)| format!("{name}={value}").into_bytes())
                .collect(),
            cwd: run.cwd.clone().into(),
            epoch_ns: EPOCH_NS,
            seed: SEED,
            flags: run_flags::DETERMINISTIC,
            ..RunSpecification::default()
        };
        let (kernel, archive) = GuestImages::load()?.archive(specification.encode()?, "");
        let mut cmdline = format!(
            "{CMDLINE_COPY}{} {CMDLINE_DETERMINISTIC}",
            self.policy.name()
        );
        if self.allocations {
            cmdline += &format!(" {CMDLINE_ALLOCATIONS}");
        }
        if !self.sabotage.is_empty() {
            cmdline += &format!(" {CMDLINE_SABOTAGE}{}", self.sabotage);
        }
        let mut control = Control {
            on: 1,
            ask: NEVER,
            ..Control::OFF
        };
        schedule.fill(&mut control);
        let image = self.scenario.prepared(self.cache)?;
        Ok(Setup {
            kernel,
            archive,
            cmdline,
            memory: run.memory,
            disk: Some(Overlay::new(image.disk()?.file).context("the root disk")?),
            gate: self.gate,
            control,
            log: Arc::new(Log::new(verbose, KEPT)),
        })
    }
}

/// How a run ended, before it is judged.
#[derive(Clone, Debug)]
pub enum Finish {
    /// The program ended and the machine powered off.
    Off {
        /// What it left.
        observed: Observed,
        /// The disk, by path.
        tree: BTreeMap<String, Node>,
    },
    /// Nobody can run any more.
    Stuck {
        /// Who waits for whom.
        text: String,
        /// The same as a drawing.
        picture: String,
        /// Whether there is a circle.
        circle: bool,
    },
    /// It goes on for much longer than the run without a fault.
    Endless,
    /// It did not stop in time ([`Player::run`]).
    Hang,
    /// Kernel or a server died, or the machine did; in words.
    Died(String),
}

/// A run.
#[derive(Clone, Debug)]
pub struct Ended {
    /// How it ended.
    pub finish: Finish,
    /// What the system still held at its end, in its own words.
    pub accounts: String,
    /// The last lines of its log.
    pub log: Vec<String>,
    /// What programs were told of refused memory.
    pub told: Vec<Surfaced>,
    /// Copies that failed softly or parked their copier.
    pub retries: u64,
    /// Hash of the whole trace.
    pub hash: u64,
    /// Wall time of the part that was run.
    pub took: Duration,
}

/// A moment of a run, to return to.
pub struct Moment {
    machine: Snapshot,
    /// What the guest has said since the program's start.
    log: Vec<String>,
}

/// A machine that plays a scenario.
pub struct Player {
    machine: Machine,
    withdrawals: Withdrawals,
    log: Arc<Log>,
    /// Paths that are read from the disk at the end.
    files: Vec<String>,
    /// Point at which a run counts as endless.
    budget: u64,
    /// How the run ended on the way to a point.
    early: Option<Stop>,
}

impl Player {
    /// A machine that is about to boot.
    pub fn new(stage: &Stage<'_>, schedule: &Schedule, verbose: bool) -> Result<Player> {
        Player::of(stage, &stage.setup(schedule, verbose)?)
    }

    /// One of a setup of this stage.
    pub(super) fn of(stage: &Stage<'_>, setup: &Setup) -> Result<Player> {
        let mut machine = Machine::boot(setup)?;
        let withdrawals = Withdrawals::default();
        machine.absences = Box::new(withdrawals.clone());
        let files = stage.scenario.expect.files.iter();
        Ok(Player {
            machine,
            withdrawals,
            log: setup.log.clone(),
            files: files.map(|file| file.path.clone()).collect(),
            budget: NEVER,
            early: None,
        })
    }

    /// The machine.
    pub fn machine(&mut self) -> &mut Machine {
        &mut self.machine
    }

    /// The frames that are missing.
    pub fn withdrawals(&self) -> &Withdrawals {
        &self.withdrawals
    }

    /// The trace so far.
    pub fn records(&self) -> &[Record] {
        self.machine.records()
    }

    /// From now on a run that passes this point is endless.
    pub fn set_budget(&mut self, point: u64) {
        self.budget = point;
    }

    /// From now on decisions are made so. The machine must have been made for a schedule that
    /// decides: one without decisions counts none.
    pub fn decide_by(&mut self, schedule: &Schedule) -> Result<()> {
        let mut control = self.machine.control().context("the kernel's control")?;
        schedule.fill(&mut control);
        Ok(self.machine.set_control(&control)?)
    }

    /// Runs until the guest stops. It hangs when nothing is recorded for 20 s of this thread's time, or when it has not
    /// stopped after 400 s.
    pub fn run(&mut self) -> Result<Stop> {
        let recorded = |machine: &Machine| machine.control().map(|control| control.records);
        for _ in 0..STAYS {
            let before = recorded(&self.machine);
            let stop = self.machine.run(SILENCE)?;
            if stop != Stop::Hang || recorded(&self.machine) == before {
                return Ok(stop);
            }
        }
        Ok(Stop::Hang)
    }

    /// Runs up to PROGRAM's first instruction; the number of the next point.
    pub fn start(&mut self) -> Result<u64> {
        match self.run()? {
            Stop::Started => {
                self.log.clear();
                let control = self.machine.control();
                Ok(control.context("the kernel's control")?.points)
            }
            stop => {
                let log = self.log.kept().join("\n");
                bail!("the guest does not come up: {stop:?}\n{log}")
            }
        }
    }

    /// Runs up to this point; false when the run ends before.
    pub fn reach(&mut self, point: u64) -> Result<bool> {
        self.machine.ask(point)?;
        let stop = self.run()?;
        let reached = stop == Stop::Point(point);
        if !reached {
            self.early = Some(stop);
        }
        Ok(reached)
    }

    /// Everything as it is now.
    pub fn snapshot(&mut self) -> Result<Moment> {
        Ok(Moment {
            machine: self.machine.snapshot()?,
            log: self.log.kept(),
        })
    }

    /// Back to a snapshot.
    pub fn restore(&mut self, moment: &Moment) -> Result<()> {
        self.withdrawals.clear();
        self.early = None;
        self.log.rewind(&moment.log);
        self.machine.restore(&moment.machine)?;
        Ok(())
    }

    /// Makes a page absent. The machine stands at the fault's point.
    pub fn apply(&mut self, fault: &Fault) -> Result<Applied> {
        Ok(apply(&mut self.machine, &self.withdrawals, fault)?)
    }

    /// Runs to the end.
    pub fn finish(&mut self) -> Result<Ended> {
        let begun = Instant::now();
        self.machine.ask(self.budget)?;
        let mut stop = match self.early.take() {
            Some(stop) => stop,
            None => self.run()?,
        };
        while stop == Stop::Started {
            stop = self.run()?;
        }
        let finish = self.finished(stop)?;
        let log = self.log.kept();
        let accounts = log
            .iter()
            .find_map(|line| line.split_once(abi::lab::ACCOUNTS));
        let failed = |r: &&Record| r.kind() == Some(Kind::Absent);
        Ok(Ended {
            finish,
            accounts: accounts.map_or_else(String::new, |(_, held)| held.trim().into()),
            retries: self.records().iter().filter(failed).count() as u64,
            hash: self.machine.control().map_or(0, |control| control.hash),
            told: told(self.records(), &log),
            log,
            took: begun.elapsed(),
        })
    }

    fn finished(&mut self, stop: Stop) -> Result<Finish> {
        Ok(match stop {
            Stop::PowerOff {
                program: Some(status),
                ..
            } => self.off(status)?,
            Stop::PowerOff { status, .. } => Finish::Died(format!(
                "the machine ended with status {status} and without the program's"
            )),
            Stop::Stuck => {
                let table = self.machine.inspect().context("the process table")?;
                let graph = Graph::new(&table);
                Finish::Stuck {
                    text: render::text(&graph),
                    picture: drawing::svg(&graph),
                    circle: graph.cycle().is_some(),
                }
            }
            Stop::Point(_) => Finish::Endless,
            Stop::Hang => Finish::Hang,
            Stop::Died(what) => Finish::Died(what),
            Stop::Started => bail!("the program starts twice"),
        })
    }

    fn off(&self, status: u32) -> Result<Finish> {
        let disk = self.machine.disk().context("the machine's disk")?;
        let output = self.machine.output();
        let mut files = BTreeMap::new();
        for path in &self.files {
            files.insert(path.clone(), disk::file(&disk, path)?);
        }
        Ok(Finish::Off {
            observed: Observed {
                status: crate::ending::Ending::Program(status).code(),
                stdout: output.stdout,
                stderr: output.stderr,
                files,
            },
            tree: disk::tree(&disk)?,
        })
    }
}

/// Plays a whole plan: boots, makes absent what it says where it says, runs to the end.
pub fn play(stage: &Stage<'_>, plan: &Plan, budget: u64, verbose: bool) -> Result<Played> {
    let mut player = Player::new(stage, &plan.schedule, verbose)?;
    player.set_budget(budget);
    let start = player.start()?;
    let mut applied = Vec::new();
    for faults in plan.faults.chunk_by(|a, b| a.point == b.point) {
        let point = faults[0].point;
        ensure!(
            point >= start,
            "point {point} lies before the program's start"
        );
        if !player.reach(point)? {
            break;
        }
        for fault in faults {
            applied.push((*fault, player.apply(fault)?));
        }
    }
    let ended = player.finish()?;
    Ok(Played {
        player,
        start,
        applied,
        ended,
    })
}

/// A plan that was played.
pub struct Played {
    /// The machine, as it is now.
    pub player: Player,
    /// Number of the first point after the program's start.
    pub start: u64,
    /// What each fault did.
    pub applied: Vec<(Fault, Applied)>,
    /// How it ended.
    pub ended: Ended,
}
