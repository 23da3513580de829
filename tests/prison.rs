//! What a taken-over VMM may do: nothing but its work. Each forbidden call is made by this program
//! itself, started again, in a thread that has entered the same sandbox; and the usual runs go on
//! as before.

mod common;

use std::ffi::CString;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use absentia_vmm::sandbox::{self, Bounds, Role, Sandbox};
use common::{Platform, Root};

const ASK: &str = "ABSENTIA_PRISON";

/// The calls that somebody who has taken the process over would begin with.
const FORBIDDEN: &[(&str, libc::c_long)] = &[
    ("execve", libc::SYS_execve),
    ("fork", libc::SYS_fork),
    ("clone", libc::SYS_clone),
    ("clone3", libc::SYS_clone3),
    ("open", libc::SYS_open),
    ("openat2", libc::SYS_openat2),
    ("socket", libc::SYS_socket),
    ("connect", libc::SYS_connect),
    ("ptrace", libc::SYS_ptrace),
    ("process_vm_writev", libc::SYS_process_vm_writev),
    ("unlink", libc::SYS_unlink),
    ("rename", libc::SYS_rename),
    ("chmod", libc::SYS_chmod),
    ("setuid", libc::SYS_setuid),
    ("capset", libc::SYS_capset),
    ("mount", libc::SYS_mount),
    ("unshare", libc::SYS_unshare),
    ("bpf", libc::SYS_bpf),
    ("io_uring_setup", libc::SYS_io_uring_setup),
    ("memfd_create", libc::SYS_memfd_create),
    ("prctl", libc::SYS_prctl),
    ("kill", libc::SYS_kill),
];

fn role(name: &str) -> Role {
    match name {
        "vcpu" => Role::Vcpu,
        "input" => Role::Input,
        "laboratory" => Role::Laboratory,
        "gdb" => Role::Gdb,
        "inspector" => Role::Inspector { report: false },
        _ => Role::Supervisor {
            child: None,
            report: false,
        },
    }
}

const ROLES: [&str; 6] = [
    "vcpu",
    "input",
    "inspector",
    "supervisor",
    "laboratory",
    "gdb",
];

/// Who makes machines has files in memory, and opens what Landlock leaves.
fn may(role: &str, call: &str) -> bool {
    let makes = matches!(role, "laboratory" | "gdb");
    // Answered ENOSYS: its flags are out of a filter's sight.
    makes && matches!(call, "openat" | "memfd_create" | "clone3")
}

/// Not a test by itself: what the others start, in a process of its own.
#[test]
fn inmate() {
    let Ok(asked) = std::env::var(ASK) else {
        return;
    };
    let (name, what) = asked.split_once(' ').expect("a role and a deed");
    // It may be taken out (tests/sabotage.rs); the filter may not: what is tried would be done.
    if common::sabotage() != "no-confinement" {
        sandbox::confine(&Bounds {
            report: None,
            file: 0,
            alone: true,
            machines: name == "laboratory",
        })
        .expect("the sandbox");
    }
    // Landlock alone, before the filter.
    match what {
        "read" => {
            let read = std::fs::read("/etc/passwd");
            std::process::exit(if read.is_err() { 7 } else { 0 });
        }
        "write" => {
            let wrote = std::fs::write("/tmp/absentia-prison", "x");
            std::process::exit(if wrote.is_err() { 7 } else { 0 });
        }
        "capabilities" => {
            let status = std::fs::read_to_string("/proc/self/status");
            // The file cannot be read either; ask the kernel.
            drop(status);
            let sets = rustix::thread::capabilities(None).expect("capabilities");
            let none = sets.effective.is_empty() && sets.permitted.is_empty();
            let no_new = rustix::thread::no_new_privs().expect("prctl");
            std::process::exit(if none && no_new { 7 } else { 0 });
        }
        _ => {}
    }
    if what == "heap" {
        absentia_vmm::memory::footprint::share_heap();
        let role = role(name);
        let done = std::thread::spawn(move || {
            Sandbox::Strict.enter(role).expect("the filter");
            grow_and_shrink();
            7
        });
        std::process::exit(done.join().expect("the thread"));
    }
    Sandbox::Strict.enter(role(name)).expect("the filter");
    let path = CString::new("/etc/passwd").expect("a path");
    // SAFETY: whatever these calls do, this process has nothing to lose.
    unsafe {
        match what {
            "exec-memory" => {
                libc::mmap(
                    std::ptr::null_mut(),
                    4096,
                    libc::PROT_EXEC | libc::PROT_READ,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                    -1,
                    0,
                );
            }
            "tiocsti" => {
                libc::ioctl(0, libc::TIOCSTI, path.as_ptr());
            }
            "openat" => {
                let flags = libc::O_WRONLY | libc::O_CREAT;
                libc::openat(libc::AT_FDCWD, path.as_ptr(), flags, 0o600);
            }
            "tgkill" => {
                libc::syscall(libc::SYS_tgkill, 1, 1, 0);
            }
            "thread" => {
                let done = std::thread::spawn(|| 7).join();
                libc::_exit(done.expect("the thread"));
            }
            "clone3" => {
                let result = libc::syscall(libc::SYS_clone3, 0, 0);
                let errno = std::io::Error::last_os_error().raw_os_error();
                let refused = result == -1 && errno == Some(libc::ENOSYS);
                libc::_exit(if refused { 0 } else { 9 });
            }
            "nothing" => libc::_exit(7),
            call => {
                let number = FORBIDDEN.iter().find(|(name, _)| *name == call);
                libc::syscall(number.expect("a call").1, 0, 0, 0, 0, 0, 0);
            }
        }
        libc::_exit(0)
    }
}

/// A thread's heap becomes 32 MiB, and small again.
fn grow_and_shrink() {
    let pieces: Vec<Vec<u8>> = (0..512).map(|n| vec![n as u8 | 1; 64 << 10]).collect();
    assert!(pieces.iter().all(|piece| piece[0] != 0));
    drop(pieces);
}

fn inmate_does(role: &str, what: &str) -> Output {
    Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "inmate", "--nocapture", "--test-threads=1"])
        .env(ASK, format!("{role} {what}"))
        .output()
        .expect("starting this program again")
}

#[test]
fn each_forbidden_call_ends_the_process() {
    let special = ["exec-memory", "tiocsti", "openat", "tgkill"];
    let calls = FORBIDDEN.iter().map(|(name, _)| *name).chain(special);
    for call in calls {
        for role in ROLES.into_iter().filter(|role| !may(role, call)) {
            let output = inmate_does(role, call);
            let signal = output.status.signal();
            assert_eq!(signal, Some(libc::SIGSYS), "{role} {call}: {output:?}");
        }
    }
    for role in ROLES {
        for what in ["nothing", "heap"] {
            let output = inmate_does(role, what);
            assert_eq!(output.status.code(), Some(7), "{role} {what}: {output:?}");
        }
    }
}

#[test]
fn a_thread_may_be_started_and_no_process() {
    for role in ["laboratory", "gdb"] {
        assert_eq!(inmate_does(role, "thread").status.code(), Some(7), "{role}");
        assert_eq!(inmate_does(role, "clone3").status.code(), Some(0), "{role}");
    }
    let output = inmate_does("vcpu", "thread");
    assert_eq!(output.status.signal(), Some(libc::SIGSYS), "{output:?}");
}

#[test]
fn no_file_and_no_capability_is_left() {
    for what in ["read", "write", "capabilities"] {
        let output = inmate_does("vcpu", what);
        let lacks = String::from_utf8_lossy(&output.stderr).contains("has no Landlock");
        if lacks && what != "capabilities" {
            println!("not tried: this host has no Landlock");
            continue;
        }
        assert_eq!(output.status.code(), Some(7), "{what}: {output:?}");
    }
}

fn absentia(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_absentia"));
    command.args(args);
    command
}

fn must(args: &[&str], code: i32, stdout: &str) {
    let output = absentia(args).output().expect("absentia");
    assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), stdout, "{args:?}");
}

#[test]
fn usual_runs_go_on() {
    Platform::Kvm.require();
    Platform::Qemu.require();
    let echo = ["--", "/bin/busybox", "echo", "hi"];
    for words in [
        &["run"][..],
        &["run", "--accel", "qemu"],
        &["run", "--deterministic"],
        &["run", "--deterministic", "--accel", "qemu"],
        &["run", "--sandbox", "off"],
    ] {
        must(&[words, &echo].concat(), 0, "hi\n");
    }
    must(
        &[&["run", "--check-determinism"], &echo[..]].concat(),
        0,
        "hi\n",
    );
    for accel in ["kvm", "qemu"] {
        let words = ["run", "--accel", accel, "--timeout", "2", "--"];
        let sleep = ["/bin/busybox", "sleep", "100"];
        must(&[&words[..], &sleep].concat(), 124, "");
    }
}

/// An image with a program that writes and then stays.
fn writer() -> common::Image {
    Root::new().busybox().image(16, 4096)
}

/// SIGTERM: what was written is on the image, and the status says what happened.
fn ends_in_order(accel: &str) {
    let image = writer();
    let script = "echo kept > /work/kept; echo ready; while :; do sleep 1; done";
    let path = image.file.path().to_str().expect("a path");
    let mut child = absentia(&["run", "--accel", accel, "--root", path, "--"])
        .args(["/bin/busybox", "sh", "-c", script])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("absentia");
    let mut ready = [0; 6];
    let mut stdout = child.stdout.take().expect("a pipe");
    std::io::Read::read_exact(&mut stdout, &mut ready).expect("its output");
    let begun = Instant::now();
    // SAFETY: a child that is not waited for yet.
    unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
    let status = child.wait().expect("its end");
    assert_eq!(status.code(), Some(128 + libc::SIGTERM), "{accel}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{accel}");
    image.check();
    assert_eq!(image.read("/work/kept"), b"kept\n", "{accel}");
}

#[test]
fn sigterm_saves_what_was_written() {
    Platform::Kvm.require();
    ends_in_order("kvm");
}

#[test]
fn sigterm_saves_what_was_written_under_qemu() {
    Platform::Qemu.require();
    ends_in_order("qemu");
}

/// Nobody may write the image: the guest sees EROFS, and its bytes stay.
#[test]
fn an_image_that_may_only_be_read() {
    Platform::Kvm.require();
    let image = writer();
    let path = image.file.path();
    let before = std::fs::read(path).expect("the image");
    set_mode(path, 0o444);
    for accel in ["kvm", "qemu"] {
        let output = absentia(&["run", "--accel", accel, "--root"])
            .arg(path)
            .args(["--", "/bin/busybox", "sh", "-c", "echo x > /work/x"])
            .output()
            .expect("absentia");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("mounted read-only"), "{said}");
        assert!(said.contains("Read-only file system"), "{said}");
        assert_ne!(output.status.code(), Some(125), "{said}");
    }
    assert!(std::fs::read(path).expect("the image") == before);
}

fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    let permissions = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(path, permissions).expect("the image's mode");
}

/// The disk's driver dies with what was written: status 125 and a line.
#[test]
fn a_write_back_that_fails_is_told() {
    Platform::Kvm.require();
    Platform::Qemu.require();
    for accel in ["kvm", "qemu"] {
        let image = writer();
        let fail = "absentia.fail=virtio-blk:write:1:crash";
        let output = absentia(&["run", "--accel", accel, "--append", fail, "--root"])
            .arg(image.file.path())
            .args(["--", "/bin/busybox", "sh", "-c", "echo x > /work/x"])
            .output()
            .expect("absentia");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{accel}: {said}");
        assert!(
            said.contains("did not all reach the disk"),
            "{accel}: {said}"
        );
    }
}

/// A core server dies: what the program wrote before is on the image all the same.
#[test]
fn a_core_server_dies_and_files_are_saved() {
    Platform::Kvm.require();
    let image = writer();
    let output = absentia(&[
        "run",
        "--append",
        "absentia.fail=console:getdents:1:crash",
        "--root",
    ])
    .arg(image.file.path())
    .args([
        "--",
        "/bin/busybox",
        "sh",
        "-c",
        "echo kept > /work/kept; ls /dev/pts",
    ])
    .output()
    .expect("absentia");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{said}");
    image.check();
    assert_eq!(image.read("/work/kept"), b"kept\n", "{said}");
}

/// A token of a point in `d1-read`.
const TOKEN: &str = "d1-read@try+grant/ext2/read/source/1.g0.pte~first";

fn lines(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// The laboratory confines itself as well, and does all its work so.
#[test]
fn the_laboratory_goes_on() {
    Platform::Kvm.require();
    Platform::Qemu.require();
    let place = tempfile::tempdir().expect("a directory");
    let path = |name: &str| place.path().join(name).to_str().expect("UTF-8").to_string();
    let (out, report, trace) = (path("out"), path("report"), path("trace"));
    let few = ["explore", "d1-read", "--limit", "2", "--policy", "try"];
    let more = ["--out", &out, "--report", &report, "--schedules", "1"];
    let emulated = ["--accel", "qemu", "--kinds", "fill"];
    for (words, code, said) in [
        ([&few[..], &more].concat(), 0, "report in"),
        ([&few[..], &emulated].concat(), 0, ""),
        ([&few[..], &["--list", "--kinds", "copy"]].concat(), 0, ""),
        (vec!["replay", TOKEN, "--trace", &trace], 0, "written"),
        (vec!["minimize", TOKEN], 125, "nothing to keep"),
    ] {
        let output = absentia(&words).output().expect("absentia");
        let (_, stderr) = lines(&output);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {stderr}");
        assert!(stderr.contains(said), "{words:?}: {stderr}");
    }
    for (file, begins) in [
        (Path::new(&report).join("index.html"), "<!"),
        (out.into(), "{"),
    ] {
        let text = std::fs::read_to_string(&file).expect("what was written");
        assert!(text.to_lowercase().starts_with(begins), "{file:?}");
    }
    assert!(std::fs::metadata(trace).expect("the trace").len() > 10_000);
}

/// gdb's connection is all that comes in.
#[test]
fn gdb_is_served_from_inside() {
    use std::io::{BufRead, BufReader, Read, Write};
    Platform::Kvm.require();
    let mut child = absentia(&["replay", TOKEN, "--gdb", "0"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("absentia");
    let mut stderr = BufReader::new(child.stderr.take().expect("a pipe"));
    let port: u16 = stderr
        .by_ref()
        .lines()
        .map(|line| line.expect("a line"))
        .find_map(|line| line.rsplit_once("127.0.0.1:")?.1.parse().ok())
        .expect("a port");
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).expect("its port");
    let mut packet = |text: &str| {
        let sum = text.bytes().fold(0u8, u8::wrapping_add);
        write!(stream, "${text}#{sum:02x}").expect("a packet");
        let mut answer = Vec::new();
        // Up to the checksum's two digits.
        while answer.len() < 4 || answer[answer.len() - 3] != b'#' {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("an answer");
            answer.extend(byte);
        }
        stream.write_all(b"+").expect("an acknowledgement");
        String::from_utf8_lossy(&answer).into_owned()
    };
    assert!(packet("?").contains("$T"));
    let end = packet("c");
    assert!(end.contains("$W00"), "{end}");
    let output = child.wait_with_output().expect("its end");
    let (stdout, _) = lines(&output);
    assert_eq!(output.status.code(), Some(0), "{stdout}");
    assert!(stdout.contains("this run: ok"), "{stdout}");
}
