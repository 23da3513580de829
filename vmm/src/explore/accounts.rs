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

/// What leaked, and how much of it: `None` when nothing did.
pub fn leaks(seen: &str, fault_free: &str) -> Option<String> {
    let (Some(now), Some(before)) = (parse(seen), parse(fault_free)) else {
        let both = format!("{seen:?} instead of {fault_free:?}");
        return (seen != fault_free)
            .then(|| format!("what is held at the end is not known: {both}"));
    };
    let mut leaked = Vec::new();
    for &(name, number) in &now {
        let wanted = before.iter().find(|(other, _)| *other == name);
        let wanted = wanted.map_or(0, |&(_, wanted)| wanted);
        let fine = match MORE.iter().find(|(other, _)| *other == name) {
            Some((_, more)) => number <= wanted.saturating_add(*more),
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
        let leaked = |seen| leaks(seen, before);
        assert_eq!(leaked(before), None);
        assert_eq!(leaked("files 0 lost 0 services 164 cached 9999"), None);
        assert_eq!(leaked("files 0 lost 0 services 90 cached 0"), None);
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
            assert!(leaks(line, "files 1").is_some(), "{line}");
        }
    }
}
