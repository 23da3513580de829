//! Which page a fault is about: one of the point's sides, a page of a process, or a frame.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::name::{quote, unquote};
use super::terms::Side;

/// The page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// Page of a side of the point, from 0.
    Side(Side, u32),
    /// A guest-physical page, by number.
    Frame(u64),
    /// The page at this address of a process.
    Page(Who, u64),
}

/// A process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Who {
    /// The one of this name.
    Name(ProcessName),
    /// The one in this slot of the kernel's table.
    Slot(u32),
}

/// A process's name as the kernel keeps it: UTF-8, zero padded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessName([u8; 16]);

impl ProcessName {
    /// The name, unless it is too long or empty.
    pub fn new(name: &str) -> Option<ProcessName> {
        let fits = (1..=16).contains(&name.len()) && !name.contains('\0');
        fits.then(|| {
            let mut bytes = [0; 16];
            bytes[..name.len()].copy_from_slice(name.as_bytes());
            ProcessName(bytes)
        })
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        let len = self.0.iter().position(|&byte| byte == 0);
        // Made from a text.
        std::str::from_utf8(&self.0[..len.unwrap_or(16)]).unwrap_or_default()
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Who::Name(name) => f.write_str(&quote(name.as_str(), b"")),
            Who::Slot(slot) => write!(f, "#{slot}"),
        }
    }
}

impl FromStr for Who {
    type Err = String;

    fn from_str(text: &str) -> Result<Who, String> {
        if let Some(slot) = text.strip_prefix('#') {
            let slot = slot.parse().map(Who::Slot);
            return slot.map_err(|_| format!("{text:?} is no slot of a process"));
        }
        let name = unquote(text)?;
        let name = ProcessName::new(&name);
        name.map(Who::Name)
            .ok_or_else(|| format!("{text:?} is no name of a process: those have 1 to 16 bytes"))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Side(side, page) => write!(f, "{}{page}", char::from(side.letter())),
            Target::Frame(frame) => write!(f, "p{frame:x}"),
            Target::Page(who, address) => write!(f, "v/{who}:{address:x}"),
        }
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Target, String> {
        let hex = |digits: &str, what: &str| {
            u64::from_str_radix(digits, 16)
                .ok()
                .filter(|_| !digits.starts_with('+'))
                .ok_or_else(|| format!("{digits:?} is no {what} in hexadecimal digits"))
        };
        if let Some(page) = text.strip_prefix("v/") {
            let parts = page.split_once(':');
            let (who, address) =
                parts.ok_or_else(|| format!("{text:?} is no v/PROCESS:ADDRESS"))?;
            let address = hex(address, "address")?;
            return Ok(Target::Page(who.parse()?, abi::page_down(address)));
        }
        let letter = text.chars().next().unwrap_or_default();
        let rest = &text[letter.len_utf8().min(text.len())..];
        if letter == 'p' {
            return hex(rest, "number of a frame").map(Target::Frame);
        }
        let side = Side::ALL
            .iter()
            .find(|side| char::from(side.letter()) == letter);
        let &side = side.ok_or_else(|| {
            let sides = Side::ALL
                .iter()
                .map(|side| char::from(side.letter()).to_string());
            let sides: Vec<String> = sides.collect();
            format!(
                "{letter:?} is no side ({}, p for a frame, v/PROCESS:ADDRESS)",
                sides.join(", ")
            )
        })?;
        let page = rest
            .parse()
            .map_err(|_| format!("{rest:?} is no number of a page"))?;
        Ok(Target::Side(side, page))
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
