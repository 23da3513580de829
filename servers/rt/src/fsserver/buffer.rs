//! Data between a file system and the memory that VFS granted it, directory records among it.

use super::Result;
use abi::grant::{GrantTo, Reading, Writing};
use abi::kernel::{MAX_VECTOR, SafeCopy};
use abi::{Endpoint, Errno, Message, PAGE_SIZE};
use alloc::vec::Vec;
use core::marker::PhantomData;

use crate::copy;
use crate::ipc::{self, Received};

/// Memory behind a grant of VFS: a program's, or VFS's own.
#[derive(Clone, Copy, Debug)]
pub struct UserBuffer<D = Reading> {
    pub(super) granter: Endpoint,
    pub(super) grant: GrantTo<D>,
    pub(super) len: u64,
}

impl UserBuffer {
    /// Its length.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Copies out of it, from `offset` on.
    pub fn copy_in(&self, offset: u64, data: &mut [u8]) -> Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        copy::safecopy_from(self.granter, self.grant, offset, data)
    }
}

/// Data of a write on its way from a [`UserBuffer`] into the file system: fetched before any
/// of it is stored, so that a copy that fails has changed nothing.
#[derive(Default)]
pub struct Bounce(Vec<u8>);

impl Bounce {
    /// Bytes fetched at once. A longer write can fail half way, and then has to be undone.
    pub const LEN: usize = 256 << 10;

    /// Writes all of `from` at `position` by `store`, which may store less and then ends it.
    /// Returns how much was stored, and the failure that ended it if any did.
    pub fn write(
        &mut self,
        from: &UserBuffer,
        position: u64,
        mut store: impl FnMut(u64, &[u8]) -> Result<usize>,
    ) -> (u64, Result<()>) {
        let mut done = 0;
        while done < from.len() {
            let len = (from.len() - done).min(Self::LEN as u64) as usize;
            let part = self.fetch(from, done, len).and_then(|data| {
                let at = position.checked_add(done).ok_or(Errno::EFBIG)?;
                store(at, data)
            });
            match part {
                Ok(n) => {
                    done += n as u64;
                    if n < len {
                        break;
                    }
                }
                Err(errno) => return (done, Err(errno)),
            }
        }
        (done, Ok(()))
    }

    fn fetch(&mut self, from: &UserBuffer, offset: u64, len: usize) -> Result<&[u8]> {
        if self.0.len() < len {
            let more = len - self.0.len();
            self.0.try_reserve_exact(more).map_err(|_| Errno::ENOMEM)?;
            self.0.resize(len, 0);
        }
        let data = &mut self.0[..len];
        from.copy_in(offset, data)?;
        Ok(data)
    }
}

/// What an answer speaks of, on its way from the server's memory to where VFS granted it. The last pieces go along with
/// the answer, in the same kernel visit; so they stay borrowed until then.
pub struct Outgoing<'a> {
    to: UserBuffer<Writing>,
    copies: Vec<SafeCopy>,
    offset: u64,
    pieces: PhantomData<&'a [u8]>,
}

impl<'a> Outgoing<'a> {
    /// Into `to`, from its start on.
    pub(super) fn new(to: UserBuffer<Writing>) -> Outgoing<'a> {
        Outgoing {
            to,
            copies: Vec::new(),
            offset: 0,
            pieces: PhantomData,
        }
    }

    /// Nothing, nowhere.
    pub(super) fn nothing() -> Outgoing<'a> {
        Outgoing::new(UserBuffer {
            granter: Endpoint::NONE,
            grant: GrantTo::NONE,
            len: 0,
        })
    }

    /// Bytes there is room for, less those that were said already.
    pub fn room(&self) -> u64 {
        self.to.len.saturating_sub(self.offset)
    }

    /// The next bytes, which are copied before this returns.
    pub fn now<'b>(&mut self, give: impl FnOnce(&mut Outgoing<'b>) -> Result<()>) -> Result<()> {
        let mut part = Outgoing::new(self.to);
        part.offset = self.offset;
        give(&mut part)?;
        part.flush()?;
        self.offset = part.offset;
        Ok(())
    }

    /// The next bytes.
    pub fn data(&mut self, data: &'a [u8]) -> Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        if self.copies.len() == MAX_VECTOR {
            self.flush()?;
        }
        self.copies.push(SafeCopy {
            granter: self.to.granter.0,
            grant: self.to.grant.id(),
            offset: self.offset,
            address: data.as_ptr() as u64,
            len: data.len() as u64,
            to_grant: 1,
        });
        self.offset += data.len() as u64;
        Ok(())
    }

    /// The next `len` bytes are zero.
    pub fn zero(&mut self, len: u64) -> Result<()> {
        static ZEROES: [u8; PAGE_SIZE] = [0; PAGE_SIZE];
        if len <= ZEROES.len() as u64 {
            return self.data(&ZEROES[..len as usize]);
        }
        self.flush()?;
        copy::safe_memset(self.to.granter, self.to.grant, self.offset, len, 0)?;
        self.offset += len;
        Ok(())
    }

    /// Copies what was not copied yet.
    pub(super) fn flush(&mut self) -> Result<()> {
        let result = match &self.copies[..] {
            [] => Ok(()),
            // SAFETY: each element was made from a slice that is borrowed for 'a, which outlives
            // `self`; the copies only read them.
            copies => unsafe { copy::safecopy_vector(copies) },
        };
        self.copies.clear();
        result
    }

    /// Copies what was not copied yet, posts the answer to `to` and waits for the next message. `EAGAIN` when all was
    /// copied and the outbox is full; any other error is the copies', and nothing was posted.
    pub(super) fn leave_with(&mut self, to: Endpoint, answer: Message) -> Result<Received> {
        let left = match &self.copies[..] {
            [] => ipc::post_receive(to, answer),
            // SAFETY: as in `flush`; nobody runs here until the kernel has made the copies.
            copies => unsafe { ipc::copy_post_receive(copies, to, answer) },
        };
        self.copies.clear();
        left
    }
}

/// Linux `linux_dirent64` records being collected.
#[derive(Default)]
pub struct Dirents {
    bytes: Vec<u8>,
    limit: usize,
    refused: bool,
}

impl Dirents {
    /// Room for `limit` bytes of records.
    pub fn new(limit: usize) -> Dirents {
        let mut dirents = Dirents::default();
        dirents.start(limit);
        dirents
    }

    /// Forgets all records; there is room for `limit` bytes of others.
    pub(super) fn start(&mut self, limit: usize) {
        self.bytes.clear();
        self.limit = limit;
        self.refused = false;
    }

    /// Adds a record; `next` is the position after it, `kind` a DT_*. False when it does not
    /// fit: the entry was not taken and no more can be.
    pub fn push(&mut self, ino: u64, next: u64, kind: u8, name: &[u8]) -> bool {
        const HEADER: usize = 19;
        let len = (HEADER + name.len() + 1).next_multiple_of(8);
        if self.refused || self.bytes.len() + len > self.limit {
            self.refused = true;
            return false;
        }
        let end = self.bytes.len() + len;
        self.bytes.extend_from_slice(&ino.to_le_bytes());
        self.bytes.extend_from_slice(&next.to_le_bytes());
        self.bytes.extend_from_slice(&(len as u16).to_le_bytes());
        self.bytes.push(kind);
        self.bytes.extend_from_slice(name);
        self.bytes.resize(end, 0);
        true
    }

    /// The records; `EINVAL` when there are entries and not one fits.
    pub fn finish(&self) -> Result<&[u8]> {
        if self.bytes.is_empty() && self.refused {
            return Err(Errno::EINVAL);
        }
        Ok(&self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dirents_are_linux_records() {
        let mut d = Dirents::new(48);
        assert!(d.push(7, 12, 4, b"."));
        assert!(!d.push(8, 24, 8, b"a-name-that-is-longer"));
        assert!(!d.push(9, 36, 8, b"b"), "none after one was refused");
        let bytes = d.finish().unwrap();
        assert_eq!(bytes.len(), 24);
        assert_eq!(bytes[0], 7);
        assert_eq!(bytes[8], 12);
        assert_eq!(bytes[16..19], [24, 0, 4]);
        assert_eq!(bytes[19..24], *b".\0\0\0\0");
        let mut d = Dirents::new(16);
        assert!(!d.push(1, 1, 0, b"x"));
        assert_eq!(d.finish(), Err(Errno::EINVAL));
        assert_eq!(Dirents::new(0).finish(), Ok(&[][..]));
    }
}
