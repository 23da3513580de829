//! Memory that data is moved from or to: a program's, or VFS's own.

use crate::machine::{Grant, Machine};
use crate::peer::Peer;
use abi::grant::Access;
use abi::{Endpoint, Errno};
use core::cell::Cell;

/// Memory that takes part in a transfer.
#[derive(Clone, Copy, Debug)]
pub enum Memory<'a> {
    /// Of a process.
    User {
        /// The process.
        who: Endpoint,
        /// First byte.
        address: u64,
        /// Bytes.
        len: u64,
    },
    /// VFS's own data, only to be read.
    Data(&'a [u8]),
    /// VFS's own buffer, to be filled.
    Buffer(&'a [Cell<u8>]),
}

impl<'a> Memory<'a> {
    /// Memory of a process.
    pub const fn user(who: Endpoint, address: u64, len: u64) -> Memory<'static> {
        Memory::User { who, address, len }
    }

    /// VFS's own buffer, to be filled.
    pub fn own_mut(buffer: &'a mut [u8]) -> Memory<'a> {
        Memory::Buffer(Cell::from_mut(buffer).as_slice_of_cells())
    }

    /// VFS's own data, only to be read.
    pub const fn own(data: &'a [u8]) -> Memory<'a> {
        Memory::Data(data)
    }

    /// Bytes.
    pub const fn len(&self) -> u64 {
        match *self {
            Memory::User { len, .. } => len,
            Memory::Data(data) => data.len() as u64,
            Memory::Buffer(buffer) => buffer.len() as u64,
        }
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first `len` bytes (no more than there are).
    pub fn first(self, wanted: u64) -> Memory<'a> {
        let wanted = wanted.min(self.len());
        match self {
            Memory::User { who, address, .. } => Memory::user(who, address, wanted),
            Memory::Data(data) => Memory::Data(&data[..wanted as usize]),
            Memory::Buffer(buffer) => Memory::Buffer(&buffer[..wanted as usize]),
        }
    }

    /// What comes after the first `done` bytes.
    pub fn after(self, done: u64) -> Memory<'a> {
        let done = done.min(self.len());
        match self {
            Memory::User { who, address, len } => Memory::user(who, address + done, len - done),
            Memory::Data(data) => Memory::Data(&data[done as usize..]),
            Memory::Buffer(buffer) => Memory::Buffer(&buffer[done as usize..]),
        }
    }

    /// Lends it to a peer, who may do what `access` says.
    pub fn grant<D>(&self, peer: &Peer, access: Access) -> Result<Grant<'a, D>, Errno> {
        let machine = peer.machine();
        let to = peer.endpoint;
        let lent = match *self {
            Memory::User { who, address, len } => {
                machine.grant_user(to, who, address, len, access)?
            }
            Memory::Data(_) if access.writes() => return Err(Errno::EFAULT),
            Memory::Data(data) => machine.lend(to, data)?,
            Memory::Buffer(buffer) => machine.lend_cells(to, buffer, access)?,
        };
        Ok(Grant::new(machine, lent))
    }
}

/// Copies to a process without repair (for the parts that must not wait).
pub fn copy_out(machine: &dyn Machine, memory: Memory<'_>, data: &[u8]) -> Result<(), Errno> {
    match memory {
        Memory::User { who, address, .. } => machine.try_write(who, address, data),
        Memory::Data(_) => Err(Errno::EFAULT),
        Memory::Buffer(buffer) => {
            for (cell, &byte) in buffer.iter().zip(data) {
                cell.set(byte);
            }
            Ok(())
        }
    }
}
