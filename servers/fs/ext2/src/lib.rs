//! ext2
#![no_std]
