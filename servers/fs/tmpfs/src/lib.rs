//! tmpfs
#![no_std]
