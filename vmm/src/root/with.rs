//! `--with PATH`: files and directories of the host that come onto the embedded root along with
//! the program, at their own paths, each ELF file among them with what it needs.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::closure::{self, lexical, on};
use super::embedded::Entry;

/// Directories whose content the guest covers with file systems of its own.
const COVERED: [&str; 3] = ["/dev", "/proc", "/tmp"];
/// The most that is taken, bytes of content.
const BYTES: u64 = 512 << 20;
/// The most files, directories and links that are taken.
const ENTRIES: usize = 50_000;

/// Something that cannot be taken along.
#[derive(Debug, thiserror::Error)]
#[error("--with {}: {what}", path.display())]
pub struct Problem {
    path: PathBuf,
    what: What,
}

#[derive(Debug, thiserror::Error)]
enum What {
    #[error("{0}")]
    Unreadable(#[from] io::Error),
    #[error("the guest mounts a file system of its own there: copy it elsewhere first")]
    Covered,
    #[error("neither a file nor a directory")]
    Special,
    #[error("its path is not UTF-8: use --root")]
    Name,
    #[error(
        "with it more than {} MiB or {ENTRIES} files would have to come along: name less, \
         or use --root DIRECTORY",
        BYTES >> 20
    )]
    Large,
}

/// Whether the guest does not see a root's own content there.
pub fn covered(path: &Path) -> bool {
    COVERED.iter().any(|dir| path.starts_with(dir))
}

/// What is taken along.
#[derive(Debug)]
pub struct Luggage<'a> {
    /// The host's root: "/", but for tests.
    host: &'a Path,
    library_path: Option<&'a str>,
    entries: BTreeMap<String, Entry>,
    bytes: u64,
    limit: u64,
    notes: Vec<String>,
}

impl<'a> Luggage<'a> {
    /// Nothing yet. `library_path` is the program's LD_LIBRARY_PATH.
    pub fn new(host: &'a Path, library_path: Option<&'a str>) -> Luggage<'a> {
        Luggage {
            host,
            library_path,
            entries: BTreeMap::new(),
            bytes: 0,
            limit: BYTES,
            notes: Vec::new(),
        }
    }

    /// Takes a file, or a directory with all that is in it. Links are taken as links, and what
    /// they lead to as well. What cannot be read below a directory is left out and noted.
    pub fn take(&mut self, path: &Path) -> Result<(), Problem> {
        let problem = |what| Problem {
            path: path.to_path_buf(),
            what,
        };
        let named = std::path::absolute(path).map_err(|error| problem(error.into()))?;
        let named = lexical(&named);
        if covered(&named) {
            return Err(problem(What::Covered));
        }
        let mut todo = vec![named.clone()];
        let mut files = Vec::new();
        while let Some(at) = todo.pop() {
            match self.take_one(&at, at == named, &mut todo) {
                Ok(file) => files.extend(file),
                Err(what) => self.leave_out(&at, &named, what).map_err(problem)?,
            }
        }
        // How much it is comes first: too much is not read.
        let mut binaries = Vec::new();
        for file in files {
            match self.fill(&file) {
                Ok(binary) => binaries.extend(binary.then_some(file)),
                Err(what) => {
                    self.entries.remove(&file);
                    let at = Path::new(&file);
                    self.leave_out(at, &named, what).map_err(problem)?;
                }
            }
        }
        for name in binaries {
            self.take_needed(&name).map_err(problem)?;
        }
        Ok(())
    }

    /// Notes what is not taken, unless it is what was asked for or there is too much.
    fn leave_out(&mut self, at: &Path, named: &Path, what: What) -> Result<(), What> {
        if at == named || matches!(what, What::Large) {
            return Err(what);
        }
        self.notes
            .push(format!("left out {}: {what}", at.display()));
        Ok(())
    }

    /// Reads a file that is to be taken; whether it is an ELF file.
    fn fill(&mut self, name: &str) -> Result<bool, What> {
        let content = std::fs::read(on(self.host, name))?;
        let binary = content.starts_with(b"\x7fELF");
        if let Some(Entry::File(to, _)) = self.entries.get_mut(name) {
            *to = content;
        }
        Ok(binary)
    }

    /// What was taken, by its path, and what a person may want to know about it.
    pub fn unpack(self) -> (BTreeMap<String, Entry>, Vec<String>) {
        (self.entries, self.notes)
    }

    /// Takes one file, directory or link; what has to be taken next goes to `todo`. The name of a
    /// file, whose content comes later.
    fn take_one(
        &mut self,
        at: &Path,
        named: bool,
        todo: &mut Vec<PathBuf>,
    ) -> Result<Option<String>, What> {
        let name = at.to_str().ok_or(What::Name)?.to_string();
        if covered(at) || self.entries.contains_key(&name) {
            return Ok(None);
        }
        let host = on(self.host, &name);
        let mut meta = host.symlink_metadata()?;
        // A directory that is named by a link is meant as one: its path leads through it.
        if named && meta.is_symlink() && host.is_dir() {
            meta = host.metadata()?;
        }
        if self.entries.len() >= ENTRIES {
            return Err(What::Large);
        }
        if meta.is_symlink() {
            let target = std::fs::read_link(&host)?;
            let text = target.to_str().ok_or(What::Name)?.to_string();
            self.entries.insert(name, Entry::Link(text));
            let from = at.parent().unwrap_or(Path::new("/"));
            todo.push(lexical(&from.join(target)));
            return Ok(None);
        }
        if meta.is_dir() {
            for entry in std::fs::read_dir(&host)? {
                todo.push(at.join(entry?.file_name()));
            }
            if name != "/" {
                self.entries.insert(name, Entry::Directory);
            }
            return Ok(None);
        }
        if !meta.is_file() {
            return Err(What::Special);
        }
        self.count(meta.len())?;
        let mode = meta.permissions().mode() & 0o7777;
        let entry = Entry::File(Vec::new(), mode);
        self.entries.insert(name.clone(), entry);
        Ok(Some(name))
    }

    /// Takes what an ELF file that was taken needs. A plug-in may count on what its program has: what
    /// is not found is only noted.
    fn take_needed(&mut self, name: &str) -> Result<(), What> {
        let Some(Entry::File(content, _)) = self.entries.get(name) else {
            return Ok(());
        };
        let needed = match closure::needed(self.host, name, content, self.library_path) {
            Ok(needed) => needed,
            Err(problem) => {
                self.notes.push(format!("{name}: {problem}"));
                return Ok(());
            }
        };
        for (path, content) in needed.files {
            if !self.entries.contains_key(&path) {
                self.count(content.len() as u64)?;
                self.entries.insert(path, Entry::File(content, 0o755));
            }
        }
        for path in needed.directories {
            let path = format!("/{path}");
            self.entries.entry(path).or_insert(Entry::Directory);
        }
        Ok(())
    }

    fn count(&mut self, bytes: u64) -> Result<(), What> {
        self.bytes = self.bytes.saturating_add(bytes);
        match self.bytes > self.limit {
            true => Err(What::Large),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn host() -> tempfile::TempDir {
        let host = tempfile::tempdir().unwrap();
        for dir in ["lib/python/deep", "share/data"] {
            std::fs::create_dir_all(host.path().join(dir)).unwrap();
        }
        for (path, content) in [
            ("lib/python/os.py", "os"),
            ("lib/python/deep/one", "1"),
            ("share/data/magic", "magic"),
            ("single", "alone"),
        ] {
            std::fs::write(host.path().join(path), content).unwrap();
        }
        for (link, target) in [
            ("lib/python/out", "../../share/data/magic"),
            ("lib/python/loop", "loop"),
            ("lib/python/deep/up", ".."),
            ("lib/python/device", "/dev/null"),
            ("lib/python/nowhere", "/no/such/file"),
            ("lib/other", "python"),
        ] {
            symlink(target, host.path().join(link)).unwrap();
        }
        host
    }

    fn taken(host: &Path, paths: &[&str]) -> (BTreeMap<String, Entry>, Vec<String>) {
        let mut luggage = Luggage::new(host, None);
        for path in paths {
            luggage.take(Path::new(path)).unwrap();
        }
        luggage.unpack()
    }

    #[test]
    fn a_directory_is_taken_whole_and_links_with_what_they_lead_to() {
        let host = host();
        let (entries, notes) = taken(host.path(), &["/lib/python"]);
        let expected = [
            "/lib/python",
            "/lib/python/deep",
            "/lib/python/deep/one",
            "/lib/python/deep/up",
            "/lib/python/device",
            "/lib/python/loop",
            "/lib/python/nowhere",
            "/lib/python/os.py",
            "/lib/python/out",
            "/share/data/magic",
        ];
        assert_eq!(entries.keys().collect::<Vec<_>>(), expected);
        let link = Entry::Link("../../share/data/magic".into());
        assert_eq!(entries["/lib/python/out"], link);
        assert!(matches!(&entries["/share/data/magic"], Entry::File(c, _) if c == b"magic"));
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert!(notes[0].contains("/no/such/file"), "{notes:?}");
        // A file alone; a directory by a link's name is a directory of that name.
        let (entries, _) = taken(host.path(), &["/single", "/lib/other/"]);
        assert!(matches!(entries["/single"], Entry::File(..)));
        assert_eq!(entries["/lib/other"], Entry::Directory);
        assert!(entries.contains_key("/lib/other/os.py"));
    }

    #[test]
    fn what_cannot_be_taken_is_said() {
        let host = host();
        let refused = |path: &str| {
            let mut luggage = Luggage::new(host.path(), None);
            luggage.limit = 6;
            luggage.take(Path::new(path)).unwrap_err().to_string()
        };
        assert!(refused("/no/such").starts_with("--with /no/such: No such file"));
        assert!(refused("/proc/cpuinfo").contains("mounts a file system"));
        assert!(refused("/lib/python").contains("use --root DIRECTORY"));
        let socket = host.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert!(refused("/socket").contains("neither a file nor a directory"));
        // Below a directory it is only left out.
        let (entries, notes) = taken(host.path(), &["/"]);
        assert!(!entries.contains_key("/socket") && !entries.contains_key("/"));
        assert!(entries.contains_key("/single"));
        assert!(
            notes.iter().any(|note| note.contains("/socket")),
            "{notes:?}"
        );
    }

    #[test]
    fn elf_files_come_with_what_they_need() {
        let ls = std::fs::canonicalize("/bin/ls").unwrap();
        let (entries, _) = taken(Path::new("/"), &[ls.to_str().unwrap()]);
        let has = |name: &str| entries.keys().any(|path| path.ends_with(name));
        assert!(
            has("/libc.so.6") && has("/ld-linux-x86-64.so.2"),
            "{:?}",
            entries.keys()
        );
    }
}
