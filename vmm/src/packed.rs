//! Programs that this binary has within it, deflated by its build script.

use anyhow::{Result, anyhow};
use miniz_oxide::inflate::decompress_to_vec_with_limit;

/// Longest content, bytes.
const MAX: usize = 64 << 20;

/// The content.
pub fn unpack(packed: &[u8]) -> Result<Vec<u8>> {
    decompress_to_vec_with_limit(packed, MAX)
        .map_err(|error| anyhow!("it does not unpack: {error}"))
}
