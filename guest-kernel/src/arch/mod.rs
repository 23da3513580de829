//! The processor as the kernel sees it.

pub mod apic;
mod boot;
pub mod fpu;
pub mod gate;
pub mod guard;
pub mod layout;
pub mod machine;
mod memory;
