//! The guest's images under other VMMs, by the command lines of `docs/portable-images.md`: they are
//! taken from there, so that what is written is what works.

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::Platform;
use tempfile::TempDir;

/// The indented command lines below a heading of the document.
fn documented(heading: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/portable-images.md");
    let text = fs::read_to_string(path).expect("the document");
    let below = text.lines().skip_while(|line| *line != heading).skip(1);
    let section = below.take_while(|line| !line.starts_with("## "));
    let lines: Vec<&str> = section
        .filter_map(|line| line.strip_prefix("    "))
        .collect();
    assert!(!lines.is_empty(), "nothing below {heading}");
    lines.join("\n")
}

/// Has a shell do it, where `absentia` is a command.
fn shell(place: &TempDir, script: &str) -> Output {
    let command = Path::new(env!("CARGO_BIN_EXE_absentia"));
    let path = std::env::var("PATH").expect("PATH");
    let output = Command::new("timeout")
        .args(["120", "sh", "-ec", script])
        .current_dir(place.path())
        .env(
            "PATH",
            format!(
                "{}:{path}",
                command.parent().expect("a directory").display()
            ),
        )
        .stdin(Stdio::null())
        .output();
    output.expect("timeout and sh (Debian: coreutils, dash)")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn log(place: &TempDir) -> String {
    fs::read_to_string(place.path().join("here/log")).unwrap_or_else(|error| error.to_string())
}

#[test]
fn a_program_runs_under_qemus_microvm() {
    Platform::Qemu.require();
    let place = tempfile::tempdir().expect("a directory");
    let output = shell(&place, "absentia images here");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let output = shell(&place, &documented("## QEMU, microvm"));
    let said = text(&output.stdout);
    assert!(
        said.starts_with("This is Absentia"),
        "{said}\n{}",
        log(&place)
    );
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

/// Input, errors and the exit status, too.
#[test]
fn standard_streams_and_status_are_the_programs() {
    Platform::Qemu.require();
    let place = tempfile::tempdir().expect("a directory");
    let busybox = common::tool("busybox").expect("the tests need busybox (Debian: busybox-static)");
    let script = "read line; echo \"out $line\"; echo \"err $line\" >&2; exit 7";
    let made = format!(
        "absentia images here -- {} sh -c '{script}'",
        busybox.display()
    );
    let output = shell(&place, &made);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let run = format!("{{ echo word; }} | {}", documented("## QEMU, microvm"));
    let output = shell(&place, &run);
    assert_eq!(text(&output.stdout), "out word\n", "{}", log(&place));
    assert_eq!(text(&output.stderr), "err word\n", "{}", log(&place));
    assert_eq!(output.status.code(), Some(7));
}

/// Without devices that the guest can drive it says so, on a machine with firmware, too.
#[test]
fn a_pc_boots_to_the_lack_of_a_disk() {
    Platform::Qemu.require();
    let place = tempfile::tempdir().expect("a directory");
    let output = shell(&place, "absentia images here");
    assert!(output.status.success(), "{}", text(&output.stderr));
    shell(&place, &format!("{} || true", documented("## QEMU, q35")));
    let log = log(&place);
    assert!(log.contains("rs: no disk: "), "{log}");
}
