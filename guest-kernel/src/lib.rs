//! guest-kernel
#![no_std]
