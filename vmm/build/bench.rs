//! The programs of `absentia bench exec`, in the sizes in question.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use goblin::elf::Elf;

/// Where they are in the guest.
const PLACE: &str = "/bench";
/// Bulk of the program that is built to learn what comes on top.
const TRIAL: u64 = 4096;
/// The sizes of static programs: name, bytes of the file, whether it needs a C library.
const SIZES: [(&str, u64, bool); 3] = [
    ("static-50k", 50 << 10, false),
    ("static-800k", 800 << 10, true),
    ("static-4m", 4 << 20, true),
];

/// Writes `bench.rs`, which `bench::exec::root` includes; empty when they are not wanted.
pub fn generate(sources: &Path, out: &Path, wanted: bool) -> Result<()> {
    let directory = out.join("bench");
    fs::create_dir_all(&directory).context("OUT_DIR")?;
    let mut text = String::from(
        "/// Path and deflated content.\npub static PROGRAMS: &[(&str, &[u8])] = &[\n",
    );
    let files = match wanted {
        true => programs(sources, &directory)?,
        false => BTreeMap::new(),
    };
    for (number, (path, content)) in files.iter().enumerate() {
        let packed = directory.join(format!("{number}.packed"));
        fs::write(&packed, crate::pack(content)).context("OUT_DIR")?;
        writeln!(text, "({path:?}, include_bytes!({packed:?})),")?;
    }
    text += "];\n";
    fs::write(out.join("bench.rs"), text).context("bench.rs")
}

/// Everything by its path in the guest.
fn programs(sources: &Path, out: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let compile = |name: &str, source: &str, options: &[&str]| -> Result<Vec<u8>> {
        let program = out.join(name);
        let output = Command::new("cc")
            .args(["-O2", "-o"])
            .arg(&program)
            .arg(sources.join(source))
            .args(options)
            .output()
            .context("the benchmark's programs need a C compiler, as cc in PATH (Debian: gcc)")?;
        ensure!(
            output.status.success(),
            "cc cannot make the program {name} (the Debian packages gcc and libc6-dev can): {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        crate::read(&program)
    };
    let mut files = BTreeMap::new();
    let mut add = |name: &str, content| files.insert(format!("{PLACE}/{name}"), content);
    add("driver", compile("driver", "driver.c", &["-static", "-s"])?);
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
        let trial = compile(name, "program.c", &[&options[..], &[&bulk(TRIAL)]].concat())?;
        let fitting = bulk((size + TRIAL).saturating_sub(trial.len() as u64));
        add(
            name,
            compile(name, "program.c", &[&options[..], &[&fitting]].concat())?,
        );
    }
    let options = ["-s", "-Wl,-e,bench_start", "-DBULK=16384"];
    let dynamic = compile("dynamic", "program.c", &options)?;
    let libraries = libraries(&dynamic)?;
    add("dynamic", dynamic);
    files.extend(libraries);
    Ok(files)
}

/// A dynamic program's linker and libraries, where the linker looks for them.
fn libraries(program: &[u8]) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    let interpreter = Elf::parse(program)
        .context("a compiled program")?
        .interpreter;
    let interpreter = interpreter
        .context("the dynamic program is static")?
        .to_string();
    let linker = Path::new(&interpreter)
        .file_name()
        .map(|name| name.to_owned());
    let mut todo = vec![program.to_vec()];
    while let Some(file) = todo.pop() {
        for name in Elf::parse(&file).context("a library")?.libraries {
            // The linker may be needed like a library, too.
            if linker.as_ref().is_some_and(|linker| linker == name) {
                continue;
            }
            let path = library(name)?;
            let content = crate::read(&path)?;
            let path = path.to_str().context("a library's path")?.to_string();
            if files.insert(path, content.clone()).is_none() {
                todo.push(content);
            }
        }
    }
    let content = crate::read(Path::new(&interpreter))?;
    files.insert(interpreter, content);
    Ok(files)
}

/// Where the compiler finds a library, which is where its linker does.
fn library(name: &str) -> Result<PathBuf> {
    let output = Command::new("cc")
        .arg(format!("-print-file-name={name}"))
        .output()
        .context("cc")?;
    let path = String::from_utf8(output.stdout).context("a library's path")?;
    fs::canonicalize(path.trim()).with_context(|| format!("the library {name}"))
}
