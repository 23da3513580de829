//! console
#![no_std]
