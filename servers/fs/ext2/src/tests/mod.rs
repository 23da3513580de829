//! Tests of whole volumes.

mod e2fsprogs;
mod image;
