//! What the in-guest tests share: root directories and disks, guest programs compiled on the
//! spot, runs of the machine through the VMM library, and the same run on the host.

// Each test binary uses its part.
#![allow(dead_code)]

pub mod built;
pub mod hardware;
pub mod judge;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use abi::boot::{CMDLINE_COPY, run_flags};
use abi::policy::CopyPolicy;
use absentia_vmm::control::Reason;
use absentia_vmm::hostlink::input::Source;
use absentia_vmm::hostlink::output::Sink;
use absentia_vmm::images::{GuestImages, RunSpecification};
use absentia_vmm::kvm::gate::Gate;
use absentia_vmm::log::{KEPT, Log};
use absentia_vmm::machine::{self, Accelerator, Config, Ending, Outcome};
use absentia_vmm::root::{self, Disk};
use tempfile::TempDir;

/// What executes the guest, and how its kernel is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Platform {
    /// KVM with the gate that suits the host.
    Kvm,
    /// KVM with the kernel at CPL0, however slow that is here.
    KvmDirect,
    /// QEMU, translating.
    Qemu,
}

impl Platform {
    /// Fails the test where the host lacks the platform: what did not run proves nothing.
    pub fn require(self) {
        match self {
            Platform::Kvm | Platform::KvmDirect => {
                let opened = fs::File::options().read(true).write(true).open("/dev/kvm");
                if let Err(error) = opened {
                    panic!("this test needs /dev/kvm, readable and writable: {error}");
                }
            }
            Platform::Qemu => assert!(
                tool("qemu-system-x86_64").is_some(),
                "this test needs qemu-system-x86_64: install the package qemu-system-x86"
            ),
        }
    }

    fn accelerator(self) -> Accelerator {
        match self {
            Platform::Kvm | Platform::KvmDirect => Accelerator::Kvm,
            Platform::Qemu => Accelerator::Qemu,
        }
    }

    fn gate(self) -> Option<Gate> {
        (self == Platform::KvmDirect).then_some(Gate::Direct)
    }
}

/// Whether there is time for what takes long: a bounded selection otherwise.
pub fn all() -> bool {
    let all = std::env::var_os("ABSENTIA_ALL").is_some();
    if !all {
        println!("a selection: all of it is for ABSENTIA_ALL=1 (README)");
    }
    all
}

/// What `tests/sabotage.rs` has machines of tests started with: deliberate defects.
pub fn sabotage() -> String {
    std::env::var(abi::sabotage::VARIABLE).unwrap_or_default()
}

/// [`sabotage`] as a word of the kernel's command line.
pub fn sabotage_word() -> String {
    match sabotage() {
        names if names.is_empty() => names,
        names => format!(" {}{names}", abi::sabotage::CMDLINE_SABOTAGE),
    }
}

/// Starts a program with no signal ignored, as guests do: a shell ignores some for what it runs in the
/// background, and that is inherited.
pub fn usual_signals(command: &mut Command) {
    // SAFETY: system calls on plain numbers.
    unsafe {
        command.pre_exec(|| {
            for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM] {
                libc::signal(signal, libc::SIG_DFL);
            }
            Ok(())
        });
    }
}

/// `sh -c SCRIPT`, with mounts that nobody else sees and that go with it; `$0` is the first argument. Who may not mount gets
/// a user namespace, where he may; root in a chroot cannot have one, and may mount.
pub fn with_own_mounts(script: &str) -> Command {
    let may_mount = Command::new("unshare").args(["--mount", "true"]).output();
    let may_mount = may_mount.expect("unshare (Debian: util-linux)");
    let mut command = Command::new("unshare");
    if !may_mount.status.success() {
        command.arg("--map-root-user");
    }
    command.args(["--mount", "sh", "-c", script]);
    command
}

/// Where a program of the host is.
pub fn tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
}

/// Runs a tool of the host and returns its exit code and all it said.
pub fn host_tool(name: &str, args: &[&OsStr]) -> (i32, String) {
    let path = tool(name).unwrap_or_else(|| panic!("the tests need {name}"));
    let output = Command::new(path).args(args).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{name}: {error}"));
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

/// Cold files on a disk: c0, c1, ... in `/work`, for the programs in `tests/scenarios`.
pub fn with_cold_files(mut root: Root, count: usize) -> Root {
    const LEN: usize = 16 * 4096;
    for number in 0..count {
        let bytes: Vec<u8> = (0..LEN)
            .map(|i| (i * 7 + i / 4096 * 13 + number * 31 + 1) as u8)
            .collect();
        root = root.file(&format!("/work/c{number}"), &bytes);
    }
    root
}

/// The static program made from `tests/guest/NAME.rs`, `NAME.c` or `tests/scenarios/NAME.c`.
pub fn guest_program(name: &str) -> PathBuf {
    static COMPILING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = COMPILING.lock().unwrap_or_else(|e| e.into_inner());
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests");
    let candidates = ["guest/", "scenarios/"]
        .into_iter()
        .flat_map(|place| ["rs", "c"].map(|kind| tests.join(format!("{place}{name}.{kind}"))));
    let source = candidates
        .into_iter()
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("no source of the guest program {name}"));
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let changed = |path: &Path| path.metadata().and_then(|m| m.modified()).ok();
    let shared = [
        "scenarios/cold.h",
        "guest/check.h",
        "guest/show.h",
        "guest/ways.h",
    ]
    .map(|header| changed(&tests.join(header)));
    if changed(&target) > shared.into_iter().fold(changed(&source), Option::max) {
        return target;
    }
    let fresh = target.with_extension(format!("{}", std::process::id()));
    let mut compile = if source.extension() == Some(OsStr::new("rs")) {
        let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or("rustc".into()));
        rustc.args([
            "--edition=2024",
            "-O",
            "-Ctarget-feature=+crt-static",
            "-Cpanic=abort",
        ]);
        rustc
    } else {
        let mut cc = Command::new("cc");
        cc.args(["-O2", "-static", "-Wall", "-Wextra", "-Werror"]);
        let text = fs::read_to_string(&source).expect("the source");
        if text.contains("lab.h\"") {
            // Those that `tests/scenarios/lab.h` is for.
            cc.args(absentia_vmm::explore::scenario::compiler::FREESTANDING);
        }
        cc
    };
    let output = compile
        .arg("-o")
        .arg(&fresh)
        .arg(&source)
        .output()
        .expect("a compiler");
    assert!(
        output.status.success(),
        "{}: {}",
        source.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    fs::rename(&fresh, &target).expect("the compiled program");
    target
}

/// A directory that becomes the guest's root disk.
pub struct Root {
    dir: TempDir,
}

impl Root {
    /// With the directories the system mounts on, and `/work`.
    pub fn new() -> Root {
        let dir = tempfile::Builder::new()
            .prefix("absentia-test-")
            .tempdir()
            .expect("directory");
        for name in ["bin", "dev", "proc", "tmp", "root", "etc", "work"] {
            fs::create_dir(dir.path().join(name)).expect("directory");
        }
        Root { dir }
    }

    /// The host's path of a guest's path.
    pub fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path.trim_start_matches('/'))
    }

    /// Adds busybox and its applets in `/bin`.
    pub fn busybox(self) -> Root {
        let busybox = tool("busybox").expect("the tests need busybox (Debian: busybox-static)");
        fs::copy(&busybox, self.path("/bin/busybox")).expect("busybox");
        let (_, applets) = host_tool("busybox", &["--list".as_ref()]);
        for applet in applets.lines().filter(|&name| name != "busybox") {
            std::os::unix::fs::symlink("busybox", self.path("/bin").join(applet)).expect("applet");
        }
        self
    }

    /// Adds a guest program in `/bin`.
    pub fn program(self, name: &str) -> Root {
        fs::copy(guest_program(name), self.path("/bin").join(name)).expect("guest program");
        self
    }

    /// Adds a file.
    pub fn file(self, path: &str, contents: &[u8]) -> Root {
        fs::write(self.path(path), contents).expect("file");
        self
    }

    /// The disk of one run.
    pub fn disk(&self) -> Disk {
        root::image_of_directory(self.dir.path()).expect("root disk")
    }

    /// A disk image of `mib` MiB that outlives its runs.
    pub fn image(&self, mib: u64, block_size: u32) -> Image {
        let file = tempfile::Builder::new()
            .prefix("absentia-image-")
            .tempfile()
            .expect("image");
        file.as_file().set_len(mib << 20).expect("image size");
        let block = block_size.to_string();
        let args: [&OsStr; 8] = [
            "-qF".as_ref(),
            "-t".as_ref(),
            "ext2".as_ref(),
            "-b".as_ref(),
            block.as_ref(),
            "-d".as_ref(),
            self.dir.path().as_ref(),
            file.path().as_ref(),
        ];
        let (code, said) = host_tool("mke2fs", &args);
        assert_eq!(code, 0, "mke2fs: {said}");
        Image { file }
    }
}

/// An ext2 image.
pub struct Image {
    pub file: tempfile::NamedTempFile,
}

impl Image {
    /// The image as a run's disk.
    pub fn disk(&self) -> Disk {
        root::open(self.file.path(), false).expect("disk image")
    }

    /// e2fsck's judgement, without repairs.
    pub fn check(&self) {
        let (code, said) = host_tool("e2fsck", &["-fn".as_ref(), self.file.path().as_ref()]);
        assert_eq!(code, 0, "e2fsck: {said}");
    }

    /// A file's contents, as e2fsprogs reads them.
    pub fn read(&self, path: &str) -> Vec<u8> {
        let out = tempfile::NamedTempFile::new().expect("file");
        let command = format!("dump {path} {}", out.path().display());
        let args: [&OsStr; 3] = ["-R".as_ref(), command.as_ref(), self.file.path().as_ref()];
        let (_, said) = host_tool("debugfs", &args);
        let contents = fs::read(out.path()).expect("dumped file");
        assert!(!contents.is_empty(), "debugfs: {said}");
        contents
    }
}

/// One run of a program.
pub struct Run {
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    pub cwd: String,
    pub stdin: Vec<u8>,
    pub memory: u64,
    pub timeout: Duration,
    pub verbose: bool,
    pub policy: CopyPolicy,
    /// Whether VM checks its invariants after every request.
    pub sanity: bool,
    /// More words for the kernel's command line.
    pub words: String,
    /// Whether programs get the same addresses every time.
    pub fixed_layout: bool,
    pub report: Option<PathBuf>,
}

/// How a run ended, in the guest or on the host.
pub struct Finished {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub outcome: Option<Outcome>,
}

impl Run {
    /// A program with its arguments, in `/work`.
    pub fn new(args: &[&str]) -> Run {
        let env = [
            ("PATH", "/bin"),
            ("HOME", "/root"),
            ("LANG", "C"),
            ("TZ", "UTC"),
            ("TERM", "dumb"),
        ];
        Run {
            args: args.iter().map(|a| a.to_string()).collect(),
            env: env
                .map(|(name, value)| (name.into(), value.into()))
                .to_vec(),
            cwd: "/work".into(),
            stdin: Vec::new(),
            memory: 64 << 20,
            timeout: Duration::from_secs(120),
            verbose: false,
            policy: CopyPolicy::Try,
            sanity: false,
            words: String::new(),
            fixed_layout: false,
            report: None,
        }
    }

    pub fn cwd(mut self, cwd: &str) -> Run {
        self.cwd = cwd.into();
        self
    }

    pub fn stdin(mut self, bytes: &[u8]) -> Run {
        self.stdin = bytes.to_vec();
        self
    }

    pub fn timeout(mut self, seconds: u64) -> Run {
        self.timeout = Duration::from_secs(seconds);
        self
    }

    /// Runs it in the guest.
    pub fn guest(&self, platform: Platform, disk: Disk) -> Finished {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("a clock");
        let specification = RunSpecification {
            args: self.args.iter().map(|a| a.as_bytes().to_vec()).collect(),
            env: self
                .env
                .iter()
                .map(|(n, v)| format!("{n}={v}").into_bytes())
                .collect(),
            cwd: self.cwd.as_bytes().to_vec(),
            epoch_ns: now.as_nanos() as u64,
            // The same entropy every time: a test is no place for chance.
            seed: [1, 2, 3, 4],
            flags: if self.sanity { run_flags::VM_SANITY } else { 0 }
                | if self.fixed_layout {
                    run_flags::NO_RANDOMIZE
                } else {
                    0
                },
            ..RunSpecification::default()
        };
        let images = GuestImages::load().expect("guest images");
        let (kernel, archive) = images.archive(
            specification.encode().expect("run specification"),
            &self.words,
        );
        let (stdout, out) = Sink::capture();
        let (stderr, err) = Sink::capture();
        let outcome = machine::run(Config {
            kernel,
            archive,
            cmdline: format!(
                "{CMDLINE_COPY}{} {}{}",
                self.policy.name(),
                self.words,
                sabotage_word()
            ),
            memory: self.memory,
            disk: Some(disk),
            accelerator: platform.accelerator(),
            gate: platform.gate(),
            timeout: Some(self.timeout),
            stdin: Source::Bytes(self.stdin.clone()),
            stdout,
            stderr,
            signals: None,
            log: Arc::new(Log::new(self.verbose, KEPT)),
            report: self.report.clone(),
            qemu_args: Vec::new(),
            sandbox: absentia_vmm::sandbox::Sandbox::Off,
        })
        .expect("the machine");
        let take = |buffer: Arc<Mutex<Vec<u8>>>| {
            std::mem::take(&mut *buffer.lock().unwrap_or_else(|e| e.into_inner()))
        };
        Finished {
            code: outcome.ending.code().into(),
            stdout: take(out),
            stderr: take(err),
            outcome: Some(outcome),
        }
    }

    /// Runs the same on the host, with `root` in the place of `/`. Programs find each other
    /// by PATH; what they are called stays the same. Where [`judge`] says so it is what another host's Linux did.
    pub fn host(&self, root: &Root) -> Finished {
        match judge::of(self) {
            Some(judgement) => judgement.read_or(|| self.on_linux(root)),
            None => self.on_linux(root),
        }
    }

    fn on_linux(&self, root: &Root) -> Finished {
        let mut command = Command::new(root.path(&self.args[0]));
        command
            .arg0(&self.args[0])
            .args(&self.args[1..])
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .current_dir(root.path(&self.cwd))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if self.args[0].ends_with("busybox") {
            command.env("PATH", root.path("/bin"));
        }
        usual_signals(&mut command);
        let mut child = command.spawn().expect("host program");
        let mut stdin = child.stdin.take().expect("pipe");
        let bytes = self.stdin.clone();
        // A program that does not read its input is no error.
        let feeder = std::thread::spawn(move || {
            let _ = std::io::Write::write_all(&mut stdin, &bytes);
        });
        let output = child.wait_with_output().expect("host program");
        feeder.join().expect("feeder");
        let status = output.status;
        Finished {
            code: status
                .code()
                .or(status.signal().map(|s| 128 + s))
                .unwrap_or(-1),
            stdout: output.stdout,
            stderr: output.stderr,
            outcome: None,
        }
    }

    /// Runs it in the guest and demands what the host does: output, errors, exit code.
    pub fn same_as_host(&self, platform: Platform, root: &Root) -> Finished {
        let guest = self.guest(platform, root.disk());
        let host = self.host(root);
        guest.must_equal(&host, &self.args);
        guest
    }
}

impl Finished {
    fn must_equal(&self, host: &Finished, what: &[String]) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (ours, theirs) = (text(&self.stdout), text(&host.stdout));
        if ours != theirs {
            let line = ours
                .lines()
                .zip(theirs.lines())
                .take_while(|(a, b)| a == b)
                .count();
            let from = line.saturating_sub(3);
            let show = |s: &str| {
                let cut = |l: &str| l.chars().take(200).collect::<String>();
                s.lines()
                    .skip(from)
                    .take(8)
                    .map(|l| cut(l) + "\n")
                    .collect::<String>()
            };
            panic!(
                "{what:?}: output differs from line {}\nguest:\n{}\nhost:\n{}\n{}",
                line + 1,
                show(&ours),
                show(&theirs),
                self.circumstances()
            );
        }
        assert_eq!(
            text(&self.stderr),
            text(&host.stderr),
            "{what:?}: standard error\n{}",
            self.circumstances()
        );
        assert_eq!(
            self.code,
            host.code,
            "{what:?}: exit code\n{}",
            self.circumstances()
        );
    }

    /// Demands an exit code.
    pub fn must_exit(&self, code: i32) -> &Finished {
        assert_eq!(self.code, code, "{}", self.circumstances());
        self
    }

    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Whether the time was over.
    pub fn timed_out(&self) -> bool {
        matches!(
            self.outcome.as_ref().map(|o| &o.ending),
            Some(Ending::Stopped(Reason::Timeout))
        )
    }

    /// What helps to understand a failure.
    pub fn circumstances(&self) -> String {
        let mut text = format!(
            "code {}, stderr: {}",
            self.code,
            String::from_utf8_lossy(&self.stderr)
        );
        if let Some(outcome) = &self.outcome {
            text += &format!(
                "\n{:?} after {:.3?}\n{}",
                outcome.ending,
                outcome.elapsed,
                outcome.log.join("\n")
            );
        }
        text
    }
}

/// Runs a program of tests/guest with `args` here and in the guest, which must do the same.
pub fn compare_program(platform: Platform, name: &str, args: &[&str]) {
    platform.require();
    let root = Root::new().program(name);
    let path = format!("/bin/{name}");
    let args: Vec<&str> = [path.as_str()].iter().chain(args).copied().collect();
    let run = Run {
        // Slow, but not too slow under KVM: VM watches itself while the programs do their worst.
        sanity: platform == Platform::Kvm,
        ..Run::new(&args)
    };
    run.same_as_host(platform, &root);
}
