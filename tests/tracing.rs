//! ptrace: static programs that trace others do in the guest what they do on Linux; strace does,
//! unmodified.

mod common;

use std::path::Path;

use absentia_vmm::root::closure;
use common::{Platform, Root, Run, compare_program, tool};

#[test]
fn stops_under_kvm() {
    compare_program(Platform::Kvm, "ptrace", &[]);
}

#[test]
fn stops_under_qemu() {
    compare_program(Platform::Qemu, "ptrace", &[]);
}

#[test]
fn memory_and_registers_under_kvm() {
    compare_program(Platform::Kvm, "ptrace-look", &[]);
}

#[test]
fn memory_and_registers_under_qemu() {
    compare_program(Platform::Qemu, "ptrace-look", &[]);
}

/// The kernel at CPL0 enters and leaves calls and steps by other instructions.
#[test]
fn steps_in_the_direct_gate() {
    compare_program(Platform::KvmDirect, "ptrace-look", &["steps"]);
}

/// Row X6 of the matrix, as far as it is about tracers. Needs root, which the guest always has.
fn set_id(platform: Platform) {
    platform.require();
    let root = Root::new().program("ptrace-ids");
    let finished = Run::new(&["/bin/ptrace-ids"]).guest(platform, root.disk());
    assert_eq!(
        finished.text(),
        "0 failures\n",
        "{}",
        finished.circumstances()
    );
    finished.must_exit(0);
}

#[test]
fn x6_who_traces_whom_under_kvm() {
    set_id(Platform::Kvm);
}

#[test]
fn x6_who_traces_whom_under_qemu() {
    set_id(Platform::Qemu);
}

/// Tracers and tracees come and go, die in stops and before they are waited for.
#[test]
fn tracing_leaks_nothing() {
    Platform::Kvm.require();
    let root = Root::new()
        .busybox()
        .program("ptrace")
        .program("ptrace-look")
        .program("ptrace-ids");
    // Twice each time: what the measurement itself opens is open in both.
    let script = "figures() { grep -E '^(vm|vfs|pm)[.]' /proc/absentia/counters | grep -v -e forks -e repairs; }; \
                  turn() { i=0; while [ $i -lt $1 ]; do ptrace; ptrace-look; ptrace-ids; rm -f /work/*; \
                  i=$((i + 1)); done > /dev/null; }; \
                  turn 2; figures > /tmp/before; figures > /tmp/before; \
                  turn 4; figures > /tmp/after; figures > /tmp/after; \
                  cat /tmp/before; echo --; cat /tmp/after";
    let mut run = Run::new(&["/bin/busybox", "sh", "-c", script]);
    run.fixed_layout = true;
    run.env[0].1 = "/bin".into();
    let finished = run.guest(Platform::Kvm, root.disk());
    finished.must_exit(0);
    let text = finished.text();
    let (before, after) = text.split_once("--\n").expect("two measurements");
    assert!(before.contains("vm.free"), "{}", finished.circumstances());
    assert_eq!(before, after, "something was not given back");
}

fn strace(platform: Platform) {
    platform.require();
    let root = Root::new()
        .busybox()
        .file("/work/strace.sh", include_bytes!("scripts/strace.sh"));
    let path = tool("strace").expect("the tests need strace: see .ci/run");
    let content = std::fs::read(&path).expect("strace");
    std::fs::copy(&path, root.path("/bin/strace")).expect("strace");
    let needed = closure::of(Path::new("/"), "/bin/strace", &content, None).expect("libraries");
    for (path, content) in needed.files {
        let to = root.path(&path);
        std::fs::create_dir_all(to.parent().expect("a directory")).expect("directory");
        std::fs::write(&to, content).expect("library");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&to, mode).expect("mode");
    }
    Run::new(&["/bin/busybox", "sh", "strace.sh"]).same_as_host(platform, &root);
}

#[test]
fn strace_under_kvm() {
    strace(Platform::Kvm);
}

#[test]
fn strace_under_qemu() {
    strace(Platform::Qemu);
}
