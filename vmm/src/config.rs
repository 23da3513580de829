//! What a machine is run with, and what is known after its run.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use abi::kernel::Counters;
use clap::ValueEnum;

use crate::control::Signals;
use crate::ending::Ending;
use crate::hostlink::input::Source;
use crate::hostlink::output::Sink;
use crate::images::Archive;
use crate::kvm::exits::Counts;
use crate::kvm::gate::Gate;
use crate::log::Log;
use crate::root::Disk;
use crate::root::absent::Advice;
use crate::sandbox::Sandbox;

/// What executes the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Accelerator {
    /// `/dev/kvm`.
    Kvm,
    /// QEMU's microvm machine, translating.
    Qemu,
}

/// Everything a run needs.
#[derive(Debug)]
pub struct Config {
    /// The kernel's ELF file.
    pub kernel: Cow<'static, [u8]>,
    /// What travels with it.
    pub archive: Archive,
    /// Added to the kernel's command line.
    pub cmdline: String,
    /// Guest RAM, bytes.
    pub memory: u64,
    /// The root disk.
    pub disk: Option<Disk>,
    /// What executes it.
    pub accelerator: Accelerator,
    /// The gate, when it is not to be the host's own ([`crate::kvm::gate::Cpl0::gate`]).
    pub gate: Option<Gate>,
    /// The run ends after this time.
    pub timeout: Option<Duration>,
    /// Where the program's standard input comes from.
    pub stdin: Source,
    /// Where its output goes.
    pub stdout: Sink,
    /// Where its error output goes.
    pub stderr: Sink,
    /// Signals of this process that end the run or resize the terminal.
    pub signals: Option<Signals>,
    /// The log.
    pub log: Arc<Log>,
    /// Where reports of deadlocks go, beside the outcome.
    pub report: Option<PathBuf>,
    /// More arguments for QEMU.
    pub qemu_args: Vec<String>,
    /// What this process gives up before the guest runs. Not to be had back: a process whose
    /// threads go on to other things runs with [`Sandbox::Off`].
    pub sandbox: Sandbox,
}

/// What is known after a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it ended.
    pub ending: Ending,
    /// The gate the kernel was told to use, when this VMM told it.
    pub gate: Option<Gate>,
    /// Exits, all of them.
    pub exits: Counts,
    /// The kernel's counters at the end, where it shows them.
    pub counters: Option<Counters>,
    /// Time from the start of the run to the program's first instruction.
    pub started: Option<Duration>,
    /// Time of the whole run.
    pub elapsed: Duration,
    /// The log's last lines.
    pub log: Vec<String>,
    /// Paths that were looked for and not there, when the guest was asked to note them.
    pub absent: Vec<Vec<u8>>,
    /// Which of them the host has.
    pub advice: Option<Advice>,
}
