//! The server's grant table (abi, `grant`).

use crate::cell::Single;
use crate::kernel::kcall;
use abi::grant::{Cpf, GRANT_INVALID, GrantEntry, SEQUENCE_MAX, id, split};
use abi::kernel::Kcall;
use abi::{Endpoint, Errno};
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

/// A grant of this server, revoked when dropped.
#[derive(Debug)]
pub struct Grant {
    id: i32,
}

impl Grant {
    /// The id to send.
    pub fn id(&self) -> i32 {
        self.id
    }

    /// Gives up the guard: the grant stays until [`Grant::from_id`] takes it back.
    pub fn into_id(self) -> i32 {
        let id = self.id;
        core::mem::forget(self);
        id
    }

    /// The guard of a grant that [`Grant::into_id`] gave up.
    pub fn from_id(id: i32) -> Grant {
        Grant { id }
    }

    /// Revokes; whether a copy through it met an absent page (the soft-fault mark).
    pub fn revoke(mut self) -> bool {
        let faulted = revoke(self.id);
        self.id = GRANT_INVALID;
        faulted
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        if self.id != GRANT_INVALID {
            revoke(self.id);
        }
    }
}

/// Grants in use (leak checks).
pub fn in_use() -> usize {
    TABLE.borrow().used
}

fn issue(entry: GrantEntry) -> Result<Grant, Errno> {
    let mut table = TABLE.borrow();
    if !table.registered {
        let address = table.entries.as_ptr() as u64;
        kcall(Kcall::SetGrants, [address, CAPACITY as u64, 0, 0, 0])?;
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
    Ok(Grant {
        id: id(index, sequence),
    })
}

fn revoke(id: i32) -> bool {
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

/// Access that the grantee gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// It may read (`write(2)`).
    Read,
    /// It may write (`read(2)`).
    Write,
    /// Both (ioctl).
    ReadWrite,
}

impl Access {
    fn bits(self) -> Cpf {
        match self {
            Access::Read => Cpf::READ,
            Access::Write => Cpf::WRITE,
            Access::ReadWrite => Cpf::READ.union(Cpf::WRITE),
        }
    }
}

/// Grants `grantee` the caller's own memory. The memory must stay valid until the grant is
/// revoked; with `Write` nobody else may look at it meanwhile.
pub fn direct(
    grantee: Endpoint,
    address: *const u8,
    len: usize,
    access: Access,
) -> Result<Grant, Errno> {
    let flags = Cpf::USED | Cpf::VALID | Cpf::DIRECT | access.bits();
    issue(GrantEntry {
        flags: flags.bits(),
        grantee: grantee.0,
        start: address as u64,
        len: len as u64,
        ..GrantEntry::FREE
    })
}

/// Grants `grantee` memory of `subject`, failing softly on absent pages (VFS).
pub fn magic(
    grantee: Endpoint,
    subject: Endpoint,
    address: u64,
    len: u64,
    access: Access,
) -> Result<Grant, Errno> {
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

/// Passes a grant that this server received on to `grantee`.
pub fn indirect(grantee: Endpoint, granter: Endpoint, grant: i32) -> Result<Grant, Errno> {
    let flags = Cpf::USED | Cpf::VALID | Cpf::INDIRECT;
    issue(GrantEntry {
        flags: flags.bits(),
        grantee: grantee.0,
        subject: granter.0,
        start: grant as u32 as u64,
        ..GrantEntry::FREE
    })
}
