//! Grants: from an id to the memory it stands for.

use crate::copy;
use crate::lab::{self, sabotaged};
use crate::process::{self, Mark, Process};
use abi::grant::{Cpf, GrantEntry, MAX_INDIRECT, split};
use abi::kernel::PRIV_MAGIC;
use abi::sabotage::{ACCESS_IGNORED, GRANTEE_IGNORED, SEQUENCE_IGNORED, UNUSED_GRANTS};
use abi::trace;
use abi::{Endpoint, Errno};
use core::mem::offset_of;

/// A validated grant.
pub struct Resolved {
    /// Whose memory.
    pub subject: Endpoint,
    /// First byte of the operation.
    pub address: u64,
    /// Copies fail softly.
    pub soft: bool,
    /// What a soft failure leaves behind.
    pub mark: Mark,
}

/// Why a grant does not serve.
#[derive(Clone, Copy, Debug)]
pub enum Refusal {
    /// An error for the caller.
    Failed(Errno),
    /// The granter's table entry at this address could not be read. When VM cannot help either
    /// it is `EPERM`.
    Absent(Endpoint, u64),
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Refusal {
        Refusal::Failed(errno)
    }
}

fn table_entry(granter: &Process, id: i32) -> Result<(u64, u32), Errno> {
    let (index, sequence) = split(id)?;
    if index as u64 >= granter.grant_count.get() {
        return Err(Errno::EPERM);
    }
    Ok((
        granter.grants.get() + (index * size_of::<GrantEntry>()) as u64,
        sequence,
    ))
}

/// Checks that `grantee` may access `len` bytes at `offset` of the grant with `access`.
///
/// A table entry that is not resident is [`Refusal::Absent`].
///
/// `EINVAL`: dead granter, negative id. `ELOOP`: more than [`MAX_INDIRECT`] hops. `ESRCH`:
/// dead subject of a magic grant. `EPERM`: everything else.
pub fn resolve(
    grantee: Endpoint,
    granter: Endpoint,
    id: i32,
    offset: u64,
    len: u64,
    access: Cpf,
) -> Result<Resolved, Refusal> {
    let user = grantee;
    let (mut grantee, mut granter, mut id) = (grantee, granter, id);
    for _ in 0..=MAX_INDIRECT {
        let owner = process::find(granter).map_err(|_| Errno::EINVAL)?;
        let (address, sequence) = table_entry(owner, id)?;
        lab::note(|| trace::Grant {
            user,
            granter,
            id: id as u32,
            entry: address,
        });
        let absent = |_| Refusal::Absent(granter, address);
        let entry: GrantEntry = copy::read_struct(owner.cr3.get(), address).map_err(absent)?;
        let flags = Cpf::from_bits_retain(entry.flags);
        let used = flags.contains(Cpf::USED | Cpf::VALID);
        let current = entry.sequence == sequence;
        let meant = entry.grantee == Endpoint::ANY.0 || entry.grantee == grantee.0;
        if !(used || sabotaged(UNUSED_GRANTS))
            || !(current || sabotaged(SEQUENCE_IGNORED))
            || !(meant || sabotaged(GRANTEE_IGNORED))
        {
            return Err(Errno::EPERM.into());
        }
        if flags.contains(Cpf::INDIRECT) {
            (grantee, granter, id) = (granter, Endpoint(entry.subject), entry.start as i32);
            continue;
        }
        let subject = if flags.contains(Cpf::DIRECT) {
            granter
        } else if flags.contains(Cpf::MAGIC) && owner.privileges.flags.get() & PRIV_MAGIC != 0 {
            Endpoint(entry.subject)
        } else {
            return Err(Errno::EPERM.into());
        };
        let inside = offset.checked_add(len).is_some_and(|end| end <= entry.len);
        let start = entry.start.checked_add(offset).ok_or(Errno::EPERM)?;
        let outside = !inside || start.checked_add(len).is_none();
        if (!flags.contains(access) || outside) && !sabotaged(ACCESS_IGNORED) {
            return Err(Errno::EPERM.into());
        }
        let soft = flags.contains(Cpf::TRY);
        return Ok(Resolved {
            subject,
            address: start,
            soft,
            mark: Mark { granter, id },
        });
    }
    Err(Errno::ELOOP.into())
}

/// Marks the grant: a copy through it failed softly. The granter and the entry's address when
/// the entry is not resident; a dead granter, or one with a smaller table by now, needs no mark.
pub fn set_mark(mark: &Mark) -> Result<(), (Endpoint, u64)> {
    let Ok(granter) = process::find(mark.granter) else {
        return Ok(());
    };
    let Ok((entry, _)) = table_entry(granter, mark.id) else {
        return Ok(());
    };
    let at = entry + offset_of!(GrantEntry, faulted) as u64;
    copy::write_struct(granter.cr3.get(), at, &mark.id).map_err(|_| (mark.granter, entry))
}
