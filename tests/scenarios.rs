//! The scenarios of the absence laboratory, without faults: every file loads, every root can be
//! built, and every program does what its scenario expects under each policy that it names.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use abi::policy::CopyPolicy;
use absentia_vmm::explore::expect::Observed;
use absentia_vmm::explore::row::Verdict;
use absentia_vmm::explore::scenario::{self, Scenario};
use common::{Platform, Run};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/scenarios")
}

fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("scenarios")
}

fn all() -> Vec<Scenario> {
    let names = scenario::names(&directory());
    let scenarios: Vec<Scenario> = names
        .iter()
        .map(|name| {
            scenario::find(&directory(), name).unwrap_or_else(|problem| panic!("{problem}"))
        })
        .collect();
    assert!(scenarios.len() >= 12, "only {names:?}");
    scenarios
}

/// Runs it without a fault; its results and what there is to say about the run.
fn observe(scenario: &Scenario, platform: Platform, policy: CopyPolicy) -> (Observed, String) {
    let image = scenario
        .image(&cache())
        .unwrap_or_else(|error| panic!("{error:#}"));
    let disk = image.disk().expect("disk");
    let disk_after = disk.file.try_clone().expect("the disk once more");
    let args: Vec<&str> = scenario.run.program.iter().map(String::as_str).collect();
    let mut run = Run::new(&args).cwd(&scenario.run.cwd).timeout(120);
    run.env = scenario.run.env.clone();
    run.stdin = scenario.run.stdin.clone().into_bytes();
    run.memory = scenario.run.memory;
    run.policy = policy;
    let finished = run.guest(platform, disk);
    let observed = Observed {
        status: u8::try_from(finished.code).expect("an exit status"),
        stdout: finished.stdout.clone(),
        stderr: finished.stderr.clone(),
        files: scenario
            .expect
            .files_of(&disk_after)
            .unwrap_or_else(|error: anyhow::Error| panic!("{error:#}")),
    };
    let said = format!("{}stdout: {}", finished.circumstances(), finished.text());
    (observed, said)
}

#[test]
fn every_scenario_works_without_a_fault() {
    Platform::Kvm.require();
    let mut problems = Vec::new();
    for scenario in all() {
        let mut first: Option<Observed> = None;
        for &policy in &scenario.explore.policies {
            let (observed, said) = observe(&scenario, Platform::Kvm, policy);
            let judgement = scenario.expect.judge(&observed, first.as_ref());
            println!(
                "{} under {}: {:?}",
                scenario.name,
                policy.name(),
                judgement.verdict
            );
            if judgement.verdict != Verdict::Ok {
                problems.push(format!(
                    "{} under {}: {judgement:?}\n{said}",
                    scenario.name,
                    policy.name()
                ));
            }
            for (path, content) in &observed.files {
                if content.is_none() {
                    problems.push(format!(
                        "{}: expects a file {path} that never is",
                        scenario.name
                    ));
                }
            }
            first.get_or_insert(observed);
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n\n"));
}

/// What the scenarios check is checked: a wrong file, and they say so.
#[test]
fn a_scenario_notices_wrong_data() {
    Platform::Kvm.require();
    let scenario =
        scenario::find(&directory(), "d1-read").unwrap_or_else(|problem| panic!("{problem}"));
    let mut wrong = scenario.clone();
    for item in &mut wrong.root {
        if item.path.as_deref() == Some("/work/source") {
            item.content = scenario::Content::Generated {
                seed: 9,
                size: 16 << 10,
            };
        }
    }
    let (observed, said) = observe(&wrong, Platform::Kvm, CopyPolicy::Try);
    let judgement = scenario.expect.judge(&observed, None);
    assert_eq!(judgement.verdict, Verdict::WrongData, "{said}");
    assert!(judgement.detail.contains("is_generated"), "{judgement:?}");
}

#[test]
fn descriptions_are_told_apart() {
    let mut seen = BTreeMap::new();
    for scenario in all() {
        if let Some(other) = seen.insert(scenario.description.clone(), scenario.name.clone()) {
            panic!("{other} and {} have one description", scenario.name);
        }
    }
}
