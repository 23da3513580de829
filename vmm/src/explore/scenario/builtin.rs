//! The project's own scenarios, which this binary has within it: their files and sources, and
//! their programs, compiled when it was built. They need no source tree and no compiler.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::{Content, Place, Problem, Scenario, compiler, parse};
use crate::packed;

mod table {
    include!(concat!(env!("OUT_DIR"), "/scenarios.rs"));
}

/// The scenarios' names, sorted.
pub fn names() -> impl Iterator<Item = &'static str> {
    let files = table::FILES.iter();
    files.filter_map(|(name, _)| name.strip_suffix(".toml"))
}

/// The scenario of this name; `None` if there is none.
pub fn scenario(name: &str) -> Option<Result<Scenario, Problem>> {
    let file = format!("{name}.toml");
    let text = text(&file)?;
    let scenario = parse(Path::new(&file), text).map(|scenario| Scenario {
        place: Place::Builtin,
        ..scenario
    });
    Some(scenario)
}

fn text(file: &str) -> Option<&'static str> {
    let found = table::FILES.iter().find(|(name, _)| *name == file);
    found.map(|(_, text)| *text)
}

/// The program compiled from a built-in source with these flags.
pub(super) fn program(source: &str, flags: &[&str]) -> Result<Vec<u8>> {
    let found = table::PROGRAMS
        .iter()
        .find(|program| (program.0, program.1) == (source, flags));
    let Some((_, _, bytes)) = found else {
        bail!("this binary was built without the program of {source} (ABSENTIA_SKIP_IMAGES)");
    };
    packed::unpack(bytes).with_context(|| format!("the program of {source}"))
}

/// Writes a built-in scenario, its programs' sources and the headers they include into a
/// directory, which is made if need be. Files that are there stay, and are an error. The
/// scenario's file.
pub fn export(name: &str, directory: &Path) -> Result<PathBuf> {
    let Some(scenario) = scenario(name) else {
        let names: Vec<_> = names().collect();
        bail!("no scenario {name}: there are {}", names.join(", "));
    };
    let mut files = BTreeSet::from([format!("{name}.toml")]);
    let mut sources: Vec<String> = Vec::new();
    for item in scenario?.root {
        if let Content::C { source, .. } = item.content {
            sources.push(source);
        }
    }
    while let Some(source) = sources.pop() {
        let included = text(&source).into_iter().flat_map(compiler::included);
        sources.extend(
            included
                .map(str::to_string)
                .filter(|file| !files.contains(file)),
        );
        files.insert(source);
    }
    let named = |path: &Path| format!("writing {}", path.display());
    std::fs::create_dir_all(directory).with_context(|| named(directory))?;
    for file in &files {
        let path = directory.join(file);
        let text = text(file).with_context(|| format!("this binary lacks {file}"))?;
        let mut file = File::create_new(&path).with_context(|| named(&path))?;
        file.write_all(text.as_bytes())
            .with_context(|| named(&path))?;
    }
    Ok(directory.join(format!("{name}.toml")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_of_the_tree_is_built_in_with_its_programs() {
        let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/scenarios");
        assert_eq!(names().collect::<Vec<_>>(), super::super::names(&tree));
        for name in names() {
            let scenario = scenario(name).unwrap().unwrap();
            assert_eq!(scenario.place, Place::Builtin);
            for item in &scenario.root {
                if let Content::C {
                    source,
                    freestanding,
                    flags,
                } = &item.content
                {
                    let flags = compiler::flags(*freestanding, flags);
                    let program = program(source, &flags).unwrap();
                    let elf = goblin::elf::Elf::parse(&program).unwrap();
                    assert!(elf.interpreter.is_none(), "{source} is dynamic");
                }
            }
        }
        assert!(scenario("none").is_none());
    }

    /// What is written out compiles by itself, to the same program.
    #[test]
    fn an_exported_scenario_is_one_of_ones_own() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("mine");
        let file = export("d1-read", &directory).unwrap();
        let mut written: Vec<_> = std::fs::read_dir(&directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        written.sort();
        assert_eq!(written, ["d1-read.c", "d1-read.toml", "lab.h"]);
        let own = super::super::load(&file).unwrap();
        assert_eq!(own.place, Place::Directory(directory.clone()));
        let program = own.program(place.path(), "d1-read.c", true, &[]).unwrap();
        let builtin = scenario("d1-read").unwrap().unwrap();
        let same = builtin
            .program(place.path(), "d1-read.c", true, &[])
            .unwrap();
        assert!(program == same, "the built-in program is another");
        // Nothing is overwritten.
        let again = format!("{:#}", export("d1-read", &directory).unwrap_err());
        assert!(
            again.contains("d1-read.c") && again.contains("exists"),
            "{again}"
        );
        assert!(
            export("none", &directory)
                .unwrap_err()
                .to_string()
                .contains("d1-read")
        );
    }
}
