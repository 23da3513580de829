//! Scenario files: what runs in the guest, what is explored of it, what must hold. The format
//! is described in `docs/scenarios.md`.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use abi::policy::CopyPolicy;
use abi::routes::{PM_CALLS, VFS_CALLS, VM_CALLS};
use serde::{Deserialize, Deserializer};
use toml::Spanned;

use super::expect::{Error, Expect, FileExpectation, Text};
use super::row::{Layer, Named, PointKind, Side};
use crate::inject::PointName;
use crate::memory;

pub mod builtin;
pub mod compiler;
pub mod root;

/// Where a scenario's file and its programs' sources are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A directory.
    Directory(PathBuf),
    /// Within this binary, with the programs.
    Builtin,
}

/// A scenario.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its name, as in tokens: lower case letters, digits and `-`.
    pub name: String,
    /// One sentence.
    pub description: String,
    /// Where its file and its programs' sources are.
    pub place: Place,
    /// What is on the root disk, in this order.
    pub root: Vec<Item>,
    /// What runs.
    pub run: Run,
    /// What is explored.
    pub explore: Explore,
    /// What must hold.
    pub expect: Expect,
    /// Its root disk, once it was asked for ([`Scenario::prepared`]).
    pub made: OnceLock<Arc<root::Image>>,
}

/// Something on the root disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its path there; for a [`Content::Program`] without one, where it is on the host.
    pub path: Option<String>,
    /// Permissions of a file.
    pub mode: Option<u32>,
    /// What it is.
    pub content: Content,
    /// Line in the scenario's file.
    pub line: usize,
}

/// What an [`Item`] is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// This text.
    Text(String),
    /// Bytes made from a seed: see [`generated`].
    Generated {
        /// The seed.
        seed: u64,
        /// Bytes.
        size: u64,
    },
    /// A symbolic link.
    Symlink(String),
    /// An empty directory.
    Directory,
    /// A program compiled from a C source beside the scenario's file.
    C {
        /// The source.
        source: String,
        /// Without a C library.
        freestanding: bool,
        /// More flags.
        flags: Vec<String>,
    },
    /// The host's static busybox, and links to it beside it.
    Busybox(Vec<String>),
    /// A file or directory of the host.
    Host(String),
    /// A program of the host with the libraries it needs. A name without a slash is looked
    /// for in PATH.
    Program(String),
}

/// The largest generated file, bytes.
const GENERATED_MAX: u64 = 64 << 20;

/// Bytes made from a seed: word `i` of 8 bytes, little endian, is
/// [`abi::trace::random`]`(seed, i)`. `tests/scenarios/lab.h` has the same function.
pub fn generated(seed: u64, size: u64) -> Vec<u8> {
    let words = (0..size.div_ceil(8)).flat_map(|i| abi::trace::random(seed, i).to_le_bytes());
    words.take(size as usize).collect()
}

/// What runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The program's path and arguments.
    pub program: Vec<String>,
    /// Its environment, whole.
    pub env: Vec<(String, String)>,
    /// Its working directory.
    pub cwd: String,
    /// Guest memory, bytes.
    pub memory: u64,
    /// Its standard input.
    pub stdin: String,
}

/// What is explored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explore {
    /// Copy policies.
    pub policies: Vec<CopyPolicy>,
    /// Kinds of points.
    pub kinds: Vec<PointKind>,
    /// Where pages are made absent.
    pub layers: Vec<Layer>,
    /// Whose pages.
    pub sides: Vec<Side>,
    /// Only points of these names ([`crate::inject::name`]); all if empty.
    pub at: Vec<PointName>,
    /// Only points of processes of these names; all if empty.
    pub actors: Vec<String>,
    /// Only points while a program is in one of these Linux calls (numbers); all if empty.
    pub calls: Vec<u32>,
    /// Only points after the program passed this marker.
    pub from: Option<u32>,
    /// Only points before the program passed this marker.
    pub to: Option<u32>,
    /// No more than so many points, evenly spread over those that are left.
    pub limit: Option<u64>,
}

/// A scenario's file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}{}: {what}", line.map_or_else(String::new, |line| format!(":{line}")))]
pub struct Problem {
    /// The file.
    pub path: String,
    /// The line, where it is known.
    pub line: Option<usize>,
    /// What is wrong, and what is expected.
    pub what: String,
}

// The file as it is written.

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawScenario {
    name: Spanned<String>,
    description: Spanned<String>,
    run: RawRun,
    #[serde(default)]
    root: Vec<Spanned<RawItem>>,
    #[serde(default)]
    explore: RawExplore,
    expect: RawExpect,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRun {
    program: Spanned<Vec<String>>,
    #[serde(default)]
    env: toml::map::Map<String, toml::Value>,
    cwd: Option<String>,
    memory: Option<Size>,
    #[serde(default)]
    stdin: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawItem {
    path: Option<String>,
    mode: Option<Mode>,
    text: Option<String>,
    seed: Option<u64>,
    size: Option<Size>,
    symlink: Option<String>,
    directory: Option<bool>,
    c: Option<String>,
    freestanding: Option<bool>,
    flags: Option<Vec<String>>,
    busybox: Option<Vec<String>>,
    host: Option<String>,
    program: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawExplore {
    policies: Option<Vec<Policy>>,
    kinds: Option<Vec<PointKind>>,
    layers: Option<Vec<Layer>>,
    sides: Option<Vec<OneSide>>,
    at: Vec<At>,
    actors: Vec<String>,
    calls: Vec<Call>,
    from: Option<Spanned<u32>>,
    to: Option<u32>,
    limit: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawExpect {
    #[serde(default)]
    status: u8,
    stdout: Option<Text>,
    stderr: Option<Text>,
    #[serde(default)]
    errors: Vec<Error>,
    #[serde(default)]
    again: bool,
    #[serde(default)]
    files: Vec<FileExpectation>,
}

/// A word that a function reads; the function's error becomes the parser's.
macro_rules! words {
    ($($name:ident($inner:ty) = $read:expr;)*) => {$(
        #[derive(Clone)]
        struct $name($inner);
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                let text = String::deserialize(deserializer)?;
                let read: fn(&str) -> Result<$inner, String> = $read;
                read(&text).map($name).map_err(serde::de::Error::custom)
            }
        }
    )*};
}
words! {
    Size(u64) = memory::parse_size;
    Policy(CopyPolicy) = |text| CopyPolicy::named(text.as_bytes()).ok_or_else(|| {
        let names = CopyPolicy::ALL.map(CopyPolicy::name);
        format!("no policy {text:?}: expected {}", names.join(", "))
    });
    Mode(u32) = |text| match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o7777 => Ok(mode),
        _ => Err(format!("permissions are octal digits like \"644\", not {text:?}")),
    };
    OneSide(Side) = Side::named;
    At(PointName) = |text| text.parse();
    Call(u32) = |text| call_number(text)
        .ok_or_else(|| format!("no Linux call {text:?} that the guest knows (docs/linux-calls.md)"));
}

/// The number of the Linux call of this name.
fn call_number(name: &str) -> Option<u32> {
    let mut calls = [VFS_CALLS, PM_CALLS, VM_CALLS].into_iter().flatten();
    calls
        .find(|call| call.name() == name)
        .map(|call| call.number)
}

/// Reads a scenario's text; `path` is where it is from.
pub fn parse(path: &Path, text: &str) -> Result<Scenario, Problem> {
    Reader { path, text }.read()
}

/// Reads a scenario's file.
pub fn load(path: &Path) -> Result<Scenario, Problem> {
    let text = std::fs::read_to_string(path).map_err(|error| Problem {
        path: path.display().to_string(),
        line: None,
        what: error.to_string(),
    })?;
    parse(path, &text)
}

/// The scenario that a command line names: a file, or the name of one in `directory`.
pub fn find(directory: &Path, name: &str) -> Result<Scenario, Problem> {
    if name.ends_with(".toml") {
        return load(Path::new(name));
    }
    let path = directory.join(format!("{name}.toml"));
    if path.is_file() {
        return load(&path);
    }
    let names = names(directory);
    let what = if names.is_empty() {
        format!("no scenario {name}: there are none in this directory")
    } else {
        format!("no scenario {name}: there are {}", names.join(", "))
    };
    Err(Problem {
        path: directory.display().to_string(),
        line: None,
        what,
    })
}

/// The names of the scenarios in a directory, sorted.
pub fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| {
            entry
                .file_name()
                .to_str()?
                .strip_suffix(".toml")
                .map(str::to_string)
        })
        .collect();
    names.sort();
    names
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Reader<'_> {
    fn problem(&self, at: Option<usize>, what: impl Into<String>) -> Problem {
        Problem {
            path: self.path.display().to_string(),
            line: at.map(|at| self.line(at)),
            what: what.into(),
        }
    }

    fn line(&self, at: usize) -> usize {
        let before = self.text.as_bytes().iter().take(at);
        1 + before.filter(|&&byte| byte == b'\n').count()
    }

    fn read(&self) -> Result<Scenario, Problem> {
        let raw: RawScenario = toml::from_str(self.text).map_err(|error| {
            let at = error.span().map(|span| span.start);
            self.problem(at, error.message())
        })?;
        self.check_name(&raw.name)?;
        let description = raw.description.get_ref().trim();
        if description.is_empty() || description.contains('\n') {
            return Err(self.problem(
                Some(raw.description.span().start),
                "a description is one sentence on one line",
            ));
        }
        let root = raw.root.iter().map(|item| self.item(item));
        Ok(Scenario {
            name: raw.name.get_ref().clone(),
            description: description.to_string(),
            place: Place::Directory(self.path.parent().unwrap_or(Path::new("")).to_path_buf()),
            root: root.collect::<Result<_, _>>()?,
            run: self.run(raw.run)?,
            explore: self.explore(raw.explore)?,
            expect: Expect {
                status: raw.expect.status,
                stdout: raw.expect.stdout.unwrap_or(Text::Same),
                stderr: raw.expect.stderr.unwrap_or(Text::Same),
                errors: raw.expect.errors,
                again: raw.expect.again,
                files: raw.expect.files,
            },
            made: OnceLock::new(),
        })
    }

    fn check_name(&self, name: &Spanned<String>) -> Result<(), Problem> {
        let at = Some(name.span().start);
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let text = name.get_ref();
        if text.is_empty() || !text.chars().all(good) {
            return Err(self.problem(at, "a name is of lower case letters, digits and \"-\""));
        }
        if self
            .path
            .file_stem()
            .is_some_and(|stem| stem != text.as_str())
        {
            let stem = self.path.file_stem().unwrap_or_default().display();
            return Err(self.problem(
                at,
                format!("the file is named {stem}, the scenario {text}: they must agree"),
            ));
        }
        Ok(())
    }

    fn item(&self, spanned: &Spanned<RawItem>) -> Result<Item, Problem> {
        let at = Some(spanned.span().start);
        let raw = spanned.get_ref();
        let mut contents = Vec::new();
        contents.extend(raw.text.clone().map(Content::Text));
        contents.extend(raw.size.as_ref().map(|&Size(size)| Content::Generated {
            seed: raw.seed.unwrap_or(1),
            size,
        }));
        contents.extend(raw.symlink.clone().map(Content::Symlink));
        contents.extend(raw.directory.filter(|&is| is).map(|_| Content::Directory));
        contents.extend(raw.c.clone().map(|source| Content::C {
            source,
            freestanding: raw.freestanding.unwrap_or(false),
            flags: raw.flags.clone().unwrap_or_default(),
        }));
        contents.extend(raw.busybox.clone().map(Content::Busybox));
        contents.extend(raw.host.clone().map(Content::Host));
        contents.extend(raw.program.clone().map(Content::Program));
        let count = contents.len();
        let (Some(content), 1) = (contents.pop(), count) else {
            return Err(self.problem(at, format!(
                "an entry of the root is one of text, size (with seed), symlink, directory, c, busybox, host and program; here are {count}"
            )));
        };
        let wrong = |what: &str| Err(self.problem(at, what));
        if raw.seed.is_some() && raw.size.is_none() {
            return wrong("a seed needs a size");
        }
        if raw.c.is_none() && (raw.freestanding.is_some() || raw.flags.is_some()) {
            return wrong("freestanding and flags belong to an entry with c");
        }
        if let Content::Generated { size, .. } = content
            && size > GENERATED_MAX
        {
            return wrong("a generated file has 64 MiB at most");
        }
        match &raw.path {
            None if !matches!(content, Content::Program(_)) => {
                return wrong("an entry needs a path");
            }
            Some(path) if !path.starts_with('/') || path.split('/').any(|name| name == "..") => {
                return wrong("a path on the root begins with \"/\" and has no \"..\"");
            }
            _ => {}
        }
        Ok(Item {
            path: raw.path.clone(),
            mode: raw.mode.as_ref().map(|Mode(mode)| *mode),
            content,
            line: self.line(spanned.span().start),
        })
    }

    fn run(&self, raw: RawRun) -> Result<Run, Problem> {
        let at = Some(raw.program.span().start);
        let program = raw.program.into_inner();
        if program.is_empty() {
            return Err(self.problem(at, "a program's path is missing"));
        }
        let mut env = vec![
            ("PATH".to_string(), "/bin:/usr/bin".to_string()),
            ("HOME".into(), "/root".into()),
            ("LANG".into(), "C".into()),
            ("TZ".into(), "UTC".into()),
        ];
        for (name, value) in raw.env {
            let toml::Value::String(value) = value else {
                return Err(self.problem(at, format!("env.{name}: a text is expected")));
            };
            env.retain(|(other, _)| *other != name);
            env.push((name, value));
        }
        Ok(Run {
            program,
            env,
            cwd: raw.cwd.unwrap_or("/work".into()),
            memory: raw.memory.map_or(64 << 20, |Size(size)| size),
            stdin: raw.stdin,
        })
    }

    fn explore(&self, raw: RawExplore) -> Result<Explore, Problem> {
        let policies = raw
            .policies
            .map(|all| all.into_iter().map(|Policy(p)| p).collect());
        if let (Some(spanned), Some(to)) = (&raw.from, raw.to)
            && *spanned.get_ref() >= to
        {
            let from = spanned.get_ref();
            let what = format!("from = {from} is passed before to = {to}, so it must be less");
            return Err(self.problem(Some(spanned.span().start), what));
        }
        let sides = raw.sides.map_or(Side::ALL.to_vec(), |sides| {
            sides.into_iter().map(|OneSide(side)| side).collect()
        });
        Ok(Explore {
            policies: policies.unwrap_or(vec![CopyPolicy::Try]),
            kinds: raw.kinds.unwrap_or(PointKind::ALL.to_vec()),
            layers: raw.layers.unwrap_or(vec![Layer::Pte]),
            sides,
            at: raw.at.into_iter().map(|At(name)| name).collect(),
            actors: raw.actors,
            calls: raw.calls.into_iter().map(|Call(number)| number).collect(),
            from: raw.from.map(Spanned::into_inner),
            to: raw.to,
            limit: raw.limit,
        })
    }
}

#[cfg(test)]
mod tests;
