//! `absentia explore`.

use std::path::{Path, PathBuf};

use abi::policy::CopyPolicy;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::explore::campaign::{Campaign, Summary, Writer};
use crate::explore::engine::{self, Event, Options};
use crate::explore::points;
use crate::explore::row::{Give, Header, Layer, Line, Named, PointKind, Row};
use crate::explore::run::Stage;
use crate::explore::scenario::{self, Scenario};
use crate::explore::spots::{self, Pages};
use crate::inject::{PointName, Schedule};
use crate::log::complain;
use crate::machine::Accelerator;
use crate::report;
use crate::report::terminal::{self, Progress};
use crate::sandbox::{Role, Sandbox};

/// Where scenarios are looked for by name that are not built in.
const SCENARIOS: &str = "tests/scenarios";

#[derive(Debug, Args)]
pub struct Explore {
    /// Scenarios: names of those that are built in, or of files in tests/scenarios, or paths of
    /// .toml files
    #[arg(value_name = "SCENARIO", required_unless_present_any = ["merge", "export"])]
    pub scenarios: Vec<String>,
    /// Copy policies [default: the scenario's]
    #[arg(long = "policy", value_name = "POLICY", value_parser = super::run::parse_policy)]
    pub policies: Vec<CopyPolicy>,
    /// Where pages are made absent: pte, slot, read-only [default: the scenario's]; how
    /// allocations are refused: refused, exhausted [default: both]
    #[arg(long = "layer", value_name = "LAYER", value_parser = Layer::named)]
    pub layers: Vec<Layer>,
    /// Kinds of points: copy, fill, fault, request, grant, exec [default: these], or alloc alone:
    /// servers' allocations
    #[arg(long, value_name = "KIND,...", value_delimiter = ',', value_parser = PointKind::named)]
    pub kinds: Vec<PointKind>,
    /// Only points of this name: KIND/PROCESS/CALL/FILE/ORDINAL; empty parts match anything
    #[arg(long = "at", value_name = "NAME")]
    pub at: Vec<PointName>,
    /// At each point every present page of these processes: all, program, or a process's name
    #[arg(long, value_name = "WHO", conflicts_with = "pairs")]
    pub pages: Option<Pages>,
    /// List the points that would be explored, and the pages they are about
    #[arg(long)]
    pub list: bool,
    /// When withdrawn frames come back: asked, after N asks (3), after a time (50us), never
    #[arg(long, default_value = "asked")]
    pub give: Give,
    /// A second fault at each of this many points after the first
    #[arg(long, value_name = "POINTS", default_value = "0", num_args = 0..=1, default_missing_value = "8")]
    pub pairs: u64,
    /// Runs in which processes, messages and tasks go in another order
    #[arg(long, value_name = "N", default_value = "0")]
    pub schedules: u64,
    /// Every other choice at each of this many decisions about what goes next, one at a time
    #[arg(long, value_name = "DECISIONS", default_value = "0")]
    pub deviations: u64,
    /// Seed of the schedules
    #[arg(long, default_value = "1")]
    pub seed: u64,
    /// Machines at once [default: one for each processor]
    #[arg(long, value_name = "N")]
    pub jobs: Option<usize>,
    /// Runs at most, for each scenario and policy
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
    /// Only part K of N of the points
    #[arg(long, value_name = "K/N", value_parser = parse_shard)]
    pub shard: Option<(u64, u64)>,
    /// Write every run as a line of JSON into this file
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Write an HTML report into this directory
    #[arg(long, value_name = "DIR")]
    pub report: Option<PathBuf>,
    /// Read these files instead of exploring, and report on them as one
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["scenarios", "out"])]
    pub merge: Vec<PathBuf>,
    /// Write a built-in scenario with its sources into a directory, to start one's own from: with
    /// the file's name and the name in it changed it is another scenario
    #[arg(long, num_args = 2, value_names = ["NAME", "DIR"], conflicts_with_all = ["scenarios", "out", "merge"])]
    pub export: Vec<String>,
    /// What executes the guest; under qemu the kernel itself makes pages absent, in the layer pte
    /// only, and every run boots
    #[arg(long, default_value = "kvm")]
    pub accel: Accelerator,
    /// Deliberate defects in the guest, to see that they are found
    #[arg(long, value_name = "NAME,...", default_value = "")]
    pub sabotage: String,
    /// strict: this process gives up what it does not need before it makes the first machine
    #[arg(long, value_name = "HOW", default_value = "strict")]
    pub sandbox: Sandbox,
}

fn parse_shard(text: &str) -> Result<(u64, u64), String> {
    let parts = text
        .split_once('/')
        .and_then(|(k, n)| Some((k.parse::<u64>().ok()?, n.parse::<u64>().ok()?)));
    match parts {
        Some((k, n)) if 1 <= k && k <= n => Ok((k - 1, n)),
        _ => Err("a shard is K/N, with K from 1 to N".into()),
    }
}

/// Refuses names of defects that there are none of.
pub fn check_sabotage(names: &str) -> Result<()> {
    for name in names.split(',').filter(|name| !name.is_empty()) {
        let known = abi::sabotage::NAMES;
        if !known.iter().any(|(known, _)| *known == name) {
            let known: Vec<_> = known.iter().map(|(name, _)| *name).collect();
            bail!("no defect {name:?}: there are {}", known.join(", "));
        }
    }
    Ok(())
}

/// Whether the guest runs under QEMU.
pub fn emulated(accel: Accelerator) -> bool {
    accel == Accelerator::Qemu
}

/// The scenario of this name, or in this file. Names are those that are built in, then of files
/// in `tests/scenarios` below the working directory.
pub fn find(name: &str) -> Result<Scenario> {
    if let Some(builtin) = scenario::builtin::scenario(name) {
        return Ok(builtin?);
    }
    let here = Path::new(SCENARIOS);
    if !name.ends_with(".toml") && !here.join(format!("{name}.toml")).is_file() {
        let names: Vec<_> = scenario::builtin::names().collect();
        bail!(
            "no scenario {name}: there are {}, and paths of .toml files",
            names.join(", ")
        );
    }
    Ok(scenario::find(here, name)?)
}

impl Explore {
    pub fn execute(self) -> Result<u8> {
        if let Some(directory) = &self.report {
            report::place(directory)?;
        }
        if let [name, directory] = &self.export[..] {
            let file = scenario::builtin::export(name, Path::new(directory))?;
            super::print(&format!("{}\n", file.display()))?;
            return Ok(0);
        }
        if !self.merge.is_empty() {
            return self.conclude(&Campaign::read(&self.merge)?);
        }
        check_sabotage(&self.sabotage)?;
        self.check_kinds()?;
        ensure!(self.jobs != Some(0), "at least one job is needed");
        let cache = scenario::root::cache();
        let mut campaigner = Campaigner::new(self.out.as_deref())?;
        campaigner.sabotage = self.sabotage.clone();
        campaigner.emulated = emulated(self.accel);
        let scenarios: Vec<Scenario> = self
            .scenarios
            .iter()
            .map(|name| find(name))
            .collect::<Result<_>>()?;
        // Under QEMU each machine is a process, and each run confines a thread of its own.
        if !campaigner.emulated {
            for scenario in &scenarios {
                scenario.prepared(&cache)?;
            }
            self.sandbox
                .laboratory(Role::Laboratory, self.report.as_deref())?;
        }
        for scenario in &scenarios {
            let policies = or_else(&self.policies, &scenario.explore.policies);
            let mut options = defaults(scenario);
            options.layers = or_else(&self.layers, &options.layers);
            options.kinds = or_else(&self.kinds, &options.kinds);
            (options.at, options.pages) = (self.at.clone(), self.pages.clone());
            options.jobs = self.jobs.unwrap_or(options.jobs);
            options.shard = self.shard.unwrap_or(options.shard);
            (options.give, options.pairs, options.limit) = (self.give, self.pairs, self.limit);
            (options.schedules, options.seed) = (self.schedules, self.seed);
            options.deviations = self.deviations;
            for policy in policies {
                if self.list {
                    let stage = campaigner.stage(scenario, policy, &cache, &options);
                    list(&stage, &options)?;
                } else {
                    campaigner.explore(scenario, policy, &options)?;
                }
            }
        }
        if self.list {
            return Ok(0);
        }
        self.conclude(&campaigner.finish())
    }

    /// Allocations that are points change the numbers of all others, and a token says that they
    /// are by a fault of theirs.
    fn check_kinds(&self) -> Result<()> {
        if !self.kinds.contains(&PointKind::Alloc) {
            return Ok(());
        }
        ensure!(
            self.kinds.len() == 1,
            "alloc is a campaign of its own: its points are counted with those of pages, which then have other numbers"
        );
        ensure!(
            self.schedules == 0 && self.deviations == 0 && self.pages.is_none(),
            "allocations are refused in one order of things, and without pages of processes"
        );
        Ok(())
    }

    fn conclude(&self, campaign: &Campaign) -> Result<u8> {
        super::print(&terminal::table(campaign))?;
        if let Some(directory) = &self.report {
            let path = report::write(directory, campaign)?;
            complain(&format!("absentia: report in {}", path.display()));
        }
        Ok(u8::from(Summary::of(&campaign.rows).violations() > 0))
    }
}

/// Prints the points that a campaign would explore, one a line.
fn list(stage: &Stage<'_>, options: &Options) -> Result<()> {
    ensure!(!stage.emulated, "points are listed of the run on KVM only");
    let base = engine::base(stage, &Schedule::First, false)?;
    let spots = spots::spots(stage, options, &base);
    let header = format!("# {} under {}\n", stage.scenario.name, stage.policy.name());
    super::print(&(header + &points::list(&base, &spots)))
}

/// Everything that a scenario wants explored, once, on all processors.
pub fn defaults(scenario: &Scenario) -> Options {
    Options {
        layers: scenario.explore.layers.clone(),
        kinds: PointKind::PAGES.to_vec(),
        at: Vec::new(),
        pages: None,
        give: Give::Asked,
        pairs: 0,
        schedules: 0,
        deviations: 0,
        seed: 1,
        jobs: std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get),
        limit: None,
        shard: (0, 1),
    }
}

/// Runs campaigns one after another, shows how far they are and keeps what they come to.
pub struct Campaigner {
    /// Deliberate defects.
    pub sabotage: String,
    /// Under QEMU.
    pub emulated: bool,
    writer: Option<Writer>,
    headers: Vec<Header>,
    rows: Vec<Row>,
}

impl Campaigner {
    /// Rows go to the file `out` as they come, too.
    pub fn new(out: Option<&Path>) -> Result<Campaigner> {
        Ok(Campaigner {
            sabotage: String::new(),
            emulated: false,
            writer: out.map(Writer::create).transpose()?,
            headers: Vec::new(),
            rows: Vec::new(),
        })
    }

    fn stage<'a>(
        &self,
        scenario: &'a Scenario,
        policy: CopyPolicy,
        cache: &'a Path,
        options: &Options,
    ) -> Stage<'a> {
        Stage {
            scenario,
            policy,
            gate: None,
            sabotage: self.sabotage.clone(),
            cache,
            emulated: self.emulated,
            allocations: options.kinds.contains(&PointKind::Alloc),
        }
    }

    /// One scenario under one policy.
    pub fn explore(
        &mut self,
        scenario: &Scenario,
        policy: CopyPolicy,
        options: &Options,
    ) -> Result<()> {
        let cache = scenario::root::cache();
        let stage = self.stage(scenario, policy, &cache, options);
        let mut progress = None;
        engine::campaign(&stage, options, |event| {
            let line = match event {
                Event::Begun(header, points) => {
                    let name = format!("{} {}", header.scenario, header.policy);
                    progress = Some(Progress::new(&name, points));
                    self.headers.push((*header).clone());
                    Line::Header(*header)
                }
                Event::Row(row) => {
                    if let Some(progress) = &mut progress {
                        progress.row(&row);
                    }
                    self.rows.push((*row).clone());
                    Line::Row(row)
                }
                Event::Nothing => return Ok(()),
                Event::PointDone => {
                    if let Some(progress) = &mut progress {
                        progress.point();
                    }
                    return Ok(());
                }
            };
            match &mut self.writer {
                Some(writer) => writer.write(&line),
                None => Ok(()),
            }
        })
        .with_context(|| format!("exploring {} under {}", scenario.name, policy.name()))?;
        if let Some(progress) = progress {
            progress.finish();
        }
        Ok(())
    }

    /// All of it.
    pub fn finish(self) -> Campaign {
        Campaign::new(self.headers, self.rows)
    }
}

fn or_else<T: Clone>(some: &[T], others: &[T]) -> Vec<T> {
    if some.is_empty() { others } else { some }.to_vec()
}
