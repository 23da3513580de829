//! The `absentia` command.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::log::complain;
use crate::machine::FAILED;
use crate::program::NoSuchProgram;

mod boot;
mod run;

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
    Run(run::Run),
    /// Boot any PVH kernel with any boot module
    #[command(hide = true)]
    Boot(boot::Boot),
}

/// The command: reads the arguments, does what they say, returns the exit status.
pub fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Run(run) => run.execute(),
        Command::Boot(boot) => boot.execute(),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            complain(&format!("absentia: {error:#}"));
            let code = error
                .downcast_ref::<NoSuchProgram>()
                .map_or(FAILED, |no| no.code());
            ExitCode::from(code)
        }
    }
}

#[cfg(test)]
mod tests;
