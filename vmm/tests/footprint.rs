//! What the VMM takes of the host beside the guest's RAM.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// Resident beside guest RAM, KiB, while a program runs.
const LIMIT: u64 = 8 << 10;

/// Resident KiB of a process: of guest RAM, and of everything else.
fn resident(pid: u32) -> (u64, u64) {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/smaps")).expect("smaps");
    let (mut ram, mut rest, mut in_ram) = (0, 0, false);
    for line in maps.lines() {
        // A mapping's first line has no colon behind its first word.
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("Rss:") => {
                let kib: u64 = words.next().and_then(|w| w.parse().ok()).expect("a number");
                *(if in_ram { &mut ram } else { &mut rest }) += kib;
            }
            Some(word) if !word.ends_with(':') => in_ram = line.contains("absentia-ram"),
            _ => {}
        }
    }
    (ram, rest)
}

#[test]
fn the_vmm_is_small() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_absentia"))
        .args(["run", "--accel", "kvm", "--timeout", "30", "--"])
        .args(["/bin/busybox", "sh", "-c", "echo up; read line"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the absentia command");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("a pipe");
    BufReader::new(stdout).read_line(&mut line).expect("output");
    assert_eq!(line, "up\n");
    let (ram, rest) = resident(child.id());
    eprintln!("guest RAM {ram} KiB, beside it {rest} KiB");
    // The program ends when its input does.
    drop(child.stdin.take());
    child.wait().expect("an end");
    assert!(ram > 0, "guest RAM is not found in the VMM's mappings");
    assert!(
        rest <= LIMIT,
        "{rest} KiB beside guest RAM, more than {LIMIT}"
    );
}
