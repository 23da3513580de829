//! What a disk's sectors are kept in: a file that is changed in place, or a file that stays as it
//! is with the changed blocks beside it, in memory (for the laboratory, which copies it) or in a file without a name
//! ([`CopyOnWrite`]).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

pub use super::cow::CopyOnWrite;

use ext2::{BlockDevice, Errno, SECTOR};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use super::size;
use crate::memory::Ram;

/// Bytes of a block of an overlay.
pub(super) const BLOCK: usize = 4096;

/// See the module.
#[derive(Debug)]
pub enum Backing {
    /// The file, changed in place.
    File(File),
    /// A file that others may use, too, and what this machine changed.
    Overlay(Overlay),
    /// Likewise.
    CopyOnWrite(CopyOnWrite),
}

impl From<CopyOnWrite> for Backing {
    fn from(disk: CopyOnWrite) -> Backing {
        Backing::CopyOnWrite(disk)
    }
}

impl From<File> for Backing {
    fn from(file: File) -> Backing {
        Backing::File(file)
    }
}

impl From<Overlay> for Backing {
    fn from(overlay: Overlay) -> Backing {
        Backing::Overlay(overlay)
    }
}

/// A transfer failed: the host's file, or a buffer outside guest RAM.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The file.
    #[error("disk: {0}")]
    Disk(#[from] io::Error),
    /// The buffer.
    #[error("disk buffer: {0}")]
    Memory(#[from] GuestMemoryError),
}

impl TransferError {
    /// The host's error; none when it was the guest's buffer.
    pub fn of_the_host(&self) -> Option<&io::Error> {
        match self {
            TransferError::Disk(error)
            | TransferError::Memory(GuestMemoryError::IOError(error)) => Some(error),
            TransferError::Memory(_) => None,
        }
    }
}

impl Backing {
    /// Its size in bytes.
    pub fn len(&self) -> io::Result<u64> {
        match self {
            Backing::File(file) => Ok(file.metadata()?.len()),
            Backing::Overlay(overlay) => Ok(overlay.len),
            Backing::CopyOnWrite(disk) => Ok(disk.size()),
        }
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Moves `len` bytes at `offset` into the guest.
    pub fn read(
        &mut self,
        offset: u64,
        to: GuestAddress,
        len: usize,
        ram: &Ram,
    ) -> Result<(), TransferError> {
        match self {
            Backing::File(file) => {
                file.seek(SeekFrom::Start(offset))?;
                Ok(ram.read_exact_volatile_from(to, file, len)?)
            }
            Backing::Overlay(overlay) => {
                let mut buffer = [0; BLOCK];
                for (at, start, now) in pieces(offset, len) {
                    overlay.read_at(at, &mut buffer[..now])?;
                    ram.write_slice(&buffer[..now], GuestAddress(to.0 + start))?;
                }
                Ok(())
            }
            Backing::CopyOnWrite(disk) => disk.read(offset, to, len, ram),
        }
    }

    /// Moves `len` bytes from the guest to `offset`.
    pub fn write(
        &mut self,
        offset: u64,
        from: GuestAddress,
        len: usize,
        ram: &Ram,
    ) -> Result<(), TransferError> {
        match self {
            Backing::File(file) => {
                file.seek(SeekFrom::Start(offset))?;
                Ok(ram.write_all_volatile_to(from, file, len)?)
            }
            Backing::Overlay(overlay) => {
                let mut buffer = [0; BLOCK];
                for (at, start, now) in pieces(offset, len) {
                    ram.read_slice(&mut buffer[..now], GuestAddress(from.0 + start))?;
                    overlay.write_at(at, &buffer[..now])?;
                }
                Ok(())
            }
            Backing::CopyOnWrite(disk) => disk.write(offset, from, len, ram),
        }
    }

    /// What was written is on stable storage afterwards; memory is not.
    pub fn flush(&self) -> io::Result<()> {
        match self {
            Backing::File(file) => file.sync_data(),
            Backing::Overlay(_) | Backing::CopyOnWrite(_) => Ok(()),
        }
    }
}

/// Cuts a range at the borders of blocks: where each piece is on the disk, where in the range,
/// how long.
pub(super) fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, u64, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let now = (BLOCK - size(at) % BLOCK).min(len - done);
        let start = done as u64;
        done += now;
        (now > 0).then_some((at, start, now))
    })
}

/// A file and the blocks that differ from it. A clone costs next to nothing and is on its own
/// from then on.
#[derive(Clone, Debug)]
pub struct Overlay {
    base: Arc<File>,
    /// Bytes: whole sectors of the file.
    len: u64,
    changed: Arc<BTreeMap<u64, Arc<[u8; BLOCK]>>>,
}

impl Overlay {
    /// Nothing changed yet. The file must stay as it is.
    pub fn new(base: File) -> io::Result<Overlay> {
        let len = base.metadata()?.len() / SECTOR as u64 * SECTOR as u64;
        Ok(Overlay {
            base: Arc::new(base),
            len,
            changed: Arc::default(),
        })
    }

    /// Bytes, whole sectors.
    pub fn size(&self) -> u64 {
        self.len
    }

    /// How many blocks of 4 KiB differ from the file.
    pub fn changes(&self) -> usize {
        self.changed.len()
    }

    /// Fills `buffer` from `offset` on.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.check(offset, buffer.len())?;
        for (at, start, now) in pieces(offset, buffer.len()) {
            let to = &mut buffer[size(start)..][..now];
            match self.changed.get(&(at / BLOCK as u64)) {
                Some(block) => to.copy_from_slice(&block[size(at) % BLOCK..][..now]),
                None => self.base.read_exact_at(to, at)?,
            }
        }
        Ok(())
    }

    /// Writes `data` at `offset`.
    pub fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check(offset, data.len())?;
        for (at, start, now) in pieces(offset, data.len()) {
            let number = at / BLOCK as u64;
            let mut block = match self.changed.get(&number) {
                Some(block) => **block,
                None => self.original(number, now)?,
            };
            block[size(at) % BLOCK..][..now].copy_from_slice(&data[size(start)..][..now]);
            Arc::make_mut(&mut self.changed).insert(number, Arc::new(block));
        }
        Ok(())
    }

    /// The file's block, of which `replaced` bytes are about to be written.
    fn original(&self, number: u64, replaced: usize) -> io::Result<[u8; BLOCK]> {
        let mut block = [0; BLOCK];
        let start = number * BLOCK as u64;
        if replaced < BLOCK {
            // The last block may be a part of one.
            let len = size((self.len - start).min(BLOCK as u64));
            self.base.read_exact_at(&mut block[..len], start)?;
        }
        Ok(block)
    }

    fn check(&self, offset: u64, len: usize) -> io::Result<()> {
        match offset.checked_add(len as u64) {
            Some(end) if end <= self.len => Ok(()),
            _ => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "beyond the end of the disk",
            )),
        }
    }

    /// Its contents from the start.
    pub fn reader(&self) -> Reader<'_> {
        Reader { disk: self, at: 0 }
    }
}

/// Reads an overlay as a file.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    disk: &'a Overlay,
    at: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.disk.len.saturating_sub(self.at);
        let len = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        self.disk.read_at(self.at, &mut buffer[..len])?;
        self.at += len as u64;
        Ok(len)
    }
}

/// So that the guest's own file system code reads it.
impl BlockDevice for Overlay {
    fn sectors(&self) -> u64 {
        self.len / SECTOR as u64
    }

    fn read(&mut self, sector: u64, buffer: &mut [u8]) -> Result<(), Errno> {
        let offset = sector.checked_mul(SECTOR as u64).ok_or(Errno::EIO)?;
        self.read_at(offset, buffer).map_err(|_| Errno::EIO)
    }

    fn write(&mut self, sector: u64, buffer: &[u8]) -> Result<(), Errno> {
        let offset = sector.checked_mul(SECTOR as u64).ok_or(Errno::EIO)?;
        self.write_at(offset, buffer).map_err(|_| Errno::EIO)
    }

    fn flush(&mut self) -> Result<(), Errno> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(len: usize) -> Overlay {
        let file = tempfile::tempfile().unwrap();
        let content: Vec<u8> = (0..len).map(|i| (i / 512 + i) as u8).collect();
        file.write_all_at(&content, 0).unwrap();
        Overlay::new(file).unwrap()
    }

    fn contents(disk: &Overlay) -> Vec<u8> {
        let mut all = Vec::new();
        disk.reader().read_to_end(&mut all).unwrap();
        all
    }

    #[test]
    fn an_overlay_is_the_file_with_its_changes() {
        // The last block is half of one, and the last sector is not whole.
        let mut disk = disk(3 * BLOCK + 2048 + 100);
        let mut expected = contents(&disk);
        assert_eq!(expected.len(), 3 * BLOCK + 2048);
        for (offset, len) in [
            (0, 512),
            (BLOCK - 512, 1024),
            (BLOCK, 2 * BLOCK),
            (3 * BLOCK, 2048),
        ] {
            let data = vec![offset as u8 ^ 0x5a; len];
            disk.write_at(offset as u64, &data).unwrap();
            expected[offset..offset + len].copy_from_slice(&data);
            assert!(contents(&disk) == expected, "{offset}+{len}");
        }
        assert_eq!(disk.changes(), 4);
        assert!(disk.write_at(expected.len() as u64 - 1, &[0; 2]).is_err());
        assert!(disk.read_at(u64::MAX, &mut [0; 2]).is_err());
    }

    #[test]
    fn clones_go_their_own_ways() {
        let mut disk = disk(4 * BLOCK);
        disk.write_at(0, &[1; 512]).unwrap();
        let (before, copy) = (contents(&disk), disk.clone());
        disk.write_at(0, &[2; 512]).unwrap();
        disk.write_at(BLOCK as u64, &[3; 512]).unwrap();
        assert!(contents(&copy) == before);
        assert!(contents(&disk) != before);
        assert_eq!((copy.changes(), disk.changes()), (1, 2));
    }
}
