//! What a dynamic program of the host needs to run elsewhere: its dynamic linker and its
//! libraries, found as the linker finds them, and put where the linker will look for them.
//!
//! What a program opens later by itself (plugins, locales, a language's own library) is not
//! among it: see [`super::with`] and [`super::absent`].

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use goblin::elf::Elf;
use goblin::elf::dynamic::{DF_1_NODEFLIB, DT_FLAGS_1};
use goblin::elf::header::EM_X86_64;

mod cache;
#[cfg(test)]
mod tests;

/// Where the linker's index is.
const CACHE: &str = "/etc/ld.so.cache";
/// Where glibc looks at last: Debian's directories, then everybody's.
const DEFAULT: [&str; 6] = [
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
];
/// What `$LIB` stands for.
const LIB: &str = "lib/x86_64-linux-gnu";
/// Links that are followed to the program's own file.
const LINKS_MAX: usize = 40;

/// Files to put on a root.
#[derive(Debug, Default)]
pub struct Closure {
    /// Paths in the guest, and contents.
    pub files: Vec<(String, Vec<u8>)>,
    /// Directories that paths lead through although nothing is in them.
    pub directories: Vec<String>,
    /// What was found where, for a person.
    pub report: Vec<String>,
}

/// A library that is not there, or a file that is not what it should be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The dynamic linker.
    #[error("its dynamic linker {0} is not on this host")]
    NoInterpreter(String),
    /// A library.
    #[error("{by} needs {name}, which is not among this host's libraries")]
    NoLibrary {
        /// Who needs it.
        by: String,
        /// Its name.
        name: String,
    },
    /// A file without meaning.
    #[error("{0}: a damaged ELF file")]
    Damaged(String),
}

/// An object whose libraries are being looked for.
struct Object {
    path: String,
    needed: Vec<String>,
    /// DT_RPATH of the object and of those that needed it; they end at the first that has
    /// DT_RUNPATH.
    rpaths: Rc<Vec<String>>,
    runpaths: Vec<String>,
    has_runpath: bool,
    no_defaults: bool,
}

/// Finds what the program at `path` (absolute, without links) needs. `host` is where the
/// host's root is: "/", but for tests. `library_path` is the program's LD_LIBRARY_PATH.
/// Nothing for a static program.
pub fn of(
    host: &Path,
    path: &str,
    content: &[u8],
    library_path: Option<&str>,
) -> Result<Closure, Problem> {
    match parse(path, content)?.interpreter {
        Some(_) => needed(host, path, content, library_path),
        None => Ok(Closure::default()),
    }
}

/// The same for any ELF file: a library that is opened later needs others, too. Nothing for a file
/// of another machine.
pub fn needed(
    host: &Path,
    path: &str,
    content: &[u8],
    library_path: Option<&str>,
) -> Result<Closure, Problem> {
    let elf = parse(path, content)?;
    if elf.header.e_machine != EM_X86_64 || !elf.is_64 {
        return Ok(Closure::default());
    }
    let mut search = Search {
        host,
        library_path: library_path.unwrap_or(""),
        cache: std::fs::read(on(host, CACHE)).ok(),
        cache_used: false,
        names: BTreeSet::new(),
        paths: BTreeSet::new(),
        closure: Closure::default(),
    };
    if let Some(interpreter) = elf.interpreter {
        let linker = std::fs::read(on(host, interpreter))
            .map_err(|_| Problem::NoInterpreter(interpreter.to_string()))?;
        let soname = parse(interpreter, &linker)?.soname.map(str::to_string);
        search.names.extend(soname);
        search.names.insert(interpreter.to_string());
        search.take(interpreter, linker, "the dynamic linker");
    }

    // Breadth first, as the linker goes.
    let mut objects = std::collections::VecDeque::from([Object::new(path, &elf, None)]);
    while let Some(object) = objects.pop_front() {
        for name in &object.needed {
            if search.names.insert(name.clone()) {
                objects.push_back(search.find(&object, name)?);
            }
        }
    }
    if search.cache_used
        && let Some(cache) = search.cache.take()
    {
        search.take(CACHE, cache, "the linker's index");
    }
    Ok(search.closure)
}

/// The file that a path means at last, and the links on the way to it: `(link, target)`.
/// Only the last component's links: directories are made anew.
pub fn links(path: &Path) -> (PathBuf, Vec<(PathBuf, PathBuf)>) {
    let (mut at, mut links) = (path.to_path_buf(), Vec::new());
    for _ in 0..LINKS_MAX {
        let Ok(target) = std::fs::read_link(&at) else {
            break;
        };
        let next = match at.parent() {
            Some(parent) => lexical(&parent.join(&target)),
            None => break,
        };
        links.push((at, target));
        at = next;
    }
    (at, links)
}

/// Without `.` and `..`.
pub(super) fn lexical(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            std::path::Component::CurDir => {}
            std::path::Component::ParentDir => {
                plain.pop();
            }
            other => plain.push(other),
        }
    }
    plain
}

fn parse<'a>(path: &str, content: &'a [u8]) -> Result<Elf<'a>, Problem> {
    Elf::parse(content).map_err(|_| Problem::Damaged(path.to_string()))
}

/// The host's name of an absolute path.
pub(super) fn on(host: &Path, path: &str) -> PathBuf {
    host.join(path.trim_start_matches('/'))
}

impl Object {
    fn new(path: &str, elf: &Elf<'_>, by: Option<&Object>) -> Object {
        let origin = path.rsplit_once('/').map_or("", |(dir, _)| dir);
        let expand = |paths: &[&str]| -> Vec<String> {
            paths
                .iter()
                .flat_map(|p| p.split(':'))
                .filter(|p| !p.is_empty())
                .map(|p| expand(p, origin))
                .collect()
        };
        let runpaths = expand(&elf.runpaths);
        let has_runpath = !elf.runpaths.is_empty();
        let mut rpaths = Vec::new();
        if !has_runpath {
            rpaths = expand(&elf.rpaths);
        }
        rpaths.extend(by.iter().flat_map(|by| by.rpaths.iter().cloned()));
        let flags = elf.dynamic.iter().flat_map(|d| &d.dyns);
        let no_defaults = flags
            .filter(|d| d.d_tag == DT_FLAGS_1)
            .any(|d| d.d_val & DF_1_NODEFLIB != 0);
        Object {
            path: path.to_string(),
            needed: elf
                .libraries
                .iter()
                .map(|n| expand_name(n, origin))
                .collect(),
            rpaths: Rc::new(rpaths),
            runpaths,
            has_runpath,
            no_defaults,
        }
    }
}

/// A name with a slash is a path and may be relative to the object.
fn expand_name(name: &str, origin: &str) -> String {
    if name.contains('$') {
        expand(name, origin)
    } else {
        name.to_string()
    }
}

fn expand(path: &str, origin: &str) -> String {
    let mut path = path.to_string();
    for (name, value) in [("ORIGIN", origin), ("LIB", LIB), ("PLATFORM", "x86_64")] {
        path = path.replace(&format!("${{{name}}}"), value);
        path = path.replace(&format!("${name}"), value);
    }
    path
}

struct Search<'a> {
    host: &'a Path,
    library_path: &'a str,
    cache: Option<Vec<u8>>,
    cache_used: bool,
    /// Names that are loaded, sonames among them.
    names: BTreeSet<String>,
    /// Paths in the closure.
    paths: BTreeSet<String>,
    closure: Closure,
}

impl Search<'_> {
    /// Finds the library `name` that `by` needs.
    fn find(&mut self, by: &Object, name: &str) -> Result<Object, Problem> {
        let missing = || Problem::NoLibrary {
            by: by.path.clone(),
            name: name.to_string(),
        };
        if name.contains('/') {
            return self
                .try_path(by, name, name, "named so")
                .ok_or_else(missing);
        }
        let rpaths = by.rpaths.clone();
        let no_rpaths = Vec::new();
        let rpaths: &[String] = if by.has_runpath { &no_rpaths } else { &rpaths };
        let environment: Vec<String> = self
            .library_path
            .split([':', ';'])
            .filter(|p| !p.is_empty())
            .map(str::to_string)
            .collect();
        for (directories, how) in [
            (rpaths, "RPATH"),
            (&environment, "LD_LIBRARY_PATH"),
            (&by.runpaths, "RUNPATH"),
        ] {
            for directory in directories {
                let path = format!("{directory}/{name}");
                if let Some(object) = self.try_path(by, name, &path, how) {
                    return Ok(object);
                }
            }
        }
        if by.no_defaults {
            return Err(missing());
        }
        let cache = self.cache.as_deref().unwrap_or_default();
        let cached: Vec<String> = cache::paths(cache, name)
            .into_iter()
            .map(str::to_string)
            .collect();
        let mut found = None;
        for path in &cached {
            let object = self.try_path(by, name, path, "ld.so.cache");
            self.cache_used |= object.is_some();
            found = found.or(object);
        }
        for directory in DEFAULT {
            if found.is_some() {
                break;
            }
            let path = format!("{directory}/{name}");
            found = self.try_path(by, name, &path, "default directory");
        }
        found.ok_or_else(missing)
    }

    /// Takes the library at `path` if it is one.
    fn try_path(&mut self, by: &Object, name: &str, path: &str, how: &str) -> Option<Object> {
        if !path.starts_with('/') {
            return None;
        }
        let content = std::fs::read(on(self.host, path)).ok()?;
        let elf = Elf::parse(&content).ok()?;
        if elf.header.e_machine != EM_X86_64 || !elf.is_64 {
            return None;
        }
        let object = Object::new(path, &elf, Some(by));
        self.names.extend(elf.soname.map(str::to_string));
        self.take(path, content, &format!("{name} of {}, by {how}", by.path));
        Some(object)
    }

    /// Puts a file where the linker will look for it.
    fn take(&mut self, path: &str, content: Vec<u8>, why: &str) {
        let mut plain: Vec<&str> = Vec::new();
        for name in path.split('/').filter(|n| !n.is_empty() && *n != ".") {
            if name == ".." {
                self.closure.directories.push(plain.join("/"));
                plain.pop();
            } else {
                plain.push(name);
            }
        }
        let plain = format!("/{}", plain.join("/"));
        if self.paths.insert(plain.clone()) {
            let bytes = content.len();
            self.closure
                .report
                .push(format!("{path}: {why} ({bytes} bytes)"));
            self.closure.files.push((plain, content));
        }
    }
}
