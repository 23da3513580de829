//! rs
#![no_std]
