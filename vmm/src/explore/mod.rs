//! The absence laboratory: scenarios, what is explored of them, and what came out.
//!
//! `docs/laboratory.md` explains the terms.

pub mod campaign;
pub mod expect;
pub mod filter;
pub mod row;
pub mod scenario;
