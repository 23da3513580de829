//! The failures that a test ordered on the kernel command line.

use abi::boot::CMDLINE_FAIL;
use abi::command_line::texts;
use alloc::string::String;
use alloc::vec::Vec;

use crate::load::Fault;
use crate::services::SERVICES;

/// What goes wrong with which service.
#[derive(Default)]
pub struct Mishaps<'a>(Vec<(&'a str, Mishap<'a>)>);

enum Mishap<'a> {
    /// A request that it fails at: the service knows which there are.
    Request(&'a str),
    /// A step of its exec.
    Exec(Fault),
}

impl<'a> Mishaps<'a> {
    /// Those of a command line; the word that makes no sense.
    pub fn of(command_line: &'a str) -> Result<Mishaps<'a>, &'a str> {
        let mut mishaps = Vec::new();
        for text in texts(command_line, CMDLINE_FAIL) {
            let (name, what) = text.split_once(':').ok_or(text)?;
            if !SERVICES.iter().any(|service| service.name == name) {
                return Err(text);
            }
            let mishap = match what.strip_prefix("exec:") {
                Some(step) => Mishap::Exec(Fault::parse(step).ok_or(text)?),
                None => Mishap::Request(what),
            };
            mishaps.push((name, mishap));
        }
        Ok(Mishaps(mishaps))
    }

    fn of_service(&self, name: &str) -> impl Iterator<Item = &Mishap<'a>> {
        let mishaps = self.0.iter().filter(move |(known, _)| *known == name);
        mishaps.map(|(_, mishap)| mishap)
    }

    /// The argument for a service.
    pub fn argument(&self, name: &str) -> Option<String> {
        self.of_service(name).find_map(|mishap| match mishap {
            Mishap::Request(what) => Some(alloc::format!("fail={what}")),
            Mishap::Exec(_) => None,
        })
    }

    /// The step of a service's exec that fails.
    pub fn exec(&self, name: &str) -> Option<Fault> {
        self.of_service(name).find_map(|mishap| match mishap {
            Mishap::Request(_) => None,
            Mishap::Exec(fault) => Some(*fault),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_name_a_service() {
        let line = "x absentia.fail=ext2:read:1:crash absentia.fail=tmpfs:peek:2:5 \
                    absentia.fail=proc:exec:7:12";
        let mishaps = Mishaps::of(line).ok().unwrap();
        assert_eq!(
            mishaps.argument("ext2").as_deref(),
            Some("fail=read:1:crash")
        );
        assert_eq!(mishaps.argument("tmpfs").as_deref(), Some("fail=peek:2:5"));
        assert_eq!(mishaps.argument("proc"), None);
        assert_eq!(mishaps.exec("proc"), Fault::parse("7:12"));
        assert_eq!(mishaps.exec("ext2"), None);
        let bad = Mishaps::of("absentia.fail=ext2:exec:1:crash").err();
        assert_eq!(bad, Some("ext2:exec:1:crash"));
        assert_eq!(Mishaps::of("absentia.fail=ext2").err(), Some("ext2"));
        assert_eq!(Mishaps::of("absentia.fail=ext3:x").err(), Some("ext3:x"));
    }
}
