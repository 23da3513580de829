//! `absentia bench`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};

use crate::bench::ipc;
use crate::kvm::gate::Gate;
use crate::machine::Accelerator;

#[derive(Debug, Args)]
pub struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Measure the guest kernel's traps, messages and copies
    ///
    /// On KVM ticks are TSC cycles, and what a bare kernel visit costs on this host stands
    /// beside them: a trap to CPL3 and back through two minimal CPL0 stubs and two address
    /// spaces. Under QEMU ticks are guest instructions, the same in every run.
    Ipc(Ipc),
}

#[derive(Debug, Args)]
struct Ipc {
    /// What executes the guest
    #[arg(long, default_value = "kvm")]
    accel: Accelerator,
    /// How the guest's kernel is entered [default: measured]
    #[arg(long)]
    gate: Option<Gate>,
    /// Write the figures to this file, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Bench {
    pub fn execute(self) -> Result<u8> {
        let What::Ipc(Ipc { accel, gate, json }) = self.what;
        let report = ipc::measure(accel, gate)?;
        if let Some(path) = json {
            std::fs::write(&path, report.json())
                .with_context(|| format!("writing {}", path.display()))?;
        }
        super::print(&format!("{}\n", report.table()))?;
        Ok(0)
    }
}
