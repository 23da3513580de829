//! VFS's own structures to and from a process: copy with TRY, repair, copy with TRY again.

use crate::peer::Peer;
use crate::transfer::{ATTEMPTS, handle_memory, make_present, repairable};
use abi::fs::PATH_MAX;
use abi::kernel::user_range;
use abi::{Endpoint, Errno, PAGE, PAGE_SIZE, page_down};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use core::ffi::CStr;
use rt::heap;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// The memory of a process.
#[derive(Clone)]
pub struct UserMemory {
    /// The process.
    pub who: Endpoint,
    vm: Peer,
}

impl UserMemory {
    /// The memory of `who`, repaired by `vm`.
    pub fn new(who: Endpoint, vm: &Peer) -> UserMemory {
        UserMemory {
            who,
            vm: vm.clone(),
        }
    }

    /// Fills `buffer` from `address`.
    pub async fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), Errno> {
        if buffer.is_empty() {
            return Ok(());
        }
        let len = buffer.len() as u64;
        user_range(address, len)?;
        for _ in 0..ATTEMPTS {
            match self.vm.machine().try_read(self.who, address, buffer) {
                Err(errno) if repairable(errno) => {
                    handle_memory(&self.vm, self.who, address, len, false).await?;
                }
                result => return result,
            }
        }
        Err(Errno::EFAULT)
    }

    /// Fills the beginning of `buffer` from `address`, as far as there is memory: how many bytes.
    /// An error when the first is not there.
    pub async fn read_some(&self, address: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
        let len = buffer.len();
        let read = |good| (self.vm.machine()).try_read(self.who, address, &mut buffer[..good]);
        self.as_far(address, len, false, read).await
    }

    /// Writes `data` to `address`.
    pub async fn write(&self, address: u64, data: &[u8]) -> Result<(), Errno> {
        if data.is_empty() {
            return Ok(());
        }
        let len = data.len() as u64;
        user_range(address, len)?;
        for _ in 0..ATTEMPTS {
            match self.vm.machine().try_write(self.who, address, data) {
                Err(errno) if repairable(errno) => {
                    handle_memory(&self.vm, self.who, address, len, true).await?;
                }
                result => return result,
            }
        }
        Err(Errno::EFAULT)
    }

    /// Writes the beginning of `data` to `address`, as far as there is memory: how many bytes. An error
    /// when the first is not there.
    pub async fn write_some(&self, address: u64, data: &[u8]) -> Result<usize, Errno> {
        let write = |good| (self.vm.machine()).try_write(self.who, address, &data[..good]);
        self.as_far(address, data.len(), true, write).await
    }

    /// Copies by `copy`, which is told how many bytes, as much of `len` bytes at `address` as is there
    /// or can be brought: how many.
    async fn as_far(
        &self,
        address: u64,
        len: usize,
        write: bool,
        mut copy: impl FnMut(usize) -> Result<(), Errno>,
    ) -> Result<usize, Errno> {
        let mut good = len;
        if good == 0 {
            return Ok(0);
        }
        user_range(address, good as u64)?;
        for _ in 0..ATTEMPTS {
            match copy(good) {
                Err(errno) if repairable(errno) => {
                    let wanted = good as u64;
                    let (now, _) = make_present(&self.vm, self.who, address, wanted, write).await?;
                    good = now as usize;
                }
                result => return result.map(|()| good),
            }
        }
        Err(Errno::EFAULT)
    }

    /// Reads `len` bytes.
    pub async fn read_vec(&self, address: u64, len: usize) -> Result<Vec<u8>, Errno> {
        let mut buffer = zeroed(len)?;
        self.read(address, &mut buffer).await?;
        Ok(buffer)
    }

    /// Reads one structure.
    pub async fn get<T: FromBytes + IntoBytes>(&self, address: u64) -> Result<T, Errno> {
        let mut value = T::new_zeroed();
        self.read(address, value.as_mut_bytes()).await?;
        Ok(value)
    }

    /// Writes one structure.
    pub async fn put<T: IntoBytes + Immutable>(
        &self,
        address: u64,
        value: &T,
    ) -> Result<(), Errno> {
        self.write(address, value.as_bytes()).await
    }

    /// Reads a path: `ENAMETOOLONG`, and no check of what is in it.
    pub async fn path(&self, address: u64) -> Result<Vec<u8>, Errno> {
        let mut path = Vec::new();
        while path.len() < PATH_MAX {
            let at = address
                .checked_add(path.len() as u64)
                .ok_or(Errno::EFAULT)?;
            // Most paths are short: to the end of the page, or one small piece.
            let room = (PAGE - at % PAGE).min(256) as usize;
            let start = path.len();
            path.resize(start + room, 0);
            self.read(at, &mut path[start..]).await?;
            if let Ok(text) = CStr::from_bytes_until_nul(&path[start..]) {
                path.truncate(start + text.count_bytes());
                return if path.len() < PATH_MAX {
                    Ok(path)
                } else {
                    Err(Errno::ENAMETOOLONG)
                };
            }
        }
        Err(Errno::ENAMETOOLONG)
    }
}

pub use rt::room::zeroed;

/// A process's memory read page by page, each page once: many small pieces that stand close
/// together (argument strings) cost one copy.
pub struct Pages {
    memory: UserMemory,
    pages: BTreeMap<u64, Box<[u8]>>,
}

impl Pages {
    /// Nothing read yet.
    pub fn new(memory: UserMemory) -> Pages {
        Pages {
            memory,
            pages: BTreeMap::new(),
        }
    }

    async fn page(&mut self, address: u64) -> Result<&[u8], Errno> {
        let page = page_down(address);
        if !self.pages.contains_key(&page) {
            // Many of these, small as each is, are not to be taken from the reserve.
            if !heap::ready() {
                return Err(Errno::ENOMEM);
            }
            let mut bytes = vec![0; PAGE_SIZE].into_boxed_slice();
            self.memory.read(page, &mut bytes).await?;
            self.pages.insert(page, bytes);
        }
        self.pages
            .get(&page)
            .map(|bytes| &**bytes)
            .ok_or(Errno::EFAULT)
    }

    /// One word.
    pub async fn word(&mut self, address: u64) -> Result<u64, Errno> {
        let mut bytes = [0; 8];
        let from = (address % PAGE) as usize;
        if let Some(whole) = self.page(address).await?.get(from..from + 8) {
            bytes.copy_from_slice(whole);
            return Ok(u64::from_le_bytes(bytes));
        }
        for (i, byte) in bytes.iter_mut().enumerate() {
            let at = address.checked_add(i as u64).ok_or(Errno::EFAULT)?;
            *byte = self.page(at).await?[(at % PAGE) as usize];
        }
        Ok(u64::from_le_bytes(bytes))
    }

    /// Appends the string at `address` without its NUL; `E2BIG` beyond `max` bytes.
    pub async fn string(
        &mut self,
        address: u64,
        max: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), Errno> {
        let (mut at, start) = (address, out.len());
        loop {
            let from = (at % PAGE) as usize;
            let rest = &self.page(at).await?[from..];
            let end = rest.iter().position(|&b| b == 0);
            let piece = &rest[..end.unwrap_or(rest.len())];
            if out.len() - start + piece.len() > max {
                return Err(Errno::E2BIG);
            }
            out.try_reserve(piece.len()).map_err(|_| Errno::ENOMEM)?;
            out.extend_from_slice(piece);
            if end.is_some() {
                return Ok(());
            }
            at = at.checked_add(piece.len() as u64).ok_or(Errno::EFAULT)?;
        }
    }
}
