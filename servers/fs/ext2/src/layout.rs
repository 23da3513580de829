//! The structures on the disk: superblock, group descriptor, inode.

use alloc::boxed::Box;

use crate::Errno;
use crate::error::Error;

/// Where the superblock is, and how long it is, bytes.
pub(crate) const SUPER_AT: usize = 1024;
pub(crate) const SUPER_LEN: usize = 1024;
pub(crate) const MAGIC: u16 = 0xef53;
/// Superblock states.
pub(crate) const STATE_VALID: u16 = 1;
pub(crate) const STATE_ERROR: u16 = 2;
/// Bytes of a group descriptor.
pub(crate) const GROUP_LEN: usize = 32;
/// Inode flag: the directory has an index.
pub(crate) const FLAG_INDEX: u32 = 0x1000;
/// Inode flags of ext4 forms that have no block map.
pub(crate) const FLAG_UNMAPPED: u32 = 0x0008_0000 | 0x1000_0000;
/// Pointers in an inode; the last three are indirect.
pub(crate) const POINTERS: usize = 15;
/// Direct pointers in an inode.
pub(crate) const DIRECT: usize = 12;
/// Most links of an inode.
pub(crate) const LINK_MAX: u16 = 32000;

/// Incompatible features known here.
pub(crate) const INCOMPAT_FILETYPE: u32 = 0x2;
/// Read-only-compatible features.
pub(crate) const RO_SPARSE_SUPER: u32 = 0x1;
pub(crate) const RO_LARGE_FILE: u32 = 0x2;
pub(crate) const RO_EXTRA_ISIZE: u32 = 0x40;
/// Those that may be written with.
pub(crate) const RO_KNOWN: u32 = RO_SPARSE_SUPER | RO_LARGE_FILE | RO_EXTRA_ISIZE;

/// File type bits of a mode: on the disk as everywhere, in 16 bits.
pub(crate) const TYPE: u16 = abi::fs::S_IFMT as u16;
pub(crate) const FIFO: u16 = abi::fs::S_IFIFO as u16;
pub(crate) const CHAR: u16 = abi::fs::S_IFCHR as u16;
pub(crate) const DIRECTORY: u16 = abi::fs::S_IFDIR as u16;
pub(crate) const BLOCK: u16 = abi::fs::S_IFBLK as u16;
pub(crate) const REGULAR: u16 = abi::fs::S_IFREG as u16;
pub(crate) const SYMLINK: u16 = abi::fs::S_IFLNK as u16;
pub(crate) const SOCKET: u16 = abi::fs::S_IFSOCK as u16;

pub(crate) fn le16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub(crate) fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(crate) fn put16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

pub(crate) fn put32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// The superblock: the fields that matter here, and the bytes they came from.
#[derive(Clone)]
pub(crate) struct Super {
    pub raw: Box<[u8; SUPER_LEN]>,
    pub inodes: u32,
    pub blocks: u32,
    pub reserved_blocks: u32,
    pub free_blocks: u32,
    pub free_inodes: u32,
    pub first_data_block: u32,
    pub block_size: usize,
    pub blocks_per_group: u32,
    pub inodes_per_group: u32,
    pub state: u16,
    pub revision: u32,
    pub first_inode: u32,
    pub inode_size: usize,
    pub incompat: u32,
    pub ro_compat: u32,
    pub reserved_gdt: u32,
    pub last_orphan: u32,
}

impl Super {
    /// Reads and checks a superblock; `sectors` is the device's size.
    pub(crate) fn parse(raw: Box<[u8; SUPER_LEN]>, sectors: u64) -> Result<Super, Error> {
        let b = &raw[..];
        let bad = |reason| Err(Error::new(Errno::EUCLEAN, reason));
        if le16(b, 56) != MAGIC {
            return Err(Error::new(Errno::EINVAL, "not an ext2 file system"));
        }
        let revision = le32(b, 76);
        let dynamic = revision >= 1;
        let log = le32(b, 24);
        if log > 2 {
            return Err(Error::new(Errno::EINVAL, "block size is not 1, 2 or 4 KiB"));
        }
        let block_size = 1024usize << log;
        let incompat = if dynamic { le32(b, 96) } else { 0 };
        if incompat & !INCOMPAT_FILETYPE != 0 {
            return Err(Error {
                errno: Errno::EINVAL,
                reason: incompat_reason(incompat & !INCOMPAT_FILETYPE),
                features: incompat & !INCOMPAT_FILETYPE,
            });
        }
        let sb = Super {
            inodes: le32(b, 0),
            blocks: le32(b, 4),
            reserved_blocks: le32(b, 8),
            free_blocks: le32(b, 12),
            free_inodes: le32(b, 16),
            first_data_block: le32(b, 20),
            block_size,
            blocks_per_group: le32(b, 32),
            inodes_per_group: le32(b, 40),
            state: le16(b, 58),
            revision,
            first_inode: if dynamic { le32(b, 84) } else { 11 },
            inode_size: if dynamic { le16(b, 88) as usize } else { 128 },
            incompat,
            ro_compat: if dynamic { le32(b, 100) } else { 0 },
            reserved_gdt: if dynamic && le32(b, 92) & 0x10 != 0 {
                le16(b, 206) as u32
            } else {
                0
            },
            last_orphan: if dynamic { le32(b, 232) } else { 0 },
            raw,
        };
        let bits = block_size as u32 * 8;
        if sb.first_data_block != (block_size == 1024) as u32 {
            return bad("first data block is out of place");
        }
        if sb.blocks <= sb.first_data_block + 3
            || sb.blocks as u64 * (block_size / 512) as u64 > sectors
        {
            return bad("more blocks than the disk has");
        }
        if sb.blocks_per_group < 8 || sb.blocks_per_group > bits {
            return bad("blocks per group out of range");
        }
        if !sb.inode_size.is_power_of_two() || sb.inode_size < 128 || sb.inode_size > block_size {
            return bad("inode size out of range");
        }
        if sb.inodes_per_group == 0 || sb.inodes_per_group > bits {
            return bad("inodes per group out of range");
        }
        if sb.inodes as u64 != sb.inodes_per_group as u64 * sb.groups() as u64 {
            return bad("inode count does not match the groups");
        }
        if sb.first_inode < 11 || sb.first_inode > sb.inodes {
            return bad("first inode out of range");
        }
        Ok(sb)
    }

    /// The bytes with the counters that change filled in.
    pub(crate) fn update_raw(&mut self) {
        let raw = &mut self.raw[..];
        put32(raw, 12, self.free_blocks);
        put32(raw, 16, self.free_inodes);
        put16(raw, 58, self.state);
        if self.revision >= 1 {
            put32(raw, 100, self.ro_compat);
            put32(raw, 232, self.last_orphan);
        }
    }

    pub(crate) fn groups(&self) -> u32 {
        (self.blocks - self.first_data_block).div_ceil(self.blocks_per_group)
    }

    /// Blocks of the descriptor table.
    pub(crate) fn group_table_blocks(&self) -> u32 {
        (self.groups() as u64 * GROUP_LEN as u64).div_ceil(self.block_size as u64) as u32
    }

    /// Blocks of one group's inode table.
    pub(crate) fn inode_table_blocks(&self) -> u32 {
        (self.inodes_per_group as u64 * self.inode_size as u64).div_ceil(self.block_size as u64)
            as u32
    }

    /// First block of a group.
    pub(crate) fn group_start(&self, group: u32) -> u32 {
        self.first_data_block + group * self.blocks_per_group
    }

    /// Blocks of a group; the last may be short.
    pub(crate) fn group_len(&self, group: u32) -> u32 {
        self.blocks_per_group
            .min(self.blocks - self.group_start(group))
    }

    /// Whether the group holds a copy of superblock and descriptors.
    pub(crate) fn has_super(&self, group: u32) -> bool {
        fn power_of(mut n: u32, base: u32) -> bool {
            while n.is_multiple_of(base) {
                n /= base;
            }
            n == 1
        }
        self.ro_compat & RO_SPARSE_SUPER == 0
            || group <= 1
            || power_of(group, 3)
            || power_of(group, 5)
            || power_of(group, 7)
    }

    /// Blocks at the start of a group that superblock and descriptors take.
    pub(crate) fn super_blocks(&self, group: u32) -> u32 {
        if self.has_super(group) {
            1 + self.group_table_blocks() + self.reserved_gdt
        } else {
            0
        }
    }

    /// Whether directory entries carry file types.
    pub(crate) fn file_types(&self) -> bool {
        self.incompat & INCOMPAT_FILETYPE != 0
    }
}

fn incompat_reason(features: u32) -> &'static str {
    match features & features.wrapping_neg() {
        0x1 => "needs unknown feature: compression",
        0x4 => "its journal must be replayed first (needs_recovery)",
        0x8 => "is a journal device",
        0x10 => "needs unknown feature: meta_bg",
        0x40 => "needs unknown feature: extents",
        0x80 => "needs unknown feature: 64bit",
        0x100 => "needs unknown feature: mmp",
        0x200 => "needs unknown feature: flex_bg",
        0x8000 => "needs unknown feature: inline_data",
        0x10000 => "needs unknown feature: encrypt",
        0x20000 => "needs unknown feature: casefold",
        _ => "needs an unknown incompatible feature",
    }
}

/// A group descriptor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group {
    pub block_bitmap: u32,
    pub inode_bitmap: u32,
    pub inode_table: u32,
    pub free_blocks: u16,
    pub free_inodes: u16,
    pub directories: u16,
    pub dirty: bool,
}

impl Group {
    pub(crate) fn parse(b: &[u8]) -> Group {
        Group {
            block_bitmap: le32(b, 0),
            inode_bitmap: le32(b, 4),
            inode_table: le32(b, 8),
            free_blocks: le16(b, 12),
            free_inodes: le16(b, 14),
            directories: le16(b, 16),
            dirty: false,
        }
    }

    pub(crate) fn store(&self, b: &mut [u8]) {
        put32(b, 0, self.block_bitmap);
        put32(b, 4, self.inode_bitmap);
        put32(b, 8, self.inode_table);
        put16(b, 12, self.free_blocks);
        put16(b, 14, self.free_inodes);
        put16(b, 16, self.directories);
    }
}

/// Seconds and nanoseconds since 1970.
pub(crate) type Time = (i64, i64);

/// An inode, as the operations see it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Inode {
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub atime: Time,
    pub ctime: Time,
    pub mtime: Time,
    /// Time of deletion; while on the orphan list, the next inode of the list.
    pub dtime: u32,
    pub links: u16,
    /// 512-byte units in use, maps and attribute block included.
    pub sectors: u32,
    pub flags: u32,
    pub block: [u32; POINTERS],
    pub generation: u32,
    /// Extended attribute block.
    pub file_acl: u32,
}

impl Inode {
    pub(crate) fn parse(b: &[u8]) -> Inode {
        let mode = le16(b, 0);
        let extra = if b.len() > 130 {
            le16(b, 128) as usize
        } else {
            0
        };
        let time = |at: usize, extra_at: usize| {
            let seconds = le32(b, at) as i32 as i64;
            if extra_at + 4 <= 128 + extra && extra_at + 4 <= b.len() {
                let more = le32(b, extra_at);
                let nanos = ((more >> 2) as i64).min(999_999_999);
                (seconds + ((more as i64 & 3) << 32), nanos)
            } else {
                (seconds, 0)
            }
        };
        let mut block = [0; POINTERS];
        for (i, p) in block.iter_mut().enumerate() {
            *p = le32(b, 40 + 4 * i);
        }
        let high = if mode & TYPE == REGULAR {
            (le32(b, 108) as u64) << 32
        } else {
            0
        };
        Inode {
            mode,
            uid: le16(b, 2) as u32 | (le16(b, 120) as u32) << 16,
            gid: le16(b, 24) as u32 | (le16(b, 122) as u32) << 16,
            size: le32(b, 4) as u64 | high,
            atime: time(8, 140),
            ctime: time(12, 132),
            mtime: time(16, 136),
            dtime: le32(b, 20),
            links: le16(b, 26),
            sectors: le32(b, 28),
            flags: le32(b, 32),
            block,
            generation: le32(b, 100),
            file_acl: le32(b, 104),
        }
    }

    /// Writes the fields into the inode's bytes, leaving what it does not know.
    pub(crate) fn store(&self, b: &mut [u8]) {
        let extra = if b.len() > 130 {
            le16(b, 128) as usize
        } else {
            0
        };
        let len = b.len();
        let mut time = |at: usize, extra_at: usize, (seconds, nanos): Time| {
            if extra_at + 4 <= 128 + extra && extra_at + 4 <= len {
                let seconds = seconds.clamp(i32::MIN as i64, i32::MAX as i64 + (3 << 32));
                let epoch = (seconds - seconds as i32 as i64) >> 32;
                put32(b, at, seconds as u32);
                put32(b, extra_at, (nanos as u32) << 2 | (epoch as u32 & 3));
            } else {
                let seconds = seconds.clamp(i32::MIN as i64, i32::MAX as i64);
                put32(b, at, seconds as u32);
            }
        };
        time(8, 140, self.atime);
        time(12, 132, self.ctime);
        time(16, 136, self.mtime);
        put16(b, 0, self.mode);
        put16(b, 2, self.uid as u16);
        put32(b, 4, self.size as u32);
        put32(b, 20, self.dtime);
        put16(b, 24, self.gid as u16);
        put16(b, 26, self.links);
        put32(b, 28, self.sectors);
        put32(b, 32, self.flags);
        for (i, p) in self.block.iter().enumerate() {
            put32(b, 40 + 4 * i, *p);
        }
        put32(b, 100, self.generation);
        put32(b, 104, self.file_acl);
        if self.kind() == REGULAR {
            put32(b, 108, (self.size >> 32) as u32);
        }
        put16(b, 120, (self.uid >> 16) as u16);
        put16(b, 122, (self.gid >> 16) as u16);
    }

    pub(crate) fn kind(&self) -> u16 {
        self.mode & TYPE
    }

    pub(crate) fn is_dir(&self) -> bool {
        self.kind() == DIRECTORY
    }

    /// Whether a symlink's target is in the inode itself.
    pub(crate) fn is_fast_symlink(&self, block_size: usize) -> bool {
        let acl = if self.file_acl != 0 {
            (block_size / 512) as u32
        } else {
            0
        };
        self.kind() == SYMLINK && self.sectors == acl && self.size <= 59
    }

    /// Whether `block` maps data.
    pub(crate) fn is_mapped(&self, block_size: usize) -> bool {
        match self.kind() {
            REGULAR | DIRECTORY => true,
            SYMLINK => !self.is_fast_symlink(block_size),
            _ => false,
        }
    }

    /// The device number of a node.
    pub(crate) fn rdev(&self) -> u64 {
        match self.kind() {
            CHAR | BLOCK if self.block[0] != 0 => self.block[0] as u64,
            CHAR | BLOCK => self.block[1] as u64,
            _ => 0,
        }
    }

    /// Makes it the node of `rdev`; numbers of 8 bits each have the old form.
    pub(crate) fn set_rdev(&mut self, rdev: u64) {
        if rdev < 0x1_0000 {
            self.block[0] = rdev as u32;
        } else {
            self.block[1] = rdev as u32;
        }
    }
}

/// The file type byte of a directory entry.
pub(crate) fn entry_type(mode: u16) -> u8 {
    match mode & TYPE {
        REGULAR => 1,
        DIRECTORY => 2,
        CHAR => 3,
        BLOCK => 4,
        FIFO => 5,
        SOCKET => 6,
        SYMLINK => 7,
        _ => 0,
    }
}
