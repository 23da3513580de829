//! Tests of whole volumes.

mod caches;
mod damage;
mod e2fsprogs;
mod image;
mod model;
