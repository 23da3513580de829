//! Machines with more memory than there is room for below 4 GiB (docs/decisions/026-large-memory.md). VM hands out what
//! is behind the hole first, so that little has to be used: page tables, programs, caches and what drivers share with
//! devices are all there.

mod common;

use std::process::{Command, Output};

use common::{Platform, Root, Run};

const KINDS: &str = "\
copied at a fork
read from the disk
mapped from a file
through a pipe
";

/// All kinds of memory, with so many GiB.
fn every_kind(platform: Platform, sizes: &[u64]) {
    platform.require();
    for &gib in sizes {
        let root = Root::new().program("large");
        let mut run = Run::new(&["/bin/large", "3"]);
        run.memory = gib << 30;
        run.sanity = platform == Platform::Kvm && gib == 4;
        let finished = run.same_as_host(platform, &root);
        assert_eq!(finished.text(), KINDS, "{gib} GiB");
    }
}

#[test]
fn memory_behind_the_hole_is_like_any() {
    every_kind(Platform::Kvm, &[4, 64]);
}

#[test]
fn memory_behind_the_hole_is_like_any_with_the_direct_gate() {
    every_kind(Platform::KvmDirect, &[4]);
}

#[test]
fn memory_behind_the_hole_is_like_any_under_qemu() {
    every_kind(Platform::Qemu, &[6]);
}

fn absentia(words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_absentia"));
    command
        .arg("run")
        .args(words)
        .args(["--", "/bin/busybox", "uname"]);
    command.output().expect("absentia")
}

/// A deterministic run does not depend on what executes it, wherever its memory is.
#[test]
fn a_large_machine_has_one_hash_on_kvm_and_qemu() {
    let trace = |accelerator| {
        Platform::Qemu.require();
        let words = [
            "--mem",
            "4G",
            "--deterministic",
            "-v",
            "--accel",
            accelerator,
        ];
        let program = common::guest_program("one-answer");
        let mut command = Command::new(env!("CARGO_BIN_EXE_absentia"));
        command.arg("run").args(words).arg("--").arg(program);
        let said = command.output().expect("absentia").stderr;
        let said = String::from_utf8_lossy(&said).into_owned();
        let line = said
            .lines()
            .rev()
            .find_map(|line| line.split_once("trace: "));
        line.unwrap_or_else(|| panic!("{said}")).1.to_string()
    };
    assert_eq!(trace("kvm"), trace("qemu"));
}

#[test]
fn what_a_host_cannot_give_is_refused_in_a_line() {
    let refused = |output: Output, parts: &[&str]| {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(125), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        for part in parts.iter().chain(&["--mem"]) {
            assert!(said.contains(part), "{said}");
        }
    };
    refused(absentia(&["--mem", "1024G"]), &["at most 511 GiB"]);
    refused(absentia(&["--mem", "15M"]), &["at least 16 MiB"]);
    let limited = format!(
        "ulimit -v 4000000; exec {} run --accel kvm --mem 8G -- /bin/busybox uname",
        env!("CARGO_BIN_EXE_absentia")
    );
    let output = Command::new("sh").args(["-c", &limited]).output();
    refused(output.expect("sh"), &["8192 MiB", "ulimit -v"]);
}
