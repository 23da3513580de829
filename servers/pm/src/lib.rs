//! pm
#![no_std]
