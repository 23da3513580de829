//! `absentia replay` and `absentia minimize`: one run, from its token.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::explore::{check_sabotage, find};
use crate::explore::build;
use crate::explore::engine::{self, Base};
use crate::explore::judge;
use crate::explore::minimize;
use crate::explore::points;
use crate::explore::row;
use crate::explore::run::{Player, Stage, play};
use crate::explore::scenario::{self, Scenario};
use crate::explore::spots::told;
use crate::gdb;
use crate::inject::plan::{BadToken, Token};
use crate::inject::{Applied, Fault, Plan, Schedule};
use crate::log::complain;
use crate::sandbox::{Role, Sandbox};
use crate::trace::perfetto;

#[derive(Debug, Args)]
pub struct Replay {
    /// What a report or `absentia explore` printed; points by number or by name
    #[arg(value_parser = token)]
    pub token: Token,
    /// The file of the token's scenario, where it is not built in
    #[arg(long, value_name = "FILE")]
    pub scenario: Option<PathBuf>,
    /// Write the run as a Perfetto timeline (ui.perfetto.dev)
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Stop before the first fault and wait for gdb on this port of 127.0.0.1 (0: any)
    #[arg(long, value_name = "PORT", conflicts_with = "trace")]
    pub gdb: Option<u16>,
    /// Print the guest's log
    #[arg(long, short)]
    pub verbose: bool,
    /// Deliberate defects in the guest, as the campaign had them
    #[arg(long, value_name = "NAME,...", default_value = "")]
    pub sabotage: String,
    /// strict: this process gives up what it does not need before it makes the first machine
    #[arg(long, value_name = "HOW", default_value = "strict")]
    pub sandbox: Sandbox,
}

#[derive(Debug, Args)]
pub struct Minimize {
    /// What a report or `absentia explore` printed; points by number or by name
    #[arg(value_parser = token)]
    pub token: Token,
    /// The file of the token's scenario, where it is not built in
    #[arg(long, value_name = "FILE")]
    pub scenario: Option<PathBuf>,
    /// Deliberate defects in the guest, as the campaign had them
    #[arg(long, value_name = "NAME,...", default_value = "")]
    pub sabotage: String,
    /// strict: this process gives up what it does not need before it makes the first machine
    #[arg(long, value_name = "HOW", default_value = "strict")]
    pub sandbox: Sandbox,
}

/// A token, and a warning when it is of another build.
fn token(text: &str) -> Result<Token, BadToken> {
    let warn = |what: &str| complain(&format!("absentia: warning: {what}"));
    build::checked(text, warn).parse()
}

impl Replay {
    pub fn execute(self) -> Result<u8> {
        let scenario = scenario_of(&self.token, self.scenario.as_deref())?;
        let cache = scenario::root::cache();
        let stage = stage(&scenario, &self.token, self.sabotage, &cache)?;
        scenario.prepared(&cache)?;
        // What is written to is open before anything runs.
        let trace = match &self.trace {
            Some(path) => Some((path, perfetto::create(path)?)),
            None => None,
        };
        let listener = self.gdb.map(gdb::listen).transpose()?;
        let role = match listener {
            Some(_) => Role::Gdb,
            None => Role::Laboratory,
        };
        self.sandbox.laboratory(role, None)?;
        let plan = points::resolve(&stage, &self.token)?;
        if let Some(listener) = listener {
            return under_gdb(&stage, &plan, &listener, self.verbose);
        }
        let base = engine::base(&stage, &Schedule::First, false)?;
        let played = play(&stage, &plan, base.budget(), self.verbose)?;
        let records = played.player.records();
        let told = told(records, played.start, &plan.faults);
        let mut text = format!("{plan}\n{}", named(&plan, &told));
        for ((fault, point), (_, applied)) in told.iter().zip(&played.applied) {
            let effect = match applied {
                Applied::Done {
                    who,
                    address,
                    frame,
                } => format!("page {address:#x} of {who}, frame {frame:#x}, is absent"),
                Applied::Refused { who, bytes } => format!("{who} gets none of {bytes} bytes"),
                Applied::Nothing(why) => format!("nothing happened: {why}"),
            };
            text += &format!("fault {fault}: {}\n  {effect}\n", point.what);
        }
        for fault in &plan.faults {
            if told.iter().all(|(known, _)| known != fault) {
                text += &format!("fault {fault}: the run has no such point\n");
            }
        }
        if plan.faults.is_empty() {
            text += "no fault\n";
        }
        let reference = base.reference.as_ref().ok();
        let judged = judge::judge(&scenario.expect, reference, &played.ended, &plan.faults);
        text += &without(&base);
        text += &format!("this run: {}", judged.verdict);
        if !judged.detail.is_empty() {
            text += &format!(", {}", judged.detail);
        }
        text += &format!(
            "\n{} trace records, hash {:016x}\n",
            records.len(),
            played.ended.hash
        );
        text += &judged.cycle.0;
        super::print(&text)?;
        if let Some((path, file)) = trace {
            let names = engine::names(records);
            perfetto::write(file, records, &names)
                .with_context(|| format!("writing the trace {}", path.display()))?;
            complain(&format!(
                "absentia: {} written: open it at ui.perfetto.dev",
                path.display()
            ));
        }
        Ok(u8::from(judged.verdict.is_violation()))
    }
}

/// The token's scenario: in this file, or found by its name.
fn scenario_of(token: &Token, file: Option<&Path>) -> Result<Scenario> {
    let Some(file) = file else {
        return find(&token.scenario);
    };
    let scenario = scenario::load(file)?;
    ensure!(
        scenario.name == token.scenario,
        "the token is of the scenario {}, the file {} is of {}",
        token.scenario,
        file.display(),
        scenario.name
    );
    Ok(scenario)
}

/// Where a token is played.
fn stage<'a>(
    scenario: &'a Scenario,
    token: &Token,
    sabotage: String,
    cache: &'a Path,
) -> Result<Stage<'a>> {
    check_sabotage(&sabotage)?;
    Ok(Stage {
        scenario,
        policy: token.policy,
        gate: None,
        sabotage,
        cache,
        emulated: false,
        allocations: token.faults.iter().any(|fault| fault.layer.refuses()),
    })
}

/// A line with the token in which points have names, which hold in other builds, too; nothing
/// where there is no point.
fn named(plan: &Plan, told: &[(Fault, row::Point)]) -> String {
    let names = told.iter().map(|(_, point)| &point.name);
    match told.len() == plan.faults.len() && !told.is_empty() {
        true => format!("in another build: {}\n", plan.at(names)),
        false => String::new(),
    }
}

/// The run with gdb in between; its verdict in one line.
fn under_gdb(stage: &Stage<'_>, plan: &Plan, listener: &TcpListener, verbose: bool) -> Result<u8> {
    let base = engine::base(stage, &Schedule::First, false)?;
    let mut player = Player::new(stage, &plan.schedule, verbose)?;
    player.set_budget(base.budget());
    player.start()?;
    let Some(served) = gdb::serve(&mut player, plan, listener)? else {
        complain("absentia: gdb killed the run");
        return Ok(0);
    };
    let reference = base.reference.as_ref().ok();
    let expect = &stage.scenario.expect;
    let judged = judge::judge(expect, reference, &served.ended, &plan.faults);
    super::print(&format!("this run: {} {}\n", judged.verdict, judged.detail))?;
    Ok(u8::from(judged.verdict.is_violation()))
}

/// The run without a fault in one line.
fn without(base: &Base) -> String {
    match &base.reference {
        Ok(reference) => format!(
            "without it: ok, exit status {}, {} points\n",
            reference.observed.status,
            base.points()
        ),
        Err(judged) => format!("without it: {}, {}\n", judged.verdict, judged.detail),
    }
}

impl Minimize {
    pub fn execute(self) -> Result<u8> {
        let scenario = scenario_of(&self.token, self.scenario.as_deref())?;
        let cache = scenario::root::cache();
        let stage = stage(&scenario, &self.token, self.sabotage, &cache)?;
        scenario.prepared(&cache)?;
        self.sandbox.laboratory(Role::Laboratory, None)?;
        let plan = points::resolve(&stage, &self.token)?;
        let smaller = minimize::minimize(&stage, &plan)?;
        complain(&format!(
            "absentia: {} in {} runs: {} of {} faults, schedule {}",
            smaller.verdict,
            smaller.runs,
            smaller.plan.faults.len(),
            plan.faults.len(),
            smaller.plan.schedule
        ));
        let told = told(&smaller.records, smaller.start, &smaller.plan.faults);
        complain(named(&smaller.plan, &told).trim_end());
        super::print(&format!("{}\n", smaller.plan))?;
        Ok(0)
    }
}
