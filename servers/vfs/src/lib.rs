//! vfs
#![no_std]
