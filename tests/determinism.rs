//! Runs that are the same every time, on KVM and under QEMU.

mod common;

use std::path::Path;

use abi::policy::CopyPolicy;
use absentia_vmm::deterministic::{self, Trail};
use absentia_vmm::explore::engine::{Event, Options};
use absentia_vmm::explore::qemu;
use absentia_vmm::explore::row::{Give, Layer, PointKind, Verdict};
use absentia_vmm::explore::run::Stage;
use absentia_vmm::explore::scenario::{self, Scenario};
use absentia_vmm::hostlink::input::Source;
use absentia_vmm::hostlink::output::Sink;
use absentia_vmm::machine::{Accelerator, Ending};
use absentia_vmm::program::{Program, Streams};

fn scenario() -> Scenario {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/scenarios");
    scenario::find(&directory, "d1-read").unwrap()
}

fn program(accelerator: Accelerator) -> Program {
    Program {
        accelerator: Some(accelerator),
        ..Program::new(["/bin/welcome"])
    }
}

fn trail(accelerator: Accelerator, seed: u64) -> (Trail, Vec<u8>) {
    let ((stdout, kept), (stderr, _)) = (Sink::capture(), Sink::capture());
    let streams = Streams {
        stdin: Source::Bytes(Vec::new()),
        stdout,
        stderr,
        terminals: 0,
        window: None,
        signals: None,
    };
    let run = deterministic::run(program(accelerator), streams, seed, None).unwrap();
    assert_eq!(run.outcome.ending, Ending::Program(0));
    let output = kept.lock().unwrap().clone();
    assert!(!output.is_empty());
    (run.trail.unwrap(), output)
}

#[test]
fn runs_on_kvm_are_equal() {
    let first = trail(Accelerator::Kvm, 1);
    assert!(first.0.records > 1000);
    (0..20).for_each(|_| assert_eq!(trail(Accelerator::Kvm, 1), first));
}

#[test]
fn runs_under_qemu_are_equal() {
    let first = trail(Accelerator::Qemu, 1);
    assert!(first.0.records > 1000);
    (0..9).for_each(|_| assert_eq!(trail(Accelerator::Qemu, 1), first));
}

#[test]
fn a_check_compares_two_runs() {
    for accelerator in [Accelerator::Kvm, Accelerator::Qemu] {
        let program = program(accelerator);
        let (run, difference) = deterministic::check([&program, &program], 7, |stdout, _| {
            assert!(!stdout.is_empty());
            Ok(())
        })
        .unwrap();
        assert!(difference.is_none(), "{}", difference.unwrap().what);
        assert!(run.trail.unwrap().records > 1000);
    }
}

/// Pipes, fork, exec, files, mappings and a death by signal: KVM and an emulator that has nothing in common with it do
/// the same. The program is freestanding, because a C library asks CPUID which copies to use, and hosts differ.
#[test]
fn kvm_and_qemu_have_one_hash() {
    let path = common::guest_program("one-answer");
    let on = |accelerator| Program {
        accelerator: Some(accelerator),
        ..Program::new([&path])
    };
    let pair = [Accelerator::Kvm, Accelerator::Qemu].map(on);
    let mut output = Vec::new();
    let (run, difference) = deterministic::check([&pair[0], &pair[1]], 3, |stdout, _| {
        output.extend_from_slice(stdout);
        Ok(())
    })
    .unwrap();
    assert_eq!(difference.map(|difference| difference.what), None);
    let status = libc::SIGUSR1 as u32;
    assert_eq!(run.outcome.ending, Ending::Program(status));
    assert_eq!(output, b"executed\nread back\n");
    assert!(run.trail.unwrap().records > 1000);
}

/// Another working directory, another run.
#[test]
fn a_difference_is_told() {
    let other = Program {
        cwd: "/bin".into(),
        ..program(Accelerator::Kvm)
    };
    let programs = [&program(Accelerator::Kvm), &other];
    let (_, difference) = deterministic::check(programs, 3, |_, _| Ok(())).unwrap();
    let what = difference.unwrap().what;
    assert!(
        what.starts_with("record ") && what.contains("then"),
        "{what}"
    );
}

/// The verdicts of D1 with every page of every point, under QEMU.
fn explored(policy: CopyPolicy) -> Vec<Verdict> {
    let (scenario, cache) = (scenario(), scenario::root::cache());
    let stage = Stage {
        scenario: &scenario,
        policy,
        gate: None,
        sabotage: String::new(),
        cache: &cache,
        emulated: true,
        allocations: false,
    };
    let options = Options {
        layers: vec![Layer::Pte],
        kinds: PointKind::PAGES.to_vec(),
        at: Vec::new(),
        pages: None,
        give: Give::Asked,
        pairs: 0,
        schedules: 0,
        deviations: 0,
        seed: 1,
        jobs: 1,
        limit: None,
        shard: (0, 1),
    };
    let mut verdicts = Vec::new();
    qemu::campaign(&stage, &options, |event| {
        if let Event::Row(row) = event {
            eprintln!("{} {} {}", row.token, row.verdict, row.detail);
            if row.verdict == Verdict::Deadlock {
                assert!(!row.cycle.is_empty());
            }
            verdicts.push(row.verdict);
        }
        Ok(())
    })
    .unwrap();
    verdicts
}

#[test]
fn the_kernel_itself_makes_pages_absent_and_try_survives() {
    let verdicts = explored(CopyPolicy::Try);
    assert!(!verdicts.is_empty());
    assert!(verdicts.iter().all(|verdict| !verdict.is_violation()));
}

#[test]
fn the_kernel_itself_makes_pages_absent_and_transparent_deadlocks() {
    assert!(explored(CopyPolicy::Transparent).contains(&Verdict::Deadlock));
}
