//! The root of a measuring guest: programs of the sizes in question, compiled on the spot, and
//! what a build needs, collected from the host.

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use super::project;
use crate::root::closure;

const DRIVER: &str = include_str!("guest/driver.c");
const PROGRAM: &str = include_str!("guest/program.c");
/// Where everything of ours is in the guest.
pub const PLACE: &str = "/bench";
/// Bulk of the program that is built to learn what comes on top.
const TRIAL: u64 = 4096;

/// The sizes of static programs: name, bytes of the file, whether it needs a C library.
const SIZES: [(&str, u64, bool); 3] = [
    ("static-50k", 50 << 10, false),
    ("static-800k", 800 << 10, true),
    ("static-4m", 4 << 20, true),
];

/// A directory that becomes the guest's root.
pub struct Root {
    dir: TempDir,
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
        let dir = tempfile::Builder::new().prefix("absentia-bench-").tempdir();
        let mut root = Root {
            dir: dir.context("a directory for the guest's root")?,
            tools: None,
        };
        for name in ["bench", "dev", "proc", "tmp"] {
            std::fs::create_dir(root.dir.path().join(name)).context("the guest's root")?;
        }
        root.add_programs()?;
        if build {
            root.add_build()?;
        }
        Ok(root)
    }

    /// The host's path of it.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    fn on(&self, path: &str) -> PathBuf {
        self.dir.path().join(path.trim_start_matches('/'))
    }

    /// Adds a file. What is there already stays.
    pub fn file(&self, path: &str, content: &[u8], mode: u32) -> Result<()> {
        let to = self.on(path);
        if to.exists() {
            return Ok(());
        }
        let named = || format!("the guest's {path}");
        if let Some(parent) = to.parent() {
            std::fs::create_dir_all(parent).with_context(named)?;
        }
        std::fs::write(&to, content).with_context(named)?;
        std::fs::set_permissions(&to, std::fs::Permissions::from_mode(mode)).with_context(named)
    }

    /// Adds a file of the host at its own path.
    fn same(&self, path: &str) -> Result<Vec<u8>> {
        let content = std::fs::read(path).with_context(|| path.to_string())?;
        self.file(path, &content, 0o755)?;
        Ok(content)
    }

    /// Adds a program of the host and its libraries.
    fn with_libraries(&self, path: &str) -> Result<()> {
        let content = self.same(path)?;
        for (path, content) in closure::of(Path::new("/"), path, &content, None)?.files {
            self.file(&path, &content, 0o755)?;
        }
        Ok(())
    }

    fn add_programs(&self) -> Result<()> {
        self.compile("driver", DRIVER, &["-static"])?;
        for (name, size, library) in SIZES {
            let mut options = vec!["-static", "-s", "-Wl,-e,bench_start"];
            if !library {
                options.extend([
                    "-nostdlib",
                    "-ffreestanding",
                    "-fno-stack-protector",
                    "-DFREESTANDING",
                ]);
            }
            let bulk = |bytes: u64| format!("-DBULK={bytes}");
            let trial = bulk(TRIAL);
            self.compile(name, PROGRAM, &[&options[..], &[&trial]].concat())?;
            let file = self.on(&format!("{PLACE}/{name}"));
            let small = file.metadata().context("a compiled program")?.len();
            let fitting = bulk((size + TRIAL).saturating_sub(small));
            self.compile(name, PROGRAM, &[&options[..], &[&fitting]].concat())?;
        }
        let options = ["-s", "-Wl,-e,bench_start", "-DBULK=16384"];
        self.compile("dynamic", PROGRAM, &options)?;
        let path = format!("{PLACE}/dynamic");
        let content = std::fs::read(self.on(&path)).context("a compiled program")?;
        for (path, content) in closure::of(Path::new("/"), &path, &content, None)?.files {
            self.file(&path, &content, 0o755)?;
        }
        let script = format!("#!{PLACE}/static-800k part\n");
        self.file(&format!("{PLACE}/script"), script.as_bytes(), 0o755)
    }

    /// Compiles a source to `/bench/NAME`.
    fn compile(&self, name: &str, source: &str, options: &[&str]) -> Result<()> {
        let file = self.dir.path().with_extension("c");
        std::fs::write(&file, source).context("a source to compile")?;
        let output = Command::new("cc")
            .args(["-O2", "-o"])
            .arg(self.on(&format!("{PLACE}/{name}")))
            .arg(&file)
            .args(options)
            .output();
        let _ = std::fs::remove_file(&file);
        let output = match output {
            Err(error) if error.kind() == ErrorKind::NotFound => bail!(
                "the benchmark compiles its programs with cc, which is not here: install the \
                 Debian packages gcc and libc6-dev"
            ),
            other => other.context("starting cc")?,
        };
        ensure!(
            output.status.success(),
            "cc cannot make the program {name} (the Debian packages gcc and libc6-dev can): {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(())
    }

    fn add_build(&mut self) -> Result<()> {
        let (make, tcc) = (tool("make"), tool("tcc"));
        let (Some(make), Some(tcc)) = (&make, &tcc) else {
            let missing = if make.is_none() { "make" } else { "tcc" };
            bail!(
                "the benchmark builds a C project and needs {missing}: install the Debian \
                 packages make, tcc and libc6-dev, or leave the build out with --no-make"
            );
        };
        self.with_libraries(make)?;
        self.with_libraries(tcc)?;
        let project = project::generate();
        for (name, content) in &project.files {
            self.file(
                &format!("{PLACE}/project/{name}"),
                content.as_bytes(),
                0o644,
            )?;
        }
        for file in self.read_by(tcc)? {
            self.same(&file)?;
        }
        self.tools = Some(Tools {
            make: make.clone(),
            tcc: tcc.clone(),
        });
        Ok(())
    }

    /// The files of the host that the compiler reads for the project: it says so itself.
    fn read_by(&self, tcc: &str) -> Result<Vec<String>> {
        let project = self.on(&format!("{PLACE}/project"));
        let out = tempfile::tempdir().context("a directory for the compiler")?;
        let object = out.path().join("m0.o");
        let product = out.path().join("product");
        // A source whose program needs nothing but the library.
        let trivial = out.path().join("trivial.c");
        std::fs::write(&trivial, "int main(void) { return 0; }\n").context("a source")?;
        let mut found = Vec::new();
        for (from, to, options) in [
            (project.join("m0.c"), &object, &["-c"][..]),
            (trivial, &product, &[][..]),
        ] {
            let output = Command::new(tcc)
                .args(["-vv", "-o"])
                .arg(to)
                .args(options)
                .arg(&from)
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
            let ours = |path: &&str| {
                !Path::new(path).starts_with(self.dir.path())
                    && !Path::new(path).starts_with(out.path())
            };
            found.extend(files.filter(ours).map(str::to_string));
        }
        found.sort();
        found.dedup();
        Ok(found)
    }
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
