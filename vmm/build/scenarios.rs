//! The scenarios of `tests/scenarios`: their files, and their programs compiled.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

#[path = "../src/explore/scenario/compiler.rs"]
mod compiler;

/// Writes `scenarios.rs`, which `explore::scenario::builtin` includes; without programs when they
/// are not wanted.
pub fn generate(scenarios: &Path, out: &Path, programs: bool) -> Result<()> {
    let mut files = BTreeSet::new();
    let mut wanted: BTreeSet<(String, Vec<String>)> = BTreeSet::new();
    for entry in fs::read_dir(scenarios).context("tests/scenarios")? {
        let name = entry.context("tests/scenarios")?.file_name();
        let Some(name) = name.to_str().filter(|name| name.ends_with(".toml")) else {
            continue;
        };
        let text = fs::read_to_string(scenarios.join(name)).with_context(|| name.to_string())?;
        let table: toml::Table = text.parse().with_context(|| name.to_string())?;
        files.insert(name.to_string());
        let items = table.get("root").and_then(toml::Value::as_array);
        for item in items.into_iter().flatten() {
            let Some(source) = item.get("c").and_then(toml::Value::as_str) else {
                continue;
            };
            let freestanding = item.get("freestanding").and_then(toml::Value::as_bool);
            let more = item.get("flags").and_then(toml::Value::as_array);
            let more = more.into_iter().flatten().filter_map(toml::Value::as_str);
            let more: Vec<String> = more.map(str::to_string).collect();
            let flags = compiler::flags(freestanding.unwrap_or(false), &more);
            add_sources(scenarios, source, &mut files)?;
            if programs {
                let flags = flags.iter().map(|flag| flag.to_string()).collect();
                wanted.insert((source.to_string(), flags));
            }
        }
    }
    let mut text = String::from(
        "/// Names and texts of the scenarios' files, their sources and headers.\n\
         pub static FILES: &[(&str, &str)] = &[\n",
    );
    for name in &files {
        writeln!(
            text,
            "({name:?}, include_str!({:?})),",
            scenarios.join(name)
        )?;
    }
    text += "];\n/// Source, flags and deflated program.\n\
             pub static PROGRAMS: &[(&str, &[&str], &[u8])] = &[\n";
    for (number, (source, flags)) in wanted.iter().enumerate() {
        let path = out.join(format!("scenario-{number}"));
        let program = compile(scenarios, out, source, flags)?;
        fs::write(&path, crate::pack(&program)).context("OUT_DIR")?;
        writeln!(text, "({source:?}, &{flags:?}, include_bytes!({path:?})),")?;
    }
    text += "];\n";
    fs::write(out.join("scenarios.rs"), text).context("scenarios.rs")
}

/// A source and what it includes.
fn add_sources(scenarios: &Path, source: &str, files: &mut BTreeSet<String>) -> Result<()> {
    if files.insert(source.to_string()) {
        let text = fs::read_to_string(scenarios.join(source));
        for header in compiler::included(&text.with_context(|| source.to_string())?) {
            add_sources(scenarios, header, files)?;
        }
    }
    Ok(())
}

fn compile(scenarios: &Path, out: &Path, source: &str, flags: &[String]) -> Result<Vec<u8>> {
    let program = out.join("scenario");
    let output = Command::new("cc")
        .args(flags)
        .arg("-o")
        .arg(&program)
        .arg(source)
        .current_dir(scenarios)
        .output()
        .context("the scenarios' programs need a C compiler, as cc in PATH (Debian: gcc)")?;
    ensure!(
        output.status.success(),
        "cc {source} (the Debian packages gcc and libc6-dev can): {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    fs::read(&program).context("a compiled program")
}
