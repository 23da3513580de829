//! Free blocks and inodes.

use crate::device::{BlockDevice, PageStore};
use crate::layout::{Inode, REGULAR, le32, put32};
use crate::volume::Volume;
use crate::{Errno, ROOT, Result};

/// First zero bit of `map` in `from..to`.
fn find_zero(map: &[u8], from: u32, to: u32) -> Option<u32> {
    let mut bit = from;
    while bit < to {
        let byte = map[(bit / 8) as usize];
        if byte == 0xff {
            bit = (bit / 8 + 1) * 8;
            continue;
        }
        if byte >> (bit % 8) & 1 == 0 {
            return Some(bit);
        }
        bit += 1;
    }
    None
}

fn is_set(map: &[u8], bit: u32) -> bool {
    map[(bit / 8) as usize] >> (bit % 8) & 1 != 0
}

fn set(map: &mut [u8], bit: u32) {
    map[(bit / 8) as usize] |= 1 << (bit % 8);
}

fn clear(map: &mut [u8], bit: u32) {
    map[(bit / 8) as usize] &= !(1 << (bit % 8));
}

impl<D: BlockDevice, P: PageStore> Volume<D, P> {
    fn group_of_block(&self, block: u32) -> u32 {
        (block - self.sb.first_data_block) / self.sb.blocks_per_group
    }

    pub(crate) fn group_of_inode(&self, ino: u32) -> u32 {
        (ino - 1) / self.sb.inodes_per_group
    }

    /// Whether a block may hold data: inside the volume and not metadata of its group.
    pub(crate) fn is_data_block(&self, block: u32) -> bool {
        if block < self.sb.first_data_block || block >= self.sb.blocks {
            return false;
        }
        let g = self.group_of_block(block);
        let group = &self.groups[g as usize];
        let table = group.inode_table;
        block >= self.sb.group_start(g) + self.sb.super_blocks(g)
            && block != group.block_bitmap
            && block != group.inode_bitmap
            && !(table..table + self.sb.inode_table_blocks()).contains(&block)
    }

    /// A free block, near `goal`.
    pub(crate) fn allocate_block(&mut self, goal: u32) -> Result<u32> {
        let goal = if goal >= self.sb.first_data_block && goal < self.sb.blocks {
            goal
        } else {
            self.sb.first_data_block
        };
        let first = self.group_of_block(goal);
        let count = self.groups.len() as u32;
        let wanted = goal - self.sb.group_start(first);
        // The goal's group is searched from the goal, then all groups from their start, the
        // goal's own last.
        for step in 0..=count {
            let g = (first + step) % count;
            if self.groups[g as usize].free_blocks == 0 {
                continue;
            }
            let from = if step == 0 { wanted } else { 0 };
            if let Some(block) = self.allocate_in(g, from)? {
                return Ok(block);
            }
        }
        if self.sb.free_blocks > 0 {
            // The counters promised what the bitmaps do not have.
            self.damage();
        }
        Err(Errno::ENOSPC)
    }

    fn allocate_in(&mut self, g: u32, mut from: u32) -> Result<Option<u32>> {
        let bitmap = self.groups[g as usize].block_bitmap;
        let len = self.sb.group_len(g);
        let start = self.sb.group_start(g);
        loop {
            let map = self.meta(bitmap)?;
            // A free byte keeps files in one piece better than the next free bit.
            let bit = if from < len && !is_set(map, from) {
                Some(from)
            } else {
                let next = from.next_multiple_of(8);
                (next / 8..len / 8)
                    .find(|&i| map[i as usize] == 0)
                    .map(|i| i * 8)
                    .or_else(|| find_zero(map, from, len))
            };
            let Some(bit) = bit else { return Ok(None) };
            let sound = self.is_data_block(start + bit);
            set(self.meta_mut(bitmap)?, bit);
            let group = &mut self.groups[g as usize];
            group.dirty = true;
            if sound {
                group.free_blocks = group.free_blocks.saturating_sub(1);
                self.sb.free_blocks = self.sb.free_blocks.saturating_sub(1);
                return Ok(Some(start + bit));
            }
            // Metadata marked free: mark it used and look on.
            self.damage();
            from = bit + 1;
        }
    }

    /// Frees a block; false (and the volume marked damaged) when it was not in use.
    pub(crate) fn free_block(&mut self, block: u32) -> Result<bool> {
        if !self.is_data_block(block) {
            self.damage();
            return Ok(false);
        }
        let g = self.group_of_block(block);
        let bit = block - self.sb.group_start(g);
        let bitmap = self.groups[g as usize].block_bitmap;
        let map = self.meta_mut(bitmap)?;
        if !is_set(map, bit) {
            self.damage();
            return Ok(false);
        }
        clear(map, bit);
        self.meta.discard(block);
        let group = &mut self.groups[g as usize];
        group.free_blocks = group.free_blocks.saturating_add(1);
        group.dirty = true;
        self.sb.free_blocks = self.sb.free_blocks.saturating_add(1);
        Ok(true)
    }

    /// A free inode: files near their directory, directories where there is room.
    pub(crate) fn allocate_inode(&mut self, parent: u32, directory: bool) -> Result<u32> {
        let count = self.groups.len() as u32;
        let near = self.group_of_inode(parent);
        let first = if directory {
            self.group_for_directory(parent, near)
        } else {
            near
        };
        for step in 0..count {
            let g = (first + step) % count;
            if self.groups[g as usize].free_inodes == 0 {
                continue;
            }
            let bitmap = self.groups[g as usize].inode_bitmap;
            let per_group = self.sb.inodes_per_group;
            let reserved = self.sb.first_inode - 1;
            let from = reserved.saturating_sub(g * per_group).min(per_group);
            let Some(bit) = find_zero(self.meta(bitmap)?, from, per_group) else {
                continue;
            };
            set(self.meta_mut(bitmap)?, bit);
            let group = &mut self.groups[g as usize];
            group.free_inodes = group.free_inodes.saturating_sub(1);
            if directory {
                group.directories = group.directories.saturating_add(1);
            }
            group.dirty = true;
            self.sb.free_inodes = self.sb.free_inodes.saturating_sub(1);
            return Ok(g * per_group + bit + 1);
        }
        if self.sb.free_inodes > 0 {
            self.damage();
        }
        Err(Errno::ENOSPC)
    }

    /// Directories of the root spread over the groups; deeper ones stay with their parent
    /// as long as its group has its share of free inodes and blocks.
    fn group_for_directory(&self, parent: u32, near: u32) -> u32 {
        let count = self.groups.len() as u32;
        let inodes = self.sb.free_inodes / count;
        let blocks = self.sb.free_blocks / count;
        let roomy = |g: u32| {
            let group = &self.groups[g as usize];
            group.free_inodes as u32 >= inodes.max(1) && group.free_blocks as u32 >= blocks
        };
        if parent == ROOT {
            (0..count)
                .filter(|&g| roomy(g))
                .min_by_key(|&g| self.groups[g as usize].directories)
                .unwrap_or(near)
        } else {
            (0..count)
                .map(|step| (near + step) % count)
                .find(|&g| roomy(g))
                .unwrap_or(near)
        }
    }

    /// Frees an inode without names: its data, attributes and number.
    pub(crate) fn free_inode(&mut self, ino: u32) -> Result<()> {
        let mut inode = self.raw_inode(ino)?;
        self.pages.forget(ino, 0, u32::MAX);
        if inode.is_mapped(self.sb.block_size) {
            self.free_blocks_from(&mut inode, 0)?;
        }
        if inode.file_acl != 0 {
            self.release_attribute_block(&mut inode)?;
        }
        let directory = inode.is_dir();
        inode.size = if inode.kind() == REGULAR {
            0
        } else {
            inode.size
        };
        inode.links = 0;
        inode.block = if inode.is_mapped(self.sb.block_size) {
            [0; crate::layout::POINTERS]
        } else {
            inode.block
        };
        // A deletion time of 0 would look like an inode in use to e2fsck.
        inode.dtime = (self.now.0 as u32).max(self.sb.inodes + 1);
        self.put_inode(ino, &inode)?;
        self.free_inode_number(ino, directory)
    }

    /// Gives back an inode number.
    pub(crate) fn free_inode_number(&mut self, ino: u32, directory: bool) -> Result<()> {
        let g = self.group_of_inode(ino);
        let bit = (ino - 1) % self.sb.inodes_per_group;
        let bitmap = self.groups[g as usize].inode_bitmap;
        let map = self.meta_mut(bitmap)?;
        if !is_set(map, bit) {
            self.damage();
            return Ok(());
        }
        clear(map, bit);
        let group = &mut self.groups[g as usize];
        group.free_inodes = group.free_inodes.saturating_add(1);
        if directory {
            group.directories = group.directories.saturating_sub(1);
        }
        group.dirty = true;
        self.sb.free_inodes = self.sb.free_inodes.saturating_add(1);
        Ok(())
    }

    /// Whether an inode number is marked in use.
    pub(crate) fn inode_in_use(&mut self, ino: u32) -> Result<bool> {
        let bitmap = self.groups[self.group_of_inode(ino) as usize].inode_bitmap;
        let bit = (ino - 1) % self.sb.inodes_per_group;
        Ok(is_set(self.meta(bitmap)?, bit))
    }

    /// Extended attribute blocks are shared by counted reference.
    fn release_attribute_block(&mut self, inode: &mut Inode) -> Result<()> {
        const MAGIC: u32 = 0xea02_0000;
        let block = inode.file_acl;
        inode.file_acl = 0;
        inode.sectors = inode
            .sectors
            .saturating_sub((self.sb.block_size / 512) as u32);
        if !self.is_data_block(block) {
            self.damage();
            return Ok(());
        }
        let header = self.meta(block)?;
        let (magic, count) = (le32(header, 0), le32(header, 4));
        if magic != MAGIC {
            self.damage();
        } else if count > 1 {
            put32(self.meta_mut(block)?, 4, count - 1);
        } else {
            self.free_block(block)?;
        }
        Ok(())
    }
}
