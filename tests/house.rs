//! Rules of the tree that are tests: none that did not run may count as one that passed.

use std::fs;
use std::path::{Path, PathBuf};

/// Where tests are.
const PLACES: [&str; 7] = [
    "abi",
    "guest-kernel",
    "libexec",
    "servers",
    "tests",
    "vmm/src",
    "vmm/tests",
];

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    let entries =
        fs::read_dir(directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    for entry in entries {
        let path = entry.expect("an entry").path();
        let is_source = |path: &Path| path.extension().is_some_and(|e| e == "rs" || e == "c");
        match path.is_dir() {
            true => sources(&path, found),
            false if is_source(&path) => found.push(path),
            false => {}
        }
    }
}

/// What a test that leaves itself out has in its text: it says so, or the harness does.
fn leaves_out(line: &str) -> bool {
    let line = line.to_lowercase();
    let said = ["skipped", "skipping", "not tested", "skip:"];
    let quoted = |text: &str| line.split('"').skip(1).step_by(2).any(|s| s.contains(text));
    said.into_iter().any(quoted) || line.trim_start().starts_with(concat!("#[", "ignore"))
}

#[test]
fn no_test_leaves_itself_out() {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    for place in PLACES {
        sources(&tree.join(place), &mut files);
    }
    assert!(files.len() > 200, "only {} sources", files.len());
    let this = Path::new(file!()).file_name();
    let mut found = Vec::new();
    for path in files.iter().filter(|path| path.file_name() != this) {
        let text = fs::read_to_string(path).expect("a source");
        let lines = (1..).zip(text.lines()).filter(|(_, line)| leaves_out(line));
        found.extend(lines.map(|(n, line)| format!("{}:{n}: {}", path.display(), line.trim())));
    }
    assert!(
        found.is_empty(),
        "what the machine lacks fails the test that needs it:\n{}",
        found.join("\n")
    );
    // And the search finds what it is for.
    assert!(leaves_out(
        "    eprintln!(\"skipped: no usable /dev/kvm\");"
    ));
    assert!(leaves_out("    #[ignore = \"slow\"]"));
    assert!(!leaves_out("    let skipped = start - self.start;"));
}

/// A file of tests that the manifest does not name never runs.
#[test]
fn every_file_of_tests_is_a_target() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let manifest = fs::read_to_string(root.join("vmm/Cargo.toml")).expect("the manifest");
    let missing: Vec<_> = fs::read_dir(root.join("tests"))
        .expect("tests")
        .map(|entry| entry.expect("an entry").file_name())
        .filter_map(|name| name.into_string().ok())
        .filter(|name| name.ends_with(".rs") && !manifest.contains(&format!("\"../tests/{name}\"")))
        .collect();
    assert!(
        missing.is_empty(),
        "no target in vmm/Cargo.toml: {missing:?}"
    );
}
