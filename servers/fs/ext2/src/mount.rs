//! Mounting: what is checked before a disk is believed.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::device::{BlockDevice, HeapPages, PageStore, SECTOR};
use crate::disk::Disk;
use crate::error::Error;
use crate::layout::{
    GROUP_LEN, Group, RO_KNOWN, STATE_ERROR, STATE_VALID, SUPER_AT, SUPER_LEN, Super,
};
use crate::meta::Meta;
use crate::pages::Pages;
use crate::volume::Volume;
use crate::{Errno, ROOT};

/// How to mount.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Refuse changes.
    pub read_only: bool,
    /// Leave access times alone.
    pub no_atime: bool,
    /// The time, until [`Volume::set_time`] says another: seconds, nanoseconds.
    pub now: (i64, i64),
    /// Pages of file data to cache (for [`Volume::mount`]).
    pub cache_pages: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            read_only: false,
            no_atime: false,
            now: (0, 0),
            cache_pages: 1024,
        }
    }
}

impl<D: BlockDevice> Volume<D, HeapPages> {
    /// Mounts with a cache on the heap.
    pub fn mount(device: D, options: Options) -> Result<Self, Error> {
        let pages = HeapPages::new(options.cache_pages);
        Volume::mount_with(device, pages, options)
    }
}

impl<D: BlockDevice, P: PageStore> Volume<D, P> {
    /// Mounts with a cache in `pages` (at least 64).
    pub fn mount_with(mut device: D, pages: P, options: Options) -> Result<Self, Error> {
        if pages.capacity() < 64 {
            return Err(Error::new(Errno::EINVAL, "fewer than 64 cache pages"));
        }
        let io = |errno| Error::new(errno, "the superblock cannot be read");
        if device.sectors() < ((SUPER_AT + SUPER_LEN) / SECTOR) as u64 {
            return Err(Error::new(Errno::EINVAL, "the disk is too small"));
        }
        let mut raw = Box::new([0; SUPER_LEN]);
        device
            .read((SUPER_AT / SECTOR) as u64, &mut raw[..])
            .map_err(io)?;
        let sb = Super::parse(raw, device.sectors())?;
        let mut disk = Disk::new(device, sb.block_size);
        let mut meta = Meta::new(sb.block_size);
        let groups = read_groups(&sb, &mut disk, &mut meta)?;
        disk.read_only = options.read_only || sb.ro_compat & !RO_KNOWN != 0;
        let mut volume = Volume {
            valid: sb.state & STATE_VALID != 0 && sb.state & STATE_ERROR == 0,
            pages: Pages::new(pages, sb.block_size),
            sb,
            disk,
            meta,
            groups,
            references: BTreeMap::new(),
            orphans: Vec::new(),
            streams: BTreeMap::new(),
            last_allocation: (0, 0, 0),
            now: options.now,
            no_atime: options.no_atime,
            damaged: false,
        };
        let root = volume
            .inode(ROOT)
            .map_err(|errno| Error::new(errno, "the root directory is damaged"))?;
        if !root.is_dir() {
            return Err(Error::new(Errno::EUCLEAN, "the root is not a directory"));
        }
        if !volume.disk.read_only {
            volume
                .start_writing()
                .map_err(|errno| Error::new(errno, "the superblock cannot be written"))?;
        }
        Ok(volume)
    }
}

/// Reads the descriptor table and checks that each group keeps its own metadata.
fn read_groups<D: BlockDevice>(
    sb: &Super,
    disk: &mut Disk<D>,
    meta: &mut Meta,
) -> Result<Vec<Group>, Error> {
    let per_block = sb.block_size / GROUP_LEN;
    let mut groups = Vec::new();
    for g in 0..sb.groups() {
        let block = sb.first_data_block + 1 + g / per_block as u32;
        let data = meta
            .get(disk, block)
            .map_err(|errno| Error::new(errno, "the group descriptors cannot be read"))?;
        let at = g as usize % per_block * GROUP_LEN;
        let group = Group::parse(&data[at..at + GROUP_LEN]);
        let (start, end) = (sb.group_start(g), sb.group_start(g) + sb.group_len(g));
        let inside = |block: u32, len: u32| {
            block >= start + sb.super_blocks(g) && block < end && end - block >= len
        };
        if !inside(group.block_bitmap, 1)
            || !inside(group.inode_bitmap, 1)
            || !inside(group.inode_table, sb.inode_table_blocks())
        {
            return Err(Error::new(
                Errno::EUCLEAN,
                "a group descriptor points outside its group",
            ));
        }
        groups.push(group);
    }
    Ok(groups)
}
