//! VM, the memory server: it owns all page tables, decides page faults, keeps the page cache
//! and maps files.
//!
//! From the bottom up:
//! * [`window`], [`frames`]: physical memory and who uses which frame;
//! * [`table`]: page tables, edited in place;
//! * [`region`], [`cache`], [`files`]: what is mapped where, cached file pages, mapped files;
//! * [`space`], [`fault`], [`fork`]: operations on one address space;
//! * [`server`], [`linux`], [`jobs`]: requests, which may wait for VFS and never block VM;
//! * `shortage`: what waits for memory, and who is ended to make room;
//! * [`owners`], [`sanity`]: whose every frame is, and every invariant, checked on demand.
//!
//! The page-table entries are the only per-page state. An entry that is not zero holds one
//! reference on its frame; a frame is free when nothing refers to it. Nothing here executes
//! a privileged instruction or a trap: the binary performs the [`server::Effect`]s, so that
//! all of it is tested on the host with ordinary memory behind the [`window`].
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod ahead;
pub mod cache;
mod caches;
pub mod fault;
pub mod files;
pub mod force;
pub mod fork;
pub mod frames;
pub mod jobs;
pub mod lab;
mod lend;
pub mod linux;
mod locked;
mod object;
pub mod owners;
pub mod pool;
mod reclaim;
pub mod region;
pub mod requests;
pub mod reserve;
pub mod sanity;
pub mod server;
mod shortage;
pub mod space;
mod sync;
pub mod table;
pub mod window;
mod withdraw;

#[cfg(test)]
mod tests;
