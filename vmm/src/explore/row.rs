//! What one run of a campaign came to, as a line of JSON. Names in files, tokens and reports are those of
//! [`Named::name`].

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::inject::Target;
use crate::inject::terms::named;

pub use crate::inject::terms::{Give, Layer, Named, PointKind, Side};

named! { "verdict",
    /// What a run came to, the worse the later.
    Verdict {
        /// All that the scenario demands holds.
        Ok = "ok",
        /// The program was told of an error that the scenario allows.
        ErrorSurfaced = "error surfaced",
        /// Output, status or a file is not what it has to be.
        WrongData = "wrong data",
        /// Memory, descriptors or requests are left over.
        Leak = "leak",
        /// The time is over and it is not known why.
        Hang = "hang",
        /// Somebody runs for ever without getting anywhere.
        Livelock = "livelock",
        /// Nobody can run and nothing will change that.
        Deadlock = "deadlock",
        /// A server died.
        ServerCrash = "server crash",
        /// The kernel died.
        KernelCrash = "kernel crash",
    }
}

impl Verdict {
    /// Whether the system did something that it must not.
    pub fn is_violation(self) -> bool {
        self > Verdict::ErrorSurfaced
    }
}

/// An error that a program was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Surfaced {
    /// Its name, as `EIO`, or a signal's, as `SIGBUS`.
    pub error: String,
    /// Who said so, and in which words.
    pub who: String,
}

/// Where in the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// Its number in the fault-free run.
    pub number: u64,
    /// What kind of point.
    pub kind: PointKind,
    /// Name of the process that acts.
    pub actor: String,
    /// What is about to happen, as "ext2 copies 4096 bytes to d1-read at 0x7f0000".
    pub what: String,
    /// Its name ([`crate::inject::PointName`]), which holds in other builds, too.
    #[serde(default)]
    pub name: String,
}

/// What is done there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Where.
    pub point: Point,
    /// Which page, as in a token.
    pub target: Target,
    /// Where it is made absent.
    pub layer: Layer,
    /// When it comes back.
    #[serde(default)]
    pub give: Give,
}

impl Fault {
    /// Point, side, page and layer in a few words.
    pub fn describe(&self) -> String {
        let number = self.point.number;
        let which = match self.target {
            Target::Frame(frame) => format!("the guest's page {frame:#x}"),
            Target::Page(who, address) => format!("page {address:#x} of {who}"),
            Target::Side(side, page) => {
                let page = page + 1;
                match side {
                    Side::Source => format!("page {page} of the source"),
                    Side::Target => format!("page {page} of the target"),
                    Side::Range if self.point.kind == PointKind::Exec => {
                        format!("page {page} of what the step is about")
                    }
                    Side::Range => format!("page {page} of the range to repair"),
                    Side::Instruction => "the page of the faulting instruction".into(),
                    Side::Data => "the page of the faulting access".into(),
                    Side::Grant => "the page of the grant table".into(),
                    Side::Allocation => "the allocation".into(),
                }
            }
        };
        let goes = match self.layer {
            Layer::Pte => "is taken out of the page table",
            Layer::Slot => "leaves the machine's memory",
            Layer::ReadOnly => "becomes read-only",
            Layer::Refused => "is refused",
            Layer::Exhausted => "is refused, and memory is used up from there on",
        };
        let back = match self.give {
            Give::Asked => String::new(),
            Give::After(asks) => format!("; it comes back when VM was asked {asks} times"),
            give @ Give::Later(_) => format!("; it comes back {give} later"),
            Give::Never => "; it never comes back".into(),
        };
        format!("before point {number}, {which} {goes}{back}")
    }
}

/// One run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// What replays it.
    pub token: String,
    /// The same with points by name; empty where there are none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub portable: String,
    /// The scenario's name.
    pub scenario: String,
    /// The copy policy's name.
    pub policy: String,
    /// What executed the guest.
    pub platform: String,
    /// What was done; nothing where only the schedule was changed.
    pub faults: Vec<Fault>,
    /// How decisions were made, as in the token.
    pub schedule: String,
    /// What it came to.
    pub verdict: Verdict,
    /// With [`Verdict::ErrorSurfaced`]: which error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub surfaced: Option<Surfaced>,
    /// More words; what differs, what a server last said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// Who waits for whom, with [`Verdict::Deadlock`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cycle: String,
    /// The same as an SVG drawing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub picture: String,
    /// Copies that were tried again.
    pub retries: u64,
    /// Wall time, microseconds.
    pub micros: u64,
}

impl Row {
    /// The kind of its first fault's point.
    pub fn kind(&self) -> Option<PointKind> {
        self.faults.first().map(|fault| fault.point.kind)
    }

    /// What was done, without the policy: the same under two policies where their points are the
    /// same. They need not be, for a copy that is tried again passes more of them.
    pub fn experiment(&self) -> String {
        let rest = self.token.strip_prefix(&self.scenario);
        let rest = rest.and_then(|rest| rest.strip_prefix('@'));
        let rest = rest.and_then(|rest| rest.strip_prefix(self.policy.as_str()));
        let mut text = format!("{}@{}", self.scenario, rest.unwrap_or(&self.token));
        for fault in &self.faults {
            text += &format!(" {} {}", fault.point.kind, fault.point.what);
        }
        text
    }
}

/// A 64-bit hash; a string of hexadecimal digits in files, since JSON's readers lose bits of
/// large numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Hash(pub u64);

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Hash, D::Error> {
        let text = String::deserialize(deserializer)?;
        u64::from_str_radix(&text, 16)
            .map(Hash)
            .map_err(|_| D::Error::custom(format!("not a hash in hexadecimal digits: {text:?}")))
    }
}

/// The run without a fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    /// Of exit status, output and files.
    pub output: Hash,
    /// Of all trace records.
    pub records: Hash,
    /// Points passed.
    pub points: u64,
    /// Exit status as a shell sees it.
    pub status: u8,
    /// Standard output, cut to something a person reads.
    pub stdout: String,
}

/// What stands before the rows of one scenario under one policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The scenario's name.
    pub scenario: String,
    /// Its description.
    pub description: String,
    /// The copy policy's name.
    pub policy: String,
    /// What executed the guest.
    pub platform: String,
    /// Which binary: rows of different builds do not mix.
    pub build: String,
    /// The run without a fault.
    pub baseline: Baseline,
    /// Runs of the whole campaign, over all shards; 0 when it is not known.
    pub runs: u64,
}

/// A line of a campaign's file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Line {
    /// A campaign over a scenario begins or goes on.
    Header(Header),
    /// One run.
    Row(Box<Row>),
}

#[cfg(test)]
#[allow(missing_docs)]
pub mod tests {
    use super::*;

    /// A row of `d1-read`.
    pub fn row(policy: &str, number: u64, side: Side, page: u32, verdict: Verdict) -> Row {
        let letter = char::from(side.letter());
        Row {
            token: format!("d1-read@{policy}+{number}.{letter}{page}.pte~first"),
            portable: String::new(),
            scenario: "d1-read".into(),
            policy: policy.into(),
            platform: "kvm".into(),
            faults: vec![Fault {
                point: Point {
                    number,
                    kind: PointKind::Copy,
                    actor: "ext2".into(),
                    what: format!(
                        "ext2 copies 4096 bytes to d1-read at {:#x}, file /work/c3",
                        0x7f00_0000_0000 + number * 4096
                    ),
                    name: format!("copy/ext2/read/c3/{number}"),
                },
                target: Target::Side(side, page),
                layer: Layer::Pte,
                give: Give::Asked,
            }],
            schedule: "first".into(),
            verdict,
            surfaced: None,
            detail: String::new(),
            cycle: String::new(),
            picture: String::new(),
            retries: 1,
            micros: 2300,
        }
    }

    #[test]
    fn rows_survive_their_files() {
        let mut one = row("transparent", 412, Side::Target, 0, Verdict::Deadlock);
        one.cycle = "  ext2 waits for vm: \"quoted\"\n".into();
        one.faults[0].give = Give::After(3);
        let mut other = row("try", 412, Side::Source, 1, Verdict::ErrorSurfaced);
        other.surfaced = Some(Surfaced {
            error: "EIO".into(),
            who: "read: errno 5".into(),
        });
        for row in [one, other] {
            let line = Line::Row(Box::new(row));
            let text = serde_json::to_string(&line).unwrap();
            assert!(!text.contains('\n'), "{text}");
            assert_eq!(serde_json::from_str::<Line>(&text).unwrap(), line);
        }
    }

    #[test]
    fn unknown_words_are_refused_with_the_known_ones() {
        let text = serde_json::to_string(&row("try", 1, Side::Source, 0, Verdict::Ok)).unwrap();
        let error = serde_json::from_str::<Row>(&text.replace("\"ok\"", "\"fine\""));
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("no verdict \"fine\": expected ok, error surfaced"),
            "{error}"
        );
        assert!("sometimes".parse::<Give>().is_err());
        assert!(serde_json::from_str::<Hash>("\"xyz\"").is_err());
        assert_eq!(
            serde_json::from_str::<Hash>("\"00000000000000ff\"").unwrap(),
            Hash(255)
        );
    }

    #[test]
    fn an_experiment_is_the_same_under_every_policy() {
        let a = row("try", 5, Side::Target, 0, Verdict::Ok);
        let b = row("transparent", 5, Side::Target, 0, Verdict::Deadlock);
        assert_eq!(a.experiment(), b.experiment());
        assert!(
            a.experiment()
                .starts_with("d1-read@+5.t0.pte~first copy ext2")
        );
        let mut other = b.clone();
        other.faults[0].point.what = "vfs asks vm".into();
        assert_ne!(a.experiment(), other.experiment());
        assert!(b.verdict.is_violation() && !a.verdict.is_violation());
    }
}
