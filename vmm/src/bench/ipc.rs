//! What the guest's kernel costs: boots the image `ipc-bench` in VM's place and reads the
//! figures that it logs.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::bench::{COUNTING, visit};
use crate::hostlink::input::Source;
use crate::hostlink::output::Sink;
use crate::images::{GuestImages, RunSpecification};
use crate::kvm::gate::Gate;
use crate::log::{KEPT, Log};
use crate::machine::{self, Accelerator, Config};
use crate::memory;
use crate::sandbox::Sandbox;

/// A hung kernel is no measurement.
const TIMEOUT: Duration = Duration::from_secs(60);

/// One measured operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Its name.
    pub name: String,
    /// Kernel visits of one.
    pub visits: f64,
    /// Ticks of one, all of it.
    pub total: f64,
    /// The kernel's part of them: without the user-mode instructions around the traps.
    pub kernel: f64,
}

/// All of one run.
#[derive(Clone, Debug)]
pub struct Report {
    /// What executed the guest.
    pub accelerator: Accelerator,
    /// How its kernel was entered.
    pub gate: Gate,
    /// Cycles of a bare kernel visit on this host (KVM only).
    pub bare: Option<u64>,
    /// The figures, in the order in which they were measured.
    pub figures: Vec<Figure>,
}

/// Runs the measurements.
pub fn measure(accelerator: Accelerator, gate: Option<Gate>) -> Result<Report> {
    let bare = match accelerator {
        Accelerator::Kvm => Some(visit::bare().context("measuring a bare kernel visit")?),
        Accelerator::Qemu => None,
    };
    let specification = RunSpecification {
        args: vec![b"bench".to_vec()],
        cwd: b"/".to_vec(),
        ..RunSpecification::default()
    };
    let (kernel, archive) = GuestImages::bench()?.archive(specification.encode()?, "");
    let config = Config {
        kernel,
        archive,
        cmdline: String::new(),
        memory: memory::DEFAULT,
        disk: None,
        accelerator,
        gate,
        timeout: Some(TIMEOUT),
        stdin: Source::Bytes(Vec::new()),
        stdout: Sink::capture().0,
        stderr: Sink::capture().0,
        signals: None,
        log: Arc::new(Log::new(false, KEPT)),
        report: None,
        sandbox: Sandbox::Thread,
        qemu_args: match accelerator {
            Accelerator::Kvm => Vec::new(),
            Accelerator::Qemu => COUNTING.map(String::from).to_vec(),
        },
    };
    // What is confined is so for good: a thread that ends with the run.
    let outcome = std::thread::scope(|scope| scope.spawn(|| machine::run(config)).join())
        .map_err(|_| anyhow::anyhow!("the machine's thread panicked"))??;
    let figures = figures(&outcome.log)?;
    ensure!(
        figures.last().is_some_and(|last| last.name == LAST),
        "the measurements did not come to their end ({:?}):\n{}",
        outcome.ending,
        outcome.log.join("\n")
    );
    Ok(Report {
        accelerator,
        gate: outcome.gate.unwrap_or(Gate::Direct),
        bare,
        figures,
    })
}

/// What is measured last.
const LAST: &str = "linux-null";

/// The figures among log lines: `bench NAME OPERATIONS TICKS USER VISITS`.
fn figures(log: &[String]) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for line in log {
        let Some((_, text)) = line.split_once("] bench ") else {
            continue;
        };
        let mut words = text.split_ascii_whitespace();
        let name = words.next().unwrap_or_default().to_string();
        let numbers: Vec<f64> = words.map_while(|word| word.parse().ok()).collect();
        let [operations, ticks, user, visits] = numbers[..] else {
            bail!("a figure that does not read: {line}")
        };
        ensure!(operations > 0.0, "a figure of no operations: {line}");
        figures.push(Figure {
            name,
            visits: visits / operations,
            total: ticks / operations,
            kernel: (ticks - user).max(0.0) / operations,
        });
    }
    Ok(figures)
}

impl Report {
    /// The figure of this name.
    pub fn figure(&self, name: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.name == name)
    }

    /// What a tick is.
    pub fn unit(&self) -> &'static str {
        match self.accelerator {
            Accelerator::Kvm => "cycles",
            Accelerator::Qemu => "instructions",
        }
    }

    /// What its visits alone would cost on this host, and how many times that the operation
    /// costs.
    fn against_host(&self, figure: &Figure) -> Option<(f64, f64)> {
        let bare = figure.visits * self.bare? as f64;
        (bare > 0.0).then(|| (bare, figure.total / bare))
    }

    /// As a table for a person.
    pub fn table(&self) -> String {
        let unit = self.unit();
        let mut text = format!("{:?} gate, ticks are {unit}", self.gate);
        if let Some(bare) = self.bare {
            let _ = write!(text, "; a bare kernel visit on this host: {bare} {unit}");
        }
        let _ = write!(
            text,
            "\n{:<16} {:>8} {:>10} {:>10}",
            "operation", "visits", "in all", "kernel"
        );
        if self.bare.is_some() {
            let _ = write!(text, " {:>12} {:>7}", "bare visits", "ratio");
        }
        for figure in &self.figures {
            let _ = write!(
                text,
                "\n{:<16} {:>8.2} {:>10.0} {:>10.0}",
                figure.name, figure.visits, figure.total, figure.kernel
            );
            if let Some((bare, ratio)) = self.against_host(figure) {
                let _ = write!(text, " {bare:>12.0} {ratio:>7.2}");
            }
        }
        text
    }

    /// As JSON for a program.
    pub fn json(&self) -> String {
        let figures: Vec<String> = self
            .figures
            .iter()
            .map(|figure| {
                let ratio = self
                    .against_host(figure)
                    .map_or("null".into(), |(_, ratio)| format!("{ratio:.3}"));
                format!(
                    "    {{\"operation\": {:?}, \"visits\": {:.3}, \"ticks\": {:.1}, \
                     \"kernel_ticks\": {:.1}, \"ratio_to_bare_visits\": {ratio}}}",
                    figure.name, figure.visits, figure.total, figure.kernel
                )
            })
            .collect();
        format!(
            "{{\n  \"accelerator\": \"{}\",\n  \"gate\": \"{}\",\n  \"unit\": \"{}\",\n  \
             \"bare_visit\": {},\n  \"figures\": [\n{}\n  ]\n}}\n",
            format!("{:?}", self.accelerator).to_lowercase(),
            format!("{:?}", self.gate).to_lowercase(),
            self.unit(),
            self.bare.map_or("null".into(), |bare| bare.to_string()),
            figures.join(",\n")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let log = [
            "[   0.1 guest] something else",
            "[   0.1 guest] bench null 10 1000 100 10",
            "[   0.1 guest] bench linux-null 10 3000 100 20",
        ];
        Report {
            accelerator: Accelerator::Kvm,
            gate: Gate::Deprivileged,
            bare: Some(50),
            figures: figures(&log.map(String::from)).unwrap(),
        }
    }

    #[test]
    fn figures_are_read_from_the_log() {
        let report = report();
        let null = report.figure("null").unwrap();
        assert_eq!((null.visits, null.total, null.kernel), (1.0, 100.0, 90.0));
        assert_eq!(report.figures.len(), 2);
        for damaged in ["] bench x", "] bench x 0 1 1 1", "] bench x 1 1 1 1 1"] {
            assert!(figures(&[damaged.into()]).is_err(), "{damaged}");
        }
    }

    #[test]
    fn reports_say_what_they_show() {
        let report = report();
        let table = report.table();
        assert!(table.contains("Deprivileged gate"), "{table}");
        assert!(table.lines().nth(2).unwrap().ends_with("2.00"), "{table}");
        let json = report.json();
        assert!(json.contains("\"ratio_to_bare_visits\": 3.000"), "{json}");
        assert!(json.contains("\"gate\": \"deprivileged\""), "{json}");
    }
}
