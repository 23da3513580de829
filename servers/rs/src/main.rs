//! RS's image.
#![cfg_attr(not(test), no_std, no_main)]

#[cfg(not(test))]
rt::entry!(rs::main);

// Checking all targets builds this crate against std once more, where nothing is to be seen.
#[cfg(test)]
fn main() {}
