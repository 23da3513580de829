//! The root of a measuring guest: programs of the sizes in question, which this binary has within
//! it, and what a build needs, collected from the host.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::project;
use crate::packed;
use crate::program::now_ns;
use crate::root::embedded::{self, Entry};
use crate::root::{Disk, closure};

mod table {
    include!(concat!(env!("OUT_DIR"), "/bench.rs"));
}

/// Where everything of ours is in the guest.
pub const PLACE: &str = "/bench";
/// Free bytes on the disk, for what a build makes.
const SPARE: u64 = 64 << 20;

/// What becomes the guest's root.
pub struct Root {
    entries: Vec<(String, Entry)>,
    /// make and the compiler, as the guest finds them.
    pub tools: Option<Tools>,
}

/// What a build starts.
pub struct Tools {
    /// make.
    pub make: String,
    /// The compiler.
    pub tcc: String,
}

impl Root {
    /// The programs, and with `build` a project and what builds it.
    pub fn new(build: bool) -> Result<Root> {
        let mut root = Root {
            entries: Vec::new(),
            tools: None,
        };
        for (path, content) in table::PROGRAMS {
            let content = packed::unpack(content).with_context(|| path.to_string())?;
            root.file(path, content, 0o755);
        }
        ensure!(
            !root.entries.is_empty(),
            "this binary was built without the benchmark's programs (ABSENTIA_SKIP_IMAGES)"
        );
        let script = format!("#!{PLACE}/static-800k part\n");
        root.file(&format!("{PLACE}/script"), script.into_bytes(), 0o755);
        if build {
            root.add_build()?;
        }
        Ok(root)
    }

    /// The disk.
    pub fn disk(&self) -> Result<Disk> {
        embedded::build_tree(&self.entries, SPARE, now_ns())
    }

    /// Adds a file. What is there already stays.
    pub fn file(&mut self, path: &str, content: Vec<u8>, mode: u32) {
        if self.entries.iter().all(|(known, _)| known != path) {
            self.entries
                .push((path.to_string(), Entry::File(content, mode)));
        }
    }

    /// Adds a program of the host and its libraries.
    fn with_libraries(&mut self, path: &str) -> Result<()> {
        let content = std::fs::read(path).with_context(|| path.to_string())?;
        let needed = closure::of(Path::new("/"), path, &content, None)?;
        self.file(path, content, 0o755);
        for (path, content) in needed.files {
            self.file(&path, content, 0o755);
        }
        Ok(())
    }

    fn add_build(&mut self) -> Result<()> {
        let Tools { make, tcc } = Tools::of_host()?;
        self.with_libraries(&make)?;
        self.with_libraries(&tcc)?;
        let project = project::generate();
        for file in read_by(&tcc, &project.files)? {
            let content = std::fs::read(&file).with_context(|| file.clone())?;
            self.file(&file, content, 0o755);
        }
        for (name, content) in project.files {
            self.file(
                &format!("{PLACE}/project/{name}"),
                content.into_bytes(),
                0o644,
            );
        }
        self.tools = Some(Tools { make, tcc });
        Ok(())
    }
}

impl Tools {
    /// Those of this host.
    pub fn of_host() -> Result<Tools> {
        match (tool("make"), tool("tcc")) {
            (Some(make), Some(tcc)) => Ok(Tools { make, tcc }),
            (make, _) => bail!(
                "the build needs {}: install the Debian packages make, tcc and libc6-dev",
                if make.is_none() { "make" } else { "tcc" }
            ),
        }
    }
}

/// The files of the host that the compiler reads for the project: it says so itself.
fn read_by(tcc: &str, project: &[(String, String)]) -> Result<Vec<String>> {
    let place = tempfile::tempdir().context("a directory for the compiler")?;
    let on = |name: &str| -> PathBuf { place.path().join(name) };
    for (name, content) in project {
        std::fs::write(on(name), content).context("a source")?;
    }
    // A source whose program needs nothing but the library.
    std::fs::write(on("trivial.c"), "int main(void) { return 0; }\n").context("a source")?;
    let mut found = Vec::new();
    for (from, options) in [("m0.c", &["-c"][..]), ("trivial.c", &[][..])] {
        let output = Command::new(tcc)
            .args(["-vv", "-o"])
            .arg(on("out"))
            .args(options)
            .arg(on(from))
            .output()
            .context("starting tcc")?;
        ensure!(
            output.status.success(),
            "tcc cannot build here (the Debian packages tcc and libc6-dev can): {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let files = said.lines().filter_map(|line| line.strip_prefix("->"));
        let files = files.map(str::trim).filter(|path| path.starts_with('/'));
        let ours = |path: &&str| !Path::new(path).starts_with(place.path());
        found.extend(files.filter(ours).map(str::to_string));
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// Where a program of the host is, without links on the way to the file.
fn tool(name: &str) -> Option<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())?;
    let file = found.canonicalize().ok()?;
    // A program that looks at its own name keeps it.
    let kept = file.file_name() == found.file_name();
    let path = if kept { file } else { found };
    path.to_str().map(str::to_string)
}
