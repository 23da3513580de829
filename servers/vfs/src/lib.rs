//! The virtual file system server: descriptors, paths, mounts, pipes, advisory locks, exec.
//!
//! One thread runs a set of async tasks, one for each Linux call in progress. The dispatcher
//! ([`dispatch`]) only decodes a message, answers what can be answered at once, and starts a
//! task for the rest; it never waits, so VM's page-ins, interruptions and answers are always
//! heard. Waiting for a file system, a driver or VM is a suspended task ([`peer`]).
//!
//! Every copy to or from a process fails softly on an absent page; the task has VM repair
//! the memory and tries again: [`transfer`] for file data, [`user`] for VFS's own structures.
#![no_std]
// The fake kernel of the tests keeps addresses, as the real one does.
#![cfg_attr(not(test), forbid(unsafe_code))]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod absent;
pub mod access;
pub mod accounts;
pub mod admission;
pub mod block;
mod caches;
pub mod calls;
pub mod changes;
pub mod context;
pub mod counters;
pub mod device;
pub mod dispatch;
pub mod epoll;
pub mod event;
pub mod exec;
pub mod fd;
pub mod file;
pub mod file_size;
pub mod locks;
pub mod machine;
pub mod memory;
pub mod mount;
pub mod mounting;
pub mod namei;
pub mod native;
pub mod peer;
pub mod pipe;
pub mod poll;
pub mod process;
mod queries;
pub mod random;
pub mod rights;
pub mod sabotage;
mod serving;
pub mod socket;
pub mod state;
pub mod timer;
pub mod transfer;
pub mod user;
pub mod vnode;
pub mod wait;

#[cfg(test)]
mod tests;
