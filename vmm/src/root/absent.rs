//! Files and directories that a program looked for in the guest and that the host has: which they
//! are, and how they come along the next time.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::closure::{lexical, on};
use super::with::covered;

/// Files and directories that are named.
const NAMED: usize = 5;
/// Things to be taken along that are named.
const TAKEN: usize = 12;
/// A directory is taken whole up to this size: bytes, and entries.
const WHOLE: (u64, usize) = (128 << 20, 10_000);

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// Some of the files, and directories with a slash behind them.
    pub files: Vec<String>,
    /// How many more there are.
    pub more: usize,
    /// What to name by `--with`.
    pub with: Vec<String>,
}

impl Advice {
    /// For a person, a line each.
    pub fn lines(&self) -> Vec<String> {
        let count = self.files.len() + self.more;
        let what = match count {
            1 => "a path".to_string(),
            _ => format!("{count} paths"),
        };
        let mut lines = vec![format!(
            "the program looked for {what} that this host has and the guest has not:"
        )];
        lines.extend(self.files.iter().map(|file| format!("  {file}")));
        if self.more > 0 {
            lines.push(format!("  and {} more", self.more));
        }
        let with: Vec<String> = self
            .with
            .iter()
            .map(|path| format!("--with {}", quoted(path)))
            .collect();
        lines.push(format!("if it needs them: {}", with.join(" ")));
        lines
    }
}

/// As a shell reads it.
fn quoted(path: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+@%,:=".contains(c);
    match path.chars().all(plain) {
        true => path.to_string(),
        false => format!("'{}'", path.replace('\'', "'\\''")),
    }
}

/// What to say about `paths`, which were looked for in a guest whose root has the files and
/// directories `there`; `None` when the host has none of them. `host` is the host's root: "/", but
/// for tests.
pub fn advice(host: &Path, paths: &[Vec<u8>], there: &BTreeSet<String>) -> Option<Advice> {
    let mut sizes = BTreeMap::new();
    let mut whole = |dir: &str| {
        let small = || is_small(host, dir);
        !there.contains(dir) && *sizes.entry(dir.to_string()).or_insert_with(small)
    };
    let mut seen = BTreeSet::new();
    let mut files = Vec::new();
    let mut with: Vec<String> = Vec::new();
    for path in paths {
        let Some(path) = std::str::from_utf8(path).ok().map(Path::new) else {
            continue;
        };
        let path = lexical(path);
        let Some(name) = path
            .to_str()
            .filter(|_| path.is_absolute() && !covered(&path))
        else {
            continue;
        };
        let Ok(meta) = on(host, name).metadata() else {
            continue;
        };
        let wanted = match meta.is_dir() {
            true => name.matches('/').count() > 1 && whole(name),
            false => meta.is_file() && !there.contains(name),
        };
        // By one of its names only: /bin/x is /usr/bin/x.
        if !wanted || !seen.insert((meta.dev(), meta.ino())) {
            continue;
        }
        let slash = if meta.is_dir() { "/" } else { "" };
        files.push(format!("{name}{slash}"));
        if !with.iter().any(|taken| path.starts_with(taken)) {
            let directory = directories(name).find(|dir| whole(dir));
            with.push(directory.unwrap_or_else(|| name.to_string()));
        }
    }
    if files.is_empty() {
        return None;
    }
    let more = files.len().saturating_sub(NAMED);
    files.truncate(NAMED);
    with.truncate(TAKEN);
    Some(Advice { files, more, with })
}

/// The directories on the way to a file, but for those at the top, which hold what has nothing to
/// do with each other.
fn directories(file: &str) -> impl Iterator<Item = String> + use<'_> {
    let slashes = file.match_indices('/').skip(2);
    slashes.map(|(at, _)| file[..at].to_string())
}

/// Whether a directory is one that may be taken whole.
fn is_small(host: &Path, dir: &str) -> bool {
    let (mut bytes, mut entries) = (0, 0);
    let mut todo: Vec<PathBuf> = vec![on(host, dir)];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            entries += 1;
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                todo.push(entry.path());
            } else {
                bytes += meta.len();
            }
            if bytes > WHOLE.0 || entries > WHOLE.1 {
                return false;
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_host_has_is_named_with_the_directory_that_brings_it() {
        let host = tempfile::tempdir().unwrap();
        for dir in [
            "usr/lib/python/deep",
            "usr/share/misc",
            "etc/terminfo",
            "opt",
        ] {
            std::fs::create_dir_all(host.path().join(dir)).unwrap();
        }
        let write = |path: &str| std::fs::write(host.path().join(path), path).unwrap();
        for number in 0..7 {
            write(&format!("usr/lib/python/deep/{number}"));
        }
        write("etc/it's here");
        write("etc/known");
        write("usr/share/misc/magic");
        let big = std::fs::File::create(host.path().join("usr/share/big")).unwrap();
        big.set_len(WHOLE.0 + 1).unwrap();
        std::os::unix::fs::symlink("usr/lib", host.path().join("lib")).unwrap();
        let mut paths: Vec<Vec<u8>> = (0..7)
            .map(|number| format!("/usr/lib/python//deep/./{number}").into_bytes())
            .collect();
        for path in [
            "/usr/lib/python/deep/3",
            "/no/such/file",
            "/usr/lib/python",
            "/lib/python/deep/3",
            "/etc/terminfo",
            "/opt",
            "/usr/share",
            "/etc/it's here",
            "/etc/known",
            "/usr/share/misc/magic",
            "/proc/version",
            "relative",
        ] {
            paths.push(path.into());
        }
        paths.push(b"/etc/\xff".to_vec());
        let there = ["/etc", "/usr", "/usr/lib", "/etc/known"].map(String::from);
        let advice = advice(host.path(), &paths, &there.into()).unwrap();
        assert_eq!(advice.files.len() + advice.more, 11);
        assert_eq!(advice.files[4], "/usr/lib/python/deep/4");
        let with = [
            "/usr/lib/python",
            "/etc/terminfo",
            "/etc/it's here",
            "/usr/share/misc",
        ];
        assert_eq!(advice.with, with);
        let lines = advice.lines();
        assert!(lines[0].contains("looked for 11 paths"), "{lines:?}");
        assert_eq!(lines[6], "  and 6 more");
        assert!(lines[7].ends_with(r" --with '/etc/it'\''s here' --with /usr/share/misc"));
    }

    #[test]
    fn nothing_is_said_about_what_nobody_has() {
        let host = tempfile::tempdir().unwrap();
        let paths = [b"/etc/nothing".to_vec(), b"".to_vec()];
        assert_eq!(advice(host.path(), &paths, &BTreeSet::new()), None);
    }
}
