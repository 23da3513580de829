//! Names of points, which mean the same in another build: `KIND/PROCESS/CALL/FILE/ORDINAL`.
//!
//! `copy/vfs/read/data.bin/2` is the second copy that `vfs` makes for a `read` of `data.bin` after
//! the program's start. An empty part matches anything, `-` what is not known or not there.
//! Letters, digits, `-`, `_` and (in files) `.` stand for themselves, anything else is written as
//! in URLs (`%2F`).

use std::fmt;
use std::str::FromStr;

use super::terms::{Named, PointKind};

/// What is known of a point without its number.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct About {
    /// What is about to happen.
    pub kind: PointKind,
    /// Who acts.
    pub actor: String,
    /// The Linux call that it is for; of a request the message, of an exec its stage.
    pub call: Option<String>,
    /// The file that it is for, without a path.
    pub file: Option<String>,
}

/// A part of a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// It matches anything.
    Any,
    /// It matches what is not known.
    Unknown,
    /// It matches this.
    Is(String),
}

/// A name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PointName {
    /// The kind; `None` matches any.
    pub kind: Option<PointKind>,
    /// The acting process.
    pub actor: Part,
    /// See [`About::call`].
    pub call: Part,
    /// See [`About::file`].
    pub file: Part,
    /// Which of those that match, from 1; `None` where there is only one.
    pub ordinal: Option<u64>,
}

/// Where a fault is: a number, which holds for one build, or a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// Number of the point.
    Number(u64),
    /// Its name.
    Name(PointName),
}

/// How plans say where a fault is.
pub trait Point: Sized {
    /// Reads it; the error says what is wrong.
    fn read(text: &str) -> Result<Self, String>;
}

impl Point for u64 {
    fn read(text: &str) -> Result<u64, String> {
        let number = text.parse();
        number.map_err(|_| format!("{text:?} is no number of a point"))
    }
}

impl Point for Place {
    fn read(text: &str) -> Result<Place, String> {
        if text.contains('/') {
            return text.parse().map(Place::Name);
        }
        u64::read(text)
            .map(Place::Number)
            .map_err(|error| format!("{error}, nor its name ({FORM})"))
    }
}

const FORM: &str = "KIND/PROCESS/CALL/FILE/ORDINAL";

/// Splits a fault into its point and the rest behind the dot that ends it.
pub fn split(text: &str) -> (&str, Option<&str>) {
    // A file's name may have dots: of a name the last part ends at one.
    let slashes: Vec<usize> = text.match_indices('/').map(|(at, _)| at).collect();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let is_number = digits > 0 && matches!(text.as_bytes().get(digits), None | Some(b'.'));
    let from = match slashes.get(3) {
        Some(&at) if !is_number => at,
        _ => 0,
    };
    match text[from..].find('.') {
        Some(dot) => (&text[..from + dot], Some(&text[from + dot + 1..])),
        None => (text, None),
    }
}

/// Writes what would be read as something else in hexadecimal.
pub fn quote(text: &str, also: &[u8]) -> String {
    let mut quoted = String::new();
    for &byte in text.as_bytes() {
        if byte.is_ascii_alphanumeric() || b"-_".contains(&byte) || also.contains(&byte) {
            quoted.push(char::from(byte));
        } else {
            quoted += &format!("%{byte:02X}");
        }
    }
    quoted
}

/// What [`quote`] wrote.
pub fn unquote(text: &str) -> Result<String, String> {
    let wrong = || format!("{text:?} is no name: what is no letter or digit is written as %2F");
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = rest
            .get(..2)
            .filter(|d| d.iter().all(u8::is_ascii_hexdigit));
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        let number = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(number.ok_or_else(wrong)?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

impl Part {
    fn of(text: Option<&str>) -> Part {
        text.map_or(Part::Unknown, |text| Part::Is(text.into()))
    }

    fn read(text: &str) -> Result<Part, String> {
        Ok(match text {
            "" => Part::Any,
            "-" => Part::Unknown,
            text => Part::Is(unquote(text)?),
        })
    }

    /// Whether it matches.
    pub fn matches(&self, text: Option<&str>) -> bool {
        match self {
            Part::Any => true,
            Part::Unknown => text.is_none(),
            Part::Is(wanted) => text == Some(wanted),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Any => Ok(()),
            Part::Unknown => f.write_str("-"),
            Part::Is(text) if text == "-" => f.write_str("%2D"),
            Part::Is(text) => f.write_str(&quote(text, b".")),
        }
    }
}

impl PointName {
    /// The name of the point that is number `ordinal` of those of which this is known.
    pub fn of(about: &About, ordinal: u64) -> PointName {
        PointName {
            kind: Some(about.kind),
            actor: Part::of(Some(&about.actor)),
            call: Part::of(about.call.as_deref()),
            file: Part::of(about.file.as_deref()),
            ordinal: Some(ordinal),
        }
    }

    /// Whether it matches, whatever its ordinal.
    pub fn matches(&self, about: &About) -> bool {
        self.agreement(about) == 4
    }

    /// How many of the four parts match.
    pub fn agreement(&self, about: &About) -> u32 {
        let kind = self.kind.is_none_or(|kind| kind == about.kind);
        let actor = self.actor.matches(Some(&about.actor));
        let call = self.call.matches(about.call.as_deref());
        let file = self.file.matches(about.file.as_deref());
        [kind, actor, call, file].into_iter().map(u32::from).sum()
    }
}

impl fmt::Display for PointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind.map_or("", PointKind::name);
        write!(f, "{kind}/{}/{}/{}/", self.actor, self.call, self.file)?;
        self.ordinal
            .map_or(Ok(()), |ordinal| write!(f, "{ordinal}"))
    }
}

impl FromStr for PointName {
    type Err = String;

    fn from_str(text: &str) -> Result<PointName, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let [kind, actor, call, file, ordinal] = parts[..] else {
            return Err(format!("{text:?} is no name of a point: one is {FORM}"));
        };
        let kind = match kind {
            "" => None,
            kind => Some(PointKind::named(kind)?),
        };
        let ordinal = match ordinal {
            "" => None,
            ordinal => match ordinal.parse() {
                Ok(number @ 1..) => Some(number),
                _ => return Err(format!("{ordinal:?} is no ordinal: they count from 1")),
            },
        };
        Ok(PointName {
            kind,
            actor: Part::read(actor)?,
            call: Part::read(call)?,
            file: Part::read(file)?,
            ordinal,
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Number(number) => write!(f, "{number}"),
            Place::Name(name) => write!(f, "{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_match() {
        let about = About {
            kind: PointKind::Copy,
            actor: "vfs".into(),
            call: Some("read".into()),
            file: None,
        };
        let matches = |name: &str| name.parse::<PointName>().unwrap().matches(&about);
        for name in ["copy/vfs/read/-/1", "////", "/vfs///9", "copy//read//"] {
            assert!(matches(name), "{name}");
        }
        for name in [
            "fill/vfs/read/-/1",
            "/pm///",
            "//write//",
            "//-//",
            "///data/",
        ] {
            assert!(!matches(name), "{name}");
        }
        assert_eq!(PointName::of(&about, 3).to_string(), "copy/vfs/read/-/3");
    }

    #[test]
    fn points_end_at_their_dot() {
        for (text, point, rest) in [
            ("412.t0.pte", "412", Some("t0.pte")),
            ("412.v/a:1000.pte", "412", Some("v/a:1000.pte")),
            ("copy/a/b/c.d/2.t0.pte", "copy/a/b/c.d/2", Some("t0.pte")),
            (
                "copy/a/b/c.d/.v/x:0.pte",
                "copy/a/b/c.d/",
                Some("v/x:0.pte"),
            ),
            ("412", "412", None),
            ("copy/a", "copy/a", None),
            ("", "", None),
        ] {
            assert_eq!(split(text), (point, rest), "{text}");
        }
    }

    #[test]
    fn names_that_are_none_say_why() {
        for (text, what) in [
            ("copy/vfs", "is no name of a point"),
            ("move/vfs///", "kind of point"),
            ("copy/%zz///", "%2F"),
            ("copy/a%2///", "%2F"),
            ("copy/%ff///", "%2F"),
            ("copy////0", "ordinal"),
            ("copy////x", "ordinal"),
        ] {
            let error = text.parse::<PointName>().unwrap_err();
            assert!(error.contains(what), "{text}: {error}");
        }
    }
}
