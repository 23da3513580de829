//! RS, the reincarnation server: starts every service from the boot archive with exactly the
//! privileges it needs, tells VFS what to mount, lets PM start PROGRAM, and then watches.
//!
//! All processes are created before the first is started. So the well-known ones get their
//! slots, and each service can be told the endpoints of those it talks to.
//!
//! RS waits for VM only; nobody waits for RS.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod boot;
mod devices;
mod load;
mod mishap;
mod pci;
mod services;
mod watch;

pub use boot::main;
