//! `absentia explore`.

use std::path::PathBuf;

use abi::policy::CopyPolicy;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::explore::campaign::{Campaign, Writer};
use crate::explore::engine::{self, Event, Options};
use crate::explore::row::{Give, Layer, Line, Named, PointKind, Verdict};
use crate::explore::run::Stage;
use crate::explore::scenario::{self, Scenario};

/// Where scenarios are looked for by name.
pub const SCENARIOS: &str = "tests/scenarios";

#[derive(Debug, Args)]
pub struct Explore {
    /// Scenarios: names of files in tests/scenarios, or paths of .toml files
    #[arg(value_name = "SCENARIO", required_unless_present = "merge")]
    pub scenarios: Vec<String>,
    /// Copy policies [default: the scenario's]
    #[arg(long = "policy", value_name = "POLICY", value_parser = super::run::parse_policy)]
    pub policies: Vec<CopyPolicy>,
    /// Where pages are made absent: pte, slot, read-only [default: the scenario's]
    #[arg(long = "layer", value_name = "LAYER", value_parser = Layer::named)]
    pub layers: Vec<Layer>,
    /// Kinds of points: copy, fill, fault, request
    #[arg(long, value_name = "KIND,...", value_delimiter = ',', value_parser = PointKind::named)]
    pub kinds: Vec<PointKind>,
    /// When withdrawn frames come back: asked, after N asks, never
    #[arg(long, default_value = "asked")]
    pub give: Give,
    /// A second fault at each of this many points after the first
    #[arg(long, value_name = "POINTS", default_value = "0", num_args = 0..=1, default_missing_value = "8")]
    pub pairs: u64,
    /// Runs in which processes, messages and tasks go in another order
    #[arg(long, value_name = "N", default_value = "0")]
    pub schedules: u64,
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
    /// Deliberate defects in the guest, to see that they are found
    #[arg(long, value_name = "NAME,...", default_value = "")]
    pub sabotage: String,
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

/// The scenario of this name, or in this file.
pub fn find(name: &str) -> Result<Scenario> {
    Ok(scenario::find(SCENARIOS.as_ref(), name)?)
}

impl Explore {
    pub fn execute(self) -> Result<u8> {
        if !self.merge.is_empty() {
            let campaign = Campaign::read(&self.merge)?;
            return self.conclude(&campaign);
        }
        check_sabotage(&self.sabotage)?;
        let jobs = self.jobs.unwrap_or_else(|| {
            std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
        });
        ensure!(jobs > 0, "at least one job is needed");
        let mut writer = match &self.out {
            Some(path) => Some(Writer::create(path)?),
            None => None,
        };
        let cache = scenario::root::cache();
        let (mut headers, mut rows) = (Vec::new(), Vec::new());
        for name in &self.scenarios {
            let scenario = find(name)?;
            let policies = match self.policies.as_slice() {
                [] => scenario.explore.policies.clone(),
                some => some.to_vec(),
            };
            for policy in policies {
                let stage = Stage {
                    scenario: &scenario,
                    policy,
                    gate: None,
                    sabotage: self.sabotage.clone(),
                    cache: &cache,
                };
                let options = Options {
                    layers: or_else(&self.layers, &scenario.explore.layers),
                    kinds: or_else(&self.kinds, PointKind::ALL),
                    give: self.give,
                    pairs: self.pairs,
                    schedules: self.schedules,
                    seed: self.seed,
                    jobs,
                    limit: self.limit,
                    shard: self.shard.unwrap_or((0, 1)),
                };
                engine::campaign(&stage, &options, |event| {
                    let line = match event {
                        Event::Begun(header, points) => {
                            eprintln!("{} {}: {points} points", header.scenario, header.policy);
                            headers.push((*header).clone());
                            Line::Header(*header)
                        }
                        Event::Row(row) => {
                            if row.verdict != Verdict::Ok {
                                eprintln!("{} {}: {}", row.token, row.verdict, row.detail);
                            }
                            rows.push((*row).clone());
                            Line::Row(row)
                        }
                        Event::Nothing | Event::PointDone => return Ok(()),
                    };
                    match &mut writer {
                        Some(writer) => writer.write(&line),
                        None => Ok(()),
                    }
                })
                .with_context(|| format!("exploring {name}"))?;
            }
        }
        self.conclude(&Campaign::new(headers, rows))
    }

    fn conclude(&self, campaign: &Campaign) -> Result<u8> {
        let bad = campaign
            .rows
            .iter()
            .filter(|row| row.verdict.is_violation())
            .count();
        super::print(&format!("{} runs, {bad} violations\n", campaign.rows.len()))?;
        Ok(u8::from(bad > 0))
    }
}

fn or_else<T: Clone>(some: &[T], others: &[T]) -> Vec<T> {
    if some.is_empty() { others } else { some }.to_vec()
}
