//! `absentia run`.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use abi::boot::{CMDLINE_START, run_flags};
use abi::policy::CopyPolicy;
use anyhow::Result;
use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};
use rustix::stdio::{stderr, stdin, stdout};
use rustix::termios::isatty;

use crate::control::{Reason, Signals};
use crate::deterministic::{self, Trail};
use crate::hostlink::input::Source;
use crate::hostlink::output::Sink;
use crate::kvm::gate::Gate;
use crate::log::complain;
use crate::machine::{Accelerator, Ending, FAILED, Outcome};
use crate::program::{Program, Streams};
use crate::sandbox::Sandbox;
use crate::{memory, terminal};

#[derive(Debug, Args)]
#[group(skip)]
#[command(group = clap::ArgGroup::new("same_every_time").args(["deterministic", "check_determinism"]).multiple(true))]
pub struct Run {
    /// Root file system: an ext2 disk image (changed in place, but see --snapshot), or a directory, which stays
    /// as it is: an image of it is made, and kept for the next time that the directory is the same
    #[arg(long, value_name = "DIR|IMAGE")]
    pub root: Option<PathBuf>,
    /// Leave the disk image as it is: what the guest changes is forgotten when it ends
    #[arg(long, requires = "root")]
    pub snapshot: bool,
    /// Take a file or directory of the host along onto the embedded root, at its own path, with
    /// the libraries that programs and plug-ins in it need; may be given several times
    #[arg(long, value_name = "PATH", conflicts_with = "root")]
    pub with: Vec<PathBuf>,
    /// Guest memory, 16M to 511G. The host gives what of it the guest uses
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
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment())]
    pub env: Vec<OsString>,
    /// The program's working directory
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub cwd: OsString,
    /// What copies between processes do that meet an absent page. try: fail, and be repeated
    /// when the page is there. transparent: wait for it, as systems did before, which can
    /// deadlock. file-only: wait unless it has to come from a file
    #[arg(long, value_name = "POLICY", value_parser = parse_policy, default_value = "try")]
    pub copy_policy: CopyPolicy,
    /// Write who waits for whom into this directory (text, DOT, SVG), when the guest is
    /// deadlocked or this process gets SIGUSR1
    #[arg(long, value_name = "DIR")]
    pub report: Option<PathBuf>,
    /// Start a service that is not started by itself (`hello`); may be given several times
    #[arg(long, value_name = "SERVICE")]
    pub start: Vec<String>,
    /// Have the memory server check its invariants after every request, which is slow
    #[arg(long)]
    pub vm_sanity: bool,
    /// Give programs the same addresses every time
    #[arg(long)]
    pub no_randomize: bool,
    /// strict: before the guest runs this process gives up what it does not need then, system
    /// calls, files and capabilities, so that a guest that takes it over has nothing
    #[arg(long, value_name = "HOW", default_value = "strict")]
    pub sandbox: Sandbox,
    /// One more argument for QEMU
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub qemu_arg: Vec<String>,
    /// Added to the kernel's command line
    #[arg(long, hide = true, default_value = "")]
    pub append: String,
    /// Make the run the same every time: virtual time that starts on 2026-01-01, seeded
    /// entropy, no standard input. A disk image stays as it is
    #[arg(long)]
    pub deterministic: bool,
    /// Seed of a deterministic run's entropy
    #[arg(long, default_value = "1", requires = "same_every_time")]
    pub seed: u64,
    /// Run the program twice, the second time on the other accelerator if one is named, and say
    /// where the two runs part: status 125 when they do
    #[arg(long, value_name = "ACCEL", num_args = 0..=1, require_equals = true)]
    pub check_determinism: Option<Option<Accelerator>>,
    /// The program and its arguments [default: the embedded root's own]
    #[arg(value_name = "PROGRAM", trailing_var_arg = true)]
    pub program: Vec<OsString>,
}

/// The kernel command line with the words that start services ([`CMDLINE_START`]).
fn with_started(line: String, services: &[String]) -> String {
    services.iter().fold(line, |line, service| {
        format!("{line} {CMDLINE_START}{service}")
    })
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| "not a number of seconds".to_string())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

pub fn parse_policy(text: &str) -> Result<CopyPolicy, String> {
    CopyPolicy::named(text.as_bytes()).ok_or_else(|| {
        let names = CopyPolicy::ALL.map(CopyPolicy::name);
        format!("the policies are {}", names.join(", "))
    })
}

/// Reads an environment string, of any bytes.
fn assignment() -> impl TypedValueParser<Value = OsString> {
    OsStringValueParser::new().try_map(|text| {
        match text.as_bytes().iter().position(|&byte| byte == b'=') {
            Some(1..) => Ok(text),
            _ => Err("an environment string looks like NAME=VALUE"),
        }
    })
}

impl Run {
    pub fn execute(self) -> Result<u8> {
        if self.sandbox == Sandbox::Strict {
            crate::sandbox::close_inherited();
        }
        let verbose = self.verbose;
        let mut terminals = 0;
        for (set, bit) in [
            (isatty(stdin()), run_flags::STDIN_TTY),
            (isatty(stdout()), run_flags::STDOUT_TTY),
            (isatty(stderr()), run_flags::STDERR_TTY),
        ] {
            if set {
                terminals |= bit;
            }
        }
        let streams = Streams {
            stdin: Source::Host,
            stdout: Sink::stdout(),
            stderr: Sink::stderr(),
            terminals,
            window: terminal::size(),
            signals: Some(Signals::install()?),
        };
        let mut flags = 0;
        for (set, bit) in [
            (self.vm_sanity, run_flags::VM_SANITY),
            (self.no_randomize, run_flags::NO_RANDOMIZE),
        ] {
            if set {
                flags |= bit;
            }
        }
        let program = Program {
            args: self.program,
            env: self.env,
            cwd: self.cwd,
            root: self.root,
            snapshot: self.snapshot,
            with: self.with,
            memory: self.mem,
            timeout: self.timeout,
            accelerator: self.accel,
            gate: self.gate,
            verbose,
            flags,
            copy_policy: self.copy_policy,
            report: self.report,
            cmdline: with_started(self.append, &self.start),
            qemu_args: self.qemu_arg,
            sandbox: self.sandbox,
            ..Program::new::<OsString>([])
        };
        if let Some(other) = self.check_determinism {
            let mut second = program.clone();
            second.accelerator = other.or(program.accelerator);
            return check([&program, &second], self.seed);
        }
        if self.deterministic {
            let run = deterministic::run(program, streams, self.seed, None)?;
            report(&run.outcome, verbose);
            if verbose {
                tell_trail(run.trail);
            }
            return Ok(run.outcome.ending.code());
        }
        let raw = terminal::Raw::enter();
        let outcome = program.run(streams);
        drop(raw);
        let outcome = outcome?;
        report(&outcome, verbose);
        Ok(outcome.ending.code())
    }
}

/// What makes runs on two machines differ that are each the same every time.
const TWO_PROCESSORS: &str = "absentia: KVM and QEMU show a program two processors: one that asks CPUID, as the C library \
     does to choose how it copies, may do something else on each";

/// Runs twice; 125 when the runs differ.
fn check(programs: [&Program; 2], seed: u64) -> Result<u8> {
    let (run, difference) = deterministic::check(programs, seed, |stdout, stderr| {
        super::output(stdout)?;
        Ok(std::io::stderr().write_all(stderr)?)
    })?;
    report(&run.outcome, programs[0].verbose);
    tell_trail(run.trail);
    match difference {
        None => Ok(run.outcome.ending.code()),
        Some(difference) => {
            complain(&format!("absentia: the runs differ: {}", difference.what));
            if programs[0].accelerator() != programs[1].accelerator() {
                complain(TWO_PROCESSORS);
            }
            Ok(FAILED)
        }
    }
}

fn tell_trail(trail: Option<Trail>) {
    complain(&match trail {
        Some(Trail { records, hash }) => {
            format!("absentia: trace: {records} records, hash {hash:016x}")
        }
        None => "absentia: the guest did not say what its trace was".into(),
    });
}

/// Tells a person what there is to tell about the end of a run.
pub fn report(outcome: &Outcome, verbose: bool) {
    let tell = |text: &str| complain(&format!("absentia: {text}"));
    let problem = match &outcome.ending {
        // What kept it from its first instruction is in the log only.
        Ending::Program(_) if outcome.started.is_none() => {
            Some("the program was not started".into())
        }
        Ending::Program(_) => None,
        Ending::Stopped(Reason::Timeout) => {
            tell("the time is over");
            None
        }
        Ending::Stopped(Reason::Signal(_) | Reason::OutputClosed) => None,
        Ending::Stopped(Reason::Lingering) => Some("the machine did not power off".to_string()),
        Ending::Stopped(Reason::Deadlock(who)) => {
            tell("deadlock: nobody in the guest can run, and nothing will change that");
            who.lines().for_each(complain);
            None
        }
        Ending::Stopped(Reason::Failure(what)) => Some(what.clone()),
        Ending::Guest(what) => Some(what.clone()),
    };
    if let Some(problem) = problem {
        if !verbose {
            outcome.log.iter().for_each(|line| complain(line));
        }
        tell(&problem);
    }
    if let Some(advice) = &outcome.advice
        && (verbose || outcome.ending != Ending::Program(0))
    {
        advice.lines().iter().for_each(|line| tell(line));
    }
    if verbose {
        let started = outcome
            .started
            .map_or("never".into(), |at| format!("after {at:.3?}"));
        tell(&format!(
            "program started {started}, ended after {:.3?}; {}",
            outcome.elapsed, outcome.exits
        ));
        if let Some(counters) = &outcome.counters {
            tell(&crate::counters::describe(counters));
        }
    }
}
