//! vm
#![no_std]
