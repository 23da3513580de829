//! Memory in servers is asked for before it is used, or is little: `infallible.txt` counts the lines that do neither,
//! by file and reason.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What makes a collection grow, or makes one.
const GROWS: [&str; 25] = [
    ".push(",
    ".push_back(",
    ".push_front(",
    ".push_str(",
    ".extend(",
    ".extend_from_slice(",
    ".resize(",
    ".resize_with(",
    ".append(",
    ".to_vec(",
    ".to_owned(",
    ".to_string(",
    ".into_owned(",
    ".concat(",
    ".join(",
    ".repeat(",
    ".insert(",
    ".or_insert",
    ".or_default(",
    ".collect(",
    ".collect::<",
    "with_capacity(",
    "vec![",
    "format!(",
    "::from(b\"",
];
/// What asks for memory and can be refused.
const ASKS: [&str; 5] = ["try_reserve", "room::", "reserve(", "vector(", "zeroed("];

/// Numbers of the lines of a source that grow something for which its function has not asked.
fn lines(text: &str) -> Vec<usize> {
    let mut asked = false;
    let mut found = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        // Unit tests stand at the end of a file.
        if line.starts_with("#[cfg(test)]") {
            break;
        }
        let line = line.trim();
        if line.starts_with("//") {
            continue;
        }
        let words = line.split('(').next().unwrap_or_default();
        if words.split(' ').any(|word| word == "fn") {
            asked = false;
        }
        asked |= ASKS.iter().any(|word| line.contains(word));
        if !asked && GROWS.iter().any(|word| line.contains(word)) {
            found.push(number);
        }
    }
    found
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str());
        match name {
            // Of the host.
            Some("tests" | "tests.rs" | "fake.rs" | "fuzz") => {}
            _ if path.is_dir() => sources(&path, found),
            Some(name) if name.ends_with(".rs") => found.push(path),
            _ => {}
        }
    }
}

fn servers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../servers")
}

#[test]
fn what_a_program_can_make_large_is_asked_for() {
    let known = include_str!("infallible.txt").lines();
    let known = known.filter_map(|line| {
        let (file, count) = line
            .split_once(' ')
            .filter(|(file, _)| file.ends_with(".rs"))?;
        Some((file, count.parse::<usize>().expect("a number")))
    });
    let mut known: BTreeMap<_, _> = known.collect();
    assert!(known.len() > 80, "only {} files", known.len());
    let mut files = Vec::new();
    sources(&servers(), &mut files);
    files.sort();
    let mut wrong = Vec::new();
    for path in &files {
        let text = fs::read_to_string(path).expect("a source");
        let name = path.strip_prefix(servers()).expect("a server's");
        let name = name.to_str().expect("a name");
        let found = lines(&text);
        let expected = known.remove(name).unwrap_or(0);
        if found.len() != expected {
            wrong.push(format!(
                "{name} {} (not {expected}; lines {found:?})",
                found.len()
            ));
        }
    }
    wrong.extend(known.keys().map(|gone| format!("{gone} is gone")));
    assert!(
        wrong.is_empty(),
        "ask for the memory (rt::room, docs/decisions/020-heaps.md), or give tests/infallible.txt the reason why not:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn the_count_finds_what_it_is_for() {
    let one =
        |body: &str| lines(&format!("fn f() {{\n{body}\n}}\nfn g() {{ list.push(1) }}")).len();
    assert_eq!(one("let all: Vec<_> = some.collect();"), 2);
    assert_eq!(one("all.resize(len, 0);"), 2);
    assert_eq!(one("let text = format!(\"{number}\");"), 2);
    // Asked for, if only here.
    assert_eq!(one("all.try_reserve(len)?;\nall.resize(len, 0);"), 1);
    assert_eq!(one("let all = room::collect(some)?;"), 1);
    assert_eq!(
        lines("// all.push(1)\n#[cfg(test)]\nmod tests { fn f() { all.push(1) } }").len(),
        0
    );
}
