//! The guest under QEMU's microvm machine.

use anyhow::{Result, bail};

use crate::machine::{Config, Outcome};

/// Runs a machine under QEMU to its end.
pub fn run(_config: Config) -> Result<Outcome> {
    bail!("not yet")
}
