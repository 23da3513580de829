//! A Linux machine with hardware virtualization, on a host that need not have any: Debian's own kernel with kvm-amd, on a
//! processor with SVM and nested paging that QEMU emulates (TCG). The files are this host's, shared read-only, with changes in
//! the machine's memory: what is built here runs there, with the same tools beside it.
//!
//! The kernel comes out of Debian's package, which is fetched into `target/hardware` and not installed.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use super::{Platform, host_tool, tool};

/// A processor that has all that TCG offers.
pub const PROCESSOR: &str = "max,+svm,+npt";

/// The package that depends on the kernel of the day.
const PACKAGE: &str = "linux-image-amd64";

/// Modules in an order in which each finds what it needs: KVM, the PCI devices of virtio, shared files, changes over them.
const MODULES: [&str; 15] = [
    "irqbypass",
    "ccp",
    "kvm",
    "kvm-amd",
    "virtio_ring",
    "virtio",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "netfs",
    "fscache",
    "9pnet",
    "9pnet_virtio",
    "9p",
    "overlay",
];

/// Starts lines of the console that are not a step's output.
const MARK: &str = "@@";
/// Bytes of a step's output that are told, its last.
const TOLD: usize = 30_000;
/// The machine's memory.
const MEMORY: &str = "2G";
/// What starting the machine may take, seconds of a processor's time.
const START: u64 = 60;
/// Limits are of processor time, which a host that does other things gives as it can; by the clock they are so many
/// times as long, for what sleeps.
const BY_THE_CLOCK: u64 = 20;

/// How often its time is looked at.
const TICK: Duration = Duration::from_secs(1);

/// A command for the machine's shell, as root in the directory of the package `vmm`.
#[derive(Clone, Debug)]
pub struct Step {
    /// What it is called.
    pub name: String,
    /// After so many seconds of a processor's time it is ended.
    pub seconds: u64,
    /// The command.
    pub command: String,
}

impl Step {
    pub fn new(name: &str, seconds: u64, command: &str) -> Step {
        Step {
            name: name.into(),
            seconds,
            command: command.into(),
        }
    }
}

/// How a step ended.
#[derive(Debug)]
pub struct Done {
    /// Its name.
    pub name: String,
    /// The command's exit status, 124 when its time was over.
    pub status: i32,
    /// What it said on both of its streams, the last of it.
    pub said: String,
    /// How long it took, by the machine's clock, which is this host's.
    pub seconds: f64,
    /// What share of a processor the machine had, all in all: 1 on a host that does nothing else.
    pub share: f64,
}

impl Done {
    /// Demands that it succeeded; what it said.
    pub fn said(&self) -> &str {
        let Done {
            name, status, said, ..
        } = self;
        assert_eq!(*status, 0, "on the emulated hardware: {name}:\n{said}");
        said
    }
}

/// Where the kernel and its modules are, fetched if need be.
fn kernel() -> PathBuf {
    static FETCHING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = FETCHING.lock().unwrap_or_else(|e| e.into_inner());
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../hardware");
    let kernel = directory.join("kernel");
    if !kernel.is_dir() {
        fs::create_dir_all(&directory).expect("target/hardware");
        fetch(&directory, &kernel).unwrap_or_else(|problem| {
            panic!(
                "the machine with emulated hardware virtualization needs the kernel of Debian's {PACKAGE} (it is not \
                 installed): apt-get update, and again; or put its linux-image-*.deb into target/hardware: {problem}"
            )
        });
    }
    kernel
}

fn fetch(directory: &Path, kernel: &Path) -> Result<(), String> {
    let package = || {
        let files = fs::read_dir(directory).ok()?;
        let mut paths = files.filter_map(|file| Some(file.ok()?.path()));
        paths.find(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with("linux-image-") && name.ends_with(".deb"))
        })
    };
    if package().is_none() {
        let (_, said) = host_tool("apt-cache", &["depends".as_ref(), PACKAGE.as_ref()]);
        let name = said
            .lines()
            .find_map(|line| line.trim().strip_prefix("Depends: "));
        let name = name.ok_or_else(|| format!("apt-cache knows no {PACKAGE}"))?;
        let output = Command::new("apt-get")
            .args(["download", name])
            .current_dir(directory)
            .output()
            .map_err(|error| format!("apt-get: {error}"))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
    }
    let package = package().ok_or("apt-get download brought nothing")?;
    let fresh = tempfile::tempdir_in(directory).map_err(|error| error.to_string())?;
    let mut unpack = Command::new("sh");
    unpack.args(["-c", "dpkg-deb --fsys-tarfile \"$0\" | tar -x -C \"$@\""]);
    unpack.arg(&package).arg(fresh.path());
    // In one directory, without those in which they are.
    unpack.args(["--wildcards", "--transform", "s,.*/,,", "./boot/vmlinuz-*"]);
    unpack.args(MODULES.map(|name| format!("*/{name}.ko*")));
    let output = unpack.output().map_err(|error| format!("sh: {error}"))?;
    // What is no module of this kernel is built into it; `tar` says that it is not there.
    let names = fs::read_dir(fresh.path()).map_err(|error| error.to_string())?;
    let names: Vec<PathBuf> = names.filter_map(|file| Some(file.ok()?.path())).collect();
    if !names
        .iter()
        .any(|path| path.ends_with("kvm-amd.ko") || path.ends_with("kvm-amd.ko.xz"))
    {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    for path in names
        .iter()
        .filter(|path| path.extension().is_some_and(|e| e == "xz"))
    {
        let (code, said) = host_tool("xz", &["-d".as_ref(), path.as_ref()]);
        if code != 0 {
            return Err(format!("xz: {said}"));
        }
    }
    fs::rename(fresh.keep(), kernel).map_err(|error| error.to_string())
}

/// Adds a file to an archive in the format that Linux takes for its first root (cpio, "newc").
fn add(archive: &mut Vec<u8>, name: &str, mode: u32, contents: &[u8]) {
    let pad = |archive: &mut Vec<u8>| archive.resize(archive.len().next_multiple_of(4), 0);
    let fields = [
        0,
        mode,
        0,
        0,
        1,
        0,
        contents.len() as u32,
        0,
        0,
        0,
        0,
        name.len() as u32 + 1,
        0,
    ];
    archive.extend(b"070701");
    archive.extend(
        fields
            .iter()
            .flat_map(|field| format!("{field:08x}").into_bytes()),
    );
    archive.extend(name.bytes().chain([0]));
    pad(archive);
    archive.extend(contents);
    pad(archive);
}

/// The machine's first root: busybox, modules, and what brings up this host's files and runs the steps.
fn first_root(kernel: &Path, steps: &[Step]) -> Vec<u8> {
    const DIRECTORY: u32 = 0o40755;
    const PROGRAM: u32 = 0o100755;
    let mut archive = Vec::new();
    for name in ["bin", "proc", "sys", "dev", "mods", "host", "over"] {
        add(&mut archive, name, DIRECTORY, b"");
    }
    let busybox = tool("busybox").expect("the tests need busybox (Debian: busybox-static)");
    let busybox = fs::read(busybox).expect("busybox");
    add(&mut archive, "bin/busybox", PROGRAM, &busybox);
    let mut insert = String::new();
    for name in MODULES {
        if let Ok(module) = fs::read(kernel.join(format!("{name}.ko"))) {
            add(&mut archive, &format!("mods/{name}.ko"), PROGRAM, &module);
            insert += &format!("insmod /mods/{name}.ko || echo '{MARK} no module {name}'\n");
        }
    }
    let init = format!(
        "#!/bin/busybox sh
        /bin/busybox --install -s /bin
        mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
        {insert}
        mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=512000 host /host
        mount -t tmpfs -o mode=755 over /over; mkdir /over/up /over/work /over/root
        mount -t overlay -o lowerdir=/host,upperdir=/over/up,workdir=/over/work root /over/root
        cd /over/root || poweroff -f
        for d in proc sys dev; do mount --move /$d $d; done
        mkdir -p dev/pts dev/shm; mount -t devpts pts dev/pts; mount -t tmpfs shm dev/shm
        ip link set lo up
        cp /script tmp/hardware-script
        chroot . /bin/sh /tmp/hardware-script
        echo \"{MARK} end\"; poweroff -f\n"
    );
    add(&mut archive, "init", PROGRAM, init.as_bytes());
    // Who reads on the console that a step's time is over has `timeout` believe that it is.
    let mut script = format!(
        "cd '{}' || exit\n\
         export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C\n\
         up() {{ cut -d' ' -f1 /proc/uptime; }}\n\
         stty -echo </dev/console\n\
         while read -r number; do kill -ALRM $(cat /tmp/hardware-pid-$number); done </dev/console &\n",
        env!("CARGO_MANIFEST_DIR")
    );
    for (number, step) in steps.iter().enumerate() {
        let Step { name, command, .. } = step;
        let clock = step.seconds * BY_THE_CLOCK;
        script += &format!(
            "echo \"{MARK} step $(up) {name}\"\n\
             cat > /tmp/hardware-step <<'HARDWARE_STEP'\n{command}\nHARDWARE_STEP\n\
             timeout -k 5 {clock} sh /tmp/hardware-step </dev/null >/tmp/hardware-said 2>&1 &\n\
             echo $! >/tmp/hardware-pid-{number}; wait $!; status=$?\n\
             tail -c {TOLD} /tmp/hardware-said\n\
             echo; echo \"{MARK} done $(up) $status\"\n"
        );
    }
    add(&mut archive, "script", PROGRAM, script.as_bytes());
    add(&mut archive, "TRAILER!!!", 0, b"");
    archive
}

/// What the console says of the steps.
fn parse(console: &str) -> Vec<Done> {
    let mut done = Vec::new();
    let mut lines = console.lines();
    let marked = |line: &str, word: &str| {
        let rest = line.split_once(MARK)?.1.trim_start().strip_prefix(word)?;
        let (time, rest) = rest.trim_start().split_once(' ')?;
        Some((time.parse::<f64>().ok()?, rest.trim().to_string()))
    };
    while let Some(line) = lines.next() {
        let Some((begun, name)) = marked(line, "step") else {
            continue;
        };
        let mut said = String::new();
        for line in lines.by_ref() {
            if let Some((ended, status)) = marked(line, "done") {
                done.push(Done {
                    name,
                    status: status.parse().unwrap_or(-1),
                    said,
                    seconds: ended - begun,
                    share: 1.0,
                });
                break;
            }
            said += line;
            said.push('\n');
        }
    }
    done
}

/// Seconds of processor time that a child has used; it may have ended, but nobody has waited for it.
fn processor_time(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Behind the name, which may have anything in it, fields 14 and 15 of proc(5): ticks of 10 ms.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks
        .filter_map(|ticks| ticks.parse::<f64>().ok())
        .sum::<f64>()
        / 100.0
}

/// What there is to do about a machine's time.
enum Look {
    Well,
    /// The step of this number has had its time.
    StepIsOver(usize),
    /// The machine has; in words.
    MachineIsOver(String),
}

/// Counts a machine's time, which is the host's processor time, step by step.
#[derive(Default)]
struct StepClock {
    /// Marks of begun and done steps when it looked last.
    marks: usize,
    /// Processor time and the clock then, seconds.
    since: (f64, f64),
    /// Whether this step was told that its time is over.
    told: bool,
}

impl StepClock {
    /// `times` are processor time and the clock now, seconds since the machine's start.
    fn look(&mut self, steps: &[Step], console: &str, times: (f64, f64)) -> Look {
        let lines = console.lines().filter_map(|line| line.split_once(MARK));
        let words = lines.map(|(_, rest)| rest.trim_start());
        let marks = words
            .filter(|rest| rest.starts_with("step ") || rest.starts_with("done "))
            .count();
        if marks != self.marks {
            (self.marks, self.since, self.told) = (marks, times, false);
        }
        let (ran, passed) = (times.0 - self.since.0, times.1 - self.since.1);
        // Between steps, before the first and behind the last, nothing takes long.
        let step = (marks % 2 == 1).then_some(marks / 2);
        let limit = step.map_or(START, |number| steps[number].seconds) as f64;
        // A step that was told has some time to end.
        let grace = if step.is_some() { START as f64 } else { 0.0 };
        if ran > limit + grace || passed > (limit + grace) * BY_THE_CLOCK as f64 {
            let what = step.map_or("starting or ending", |number| &steps[number].name);
            return Look::MachineIsOver(format!(
                "{what} takes more than {limit} s of a processor ({ran:.0} s) or {BY_THE_CLOCK} times as long ({passed:.0} s)"
            ));
        }
        match step {
            Some(number) if ran > limit && !self.told => {
                self.told = true;
                Look::StepIsOver(number)
            }
            _ => Look::Well,
        }
    }
}

/// Takes what the console says until the machine ends.
fn read(mut from: ChildStdout, console: &Mutex<Vec<u8>>) {
    let mut bytes = [0; 4096];
    while let Ok(len @ 1..) = from.read(&mut bytes) {
        console.lock().expect("the console").extend(&bytes[..len]);
    }
}

/// Runs the steps, one after the other, on a machine of their own with such a processor; how each ended. A machine
/// that does not come to the end of the last fails the test.
pub fn run(processor: &str, steps: &[Step]) -> Vec<Done> {
    Platform::Qemu.require();
    let kernel = kernel();
    let image = fs::read_dir(&kernel).expect("the kernel");
    let image = image
        .filter_map(|file| Some(file.ok()?.path()))
        .find(|path| {
            path.file_name()
                .is_some_and(|n| n.to_string_lossy().starts_with("vmlinuz"))
        })
        .expect("vmlinuz");
    let archive = tempfile::NamedTempFile::new().expect("a file");
    fs::write(archive.path(), first_root(&kernel, steps)).expect("the first root");
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args([
            "-machine",
            "q35",
            "-accel",
            "tcg,thread=single",
            "-smp",
            "1",
        ])
        .args([
            "-cpu",
            processor,
            "-m",
            MEMORY,
            "-nodefaults",
            "-no-user-config",
        ])
        .args(["-display", "none", "-no-reboot", "-serial", "stdio"])
        .arg("-kernel")
        .arg(&image)
        .arg("-initrd")
        .arg(archive.path())
        .args([
            "-append",
            "console=ttyS0 loglevel=0 mitigations=off no_timer_check panic=-1 rdinit=/init",
        ])
        .args([
            "-virtfs",
            "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // SAFETY: a system call on plain numbers: the machine does not outlive the test.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    let mut child = command.spawn().expect("qemu-system-x86_64");
    let (stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let mut keyboard = child.stdin.take().unwrap();
    // What TCG lacks of a model of processor.
    std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
    let (ended, wait) = mpsc::channel::<()>();
    let console = Arc::new(Mutex::new(Vec::new()));
    {
        let console = console.clone();
        std::thread::spawn(move || {
            read(stdout, &console);
            drop(ended);
        });
    }
    let begun = Instant::now();
    let mut clock = StepClock::default();
    let mut late = None;
    while late.is_none() && wait.recv_timeout(TICK) == Err(mpsc::RecvTimeoutError::Timeout) {
        let console = String::from_utf8_lossy(&console.lock().expect("the console")).into_owned();
        let times = (processor_time(child.id()), begun.elapsed().as_secs_f64());
        match clock.look(steps, &console, times) {
            Look::Well => {}
            // It may have ended just now.
            Look::StepIsOver(number) => drop(writeln!(keyboard, "{number}")),
            Look::MachineIsOver(problem) => late = Some(problem),
        }
    }
    let _ = child.kill();
    let took = begun.elapsed().as_secs_f64();
    let share = processor_time(child.id()) / took;
    let _ = child.wait();
    let console = std::mem::take(&mut *console.lock().expect("the console"));
    let console = String::from_utf8_lossy(&console).replace('\r', "");
    let mut done = parse(&console);
    for step in &mut done {
        step.share = share.clamp(0.01, 1.0);
        println!("{:7.2} s {} {}", step.seconds, step.status, step.name);
    }
    println!("{took:7.2} s with starting and ending {processor}, share {share:.2}");
    let tail = console.len().saturating_sub(4000);
    let tail = (tail..console.len()).find(|&at| console.is_char_boundary(at));
    let tail = &console[tail.unwrap_or(0)..];
    assert!(late.is_none(), "{}:\n{tail}", late.unwrap_or_default());
    assert_eq!(done.len(), steps.len(), "the machine ended early:\n{tail}");
    done
}
