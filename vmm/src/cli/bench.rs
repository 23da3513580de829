//! `absentia bench`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};

use crate::bench::{exec, ipc};
use crate::kvm::gate::Gate;
use crate::log::complain;
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
    /// Measure exec: mapped from the file, copied into the process, and through a buffer
    ///
    /// One guest runs each program all three ways in turn, warm and cold, and builds a C
    /// project, where this host has make and tcc for it (Debian packages make, tcc and
    /// libc6-dev). Ratios are of the time from vfork to the end of wait. Under QEMU time is guest instructions, so
    /// that the same comes out in every run.
    Exec(Exec),
}

#[derive(Debug, Args)]
struct Exec {
    /// What executes the guest
    #[arg(long, default_value = "kvm")]
    accel: Accelerator,
    /// How the guest's kernel is entered [default: measured]
    #[arg(long)]
    gate: Option<Gate>,
    /// Rounds of warm execs; cold ones and builds get a third [default: 15, or 3 under qemu]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// Leave the build out
    #[arg(long)]
    no_make: bool,
    /// Write the figures to this file, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a page with pictures (exec.html) and the figures (exec.json) into this directory
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
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
        match self.what {
            What::Ipc(ipc) => ipc.execute(),
            What::Exec(exec) => exec.execute(),
        }
    }
}

impl Ipc {
    fn execute(self) -> Result<u8> {
        let report = ipc::measure(self.accel, self.gate)?;
        if let Some(path) = self.json {
            write(&path, &report.json())?;
        }
        super::print(&format!("{}\n", report.table()))?;
        Ok(0)
    }
}

impl Exec {
    fn execute(self) -> Result<u8> {
        // Where the figures go is found out before they are made.
        if let Some(directory) = &self.report {
            std::fs::create_dir_all(directory)
                .with_context(|| format!("the directory {}", directory.display()))?;
        }
        let tools = match self.no_make {
            true => false,
            false => match exec::Tools::of_host() {
                Ok(_) => true,
                Err(lack) => {
                    complain(&format!("absentia: the build is not measured: {lack}"));
                    false
                }
            },
        };
        let rounds = match self.accel {
            Accelerator::Kvm => 15,
            Accelerator::Qemu => 3,
        };
        let report = exec::measure(&exec::Options {
            accelerator: self.accel,
            gate: self.gate,
            rounds: self.rounds.unwrap_or(rounds),
            build: tools,
            progress: true,
        })?;
        if let Some(path) = &self.json {
            write(path, &report.json())?;
        }
        if let Some(directory) = &self.report {
            write(&directory.join("exec.html"), &report.page())?;
            write(&directory.join("exec.json"), &report.json())?;
        }
        super::print(&format!("{}\n", report.table()))?;
        Ok(0)
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}
