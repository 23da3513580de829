//! Campaigns as files of JSON lines: written as they go, read back, merged from shards,
//! summed up.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::row::{Header, Line, Named, PointKind, Row, Verdict};

/// All rows of some scenarios under some policies.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Campaign {
    /// One for each scenario and policy, in the order in which they began.
    pub headers: Vec<Header>,
    /// Each token once, ordered by scenario and policy as the headers are, then by point.
    pub rows: Vec<Row>,
    /// What a person should know about how this came together.
    pub notes: Vec<String>,
}

/// Writes a campaign's file. Each line is on its way to the disk before the next begins, so
/// that a campaign that is killed keeps its rows.
#[derive(Debug)]
pub struct Writer {
    file: File,
    name: String,
}

impl Writer {
    /// Makes the file, or begins it anew.
    pub fn create(path: &Path) -> Result<Writer> {
        let name = path.display().to_string();
        let file = File::create(path).with_context(|| format!("making {name}"))?;
        Ok(Writer { file, name })
    }

    /// Adds a header or row.
    pub fn write(&mut self, line: &Line) -> Result<()> {
        let mut text = serde_json::to_string(line).context("a row as JSON")?;
        text.push('\n');
        let written = self.file.write_all(text.as_bytes());
        written.with_context(|| format!("writing {}", self.name))
    }
}

impl Campaign {
    /// Reads the files of shards, or of a whole campaign, as one.
    pub fn read<P: AsRef<Path>>(paths: &[P]) -> Result<Campaign> {
        let mut merging = Merging::default();
        for path in paths {
            let path = path.as_ref();
            let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
            merging.add(&path.display().to_string(), BufReader::new(file))?;
        }
        Ok(merging.finish())
    }

    /// One from headers and rows in memory.
    pub fn new(headers: Vec<Header>, rows: Vec<Row>) -> Campaign {
        let mut campaign = Campaign {
            headers,
            rows,
            notes: Vec::new(),
        };
        campaign.sort();
        campaign
    }

    fn sort(&mut self) {
        let order: HashMap<(&str, &str), usize> = self
            .headers
            .iter()
            .enumerate()
            .map(|(i, h)| ((h.scenario.as_str(), h.policy.as_str()), i))
            .collect();
        self.rows.sort_by_cached_key(|row| {
            let place = order.get(&(row.scenario.as_str(), row.policy.as_str()));
            let points: Vec<u64> = row.faults.iter().map(|f| f.point.number).collect();
            (
                place.copied().unwrap_or(usize::MAX),
                points,
                row.token.clone(),
            )
        });
    }

    /// The rows that belong to a header.
    pub fn rows_of<'a>(&'a self, header: &'a Header) -> impl Iterator<Item = &'a Row> {
        let is = |row: &&Row| row.scenario == header.scenario && row.policy == header.policy;
        self.rows.iter().filter(is)
    }

    /// The scenarios' names, each once.
    pub fn scenarios(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for header in &self.headers {
            if !names.contains(&header.scenario.as_str()) {
                names.push(&header.scenario);
            }
        }
        names
    }
}

#[derive(Default)]
struct Merging {
    campaign: Campaign,
    /// Where each header came from.
    from: Vec<String>,
    tokens: HashMap<String, usize>,
    twice: u64,
}

impl Merging {
    fn add(&mut self, name: &str, mut text: impl BufRead) -> Result<()> {
        let mut line = String::new();
        let mut number = 0;
        loop {
            line.clear();
            let len = text
                .read_line(&mut line)
                .with_context(|| format!("reading {name}"))?;
            if len == 0 {
                break;
            }
            number += 1;
            match serde_json::from_str(&line) {
                Ok(Line::Header(header)) => self.header(name, header)?,
                Ok(Line::Row(row)) => {
                    let known = |h: &Header| h.scenario == row.scenario && h.policy == row.policy;
                    if !self.campaign.headers.iter().any(known) {
                        bail!(
                            "{name}: line {number}: a row before the header of its scenario and policy"
                        );
                    }
                    self.row(name, number, *row)?;
                }
                // What a shard that was killed wrote last.
                Err(_) if !line.ends_with('\n') => {
                    let note = format!("{name}: the last line is cut off; its run is missing");
                    self.campaign.notes.push(note);
                }
                Err(error) => bail!("{name}: line {number}: {error}"),
            }
        }
        Ok(())
    }

    fn header(&mut self, name: &str, header: Header) -> Result<()> {
        let headers = &self.campaign.headers;
        let same = |h: &Header| h.scenario == header.scenario && h.policy == header.policy;
        let Some(at) = headers.iter().position(same) else {
            self.campaign.headers.push(header);
            self.from.push(name.into());
            return Ok(());
        };
        let (before, whose) = (&headers[at], &self.from[at]);
        let what = if before.build != header.build {
            "were made by different builds"
        } else if before.platform != header.platform {
            "were made on different platforms"
        } else if before.baseline != header.baseline {
            "differ in the run without a fault: was the scenario changed, or compiled by another compiler?"
        } else if before.runs != header.runs {
            "are shards of different campaigns"
        } else {
            return Ok(());
        };
        bail!(
            "{whose} and {name} {what} (scenario {}, policy {})",
            header.scenario,
            header.policy
        )
    }

    fn row(&mut self, name: &str, number: u64, row: Row) -> Result<()> {
        let Some(&at) = self.tokens.get(&row.token) else {
            self.tokens
                .insert(row.token.clone(), self.campaign.rows.len());
            self.campaign.rows.push(row);
            return Ok(());
        };
        self.twice += 1;
        let before = &mut self.campaign.rows[at];
        if before.verdict != row.verdict {
            let (token, a, b) = (&row.token, before.verdict, row.verdict);
            let note = format!(
                "{token} came to {a:?} once and to {b:?} in {name}, line {number}: the worse one counts"
            );
            self.campaign.notes.push(note);
            if row.verdict > before.verdict {
                *before = row;
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Campaign {
        if self.twice > 0 {
            let note = format!(
                "{} runs were there more than once and count once",
                self.twice
            );
            self.campaign.notes.push(note);
        }
        self.campaign.sort();
        self.campaign
    }
}

/// Runs by verdict and by the kind of point.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    counts: BTreeMap<(Option<PointKind>, Verdict), u64>,
}

impl Summary {
    /// Of these rows.
    pub fn of<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Summary {
        let mut summary = Summary::default();
        rows.into_iter().for_each(|row| summary.add(row));
        summary
    }

    /// Counts one more.
    pub fn add(&mut self, row: &Row) {
        *self.counts.entry((row.kind(), row.verdict)).or_default() += 1;
    }

    /// Counts what another has counted.
    pub fn merge(&mut self, other: &Summary) {
        for (&key, count) in &other.counts {
            *self.counts.entry(key).or_default() += count;
        }
    }

    /// Runs of this kind (`None`: without a fault) with this verdict.
    pub fn count(&self, kind: Option<PointKind>, verdict: Verdict) -> u64 {
        self.counts.get(&(kind, verdict)).copied().unwrap_or(0)
    }

    /// Runs with this verdict.
    pub fn verdict(&self, verdict: Verdict) -> u64 {
        self.sum(|_, v| v == verdict)
    }

    /// All runs.
    pub fn total(&self) -> u64 {
        self.sum(|_, _| true)
    }

    /// Runs in which the system did what it must not.
    pub fn violations(&self) -> u64 {
        self.sum(|_, v| v.is_violation())
    }

    /// The verdicts that occur, the mildest first.
    pub fn verdicts(&self) -> Vec<Verdict> {
        let all = Verdict::ALL.iter().copied();
        all.filter(|&v| self.verdict(v) > 0).collect()
    }

    /// The kinds that occur, as they are shown; runs without a fault last.
    pub fn kinds(&self) -> Vec<Option<PointKind>> {
        let all = PointKind::ALL.iter().copied().map(Some).chain([None]);
        all.filter(|&kind| self.sum(|k, _| k == kind) > 0).collect()
    }

    fn sum(&self, counts: impl Fn(Option<PointKind>, Verdict) -> bool) -> u64 {
        let counted = self.counts.iter().filter(|((k, v), _)| counts(*k, *v));
        counted.map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
#[allow(missing_docs)]
pub mod tests {
    use super::super::row::tests::row;
    use super::super::row::{Baseline, Hash, Side};
    use super::*;

    /// A header of `d1-read`.
    pub fn header(policy: &str) -> Header {
        Header {
            scenario: "d1-read".into(),
            description: "A file is read into pages that are mapped from another file".into(),
            policy: policy.into(),
            platform: "kvm".into(),
            build: "0.1.0-666e125".into(),
            baseline: Baseline {
                output: Hash(0x1234_5678_9abc_def0),
                records: Hash(0xfeed_0000_0000_0001),
                points: 240,
                status: 0,
                stdout: "d1-read: 65536 bytes, all right\n".into(),
            },
            runs: 4,
        }
    }

    fn file(dir: &Path, name: &str, lines: &[Line]) -> std::path::PathBuf {
        let path = dir.join(name);
        let mut writer = Writer::create(&path).unwrap();
        lines.iter().for_each(|line| writer.write(line).unwrap());
        path
    }

    fn line(number: u64, verdict: Verdict) -> Line {
        Line::Row(Box::new(row("try", number, Side::Target, 0, verdict)))
    }

    #[test]
    fn shards_become_one() {
        let dir = tempfile::tempdir().unwrap();
        let head = Line::Header(header("try"));
        let a = file(
            dir.path(),
            "a",
            &[head.clone(), line(9, Verdict::Ok), line(3, Verdict::Ok)],
        );
        let b = file(
            dir.path(),
            "b",
            &[head, line(3, Verdict::Deadlock), line(200, Verdict::Leak)],
        );
        let mut cut = std::fs::read(&b).unwrap();
        cut.extend_from_slice(b"{\"row\":{\"tok");
        std::fs::write(&b, cut).unwrap();
        let campaign = Campaign::read(&[a, b]).unwrap();
        let numbers: Vec<u64> = campaign
            .rows
            .iter()
            .map(|r| r.faults[0].point.number)
            .collect();
        assert_eq!(numbers, [3, 9, 200]);
        assert_eq!(campaign.rows[0].verdict, Verdict::Deadlock);
        assert_eq!(campaign.headers.len(), 1);
        assert_eq!(campaign.notes.len(), 3, "{:?}", campaign.notes);
        let summary = Summary::of(&campaign.rows);
        assert_eq!((summary.total(), summary.violations()), (3, 2));
        assert_eq!(
            summary.verdicts(),
            [Verdict::Ok, Verdict::Leak, Verdict::Deadlock]
        );
        assert_eq!(summary.kinds(), [Some(PointKind::Copy)]);
        let mut twice = summary.clone();
        twice.merge(&summary);
        assert_eq!(twice.count(Some(PointKind::Copy), Verdict::Ok), 2);
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let a = file(dir.path(), "a", &[Line::Header(header("try"))]);
        let refuse = |header: Header, what: &str| {
            let b = file(dir.path(), "b", &[Line::Header(header)]);
            let error = Campaign::read(&[&a, &b]).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        };
        let mut other = header("try");
        other.build = "else".into();
        refuse(other, "different builds");
        let mut other = header("try");
        other.baseline.points += 1;
        refuse(other, "the run without a fault");
        let mut other = header("try");
        other.runs = 5;
        refuse(other, "different campaigns");
    }

    #[test]
    fn damage_is_named_by_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(dir.path(), "a", &[line(1, Verdict::Ok)]);
        let error = Campaign::read(&[&path]).unwrap_err().to_string();
        assert!(error.contains("line 1: a row before the header"), "{error}");
        std::fs::write(&path, "{\"row\":7}\n{}\n").unwrap();
        let error = Campaign::read(&[&path]).unwrap_err().to_string();
        assert!(error.contains("line 1"), "{error}");
    }
}
