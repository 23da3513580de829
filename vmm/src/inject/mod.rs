//! Makes pages absent: tokens that say which ([`plan`]), what points are about ([`point`]), the
//! guest's page tables ([`tables`]), frames that are taken from under it ([`withdrawn`]), and
//! doing it ([`apply`]).

pub mod apply;
pub mod plan;
pub mod point;
pub mod tables;
pub mod withdrawn;

pub use apply::{Applied, apply};
pub use plan::{Fault, Give, Layer, Plan, Schedule, Side, Window};
