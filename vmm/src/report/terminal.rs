//! A campaign on a terminal: progress while it runs, a table at its end.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::explore::campaign::{Campaign, Summary};
use crate::explore::row::{Row, Verdict};
use crate::log::complain;

/// How often a line tells how far it is where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// How far one campaign is: a bar on a terminal, now and then a line elsewhere.
pub struct Progress {
    name: String,
    bar: ProgressBar,
    summary: Summary,
    begun: Instant,
    told: Instant,
}

impl Progress {
    /// Nothing done of `points`.
    pub fn new(name: &str, points: u64) -> Progress {
        let bar = ProgressBar::with_draw_target(Some(points), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template(
            "{prefix} {bar:30} {pos}/{len} points, {msg} {elapsed} (left {eta})",
        );
        if let Ok(style) = style {
            bar.set_style(style);
        }
        bar.set_prefix(name.to_string());
        Progress {
            name: name.into(),
            bar,
            summary: Summary::default(),
            begun: Instant::now(),
            told: Instant::now(),
        }
    }

    /// A run ended. Violations are told at once.
    pub fn row(&mut self, row: &Row) {
        self.summary.add(row);
        self.bar.set_message(self.state());
        if row.verdict.is_violation() {
            let text = format!(
                "{}: {} ({})\n  {}",
                row.verdict, row.token, row.detail, row.portable
            );
            let text = text.trim_end().to_string();
            self.bar.suspend(|| complain(&text));
        }
    }

    /// A point is done.
    pub fn point(&mut self) {
        self.bar.inc(1);
        if self.bar.is_hidden() && self.told.elapsed() >= LINE_EVERY {
            self.told = Instant::now();
            let (at, of) = (self.bar.position(), self.bar.length().unwrap_or(0));
            complain(&format!(
                "{}: {at}/{of} points, {}",
                self.name,
                self.state()
            ));
        }
    }

    fn state(&self) -> String {
        let runs = self.summary.total();
        let rate = runs as f64 / self.begun.elapsed().as_secs_f64().max(0.001);
        format!("{runs} runs ({rate:.0}/s), {}", counts(&self.summary))
    }

    /// The campaign is over.
    pub fn finish(self) {
        self.bar.finish_and_clear();
        complain(&format!("{}: {}", self.name, self.state()));
    }
}

/// The verdicts that occur and how often, in one line.
fn counts(summary: &Summary) -> String {
    let one = |verdict: &Verdict| format!("{} {verdict}", summary.verdict(*verdict));
    let all: Vec<String> = summary.verdicts().iter().map(one).collect();
    if all.is_empty() {
        "nothing yet".into()
    } else {
        all.join(", ")
    }
}

/// Runs by scenario, policy and verdict.
pub fn table(campaign: &Campaign) -> String {
    let verdicts = Summary::of(&campaign.rows).verdicts();
    let mut rows = vec![
        ["scenario", "policy", "points", "runs"]
            .map(str::to_string)
            .to_vec(),
    ];
    rows[0].extend(verdicts.iter().map(|verdict| verdict.to_string()));
    for header in &campaign.headers {
        let summary = Summary::of(campaign.rows_of(header));
        let mut row = vec![
            header.scenario.clone(),
            header.policy.clone(),
            header.baseline.points.to_string(),
            summary.total().to_string(),
        ];
        let count = |verdict: &Verdict| match summary.verdict(*verdict) {
            0 => "-".to_string(),
            count => count.to_string(),
        };
        row.extend(verdicts.iter().map(count));
        rows.push(row);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column];
            // Words to the left, numbers to the right.
            text += &match column {
                0 | 1 => format!("{cell:width$}  "),
                _ => format!("{cell:>width$}  "),
            };
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    for note in &campaign.notes {
        text += &format!("note: {note}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explore::campaign::tests::header;
    use crate::explore::row::Side;
    use crate::explore::row::tests::row;

    #[test]
    fn the_table_counts_what_occurs() {
        let rows = vec![
            row("try", 1, Side::Target, 0, Verdict::Ok),
            row("try", 2, Side::Target, 0, Verdict::Ok),
            row("transparent", 1, Side::Target, 0, Verdict::Deadlock),
        ];
        let headers = vec![header("try"), header("transparent")];
        let table = table(&Campaign::new(headers, rows));
        let lines: Vec<Vec<&str>> = table
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(
            lines[0],
            ["scenario", "policy", "points", "runs", "ok", "deadlock"]
        );
        assert_eq!(lines[1][3..], ["2", "2", "-"]);
        assert_eq!(lines[2][3..], ["1", "-", "1"]);
    }
}
