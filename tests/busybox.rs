//! busybox's shell and applets do in the guest exactly what they do on Linux.

mod common;

use abi::boot::CMDLINE_START;
use common::{Platform, Root, Run};

const COMMANDS: &[u8] = include_bytes!("scripts/commands.sh");

/// The script stands beside the empty directory it works in.
fn root() -> Root {
    let root = Root::new().busybox().file("/work/commands.sh", COMMANDS);
    std::fs::create_dir(root.path("/work/here")).expect("directory");
    root
}

fn commands(platform: Platform) {
    platform.require();
    Run::new(&["/bin/busybox", "sh", "../commands.sh"])
        .cwd("/work/here")
        .same_as_host(platform, &root());
}

#[test]
fn commands_under_kvm() {
    commands(Platform::Kvm);
}

#[test]
fn commands_under_qemu() {
    commands(Platform::Qemu);
}

/// The direct gate, where its kernel may be interpreted instruction by instruction.
#[test]
fn smoke_with_the_direct_gate() {
    Platform::KvmDirect.require();
    let script = "echo hello | tr a-z A-Z; ls /bin | wc -l; (exit 3); echo $?; kill -9 $$";
    Run::new(&["/bin/busybox", "sh", "-c", script])
        .cwd("/work/here")
        .timeout(300)
        .guest(Platform::KvmDirect, root().disk())
        .must_exit(137);
}

/// What has no counterpart on the host: the guest's own mounts, processes and devices.
#[test]
fn the_system_shows_itself() {
    Platform::Kvm.require();
    let script = "mount | cut -d' ' -f3 | sort; ps | grep -c busybox; df / | tail -n 1 | wc -l; \
                  ls /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/console /dev/tty; \
                  grep -c MemTotal /proc/meminfo; cat /proc/self/comm; \
                  echo $$; id -u; uname -m; [ -e /proc/self/exe ] && echo exe; \
                  tr '\\0' ' ' < /proc/self/cmdline; echo; echo x > /tmp/x; cat /tmp/x; ls /proc/self/fd | wc -l";
    let finished =
        Run::new(&["/bin/busybox", "sh", "-c", script]).guest(Platform::Kvm, root().disk());
    finished.must_exit(0);
    let text = finished.text();
    for line in [
        "/",
        "/dev",
        "/proc",
        "/tmp",
        "/dev/null",
        "/dev/console",
        "/dev/tty",
        "cat",
        "exe",
        "x",
    ] {
        assert!(
            text.lines().any(|l| l == line),
            "no line {line:?} in:\n{text}"
        );
    }
}

/// Counts what is left after 200 programs in a row: VM's, VFS's and PM's own figures.
#[test]
fn running_programs_leaks_nothing() {
    Platform::Kvm.require();
    // Twice each time: what the measurement itself opens is open in both.
    let script = "figures() { grep -E '^(vm|vfs|pm)[.]' /proc/absentia/counters | grep -v -e forks -e repairs; }; \
                  turn() { i=0; while [ $i -lt $1 ]; do /bin/busybox echo x | /bin/busybox cat; \
                  i=$((i + 1)); done > /dev/null; }; \
                  turn 20; figures > /tmp/before; figures > /tmp/before; \
                  turn 100; figures > /tmp/after; figures > /tmp/after; \
                  cat /tmp/before; echo --; cat /tmp/after";
    let mut run = Run::new(&["/bin/busybox", "sh", "-c", script]);
    // How many blocks of its heap the measurement itself touches depends on where that begins.
    run.fixed_layout = true;
    let finished = run.guest(Platform::Kvm, root().disk());
    finished.must_exit(0);
    let text = finished.text();
    let (before, after) = text.split_once("--\n").expect("two measurements");
    assert!(before.contains("vm.free"), "{}", finished.circumstances());
    assert_eq!(before, after, "something was not given back");
}

/// The server of docs/server.md: not there unless it is asked for, and then as that page says.
fn a_server_of_ones_own(platform: Platform) {
    platform.require();
    let script = "mknod /tmp/hello c 60 0; head -n 1 /tmp/hello; echo good evening > /tmp/hello; \
                  head -n 1 /tmp/hello; dd if=/tmp/hello bs=4 count=1 2>/dev/null; echo; echo $?";
    let root = root();
    let mut run = Run::new(&["/bin/busybox", "sh", "-c", script]);
    run.words = format!("{CMDLINE_START}hello");
    let finished = run.guest(platform, root.disk());
    finished.must_exit(0);
    assert_eq!(finished.text(), "hello, world\ngood evening\ngood\n0\n");

    let script = "mknod /tmp/hello c 60 0; exec 2>&1; cat /tmp/hello";
    let without = Run::new(&["/bin/busybox", "sh", "-c", script]).guest(platform, root.disk());
    without.must_exit(1);
    let said = without.text();
    assert!(said.contains("No such device or address"), "{said}");
}

#[test]
fn a_server_of_ones_own_under_kvm() {
    a_server_of_ones_own(Platform::Kvm);
}

#[test]
fn a_server_of_ones_own_under_qemu() {
    a_server_of_ones_own(Platform::Qemu);
}
