//! The ways a run ends that nobody planned: signals, deadlines, a guest that does not answer, a
//! disk that takes no more; and the terminal behind all of them.

mod common;

use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use absentia_vmm::{last_words, terminal};
use common::{Image, Platform, Root};

const ACCELERATORS: [&str; 2] = ["kvm", "qemu"];

fn absentia(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_absentia"));
    command.args(args);
    common::usual_signals(&mut command);
    command
}

fn image() -> Image {
    Root::new().busybox().image(16, 4096)
}

/// A run that writes a file, says so and stays.
fn staying(accel: &str, image: &Image, more: &[&str]) -> Child {
    let script = "echo kept > /work/kept; echo ready; while :; do sleep 1; done";
    let mut child = absentia(&["run", "--accel", accel])
        .args(more)
        .arg("--root")
        .arg(image.file.path())
        .args(["--", "/bin/busybox", "sh", "-c", script])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("absentia");
    let mut ready = [0; 6];
    let stdout = child.stdout.as_mut().expect("a pipe");
    stdout.read_exact(&mut ready).expect("its output");
    child
}

fn signal(child: &Child, number: i32) {
    // SAFETY: a child that is not waited for yet.
    unsafe { libc::kill(child.id() as i32, number) };
}

/// Its status and what it said.
fn end(child: Child) -> (Option<i32>, String) {
    let output = child.wait_with_output().expect("its end");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}

#[test]
fn hang_up_interrupt_and_deadline_save_what_was_written() {
    Platform::Kvm.require();
    Platform::Qemu.require();
    for accel in ACCELERATORS {
        for number in [libc::SIGHUP, libc::SIGINT] {
            let image = image();
            let child = staying(accel, &image, &[]);
            signal(&child, number);
            let (code, said) = end(child);
            assert_eq!(code, Some(128 + number), "{accel}: {said}");
            image.check();
            assert_eq!(image.read("/work/kept"), b"kept\n", "{accel}: {said}");
        }
        let image = image();
        let (code, said) = end(staying(accel, &image, &["--timeout", "4"]));
        assert_eq!(code, Some(124), "{accel}: {said}");
        image.check();
        assert_eq!(image.read("/work/kept"), b"kept\n", "{accel}: {said}");
    }
}

/// A file system whose write-back never ends.
const STUCK: [&str; 2] = ["--append", "absentia.fail=ext2:sync:1:hang"];

#[test]
fn who_does_not_answer_is_stopped_after_five_seconds() {
    Platform::Kvm.require();
    Platform::Qemu.require();
    for accel in ACCELERATORS {
        let image = image();
        let child = staying(accel, &image, &STUCK);
        let begun = Instant::now();
        signal(&child, libc::SIGTERM);
        let (code, said) = end(child);
        let took = begun.elapsed();
        assert_eq!(code, Some(128 + libc::SIGTERM), "{accel}: {said}");
        assert!(said.contains("stopped where it is"), "{accel}: {said}");
        assert!(took > Duration::from_secs(4), "{accel}: {took:?}");
        assert!(took < Duration::from_secs(10), "{accel}: {took:?}");
    }
}

#[test]
fn a_second_signal_ends_at_once() {
    Platform::Kvm.require();
    Platform::Qemu.require();
    for accel in ACCELERATORS {
        let image = image();
        let mut child = staying(accel, &image, &STUCK);
        signal(&child, libc::SIGTERM);
        std::thread::sleep(Duration::from_secs(1));
        assert!(child.try_wait().expect("wait").is_none(), "{accel}");
        let begun = Instant::now();
        signal(&child, libc::SIGINT);
        let (_, said) = end(child);
        assert!(begun.elapsed() < Duration::from_secs(3), "{accel}");
        assert!(said.contains("stopped where it is"), "{accel}: {said}");
    }
}

/// Fills the disk's file beyond what the host has for it.
fn fills(accel: &str, image: &std::path::Path, mib: u32) -> Vec<String> {
    let script = format!("dd if=/dev/zero of=/work/big bs=1M count={mib} 2>/dev/null; true");
    let image = image.to_str().expect("UTF-8");
    let words = ["run", "--accel", accel, "--mem", "24M", "--root", image];
    let program = ["--", "/bin/busybox", "sh", "-c", &script];
    let all = words.iter().chain(&program);
    all.map(ToString::to_string).collect()
}

fn is_told(accel: &str, mut command: Command, error: &str) {
    let output = command.output().expect("absentia");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{accel}: {said}");
    let lost = "did not all reach the disk";
    assert!(said.contains(lost), "{accel}: {said}");
    // QEMU keeps to itself what it was.
    if accel == "kvm" {
        assert!(said.contains(error), "{accel}: {said}");
    }
}

/// RLIMIT_FSIZE is less than the image's size: EFBIG, and no SIGXFSZ.
#[test]
fn a_file_that_may_not_be_so_long() {
    Platform::Kvm.require();
    Platform::Qemu.require();
    const LIMIT: u64 = 40 << 20;
    for accel in ACCELERATORS {
        let image = Root::new().busybox().image(64, 4096);
        let mut command = absentia(&[]);
        command.args(fills(accel, image.file.path(), 50));
        let limit = || {
            let limit = libc::rlimit {
                rlim_cur: LIMIT,
                rlim_max: LIMIT,
            };
            // SAFETY: the value is valid for the call.
            match unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &limit) } {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        };
        // SAFETY: one system call on plain numbers.
        unsafe { command.pre_exec(limit) };
        is_told(accel, command, "File too large");
    }
}

/// The image is on a file system of the host that is full.
#[test]
fn a_full_host_disk() {
    Platform::Kvm.require();
    Platform::Qemu.require();
    let place = tempfile::tempdir().expect("a directory");
    let here = place.path().to_str().expect("UTF-8");
    // A mount of its own, which ends with the command.
    let script = "mount -t tmpfs -o size=8m none $0 && cp --sparse=always $1 $0/image || exit 99; \
                  shift; exec \"$@\"";
    for accel in ACCELERATORS {
        let image = Root::new().busybox().image(64, 4096);
        let mut command = common::with_own_mounts(script);
        command
            .arg(here)
            .arg(image.file.path())
            .arg(env!("CARGO_BIN_EXE_absentia"))
            .args(fills(accel, &place.path().join("image"), 20));
        is_told(accel, command, "No space left");
    }
}

const ASK: &str = "ABSENTIA_ENDING";

/// Not a test by itself: makes its terminal raw and ends as it is asked to.
#[test]
fn inmate() {
    let Ok(how) = std::env::var(ASK) else {
        return;
    };
    last_words::install();
    let raw = terminal::Raw::enter().expect("a terminal");
    let dies = move || match how.as_str() {
        "panic" => panic!("asked to"),
        // SAFETY: this process has nothing to lose.
        "quit" => unsafe { libc::raise(libc::SIGQUIT) },
        // SAFETY: likewise.
        "fault" => unsafe { libc::raise(libc::SIGSEGV) },
        _ => unreachable!("{how}"),
    };
    let _ = std::thread::spawn(dies).join();
    // Nothing of this is reached: each of them ends the process, whichever thread it comes from.
    std::mem::forget(raw);
    std::process::exit(7)
}

/// A pseudoterminal: its two ends.
fn pty() -> (OwnedFd, OwnedFd) {
    let (mut master, mut slave) = (-1, -1);
    let null = std::ptr::null_mut();
    // SAFETY: the two numbers are valid for the call, and nothing else is asked for.
    let result = unsafe { libc::openpty(&mut master, &mut slave, null, null.cast(), null.cast()) };
    assert_eq!(result, 0, "openpty");
    // SAFETY: just opened, and nobody else's.
    unsafe { (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) }
}

#[test]
fn the_terminal_is_as_it_was() {
    for (how, end) in [
        ("panic", (None, Some(libc::SIGABRT))),
        ("quit", (None, Some(libc::SIGQUIT))),
        ("fault", (None, Some(libc::SIGSEGV))),
    ] {
        let (_master, slave) = pty();
        let modes = || {
            let now = rustix::termios::tcgetattr(&slave).expect("tcgetattr");
            (now.local_modes, now.input_modes, now.output_modes)
        };
        let before = modes();
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command
            .args(["--exact", "inmate", "--nocapture", "--test-threads=1"])
            .env(ASK, how)
            .stdin(slave.try_clone().expect("the terminal"))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        common::usual_signals(&mut command);
        let terminal = slave.as_raw_fd();
        // SAFETY: system calls on plain numbers.
        unsafe {
            command.pre_exec(move || {
                let made = libc::setsid() >= 0 && libc::ioctl(terminal, libc::TIOCSCTTY, 0) == 0;
                made.then_some(()).ok_or_else(std::io::Error::last_os_error)
            });
        }
        let status = command.status().expect("starting this program again");
        assert_eq!((status.code(), status.signal()), end, "{how}");
        assert!(modes() == before, "{how}");
    }
}

/// A core server dies: what was written before is on the image, and what was changed through a
/// mapping, too, where VM lives to tell of it.
fn dies(accel: &str, service: &str) {
    let image = Root::new().busybox().program("crash").image(16, 4096);
    let child = absentia(&["run", "--accel", accel, "--timeout", "60", "--root"])
        .arg(image.file.path())
        .args(["--", "/bin/crash", service])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("absentia");
    let output = child.wait_with_output().expect("its end");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{accel} {service}: {said}");
    let line = format!("the system cannot go on without service {service}");
    assert!(said.contains(&line), "{accel} {service}: {said}");
    image.check();
    let context = || format!("{accel} {service}: {said}");
    assert_eq!(image.read("/work/written"), b"kept\n", "{}", context());
    if service != "vm" {
        assert_eq!(
            image.read("/work/mapped"),
            [b'a'; 3 * 4096],
            "{}",
            context()
        );
    }
}

#[test]
fn what_was_written_outlives_each_core_server() {
    Platform::Kvm.require();
    Platform::Qemu.require();
    for accel in ACCELERATORS {
        for service in ["vm", "rs", "pm", "vfs", "console"] {
            dies(accel, service);
        }
    }
}

/// A standard stream that is closed takes nothing, and that is no success; who writes nothing does not
/// mind.
#[test]
fn what_a_closed_stream_does_not_take_is_told() {
    Platform::Kvm.require();
    Platform::Qemu.require();
    let closed = |close: &str, args: &[&str]| {
        let script = format!("exec \"$@\" {close}");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_absentia")]);
        let output = command.args(args).output().expect("a shell");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    let echo = ["--", "/bin/busybox", "echo", "hello"];
    let fails = ["--", "/bin/busybox", "sh", "-c", "exit 3"];
    for how in [&["--accel=kvm"], &["--accel=qemu"], &["--deterministic"]] {
        let run = |program: &[&'static str]| [&["run"], &how[..], program].concat();
        let (status, said) = closed(">&-", &run(&echo));
        assert_eq!(status, Some(125), "{how:?}: {said}");
        assert!(said.contains("output"), "{how:?}: {said}");
        let (status, said) = closed("<&- >&-", &run(&fails));
        assert_eq!(status, Some(3), "{how:?}: {said}");
        let (status, _) = closed("2>&-", &run(&fails));
        assert_eq!(status, Some(3), "{how:?}");
        let complains = ["--", "/bin/busybox", "sh", "-c", "echo no >&2; exit 3"];
        let (status, _) = closed("2>&-", &run(&complains));
        assert_eq!(status, Some(125), "{how:?}");
    }
    let (status, said) = closed(">&-", &["completions", "bash"]);
    assert_eq!(status, Some(125), "{said}");
    assert!(said.contains("standard output is closed"), "{said}");
}
