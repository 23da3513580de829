//! What the VMM takes of the host beside the guest's RAM.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// Resident beside guest RAM, KiB, while a program runs.
const BESIDE: u64 = 5632;
/// All that is resident, guest RAM included, KiB, while a shell waits.
const ALL: u64 = 16 << 10;
/// What of guest RAM a large machine uses more than the smallest: a table for each GiB of it, and a page table or two, KiB.
const MORE: u64 = 128;

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

/// Resident KiB of a machine with that much memory, whose shell waits: guest RAM, and the rest.
fn of_machine(memory: &str) -> (u64, u64) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_absentia"))
        .args([
            "run",
            "--accel",
            "kvm",
            "--timeout",
            "60",
            "--mem",
            memory,
            "--",
        ])
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
    // The program ends when its input does.
    drop(child.stdin.take());
    child.wait().expect("an end");
    eprintln!("--mem {memory}: guest RAM {ram} KiB, beside it {rest} KiB");
    (ram, rest)
}

#[test]
fn a_machine_is_small_whatever_memory_it_may_have() {
    let mut least = u64::MAX;
    for memory in ["16M", "128M", "3G", "4G", "16G"] {
        let (ram, rest) = of_machine(memory);
        least = least.min(ram);
        assert!(
            ram <= least + MORE,
            "--mem {memory}: {ram} KiB of guest RAM are used, and {least} with less"
        );
        assert!(ram > 0, "guest RAM is not found in the VMM's mappings");
        assert!(
            rest <= BESIDE,
            "--mem {memory}: {rest} KiB beside guest RAM, more than {BESIDE}"
        );
        let all = ram + rest;
        assert!(
            all <= ALL,
            "--mem {memory}: {all} KiB resident, more than {ALL}"
        );
    }
}
