//! The server's grant table (abi, `grant`).
//!
//! Why so: docs/decisions/027-borrowed-grants.md.

use crate::cell::Single;
use crate::kernel::call_with;
use abi::grant::{
    Access, Cpf, Either, GRANT_INVALID, GrantEntry, GrantTo, Reading, SEQUENCE_MAX, Writing, id,
    split,
};
use abi::kernel::{InRow, calls};
use abi::{Endpoint, Errno};
use core::cell::Cell;
use core::marker::PhantomData;
use core::sync::atomic::{Ordering, compiler_fence};

/// Entries of the table.
pub const CAPACITY: usize = 1024;

struct Table {
    entries: [GrantEntry; CAPACITY],
    /// Next free entry of each free entry; `CAPACITY` ends the list.
    next: [u16; CAPACITY],
    free: usize,
    used: usize,
    registered: bool,
}

static TABLE: Single<Table> = Single::new(Table {
    entries: [GrantEntry::FREE; CAPACITY],
    next: {
        let mut next = [0; CAPACITY];
        let mut i = 0;
        while i < CAPACITY {
            next[i] = i as u16 + 1;
            i += 1;
        }
        next
    },
    free: 0,
    used: 0,
    registered: false,
});

/// The number of a grant, with the borrow of the memory behind it. It stays until [`revoke`].
#[derive(Debug)]
pub struct Lent<'a> {
    /// The id to send.
    pub id: i32,
    memory: PhantomData<&'a [Cell<u8>]>,
}

impl Lent<'_> {
    /// A grant's number.
    pub const fn new(id: i32) -> Self {
        Lent {
            id,
            memory: PhantomData,
        }
    }
}

/// A grant of this server, revoked when dropped. The memory behind it is borrowed meanwhile.
#[derive(Debug)]
pub struct Grant<'a, D> {
    lent: Lent<'a>,
    direction: PhantomData<D>,
}

impl<'a, D> Grant<'a, D> {
    const fn new(lent: Lent<'a>) -> Self {
        Grant {
            lent,
            direction: PhantomData,
        }
    }

    /// The id to send.
    pub fn to(&self) -> GrantTo<D> {
        GrantTo::new(self.lent.id)
    }

    /// For a request that says itself which way the data goes.
    pub fn either(self) -> Grant<'a, Either> {
        let id = self.lent.id;
        core::mem::forget(self);
        Grant::new(Lent::new(id))
    }
}

impl<D> Drop for Grant<'_, D> {
    fn drop(&mut self) {
        revoke(self.lent.id);
    }
}

/// Grants in use (leak checks).
pub fn in_use() -> usize {
    TABLE.borrow().used
}

fn issue<'a>(entry: GrantEntry) -> Result<Lent<'a>, Errno> {
    let mut table = TABLE.borrow();
    if !table.registered {
        let entries = InRow::of(&table.entries);
        // SAFETY: the table is a static, and the kernel, which marks entries, runs while nobody borrows it.
        unsafe { call_with(calls::SetGrants { table: entries }) }?;
        table.registered = true;
    }
    let index = table.free;
    if index == CAPACITY {
        return Err(Errno::ENOMEM);
    }
    table.free = table.next[index] as usize;
    table.used += 1;
    let slot = &mut table.entries[index];
    let sequence = slot.sequence;
    *slot = GrantEntry {
        flags: 0,
        sequence,
        ..entry
    };
    // The kernel reads the entry only during our traps, so compiler order is enough: body
    // first, then the flags that publish it.
    compiler_fence(Ordering::Release);
    slot.flags = entry.flags;
    Ok(Lent::new(id(index, sequence)))
}

/// Revokes a grant; whether a copy through it met an absent page. A grant that is not, is not revoked.
pub fn revoke(id: i32) -> bool {
    let mut table = TABLE.borrow();
    let Ok((index, sequence)) = split(id) else {
        return false;
    };
    let Some(slot) = table.entries.get_mut(index) else {
        return false;
    };
    if slot.sequence != sequence || slot.flags == 0 {
        return false;
    }
    slot.flags = 0;
    compiler_fence(Ordering::Release);
    let faulted = slot.faulted == id;
    slot.sequence = if sequence == SEQUENCE_MAX {
        0
    } else {
        sequence + 1
    };
    slot.faulted = GRANT_INVALID;
    table.next[index] = table.free as u16;
    table.free = index;
    table.used -= 1;
    faulted
}

/// Lets `grantee` read `data` of the caller's own.
pub fn lend(grantee: Endpoint, data: &[u8]) -> Result<Grant<'_, Reading>, Errno> {
    lend_data(grantee, data).map(Grant::new)
}

/// Lets `grantee` fill a buffer of the caller's own.
pub fn lend_mut(grantee: Endpoint, buffer: &mut [u8]) -> Result<Grant<'_, Writing>, Errno> {
    let buffer = Cell::from_mut(buffer).as_slice_of_cells();
    lend_cells(grantee, buffer, Access::Write).map(Grant::new)
}

/// [`lend`] until [`revoke`].
pub fn lend_data(grantee: Endpoint, data: &[u8]) -> Result<Lent<'_>, Errno> {
    direct(grantee, data.as_ptr() as u64, data.len(), Access::Read)
}

/// Lets `grantee` use memory of the caller's own that both may change, until [`revoke`].
pub fn lend_cells(
    grantee: Endpoint,
    memory: &[Cell<u8>],
    access: Access,
) -> Result<Lent<'_>, Errno> {
    direct(grantee, memory.as_ptr() as u64, memory.len(), access)
}

/// Grants `grantee` the caller's own memory, which the grant borrows.
fn direct<'a>(
    grantee: Endpoint,
    start: u64,
    len: usize,
    access: Access,
) -> Result<Lent<'a>, Errno> {
    let flags = Cpf::USED | Cpf::VALID | Cpf::DIRECT | access.bits();
    issue(GrantEntry {
        flags: flags.bits(),
        grantee: grantee.0,
        start,
        len: len as u64,
        ..GrantEntry::FREE
    })
}

/// Grants `grantee` memory of `subject` until [`revoke`], failing softly on absent pages (VFS).
pub fn magic(
    grantee: Endpoint,
    subject: Endpoint,
    address: u64,
    len: u64,
    access: Access,
) -> Result<Lent<'static>, Errno> {
    let flags = Cpf::USED | Cpf::VALID | Cpf::MAGIC | Cpf::TRY | access.bits();
    issue(GrantEntry {
        flags: flags.bits(),
        grantee: grantee.0,
        subject: subject.0,
        start: address,
        len,
        ..GrantEntry::FREE
    })
}
