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

use crate::control::Signals;
use crate::devices::disk::Overlay;
use crate::hostlink::input::Source;
use crate::hostlink::output::Sink;
use crate::images::{GuestImages, RunSpecification, default_programs};
use crate::kvm::gate::Gate;
use crate::lab::Setup;
use crate::log::{KEPT, Log, complain};
use crate::machine::{self, Accelerator, Config, Outcome};
use crate::memory;
use crate::root::{self, Disk, closure, embedded};

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
}

/// Its standard streams and what belongs to them.
#[derive(Debug)]
pub struct Streams {
    /// Where standard input comes from.
    pub stdin: Source,
    /// Where standard output goes.
    pub stdout: Sink,
    /// Where standard error goes.
    pub stderr: Sink,
    /// Which of them are terminals: bits of [`run_flags`].
    pub terminals: u32,
    /// The terminal's rows and columns.
    pub window: Option<(u16, u16)>,
    /// Signals that end the run or resize the terminal.
    pub signals: Option<Signals>,
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

/// The program cannot be started; found out before there is a guest.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {what}")]
pub struct NoSuchProgram {
    path: String,
    what: Cow<'static, str>,
    code: u8,
}

impl NoSuchProgram {
    fn new(path: &str, what: impl Into<Cow<'static, str>>, code: u8) -> NoSuchProgram {
        NoSuchProgram {
            path: path.to_string(),
            what: what.into(),
            code,
        }
    }

    /// What a shell reports: 127 not found, 126 found and not executable.
    pub fn code(&self) -> u8 {
        self.code
    }
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
        }
    }

    /// Runs it with `stdin` as its standard input and keeps its output.
    pub fn capture(self, stdin: &[u8]) -> Result<Captured> {
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
    pub fn run(mut self, streams: Streams) -> Result<Outcome> {
        let log = Arc::new(Log::new(self.verbose, KEPT));
        let accelerator = self.accelerator();
        let images = GuestImages::load()?;
        let disk = self.root_disk(&log, now_ns())?;
        self.flags |= streams.terminals;
        let specification = self.specification(std::env::var_os("TERM"));
        let (kernel, archive) = images.archive(
            RunSpecification {
                window: streams.window,
                epoch_ns: now_ns(),
                seed: seed()?,
                ..specification
            }
            .encode()?,
        );
        machine::run(Config {
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
        })
    }

    /// What a machine of the laboratory needs to run it, the same every time: at `epoch_ns`
    /// since 1970, with this entropy and without standard input.
    pub fn setup(mut self, epoch_ns: u64, seed: [u64; 4], control: Control) -> Result<Setup> {
        let log = Arc::new(Log::new(self.verbose, KEPT));
        let images = GuestImages::load()?;
        let disk = self.root_disk(&log, epoch_ns)?;
        self.flags |= run_flags::DETERMINISTIC;
        let specification = RunSpecification {
            epoch_ns,
            seed,
            ..self.specification(None)
        };
        let (kernel, archive) = images.archive(specification.encode()?);
        let cmdline = format!("{CMDLINE_DETERMINISTIC} {}", self.cmdline);
        Ok(Setup {
            kernel,
            archive,
            cmdline: policy_word(self.copy_policy, cmdline.trim_end().into()),
            memory: self.memory,
            disk: Some(Overlay::new(disk.file).context("the root disk")?),
            gate: self.gate,
            control,
            log,
        })
    }

    /// The disk that `root` names, or the embedded one as of `now` with the program on it.
    fn root_disk(&mut self, log: &Log, now: u64) -> Result<Disk> {
        match &self.root {
            Some(_) if self.args.is_empty() => {
                bail!("--root needs a PROGRAM: only the embedded root has a default")
            }
            Some(path) => root::open(path),
            None => self.embedded_root(log, now),
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
    fn library_path(&self) -> Option<&str> {
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

    /// The embedded root, with the host's program on it when there is one.
    fn embedded_root(&mut self, log: &Log, now: u64) -> Result<Disk> {
        let mut programs: Vec<embedded::Program<'_>> = default_programs()
            .iter()
            .map(|&(path, content)| embedded::Program {
                path: path.into(),
                content,
            })
            .collect();
        let Some(program) = self.args.first() else {
            self.args = vec![DEFAULT.into()];
            return embedded::build(&programs, now);
        };
        let path = program.to_string_lossy().into_owned();
        let refuse = |what: &'static str, code| NoSuchProgram::new(&path, what, code);
        let host = Path::new(program);
        let content;
        match std::fs::read(host) {
            Ok(bytes) => {
                check_program(&bytes).map_err(|what| refuse(what, 126))?;
                content = bytes;
                // At the same path in the guest, whose working directory is not ours.
                let absolute = std::path::absolute(host).context("the program's path")?;
                let (file, links) = closure::links(&absolute);
                let moved = place(&absolute, &file);
                if let Some(place) = &moved {
                    log.note(&format!(
                        "{path}: where the guest mounts something: run as {}",
                        place.display()
                    ));
                }
                let (absolute, file, links) = match moved {
                    Some(place) => (place.clone(), place, Vec::new()),
                    None => (absolute, file, links),
                };
                let text = |path: &Path| match path.to_str() {
                    Some(path) => Ok(path.to_string()),
                    None => Err(refuse("the path is not UTF-8: use --root", 126)),
                };
                let file = text(&file)?;
                self.args[0] = absolute.into();
                let needed = closure::of(Path::new("/"), &file, &content, self.library_path())
                    .map_err(|problem| NoSuchProgram::new(&path, problem.to_string(), 127))?;
                needed.report.iter().for_each(|line| log.note(line));
                let mut surroundings = embedded::Surroundings {
                    directories: needed.directories,
                    links: Vec::new(),
                };
                for (link, target) in links {
                    surroundings.links.push((text(&link)?, text(&target)?));
                }
                programs.retain(|p| p.path != file && needed.files.iter().all(|f| f.0 != p.path));
                programs.push(embedded::Program {
                    path: file.into(),
                    content: &content,
                });
                programs.extend(
                    needed
                        .files
                        .iter()
                        .map(|(path, content)| embedded::Program {
                            path: path.into(),
                            content,
                        }),
                );
                embedded::build_with(&programs, &surroundings, now)
            }
            Err(_) if host.is_dir() => Err(refuse("is a directory", 126).into()),
            Err(_) if programs.iter().any(|p| Path::new(&*p.path) == host) => {
                embedded::build(&programs, now)
            }
            Err(_) => Err(refuse("no such program here or on the embedded root", 127).into()),
        }
    }
}

/// Directories whose content the guest covers with file systems of its own.
const COVERED: [&str; 3] = ["/dev", "/proc", "/tmp"];

/// Whether `/dev/kvm` is there and answers as KVM does.
fn usable_kvm() -> Result<()> {
    let version = kvm_ioctls::Kvm::new()?.get_api_version();
    if version != KVM_API_VERSION as i32 {
        bail!("it speaks no KVM: API version {version}");
    }
    Ok(())
}

/// Where a program goes that cannot be at its own path, because that path or the file it leads
/// to would be covered.
fn place(path: &Path, file: &Path) -> Option<PathBuf> {
    let covered = |path: &Path| COVERED.iter().any(|dir| path.starts_with(dir));
    if !covered(path) && !covered(file) {
        return None;
    }
    Some(Path::new("/bin").join(path.file_name()?))
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

/// Whether the guest can run this at all; if not, why.
fn check_program(content: &[u8]) -> Result<(), &'static str> {
    use goblin::elf::header::EM_X86_64;
    if !content.starts_with(b"\x7fELF") {
        return Err("not an ELF program: a script needs its interpreter on the disk, use --root");
    }
    let elf = goblin::elf::Elf::parse(content).map_err(|_| "a damaged ELF file")?;
    if elf.header.e_machine != EM_X86_64 || !elf.is_64 {
        return Err("not a program for x86-64");
    }
    Ok(())
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

    #[test]
    fn programs_move_out_of_covered_directories() {
        let moved = |path: &str, file: &str| {
            place(Path::new(path), Path::new(file)).map(|p| p.display().to_string())
        };
        assert_eq!(moved("/opt/x", "/opt/x"), None);
        assert_eq!(moved("/tmpx/x", "/tmpx/x"), None);
        assert_eq!(moved("/tmp/d/x", "/tmp/d/x").as_deref(), Some("/bin/x"));
        assert_eq!(moved("/bin/ls", "/tmp/busybox").as_deref(), Some("/bin/ls"));
        assert_eq!(
            moved("/proc/self/exe", "/opt/x").as_deref(),
            Some("/bin/exe")
        );
    }

    #[test]
    fn programs_that_cannot_run_are_told_apart() {
        let refused = |program: &str| {
            let log = Log::new(false, KEPT);
            let error = Program::new([program]).embedded_root(&log, 0).unwrap_err();
            error.downcast::<NoSuchProgram>().unwrap()
        };
        assert_eq!(refused("/no/such/program").code(), 127);
        assert_eq!(refused("/tmp").code(), 126);
        assert_eq!(refused("/etc/passwd").code(), 126);
        let script = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(script.path(), "#!/bin/sh\n").unwrap();
        let script = refused(script.path().to_str().unwrap());
        assert_eq!(script.code(), 126);
        assert!(script.to_string().contains("--root"), "{script}");
    }
}
