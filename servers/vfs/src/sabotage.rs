//! The deliberate defects of VFS ([`abi::sabotage`]), which prove that the explorer finds such.
//! With none switched on, every function here does what the caller means.

use crate::machine::{Access, Machine};
use crate::memory::Memory;
use crate::peer::Peer;
use crate::state::Vfs;
use crate::wait::TurnGuard;
use abi::Endpoint;
use abi::sabotage::{
    ANSWER_CROSSED, DOUBLE_RESTART, LOCK_KEPT, LOCK_OVER_REPAIR, NO_REPAIR, OFFSET_LOST,
    REPAIR_FOR_READING, UNCHARGED, VFS_TRUSTS_ALL,
};

/// Whether VM is not asked to repair memory.
pub fn repairs_nothing(vm: &Peer) -> bool {
    vm.machine().sabotaged(NO_REPAIR)
}

/// Whether every service is believed.
pub fn trusts_all(machine: &dyn Machine) -> bool {
    machine.sabotaged(VFS_TRUSTS_ALL)
}

/// The memory that limits follow from.
pub fn charged(machine: &dyn Machine, memory: u64) -> u64 {
    match machine.sabotaged(UNCHARGED) {
        true => 1 << 50,
        false => memory,
    }
}

/// Whether memory is repaired for writing.
pub fn writes(peer: &Peer, access: Access) -> bool {
    access.writes() && !peer.machine().sabotaged(REPAIR_FOR_READING)
}

/// The memory with which a repaired transfer starts again.
pub fn moved(peer: &Peer, memory: Memory<'static>) -> Memory<'static> {
    if peer.machine().sabotaged(OFFSET_LOST) {
        return memory.after(memory.len() / 2);
    }
    memory
}

/// How often data is taken out of a pipe for a reader whose memory was repaired.
pub fn taken(machine: &dyn Machine, repaired: bool) -> usize {
    1 + usize::from(repaired && machine.sabotaged(DOUBLE_RESTART))
}

/// The question that VM's answer with this transaction number is for.
pub fn question(vfs: &Vfs, txn: u64) -> u64 {
    if vfs.machine.sabotaged(ANSWER_CROSSED) {
        return vfs.questions.any(Endpoint::VM).unwrap_or(txn);
    }
    txn
}

/// A call that moved a file's position ends; VM had been asked for so many repairs when it began.
pub fn leave(vfs: &Vfs, turn: TurnGuard<'_>, repairs: u64) {
    if vfs.machine.sabotaged(LOCK_KEPT) && vfs.vm.repairs.get() > repairs + 1 {
        core::mem::forget(turn);
    }
}

/// A page-in begins.
pub async fn before_page_in(vfs: &Vfs) {
    while vfs.machine.sabotaged(LOCK_OVER_REPAIR) && vfs.questions.any(Endpoint::VM).is_some() {
        vfs.readiness.wait().await;
    }
}

/// A repair ended.
pub fn repaired(vfs: &Vfs) {
    if vfs.machine.sabotaged(LOCK_OVER_REPAIR) {
        vfs.readiness.signal();
    }
}
