//! VM on a machine made of a vector.

mod caches;
mod calls;
mod dropping;
mod high;
mod machine;
mod model;
mod msync;
mod program;
mod senders;
mod shortage;
mod waiting;
mod withdrawing;
