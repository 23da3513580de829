//! VM on a machine made of a vector.

mod calls;
mod dropping;
mod machine;
mod matrix;
mod model;
mod program;
mod waiting;
