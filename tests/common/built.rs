//! The test programs that cargo built beside this one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

/// The test programs of this name beside this one, newest first.
fn programs(name: &str) -> Vec<PathBuf> {
    let this = std::env::current_exe().expect("this program");
    let directory = this.parent().expect("a directory");
    let hash_of = |path: &Path| {
        let file = path.file_name()?.to_str()?;
        let hash = file.strip_prefix(name)?.strip_prefix('-')?;
        let is_hash = hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit());
        let changed = path.metadata().and_then(|m| m.modified()).ok()?;
        is_hash.then_some(changed)
    };
    let entries = std::fs::read_dir(directory).expect("a directory");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut found: Vec<(SystemTime, PathBuf)> = paths
        .filter_map(|path| Some((hash_of(&path)?, path)))
        .collect();
    found.sort_unstable_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, path)| path).collect()
}

/// The newest test program of this name that has such a test.
pub fn program(name: &str, test: &str) -> PathBuf {
    let has = |path: &PathBuf| {
        let listed = Command::new(path)
            .args([test, "--exact", "--list"])
            .output();
        listed.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(": test"))
    };
    let found = programs(name).into_iter().find(has);
    found.unwrap_or_else(|| panic!("no test {name}::{test}: cargo test --workspace --no-run"))
}
