//! What the copy policies cost, and that failing first costs nothing where nothing is absent.
//! The table of `docs/performance.md`:
//!
//!     cargo test -p absentia-vmm --test policies costs -- --nocapture

mod common;

use abi::policy::CopyPolicy;
use common::{Platform, Root, Run};

/// As `tests/guest/policies.c` prints them.
const VISITS: usize = 0;
const INTERRUPTS: usize = 1;
const MESSAGES: usize = 2;
const COPIES: usize = 3;
const BYTES: usize = 4;
const FAILED: usize = 5;
const PARKED: usize = 6;
const REPAIRS: usize = 7;

const SIZE: u64 = 4 << 20;

/// The counters over each case, without what reading them costs.
fn measure(platform: Platform, policy: CopyPolicy, cases: &[&str]) -> Vec<[u64; 9]> {
    platform.require();
    let data: Vec<u8> = (0..SIZE).map(|i| (i * 7 + i / 4096) as u8).collect();
    let root = Root::new().busybox().program("policies");
    let root = root.file("/work/data", &data);
    let args = ["/bin/policies", "nothing"].iter().chain(cases).copied();
    let mut run = Run::new(&args.collect::<Vec<_>>());
    run.policy = policy;
    // The file system's cache is to hold all of the file.
    run.memory = 128 << 20;
    let finished = run.guest(platform, root.disk());
    let text = finished.text();
    assert_eq!(
        finished.code,
        0,
        "{policy:?}: {text}{}",
        finished.circumstances()
    );
    let mut rows = text.lines().map(|line| {
        let mut words = line.split(' ');
        let name = words.next().expect("a name").to_string();
        let numbers: Vec<u64> = words.map(|n| n.parse().expect("a number")).collect();
        (name, numbers)
    });
    let (_, base) = rows.next().expect("what nothing costs");
    let found: Vec<[u64; 9]> = cases
        .iter()
        .map(|case| {
            let (name, numbers) = rows.next().expect("a row");
            assert_eq!(name, *case);
            std::array::from_fn(|i| numbers[i].saturating_sub(base[i]))
        })
        .collect();
    found
}

const POLICIES: [CopyPolicy; 3] = [
    CopyPolicy::Try,
    CopyPolicy::FileOnly,
    CopyPolicy::Transparent,
];

/// Everything that copies meet is in VM's cache: `transparent` completes as well.
const CASES: [&str; 5] = ["read-present", "read-warm", "read-cold", "exec", "script"];

#[test]
fn costs() {
    println!(
        "| Operation | Policy | Messages | Copies | Bytes copied | Failed | Parked | Repairs |"
    );
    println!("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    let rows = POLICIES.map(|policy| measure(Platform::Kvm, policy, &CASES));
    let cold = [CopyPolicy::Try, CopyPolicy::FileOnly];
    let cold = cold.map(|policy| measure(Platform::Kvm, policy, &["exec-cold"]));
    let print = |case: &str, policy: CopyPolicy, row: &[u64; 9]| {
        let columns = [MESSAGES, COPIES, BYTES, FAILED, PARKED, REPAIRS];
        let columns = columns.map(|i| row[i].to_string()).join(" | ");
        println!("| {case} | `{}` | {columns} |", policy.name());
    };
    for (number, case) in CASES.iter().enumerate() {
        for (policy, rows) in POLICIES.iter().zip(&rows) {
            print(case, *policy, &rows[number]);
        }
    }
    for (policy, rows) in POLICIES.iter().zip(&cold) {
        print("exec-cold", *policy, &rows[0]);
    }
    let [with_try, file_only, transparent] = &rows;
    for rows in &rows {
        // Cold data is copied by the driver as well: the caches were dropped.
        assert!(
            rows[1][BYTES] >= SIZE && rows[2][BYTES] >= rows[1][BYTES] + SIZE,
            "{rows:?}"
        );
        assert_eq!([rows[0][FAILED], rows[0][PARKED], rows[0][REPAIRS]], [0; 3]);
    }
    // Only TRY fails, and what fails is repaired; only the others park their file system.
    assert!(with_try[1][FAILED] >= SIZE / (256 << 10), "{with_try:?}");
    assert_eq!(with_try[1][FAILED], with_try[1][REPAIRS]);
    assert_eq!((with_try[1][PARKED], file_only[1][REPAIRS]), (0, 0));
    assert_eq!((transparent[1][FAILED], transparent[1][REPAIRS]), (0, 0));
    assert!(transparent[1][PARKED] > 0 && file_only[1][PARKED] > 0);
}

/// With nothing absent, not one message and not one kernel entry more.
fn failing_first_is_free(platform: Platform) {
    let cases = ["read-present"];
    let rows = POLICIES.map(|policy| measure(platform, policy, &cases)[0]);
    for row in &rows[1..] {
        for counter in [MESSAGES, COPIES, FAILED, PARKED, REPAIRS] {
            assert_eq!(
                row[counter], rows[0][counter],
                "counter {counter} of {rows:?}"
            );
        }
        // The text of the counters themselves is longer or shorter by some digits.
        assert!(row[BYTES].abs_diff(rows[0][BYTES]) < 100, "{rows:?}");
        // Clock and disk are not the policy's.
        let entries = |row: &[u64; 9]| row[VISITS] - row[INTERRUPTS];
        assert_eq!(entries(row), entries(&rows[0]), "{rows:?}");
    }
}

#[test]
fn failing_first_is_free_under_kvm() {
    failing_first_is_free(Platform::Kvm);
}

#[test]
fn failing_first_is_free_under_qemu() {
    failing_first_is_free(Platform::Qemu);
}
