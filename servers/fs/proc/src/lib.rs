//! proc
#![no_std]
