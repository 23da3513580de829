//! Makes pages absent: the words of faults ([`terms`]), tokens that say where ([`plan`], [`name`]) and which ([`target`]), what
//! points are about ([`point`]), the
//! guest's page tables ([`tables`]), frames that are taken from under it ([`withdrawn`]), and
//! doing it ([`mod@apply`]).

pub mod apply;
pub mod name;
pub mod plan;
pub mod point;
pub mod tables;
pub mod target;
pub mod terms;
pub mod withdrawn;

pub use apply::{Applied, apply};
pub use name::{Place, PointName};
pub use plan::{Fault, Plan, Schedule, Window};
pub use target::Target;
pub use terms::{Give, Layer, Side};
