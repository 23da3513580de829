//! What must hold after a run, and what is said when it does not.

use std::collections::BTreeMap;
use std::fs::File;

use anyhow::Result;
use serde::{Deserialize, Deserializer};

use super::row::{Surfaced, Verdict};
use crate::root::embedded;

/// What must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expect {
    /// Exit status as a shell sees it.
    pub status: u8,
    /// Standard output.
    pub stdout: Text,
    /// Standard error.
    pub stderr: Text,
    /// Errors that the program may be told when a page never comes back.
    pub errors: Vec<Error>,
    /// The program makes a call again that found no memory: one refusal changes nothing but time.
    pub again: bool,
    /// Files on the root disk, after the run.
    pub files: Vec<FileExpectation>,
}

/// What a text has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Text {
    /// What it is in the run without a fault.
    Same,
    /// Exactly this.
    Exact(String),
    /// Anything.
    Any,
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a text, or { same = true } or { any = true }")]
        enum Raw {
            Exact(String),
            Flags(Flags),
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Flags {
            #[serde(default)]
            same: bool,
            #[serde(default)]
            any: bool,
        }
        match Raw::deserialize(deserializer)? {
            Raw::Exact(text) => Ok(Text::Exact(text)),
            Raw::Flags(Flags {
                same: true,
                any: false,
            }) => Ok(Text::Same),
            Raw::Flags(Flags {
                same: false,
                any: true,
            }) => Ok(Text::Any),
            Raw::Flags(_) => Err(serde::de::Error::custom("either same = true or any = true")),
        }
    }
}

/// A file after the run.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileExpectation {
    /// Its path.
    pub path: String,
    /// Its content; by default what it is after the run without a fault.
    #[serde(default = "same")]
    pub content: Text,
}

fn same() -> Text {
    Text::Same
}

/// An error or a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error(&'static Known);

#[derive(Debug, PartialEq, Eq)]
struct Known {
    name: &'static str,
    number: u8,
    signal: bool,
    /// What the C library and shells say.
    text: &'static str,
}

const fn errno(name: &'static str, number: u8, text: &'static str) -> Known {
    Known {
        name,
        number,
        signal: false,
        text,
    }
}

const fn signal(name: &'static str, number: u8, text: &'static str) -> Known {
    Known {
        name,
        number,
        signal: true,
        text,
    }
}

/// What absent memory can come to.
const KNOWN: [Known; 9] = [
    errno("EINTR", 4, "Interrupted system call"),
    errno("EIO", 5, "Input/output error"),
    errno("EAGAIN", 11, "Resource temporarily unavailable"),
    errno("ENOMEM", 12, "Cannot allocate memory"),
    errno("EFAULT", 14, "Bad address"),
    errno("ENOSPC", 28, "No space left on device"),
    signal("SIGBUS", 7, "Bus error"),
    signal("SIGKILL", 9, "Killed"),
    signal("SIGSEGV", 11, "Segmentation fault"),
];

impl Error {
    /// The error of this name.
    pub fn named(name: &str) -> Option<Error> {
        KNOWN.iter().find(|known| known.name == name).map(Error)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// The line of an output that tells it: by its name, its number ("error 5") or the C
    /// library's words.
    fn told(self, output: &str) -> Option<&str> {
        let number = format!(
            "{} {}",
            if self.0.signal { "signal" } else { "error" },
            self.0.number
        );
        let says = |line: &&str| {
            [self.0.name, self.0.text, &number].iter().any(|words| {
                line.match_indices(words).any(|(at, found)| {
                    let edge = |c: Option<char>| !c.is_some_and(char::is_alphanumeric);
                    edge(line[..at].chars().next_back())
                        && edge(line[at + found.len()..].chars().next())
                })
            })
        };
        output.lines().find(says)
    }
}

impl<'de> Deserialize<'de> for Error {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Error, D::Error> {
        let name = String::deserialize(deserializer)?;
        Error::named(&name).ok_or_else(|| {
            let names: Vec<_> = KNOWN.iter().map(|known| known.name).collect();
            serde::de::Error::custom(format!("no error {name:?}: expected {}", names.join(", ")))
        })
    }
}

/// What a run left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Exit status as a shell sees it.
    pub status: u8,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// The expected files' contents; `None` where there is no such file.
    pub files: BTreeMap<String, Option<Vec<u8>>>,
}

/// What a run came to, as far as its results tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// [`Verdict::Ok`], [`Verdict::ErrorSurfaced`] or [`Verdict::WrongData`].
    pub verdict: Verdict,
    /// With [`Verdict::ErrorSurfaced`]: which error.
    pub surfaced: Option<Surfaced>,
    /// The first thing that does not hold.
    pub detail: String,
}

impl Expect {
    /// Reads the expected files from the disk of a machine that is off.
    pub fn files_of(&self, disk: &File) -> Result<BTreeMap<String, Option<Vec<u8>>>> {
        let read =
            |file: &FileExpectation| Ok((file.path.clone(), embedded::read(disk, &file.path)?));
        self.files.iter().map(read).collect()
    }

    /// Judges a run. Without a run to compare with ([`Text::Same`]), it is the fault-free run
    /// itself.
    pub fn judge(&self, seen: &Observed, fault_free: Option<&Observed>) -> Judgement {
        let Some(detail) = self.difference(seen, fault_free) else {
            return Judgement {
                verdict: Verdict::Ok,
                surfaced: None,
                detail: String::new(),
            };
        };
        let surfaced = self.surfaced(seen);
        Judgement {
            verdict: if surfaced.is_some() {
                Verdict::ErrorSurfaced
            } else {
                Verdict::WrongData
            },
            surfaced,
            detail,
        }
    }

    /// The first thing that does not hold.
    fn difference(&self, seen: &Observed, fault_free: Option<&Observed>) -> Option<String> {
        let texts = [
            (
                "standard output",
                &self.stdout,
                &seen.stdout,
                fault_free.map(|run| &run.stdout),
            ),
            (
                "standard error",
                &self.stderr,
                &seen.stderr,
                fault_free.map(|run| &run.stderr),
            ),
        ];
        let text = texts
            .into_iter()
            .find_map(|(name, wanted, seen, fault_free)| {
                let wanted = wanted.bytes(fault_free.map(Vec::as_slice))?;
                differ(name, wanted, seen)
            });
        let status = (seen.status != self.status)
            .then(|| format!("exit status {} instead of {}", seen.status, self.status));
        let file = self.files.iter().find_map(|file| {
            let seen = seen.files.get(&file.path).and_then(Option::as_deref);
            let before = fault_free.map(|run| run.files.get(&file.path).and_then(Option::as_deref));
            let wanted = match (&file.content, before) {
                (Text::Exact(text), _) => Some(text.as_bytes()),
                (Text::Same, Some(before)) => before,
                (Text::Same, None) | (Text::Any, _) => return None,
            };
            match (seen, wanted) {
                (Some(seen), Some(wanted)) => differ(&file.path, wanted, seen),
                (None, Some(_)) => Some(format!("{} is missing", file.path)),
                (Some(_), None) => Some(format!("{} is there and must not", file.path)),
                (None, None) => None,
            }
        });
        text.or(status).or(file)
    }

    fn surfaced(&self, seen: &Observed) -> Option<Surfaced> {
        if seen.status == self.status {
            return None;
        }
        let stdout = String::from_utf8_lossy(&seen.stdout);
        let stderr = String::from_utf8_lossy(&seen.stderr);
        self.errors.iter().find_map(|&error| {
            let killed = error.0.signal && seen.status == 128 + error.0.number;
            let told = error
                .told(&stderr)
                .or_else(|| error.told(&stdout))
                .map(str::trim);
            let who = told.or(killed.then_some("the program was killed"))?;
            Some(Surfaced {
                error: error.name().into(),
                who: who.chars().take(200).collect(),
            })
        })
    }
}

impl Text {
    fn bytes<'a>(&'a self, fault_free: Option<&'a [u8]>) -> Option<&'a [u8]> {
        match self {
            Text::Exact(text) => Some(text.as_bytes()),
            Text::Same => fault_free,
            Text::Any => None,
        }
    }
}

/// Where two contents part, for a person.
fn differ(name: &str, wanted: &[u8], seen: &[u8]) -> Option<String> {
    if wanted == seen {
        return None;
    }
    let at = wanted.iter().zip(seen).take_while(|(a, b)| a == b).count();
    let sizes = format!("{} bytes instead of {}", seen.len(), wanted.len());
    let (Ok(wanted), Ok(seen)) = (str::from_utf8(wanted), str::from_utf8(seen)) else {
        return Some(format!("{name} differs from byte {at} on ({sizes})"));
    };
    let line = wanted.as_bytes()[..at]
        .iter()
        .filter(|&&byte| byte == b'\n')
        .count();
    let cut = |text: &str| -> String {
        let line = text.lines().nth(line).unwrap_or("");
        line.chars().take(120).collect()
    };
    Some(format!(
        "{name} differs in line {}: {:?} instead of {:?} ({sizes})",
        line + 1,
        cut(seen),
        cut(wanted)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expect() -> Expect {
        Expect {
            status: 0,
            again: false,
            stdout: Text::Exact("a\nb\n".into()),
            stderr: Text::Same,
            errors: ["EIO", "SIGBUS"]
                .iter()
                .filter_map(|n| Error::named(n))
                .collect(),
            files: vec![FileExpectation {
                path: "/work/out".into(),
                content: Text::Same,
            }],
        }
    }

    fn seen(status: u8, stdout: &str, file: Option<&[u8]>) -> Observed {
        Observed {
            status,
            stdout: stdout.into(),
            stderr: Vec::new(),
            files: [("/work/out".into(), file.map(<[u8]>::to_vec))].into(),
        }
    }

    #[test]
    fn what_holds_and_what_does_not() {
        let good = seen(0, "a\nb\n", Some(b"\xff\x01"));
        let verdict = |run: Observed| {
            let judgement = expect().judge(&run, Some(&good));
            (judgement.verdict, judgement.detail)
        };
        assert_eq!(verdict(good.clone()).0, Verdict::Ok);
        assert_eq!(expect().judge(&good, None).verdict, Verdict::Ok);
        let wrong = |run, what: &str| {
            let (verdict, detail) = verdict(run);
            assert_eq!(verdict, Verdict::WrongData);
            assert!(detail.contains(what), "{detail}");
        };
        wrong(
            seen(0, "a\nc\n", Some(b"\xff\x01")),
            "differs in line 2: \"c\" instead of \"b\"",
        );
        wrong(
            seen(3, "a\nb\n", Some(b"\xff\x01")),
            "exit status 3 instead of 0",
        );
        wrong(
            seen(0, "a\nb\n", Some(b"\xff\x02")),
            "/work/out differs from byte 1",
        );
        wrong(seen(0, "a\nb\n", None), "/work/out is missing");
        // An error that is not allowed, and one that is told although all went well.
        wrong(seen(1, "read: error 14\n", None), "standard output");
        wrong(seen(0, "read: error 5\n", None), "standard output");
        wrong(seen(1, "read: error 55\n", None), "standard output");
    }

    #[test]
    fn errors_surface_by_name_number_words_and_signal() {
        for output in [
            "d1: read: error 5",
            "cat: x: Input/output error",
            "read: EIO",
        ] {
            let judgement = expect().judge(&seen(1, output, None), None);
            assert_eq!(judgement.verdict, Verdict::ErrorSurfaced, "{output}");
            let surfaced = judgement.surfaced.unwrap();
            assert_eq!(
                (surfaced.error.as_str(), surfaced.who.as_str()),
                ("EIO", output)
            );
        }
        let judgement = expect().judge(&seen(128 + 7, "a\n", None), None);
        assert_eq!(judgement.surfaced.unwrap().error, "SIGBUS");
    }
}
