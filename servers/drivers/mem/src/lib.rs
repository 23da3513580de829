//! mem
#![no_std]
