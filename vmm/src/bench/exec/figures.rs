//! What the driver in the guest says, and what follows from it.

use std::collections::BTreeMap;

use abi::exec::ExecBackend;
use anyhow::{Context, Result, bail};

/// Values of one run by name, in the order of the names.
pub type Values = BTreeMap<String, i64>;

/// A program and the state of the caches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// The program's name in the plan.
    pub name: String,
    /// Whether its files had to come from the disk.
    pub cold: bool,
    /// The runs by backend, in the order of [`ExecBackend::ALL`], each in rounds.
    pub runs: [Vec<Values>; 3],
}

/// A stage inside VFS: name, and its runs.
pub type Stage = (String, Vec<Values>);

/// The stages of a program's exec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traced {
    /// The program's name in the plan.
    pub name: String,
    /// The stages by backend, in their order; times are ns.
    pub stages: [Vec<Stage>; 3],
}

/// All that the driver said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Ticks of the guest's time stamp counter in a millisecond.
    pub ticks_per_ms: u64,
    /// In the order of the plan.
    pub workloads: Vec<Workload>,
    /// In the order of the plan.
    pub traced: Vec<Traced>,
    /// It came to its end.
    pub done: bool,
}

/// Median and quartiles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// A quarter of the values is below it.
    pub low: f64,
    /// The middle.
    pub median: f64,
    /// A quarter of the values is above it.
    pub high: f64,
}

impl Spread {
    /// Of some values; `None` of none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let last = values.len().checked_sub(1)?;
        let at = |share: f64| {
            let place = share * last as f64;
            let (below, above) = (
                values[place.floor() as usize],
                values[place.ceil() as usize],
            );
            below + (above - below) * place.fract()
        };
        Some(Spread {
            low: at(0.25),
            median: at(0.5),
            high: at(0.75),
        })
    }
}

fn backend(name: &str) -> Result<usize> {
    ExecBackend::ALL
        .iter()
        .position(|backend| backend.name() == name)
        .with_context(|| format!("{name} is no backend"))
}

/// `NAME=VALUE` ...
fn values<'a>(words: impl Iterator<Item = &'a str>) -> Result<Values> {
    words
        .map(|word| {
            let (name, value) = word.split_once('=').context("a word without value")?;
            let value = value.parse().context("a value that is no number")?;
            Ok((name.to_string(), value))
        })
        .collect()
}

impl Figures {
    /// Takes one line of the driver's.
    pub fn line(&mut self, line: &str) -> Result<()> {
        self.take(line)
            .with_context(|| format!("what the guest said does not read: {line}"))
    }

    fn take(&mut self, line: &str) -> Result<()> {
        let mut words = line.split_ascii_whitespace();
        let mut word = || words.next().context("a word is missing");
        match word()? {
            "exec" => {
                let (name, cold) = (word()?, word()? == "cold");
                let _round = word()?;
                let backend = backend(word()?)?;
                let values = values(words)?;
                let known = |w: &Workload| w.name == name && w.cold == cold;
                let place = self.workloads.iter().position(known);
                let place = place.unwrap_or_else(|| {
                    self.workloads.push(Workload {
                        name: name.to_string(),
                        cold,
                        runs: Default::default(),
                    });
                    self.workloads.len() - 1
                });
                self.workloads[place].runs[backend].push(values);
            }
            "stage" => {
                let name = word()?;
                let _round = word()?;
                let backend = backend(word()?)?;
                let stage = word()?;
                let values = values(words)?;
                let place = self.traced.iter().position(|t| t.name == name);
                let place = place.unwrap_or_else(|| {
                    self.traced.push(Traced {
                        name: name.to_string(),
                        stages: Default::default(),
                    });
                    self.traced.len() - 1
                });
                let stages = &mut self.traced[place].stages[backend];
                match stages.iter_mut().find(|(known, _)| known == stage) {
                    Some((_, runs)) => runs.push(values),
                    None => stages.push((stage.to_string(), vec![values])),
                }
            }
            "clock" => {
                let rate = words.next().and_then(|rate| rate.parse().ok());
                self.ticks_per_ms = rate.filter(|&rate| rate > 0).context("no clock rate")?;
            }
            "done" => self.done = true,
            "error" => bail!("the measuring program gave up"),
            _ => bail!("it is none of the lines that are known"),
        }
        Ok(())
    }

    /// Takes the idle time out of the totals. Where ticks are instructions it is none: the processor executes
    /// nothing, only the clock goes on while a disk works.
    pub fn without_idle(&mut self) {
        let ticks_per_ms = self.ticks_per_ms as i64;
        let runs = self.workloads.iter_mut().flat_map(|w| &mut w.runs);
        for run in runs.flatten() {
            let idle = run.remove("kernel.idle_ns").unwrap_or(0);
            if let Some(total) = run.get_mut("total") {
                *total -= idle * ticks_per_ms / 1_000_000;
            }
        }
    }

    /// ns as ticks of the time stamp counter.
    pub fn ticks(&self, ns: f64) -> f64 {
        ns * self.ticks_per_ms as f64 / 1e6
    }
}

impl Workload {
    /// A value's spread over the runs of a backend.
    pub fn value(&self, backend: ExecBackend, name: &str) -> Option<Spread> {
        let runs = self.runs[backend as usize].iter();
        Spread::of(
            runs.filter_map(|run| run.get(name))
                .map(|&value| value as f64),
        )
    }

    /// The median, or 0 where it was not measured.
    pub fn median(&self, backend: ExecBackend, name: &str) -> f64 {
        self.value(backend, name)
            .map_or(0.0, |spread| spread.median)
    }

    /// How the times of two backends relate, round by round.
    pub fn ratio(&self, of: ExecBackend, to: ExecBackend) -> Option<Spread> {
        let (of, to) = (&self.runs[of as usize], &self.runs[to as usize]);
        Spread::of(of.iter().zip(to).filter_map(|(of, to)| {
            let (of, to) = (*of.get("total")?, *to.get("total")?);
            (to > 0).then(|| of as f64 / to as f64)
        }))
    }

    /// The services' processor times, ns, medians: `(name, time)`.
    pub fn services(&self, backend: ExecBackend) -> Vec<(&str, f64)> {
        let names = self.runs[backend as usize].first().into_iter().flatten();
        names
            .filter_map(|(name, _)| {
                let short = name.strip_prefix("cpu.")?;
                Some((short, self.median(backend, name)))
            })
            .collect()
    }
}

impl Traced {
    /// A stage's values, medians, ns: `time` first, the services by name.
    pub fn stage(&self, backend: ExecBackend, stage: &str) -> Vec<(String, f64)> {
        let stages = &self.stages[backend as usize];
        let Some((_, runs)) = stages.iter().find(|(name, _)| name == stage) else {
            return Vec::new();
        };
        let names: std::collections::BTreeSet<&String> =
            runs.iter().flat_map(Values::keys).collect();
        let mut found: Vec<(String, f64)> = names
            .into_iter()
            .filter_map(|name| {
                // A service that took no part in a run is not named there.
                let values = runs
                    .iter()
                    .map(|run| run.get(name).copied().unwrap_or(0) as f64);
                Some((name.clone(), Spread::of(values)?.median))
            })
            .collect();
        found.sort_by_key(|(name, _)| name != "time");
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ExecBackend::{Buffer, Copy, Map};

    #[test]
    fn idle_time_is_no_instructions() {
        let mut figures = Figures::default();
        for line in [
            "clock 1000000",
            "exec p cold 0 map total=100 kernel.idle_ns=90",
            "exec p cold 0 buffer total=40 kernel.idle_ns=0",
        ] {
            figures.line(line).unwrap();
        }
        figures.without_idle();
        let ratio = figures.workloads[0].ratio(Map, Buffer).unwrap();
        assert_eq!(ratio.median, 0.25);
        assert_eq!(
            figures.workloads[0]
                .value(Map, "kernel.idle_ns")
                .map(|s| s.median),
            None
        );
    }

    #[test]
    fn lines_become_workloads() {
        let mut figures = Figures::default();
        for line in [
            "clock 2000000",
            "exec p warm 0 map total=10 cpu.vm=4",
            "exec p warm 0 buffer total=40 cpu.vm=5",
            "exec p warm 1 map total=20 cpu.vm=6",
            "exec p warm 1 buffer total=40 cpu.vm=5",
            "exec p cold 0 copy total=7",
            "stage p 0 map lookup time=9 vm=2 vfs=7",
            "stage p 1 map lookup time=11 vfs=11",
            "done",
        ] {
            figures.line(line).unwrap();
        }
        assert!(figures.done);
        assert_eq!(figures.ticks(1000.0), 2000.0);
        let [warm, cold] = &figures.workloads[..] else {
            panic!("{figures:?}");
        };
        assert_eq!((warm.cold, cold.cold), (false, true));
        assert_eq!(warm.ratio(Map, Buffer).unwrap().median, 0.375);
        assert_eq!(warm.ratio(Map, Copy), None);
        assert_eq!(warm.services(Map), [("vm", 5.0)]);
        let stage = figures.traced[0].stage(Map, "lookup");
        let expected = [("time", 10.0), ("vfs", 9.0), ("vm", 1.0)];
        assert_eq!(
            stage,
            expected.map(|(name, value)| (name.to_string(), value))
        );
    }

    #[test]
    fn what_does_not_read_is_an_error_that_shows_it() {
        for line in [
            "",
            "exec p",
            "exec p warm 0 none total=1",
            "exec p warm 0 map total",
            "clock 0",
            "x",
        ] {
            let error = Figures::default().line(line).unwrap_err();
            assert!(error.to_string().contains(line), "{line}");
        }
        let error = Figures::default().line("error no memory").unwrap_err();
        assert!(format!("{error:#}").contains("gave up"));
    }

    #[test]
    fn spreads_are_quartiles() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0, 5.0]).unwrap();
        assert_eq!((spread.low, spread.median, spread.high), (2.0, 3.0, 4.0));
        assert_eq!(Spread::of([]), None);
    }
}
