//! The servers' protocols. One module a receiver; every request is a typed struct.
//!
//! Two styles, by who may wait:
//! * `call`: only *upwards* to a server that answers without waiting itself. VM may be
//!   called by everybody; VFS by PM and proc (answered by its dispatcher at once); PM by RS
//!   and proc; drivers by file systems.
//! * `post` with a transaction number `txn` (chosen by the asker, echoed in the answer),
//!   where the answer takes time: VFS to file systems, drivers and VM's handle-memory; VM to
//!   VFS. The answer is a posted message of its own kind and cannot satisfy a `call`.

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

/// The name of any request, for traces.
pub const fn name(kind: u64) -> Option<&'static str> {
    match base(kind) {
        vm::BASE => vm::name(kind),
        vfs::BASE => vfs::name(kind),
        pm::BASE => pm::name(kind),
        rs::BASE => rs::name(kind),
        fs::BASE => fs::name(kind),
        device::BASE => device::name(kind),
        block::BASE => block::name(kind),
        _ => None,
    }
}
