//! The deadlocks that failable copies avoid, and the rows of the matrix (V and X9) that programs can
//! show: `tests/scenarios/scenario.c`, `repairs.c` and `devices.c` under the three copy policies.
//!
//! Under `transparent` D1, D2, D3, D5 and D6 must deadlock, in the expected circle; under `try`
//! and `file-only` they must give the right data. What the design has removed by construction
//! must work under every policy:
//!
//! * D4: VM never calls VFS, it posts; VFS's calls to VM are answered at once.
//! * D5 for a file system's own requests: its memory is resident. A program that reads the
//!   disk's node into a file's page is another matter (`d5-disk`).
//! * D7(b): several page-ins are outstanding at once, by (device, inode), without locks.
//! * D7(d): PM is not needed to bring a page, and VFS does not wait for PM in a call.
//!
//! D3 proper, a blocking call of VFS to VM, has no message (`handle_memory_is_not_a_call` in
//! the memory server's tests); here VFS itself is parked with a result in its hands.

mod common;

use abi::policy::CopyPolicy;
use absentia_vmm::control::Reason;
use absentia_vmm::machine::Ending;
use common::{Finished, Platform, Root, Run, with_cold_files};

/// Cold files on the disk.
const COLD: usize = 80;

fn root() -> Root {
    let page = |text: &[u8]| {
        let mut page = text.to_vec();
        page.resize(4096, 0);
        page
    };
    let programs = Root::new().program("scenario").program("devices");
    let root = with_cold_files(programs.program("repairs"), COLD);
    let words = |words: &[u64]| {
        page(
            &words
                .iter()
                .flat_map(|w| w.to_le_bytes())
                .collect::<Vec<_>>(),
        )
    };
    root.file("/work/names", &page(b"/work/c0"))
        .file("/work/target", &page(b"/work/c0"))
        .file(
            "/work/exec",
            &[page(b"/bin/scenario"), page(b"nothing")].concat(),
        )
        // The structures of repairs.c, for its descriptor 100: struct flock (F_WRLCK, 77 bytes),
        // pollfd (POLLIN, and results that nobody gave), fd_set, timeval, two timespec, two iovec.
        .file("/work/lock", &words(&[1, 0, 77]))
        .file("/work/poll", &words(&[100 | 1 << 32 | 0x5555 << 48]))
        .file("/work/sets", &words(&[0, 1 << (100 - 64)]))
        .file("/work/time", &words(&[0, 20_000]))
        .file("/work/times", &words(&[1_000_000, 5, 2_000_000, 6]))
        .file("/work/vector", &words(&[0x1000_0000, 100, 0x1000_1000, 50]))
}

/// The cases of `tests/scenarios/devices.c`.
const DEVICES: &[&str] = &["d5-disk", "V3", "V15"];
/// Those of `repairs.c`; the others are `scenario.c`'s.
const REPAIRS: &[&str] = &["looking", "V1", "V7", "V8", "V9"];

fn run(policy: CopyPolicy, platform: Platform, cases: &[&str]) -> Finished {
    let program = match cases[0] {
        case if DEVICES.contains(&case) => "/bin/devices",
        case if REPAIRS.contains(&case) => "/bin/repairs",
        _ => "/bin/scenario",
    };
    let args: Vec<&str> = [program].iter().chain(cases).copied().collect();
    let mut run = Run::new(&args).timeout(60);
    run.policy = policy;
    run.guest(platform, root().disk())
}

fn completes(policy: CopyPolicy, platform: Platform, cases: &[&str]) {
    platform.require();
    let finished = run(policy, platform, cases);
    let expected: String = cases.iter().map(|case| format!("{case} ok\n")).collect();
    let circumstances = finished.circumstances();
    assert_eq!(finished.text(), expected, "{policy:?}: {circumstances}");
    finished.must_exit(0);
}

/// Demands a deadlock whose circle is `ring`.
fn deadlocks(case: &str, ring: &[&str]) {
    deadlocks_on(Platform::Kvm, case, ring);
}

fn deadlocks_on(platform: Platform, case: &str, ring: &[&str]) {
    platform.require();
    let finished = run(CopyPolicy::Transparent, platform, &[case]);
    let ending = finished.outcome.as_ref().map(|outcome| &outcome.ending);
    let Some(Ending::Stopped(Reason::Deadlock(text))) = ending else {
        panic!("{case}: no deadlock: {}", finished.circumstances());
    };
    finished.must_exit(125);
    let circle: Vec<&str> = text
        .lines()
        .take_while(|line| line.starts_with(' '))
        .collect();
    assert_eq!(circle.len(), ring.len(), "{text}");
    for (i, from) in ring.iter().enumerate() {
        let wait = format!("  {from} waits for {}: ", ring[(i + 1) % ring.len()]);
        assert!(circle.iter().any(|line| line.starts_with(&wait)), "{text}");
    }
    // A request that was received already does not say so any more.
    let received = text.contains("a request received");
    assert!(received || text.contains("of inode "), "which file: {text}");
}

const FILE_SYSTEM: &[&str] = &["ext2", "vm", "vfs"];
const VFS: &[&str] = &["vfs", "vm"];

/// A program's constant path, in a file page of its own that nothing before it has brought.
#[test]
fn a_constant_path_deadlocks_without_try() {
    Platform::Kvm.require();
    let root = Root::new().program("far-path");
    for (policy, code) in [(CopyPolicy::Transparent, 125), (CopyPolicy::FileOnly, 0)] {
        let mut run = Run::new(&["/bin/far-path"]).timeout(60);
        run.policy = policy;
        run.guest(Platform::Kvm, root.disk()).must_exit(code);
    }
}

#[test]
fn d1_write_deadlocks_without_try() {
    deadlocks("d1-write", FILE_SYSTEM);
}

#[test]
fn d1_read_deadlocks_without_try() {
    deadlocks("d1-read", FILE_SYSTEM);
}

/// QEMU's RAM is shared, and looked into in the same way.
#[test]
fn deadlocks_are_found_under_qemu() {
    deadlocks_on(Platform::Qemu, "d1-read", FILE_SYSTEM);
    deadlocks_on(Platform::Qemu, "d2", VFS);
}

#[test]
fn d2_deadlocks_without_try() {
    deadlocks("d2", VFS);
}

#[test]
fn d3_deadlocks_without_try() {
    deadlocks("d3", VFS);
}

#[test]
fn d5_deadlocks_without_try() {
    deadlocks("d5-disk", &["virtio-blk", "vm", "vfs", "ext2"]);
}

#[test]
fn d6_deadlocks_without_try() {
    deadlocks("d6-write", FILE_SYSTEM);
    deadlocks("d6-read", FILE_SYSTEM);
}

#[test]
fn d7_deadlocks_without_try() {
    deadlocks("d7a", FILE_SYSTEM);
    deadlocks("d7c", VFS);
}

const SCENARIOS: &[&str] = &[
    "d1-write", "d1-read", "d2", "d3", "d4", "d5", "d6-write", "d6-read", "d7a", "d7c", "d7d",
];

#[test]
fn every_scenario_completes_with_try() {
    completes(CopyPolicy::Try, Platform::Kvm, SCENARIOS);
}

#[test]
fn every_scenario_completes_with_file_only() {
    completes(CopyPolicy::FileOnly, Platform::Kvm, SCENARIOS);
}

#[test]
fn what_is_impossible_by_construction_works_under_every_policy() {
    completes(CopyPolicy::Transparent, Platform::Kvm, &["d4", "d5", "d7d"]);
}

#[test]
fn every_scenario_completes_with_try_under_qemu() {
    completes(CopyPolicy::Try, Platform::Qemu, SCENARIOS);
    completes(CopyPolicy::Try, Platform::Qemu, DEVICES);
}

#[test]
fn v3_and_v15_and_d5_complete_with_try() {
    completes(CopyPolicy::Try, Platform::Kvm, DEVICES);
}

#[test]
fn v3_and_v15_and_d5_complete_with_file_only() {
    completes(CopyPolicy::FileOnly, Platform::Kvm, DEVICES);
}

const ROWS: &[&str] = &["V13", "V4", "V5", "V6", "V10", "V12", "V14", "V17"];

#[test]
fn matrix_v_with_try() {
    completes(CopyPolicy::Try, Platform::Kvm, ROWS);
    completes(CopyPolicy::Try, Platform::Kvm, REPAIRS);
}

#[test]
fn matrix_v_with_file_only() {
    completes(CopyPolicy::FileOnly, Platform::Kvm, ROWS);
    completes(CopyPolicy::FileOnly, Platform::Kvm, REPAIRS);
}

#[test]
fn matrix_v_under_qemu() {
    completes(CopyPolicy::Try, Platform::Qemu, ROWS);
    completes(CopyPolicy::Try, Platform::Qemu, REPAIRS);
}

/// It wants the disk's files for itself.
#[test]
fn matrix_x9_completes() {
    completes(CopyPolicy::Try, Platform::Kvm, &["X9"]);
    completes(CopyPolicy::FileOnly, Platform::Kvm, &["X9"]);
    completes(CopyPolicy::Try, Platform::Qemu, &["X9"]);
}

#[test]
fn a_deadlock_is_reported_as_text_and_drawing() {
    Platform::Kvm.require();
    let directory = tempfile::tempdir().expect("directory");
    let mut run = Run::new(&["/bin/scenario", "d1-write"]).timeout(60);
    run.policy = CopyPolicy::Transparent;
    run.report = Some(directory.path().join("report"));
    run.guest(Platform::Kvm, root().disk()).must_exit(125);
    let read = |name: &str| {
        std::fs::read_to_string(directory.path().join("report").join(name)).expect(name)
    };
    assert!(read("cycle.txt").contains("ext2 waits for vm"));
    assert!(read("cycle.dot").starts_with("digraph"));
    assert!(read("cycle.svg").starts_with("<svg"));
}

/// A program that waits for ever is no deadlock, nor is one that reads what nobody writes.
#[test]
fn waiting_is_no_deadlock() {
    let root = Root::new().busybox();
    for (platform, seconds) in [(Platform::Kvm, 6), (Platform::Qemu, 12)] {
        platform.require();
        for script in ["sleep 1000", "mkfifo /work/fifo; read x < /work/fifo"] {
            let run = Run::new(&["/bin/busybox", "sh", "-c", script]).timeout(seconds);
            let finished = run.guest(platform, root.disk());
            assert!(finished.timed_out(), "{}", finished.circumstances());
        }
    }
}
