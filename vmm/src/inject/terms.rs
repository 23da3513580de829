//! The words a fault is described with. Names in files, tokens and reports are those of [`Named::name`].

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

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

/// Declares an enumeration whose variants have names, which is written and read as these names.
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

pub(crate) use named;

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
