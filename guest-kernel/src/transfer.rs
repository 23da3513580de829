//! The copy calls and their fault policy: fail (TRY), or park the caller, have VM make the
//! range available, and let the caller make the whole call again. What TRY means is the
//! run's [`CopyPolicy`].

use crate::copy::{self, Absent, Operand, Side};
use crate::counters::{COUNTERS, add};
use crate::global::Global;
use crate::grant::{self, Refusal, Resolved};
use crate::lab;
use crate::notice::notice;
use crate::process::{self, Mark, Parked, Process};
use crate::sched::block;
use abi::grant::{Cpf, GrantEntry};
use abi::kernel::{
    At, Brings, CP_FLAG_TRY, KernelNotify, MAX_VECTOR, PRIV_COPY_ANY, PRIV_PHYSICAL, Row, SafeCopy,
    VirCopy, rts, user_range,
};
use abi::policy::CopyPolicy;
use abi::sabotage;
use abi::trace::{self, Then};
use abi::{Endpoint, Errno, Message, PAGE};
use core::cell::Cell;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// How a kernel call ended.
pub type Outcome<T = ()> = Result<T, Stop>;

/// Why it did not return a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// An error for the caller.
    Failed(Errno),
    /// The caller is parked; it makes the call again when VM has answered.
    Parked,
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Stop {
        Stop::Failed(errno)
    }
}

/// One side of a copy: an operand and whose it is.
struct End {
    who: Endpoint,
    operand: Operand,
}

fn end_of(who: Endpoint, address: u64) -> Result<End, Errno> {
    let process = process::find(who)?;
    Ok(End {
        who,
        operand: Operand {
            cr3: Some(process.cr3.get()),
            address,
        },
    })
}

static POLICY: Global<CopyPolicy> = Global::new(CopyPolicy::Try);

/// What copies do that may fail. Boot.
pub fn set_policy(policy: CopyPolicy) {
    POLICY.set(policy);
}

/// How a copy wants to fail.
#[derive(Clone, Copy)]
enum Failure {
    /// It does not: VM repairs and the caller waits.
    Repaired,
    /// With `EFAULT` (TRY).
    Soft,
    /// Likewise, and the grant bears the mark.
    Marked(Mark),
}

impl Failure {
    fn of_flags(flags: u64) -> Failure {
        if flags & CP_FLAG_TRY != 0 {
            Failure::Soft
        } else {
            Failure::Repaired
        }
    }

    fn may(self) -> bool {
        !matches!(self, Failure::Repaired)
    }

    fn of_grant(grant: &Resolved) -> Failure {
        if grant.soft {
            Failure::Marked(grant.mark)
        } else {
            Failure::Repaired
        }
    }

    /// As it is: the mark is at the entry that grants the memory. With a deliberate defect it is at
    /// the one that the copier named.
    fn marked_at(self, request: &SafeCopy) -> Failure {
        match self {
            Failure::Marked(_) if lab::sabotaged(sabotage::MARK_AT_FIRST) => {
                Failure::Marked(Mark {
                    granter: Endpoint(request.granter),
                    id: request.grant,
                })
            }
            failure => failure,
        }
    }
}

/// Parks `caller` until VM has answered.
fn park(caller: &'static Process, parked: Parked) -> Stop {
    add(&COUNTERS.memory_requests, 1);
    caller.parked.set(Some(parked));
    block(caller, rts::MEMREQ);
    notice(Endpoint::VM, KernelNotify::MEMREQ);
    Stop::Parked
}

/// A wait for `len` bytes of `end`.
fn wait_for(end: &End, len: u64, write: bool) -> Parked {
    Parked {
        target: end.who,
        address: end.operand.address,
        len,
        write,
        soft: false,
        fetched: false,
        mark: None,
        failure: None,
    }
}

/// Parks `caller` until VM has made memory available that belongs to a server and never comes
/// from a file, so that VM needs nobody for it; `failure` is what the caller gets if it cannot.
fn park_for_server(
    caller: &'static Process,
    who: Endpoint,
    (address, len, write): (u64, u64, bool),
    failure: Errno,
) -> Stop {
    match end_of(who, address) {
        Ok(end) if caller.endpoint.get() != Endpoint::VM => {
            let mut parked = wait_for(&end, len, write);
            parked.failure = Some(failure);
            park(caller, parked)
        }
        _ => Stop::Failed(failure),
    }
}

/// What came of an access to `(address, bytes, written)` of the caller's own: when that is
/// absent VM makes it present, and the call is made again.
#[inline(always)]
pub fn own<T>(
    caller: &'static Process,
    range: (u64, u64, bool),
    result: Result<T, Errno>,
) -> Result<T, Stop> {
    match result {
        Ok(value) => Ok(value),
        Err(errno) => Err(own_absent(caller, range, errno)),
    }
}

#[cold]
#[inline(never)]
fn own_absent(
    caller: &'static Process,
    (address, len, write): (u64, u64, bool),
    errno: Errno,
) -> Stop {
    if errno != Errno::EFAULT || user_range(address, len).is_err() {
        return Stop::Failed(errno);
    }
    park_for_server(caller, caller.endpoint.get(), (address, len, write), errno)
}

/// Reads a structure of the caller's own.
#[inline(always)]
pub fn own_struct<T: FromBytes>(caller: &'static Process, at: At<T>) -> Outcome<T> {
    let read = copy::read_struct(caller.cr3.get(), at.address);
    own(caller, (at.address, size_of::<T>() as u64, false), read)
}

/// Writes a structure to the caller.
#[inline(never)]
pub fn give<T: IntoBytes + Immutable>(caller: &'static Process, to: At<T>, value: &T) -> Outcome {
    let written = copy::write_struct(caller.cr3.get(), to.address, value);
    own(caller, (to.address, size_of::<T>() as u64, true), written)
}

/// Writes bytes to the caller.
#[inline(never)]
pub fn give_bytes(caller: &'static Process, address: u64, bytes: &[u8]) -> Outcome<usize> {
    let written = copy::write_bytes(caller.cr3.get(), address, bytes);
    let len = bytes.len() as u64;
    own(caller, (address, len, true), written)?;
    Ok(bytes.len())
}

/// Writes bytes of the kernel's that may change to the caller.
#[inline(never)]
pub fn give_cells(caller: &'static Process, address: u64, bytes: &[Cell<u8>]) -> Outcome<usize> {
    let written = copy::write_cells(caller.cr3.get(), address, bytes);
    let len = bytes.len() as u64;
    own(caller, (address, len, true), written)?;
    Ok(bytes.len())
}

/// Reads bytes of the caller.
#[inline(never)]
pub fn own_bytes(caller: &'static Process, address: u64, to: &[Cell<u8>]) -> Outcome {
    let range = (address, to.len() as u64, false);
    let read = copy::read_cells(caller.cr3.get(), address, to);
    own(caller, range, read)
}

/// [`grant::resolve`] for `caller`; a grant table that is not resident is made so.
fn resolve(
    caller: &'static Process,
    granter: Endpoint,
    id: i32,
    (offset, len): (u64, u64),
    access: Cpf,
) -> Result<Resolved, Stop> {
    grant::resolve(caller.endpoint.get(), granter, id, offset, len, access).map_err(|refusal| {
        match refusal {
            Refusal::Failed(errno) => Stop::Failed(errno),
            Refusal::Absent(owner, entry) => {
                let entry = (entry, size_of::<GrantEntry>() as u64, false);
                park_for_server(caller, owner, entry, Errno::EPERM)
            }
        }
    })
}

/// Parks `caller` until VM has made the whole operand available, or fails at once: `len`
/// bytes of `end` could not be accessed. Only the target is ever asked to be writable.
///
/// TRY is about the memory of others. What is the copier's own VM repairs without anybody's
/// help.
fn settle(caller: &'static Process, failure: Failure, end: &End, len: u64, write: bool) -> Stop {
    let policy = POLICY.get();
    let mark = match failure {
        Failure::Marked(mark) => Some(mark),
        _ => None,
    };
    let soft = failure.may()
        && policy != CopyPolicy::Transparent
        && end.who != caller.endpoint.get()
        && !lab::sabotaged(sabotage::TRY_IGNORED);
    if soft && policy == CopyPolicy::Try {
        add(&COUNTERS.soft_faults, 1);
        let mark = mark.filter(|_| !lab::sabotaged(sabotage::NO_MARK));
        if let Some(Err((granter, entry))) = mark.map(|mark| grant::set_mark(&mark)) {
            // A mark that is lost is data that is lost.
            let entry = (entry, size_of::<GrantEntry>() as u64, true);
            return park_for_server(caller, granter, entry, Errno::EFAULT);
        }
        return Stop::Failed(Errno::EFAULT);
    }
    if end.operand.cr3.is_none() || caller.endpoint.get() == Endpoint::VM {
        return Stop::Failed(Errno::EFAULT);
    }
    let write = write || lab::sabotaged(sabotage::SOURCE_FOR_WRITING);
    let mut parked = wait_for(end, len, write);
    (parked.soft, parked.mark) = (soft, mark);
    park(caller, parked)
}

/// [`settle`] for a copy with two sides.
fn settle_copy(
    caller: &'static Process,
    failure: Failure,
    absent: Absent,
    (source, target): (&End, &End),
    len: u64,
) -> Stop {
    let (end, write) = match absent.side {
        Side::Source => (source, false),
        Side::Target => (target, true),
    };
    let stop = settle(caller, failure, end, len, write);
    note_absent(caller, end, absent, failure, stop);
    stop
}

fn note_absent(caller: &'static Process, end: &End, absent: Absent, failure: Failure, stop: Stop) {
    lab::note(|| trace::Absent {
        copier: caller.endpoint.get(),
        whose: end.who,
        address: absent.address,
        done: absent.done,
        in_target: absent.side == Side::Target,
        then: match (stop, failure) {
            (Stop::Parked, _) => Then::Parks,
            (Stop::Failed(_), Failure::Marked(_)) => Then::Marks,
            (Stop::Failed(_), _) => Then::Fails,
        },
    });
}

/// The fault point of a copy.
#[inline(always)]
fn before_copy(caller: &'static Process, source: &End, target: &End, len: u64, failure: Failure) {
    lab::note(|| trace::Copy {
        copier: caller.endpoint.get(),
        ends: (source.who, target.who),
        source: source.operand.address,
        target: target.operand.address,
        len,
        may_fail: failure.may(),
    });
}

/// [`copy::fill`] with its fault point and its policy.
fn fill(
    caller: &'static Process,
    target: &End,
    len: u64,
    pattern: u8,
    failure: Failure,
) -> Outcome {
    copy::check(&target.operand, len)?;
    let failure = match lab::sabotaged(sabotage::FILL_IGNORES_TRY) {
        true => Failure::Repaired,
        false => failure,
    };
    lab::note(|| trace::Fill {
        filler: caller.endpoint.get(),
        ends: (Endpoint::NONE, target.who),
        target: target.operand.address,
        len,
        may_fail: failure.may(),
    });
    match copy::fill(&target.operand, len, pattern) {
        Ok(()) => Ok(()),
        Err(absent) => {
            let stop = settle(caller, failure, target, len, true);
            note_absent(caller, target, absent, failure, stop);
            Err(stop)
        }
    }
}

fn safecopy_one(caller: &'static Process, request: &SafeCopy) -> Outcome {
    add(&COUNTERS.copies, 1);
    if request.len == 0 {
        return Err(Errno::EDOM.into());
    }
    let access = if request.to_grant != 0 {
        Cpf::WRITE
    } else {
        Cpf::READ
    };
    let grant = resolve(
        caller,
        Endpoint(request.granter),
        request.grant,
        (request.offset, request.len),
        access,
    )?;
    let own = End {
        who: caller.endpoint.get(),
        operand: Operand {
            cr3: Some(caller.cr3.get()),
            address: request.address,
        },
    };
    let other = end_of(grant.subject, grant.address)?;
    let (source, target) = if request.to_grant != 0 {
        (own, other)
    } else {
        (other, own)
    };
    copy::check(&source.operand, request.len)?;
    copy::check(&target.operand, request.len)?;
    let failure = Failure::of_grant(&grant);
    before_copy(caller, &source, &target, request.len, failure);
    match copy::transfer(&source.operand, &target.operand, request.len) {
        Ok(()) => Ok(()),
        Err(absent) => Err(settle_copy(
            caller,
            failure.marked_at(request),
            absent,
            (&source, &target),
            request.len,
        )),
    }
}

/// [`abi::kernel::Kcall::SafeCopy`].
pub fn safecopy(caller: &'static Process, copy: At<SafeCopy>) -> Outcome {
    let request = own_struct(caller, copy)?;
    safecopy_one(caller, &request)
}

/// [`abi::kernel::Kcall::SafeCopyVector`].
pub fn safecopy_vector(caller: &'static Process, copies: Row<SafeCopy>) -> Outcome {
    if copies.count as usize > MAX_VECTOR {
        return Err(Errno::EINVAL.into());
    }
    for n in 0..copies.count {
        let request = own_struct(caller, copies.at(n))?;
        safecopy_one(caller, &request)?;
    }
    Ok(())
}

/// [`abi::kernel::Kcall::SafeMemset`].
pub fn safe_memset(
    caller: &'static Process,
    (granter, id): (Endpoint, i32),
    offset: u64,
    len: u64,
    pattern: u8,
) -> Outcome {
    add(&COUNTERS.copies, 1);
    if len == 0 {
        return Err(Errno::EDOM.into());
    }
    let grant = resolve(caller, granter, id, (offset, len), Cpf::WRITE)?;
    let target = end_of(grant.subject, grant.address)?;
    fill(caller, &target, len, pattern, Failure::of_grant(&grant))
}

/// Puts what `from`'s Linux call brings along into the inbox of `to`, which receives it
/// ([`Brings`]). What is absent stays where it is: the server copies it as ever.
#[inline(never)]
pub fn bring(from: &'static Process, to: &'static Process, message: &mut Message) {
    let Some(brings) = Brings::decode(from.brings.get()) else {
        return;
    };
    let address = brings.address(message);
    if to.inbox.get() == 0 || address == 0 {
        return;
    }
    let end = |process: &'static Process, address| End {
        who: process.endpoint.get(),
        operand: Operand {
            cr3: Some(process.cr3.get()),
            address,
        },
    };
    let (source, target) = (end(from, address), end(to, to.inbox.get()));
    let len = brings.bytes.min(PAGE - address % PAGE);
    if copy::check(&source.operand, len).is_err() {
        return;
    }
    before_copy(to, &source, &target, len, Failure::Soft);
    match copy::transfer(&source.operand, &target.operand, len) {
        Ok(()) => {
            add(&COUNTERS.copies, 1);
            Brings::came(message, len);
        }
        Err(absent) => {
            let end = match absent.side {
                Side::Source => &source,
                Side::Target => &target,
            };
            note_absent(to, end, absent, Failure::Soft, Errno::EFAULT.into());
        }
    }
}

/// One side of a VirCopy, if `caller` may name it.
fn named_end(caller: &'static Process, who: Endpoint, address: u64) -> Result<End, Errno> {
    if who == Endpoint::SELF || who == caller.endpoint.get() {
        return Ok(End {
            who: caller.endpoint.get(),
            operand: Operand {
                cr3: Some(caller.cr3.get()),
                address,
            },
        });
    }
    if who == Endpoint::NONE {
        let allowed = caller.privileges.flags.get() & PRIV_PHYSICAL != 0;
        let allowed = allowed || lab::sabotaged(sabotage::PHYSICAL_FOR_ALL);
        if !allowed || lab::sabotaged(sabotage::PHYSICAL_FOR_NOBODY) {
            return Err(Errno::EPERM);
        }
        return Ok(End {
            who,
            operand: Operand { cr3: None, address },
        });
    }
    if caller.privileges.flags.get() & PRIV_COPY_ANY == 0 {
        return Err(Errno::EPERM);
    }
    end_of(who, address)
}

/// [`abi::kernel::Kcall::VirCopy`].
pub fn vircopy(caller: &'static Process, copy: At<VirCopy>) -> Outcome {
    add(&COUNTERS.copies, 1);
    let request = own_struct(caller, copy)?;
    if request.len == 0 {
        return Err(Errno::EDOM.into());
    }
    if request.flags & !CP_FLAG_TRY != 0 {
        return Err(Errno::EINVAL.into());
    }
    let source = named_end(caller, Endpoint(request.source), request.source_address)?;
    let target = named_end(caller, Endpoint(request.target), request.target_address)?;
    copy::check(&source.operand, request.len)?;
    copy::check(&target.operand, request.len)?;
    let failure = Failure::of_flags(request.flags);
    before_copy(caller, &source, &target, request.len, failure);
    match copy::transfer(&source.operand, &target.operand, request.len) {
        Ok(()) => Ok(()),
        Err(absent) => Err(settle_copy(
            caller,
            failure,
            absent,
            (&source, &target),
            request.len,
        )),
    }
}

/// [`abi::kernel::Kcall::Memset`].
pub fn memset(
    caller: &'static Process,
    (who, address): (Endpoint, u64),
    len: u64,
    pattern: u8,
    flags: u64,
) -> Outcome {
    add(&COUNTERS.copies, 1);
    if len == 0 {
        return Err(Errno::EDOM.into());
    }
    if flags & !CP_FLAG_TRY != 0 {
        return Err(Errno::EINVAL.into());
    }
    let target = named_end(caller, who, address)?;
    fill(caller, &target, len, pattern, Failure::of_flags(flags))
}
