//! What a guest's trace records tell, for people and for other tools.

pub mod perfetto;
mod proto;
pub mod words;
