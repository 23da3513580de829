//! The deliberate defects of VFS ([`abi::sabotage`]), which prove that the explorer finds such.
//! With none switched on, every function here does what the caller means.

use crate::machine::Machine;
use crate::memory::Memory;
use crate::peer::{Peer, Questions};
use crate::wait::TurnGuard;
use abi::Endpoint;
use abi::grant::Access;
use abi::sabotage::{
    ANSWER_CROSSED, DOUBLE_RESTART, LOCK_KEPT, LOCK_OVER_REPAIR, NO_REPAIR, OFFSET_LOST,
    REPAIR_FOR_READING, UNCHARGED, VFS_TRUSTS_ALL,
};
use rt::task::Event;

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
pub fn question(machine: &dyn Machine, questions: &Questions, txn: u64) -> u64 {
    if machine.sabotaged(ANSWER_CROSSED) {
        return questions.any(Endpoint::VM).unwrap_or(txn);
    }
    txn
}

/// A call that moved a file's position ends; VM had been asked for so many repairs when it began.
pub fn leave(vm: &Peer, turn: TurnGuard<'_>, repairs: u64) {
    if vm.machine().sabotaged(LOCK_KEPT) && vm.repairs.get() > repairs + 1 {
        core::mem::forget(turn);
    }
}

/// A page-in begins.
pub async fn before_page_in(machine: &dyn Machine, questions: &Questions, readiness: &Event) {
    while machine.sabotaged(LOCK_OVER_REPAIR) && questions.any(Endpoint::VM).is_some() {
        readiness.wait().await;
    }
}

/// A repair ended.
pub fn repaired(machine: &dyn Machine, readiness: &Event) {
    if machine.sabotaged(LOCK_OVER_REPAIR) {
        readiness.signal();
    }
}
