//! `absentia demo`: the deadlock of the world before, its picture, and its absence after.

use std::path::PathBuf;
use std::time::Instant;

use abi::policy::CopyPolicy;
use anyhow::Result;
use clap::Args;

use super::explore::{self, Campaigner};
use crate::explore::campaign::Summary;
use crate::explore::row::{Row, Verdict};
use crate::explore::{build, engine, scenario};
use crate::report;
use crate::sandbox::{Role, Sandbox};

/// What is shown.
const SCENARIO: &str = "d1-read";

#[derive(Debug, Args)]
pub struct Demo {
    /// Where the report goes
    #[arg(long, value_name = "DIR", default_value = "absentia-report")]
    pub report: PathBuf,
    /// strict: this process gives up what it does not need before it makes the first machine
    #[arg(long, value_name = "HOW", default_value = "strict")]
    pub sandbox: Sandbox,
}

impl Demo {
    pub fn execute(self) -> Result<u8> {
        let begun = Instant::now();
        report::place(&self.report)?;
        let scenario = explore::find(SCENARIO)?;
        scenario.prepared(&scenario::root::cache())?;
        self.sandbox
            .laboratory(Role::Laboratory, Some(&self.report))?;
        super::print(&format!(
            "{}\n{}\n\n",
            "A program reads a file into memory that is mapped from another file of the same disk.",
            "Before each copy, the page it is about to touch is made absent. Every page, every copy."
        ))?;
        let mut campaigner = Campaigner::new(None)?;
        let policies = [CopyPolicy::Transparent, CopyPolicy::Try];
        for policy in policies {
            campaigner.explore(&scenario, policy, &explore::defaults(&scenario))?;
        }
        let campaign = campaigner.finish();
        for (policy, before) in policies.iter().zip([true, false]) {
            let rows: Vec<&Row> = campaign
                .rows
                .iter()
                .filter(|row| row.policy == policy.name())
                .collect();
            let world = if before {
                "the kernel waits for the page behind the copier's back"
            } else {
                "the copy fails, and who may wait has the page brought"
            };
            super::print(&summary(policy.name(), world, &rows))?;
        }
        let path = report::write(&self.report, &campaign)?;
        super::print(&format!(
            "\nThe whole story, with pictures: {}\n{} runs of a whole machine in {:.1} s\n",
            path.display(),
            campaign.rows.len(),
            begun.elapsed().as_secs_f64()
        ))?;
        Ok(0)
    }
}

/// What a policy came to, for a person.
fn summary(policy: &str, world: &str, rows: &[&Row]) -> String {
    let summary = Summary::of(rows.iter().copied());
    let mut text = format!("{policy}: {world}\n");
    for verdict in summary.verdicts() {
        text += &format!("  {:4} {verdict}\n", summary.verdict(verdict));
    }
    if let Some(row) = rows.iter().find(|row| row.verdict == Verdict::Deadlock) {
        text += "\n  for example ";
        for fault in &row.faults {
            text += &format!("{}:\n  {}\n", fault.point.what, fault.describe());
        }
        for line in row.cycle.lines() {
            text += &format!("    {line}\n");
        }
        let token = build::signed(&row.token, &engine::build());
        text += &format!("\n  again: absentia replay {token}\n\n");
    }
    text
}
