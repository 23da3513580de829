//! The absence laboratory: scenarios, what is explored of them, and what came out.
//!
//! `docs/laboratory.md` explains the terms.

pub mod accounts;
pub mod base;
pub mod build;
pub mod campaign;
pub mod engine;
pub mod expect;
pub mod filter;
pub mod judge;
pub mod minimize;
pub mod orders;
pub mod points;
pub mod qemu;
pub mod row;
pub mod run;
pub mod scenario;
pub mod spots;
pub mod start;
pub mod told;
