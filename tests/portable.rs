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

/// By which machine of QEMU's.
const MACHINES: [&str; 2] = ["## QEMU, microvm", "## QEMU, q35"];

#[test]
fn a_program_runs_by_every_command_line() {
    Platform::Qemu.require();
    let place = tempfile::tempdir().expect("a directory");
    let output = shell(&place, "absentia images here");
    assert!(output.status.success(), "{}", text(&output.stderr));
    for machine in MACHINES {
        let output = shell(&place, &documented(machine));
        let (said, log) = (text(&output.stdout), log(&place));
        assert!(
            said.starts_with("This is Absentia"),
            "{machine}: {said}\n{log}"
        );
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{machine}: {errors}\n{log}");
    }
}

/// Input, errors and the exit status, too, and a disk that is read and written; with memory that begins again at 4 GiB, which
/// the memory map tells and each machine splits in its own way.
#[test]
fn standard_streams_status_and_disk_are_the_programs() {
    Platform::Qemu.require();
    let busybox = common::tool("busybox").expect("the tests need busybox (Debian: busybox-static)");
    let busybox = busybox.display();
    for machine in MACHINES {
        let place = tempfile::tempdir().expect("a directory");
        let script = "read line; echo \"out $line\"; echo \"err $line\" >&2; \
             yes | head -c 2500000 > /big; sync; echo 3 > /proc/sys/vm/drop_caches; md5sum < /big; exit 7";
        let made = format!("absentia images here -- {busybox} sh -c '{script}'");
        let output = shell(&place, &made);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let line = documented(machine);
        let large = line.replace("-m 128M", "-m 6G");
        assert_ne!(large, line);
        let output = shell(&place, &format!("{{ echo word; }} | {large}"));
        let (out, err, log) = (text(&output.stdout), text(&output.stderr), log(&place));
        let sum = "102908978a95f23602213e2c5dedfffc";
        assert_eq!(
            out,
            format!("out word\n{sum}  -\n"),
            "{machine}: {err}\n{log}"
        );
        assert!(err.contains("err word\n"), "{machine}: {err}");
        assert_eq!(output.status.code(), Some(7), "{machine}: {log}");
        let checked = shell(&place, "e2fsck -fn here/root.img");
        assert!(
            checked.status.success(),
            "{machine}: {}",
            text(&checked.stdout)
        );
    }
}

/// Without devices that the guest can drive it says so, on a machine with firmware, too.
#[test]
fn a_pc_boots_to_the_lack_of_a_disk() {
    Platform::Qemu.require();
    let place = tempfile::tempdir().expect("a directory");
    let output = shell(&place, "absentia images here");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let line = documented("## QEMU, q35");
    for (change, lack) in [
        (line.replace("absentia.pci=", "pci="), "rs: no disk: "),
        // With only a legacy interface.
        (
            line.replace("blk-pci", "blk-pci,disable-modern=on"),
            "rs: no disk: ",
        ),
        (
            line.replace("serial-pci", "serial-pci,vectors=0"),
            "rs: no console: ",
        ),
    ] {
        assert_ne!(change, line);
        shell(&place, &format!("{change} || true"));
        let log = log(&place);
        assert!(log.contains(lack), "{log}");
    }
}
