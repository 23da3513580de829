//! A program of the host on the embedded root: itself, what it needs to start, and what else was
//! asked for.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{DEFAULT, Program};
use crate::error::NoSuchProgram;
use crate::images::default_programs;
use crate::log::Log;
use crate::root::embedded::{self, Surroundings};
use crate::root::with::{Luggage, covered};
use crate::root::{Disk, closure};

/// The paths that a root has, directories among them.
pub type There = BTreeSet<String>;

/// The embedded root as of `now`, with the host's program on it when there is one, and then what is
/// on the root. The program's name becomes that in the guest.
pub fn root(program: &mut Program, log: &Log, now: u64) -> Result<(Disk, Option<There>)> {
    let mut programs: Vec<embedded::Program<'_>> = default_programs()
        .iter()
        .map(|&(path, content)| embedded::Program {
            path: path.into(),
            content,
        })
        .collect();
    let library_path = program.library_path().map(str::to_string);
    let mut luggage = Luggage::new(Path::new("/"), library_path.as_deref());
    for path in &program.with {
        luggage.take(path)?;
    }
    let (with, notes) = luggage.unpack();
    notes.iter().for_each(|note| log.note(note));
    let mut surroundings = Surroundings {
        with,
        ..Surroundings::default()
    };
    let Some(name) = program.args.first() else {
        program.args = vec![DEFAULT.into()];
        return Ok((embedded::build_with(&programs, &surroundings, now)?, None));
    };
    let path = name.to_string_lossy().into_owned();
    let refuse = |what: &'static str, code| NoSuchProgram::new(&path, what, code);
    let host = Path::new(name);
    let content = match std::fs::read(host) {
        Ok(content) => content,
        Err(_) if host.is_dir() => return Err(refuse("is a directory", 126).into()),
        Err(_) if programs.iter().any(|p| Path::new(&*p.path) == host) => {
            return Ok((embedded::build_with(&programs, &surroundings, now)?, None));
        }
        Err(_) => return Err(unknown(&path).into()),
    };
    check_program(&content).map_err(|what| refuse(what, 126))?;
    // At the same path in the guest, whose working directory is not ours.
    let absolute = std::path::absolute(host).context("the program's path")?;
    let (file, links) = closure::links(&absolute);
    let moved = place(&absolute, &file);
    if let Some(place) = &moved {
        log.note(&format!(
            "{path}: where the guest mounts something: run as {}",
            place.display()
        ));
    }
    let (absolute, file, links) = match moved {
        Some(place) => (place.clone(), place, Vec::new()),
        None => (absolute, file, links),
    };
    let text = |path: &Path| match path.to_str() {
        Some(path) => Ok(path.to_string()),
        None => Err(refuse("the path is not UTF-8: use --root", 126)),
    };
    let file = text(&file)?;
    program.args[0] = absolute.into();
    let needed = closure::of(Path::new("/"), &file, &content, library_path.as_deref())
        .map_err(|problem| NoSuchProgram::new(&path, problem.to_string(), 127))?;
    needed.report.iter().for_each(|line| log.note(line));
    surroundings.directories = needed.directories;
    for (link, target) in links {
        surroundings.links.push((text(&link)?, text(&target)?));
    }
    programs.retain(|p| p.path != file && needed.files.iter().all(|f| f.0 != p.path));
    programs.push(embedded::Program {
        path: file.into(),
        content: &content,
    });
    programs.extend(
        needed
            .files
            .iter()
            .map(|(path, content)| embedded::Program {
                path: path.into(),
                content,
            }),
    );
    let there = there(&programs, &surroundings);
    let disk = embedded::build_with(&programs, &surroundings, now)?;
    Ok((disk, Some(there)))
}

/// Everything that is on a root, and the directories on the way to it.
fn there(programs: &[embedded::Program<'_>], surroundings: &Surroundings) -> There {
    let programs = programs.iter().map(|program| &*program.path);
    let links = surroundings.links.iter().map(|(path, _)| &**path);
    let directories = surroundings.directories.iter().map(|path| &**path);
    let with = surroundings.with.keys().map(|path| &**path);
    let mut there = There::new();
    for path in embedded::own()
        .chain(programs)
        .chain(links)
        .chain(directories)
        .chain(with)
    {
        let path = Path::new("/").join(path);
        let names = path.ancestors().filter_map(Path::to_str);
        there.extend(names.map(str::to_string));
    }
    there
}

/// What to say of a name that nobody has.
fn unknown(path: &str) -> NoSuchProgram {
    let what = "no such program here or on the embedded root";
    let search = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&search)
        .map(|dir| dir.join(path))
        .find(|file| !path.contains('/') && file.is_absolute() && file.is_file());
    match found {
        Some(file) => NoSuchProgram::new(path, format!("{what}; there is {}", file.display()), 127),
        None => NoSuchProgram::new(path, what, 127),
    }
}

/// Where a program goes that cannot be at its own path, because that path or the file it leads
/// to would be covered.
fn place(path: &Path, file: &Path) -> Option<PathBuf> {
    if !covered(path) && !covered(file) {
        return None;
    }
    Some(Path::new("/bin").join(path.file_name()?))
}

/// Whether the guest can run this at all; if not, why.
fn check_program(content: &[u8]) -> Result<(), &'static str> {
    use goblin::elf::header::EM_X86_64;
    if !content.starts_with(b"\x7fELF") {
        return Err(
            "not an ELF program: of a script, run the interpreter and take the script along: \
             --with SCRIPT -- INTERPRETER SCRIPT",
        );
    }
    let elf = goblin::elf::Elf::parse(content).map_err(|_| "a damaged ELF file")?;
    if elf.header.e_machine != EM_X86_64 || !elf.is_64 {
        return Err("not a program for x86-64");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::KEPT;

    #[test]
    fn programs_move_out_of_covered_directories() {
        let moved = |path: &str, file: &str| {
            place(Path::new(path), Path::new(file)).map(|p| p.display().to_string())
        };
        assert_eq!(moved("/opt/x", "/opt/x"), None);
        assert_eq!(moved("/tmpx/x", "/tmpx/x"), None);
        assert_eq!(moved("/tmp/d/x", "/tmp/d/x").as_deref(), Some("/bin/x"));
        assert_eq!(moved("/bin/ls", "/tmp/busybox").as_deref(), Some("/bin/ls"));
        assert_eq!(
            moved("/proc/self/exe", "/opt/x").as_deref(),
            Some("/bin/exe")
        );
    }

    #[test]
    fn programs_that_cannot_run_are_told_apart() {
        let refused = |program: &str| {
            let log = Log::new(false, KEPT);
            let error = root(&mut Program::new([program]), &log, 0).unwrap_err();
            error.downcast::<NoSuchProgram>().unwrap()
        };
        assert_eq!(refused("/no/such/program").code(), 127);
        assert_eq!(refused("/tmp").code(), 126);
        assert_eq!(refused("/etc/passwd").code(), 126);
        let script = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(script.path(), "#!/bin/sh\n").unwrap();
        let script = refused(script.path().to_str().unwrap());
        assert_eq!(script.code(), 126);
        assert!(script.to_string().contains("--with SCRIPT"), "{script}");
    }

    #[test]
    fn a_name_without_a_path_is_looked_for() {
        let log = Log::new(false, KEPT);
        let error = root(&mut Program::new(["ls"]), &log, 0).unwrap_err();
        assert!(error.to_string().contains("; there is /"), "{error}");
    }

    #[test]
    fn what_comes_along_is_on_the_root() {
        let log = Log::new(false, KEPT);
        let mut program = Program::new(["/bin/ls"]);
        program.with = vec!["/etc/passwd".into(), "/etc/ld.so.conf.d".into()];
        let (disk, there) = root(&mut program, &log, 0).unwrap();
        let there = there.unwrap();
        for path in [
            "/",
            "/bin/ls",
            "/etc",
            "/etc/passwd",
            "/etc/ld.so.conf.d",
            "/dev",
        ] {
            assert!(there.contains(path), "{path}");
        }
        let passwd = embedded::read(&disk.file, "/etc/passwd").unwrap();
        assert_eq!(passwd, Some(std::fs::read("/etc/passwd").unwrap()));
        program.with = vec!["/no/such/file".into()];
        let error = root(&mut program, &log, 0).unwrap_err();
        assert!(
            error.to_string().starts_with("--with /no/such/file: "),
            "{error}"
        );
    }
}
