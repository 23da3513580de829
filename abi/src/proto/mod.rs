//! The servers' protocols. One module a receiver; every request is a typed struct.
//!
//! Two styles, by who may wait:
//! * `call`: only *upwards* to a server that answers without waiting itself. VM may be
//!   called by everybody; VFS by PM and proc (answered by its dispatcher at once); PM by RS
//!   and proc; drivers by file systems.
//! * `post` with a transaction number `txn` (chosen by the asker, echoed in the answer),
//!   where the answer takes time: VFS to file systems, drivers and VM's handle-memory; VM to
//!   VFS. The answer is a posted message of its own kind and cannot satisfy a `call`.

use crate::senders::{Refusal, Rule};
use crate::{Class, Endpoint};

pub mod block;
pub mod device;
pub mod fs;
pub mod pm;
pub mod rs;
pub mod vfs;
pub mod vm;

/// The `BASE` of the protocol that a kind of request is of.
pub const fn base(kind: u64) -> u64 {
    kind & !0xff
}

/// Whether `source` may send a message of this kind in this way, whatever protocol it is of.
pub fn admit(source: Endpoint, class: Class, kind: u64) -> Result<(), Refusal> {
    match base(kind) {
        vm::BASE => vm::admit(source, class, kind),
        vfs::BASE => vfs::admit(source, class, kind),
        pm::BASE => pm::admit(source, class, kind),
        rs::BASE => rs::admit(source, class, kind),
        fs::BASE => fs::admit(source, class, kind),
        device::BASE => device::admit(source, class, kind),
        device::exit::BASE => device::exit::admit(source, class, kind),
        block::BASE => block::admit(source, class, kind),
        _ => Err(Refusal::Unknown),
    }
}

/// The protocols: name, who serves it, and its rules.
pub const PROTOCOLS: [(&str, &str, &[Rule]); 8] = [
    ("vm", "VM", vm::RULES),
    ("vfs", "VFS", vfs::RULES),
    ("pm", "PM", pm::RULES),
    ("rs", "RS", rs::RULES),
    ("fs", "the file systems", fs::RULES),
    ("device", "drivers", device::RULES),
    ("device::exit", "the console", device::exit::RULES),
    ("block", "block drivers", block::RULES),
];

/// The name of any request, for traces.
pub const fn name(kind: u64) -> Option<&'static str> {
    match base(kind) {
        vm::BASE => vm::name(kind),
        vfs::BASE => vfs::name(kind),
        pm::BASE => pm::name(kind),
        rs::BASE => rs::name(kind),
        fs::BASE => fs::name(kind),
        device::BASE => device::name(kind),
        device::exit::BASE => device::exit::name(kind),
        block::BASE => block::name(kind),
        _ => None,
    }
}
