//! The failures that a test ordered on the kernel command line.

use abi::boot::CMDLINE_FAIL;
use alloc::string::String;
use alloc::vec::Vec;

use crate::services::SERVICES;

/// Arguments for services, by the service's name.
#[derive(Default)]
pub struct Mishaps<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Mishaps<'a> {
    /// Those of a command line; the word that names no service.
    pub fn of(command_line: &'a str) -> Result<Mishaps<'a>, &'a str> {
        let words = command_line.split_ascii_whitespace();
        let mut mishaps = Vec::new();
        for text in words.filter_map(|word| word.strip_prefix(CMDLINE_FAIL)) {
            let (name, what) = text.split_once(':').ok_or(text)?;
            if !SERVICES.iter().any(|service| service.name == name) {
                return Err(text);
            }
            mishaps.push((name, what));
        }
        Ok(Mishaps(mishaps))
    }

    /// The argument for a service.
    pub fn argument(&self, name: &str) -> Option<String> {
        let (_, what) = self.0.iter().find(|(known, _)| *known == name)?;
        Some(alloc::format!("fail={what}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_name_a_service() {
        let line = "x absentia.fail=ext2:read:1:crash absentia.fail=tmpfs:peek:2:5";
        let mishaps = Mishaps::of(line).ok().unwrap();
        assert_eq!(
            mishaps.argument("ext2").as_deref(),
            Some("fail=read:1:crash")
        );
        assert_eq!(mishaps.argument("tmpfs").as_deref(), Some("fail=peek:2:5"));
        assert_eq!(mishaps.argument("proc"), None);
        assert_eq!(Mishaps::of("absentia.fail=ext2").err(), Some("ext2"));
        assert_eq!(Mishaps::of("absentia.fail=ext3:x").err(), Some("ext3:x"));
    }
}
