//! All points of a run in their order, coloured by what came of them: a lane for each kind of
//! point, a column for each point, the worst verdict of a point's runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::style;
use crate::explore::row::{PointKind, Row, Verdict};
use crate::xml::escaped;

/// The drawing's width; where lanes begin; a lane's height and what lies between two.
const WIDTH: f64 = 1000.0;
const LEFT: f64 = 74.0;
const LANE: f64 = 22.0;
const GAP: f64 = 6.0;
const TOP: f64 = 10.0;
/// Columns that can be told apart; with more points, neighbours share one.
const COLUMNS: usize = 450;

/// The points of several campaigns over one scenario, so that the same column is the same
/// point under every policy.
#[derive(Clone, Debug, Default)]
pub struct Axis {
    points: BTreeSet<u64>,
    kinds: BTreeSet<PointKind>,
}

impl Axis {
    /// Of all these rows' points.
    pub fn of<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Axis {
        let mut axis = Axis::default();
        for fault in rows.into_iter().filter_map(|row| row.faults.first()) {
            axis.points.insert(fault.point.number);
            axis.kinds.insert(fault.point.kind);
        }
        axis
    }

    /// How many points.
    pub fn len(&self) -> usize {
        self.points.len()
    }

    /// The drawing, as SVG, of rows whose points are on the axis. `title` says what it shows.
    pub fn draw<'a>(&self, title: &str, rows: impl IntoIterator<Item = &'a Row>) -> String {
        // A number may be another kind of point under another policy.
        let mut worst: BTreeMap<u64, (PointKind, Verdict, u64)> = BTreeMap::new();
        for row in rows {
            if let Some(fault) = row.faults.first() {
                let point = &fault.point;
                let entry = worst
                    .entry(point.number)
                    .or_insert((point.kind, row.verdict, 0));
                entry.1 = entry.1.max(row.verdict);
                entry.2 += 1;
            }
        }
        let kinds: Vec<PointKind> = self.kinds.iter().copied().collect();
        let columns = self.points.len().clamp(1, COLUMNS);
        let step = (WIDTH - LEFT - 12.0) / columns as f64;
        let height = TOP + kinds.len() as f64 * (LANE + GAP) + 22.0;
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">",
            escaped(title)
        );
        for (i, kind) in kinds.iter().enumerate() {
            let y = TOP + i as f64 * (LANE + GAP);
            let width = step * columns as f64;
            let _ = write!(
                svg,
                "<text x=\"12\" y=\"{:.1}\">{kind}</text>\
                 <rect class=\"lane\" x=\"{LEFT}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{LANE}\" rx=\"3\"/>",
                y + 15.0
            );
        }
        let mut cells: BTreeMap<(usize, PointKind), (Verdict, u64, u64, u64)> = BTreeMap::new();
        for (place, &number) in self.points.iter().enumerate() {
            let Some(&(kind, verdict, runs)) = worst.get(&number) else {
                continue;
            };
            let column = place * columns / self.points.len();
            let cell = cells
                .entry((column, kind))
                .or_insert((verdict, 0, number, number));
            cell.0 = cell.0.max(verdict);
            cell.1 += runs;
            cell.3 = number;
        }
        let gap = if step > 4.0 { 1.0 } else { 0.0 };
        for ((column, kind), (verdict, runs, first, last)) in cells {
            let lane = kinds.iter().position(|k| *k == kind).unwrap_or(0);
            let x = LEFT + column as f64 * step;
            let y = TOP + lane as f64 * (LANE + GAP);
            // What is well is low, so that what is not stands out without colours, too.
            let tall = if verdict.is_violation() {
                LANE
            } else if verdict == Verdict::Ok {
                LANE * 0.45
            } else {
                LANE * 0.7
            };
            let points = if first == last {
                format!("point {first}")
            } else {
                format!("points {first} to {last}")
            };
            let _ = write!(
                svg,
                "<rect class=\"{}\" x=\"{x:.2}\" y=\"{:.1}\" width=\"{:.2}\" height=\"{tall:.1}\">\
                 <title>{points}: {verdict}, {runs} runs</title></rect>",
                style::class(verdict),
                y + LANE - tall,
                (step - gap).max(0.8)
            );
        }
        let y = height - 8.0;
        if let (Some(first), Some(last)) = (self.points.first(), self.points.last()) {
            let _ = write!(
                svg,
                "<text x=\"{LEFT}\" y=\"{y}\">point {first}</text>\
                 <text x=\"{}\" y=\"{y}\" text-anchor=\"end\">point {last}</text>",
                WIDTH - 12.0
            );
        }
        svg + "</svg>"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explore::row::Side;
    use crate::explore::row::tests::row;

    #[test]
    fn a_point_shows_its_worst_verdict() {
        let rows = [
            row("try", 5, Side::Source, 0, Verdict::Ok),
            row("try", 5, Side::Target, 0, Verdict::Deadlock),
            row("try", 9, Side::Target, 0, Verdict::Ok),
        ];
        let axis = Axis::of(&rows);
        assert_eq!(axis.len(), 2);
        let svg = axis.draw("a <title>", &rows);
        assert!(svg.contains("point 5: deadlock, 2 runs"), "{svg}");
        assert!(svg.contains("point 9: ok, 1 runs"));
        assert!(svg.contains("a &lt;title&gt;"));
        // Another campaign's points keep their columns.
        let other = axis.draw("", &rows[2..]);
        let x = |svg: &str| {
            svg.split("class=\"ok\" x=\"")
                .nth(1)
                .map(|rest| rest[..6].to_string())
        };
        assert_eq!(x(&svg), x(&other));
    }

    #[test]
    fn a_point_is_in_the_lane_of_its_kind() {
        let mut rows = ["transparent", "try"].map(|p| row(p, 5, Side::Target, 0, Verdict::Ok));
        rows[1].faults[0].point.kind = PointKind::Request;
        let axis = Axis::of(&rows);
        let place = |row: &Row| {
            let svg = axis.draw("", [row]);
            svg.split("class=\"ok\"")
                .nth(1)
                .map(|rest| rest[..40].to_string())
        };
        assert_ne!(place(&rows[0]), place(&rows[1]));
    }

    #[test]
    fn many_points_share_columns() {
        let rows: Vec<Row> = (0..10_000)
            .map(|n| row("try", n, Side::Target, 0, Verdict::Ok))
            .collect();
        let svg = Axis::of(&rows).draw("", &rows);
        assert_eq!(svg.matches("class=\"ok\"").count(), COLUMNS);
        assert!(Axis::default().draw("", &[]).starts_with("<svg"));
    }
}
