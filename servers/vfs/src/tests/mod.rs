//! Host tests: VFS against a scripted world (memory with absent pages, a file system in
//! memory, VM, PM).

mod cache;
mod deaths;
mod descriptors;
mod devices;
mod exec;
mod filesystem;
mod hostile;
#[path = "../../../../tests/common/largest.rs"]
mod largest;
mod mapping;
mod paths;
mod pipes;
mod repair;
mod senders;
mod sockets;
mod world;
