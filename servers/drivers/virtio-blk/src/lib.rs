//! virtio-blk
#![no_std]
