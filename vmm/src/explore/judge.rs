//! What a run came to, compared with the run in which nothing was absent.

use std::collections::BTreeMap;

use super::accounts::{self, Run};
use super::expect::{Expect, Observed};
use super::row::{Give, Layer, Surfaced, Verdict};
use super::run::{Ended, Finish};
use crate::ending::DIED;
use crate::inject::Fault;
use crate::lab::disk::Node;

/// The run without a fault, as far as others are compared with it.
#[derive(Clone, Debug)]
pub struct Reference {
    /// What the program left.
    pub observed: Observed,
    /// The disk.
    pub tree: BTreeMap<String, Node>,
    /// What the system still held.
    pub accounts: String,
    /// What programs were told of memory that ran out.
    pub told: Vec<Surfaced>,
}

/// A verdict with its words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// It.
    pub verdict: Verdict,
    /// Which error, with [`Verdict::ErrorSurfaced`].
    pub surfaced: Option<Surfaced>,
    /// What differs, or what was last said.
    pub detail: String,
    /// Who waits for whom, as text and as a drawing.
    pub cycle: (String, String),
}

impl Judged {
    fn new(verdict: Verdict, detail: impl Into<String>) -> Judged {
        Judged {
            verdict,
            surfaced: None,
            detail: detail.into(),
            cycle: Default::default(),
        }
    }
}

/// Judges the run without a fault by itself; what others are compared with, if it is as it must
/// be.
pub fn reference(expect: &Expect, ended: &Ended) -> Result<Reference, Box<Judged>> {
    let judged = judge(expect, None, ended, &[]);
    match &ended.finish {
        Finish::Off { observed, tree } if judged.verdict == Verdict::Ok => Ok(Reference {
            observed: observed.clone(),
            tree: tree.clone(),
            accounts: ended.accounts.clone(),
            told: ended.told.clone(),
        }),
        _ => Err(Box::new(judged)),
    }
}

/// Judges a run.
pub fn judge(
    expect: &Expect,
    reference: Option<&Reference>,
    ended: &Ended,
    faults: &[Fault],
) -> Judged {
    match &ended.finish {
        Finish::Off { observed, tree } => off(expect, reference, ended, faults, (observed, tree)),
        Finish::Stuck {
            text,
            picture,
            circle,
        } => {
            let what = if *circle {
                "nobody can run: they wait for each other in a circle"
            } else {
                "nobody can run, and nothing will wake anybody"
            };
            Judged {
                cycle: (text.clone(), picture.clone()),
                ..Judged::new(Verdict::Deadlock, what)
            }
        }
        Finish::Endless => Judged::new(
            Verdict::Livelock,
            "it passed many more points than the run without a fault, and did not end",
        ),
        Finish::Hang => Judged::new(Verdict::Hang, "it did not end in time"),
        Finish::Died(what) => died(what, &ended.log),
    }
}

fn off(
    expect: &Expect,
    reference: Option<&Reference>,
    ended: &Ended,
    faults: &[Fault],
    (observed, tree): (&Observed, &BTreeMap<String, Node>),
) -> Judged {
    if let Some(line) = ended.log.iter().find(|line| line.contains(": panic: ")) {
        // Of a server that the machine can do without.
        return Judged::new(Verdict::ServerCrash, line.clone());
    }
    let judgement = expect.judge(observed, reference.map(|r| &r.observed));
    // An error is an answer only to a page that does not come back.
    let stays = |fault: &Fault| matches!(fault.give, Give::After(_) | Give::Never);
    let allowed = faults.iter().any(stays);
    let refused = faults.iter().any(|fault| fault.layer.refuses());
    // Who tries again must get everything right; who has been killed cannot.
    let once = expect.again && faults.iter().all(|fault| fault.layer == Layer::Refused);
    let told = match refused {
        true => news(&ended.told, reference.map_or(&[], |r| &r.told)),
        false => None,
    };
    let told = told.filter(|told| !once || told.error == "SIGKILL");
    if let Some(told) = told {
        // What the program made of it is its own affair, what is left over is not.
        let before = reference.map_or("", |reference| &reference.accounts);
        let run = match judgement.verdict {
            Verdict::Ok => Run::Refusal,
            _ => Run::CutShort,
        };
        return match unsound(ended, before, run) {
            Some(judged) => judged,
            None if judgement.verdict == Verdict::Ok => Judged::new(Verdict::Ok, ""),
            None => Judged {
                surfaced: Some(told.clone()),
                ..Judged::new(Verdict::ErrorSurfaced, judgement.detail)
            },
        };
    }
    if judgement.verdict == Verdict::ErrorSurfaced && allowed {
        return Judged {
            surfaced: judgement.surfaced,
            ..Judged::new(Verdict::ErrorSurfaced, judgement.detail)
        };
    }
    if judgement.verdict != Verdict::Ok {
        return Judged::new(Verdict::WrongData, judgement.detail);
    }
    let Some(reference) = reference else {
        return Judged::new(Verdict::Ok, "");
    };
    if let Some(what) = difference(&reference.tree, tree) {
        return Judged::new(Verdict::WrongData, format!("the disk: {what}"));
    }
    let run = if refused { Run::Refusal } else { Run::Absence };
    unsound(ended, &reference.accounts, run).unwrap_or_else(|| Judged::new(Verdict::Ok, ""))
}

/// The first thing that programs were told and are not told without a fault.
fn news<'a>(told: &'a [Surfaced], without: &[Surfaced]) -> Option<&'a Surfaced> {
    let mut without: Vec<_> = without.iter().collect();
    told.iter().find(|told| {
        let known = without.iter().position(|known| known == told);
        known.map(|known| without.swap_remove(known)).is_none()
    })
}

/// What is wrong with how the machine ended, whatever its program did.
fn unsound(ended: &Ended, before: &str, run: Run) -> Option<Judged> {
    if let Some(line) = ended.log.iter().find(|line| line.contains("did not sync")) {
        return Some(Judged::new(Verdict::Deadlock, line.clone()));
    }
    let leaked = accounts::leaks(&ended.accounts, before, run)?;
    Some(Judged::new(Verdict::Leak, leaked))
}

/// The first name for which two disks differ.
fn difference(wanted: &BTreeMap<String, Node>, seen: &BTreeMap<String, Node>) -> Option<String> {
    let missing = wanted.keys().find(|path| !seen.contains_key(*path));
    if let Some(path) = missing {
        return Some(format!("{path} is missing"));
    }
    seen.iter().find_map(|(path, node)| match wanted.get(path) {
        None => Some(format!("{path} is there and must not")),
        Some(other) if other != node => Some(format!("{path} is {node:?} instead of {other:?}")),
        Some(_) => None,
    })
}

/// Whose death it was, from the last words.
fn died(what: &str, log: &[String]) -> Judged {
    let last = |word: &str| log.iter().rev().find(|line| line.contains(word));
    let kernel = last("kernel: ");
    let words = kernel
        .or_else(|| last("panic"))
        .or_else(|| last("died"))
        .or_else(|| last("dead"));
    let verdict = match (kernel, what.starts_with(DIED)) {
        (None, true) => Verdict::ServerCrash,
        _ => Verdict::KernelCrash,
    };
    Judged::new(verdict, words.map_or(what, String::as_str))
}
