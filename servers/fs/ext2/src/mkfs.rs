//! Making a file system.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use crate::attr::New;
use crate::device::{BlockDevice, SECTOR};
use crate::error::Error;
use crate::layout::{
    DIRECTORY, GROUP_LEN, Group, INCOMPAT_FILETYPE, Inode, MAGIC, RO_LARGE_FILE, RO_SPARSE_SUPER,
    STATE_VALID, SUPER_AT, SUPER_LEN, Super, put16, put32,
};
use crate::mount::Options;
use crate::volume::Volume;
use crate::{Errno, ROOT, TRANSFER};

/// What to make.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// 1024, 2048 or 4096 bytes.
    pub block_size: usize,
    /// 128 or 256 bytes; only the larger has nanoseconds.
    pub inode_size: usize,
    /// Bytes of disk for each inode.
    pub bytes_per_inode: u64,
    /// Volume name, zero padded.
    pub label: [u8; 16],
    /// Volume id.
    pub uuid: [u8; 16],
    /// The time: seconds, nanoseconds.
    pub now: (i64, i64),
    /// The disk reads as zeroes already: inode tables need not be cleared.
    pub zeroed: bool,
}

impl Default for Format {
    fn default() -> Format {
        Format {
            block_size: 4096,
            inode_size: 256,
            bytes_per_inode: 8192,
            label: [0; 16],
            uuid: *b"absentia\x40\0\x80\0ext2",
            now: (0, 0),
            zeroed: false,
        }
    }
}

/// Reserved inodes at the start.
const RESERVED: u32 = 10;

/// Writes an empty file system with the directory `lost+found` onto all of `device`.
pub fn format<D: BlockDevice>(device: &mut D, format: &Format) -> Result<(), Error> {
    let sb = plan(device.sectors(), format)?;
    let mut writer = Writer {
        device: &mut *device,
        block_size: sb.block_size,
    };
    let groups = write_groups(&mut writer, &sb, format)?;
    write_copies(&mut writer, &sb, &groups)?;
    write_root(&mut writer, &sb, &groups, format)?;
    let mut volume = Volume::mount(
        &mut *device,
        Options {
            now: format.now,
            cache_pages: 64,
            ..Default::default()
        },
    )?;
    volume.create(
        ROOT,
        b"lost+found",
        New {
            mode: (DIRECTORY | 0o700) as u32,
            ..Default::default()
        },
    )?;
    volume.unmount()?;
    Ok(())
}

/// Decides on the geometry.
fn plan(sectors: u64, format: &Format) -> Result<Super, Error> {
    let bad = |reason| Err(Error::new(Errno::EINVAL, reason));
    let (size, inode_size) = (format.block_size, format.inode_size);
    if !matches!(size, 1024 | 2048 | 4096) {
        return bad("block size is not 1, 2 or 4 KiB");
    }
    if !matches!(inode_size, 128 | 256) {
        return bad("inode size is not 128 or 256 bytes");
    }
    let Ok(mut blocks) = u32::try_from(sectors / (size / SECTOR) as u64) else {
        return bad("the disk has more than 2^32 blocks");
    };
    let first_data_block = (size == 1024) as u32;
    let blocks_per_group = size as u32 * 8;
    if blocks < 64 {
        return bad("the disk is too small");
    }
    loop {
        let groups = (blocks - first_data_block).div_ceil(blocks_per_group);
        let wanted = (blocks as u64 * size as u64 / format.bytes_per_inode.max(1024))
            .max(RESERVED as u64 + 6);
        let per_block = (size / inode_size) as u64;
        let inodes_per_group = wanted
            .div_ceil(groups as u64)
            .next_multiple_of(per_block.max(8))
            .min(size as u64 * 8) as u32;
        let mut sb = Super {
            raw: Box::new([0; SUPER_LEN]),
            inodes: inodes_per_group * groups,
            blocks,
            reserved_blocks: 0,
            free_blocks: 0,
            free_inodes: inodes_per_group * groups - RESERVED,
            first_data_block,
            block_size: size,
            blocks_per_group,
            inodes_per_group,
            state: STATE_VALID,
            revision: 1,
            first_inode: RESERVED + 1,
            inode_size,
            incompat: INCOMPAT_FILETYPE,
            ro_compat: RO_SPARSE_SUPER | RO_LARGE_FILE,
            reserved_gdt: 0,
            last_orphan: 0,
        };
        let last = groups - 1;
        let overhead = sb.super_blocks(last) + 2 + sb.inode_table_blocks();
        // A last group that could hold little but its own tables is left out.
        if sb.group_len(last) < overhead + 50.min(blocks / 8) {
            if last == 0 {
                return bad("the disk is too small");
            }
            blocks = sb.group_start(last);
            continue;
        }
        sb.free_blocks = (0..groups)
            .map(|g| sb.group_len(g) - sb.super_blocks(g) - 2 - sb.inode_table_blocks())
            .sum::<u32>()
            - 1;
        fill(&mut sb, format);
        return Ok(sb);
    }
}

/// Fills in the superblock's bytes.
fn fill(sb: &mut Super, format: &Format) {
    let log = sb.block_size.trailing_zeros() - 10;
    let now = format.now.0 as u32;
    let raw = &mut sb.raw[..];
    for (at, value) in [
        (0, sb.inodes),
        (4, sb.blocks),
        (20, sb.first_data_block),
        (24, log),
        (28, log),
        (32, sb.blocks_per_group),
        (36, sb.blocks_per_group),
        (40, sb.inodes_per_group),
        (48, now),
        (64, now),
        (76, sb.revision),
        (84, sb.first_inode),
        (96, sb.incompat),
        (264, now),
    ] {
        put32(raw, at, value);
    }
    for (at, value) in [
        (54, 0xffff),
        (56, MAGIC),
        (60, 1),
        (88, sb.inode_size as u16),
    ] {
        put16(raw, at, value);
    }
    if sb.inode_size > 128 {
        put16(raw, 348, 32);
        put16(raw, 350, 32);
    }
    raw[104..120].copy_from_slice(&format.uuid);
    raw[120..136].copy_from_slice(&format.label);
    sb.update_raw();
}

struct Writer<'a, D> {
    device: &'a mut D,
    block_size: usize,
}

impl<D: BlockDevice> Writer<'_, D> {
    fn write(&mut self, block: u32, data: &[u8]) -> Result<(), Error> {
        let sector = block as u64 * (self.block_size / SECTOR) as u64;
        for (i, part) in data.chunks(TRANSFER).enumerate() {
            self.device
                .write(sector + (i * TRANSFER / SECTOR) as u64, part)
                .map_err(|errno| Error::new(errno, "the disk cannot be written"))?;
        }
        Ok(())
    }
}

/// Writes each group's bitmaps and inode table.
fn write_groups<D: BlockDevice>(
    writer: &mut Writer<'_, D>,
    sb: &Super,
    format: &Format,
) -> Result<Vec<Group>, Error> {
    let mut groups = Vec::new();
    let table = sb.inode_table_blocks();
    for g in 0..sb.groups() {
        let start = sb.group_start(g);
        let tables = start + sb.super_blocks(g);
        // The root directory is the first block after the first group's tables.
        let root = (g == 0) as u32;
        let used = sb.super_blocks(g) + 2 + table + root;
        let reserved = if g == 0 { RESERVED } else { 0 };
        groups.push(Group {
            block_bitmap: tables,
            inode_bitmap: tables + 1,
            inode_table: tables + 2,
            free_blocks: (sb.group_len(g) - used) as u16,
            free_inodes: (sb.inodes_per_group - reserved) as u16,
            directories: root as u16,
            dirty: false,
        });
        let mut bitmaps = vec![0u8; 2 * sb.block_size];
        let (blocks, inodes) = bitmaps.split_at_mut(sb.block_size);
        mark(blocks, 0, used);
        mark(blocks, sb.group_len(g), sb.block_size as u32 * 8);
        mark(inodes, 0, reserved);
        mark(inodes, sb.inodes_per_group, sb.block_size as u32 * 8);
        writer.write(tables, &bitmaps)?;
        if !format.zeroed {
            let zeroes = vec![0; TRANSFER.min(table as usize * sb.block_size)];
            let step = zeroes.len() / sb.block_size;
            for first in (0..table as usize).step_by(step) {
                let count = step.min(table as usize - first);
                writer.write(tables + 2 + first as u32, &zeroes[..count * sb.block_size])?;
            }
        }
    }
    Ok(groups)
}

/// Sets bits `from..to`.
fn mark(map: &mut [u8], from: u32, to: u32) {
    for bit in from..to {
        map[bit as usize / 8] |= 1 << (bit % 8);
    }
}

/// Writes superblock and descriptors, and their copies.
fn write_copies<D: BlockDevice>(
    writer: &mut Writer<'_, D>,
    sb: &Super,
    groups: &[Group],
) -> Result<(), Error> {
    let mut table = vec![0u8; sb.group_table_blocks() as usize * sb.block_size];
    for (group, bytes) in groups.iter().zip(table.chunks_exact_mut(GROUP_LEN)) {
        group.store(bytes);
    }
    for g in (0..sb.groups()).filter(|&g| sb.has_super(g)) {
        let mut copy = vec![0u8; sb.block_size];
        // In block 0 the superblock stands behind the boot sector.
        let at = if g == 0 && sb.first_data_block == 0 {
            SUPER_AT
        } else {
            0
        };
        copy[at..at + SUPER_LEN].copy_from_slice(&sb.raw[..]);
        put16(&mut copy, at + 90, g as u16);
        if g == 0 && sb.first_data_block == 1 {
            writer.write(0, &vec![0; sb.block_size])?;
        }
        writer.write(sb.group_start(g), &copy)?;
        writer.write(sb.group_start(g) + 1, &table)?;
    }
    Ok(())
}

/// Writes the root directory.
fn write_root<D: BlockDevice>(
    writer: &mut Writer<'_, D>,
    sb: &Super,
    groups: &[Group],
    format: &Format,
) -> Result<(), Error> {
    let table = groups[0].inode_table;
    let block = table + sb.inode_table_blocks();
    let mut data = vec![0u8; sb.block_size];
    for (at, len, name) in [(0, 12, &b"."[..]), (12, sb.block_size - 12, b"..")] {
        put32(&mut data, at, ROOT);
        put16(&mut data, at + 4, len as u16);
        data[at + 6] = name.len() as u8;
        data[at + 7] = 2;
        data[at + 8..at + 8 + name.len()].copy_from_slice(name);
    }
    writer.write(block, &data)?;
    let mut inode = Inode {
        mode: DIRECTORY | 0o755,
        size: sb.block_size as u64,
        atime: format.now,
        mtime: format.now,
        ctime: format.now,
        links: 2,
        sectors: (sb.block_size / SECTOR) as u32,
        ..Default::default()
    };
    inode.block[0] = block;
    let mut first = vec![0u8; sb.block_size];
    let bytes = &mut first[sb.inode_size..2 * sb.inode_size];
    if sb.inode_size > 128 {
        put16(bytes, 128, 32);
    }
    inode.store(bytes);
    writer.write(table, &first)
}
