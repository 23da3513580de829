//! A disk that stays as it is: what a machine changes lies in a file without a name, at the same places.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result};
use vm_memory::{Bytes, GuestAddress};

use super::disk::{BLOCK, TransferError, pieces};
use super::size;
use crate::memory::Ram;
use ext2::SECTOR;

/// See the module.
#[derive(Debug)]
pub struct CopyOnWrite {
    base: File,
    /// As long as the base; vanishes with this value.
    changes: File,
    /// A bit for each block that is in `changes`.
    changed: Vec<u64>,
    /// Bytes: whole sectors of the base.
    len: u64,
}

impl CopyOnWrite {
    /// Nothing changed yet. The base must stay as it is.
    pub fn new(base: File) -> Result<CopyOnWrite> {
        let len = base.metadata().context("the root disk")?.len() / SECTOR as u64 * SECTOR as u64;
        let changes = tempfile::tempfile().with_context(|| {
            format!(
                "a file for what the guest changes of the root disk, in {} (TMPDIR names another directory)",
                std::env::temp_dir().display()
            )
        })?;
        changes
            .set_len(len)
            .context("the size of the root disk's changes")?;
        let blocks = len.div_ceil(BLOCK as u64);
        Ok(CopyOnWrite {
            base,
            changes,
            changed: vec![0; size(blocks.div_ceil(64))],
            len,
        })
    }

    /// Bytes, whole sectors.
    pub fn size(&self) -> u64 {
        self.len
    }

    fn is_changed(&self, offset: u64) -> bool {
        let block = offset / BLOCK as u64;
        let word = self.changed.get(size(block / 64));
        word.is_some_and(|word| word >> (block % 64) & 1 != 0)
    }

    /// Pieces of a range whose blocks are in one file: offset on the disk, in the range, length, and whether that
    /// is the file of changes.
    fn runs(&self, offset: u64, len: usize) -> Vec<(u64, u64, usize, bool)> {
        let mut runs: Vec<(u64, u64, usize, bool)> = Vec::new();
        for (at, start, now) in pieces(offset, len) {
            let changed = self.is_changed(at);
            match runs.last_mut() {
                Some((_, _, len, before)) if *before == changed => *len += now,
                _ => runs.push((at, start, now, changed)),
            }
        }
        runs
    }

    /// Moves `len` bytes at `offset` into the guest.
    pub fn read(
        &mut self,
        offset: u64,
        to: GuestAddress,
        len: usize,
        ram: &Ram,
    ) -> Result<(), TransferError> {
        for (at, start, len, changed) in self.runs(offset, len) {
            let file = match changed {
                true => &mut self.changes,
                false => &mut self.base,
            };
            file.seek(SeekFrom::Start(at))?;
            ram.read_exact_volatile_from(GuestAddress(to.0 + start), file, len)?;
        }
        Ok(())
    }

    /// Moves `len` bytes from the guest to `offset`.
    pub fn write(
        &mut self,
        offset: u64,
        from: GuestAddress,
        len: usize,
        ram: &Ram,
    ) -> Result<(), TransferError> {
        // What of the first and the last block is not written now goes along.
        let end = offset + len as u64;
        for at in [offset, end.saturating_sub(1)] {
            let start = at / BLOCK as u64 * BLOCK as u64;
            let block_end = (start + BLOCK as u64).min(self.len);
            if (offset > start || end < block_end) && !self.is_changed(start) {
                let mut block = [0; BLOCK];
                let block = &mut block[..size(block_end - start)];
                self.base.read_exact_at(block, start)?;
                self.changes.write_all_at(block, start)?;
                self.mark(start);
            }
        }
        self.changes.seek(SeekFrom::Start(offset))?;
        ram.write_all_volatile_to(from, &mut self.changes, len)?;
        pieces(offset, len).for_each(|(at, ..)| self.mark(at));
        Ok(())
    }

    fn mark(&mut self, offset: u64) {
        let block = offset / BLOCK as u64;
        if let Some(word) = self.changed.get_mut(size(block / 64)) {
            *word |= 1 << (block % 64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{GuestRam, MINIMUM};

    #[test]
    fn a_disk_that_stays_as_it_is_shows_what_was_changed() {
        let base = tempfile::NamedTempFile::new().unwrap();
        // The last block is half of one, and the last sector is not whole.
        let content: Vec<u8> = (0..5 * BLOCK + 2048 + 100)
            .map(|i| (i / 512 + i) as u8)
            .collect();
        base.as_file().write_all_at(&content, 0).unwrap();
        let mut disk = CopyOnWrite::new(File::open(base.path()).unwrap()).unwrap();
        let mut expected = content[..5 * BLOCK + 2048].to_vec();
        assert_eq!(disk.size(), expected.len() as u64);
        let ram = GuestRam::new(MINIMUM).unwrap();
        let at = GuestAddress(0x10_0000);
        for (offset, len) in [
            (BLOCK - 512, 1024),
            (512, 512),
            (2 * BLOCK + 1024, 2 * BLOCK),
            (5 * BLOCK, 2048),
            (5 * BLOCK + 512, 512),
        ] {
            let data = vec![offset as u8 ^ 0x5a ^ (len / 512) as u8; len];
            ram.map.write_slice(&data, at).unwrap();
            disk.write(offset as u64, at, len, &ram.map).unwrap();
            expected[offset..offset + len].copy_from_slice(&data);
            let mut all = vec![0; expected.len()];
            disk.read(0, at, all.len(), &ram.map).unwrap();
            ram.map.read_slice(&mut all, at).unwrap();
            assert!(all == expected, "{offset}+{len}");
        }
        let changed: u32 = disk.changed.iter().map(|word| word.count_ones()).sum();
        assert_eq!(changed, 6);
        assert!(std::fs::read(base.path()).unwrap() == content);
    }
}
