//! Runs that failed in the same way, together.

use std::collections::HashMap;

use crate::explore::row::Row;

/// Runs of one scenario under one policy with the same verdict and, but for numbers, the same
/// words.
#[derive(Clone, Debug, PartialEq)]
pub struct Group<'a> {
    /// In order of points; the first stands for all.
    pub rows: Vec<&'a Row>,
}

impl<'a> Group<'a> {
    /// The row that stands for all.
    pub fn first(&self) -> &'a Row {
        self.rows[0]
    }
}

/// Groups of the rows that violate something: the worst verdict first, then the largest.
pub fn violations<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Vec<Group<'a>> {
    group(rows, |row| row.verdict.is_violation())
}

/// Groups of the rows in which the program was told an error.
pub fn surfaced<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Vec<Group<'a>> {
    group(rows, |row| row.surfaced.is_some())
}

fn group<'a>(
    rows: impl IntoIterator<Item = &'a Row>,
    wanted: impl Fn(&Row) -> bool,
) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    let mut places = HashMap::new();
    for row in rows.into_iter().filter(|row| wanted(row)) {
        let at = *places.entry(signature(row)).or_insert_with(|| {
            groups.push(Group { rows: Vec::new() });
            groups.len() - 1
        });
        groups[at].rows.push(row);
    }
    groups.sort_by_key(|group| {
        let count = group.rows.len();
        (
            std::cmp::Reverse(group.first().verdict),
            std::cmp::Reverse(count),
        )
    });
    groups
}

fn signature(row: &Row) -> (String, String, String, String) {
    let words = match &row.surfaced {
        Some(surfaced) => format!("{} {}", surfaced.error, surfaced.who),
        // Who else waits is circumstance.
        None if !row.cycle.is_empty() => {
            let ring = row.cycle.lines().take_while(|line| line.starts_with(' '));
            ring.collect()
        }
        None => row.detail.clone(),
    };
    let verdict = row.verdict.to_string();
    (
        row.scenario.clone(),
        row.policy.clone(),
        verdict,
        without_numbers(&words),
    )
}

/// Every word that has a digit in it, hexadecimal numbers among them, becomes `#`.
fn without_numbers(text: &str) -> String {
    let mut out = String::new();
    let mut word = String::new();
    for c in text.chars().chain([' ']) {
        if c.is_alphanumeric() {
            word.push(c);
            continue;
        }
        if word.chars().any(|c| c.is_ascii_digit()) {
            out.push('#');
        } else {
            out.push_str(&word);
        }
        word.clear();
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explore::row::Side;
    use crate::explore::row::Verdict;
    use crate::explore::row::tests::row;

    #[test]
    fn alike_failures_come_together() {
        let with = |number, verdict, detail: &str, cycle: &str| {
            let mut row = row("try", number, Side::Target, 0, verdict);
            (row.detail, row.cycle) = (detail.into(), cycle.into());
            row
        };
        let rows = [
            with(1, Verdict::Ok, "", ""),
            with(2, Verdict::WrongData, "byte 7 differs", ""),
            with(
                3,
                Verdict::Deadlock,
                "",
                "  ext2 waits for vm: at 0x5000\nwho else waits:\n  a",
            ),
            with(4, Verdict::WrongData, "byte 12 differs", ""),
            with(5, Verdict::Deadlock, "", "  ext2 waits for vm: at 0x7abc\n"),
            with(6, Verdict::WrongData, "a file is missing", ""),
        ];
        let groups = violations(&rows);
        let numbers: Vec<Vec<u64>> = groups
            .iter()
            .map(|group| {
                group
                    .rows
                    .iter()
                    .map(|r| r.faults[0].point.number)
                    .collect()
            })
            .collect();
        assert_eq!(numbers, [vec![3, 5], vec![2, 4], vec![6]]);
        assert!(surfaced(&rows).is_empty());
    }
}
