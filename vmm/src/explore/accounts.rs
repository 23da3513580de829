//! What the system still holds when all programs have ended: one line of it at the end of a run
//! ([`abi::lab::ACCOUNTS`]), compared with that of the run in which nothing was absent.

/// What may be more than in the run without a fault, and by how much. Everything else has to be
/// the same.
///
/// * `cached`: pages of files, which go when memory is short. Which there are depends on what was
///   asked for again.
/// * `services`, `vm`: frames of the services' and VM's heaps. A heap that once had to hold more at
///   one time stays as large: a few steps of growth, of 64 frames for VM.
/// * `tables`: page tables, those of that growth.
const MORE: [(&str, u64); 4] = [
    ("cached", u64::MAX),
    ("services", 64),
    ("vm", 64),
    ("tables", 4),
];

/// The names and numbers of a line.
fn parse(line: &str) -> Option<Vec<(&str, u64)>> {
    let words: Vec<_> = line.split_ascii_whitespace().collect();
    let (pairs, rest) = words.as_chunks();
    let pairs = pairs
        .iter()
        .map(|[name, number]| Some((*name, number.parse().ok()?)));
    pairs
        .collect::<Option<_>>()
        .filter(|pairs: &Vec<_>| !pairs.is_empty() && rest.is_empty())
}

/// What the end of the machine leaves of processes whose program was killed: those that nobody
/// has waited for.
const UNAWAITED: &str = "processes";

/// What was different in a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Run {
    /// Pages were absent, or nothing was.
    Absence,
    /// Memory was refused. Pages of files that a file system shares with VM's cache without it (and
    /// then count as VM's) may have parted: the service's frames are more by as many.
    Refusal,
    /// Memory was refused, and the program did not come to its end.
    CutShort,
}

/// What leaked, and how much of it: `None` when nothing did.
pub fn leaks(seen: &str, fault_free: &str, run: Run) -> Option<String> {
    let (Some(now), Some(before)) = (parse(seen), parse(fault_free)) else {
        let both = format!("{seen:?} instead of {fault_free:?}");
        return (seen != fault_free)
            .then(|| format!("what is held at the end is not known: {both}"));
    };
    let of = |all: &[(&str, u64)], name: &str| {
        let found = all.iter().find(|(other, _)| *other == name);
        found.map_or(0, |&(_, number)| number)
    };
    let mut leaked = Vec::new();
    for &(name, number) in &now {
        let wanted = match name {
            "services" if run != Run::Absence => of(&before, name) + of(&before, "cached"),
            _ => of(&before, name),
        };
        let fine = match MORE.iter().find(|(other, _)| *other == name) {
            Some((_, more)) => number <= wanted.saturating_add(*more),
            None if run == Run::CutShort && name == UNAWAITED => number >= wanted,
            None => number == wanted,
        };
        if !fine {
            leaked.push(format!("{name} {number} instead of {wanted}"));
        }
    }
    (!leaked.is_empty()).then(|| leaked.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leaked_is_named() {
        let before = "files 0 lost 0 services 100 cached 7";
        let leaked = |seen| leaks(seen, before, Run::Absence);
        assert_eq!(leaked(before), None);
        assert_eq!(leaked("files 0 lost 0 services 164 cached 9999"), None);
        // A page that was shared may be two.
        let refused = |seen| leaks(seen, before, Run::Refusal);
        assert_eq!(refused("files 0 lost 0 services 171 cached 7"), None);
        assert!(refused("files 0 lost 0 services 172 cached 7").is_some());
        let processes = |run| leaks("processes 4", "processes 2", run);
        assert!(processes(Run::Refusal).is_some() && processes(Run::CutShort).is_none());
        let one = leaked("files 0 lost 1 services 100 cached 7");
        assert_eq!(one.as_deref(), Some("lost 1 instead of 0"));
        let two = leaked("files 2 lost 0 services 165 cached 7");
        let told = "files 2 instead of 0, services 165 instead of 100";
        assert_eq!(two.as_deref(), Some(told));
    }

    #[test]
    fn a_line_that_is_none_is_no_proof() {
        for line in ["", "files", "files x", "files 1 lost"] {
            assert_eq!(parse(line), None, "{line}");
            assert!(leaks(line, "files 1", Run::Absence).is_some(), "{line}");
        }
    }
}
