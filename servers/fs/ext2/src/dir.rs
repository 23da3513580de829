//! Directories: blocks of variable-length entries.

use crate::device::{BlockDevice, PageStore};
use crate::layout::{FLAG_INDEX, Inode, le16, le32, put16, put32};
use crate::volume::Volume;
use crate::{Errno, NAME_MAX, Result};

/// Bytes of an entry before its name.
const HEADER: usize = 8;

/// One directory entry, as [`Volume::read_dir`] shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Inode number.
    pub ino: u32,
    /// Its name.
    pub name: &'a [u8],
    /// Linux `d_type` (DT_*); 0 where the volume does not store it.
    pub kind: u8,
    /// Position of the entry after it.
    pub next: u64,
}

/// An entry within its block.
struct Raw<'a> {
    at: usize,
    ino: u32,
    len: usize,
    name: &'a [u8],
    kind: u8,
}

/// The place of an entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub ino: u32,
    /// Disk block.
    block: u32,
    /// Offset in the block.
    at: usize,
    /// Offset of the entry before it in the block.
    before: Option<usize>,
}

/// Bytes that an entry with a name of this length needs.
fn needed(name_len: usize) -> usize {
    (HEADER + name_len).next_multiple_of(4)
}

/// The entry at `at`; `EUCLEAN` when it does not fit its block.
fn entry(block: &[u8], at: usize, types: bool) -> Result<Raw<'_>> {
    if at + HEADER > block.len() {
        return Err(Errno::EUCLEAN);
    }
    let len = le16(block, at + 4) as usize;
    let name_len = if types {
        block[at + 6] as usize
    } else {
        le16(block, at + 6) as usize
    };
    let ino = le32(block, at);
    if len < HEADER + 4
        || !len.is_multiple_of(4)
        || at + len > block.len()
        || name_len > NAME_MAX
        || HEADER + name_len > len
    {
        return Err(Errno::EUCLEAN);
    }
    Ok(Raw {
        at,
        ino,
        len,
        name: &block[at + HEADER..at + HEADER + name_len],
        kind: if types { block[at + 7] } else { 0 },
    })
}

/// The entries of a block.
fn entries(block: &[u8], types: bool) -> impl Iterator<Item = Result<Raw<'_>>> {
    let mut at = 0;
    core::iter::from_fn(move || {
        if at >= block.len() {
            return None;
        }
        let found = entry(block, at, types);
        at = match &found {
            Ok(e) => at + e.len,
            Err(_) => block.len(),
        };
        Some(found)
    })
}

/// Linux's DT_* of an entry's type byte.
fn d_type(kind: u8) -> u8 {
    match kind {
        1 => 8,
        2 => 4,
        3 => 2,
        4 => 6,
        5 => 1,
        6 => 12,
        7 => 10,
        _ => 0,
    }
}

fn write_entry(block: &mut [u8], at: usize, len: usize, ino: u32, name: &[u8], kind: u8) {
    put32(block, at, ino);
    put16(block, at + 4, len as u16);
    // Without file types the byte is the high half of the length: 0.
    block[at + 6] = name.len() as u8;
    block[at + 7] = kind;
    block[at + HEADER..at + HEADER + name.len()].copy_from_slice(name);
}

/// A name that may be created, removed or looked up.
pub(crate) fn check_name(name: &[u8]) -> Result<()> {
    if name.is_empty() {
        return Err(Errno::ENOENT);
    }
    if name.len() > NAME_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    if name.contains(&b'/') || name.contains(&0) {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

impl<D: BlockDevice, P: PageStore> Volume<D, P> {
    /// Blocks of a directory.
    fn dir_blocks(&mut self, dir: &Inode) -> Result<u64> {
        let size = self.sb.block_size as u64;
        let blocks = dir.size / size;
        if !dir.size.is_multiple_of(size) || blocks > self.sb.blocks as u64 {
            return Err(self.damage());
        }
        Ok(blocks)
    }

    /// The disk block of block `n` of a directory; directories have no holes.
    fn dir_block(&mut self, dir: &Inode, n: u64) -> Result<u32> {
        match self.map(dir, n)? {
            0 => Err(self.damage()),
            block => Ok(block),
        }
    }

    fn entry_type(&self, kind: u8) -> u8 {
        if self.sb.file_types() { kind } else { 0 }
    }

    /// Looks `name` up.
    pub(crate) fn find(&mut self, dir: &Inode, name: &[u8]) -> Result<Option<Found>> {
        let types = self.sb.file_types();
        for n in 0..self.dir_blocks(dir)? {
            let block = self.dir_block(dir, n)?;
            let mut before = None;
            let mut damaged = false;
            let mut found = None;
            for e in entries(self.meta(block)?, types) {
                let Ok(e) = e else {
                    damaged = true;
                    break;
                };
                if e.ino != 0 && e.name == name {
                    found = Some(Found {
                        ino: e.ino,
                        block,
                        at: e.at,
                        before,
                    });
                    break;
                }
                before = Some(e.at);
            }
            if damaged {
                return Err(self.damage());
            }
            if let Some(found) = found {
                let dots = name == b"." || name == b"..";
                let sound = found.ino <= self.sb.inodes
                    && (found.ino >= self.sb.first_inode || dots && found.ino == crate::ROOT);
                return if sound {
                    Ok(Some(found))
                } else {
                    Err(self.damage())
                };
            }
        }
        Ok(None)
    }

    /// Adds an entry (whose name is not there yet), in a gap or in a new block. Stores the
    /// directory's inode.
    pub(crate) fn add_entry(
        &mut self,
        dir_ino: u32,
        dir: &mut Inode,
        name: &[u8],
        ino: u32,
        kind: u8,
    ) -> Result<()> {
        let types = self.sb.file_types();
        let kind = self.entry_type(kind);
        let wanted = needed(name.len());
        let blocks = self.dir_blocks(dir)?;
        for n in 0..blocks {
            let block = self.dir_block(dir, n)?;
            let mut gap = None;
            let mut damaged = false;
            for e in entries(self.meta(block)?, types) {
                let Ok(e) = e else {
                    damaged = true;
                    break;
                };
                let used = if e.ino == 0 { 0 } else { needed(e.name.len()) };
                if e.len >= used + wanted {
                    gap = Some((e.at, used, e.len));
                    break;
                }
            }
            if damaged {
                return Err(self.damage());
            }
            if let Some((at, used, len)) = gap {
                let data = self.meta_mut(block)?;
                if used > 0 {
                    put16(data, at + 4, used as u16);
                }
                write_entry(data, at + used, len - used, ino, name, kind);
                return self.dir_changed(dir_ino, dir);
            }
        }
        let (block, _) = self.map_allocate(dir_ino, dir, blocks)?;
        let size = self.sb.block_size;
        write_entry(self.meta_fresh(block)?, 0, size, ino, name, kind);
        dir.size += size as u64;
        self.dir_changed(dir_ino, dir)
    }

    /// Stores a directory whose entries changed: new times, and its index no longer holds.
    pub(crate) fn dir_changed(&mut self, ino: u32, dir: &mut Inode) -> Result<()> {
        dir.flags &= !FLAG_INDEX;
        dir.mtime = self.now;
        dir.ctime = self.now;
        self.put_inode(ino, dir)
    }

    /// Removes an entry that [`Self::find`] found, with nothing added since.
    pub(crate) fn remove_entry(&mut self, found: &Found) -> Result<()> {
        let data = self.meta_mut(found.block)?;
        let len = le16(data, found.at + 4);
        match found.before {
            Some(before) => {
                let sum = le16(data, before + 4) + len;
                put16(data, before + 4, sum);
            }
            None => put32(data, found.at, 0),
        }
        Ok(())
    }

    /// Makes an entry name another inode.
    pub(crate) fn retarget(&mut self, found: &Found, ino: u32, kind: u8) -> Result<()> {
        let types = self.sb.file_types();
        let data = self.meta_mut(found.block)?;
        put32(data, found.at, ino);
        if types {
            data[found.at + 7] = kind;
        }
        Ok(())
    }

    /// The first block of a new directory: `.` and `..`.
    pub(crate) fn init_directory(&mut self, block: u32, ino: u32, parent: u32) -> Result<()> {
        let kind = self.entry_type(2);
        let size = self.sb.block_size;
        let data = self.meta_fresh(block)?;
        write_entry(data, 0, needed(1), ino, b".", kind);
        write_entry(data, needed(1), size - needed(1), parent, b"..", kind);
        Ok(())
    }

    /// Whether a directory holds nothing but `.` and `..`.
    pub(crate) fn is_empty(&mut self, dir: &Inode) -> Result<bool> {
        let types = self.sb.file_types();
        for n in 0..self.dir_blocks(dir)? {
            let block = self.dir_block(dir, n)?;
            for e in entries(self.meta(block)?, types) {
                let e = e?;
                if e.ino != 0 && e.name != b"." && e.name != b".." {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Shows the entries from `position` (0, or the `next` of an entry) on to `each` until it
    /// returns false for one it did not take; returns the position to go on from.
    pub fn read_dir(
        &mut self,
        ino: u32,
        position: u64,
        each: &mut dyn FnMut(&Entry<'_>) -> bool,
    ) -> Result<u64> {
        let dir = self.directory(ino)?;
        let types = self.sb.file_types();
        let size = self.sb.block_size as u64;
        let blocks = self.dir_blocks(&dir)?;
        let mut at = position;
        for n in position / size..blocks {
            let block = self.dir_block(&dir, n)?;
            for e in entries(self.meta(block)?, types) {
                let e = e?;
                let here = n * size + e.at as u64;
                // Entries may have merged since `position` was given out.
                if here < position {
                    continue;
                }
                let next = here + e.len as u64;
                if e.ino != 0
                    && !each(&Entry {
                        ino: e.ino,
                        name: e.name,
                        kind: d_type(e.kind),
                        next,
                    })
                {
                    return Ok(here);
                }
                at = next;
            }
        }
        self.touch_atime(ino, dir)?;
        Ok(at.max(position))
    }
}
