//! Each mechanism is taken out, and a test must turn red (`--sabotage`): tests that run here again,
//! in processes of their own, on machines that start with a deliberate defect
//! ([`abi::sabotage`]). `docs/matrix.md` has the table of what turned red.
//!
//! All of it takes a quarter of an hour, so that the quick suite does half. The whole table, after
//! the tests as they are have passed:
//!
//! ```text
//! cargo test --workspace --no-run && ABSENTIA_ALL=1 cargo test --test sabotage --test exhaust --test hardware --test snapshots --test exec -- --nocapture
//! ```
//!
//! The programs that run are the newest of each name beside this one.

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use abi::sabotage::{NAMES, VARIABLE};
use common::built::program;

/// What runs all of the table.
const ALL: &str = "ABSENTIA_ALL";

/// A defect, the test program and the test that it must turn red, and whether the quick suite
/// tries it. The one without a bit takes out a part of the sandbox (tests/prison.rs).
const TABLE: &[(&str, &str, &str, bool)] = &[
    ("fill-ignores-try", "rows", G, false),
    ("no-mark", "rows", G, false),
    ("repair-for-reading", "deadlocks", V, true),
    ("offset-lost", "deadlocks", V, true),
    (
        "answer-crossed",
        "explore",
        "the_order_of_things_does_not_matter",
        false,
    ),
    (
        "lock-over-repair",
        "deadlocks",
        "every_scenario_completes_with_try",
        false,
    ),
    (
        "lock-over-repair",
        "overlap",
        "a_file_is_copied_over_while_others_run_into_it",
        true,
    ),
    (
        "answer-crossed",
        "overlap",
        "many_repairs_are_under_way_at_once",
        true,
    ),
    (
        "call-not-repeated",
        "overlap",
        "pm_waits_for_a_page_during_an_exec",
        true,
    ),
    ("physical-for-nobody", "rows", G, false),
    (
        "cache-not-shared",
        "scenarios",
        "every_scenario_works_without_a_fault",
        false,
    ),
    ("double-restart", "deadlocks", V, true),
    ("frame-leaked", "explore", D1, true),
    ("lock-kept", "explore", D1, true),
    (
        "refused-frame-kept",
        "refusals",
        "a_frame_that_a_refusal_leaves_behind_is_found",
        true,
    ),
    ("try-ignored", "rows", G, false),
    ("mark-at-first", "rows", G, true),
    ("source-for-writing", "rows", G, false),
    ("sequence-ignored", "rows", G, false),
    ("grantee-ignored", "rows", G, false),
    ("physical-for-all", "rows", G, false),
    ("call-not-repeated", "rows", G, false),
    ("entry-forged", "programs", "forged_under_kvm", true),
    (
        "claim-ignored",
        "vm",
        "tests::shortage::services_take_what_programs_leave_and_programs_make_room_then",
        true,
    ),
    ("mapping-left", "programs", "truncated_under_kvm", true),
    ("good-unsaid", "programs", "halves_under_kvm", false),
    ("futex-by-address", "programs", "futexes_under_kvm", false),
    ("no-repair", "deadlocks", V, true),
    ("vm-trusts-all", "rows", "matrix_m_under_kvm", true),
    (
        "pm-trusts-all",
        "pm",
        "tests::senders::nobody_says_what_is_not_theirs",
        true,
    ),
    (
        "vfs-trusts-all",
        "vfs",
        "tests::senders::nobody_says_what_is_not_theirs",
        true,
    ),
    (
        "uncharged",
        "limits",
        "each_kind_ends_with_its_error_and_root_goes_on",
        false,
    ),
    ("asked-for-ever", "rows", "matrix_m_under_kvm", true),
    ("unused-grants", "rows", G, false),
    ("access-ignored", "rows", G, false),
    (
        "no-confinement",
        "prison",
        "no_file_and_no_capability_is_left",
        true,
    ),
];

const G: &str = "matrix_g_and_k_under_kvm";
const V: &str = "matrix_v_with_try";
const D1: &str = "d1_read_is_well_under_try_in_every_layer";

/// What a test that failed says, shortly: what it saw where it says that, or how it begins.
fn said(text: &str) -> Option<String> {
    let (_, text) = text.split_once("panicked at")?;
    let lines = || {
        text.lines()
            .skip(1)
            .map(str::trim)
            .filter(|l| !l.is_empty())
    };
    let seen = lines().find_map(|line| line.strip_prefix("left: \""));
    let wrong = seen.and_then(|seen| seen.split("\\n").find(|line| line.contains(": line ")));
    // Rows that are well are printed, too.
    let well = |verdict: &str| verdict.starts_with("Ok") || verdict.starts_with("ErrorSurfaced");
    let bad = |line: &&str| line.strip_prefix("verdict: ").is_some_and(|v| !well(v));
    let verdict = || lines().find(bad);
    let line = wrong.or_else(verdict).or_else(|| lines().next())?;
    let line: String = line.chars().take(70).collect();
    let line = line.replace('|', "/");
    Some(line.trim_end_matches([' ', ',', ':']).to_string())
}

/// The tests that failed, with the first line of what the first of them said.
fn red(name: &str, test: &str, defect: &str) -> Vec<String> {
    let mut command = Command::new(program(name, test));
    command
        .args([test, "--exact"])
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    command.env(VARIABLE, defect).env_remove(ALL);
    let output = command.output().expect("a test program");
    let text = String::from_utf8_lossy(&output.stdout);
    let failed = text.lines().filter_map(|line| {
        let test = line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?;
        Some(test.to_string())
    });
    let mut failed: Vec<String> = failed.collect();
    failed.sort_unstable();
    if let (Some(first), Some(said)) = (failed.first_mut(), said(&text)) {
        *first += &format!(" ({said})");
    }
    assert_eq!(
        failed.is_empty(),
        output.status.success(),
        "{defect}: {text}"
    );
    failed
}

#[test]
fn without_a_mechanism_a_test_turns_red() {
    let all = std::env::var_os(ALL).is_some();
    let known: BTreeSet<_> = NAMES.iter().map(|(name, _)| *name).collect();
    let here: BTreeSet<_> = TABLE.iter().map(|(defect, ..)| *defect).collect();
    assert!(known.is_subset(&here), "{:?}", known.difference(&here));
    if all {
        let tests: BTreeSet<_> = TABLE
            .iter()
            .map(|&(_, name, test, _)| (name, test))
            .collect();
        for (name, test) in tests {
            let failed = red(name, test, "");
            assert!(failed.is_empty(), "with all mechanisms: {name}: {failed:?}");
        }
    } else {
        println!("the quick suite tries a few: all of them take a quarter of an hour, {ALL}=1");
    }
    let mut green = Vec::new();
    let wanted = TABLE.iter().filter(|(.., quick)| all || *quick);
    for &(defect, name, test, _) in wanted {
        let failed = red(name, test, defect);
        println!("| `{defect}` | `{name}`: {} |", failed.join(", "));
        if failed.is_empty() {
            green.push(defect);
        }
    }
    assert!(green.is_empty(), "nothing turned red without {green:?}");
}

/// The table in the documentation is of these defects, and tells of a red test for each.
#[test]
fn the_documented_table_is_whole() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/matrix.md");
    let text = std::fs::read_to_string(path).expect("docs/matrix.md");
    for (defect, name, ..) in TABLE {
        let row = format!("| `{defect}` | `{name}`: ");
        let documented = text.lines().any(|line| line.starts_with(&row));
        assert!(documented, "docs/matrix.md: no row of {row}");
    }
}
