//! `absentia manual` and `absentia completions`: what a package installs beside the command.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::Arguments;
use crate::images;

#[derive(Debug, Args)]
pub struct Manual {
    /// The directory, which is made if need be
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
}

#[derive(Debug, Args)]
pub struct Completions {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

/// A word and what it means.
type Entry = (&'static str, &'static str);

/// What the exit status says, by subcommand.
const STATUS: [(&str, &[Entry]); 7] = [
    (
        "run",
        &[
            (
                "0 to 123, 128 + N",
                "the program's own status; signal N ended it",
            ),
            ("124", "the time that --timeout gives was over"),
            (
                "125",
                "the machine or the host failed, or two runs of --check-determinism differ",
            ),
            ("126", "the program is there and cannot be executed"),
            ("127", "there is no such program"),
            ("130, 143", "^C or SIGTERM ended the run"),
            ("141", "nobody reads the output any more"),
        ],
    ),
    (
        "attach",
        &[
            (
                "0 to 123, 128 + N",
                "the program's own status; signal N ended it",
            ),
            ("125", "the command or the guest failed"),
            ("126", "the program is there and cannot be executed"),
            ("127", "there is no such program"),
            ("130, 143", "^C or SIGTERM ended the run"),
        ],
    ),
    (
        "explore",
        &[
            ("0", "no run did what it must not"),
            ("1", "one did: the table names it"),
            ("125", "the exploration failed"),
        ],
    ),
    (
        "replay",
        &[
            ("0", "the run did nothing that it must not"),
            ("1", "it did, as the token says"),
            ("125", "there was no such run"),
        ],
    ),
    (
        "doctor",
        &[
            ("0", "absentia run works here"),
            ("1", "it does not: what is missing is said"),
        ],
    ),
    ("bench", OTHERWISE),
    ("demo", OTHERWISE),
];
const OTHERWISE: &[Entry] = &[("0", "done"), ("125", "failed, as standard error says")];
/// Of every subcommand.
const USAGE: Entry = ("2", "the command line makes no sense");

const ENVIRONMENT: [Entry; 5] = [
    (
        images::OVERRIDE_VARIABLE,
        "a directory with ELF files that replace the built-in images of their names: guest-kernel, \
         vm, rs, and so on. For developers",
    ),
    (
        "PATH",
        "where programs for the guest are looked for that are named without a slash, and the tools \
         cc, mke2fs, qemu-system-x86_64, make, tcc and busybox",
    ),
    (
        "TERM",
        "handed to the program in the guest; nothing else of the environment is",
    ),
    (
        "TMPDIR",
        "where files without a name go: what the guest changes of a disk that stays as it is (--root DIRECTORY, \
         --snapshot), and the image of a directory that cannot be kept; /tmp without it",
    ),
    (
        "XDG_CACHE_HOME, HOME",
        "programs of scenarios of one's own are kept in $XDG_CACHE_HOME/absentia, or \
         $HOME/.cache/absentia, once they are compiled; so are, in its directory roots, the images that --root \
         DIRECTORY makes: 4 GiB of disk and 16 images at most, the one that was not used for longest goes first",
    ),
];

impl Completions {
    pub fn execute(self) -> Result<u8> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut Arguments::command(), "absentia", &mut text);
        super::print(&String::from_utf8(text).context("the completions")?)?;
        Ok(0)
    }
}

impl Manual {
    pub fn execute(self) -> Result<u8> {
        let named = |path: &Path| format!("writing {}", path.display());
        fs::create_dir_all(&self.directory).with_context(|| named(&self.directory))?;
        for (name, text) in pages()? {
            let path = self.directory.join(name);
            fs::write(&path, text).with_context(|| named(&path))?;
        }
        Ok(0)
    }
}

/// The pages by their files' names.
fn pages() -> Result<Vec<(String, Vec<u8>)>> {
    let mut command = Arguments::command().disable_help_subcommand(true);
    command.build();
    let shown = command
        .get_subcommands()
        .filter(|command| !command.is_hide_set());
    let mut all: Vec<(String, clap::Command)> = Vec::new();
    for sub in shown {
        all.push((sub.get_name().to_string(), sub.clone()));
        let inner = sub
            .get_subcommands()
            .filter(|command| command.get_name() != "help");
        all.extend(inner.map(|inner| (sub.get_name().to_string(), inner.clone())));
    }
    all.push((String::new(), command.clone()));
    all.into_iter()
        .map(|(name, command)| {
            let man = Man::new(command).manual("Absentia").date("");
            let mut text = Vec::new();
            man.render(&mut text)?;
            sections(&name).to_writer(&mut text)?;
            Ok((man.get_filename(), text))
        })
        .collect()
}

/// What the definition of the command line does not say; the whole of it on the page of the
/// command itself, whose `name` is empty.
fn sections(name: &str) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["EXIT STATUS"]);
    if name.is_empty() {
        for (name, entries) in STATUS {
            roff.control("SS", [format!("absentia {name}").as_str()]);
            list(&mut roff, entries);
        }
        roff.control("SS", ["every one"]);
    } else {
        let found = STATUS.iter().find(|(known, _)| *known == name);
        list(&mut roff, found.map_or(OTHERWISE, |(_, entries)| entries));
    }
    list(&mut roff, &[USAGE]);
    roff.control("SH", ["ENVIRONMENT"]);
    list(&mut roff, &ENVIRONMENT);
    roff
}

fn list(roff: &mut Roff, entries: &[Entry]) {
    for (word, meaning) in entries {
        roff.control("TP", []);
        roff.text([bold(*word)]);
        roff.text([roman(*meaning)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_says_how_it_ends_and_what_it_reads() {
        let pages = pages().unwrap();
        let names: Vec<_> = pages.iter().map(|(name, _)| name.as_str()).collect();
        for name in [
            "absentia.1",
            "absentia-run.1",
            "absentia-bench-exec.1",
            "absentia-doctor.1",
        ] {
            assert!(names.contains(&name), "no {name} in {names:?}");
        }
        assert!(!names.contains(&"absentia-boot.1"), "hidden");
        for (name, text) in &pages {
            let text = String::from_utf8(text.clone()).unwrap();
            for section in [".SH \"EXIT STATUS\"", ".SH ENVIRONMENT", ".SH SYNOPSIS"] {
                assert!(text.contains(section), "{name} has no {section}: {text}");
            }
            assert!(text.contains(images::OVERRIDE_VARIABLE), "{name}");
        }
    }

    #[test]
    fn the_statuses_are_of_subcommands_that_there_are() {
        let command = Arguments::command();
        for (name, _) in STATUS {
            assert!(command.find_subcommand(name).is_some(), "{name}");
        }
    }
}
