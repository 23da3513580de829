//! Guest RAM: one memfd, mapped once, from guest-physical address 0.

pub mod footprint;

use std::fs::File;

use anyhow::{Context, Result, ensure};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap};

/// Guest memory as every device sees it.
pub type Ram = GuestMemoryMmap<()>;

/// Smallest guest that is accepted, bytes.
pub const MINIMUM: u64 = 16 << 20;
/// RAM ends below the hole in which devices and interrupt controllers live.
pub const MAXIMUM: u64 = 3 << 30;
/// What `--mem` is when it is not given.
pub const DEFAULT: u64 = 128 << 20;

/// The memfd and its mapping.
#[derive(Debug)]
pub struct GuestRam {
    /// Access to guest-physical memory, checked.
    pub map: Ram,
    /// Bytes of RAM.
    pub size: u64,
}

impl GuestRam {
    /// Allocates `size` bytes of zeroed guest RAM. Pages take host memory when first used.
    pub fn new(size: u64) -> Result<GuestRam> {
        ensure!(
            (MINIMUM..=MAXIMUM).contains(&size) && size.is_multiple_of(abi::PAGE),
            "guest memory of {} KiB: it must be whole pages, at least {} MiB and at most {} MiB",
            size >> 10,
            MINIMUM >> 20,
            MAXIMUM >> 20,
        );
        let fd =
            memfd_create("absentia-ram", MemfdFlags::CLOEXEC).context("memfd for guest RAM")?;
        ftruncate(&fd, size).context("size of guest RAM")?;
        let file = FileOffset::new(File::from(fd), 0);
        let map = Ram::from_ranges_with_files([(GuestAddress(0), size as usize, Some(file))])
            .context("mapping guest RAM")?;
        Ok(GuestRam { map, size })
    }
}

/// Reads a size as `--mem` takes it: a number of bytes, or with K, M or G behind it.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let shift = match unit
        .to_ascii_lowercase()
        .trim_end_matches("ib")
        .trim_end_matches('b')
    {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        _ => return Err(format!("unknown unit {unit:?}: use K, M or G")),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| "a size looks like 128M".to_string())?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| "that many bytes do not exist".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("64M"), Ok(64 << 20));
        assert_eq!(parse_size("1GiB"), Ok(1 << 30));
        assert_eq!(parse_size("12kb"), Ok(12 << 10));
        assert!(parse_size("M").is_err());
        assert!(parse_size("12X").is_err());
        assert!(parse_size("99999999999999G").is_err());
    }

    #[test]
    fn limits_are_errors() {
        assert!(GuestRam::new(4 << 30).is_err());
        assert!(GuestRam::new(4096).is_err());
        assert!(GuestRam::new(MINIMUM + 1).is_err());
        assert!(GuestRam::new(MINIMUM).is_ok());
    }
}
