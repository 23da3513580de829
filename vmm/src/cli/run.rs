//! `absentia run`.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use abi::boot::run_flags;
use anyhow::{Context, Result, bail};
use clap::Args;
use rustix::stdio::{stderr, stdin, stdout};
use rustix::termios::isatty;

use crate::control::{Reason, Signals};
use crate::hostlink::input::Source;
use crate::hostlink::output::Sink;
use crate::images::{GuestImages, RunSpecification};
use crate::kvm::gate::Gate;
use crate::log::{KEPT, Log, complain};
use crate::machine::{Accelerator, Config, Ending, Outcome};
use crate::root::{self, embedded};
use crate::{memory, terminal};

/// The program of the embedded root.
const DEFAULT_PROGRAM: &str = "/bin/welcome";

#[derive(Debug, Args)]
pub struct Run {
    /// Root file system: a directory (copied for this run) or an ext2 disk image (used in place)
    #[arg(long, value_name = "DIR|IMAGE")]
    pub root: Option<PathBuf>,
    /// Guest memory
    #[arg(long, value_name = "SIZE", value_parser = memory::parse_size, default_value = "128M")]
    pub mem: u64,
    /// End the run after this many seconds, with status 124
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub timeout: Option<Duration>,
    /// What executes the guest [default: kvm, or qemu where there is no usable /dev/kvm]
    #[arg(long)]
    pub accel: Option<Accelerator>,
    /// How the guest's kernel is entered [default: measured]
    #[arg(long)]
    pub gate: Option<Gate>,
    /// Print the guest's log, unknown system calls and counters on standard error
    #[arg(long, short)]
    pub verbose: bool,
    /// Add to the program's environment, or replace what is there
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_assignment)]
    pub env: Vec<OsString>,
    /// The program's working directory
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub cwd: OsString,
    /// One more argument for QEMU
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub qemu_arg: Vec<String>,
    /// Added to the kernel's command line
    #[arg(long, hide = true, default_value = "")]
    pub append: String,
    /// The program and its arguments [default: the embedded root's own]
    #[arg(value_name = "PROGRAM", trailing_var_arg = true)]
    pub program: Vec<OsString>,
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_string())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn parse_assignment(text: &str) -> Result<OsString, String> {
    match text.split_once('=') {
        Some((name, _)) if !name.is_empty() => Ok(text.into()),
        _ => Err("an environment string looks like NAME=VALUE".into()),
    }
}

/// The program cannot be started; found out before there is a guest.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {what}")]
pub struct NoSuchProgram {
    path: String,
    what: &'static str,
    code: u8,
}

impl NoSuchProgram {
    /// What a shell reports: 127 not found, 126 found and not executable.
    pub fn code(&self) -> u8 {
        self.code
    }
}

impl Run {
    pub fn execute(mut self) -> Result<u8> {
        let log = Arc::new(Log::new(self.verbose, KEPT));
        let accelerator = self.accelerator();
        let images = GuestImages::load()?;
        let disk = match &self.root {
            Some(path) => {
                if self.program.is_empty() {
                    bail!("--root needs a PROGRAM: only the embedded root has a default");
                }
                root::open(path)?
            }
            None => self.embedded_root()?,
        };
        let specification = self.specification()?;
        let (kernel, archive) = images.archive(specification.encode()?);
        let signals = Signals::install()?;
        let raw = isatty(stdin()).then(terminal::Raw::enter).flatten();
        let result = crate::machine::run(Config {
            kernel,
            archive,
            cmdline: self.append,
            memory: self.mem,
            disk: Some(disk),
            accelerator,
            gate: self.gate,
            timeout: self.timeout,
            stdin: Source::Host,
            stdout: Sink::stdout(),
            stderr: Sink::stderr(),
            signals: Some(signals),
            log,
            qemu_args: self.qemu_arg,
        });
        drop(raw);
        let outcome = result?;
        report(&outcome, self.verbose);
        Ok(outcome.ending.code())
    }

    fn accelerator(&self) -> Accelerator {
        if let Some(chosen) = self.accel {
            return chosen;
        }
        match kvm_ioctls::Kvm::new() {
            Ok(_) => Accelerator::Kvm,
            Err(error) => {
                complain(&format!("absentia: /dev/kvm is not usable ({error}): running under QEMU"));
                Accelerator::Qemu
            }
        }
    }

    /// The embedded root, with the host's program on it when PROGRAM names one.
    fn embedded_root(&mut self) -> Result<root::Disk> {
        let mut programs: Vec<embedded::Program<'_>> = crate::images::default_programs()
            .iter()
            .map(|&(path, content)| embedded::Program { path, content })
            .collect();
        let Some(program) = self.program.first() else {
            self.program = vec![DEFAULT_PROGRAM.into()];
            return embedded::build(&programs, now_ns());
        };
        let path = program.to_string_lossy().into_owned();
        let refuse = |what, code| NoSuchProgram { path: path.clone(), what, code };
        let host = Path::new(program);
        let content;
        match std::fs::read(host) {
            Ok(bytes) => {
                check_static(&bytes).map_err(|what| refuse(what, 126))?;
                content = bytes;
                // At the same path in the guest, whose working directory is not ours.
                let absolute = std::path::absolute(host).context("the program's path")?;
                let absolute = absolute
                    .to_str()
                    .ok_or_else(|| refuse("the path is not UTF-8: use --root", 126))?
                    .to_string();
                programs.retain(|p| p.path != absolute);
                self.program[0] = absolute.clone().into();
                programs.push(embedded::Program { path: Box::leak(absolute.into_boxed_str()), content: &content });
                embedded::build(&programs, now_ns())
            }
            Err(_) if host.is_dir() => Err(refuse("is a directory", 126).into()),
            Err(_) if programs.iter().any(|p| Path::new(p.path) == host) => embedded::build(&programs, now_ns()),
            Err(_) => Err(refuse("no such program here or on the embedded root", 127).into()),
        }
    }

    fn specification(&self) -> Result<RunSpecification> {
        let mut flags = 0;
        for (set, bit) in [
            (isatty(stdin()), run_flags::STDIN_TTY),
            (isatty(stdout()), run_flags::STDOUT_TTY),
            (isatty(stderr()), run_flags::STDERR_TTY),
            (self.verbose, run_flags::VERBOSE),
        ] {
            if set {
                flags |= bit;
            }
        }
        Ok(RunSpecification {
            args: self.program.iter().map(|a| a.as_bytes().to_vec()).collect(),
            env: environment(std::env::var_os("TERM"), &self.env),
            cwd: self.cwd.as_bytes().to_vec(),
            flags,
            window: terminal::size(),
            ids: (0, 0),
            epoch_ns: now_ns(),
            seed: seed()?,
        })
    }
}

/// Wall clock, ns since 1970.
pub fn now_ns() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// Entropy for a guest.
pub fn seed() -> Result<[u64; 4]> {
    use std::io::Read;
    let mut words = [0; 4];
    let mut random = std::fs::File::open("/dev/urandom").context("/dev/urandom")?;
    for word in &mut words {
        let mut bytes = [0; 8];
        random.read_exact(&mut bytes).context("/dev/urandom")?;
        *word = u64::from_le_bytes(bytes);
    }
    Ok(words)
}

/// The program's environment: a small one of our own, then what was asked for.
fn environment(term: Option<OsString>, extra: &[OsString]) -> Vec<Vec<u8>> {
    let mut env: Vec<Vec<u8>> = vec![
        b"PATH=/bin:/usr/bin:/sbin:/usr/sbin".to_vec(),
        b"HOME=/root".to_vec(),
        [b"TERM=", term.unwrap_or_else(|| "dumb".into()).as_bytes()].concat(),
        b"LANG=C".to_vec(),
    ];
    for assignment in extra {
        let assignment = assignment.clone().into_vec();
        let name = assignment.split(|&b| b == b'=').next().unwrap_or_default().len() + 1;
        match env.iter_mut().find(|e| e.get(..name) == assignment.get(..name)) {
            Some(existing) => *existing = assignment,
            None => env.push(assignment),
        }
    }
    env
}

/// Whether the guest can run this without a dynamic linker; if not, why.
fn check_static(content: &[u8]) -> Result<(), &'static str> {
    use goblin::elf::header::EM_X86_64;
    if !content.starts_with(b"\x7fELF") {
        return Err("not an ELF program: a script needs its interpreter on the disk, use --root");
    }
    let elf = goblin::elf::Elf::parse(content).map_err(|_| "a damaged ELF file")?;
    if elf.header.e_machine != EM_X86_64 || !elf.is_64 {
        return Err("not a program for x86-64");
    }
    if elf.interpreter.is_some() {
        return Err(
            "dynamically linked, which comes later: give a static program, or --root with \
             everything it needs",
        );
    }
    Ok(())
}

/// Tells a person what there is to tell about the end of a run.
pub fn report(outcome: &Outcome, verbose: bool) {
    let tell = |text: &str| complain(&format!("absentia: {text}"));
    let problem = match &outcome.ending {
        Ending::Program(_) => None,
        Ending::Stopped(Reason::Timeout) => {
            tell("the time is over");
            None
        }
        Ending::Stopped(Reason::Signal(_) | Reason::OutputClosed) => None,
        Ending::Stopped(Reason::Lingering) => Some("the machine did not power off".to_string()),
        Ending::Stopped(Reason::Failure(what)) => Some(what.clone()),
        Ending::Guest(what) => Some(what.clone()),
    };
    if let Some(problem) = problem {
        if !verbose {
            outcome.log.iter().for_each(|line| complain(line));
        }
        tell(&problem);
    }
    if verbose {
        let started = outcome.started.map_or("never".into(), |at| format!("after {at:.3?}"));
        tell(&format!("program started {started}, ended after {:.3?}; {}", outcome.elapsed, outcome.exits));
    }
}
