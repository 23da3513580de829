//! The options of a tmpfs in mount(2)'s text: `size=1m,mode=700`.

use crate::{Errno, Limits, PAGE, Result};

/// What a text asks for; nothing of what it does not name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// `size` or `nr_blocks`, bytes.
    pub size: Option<u64>,
    /// `nr_inodes`.
    pub nodes: Option<u64>,
    /// `mode`: permissions of the root.
    pub mode: Option<u32>,
    /// `uid`: owner of the root.
    pub uid: Option<u32>,
    /// `gid`: group of the root.
    pub gid: Option<u32>,
}

impl Options {
    /// What `text` says on a machine with `memory` bytes. `EINVAL` for what there is not. As on
    /// Linux 0 is no limit, which here is all of memory.
    pub fn parse(text: &[u8], memory: u64) -> Result<Options> {
        let text = core::str::from_utf8(text).map_err(|_| Errno::EINVAL)?;
        let mut options = Options::default();
        for word in text.split(',').filter(|word| !word.is_empty()) {
            let (name, value) = word.split_once('=').ok_or(Errno::EINVAL)?;
            let unlimited = |n: u64, all: u64| if n == 0 { all } else { n };
            match name {
                "size" => {
                    let size = match value.strip_suffix('%') {
                        Some(part) => memory / 100 * decimal(part)?.min(100),
                        None => amount(value)?,
                    };
                    options.size = Some(unlimited(size, memory));
                }
                "nr_blocks" => {
                    let size = amount(value)?.saturating_mul(PAGE as u64);
                    options.size = Some(unlimited(size, memory));
                }
                "nr_inodes" => options.nodes = Some(unlimited(amount(value)?, memory / 1024)),
                "mode" => {
                    let mode = u32::from_str_radix(value, 8).map_err(|_| Errno::EINVAL)?;
                    options.mode = Some(mode & 0o7777);
                }
                "uid" => options.uid = Some(id(value)?),
                "gid" => options.gid = Some(id(value)?),
                _ => return Err(Errno::EINVAL),
            }
        }
        Ok(options)
    }

    /// The limits with these in the place of `old`. As on Linux the number of inodes does not
    /// follow from the size.
    pub fn limits(&self, old: Limits) -> Limits {
        Limits {
            pages: self.size.map_or(old.pages, |size| size / PAGE as u64),
            nodes: self.nodes.unwrap_or(old.nodes),
            // What is named is meant.
            reserve: self.nodes.map_or(old.reserve, |_| 0),
        }
    }
}

fn decimal(text: &str) -> Result<u64> {
    text.parse().map_err(|_| Errno::EINVAL)
}

fn id(text: &str) -> Result<u32> {
    // -1 is nobody's.
    let id = text.parse().map_err(|_| Errno::EINVAL)?;
    if id == u32::MAX {
        return Err(Errno::EINVAL);
    }
    Ok(id)
}

/// A number as Linux's `memparse` reads it.
fn amount(text: &str) -> Result<u64> {
    abi::number::parse(text).ok_or(Errno::EINVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMORY: u64 = 64 << 20;

    #[test]
    fn options_are_linux_s() {
        let parse = |text: &str| Options::parse(text.as_bytes(), MEMORY);
        assert_eq!(parse(""), Ok(Options::default()));
        let all = parse("size=1m,nr_inodes=2k,mode=0700,uid=5,gid=6").unwrap();
        assert_eq!((all.size, all.nodes), (Some(1 << 20), Some(2048)));
        assert_eq!(
            (all.mode, all.uid, all.gid),
            (Some(0o700), Some(5), Some(6))
        );
        assert_eq!(parse("size=50%").unwrap().size, Some(MEMORY / 100 * 50));
        assert_eq!(parse("size=0").unwrap().size, Some(MEMORY));
        assert_eq!(parse("nr_blocks=3").unwrap().size, Some(3 * PAGE as u64));
        for bad in [
            "size",
            "size=",
            "size=x",
            "size=1t",
            "size=99999999999g",
            "mode=9",
            "uid=-1",
            "uid=4294967295",
            "colour=red",
            "huge=always",
        ] {
            assert_eq!(parse(bad), Err(Errno::EINVAL), "{bad}");
        }
        assert_eq!(Options::parse(&[0xff], MEMORY), Err(Errno::EINVAL));
    }
}
