//! Static C and Rust programs do in the guest exactly what they do on Linux, and end the same
//! way.

mod common;

use absentia_vmm::program::{Captured, Program};
use common::{Platform, Root, Run, compare_program};

#[test]
fn signals_under_kvm() {
    compare_program(Platform::Kvm, "signals", &[]);
}

#[test]
fn signals_under_qemu() {
    compare_program(Platform::Qemu, "signals", &[]);
}

#[test]
fn interrupted_under_kvm() {
    compare_program(Platform::Kvm, "interrupted", &[]);
}

#[test]
fn interrupted_under_kvm_direct() {
    compare_program(Platform::KvmDirect, "interrupted", &["20"]);
}

#[test]
fn interrupted_under_qemu() {
    compare_program(Platform::Qemu, "interrupted", &[]);
}

#[test]
fn forged_under_kvm() {
    compare_program(Platform::Kvm, "forged", &[]);
}

#[test]
fn forged_under_qemu() {
    compare_program(Platform::Qemu, "forged", &[]);
}

#[test]
fn storms_under_kvm() {
    compare_program(Platform::Kvm, "storms", &["200"]);
}

#[test]
fn storms_under_qemu() {
    compare_program(Platform::Qemu, "storms", &["200"]);
}

#[test]
fn stepped_under_kvm() {
    compare_program(Platform::Kvm, "stepped", &["few"]);
}

#[test]
fn stepped_under_kvm_direct() {
    compare_program(Platform::KvmDirect, "stepped", &["few"]);
}

#[test]
fn stepped_under_qemu() {
    compare_program(Platform::Qemu, "stepped", &[]);
}

#[test]
fn forbidden_under_kvm() {
    compare_program(Platform::Kvm, "forbidden", &[]);
}

#[test]
fn forbidden_under_kvm_direct() {
    compare_program(Platform::KvmDirect, "forbidden", &[]);
}

#[test]
fn forbidden_under_qemu() {
    compare_program(Platform::Qemu, "forbidden", &[]);
}

/// Linux runs it; here it has no calls to make, and a processor that runs it all the same does not lead it anywhere.
#[test]
fn code_of_32_bits_is_refused() {
    for platform in [Platform::Kvm, Platform::KvmDirect, Platform::Qemu] {
        platform.require();
        let root = Root::new().program("forbidden");
        let finished = Run::new(&["/bin/forbidden", "other"]).guest(platform, root.disk());
        finished.must_exit(0);
        let said = String::from_utf8_lossy(&finished.stdout);
        assert_eq!(said.lines().count(), 6, "{platform:?}: {said}");
        assert!(
            said.lines().all(|line| line.ends_with("signal 11")),
            "{platform:?}: {said}"
        );
    }
}

#[test]
fn memory_under_kvm() {
    compare_program(Platform::Kvm, "memory", &[]);
}

#[test]
fn memory_under_qemu() {
    compare_program(Platform::Qemu, "memory", &[]);
}

#[test]
fn files_on_ext2() {
    compare_program(Platform::Kvm, "files", &[]);
}

#[test]
fn files_on_ext2_under_qemu() {
    compare_program(Platform::Qemu, "files", &[]);
}

#[test]
fn files_on_tmpfs() {
    Platform::Kvm.require();
    let root = Root::new().program("files");
    Run::new(&["/bin/files"])
        .cwd("/tmp")
        .same_as_host(Platform::Kvm, &root);
}

#[test]
fn corners_under_kvm() {
    compare_program(Platform::Kvm, "corners", &[]);
}

#[test]
fn corners_under_qemu() {
    compare_program(Platform::Qemu, "corners", &[]);
}

#[test]
fn pieces_under_kvm() {
    compare_program(Platform::Kvm, "pieces", &[]);
}

#[test]
fn pieces_under_qemu() {
    compare_program(Platform::Qemu, "pieces", &[]);
}

#[test]
fn sockets_under_kvm() {
    compare_program(Platform::Kvm, "sockets", &[]);
}

#[test]
fn sockets_under_qemu() {
    compare_program(Platform::Qemu, "sockets", &[]);
}

#[test]
fn waiting_under_kvm() {
    compare_program(Platform::Kvm, "waiting", &[]);
}

#[test]
fn waiting_under_qemu() {
    compare_program(Platform::Qemu, "waiting", &[]);
}

#[test]
fn terminals_under_kvm() {
    compare_program(Platform::Kvm, "terminals", &[]);
}

#[test]
fn terminals_under_qemu() {
    compare_program(Platform::Qemu, "terminals", &[]);
}

#[test]
fn futexes_under_kvm() {
    compare_program(Platform::Kvm, "futexes", &[]);
}

#[test]
fn futexes_under_qemu() {
    compare_program(Platform::Qemu, "futexes", &[]);
}

#[test]
fn halves_under_kvm() {
    compare_program(Platform::Kvm, "halves", &[]);
}

#[test]
fn halves_under_qemu() {
    compare_program(Platform::Qemu, "halves", &[]);
}

#[test]
fn splices_under_kvm() {
    compare_program(Platform::Kvm, "splices", &[]);
}

#[test]
fn splices_under_qemu() {
    compare_program(Platform::Qemu, "splices", &[]);
}

#[test]
fn vectors_under_kvm() {
    compare_program(Platform::Kvm, "vectors", &[]);
}

#[test]
fn vectors_under_qemu() {
    compare_program(Platform::Qemu, "vectors", &[]);
}

#[test]
fn rights_under_kvm() {
    compare_program(Platform::Kvm, "rights", &[]);
}

#[test]
fn rights_under_qemu() {
    compare_program(Platform::Qemu, "rights", &[]);
}

#[test]
fn truncated_under_kvm() {
    compare_program(Platform::Kvm, "truncated", &[]);
}

#[test]
fn truncated_under_qemu() {
    compare_program(Platform::Qemu, "truncated", &[]);
}

#[test]
fn truncated_on_tmpfs() {
    Platform::Kvm.require();
    let root = Root::new().program("truncated");
    Run::new(&["/bin/truncated"])
        .cwd("/tmp")
        .same_as_host(Platform::Kvm, &root);
}

#[test]
fn halves_on_tmpfs() {
    Platform::Kvm.require();
    let root = Root::new().program("halves");
    Run::new(&["/bin/halves"])
        .cwd("/tmp")
        .same_as_host(Platform::Kvm, &root);
}

#[test]
fn coherent_under_kvm() {
    compare_program(Platform::Kvm, "coherent", &[]);
}

#[test]
fn edges() {
    compare_program(Platform::Kvm, "edges", &[]);
}

#[test]
fn edges_under_qemu() {
    compare_program(Platform::Qemu, "edges", &[]);
}

#[test]
fn edges_on_tmpfs() {
    Platform::Kvm.require();
    let root = Root::new().program("edges");
    Run::new(&["/bin/edges"])
        .cwd("/tmp")
        .same_as_host(Platform::Kvm, &root);
}

#[test]
fn frames() {
    compare_program(Platform::Kvm, "frames", &[]);
}

#[test]
fn frames_under_qemu() {
    compare_program(Platform::Qemu, "frames", &[]);
}

#[test]
fn coherent_under_qemu() {
    compare_program(Platform::Qemu, "coherent", &[]);
}

#[test]
fn coherent_on_tmpfs() {
    Platform::Kvm.require();
    let root = Root::new().program("coherent");
    Run::new(&["/bin/coherent"])
        .cwd("/tmp")
        .same_as_host(Platform::Kvm, &root);
}

#[test]
fn holes_under_kvm() {
    compare_program(Platform::Kvm, "holes", &[]);
}

#[test]
fn holes_under_qemu() {
    compare_program(Platform::Qemu, "holes", &[]);
}

#[test]
fn holes_on_tmpfs() {
    Platform::Kvm.require();
    let root = Root::new().program("holes");
    Run::new(&["/bin/holes"])
        .cwd("/tmp")
        .same_as_host(Platform::Kvm, &root);
}

#[test]
fn exact_under_kvm() {
    compare_program(Platform::Kvm, "exact", &[]);
}

#[test]
fn exact_under_qemu() {
    compare_program(Platform::Qemu, "exact", &[]);
}

#[test]
fn wide_under_kvm() {
    compare_program(Platform::Kvm, "wide", &[]);
}

#[test]
fn wide_under_qemu() {
    compare_program(Platform::Qemu, "wide", &["20"]);
}

#[test]
fn every_way_to_end() {
    Platform::Kvm.require();
    let root = Root::new().program("process");
    let ways: &[&[&str]] = &[
        &["exit", "0"],
        &["exit", "1"],
        &["exit", "255"],
        &["abort"],
        &["segv"],
        &["illegal"],
        &["divide"],
    ];
    for way in ways {
        let args: Vec<&str> = ["/bin/process"].iter().chain(*way).copied().collect();
        Run::new(&args).same_as_host(Platform::Kvm, &root);
    }
}

/// These say their thread's number, which differs from run to run.
#[test]
fn panics_and_stack_overflows_are_reported() {
    Platform::Kvm.require();
    let root = Root::new().program("process");
    for (way, message) in [
        ("panic", "asked to"),
        ("overflow", "has overflowed its stack"),
    ] {
        let finished = Run::new(&["/bin/process", way]).guest(Platform::Kvm, root.disk());
        finished.must_exit(134);
        let said = String::from_utf8_lossy(&finished.stderr);
        assert!(said.contains(message), "{way}: {said}");
    }
}

#[test]
fn streams_and_environment() {
    Platform::Kvm.require();
    let root = Root::new().program("process");
    let input: Vec<u8> = (0..100_000u32).map(|i| (i % 253) as u8).collect();
    Run::new(&["/bin/process", "streams"])
        .stdin(&input)
        .same_as_host(Platform::Kvm, &root);
    Run::new(&["/bin/process", "environment", "two words", "", "*"])
        .same_as_host(Platform::Kvm, &root);
}

#[test]
fn two_hundred_children() {
    compare_program(Platform::Kvm, "process", &["spawn", "200"]);
}

#[test]
fn the_time_limit_ends_a_program() {
    Platform::Kvm.require();
    let root = Root::new().busybox();
    let run = Run::new(&["/bin/busybox", "sleep", "100"]).timeout(3);
    assert!(
        run.guest(Platform::Kvm, root.disk())
            .must_exit(124)
            .timed_out()
    );
    let run = Run::new(&["/bin/busybox", "sh", "-c", "while :; do :; done"]).timeout(3);
    assert!(
        run.guest(Platform::Kvm, root.disk())
            .must_exit(124)
            .timed_out()
    );
}

#[test]
fn a_missing_program_is_127() {
    Platform::Kvm.require();
    let root = Root::new().file("/bin/text", b"no program\n");
    Run::new(&["/bin/nothing"])
        .guest(Platform::Kvm, root.disk())
        .must_exit(127);
    Run::new(&["/bin/text"])
        .guest(Platform::Kvm, root.disk())
        .must_exit(126);
    let nowhere = Run::new(&["/bin/text"])
        .cwd("/nowhere")
        .guest(Platform::Kvm, root.disk());
    nowhere.must_exit(127);
    let said = nowhere.circumstances();
    let why = "the working directory /nowhere: ENOENT";
    assert!(said.contains(why), "{said}");
}

/// A shell of the host, on the embedded root.
fn shell(script: &str, with: &[&str]) -> Captured {
    let mut program = Program::new(["/bin/busybox", "sh", "-c", script]);
    program.with = with.iter().map(Into::into).collect();
    program.capture(b"").expect("a run")
}

#[test]
fn what_a_program_misses_is_named_and_can_be_taken_along() {
    Platform::Kvm.require();
    // Files of any Debian host; the second is also made by the program, and so nothing that it misses.
    let (named, made) = (
        "/etc/os-release".to_string(),
        "/etc/debian_version".to_string(),
    );
    let script =
        format!("mkdir -p /etc && echo own >{made} && cat {made} {named}; cat /no/such; exit 3");
    let missed = shell(&script, &[]);
    assert_eq!(missed.outcome.ending.code(), 3);
    let advice = missed.outcome.advice.expect("advice");
    assert!(advice.files.contains(&named), "{advice:?}");
    assert!(!advice.files.contains(&made), "{advice:?}");
    assert!(advice.files.len() + advice.more < 5, "{advice:?}");
    let there = shell(&format!("cat {named}"), &[&named]);
    assert_eq!(there.stdout, std::fs::read(&named).expect("a file"));
    assert_eq!(there.outcome.ending.code(), 0);
    // Nobody asks about a root of one's own.
    let root = Root::new().busybox();
    let mut program = Program::new(["/bin/busybox", "cat", &named]);
    program.root = Some(root.path("/"));
    let outcome = program.capture(b"").expect("a run").outcome;
    assert_eq!((outcome.absent.len(), outcome.advice), (0, None));
}
