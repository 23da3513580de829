//! The `absentia` command.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::MachineError;
use crate::last_words;
use crate::log::complain;
use crate::machine::FAILED;
use crate::memory::footprint;

mod bench;
mod boot;
mod demo;
mod doctor;
mod explore;
mod manual;
mod portable;
mod replay;
mod run;
mod standard;

/// A multiserver operating system under a hypervisor, and the laboratory around it.
#[derive(Debug, Parser)]
#[command(name = "absentia", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a Linux program on the multiserver guest
    ///
    /// Standard input, output and error are the program's, and so is the exit status: 128 and
    /// the signal's number when a signal killed it. Otherwise 124 says that the time was over,
    /// 125 that the machine or the host failed, 126 that the program cannot be executed, 127
    /// that there is none of its name, 130 and 143 that ^C or SIGTERM ended the run.
    ///
    /// Without --root, a program of the host runs on a root of its own, with the libraries it
    /// needs: absentia run -- /bin/ls -l /
    Run(run::Run),
    /// Measure what the guest's parts cost
    Bench(bench::Bench),
    /// Make every page absent at every copy of a scenario, and judge what happens
    ///
    /// Exit status 1 when a run did what it must not.
    Explore(explore::Explore),
    /// See the deadlock of the world before failable copies, its picture, and its absence after
    Demo(demo::Demo),
    /// Run one experiment again, bit for bit, from its token
    Replay(replay::Replay),
    /// Drop from a token what does not matter
    Minimize(replay::Minimize),
    /// Say what this host is and what it lacks, with the command that mends it
    ///
    /// A program is run to see whether that works: exit status 0 when it does, 1 when not.
    Doctor(doctor::Doctor),
    /// Print the completions for a shell
    Completions(manual::Completions),
    /// Write the man pages into a directory
    Manual(manual::Manual),
    /// Write the guest's images into a directory, for other VMMs to boot
    Images(portable::Images),
    /// Start another VMM with the guest's console on its standard streams, and connect the program
    ///
    /// Exit status and signals are as of run.
    Attach(portable::Attach),
    /// Boot any PVH kernel with any boot module
    #[command(hide = true)]
    Boot(boot::Boot),
}

/// The command: reads the arguments, does what they say, returns the exit status.
pub fn main() -> ExitCode {
    last_words::install();
    footprint::share_heap();
    let result = match Arguments::parse().command {
        Command::Run(run) => run.execute(),
        Command::Bench(bench) => bench.execute(),
        Command::Demo(demo) => demo.execute(),
        Command::Explore(explore) => explore.execute(),
        Command::Replay(replay) => replay.execute(),
        Command::Minimize(minimize) => minimize.execute(),
        Command::Doctor(doctor) => doctor.execute(),
        Command::Completions(completions) => completions.execute(),
        Command::Manual(manual) => manual.execute(),
        Command::Images(images) => images.execute(),
        Command::Attach(attach) => attach.execute(),
        Command::Boot(boot) => boot.execute(),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            complain(&format!("absentia: {error:#}"));
            let code = error
                .downcast_ref::<MachineError>()
                .map_or(FAILED, MachineError::code);
            ExitCode::from(code)
        }
    }
}

/// Prints a result. A standard output that does not take it is an error, not a panic.
fn print(text: &str) -> anyhow::Result<()> {
    output(text.as_bytes())
}

/// Likewise, bytes of any kind. Nothing is always taken.
fn output(bytes: &[u8]) -> anyhow::Result<()> {
    use anyhow::{Context, ensure};
    use std::io::Write;
    ensure!(
        bytes.is_empty() || !standard::output_closed(),
        "standard output is closed"
    );
    let mut stdout = std::io::stdout();
    stdout
        .write_all(bytes)
        .and_then(|()| stdout.flush())
        .context("writing the result")
}

#[cfg(test)]
mod tests;
