//! Exact snapshots of a machine that does not run: its memory page by page, and growing
//! records that a restore shortens again.
//!
//! The rest of a machine's state lives with what it is the state of: the processor and the
//! interrupt controllers in [`crate::kvm::state`], the devices in [`crate::devices::bus`].
//! [`crate::lab::Machine`] puts them together.
//!
//! Why so: docs/decisions/009-putting-a-machine-back.md.

pub mod image;
pub mod memory;
pub mod tables;
pub mod tape;
