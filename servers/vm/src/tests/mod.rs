//! VM on a machine made of a vector.

mod calls;
mod dropping;
mod machine;
mod model;
mod msync;
mod program;
mod shortage;
mod waiting;
mod withdrawing;
