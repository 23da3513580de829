//! Makes pages absent: tokens that say where ([`plan`], [`name`]) and which ([`target`]), what
//! points are about ([`point`]), the
//! guest's page tables ([`tables`]), frames that are taken from under it ([`withdrawn`]), and
//! doing it ([`mod@apply`]).

pub mod apply;
pub mod name;
pub mod plan;
pub mod point;
pub mod tables;
pub mod target;
pub mod withdrawn;

pub use apply::{Applied, apply};
pub use name::{Place, PointName};
pub use plan::{Fault, Give, Layer, Plan, Schedule, Side, Window};
pub use target::Target;
