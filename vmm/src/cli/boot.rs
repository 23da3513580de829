//! `absentia boot`: a kernel and a module as files, for bringing up a kernel.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

use crate::control::Signals;
use crate::hostlink::input::Source;
use crate::hostlink::output::Sink;
use crate::images::{Archive, Image};
use crate::kvm::gate::Gate;
use crate::log::{KEPT, Log};
use crate::machine::{Accelerator, Config};
use crate::memory;
use crate::sandbox::Sandbox;

#[derive(Debug, Args)]
pub struct Boot {
    /// ELF file with a PVH note
    kernel: PathBuf,
    /// File that becomes the first PVH module, entry "file" of a boot archive
    #[arg(long)]
    module: Option<PathBuf>,
    /// Added to the kernel's command line
    #[arg(long, default_value = "")]
    append: String,
    /// Guest memory
    #[arg(long, value_parser = memory::parse_size, default_value = "64M")]
    mem: u64,
    /// Seconds
    #[arg(long)]
    timeout: Option<f64>,
    /// Direct or deprivileged gate
    #[arg(long)]
    gate: Option<Gate>,
    /// kvm or qemu
    #[arg(long, default_value = "kvm")]
    accel: Accelerator,
}

impl Boot {
    pub fn execute(self) -> Result<u8> {
        let kernel = std::fs::read(&self.kernel)
            .with_context(|| format!("reading {}", self.kernel.display()))?;
        let mut archive = Archive::default();
        if let Some(path) = &self.module {
            let data =
                std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
            archive.entries.push(Image {
                name: "file".into(),
                data: data.into(),
                flat: None,
            });
        }
        let outcome = crate::machine::run(Config {
            kernel: kernel.into(),
            archive,
            cmdline: self.append,
            memory: self.mem,
            disk: None,
            accelerator: self.accel,
            gate: self.gate,
            timeout: self.timeout.map(Duration::from_secs_f64),
            stdin: Source::Host,
            stdout: Sink::stdout(),
            stderr: Sink::stderr(),
            signals: Some(Signals::install()?),
            log: Arc::new(Log::new(true, KEPT)),
            report: None,
            qemu_args: Vec::new(),
            sandbox: Sandbox::Strict,
        })?;
        super::run::report(&outcome, true);
        Ok(outcome.ending.code())
    }
}
