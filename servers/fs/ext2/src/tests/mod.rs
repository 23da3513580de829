//! Tests of whole volumes.

mod damage;
mod e2fsprogs;
mod image;
mod model;
