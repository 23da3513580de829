//! libexec
#![no_std]
