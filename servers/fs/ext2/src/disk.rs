//! The device in units of blocks, and the "clean" mark on it.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use crate::device::{BlockDevice, SECTOR};
use crate::layout::{STATE_VALID, SUPER_AT, SUPER_LEN, le16, put16};
use crate::{Errno, Result, TRANSFER};

/// A device, its block size, and the buffer that clustered requests go through.
pub(crate) struct Disk<D> {
    pub device: D,
    pub block_size: usize,
    /// [`TRANSFER`] bytes.
    pub transfer: Vec<u8>,
    /// The superblock on the disk says "clean": it must say otherwise before anything else
    /// is written.
    clean: Option<Box<[u8; SUPER_LEN]>>,
    pub read_only: bool,
}

impl<D: BlockDevice> Disk<D> {
    pub(crate) fn new(device: D, block_size: usize) -> Disk<D> {
        Disk {
            device,
            block_size,
            transfer: vec![0; TRANSFER],
            clean: None,
            read_only: false,
        }
    }

    fn sector(&self, block: u32) -> u64 {
        block as u64 * (self.block_size / SECTOR) as u64
    }

    /// Blocks that fit one request.
    pub(crate) fn cluster(&self) -> usize {
        TRANSFER / self.block_size
    }

    /// Reads blocks from `block` on, as many as fill `buffer`.
    pub(crate) fn read(&mut self, block: u32, buffer: &mut [u8]) -> Result<()> {
        self.device.read(self.sector(block), buffer)
    }

    /// Reads `count` (at most [`Self::cluster`]) blocks into the transfer buffer.
    pub(crate) fn read_cluster(&mut self, block: u32, count: usize) -> Result<()> {
        let sector = self.sector(block);
        let len = count * self.block_size;
        self.device.read(sector, &mut self.transfer[..len])
    }

    /// Writes `count` blocks out of the transfer buffer.
    pub(crate) fn write_cluster(&mut self, block: u32, count: usize) -> Result<()> {
        self.before_write()?;
        let sector = self.sector(block);
        let len = count * self.block_size;
        self.device.write(sector, &self.transfer[..len])
    }

    /// Writes the superblock.
    pub(crate) fn write_super(&mut self, raw: &[u8; SUPER_LEN]) -> Result<()> {
        if self.read_only {
            return Err(Errno::EROFS);
        }
        self.device.write((SUPER_AT / SECTOR) as u64, raw)?;
        self.clean = None;
        if le16(raw, 58) & STATE_VALID != 0 {
            self.marked_clean(raw);
        }
        Ok(())
    }

    /// The superblock on the disk says "clean"; `raw` is to be written before anything else,
    /// saying otherwise.
    pub(crate) fn marked_clean(&mut self, raw: &[u8; SUPER_LEN]) {
        self.clean = Some(Box::new(*raw));
    }

    /// Whether the superblock on the disk says "clean".
    pub(crate) fn is_marked_clean(&self) -> bool {
        self.clean.is_some()
    }

    /// Takes the clean mark off the disk, if it is there.
    fn before_write(&mut self) -> Result<()> {
        if self.read_only {
            return Err(Errno::EROFS);
        }
        if let Some(mut raw) = self.clean.take() {
            let state = le16(&raw[..], 58);
            put16(&mut raw[..], 58, state & !STATE_VALID);
            if let Err(errno) = self.write_super(&raw) {
                put16(&mut raw[..], 58, state);
                self.clean = Some(raw);
                return Err(errno);
            }
        }
        Ok(())
    }
}
