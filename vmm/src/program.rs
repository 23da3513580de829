//! A program in the guest, from its name to its outcome: what the `absentia run` command and
//! the integration tests share.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use abi::boot::{CMDLINE_COPY, CMDLINE_DETERMINISTIC, run_flags};
use abi::policy::CopyPolicy;
use abi::trace::Control;
use anyhow::{Context, Result, bail};
use kvm_bindings::KVM_API_VERSION;
use rustix::rand::GetRandomFlags;

use crate::devices::disk::Overlay;
use crate::error::{About, MachineError};
use crate::hostlink::input::Source;
use crate::hostlink::output::Sink;
use crate::images::{Archive, GuestImages, RunSpecification};
use crate::kvm::gate::Gate;
use crate::lab::Setup;
use crate::log::{KEPT, Log, complain};
use crate::machine::{self, Accelerator, Config, Outcome};
use crate::memory;
use crate::root::{self, Disk, absent};
use crate::sandbox::Sandbox;

mod host;

pub use crate::error::NoSuchProgram;
pub use crate::hostlink::Streams;
pub use host::There;

/// The program of the embedded root.
pub const DEFAULT: &str = "/bin/welcome";

/// A program and the machine it is to run on.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its path and arguments; empty for the embedded root's own.
    pub args: Vec<OsString>,
    /// `NAME=value`, added to a small environment of our own or replacing what is there.
    pub env: Vec<OsString>,
    /// Its working directory.
    pub cwd: OsString,
    /// A directory or a disk image; the embedded root without.
    pub root: Option<PathBuf>,
    /// The image stays as it is.
    pub snapshot: bool,
    /// Files and directories of the host that come onto the embedded root.
    pub with: Vec<PathBuf>,
    /// Guest RAM, bytes.
    pub memory: u64,
    /// The run ends after this time.
    pub timeout: Option<Duration>,
    /// What executes the guest, when it is not to be found out.
    pub accelerator: Option<Accelerator>,
    /// The gate, when it is not to be measured.
    pub gate: Option<Gate>,
    /// Print the log as it comes, and have the guest say more.
    pub verbose: bool,
    /// Bits of [`run_flags`] beside those the streams and `verbose` make.
    pub flags: u32,
    /// User and group it runs as.
    pub ids: (u32, u32),
    /// What copies do that may fail.
    pub copy_policy: CopyPolicy,
    /// Directory for reports of deadlocks and of who waits for whom.
    pub report: Option<PathBuf>,
    /// Added to the kernel's command line.
    pub cmdline: String,
    /// More arguments for QEMU.
    pub qemu_args: Vec<String>,
    /// What this process gives up before the guest runs; see [`Config::sandbox`].
    pub sandbox: Sandbox,
}

/// What any VMM needs to run a program: see `docs/portable-images.md`.
#[derive(Debug)]
pub struct Images {
    /// The kernel's ELF file.
    pub kernel: Cow<'static, [u8]>,
    /// The first module.
    pub archive: Archive,
    /// Words of the kernel's command line, beside those that name the devices.
    pub cmdline: String,
    /// The root disk.
    pub disk: Disk,
}

/// A run whose output was kept.
#[derive(Clone, Debug)]
pub struct Captured {
    /// How it ended.
    pub outcome: Outcome,
    /// What the program wrote.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
}

impl Program {
    /// A program with arguments, everything else as the command has it by default.
    pub fn new<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Program {
        Program {
            args: args
                .into_iter()
                .map(|arg| arg.as_ref().to_owned())
                .collect(),
            env: Vec::new(),
            cwd: "/".into(),
            root: None,
            snapshot: false,
            with: Vec::new(),
            memory: memory::DEFAULT,
            timeout: None,
            accelerator: None,
            gate: None,
            verbose: false,
            flags: 0,
            ids: (0, 0),
            copy_policy: CopyPolicy::Try,
            report: None,
            cmdline: String::new(),
            qemu_args: Vec::new(),
            sandbox: Sandbox::Off,
        }
    }

    /// Runs it with `stdin` as its standard input and keeps its output.
    pub fn capture(self, stdin: &[u8]) -> Result<Captured, MachineError> {
        let (out, stdout) = Sink::capture();
        let (err, stderr) = Sink::capture();
        let outcome = self.run(Streams {
            stdin: Source::Bytes(stdin.to_vec()),
            stdout: out,
            stderr: err,
            terminals: 0,
            window: None,
            signals: None,
        })?;
        let taken = |buffer: &Mutex<Vec<u8>>| {
            std::mem::take(
                &mut *buffer
                    .lock()
                    .unwrap_or_else(|poisoned| poisoned.into_inner()),
            )
        };
        Ok(Captured {
            outcome,
            stdout: taken(&stdout),
            stderr: taken(&stderr),
        })
    }

    /// Runs it.
    pub fn run(self, streams: Streams) -> Result<Outcome, MachineError> {
        self.run_on(streams).about(MachineError::Host)
    }

    fn run_on(mut self, streams: Streams) -> Result<Outcome> {
        let log = Arc::new(Log::new(self.verbose, KEPT));
        let accelerator = self.accelerator();
        let images = GuestImages::load().about(MachineError::Images)?;
        let (disk, there) = self.root_disk(&log, now_ns())?;
        self.flags |= streams.terminals;
        if there.is_some() {
            self.flags |= run_flags::NOTE_ABSENT;
        }
        let specification = self.specification(std::env::var_os("TERM"));
        let (kernel, archive) = images.archive(
            RunSpecification {
                window: streams.window,
                epoch_ns: now_ns(),
                seed: seed()?,
                ..specification
            }
            .encode()?,
            &self.cmdline,
        );
        let mut outcome = machine::run(Config {
            kernel,
            archive,
            cmdline: policy_word(self.copy_policy, self.cmdline),
            memory: self.memory,
            disk: Some(disk),
            accelerator,
            gate: self.gate,
            timeout: self.timeout,
            stdin: streams.stdin,
            stdout: streams.stdout,
            stderr: streams.stderr,
            signals: streams.signals,
            log,
            report: self.report,
            qemu_args: self.qemu_args,
            sandbox: self.sandbox,
        })?;
        if let Some(there) = there {
            outcome.advice = absent::advice(Path::new("/"), &outcome.absent, &there);
        }
        Ok(outcome)
    }

    /// What another VMM needs to run it. Time and entropy are of now; none of its standard streams
    /// is a terminal.
    pub fn images(self) -> Result<Images, MachineError> {
        self.images_now().about(MachineError::Host)
    }

    fn images_now(mut self) -> Result<Images> {
        let log = Arc::new(Log::new(self.verbose, KEPT));
        let images = GuestImages::load().about(MachineError::Images)?;
        let now = now_ns();
        let (disk, _) = self.root_disk(&log, now)?;
        let specification = RunSpecification {
            epoch_ns: now,
            seed: seed()?,
            ..self.specification(None)
        };
        let (kernel, archive) = images.archive(specification.encode()?, &self.cmdline);
        Ok(Images {
            kernel,
            archive,
            cmdline: policy_word(self.copy_policy, self.cmdline),
            disk,
        })
    }

    /// What a machine of the laboratory needs to run it, the same every time: at `epoch_ns`
    /// since 1970, with this entropy and without standard input.
    pub fn setup(
        self,
        epoch_ns: u64,
        seed: [u64; 4],
        control: Control,
    ) -> Result<Setup, MachineError> {
        self.setup_at(epoch_ns, seed, control)
            .about(MachineError::Host)
    }

    fn setup_at(mut self, epoch_ns: u64, seed: [u64; 4], control: Control) -> Result<Setup> {
        let log = Arc::new(Log::new(self.verbose, KEPT));
        let images = GuestImages::load().about(MachineError::Images)?;
        let (disk, _) = self.root_disk(&log, epoch_ns)?;
        self.flags |= run_flags::DETERMINISTIC;
        let specification = RunSpecification {
            epoch_ns,
            seed,
            ..self.specification(None)
        };
        let (kernel, archive) = images.archive(specification.encode()?, &self.cmdline);
        let cmdline = format!("{CMDLINE_DETERMINISTIC} {}", self.cmdline);
        Ok(Setup {
            kernel,
            archive,
            cmdline: policy_word(self.copy_policy, cmdline.trim_end().into()),
            memory: self.memory,
            disk: Some(Overlay::new(disk.file).about(MachineError::Disk)?),
            gate: self.gate,
            control,
            log,
        })
    }

    /// The disk that `root` names, or the embedded one as of `now` with the program on it; and for
    /// a program of the host what is on that.
    fn root_disk(&mut self, log: &Log, now: u64) -> Result<(Disk, Option<There>), MachineError> {
        let contradiction = |what: &str| Err(MachineError::Configuration(what.into()));
        match &self.root {
            Some(_) if self.args.is_empty() => {
                contradiction("--root needs a PROGRAM: only the embedded root has a default")
            }
            Some(_) if !self.with.is_empty() => contradiction(
                "--with is for the embedded root: put it onto that of --root yourself",
            ),
            Some(path) => root::open(path, self.snapshot)
                .map(|disk| (disk, None))
                .about(MachineError::Disk),
            None => host::root(self, log, now).map_err(|error| {
                match error.downcast::<NoSuchProgram>() {
                    Ok(program) => MachineError::Program(program),
                    Err(error) => MachineError::Disk(error.into()),
                }
            }),
        }
    }

    /// What the guest is told, at no particular time, without entropy and terminal.
    fn specification(&self, term: Option<OsString>) -> RunSpecification {
        let verbose = if self.verbose { run_flags::VERBOSE } else { 0 };
        RunSpecification {
            args: self.args.iter().map(|a| a.as_bytes().to_vec()).collect(),
            env: environment(term, &self.env),
            cwd: self.cwd.as_bytes().to_vec(),
            flags: self.flags | verbose,
            window: None,
            ids: self.ids,
            epoch_ns: 0,
            seed: [0; 4],
        }
    }

    /// LD_LIBRARY_PATH as the program will see it.
    pub fn library_path(&self) -> Option<&str> {
        let values = self.env.iter().filter_map(|e| e.to_str());
        values
            .filter_map(|e| e.strip_prefix("LD_LIBRARY_PATH="))
            .next_back()
    }

    /// What executes the guest.
    pub fn accelerator(&self) -> Accelerator {
        if let Some(chosen) = self.accelerator {
            return chosen;
        }
        match usable_kvm() {
            Ok(_) => Accelerator::Kvm,
            Err(error) => {
                complain(&format!(
                    "absentia: /dev/kvm is not usable ({error}): running under QEMU"
                ));
                Accelerator::Qemu
            }
        }
    }
}

/// Whether `/dev/kvm` is there and answers as KVM does.
fn usable_kvm() -> Result<()> {
    let version = kvm_ioctls::Kvm::new()?.get_api_version();
    if version != KVM_API_VERSION as i32 {
        bail!("it speaks no KVM: API version {version}");
    }
    Ok(())
}

/// The kernel's command line with the copy policy in front.
fn policy_word(policy: CopyPolicy, rest: String) -> String {
    let word = format!("{CMDLINE_COPY}{}", policy.name());
    if rest.is_empty() {
        word
    } else {
        format!("{word} {rest}")
    }
}

/// Wall clock, ns since 1970.
pub fn now_ns() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
        })
}

/// Entropy for a guest, from the kernel itself: where only `/dev/kvm` is, there is no
/// `/dev/urandom`.
pub fn seed() -> Result<[u64; 4]> {
    let mut words = [0; 4];
    for word in &mut words {
        let mut bytes = [0; 8];
        // So few bytes come whole, or not at all.
        rustix::rand::getrandom(&mut bytes, GetRandomFlags::empty()).context("getrandom")?;
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
        let name = assignment
            .split(|&b| b == b'=')
            .next()
            .unwrap_or_default()
            .len()
            + 1;
        match env
            .iter_mut()
            .find(|e| e.get(..name) == assignment.get(..name))
        {
            Some(existing) => *existing = assignment,
            None => env.push(assignment),
        }
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_can_be_replaced_and_extended() {
        let env = environment(
            Some("vt100".into()),
            &["HOME=/x".into(), "A=1".into(), "A=2".into()],
        );
        let env: Vec<String> = env
            .into_iter()
            .map(|e| String::from_utf8(e).unwrap())
            .collect();
        let expected = [
            "PATH=/bin:/usr/bin:/sbin:/usr/sbin",
            "HOME=/x",
            "TERM=vt100",
            "LANG=C",
            "A=2",
        ];
        assert_eq!(env, expected);
    }
}
