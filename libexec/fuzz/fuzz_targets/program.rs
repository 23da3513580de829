//! libFuzzer over [`body::check`]: `cargo +nightly fuzz run program` in `libexec/`.
#![no_main]

#[path = "../body.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::check(data));
