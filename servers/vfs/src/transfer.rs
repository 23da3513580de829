//! File data between a process and a file system or driver: grant, ask, repair, ask again.
//!
//! The grant is magic and fails softly. Whether it met an absent page says the grant's own
//! mark, never the peer's status: a peer that reports partial success would hide it. A marked
//! attempt's results are discarded; position, size and counts change only after an attempt
//! without a mark, and every attempt starts from scratch.
//!
//! No lock that a page-in could want is held meanwhile: page-ins take none (`dispatch`).

use crate::memory::Memory;
use crate::peer::Peer;
use crate::sabotage;
use abi::grant::{Access, Direction, GrantTo, ToRead};
use abi::proto::vm;
use abi::{Endpoint, Errno};

/// Attempts of one transfer. Repaired pages may vanish again before they are used (threads,
/// memory pressure, somebody who takes pages away on purpose), but not for ever.
pub const ATTEMPTS: usize = 16;

/// [`transfer`] of data that the peer takes away piece by piece, as terminals and streams do: what it
/// took before it met an absent page is taken, and the next attempt begins behind that. How many bytes
/// were taken. `attempt` also gets how many were before.
pub async fn transfer_on(
    vm: &Peer,
    peer: &Peer,
    mut memory: Memory<'_>,
    mut attempt: impl AsyncFnMut(ToRead, u64, u64) -> Result<u64, Errno>,
) -> Result<u64, Errno> {
    let mut done = 0;
    let so_far = |done: u64, errno| if done > 0 { Ok(done) } else { Err(errno) };
    for _ in 0..ATTEMPTS {
        let grant = memory.grant(peer, Access::Read)?;
        let answer = attempt(grant.to(), memory.len(), done).await;
        let absent = grant.revoke();
        match answer {
            Err(errno) if !absent => return so_far(done, errno),
            Err(_) => {}
            Ok(taken) => {
                // No peer takes more than there is, whatever it says.
                let taken = taken.min(memory.len());
                done += taken;
                memory = memory.after(taken);
            }
        }
        if !absent || memory.is_empty() {
            return Ok(done);
        }
        match repair(vm, memory, false).await {
            Ok(good) => memory = good,
            Err(errno) => return so_far(done, errno),
        }
    }
    so_far(done, Errno::EFAULT)
}

/// How much of `wanted` bytes a file takes whose data come and go by `piece` bytes, each whole or not at
/// all, when only the first `good` are in memory that is there. `EFAULT` when that leaves none.
pub fn whole(good: u64, wanted: u64, piece: u64) -> Result<u64, Errno> {
    if good >= wanted {
        return Ok(wanted);
    }
    match good - good % piece {
        0 => Err(Errno::EFAULT),
        whole => Ok(whole),
    }
}

/// One transfer, in the direction of the operation that `attempt` asks for. `attempt` gets the
/// grant and its length and asks the peer; it is called
/// again after each repair. `vm` is the peer that repairs.
///
/// When only a part of the memory can be repaired the transfer is shortened to its good
/// beginning, as Linux does; `EFAULT` when even the first page is bad.
pub async fn transfer<D: Direction, T>(
    vm: &Peer,
    peer: &Peer,
    memory: Memory<'_>,
    attempt: impl AsyncFnMut(GrantTo<D>, u64) -> Result<T, Errno>,
) -> Result<T, Errno> {
    transfer_as(vm, peer, memory, D::ACCESS, attempt).await
}

/// [`transfer`] of a request that says itself which way the data goes: no more than `access`.
pub async fn transfer_as<D, T>(
    vm: &Peer,
    peer: &Peer,
    memory: Memory<'_>,
    access: Access,
    mut attempt: impl AsyncFnMut(GrantTo<D>, u64) -> Result<T, Errno>,
) -> Result<T, Errno> {
    let mut memory = memory;
    for _ in 0..ATTEMPTS {
        let grant = memory.grant(peer, access)?;
        let answer = attempt(grant.to(), memory.len()).await;
        if !grant.revoke() {
            return answer;
        }
        let write = sabotage::writes(peer, access);
        memory = sabotage::moved(peer, repair(vm, memory, write).await?);
    }
    Err(Errno::EFAULT)
}

/// Makes memory present; the beginning of it that now is. `EFAULT` when there is none.
pub async fn repair(vm: &Peer, memory: Memory<'_>, write: bool) -> Result<Memory<'static>, Errno> {
    let Memory::User { who, address, len } = memory else {
        return Err(Errno::EFAULT);
    };
    let (good, _) = make_present(vm, who, address, len, write).await?;
    Ok(Memory::user(who, address, good))
}

/// Has VM make `[address, address + len)` of `who` present: how many bytes of its beginning now
/// are, and what is wrong with the rest. An error when the first byte is not.
pub async fn make_present(
    vm: &Peer,
    who: Endpoint,
    address: u64,
    len: u64,
    write: bool,
) -> Result<(u64, Result<(), Errno>), Errno> {
    if sabotage::repairs_nothing(vm) {
        return Err(Errno::EFAULT);
    }
    vm.repairs.set(vm.repairs.get() + 1);
    let answer = vm.ask(vm::HandleMemory {
        who,
        addr: address,
        len,
        write,
    });
    let present = answer.await?;
    let good = match present.status {
        Ok(()) => len,
        Err(_) => present.good.min(len),
    };
    Ok((good, present.status))
}

/// Has VM make all of `[address, address + len)` of `who` present.
pub async fn handle_memory(
    vm: &Peer,
    who: Endpoint,
    address: u64,
    len: u64,
    write: bool,
) -> Result<(), Errno> {
    make_present(vm, who, address, len, write).await?.1
}

/// Whether a copy's failure can be repaired. `EFAULT` of TRY means an absent page or none.
pub fn repairable(errno: Errno) -> bool {
    errno == Errno::EFAULT
}
