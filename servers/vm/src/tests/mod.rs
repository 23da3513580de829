//! VM on a machine made of a vector.

mod calls;
mod machine;
mod model;
mod waiting;
