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

// What stands below uses only what stands further below (`tests/house.rs`).
// Messages; which of them are refused while memory is short.
pub mod admission;
pub mod dispatch;
// Linux's file calls.
pub mod calls;
// Programs.
pub mod exec;
// What is in files.
pub mod contents;
// Arguments of calls, changes of files and names, the tree of mounts.
pub mod arguments;
pub mod mounting;
mod queries;
pub mod rights;
// Paths; how long files may be.
pub mod file_size;
pub mod namei;
// What the whole server does: waiting, writing back, giving memory back.
pub mod attributes;
mod caches;
pub mod poll;
mod serving;
mod sync;
// The whole server, and who calls it.
pub mod state;
// Who may do what with a file as it is.
pub mod protections;
// In whose name.
pub mod access;
// Processes.
pub mod process;
// Their descriptors.
pub mod fd;
// Open files; epoll's sets and sockets hold others.
pub mod file;
// Files, and what they are mounted by.
pub mod vnode;
// Objects, which know of the server a context and of each other nothing.
pub mod block;
pub mod event;
pub mod pipe;
pub mod timer;
// Devices; what objects tell of themselves.
pub mod changes;
pub mod device;
// What objects know of the server and of who calls.
pub mod context;
// Structures to and from programs.
pub mod user;
// File data: lend, ask, repair, ask again.
pub mod transfer;
// Defects on purpose.
pub mod sabotage;
// Memory that is moved from or to; how programs are loaded.
pub mod loading;
pub mod memory;
// Other servers; waiting; times.
pub mod native;
pub mod peer;
pub mod stages;
pub mod wait;
// What these stand on.
pub mod absent;
pub mod accounts;
pub mod counters;
pub mod locks;
pub mod machine;
pub mod random;

#[cfg(test)]
mod tests;
