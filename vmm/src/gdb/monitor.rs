//! `monitor` commands.

use abi::trace::{Kind, Record};
use anyhow::{Context, Result, bail};

use super::session::{Moved, Session};
use crate::explore::engine;
use crate::explore::row::{Named, PointKind};
use crate::images;
use crate::inspect::graph::Graph;
use crate::inspect::render;
use crate::trace::words;

const HELP: &str = "\
monitor next [KIND]       to the next point (of a kind); stepi does the same
monitor until N           to point N; faults on the way are applied
monitor message NAME      to the first point after a message to this process
monitor back              to the stop before; reverse-stepi does the same
monitor points [N]        the last N points (10)
monitor trace [N]         the last N trace records (20)
monitor waits             who waits for whom
monitor plan              the token, and where the machine stands
monitor symbols           files with the symbols of kernel and servers
continue                  to the next point with a fault, then to the end
";
/// gdb does not know that a command moved the machine.
const MOVED: &str = "gdb still shows the registers of before: maintenance flush register-cache\n";
/// Most records that are shown.
const SHOWN_MAX: usize = 10_000;

fn count(word: Option<&str>, default: usize) -> Result<usize> {
    let number = word.map(|word| {
        word.parse()
            .with_context(|| format!("{word:?} is no number"))
    });
    Ok(number.transpose()?.unwrap_or(default).min(SHOWN_MAX))
}

impl Session<'_> {
    /// Carries out a command; what there is to say.
    pub fn command(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        let said = match words[..] {
            [] | ["help"] => Ok(HELP.into()),
            ["next"] => self.forward(|_, _| true),
            ["next", kind] => {
                let kind = PointKind::named(kind).map_err(anyhow::Error::msg);
                kind.and_then(|kind| self.forward(|session, _| session.stands_at(kind)))
            }
            ["until", number] => number
                .parse()
                .with_context(|| format!("{number:?} is no number of a point"))
                .and_then(|number| self.advance(number))
                .map(|moved| self.said(moved)),
            ["message", name] => self.message(name),
            ["back"] => self.back(false).map(|moved| self.said(moved)),
            ["points", ref more @ ..] => {
                let point = |record: &&Record| record.kind().is_some_and(Kind::is_point);
                count(more.first().copied(), 10).map(|n| self.records(n, point))
            }
            ["trace", ref more @ ..] => {
                count(more.first().copied(), 20).map(|n| self.records(n, |_| true))
            }
            ["waits"] => Ok(self.waits()),
            ["plan"] => {
                let place = self.place();
                Ok(format!("{}\n{place}\n", self.plan))
            }
            ["symbols"] => Ok(symbols()),
            _ => Ok(format!("no such command: {line}\n{HELP}")),
        };
        said.unwrap_or_else(|error| format!("{error:#}\n"))
    }

    fn said(&mut self, moved: Moved) -> String {
        match moved {
            Moved::Stopped => format!("{}\n{MOVED}", self.place()),
            Moved::Not(why) => format!("{why}\n"),
            Moved::Ended(status) => format!("the run ended with status {status}\n"),
        }
    }

    /// From point to point until `there`, which gets the records that are new. One stop, as
    /// far as going back is concerned.
    fn forward(&mut self, there: impl Fn(&Self, &[Record]) -> bool) -> Result<String> {
        let before = self.player.records().len();
        let moved = self.advance_while(|session| {
            let records = session.player.records();
            !there(session, records.get(before..).unwrap_or_default())
        })?;
        Ok(self.said(moved))
    }

    fn message(&mut self, name: &str) -> Result<String> {
        let known = self.table.processes.iter().find(|p| p.name == name);
        let Some(to) = known.map(|process| process.endpoint) else {
            bail!("there is no process {name:?}: see `info threads`");
        };
        self.forward(|_, new| {
            new.iter()
                .filter_map(Record::sent)
                .any(|sent| sent.ends.1 == to)
        })
    }

    fn records(&mut self, count: usize, wanted: impl Fn(&&Record) -> bool) -> String {
        let records = self.player.records();
        let names = engine::names(records);
        let mut shown: Vec<_> = records.iter().rev().filter(wanted).take(count).collect();
        shown.reverse();
        shown
            .iter()
            .map(|record| {
                let number = match record.kind() {
                    Some(kind) if kind.is_point() => format!("{:>8}", record.number()),
                    _ => " ".repeat(8),
                };
                let what = words::describe(record, &names);
                format!("{number} {:>12} ns  {what}\n", record.time)
            })
            .collect()
    }

    fn waits(&self) -> String {
        let graph = Graph::new(&self.table);
        let circle = if graph.cycle().is_some() {
            "a circle: nobody in it can ever go on\n"
        } else {
            ""
        };
        let text = render::text(&graph);
        if text.is_empty() {
            return "nobody waits for anybody\n".into();
        }
        format!("{circle}{text}")
    }
}

/// gdb has one set of symbols for all threads, and all servers lie at the same addresses.
fn symbols() -> String {
    let mut text = String::from(
        "Servers share their addresses: load the kernel's symbols and one server's at a time.\n",
    );
    let files = images::symbol_files();
    if files.is_empty() {
        text += "this binary carries no images\n";
    }
    for (name, file) in files {
        text += &match file {
            Some(path) => format!("add-symbol-file {}\n", path.display()),
            None => format!("# {name}: its file is gone or newer than this binary: rebuild\n"),
        };
    }
    text
}
