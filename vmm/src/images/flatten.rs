//! From an ELF file to the bytes it has in memory, and to an ELF file without its symbols.
//!
//! Shared by the library and the build script.
//!
//! Why so: docs/decisions/003-flat-images.md.

use anyhow::{Context, Result, ensure};
use goblin::elf::Elf;
use goblin::elf::program_header::PT_LOAD;

const PAGE: u64 = 4096;
/// No image of ours comes near this.
const MAXIMUM: u64 = 64 << 20;

/// An image as it lies in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flat {
    /// From [`Flat::address`] on, without trailing zeros beyond the files' data.
    pub bytes: Vec<u8>,
    /// Page-aligned address of the first byte.
    pub address: u64,
    /// Whole pages up to the end of the bss.
    pub memory_len: u64,
    /// Entry point.
    pub entry: u64,
}

/// Lays out the loadable segments of a static ELF file.
pub fn flatten(file: &[u8]) -> Result<Flat> {
    let elf = Elf::parse(file).context("not an ELF file")?;
    let loads = || {
        elf.program_headers
            .iter()
            .filter(|h| h.p_type == PT_LOAD && h.p_memsz != 0)
    };
    let low = loads()
        .map(|h| h.p_vaddr)
        .min()
        .context("no loadable segment")?
        & !(PAGE - 1);
    let mut high = low;
    for header in loads() {
        let end = header
            .p_vaddr
            .checked_add(header.p_memsz)
            .context("segment wraps")?;
        ensure!(
            header.p_filesz <= header.p_memsz,
            "segment with more file than memory"
        );
        high = high.max(end);
    }
    ensure!(high - low <= MAXIMUM, "image of {} bytes", high - low);
    let mut bytes = Vec::new();
    for header in loads() {
        let start = (header.p_vaddr - low) as usize;
        let from = header.p_offset as usize;
        let data = from
            .checked_add(header.p_filesz as usize)
            .and_then(|to| file.get(from..to))
            .context("segment outside the file")?;
        if bytes.len() < start + data.len() {
            bytes.resize(start + data.len(), 0);
        }
        bytes[start..start + data.len()].copy_from_slice(data);
    }
    let memory_len = (high - low).next_multiple_of(PAGE);
    ensure!(
        (low..high).contains(&elf.entry),
        "entry point {:#x} outside {low:#x}..{high:#x}",
        elf.entry
    );
    Ok(Flat {
        bytes,
        address: low,
        memory_len,
        entry: elf.entry,
    })
}

/// Cuts sections, symbols and debug information off: what is left loads as before.
pub fn strip(file: &[u8]) -> Result<Vec<u8>> {
    let elf = Elf::parse(file).context("not an ELF file")?;
    let table =
        elf.header.e_phoff + u64::from(elf.header.e_phnum) * u64::from(elf.header.e_phentsize);
    let end = elf
        .program_headers
        .iter()
        .map(|h| h.p_offset.saturating_add(h.p_filesz))
        .chain([table])
        .max()
        .unwrap_or(table) as usize;
    let mut kept = file
        .get(..end)
        .context("segment outside the file")?
        .to_vec();
    // ELF64: e_shoff at 40, e_shentsize, e_shnum and e_shstrndx at 58, 60 and 62.
    ensure!(elf.is_64 && kept.len() >= 64, "not a 64-bit ELF file");
    kept[40..48].fill(0);
    kept[60..64].fill(0);
    Ok(kept)
}
