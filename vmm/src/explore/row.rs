//! What one run of a campaign came to, as a line of JSON, and the words a fault is described
//! with. Names in files, tokens and reports are those of [`Named::name`].

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::inject::Target;
pub use abi::point::Side;

/// An enumeration whose variants have names that people write.
pub trait Named: Copy + PartialEq + 'static {
    /// What one of them is, for error messages.
    const WHAT: &'static str;
    /// All variants, in the order in which they are shown.
    const ALL: &'static [Self];

    /// Its name.
    fn name(self) -> &'static str;

    /// The variant of this name. The error lists the names.
    fn named(name: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|variant| variant.name() == name);
        found.copied().ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|variant| variant.name()).collect();
            format!("no {} {name:?}: expected {}", Self::WHAT, names.join(", "))
        })
    }
}

macro_rules! named {
    ($what:literal, $(#[$doc:meta])* $type:ident { $($(#[$vdoc:meta])* $variant:ident = $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $type { $($(#[$vdoc])* $variant,)* }

        impl Named for $type {
            const WHAT: &'static str = $what;
            const ALL: &'static [$type] = &[$($type::$variant,)*];
            fn name(self) -> &'static str {
                match self { $($type::$variant => $name,)* }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$type, D::Error> {
                let name = String::deserialize(deserializer)?;
                $type::named(&name).map_err(D::Error::custom)
            }
        }
    };
}

named! { "kind of point",
    /// What is about to happen at a point.
    PointKind {
        /// A copy between two processes.
        Copy = "copy",
        /// Memory of a process is filled.
        Fill = "fill",
        /// A process has faulted on a page.
        Fault = "fault",
        /// A message to or from VM.
        Request = "request",
        /// An entry of a grant table is read.
        Grant = "grant",
        /// A step of an exec.
        Exec = "exec",
        /// A server allocates memory.
        Alloc = "alloc",
    }
}

impl PointKind {
    /// Those at which pages are made absent: what is explored unless something else is said.
    pub const PAGES: [PointKind; 6] = [
        PointKind::Copy,
        PointKind::Fill,
        PointKind::Fault,
        PointKind::Request,
        PointKind::Grant,
        PointKind::Exec,
    ];
}

impl Named for Side {
    const WHAT: &'static str = "side";
    const ALL: &'static [Side] = &Side::ALL;
    fn name(self) -> &'static str {
        match self {
            Side::Source => "source",
            Side::Target => "target",
            Side::Range => "range",
            Side::Instruction => "instruction",
            Side::Data => "data",
            Side::Grant => "grant",
            Side::Allocation => "allocation",
        }
    }
}

named! { "layer",
    /// Where the page is made absent, or for how long an allocation is refused.
    Layer {
        /// In the guest's page table.
        Pte = "pte",
        /// Behind it: the frame leaves the machine's memory.
        Slot = "slot",
        /// It stays and cannot be written.
        ReadOnly = "read-only",
        /// This allocation alone is refused.
        Refused = "refused",
        /// Memory is used up from this allocation on.
        Exhausted = "exhausted",
    }
}

impl Layer {
    /// Those of pages.
    pub const PAGES: [Layer; 3] = [Layer::Pte, Layer::Slot, Layer::ReadOnly];
    /// Those of allocations.
    pub const REFUSALS: [Layer; 2] = [Layer::Refused, Layer::Exhausted];

    /// Whether it is about allocations, not about pages.
    pub fn refuses(self) -> bool {
        Layer::REFUSALS.contains(&self)
    }
}

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

/// When an absent page comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Give {
    /// When VM is asked for it.
    #[default]
    Asked,
    /// After VM was asked so many times.
    After(u32),
    /// After this many ns of the machine's clock.
    Later(u64),
    /// Never.
    Never,
}

/// Units of [`Give::Later`], in ns.
const UNITS: [(&str, u64); 4] = [
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

impl fmt::Display for Give {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Give::Asked => f.write_str("asked"),
            Give::After(asks) => write!(f, "{asks}"),
            Give::Later(ns) => {
                let whole = UNITS.iter().find(|(_, unit)| ns.is_multiple_of(*unit));
                let (name, unit) = whole.unwrap_or(&("ns", 1));
                write!(f, "{}{name}", ns / unit)
            }
            Give::Never => f.write_str("never"),
        }
    }
}

impl std::str::FromStr for Give {
    type Err = String;

    fn from_str(text: &str) -> Result<Give, String> {
        match text {
            "asked" => Ok(Give::Asked),
            "never" => Ok(Give::Never),
            _ => {
                let digits = text.bytes().take_while(u8::is_ascii_digit).count();
                let (number, unit) = text.split_at(digits);
                let unit = UNITS.iter().find(|(name, _)| *name == unit);
                let give = match (unit, unit.is_none() && digits < text.len()) {
                    (_, true) => None,
                    (None, _) => number.parse().ok().map(Give::After),
                    (Some((_, unit)), _) => {
                        let ns = number.parse().ok().and_then(|n: u64| n.checked_mul(*unit));
                        ns.map(Give::Later)
                    }
                };
                give.filter(|give| !matches!(give, Give::After(0) | Give::Later(0)))
                    .ok_or_else(|| {
                        format!(
                            "a page comes back when asked, never, after a number of asks (3) or \
                             after a time (50us, 2ms), at least one, not {text:?}"
                        )
                    })
            }
        }
    }
}

impl Serialize for Target {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Target, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

impl Serialize for Give {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Give {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Give, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
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
