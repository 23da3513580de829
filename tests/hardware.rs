//! Hardware virtualization: on a machine that has it (`common/hardware.rs`) the one file does what it does here, and
//! tests that run here pass there. Which processor it is does not matter, and one that lacks what is needed is refused
//! in a line.
//!
//! The quick suite does a selection. All of it is part of README's command for what takes long.
//!
//! Why so: docs/decisions/023-hardware.md.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use absentia_vmm::explore::scenario;
use common::hardware::{self, Done, PROCESSOR, Step};
use common::{Platform, built, guest_program, judge};

const ABSENTIA: &str = env!("CARGO_BIN_EXE_absentia");
/// To a program's first instruction, seconds.
const BOOT: f64 = 2.0;

/// Whether that part of the whole is to run: all of them, unless ABSENTIA_PART has a word of the names of some.
fn wanted(name: &str) -> bool {
    let part = std::env::var("ABSENTIA_PART").unwrap_or_default();
    if !name.contains(&part) {
        println!("left out: {name}, which has no {part} in its name (ABSENTIA_PART)");
    }
    name.contains(&part)
}

/// The command with such arguments, words of a shell.
fn step(name: &str, seconds: u64, arguments: &str) -> Step {
    Step::new(name, seconds, &format!("{ABSENTIA} {arguments}"))
}

/// The same here; its streams together.
fn here(arguments: &str) -> String {
    let output = Command::new("sh")
        .args(["-c", &format!("{ABSENTIA} {arguments} 2>&1")])
        .stdin(Stdio::null())
        .output()
        .expect("sh");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{arguments}: {said}");
    said
}

/// Without what the command says of the host's sandbox, which is older there.
fn plain(said: &str) -> String {
    let lines = said.lines().filter(|line| !line.contains(" sandbox: "));
    lines
        .flat_map(|line| [line.trim_end(), "\n"])
        .collect::<String>()
        .trim()
        .into()
}

fn find<'a>(done: &'a [Done], name: &str) -> &'a Done {
    let found = done.iter().find(|done| done.name == name);
    found.unwrap_or_else(|| panic!("no step {name}"))
}

/// The words behind "trace:" of a run with `--verbose`.
fn trace(said: &str) -> &str {
    let found = said
        .lines()
        .rev()
        .find_map(|line| line.split_once("trace: "));
    found.unwrap_or_else(|| panic!("no trace: {said}")).1.trim()
}

fn program(name: &str) -> String {
    let path = guest_program(name);
    path.canonicalize()
        .expect("a program")
        .display()
        .to_string()
}

/// What a program prints on this host's Linux.
fn linux(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .expect("a program");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_one_file_does_there_what_it_does_here() {
    let (wide, answer) = (program("wide"), program("one-answer"));
    // A page of a copy absent in each way, and a deadlock: what happens, and the hash of the whole run.
    let tokens = [
        "d1-read@try+copy/ext2/read/source/1.t0.pte",
        "d1-read@try+copy/ext2/read/source/1.t0.slot",
        "d1-read@try+copy/ext2/read/source/1.t0.read-only",
        "d1-read@transparent+copy/ext2/read/source/1.t0.pte",
        "two-repairs@try~p:3",
    ];
    // The status says whether it was well.
    let replay = |token: &str| format!("replay '{token}' 2>&1; echo status $?");
    let hash =
        |more: &str| format!("run --deterministic --verbose {more} -- {answer} 2>&1 | tail -20");
    let mut steps = vec![
        step("doctor", 60, "doctor"),
        step("dynamic", 60, "run -- /bin/ls -l /"),
        step("wide", 60, &format!("run -- {wide} 50")),
        step(
            "wide, deprivileged",
            60,
            &format!("run --gate deprivileged -- {wide} 50"),
        ),
        step("hash", 60, &hash("")),
        step("hash, deprivileged", 60, &hash("--gate deprivileged")),
        step(
            "check",
            60,
            &format!("run --check-determinism -- {answer}; test $? = 138"),
        ),
        step("ipc", 60, "bench ipc"),
        step("demo", 120, "demo"),
        step(
            "schedules",
            120,
            "explore two-repairs --policy try --kinds copy --schedules 12 --deviations 4 --limit 20",
        ),
    ];
    // What has no end is ended, and the others have their turn.
    steps.push(Step::new("endless", 2, "echo begun; while :; do :; done"));
    steps.extend((0..3).map(|_| step("boot", 30, "run --verbose -- /bin/busybox true")));
    steps.extend(tokens.map(|token| step(token, 60, &replay(token))));
    let done = hardware::run(PROCESSOR, &steps);
    let said = |name: &str| find(&done, name).said();

    for line in [
        "KVM with hardware virtualization (SVM)",
        "gate      direct: ",
        "run       works: under KVM",
    ] {
        assert!(said("doctor").contains(line), "{line}: {}", said("doctor"));
    }
    assert!(
        said("dynamic").contains("lost+found"),
        "{}",
        said("dynamic")
    );
    let expected = linux(&wide, &["50"]);
    assert!(expected.contains("switches: kept"), "{expected}");
    for name in ["wide", "wide, deprivileged"] {
        assert_eq!(plain(said(name)), expected.trim(), "{name}");
    }
    // One hash on all platforms, with either gate.
    let on = |accelerator: &str| {
        let said = here(&hash(accelerator));
        trace(&said).to_string()
    };
    let (kvm, qemu) = (on("--accel kvm"), on("--accel qemu"));
    assert_eq!(kvm, qemu);
    for name in ["hash", "hash, deprivileged"] {
        assert_eq!(trace(said(name)), kvm, "{name}");
    }
    let endless = find(&done, "endless");
    assert_eq!((endless.status, endless.said.trim()), (124, "begun"));
    said("check");
    for row in ["null", "call", "safecopy-64", "linux-null"] {
        assert!(said("ipc").contains(row), "{}", said("ipc"));
    }
    let demo = said("demo");
    assert!(demo.contains(" deadlock") && demo.contains(" ok"), "{demo}");
    assert!(said("schedules").contains(" ok"), "{}", said("schedules"));
    let started = |done: &Done| {
        let line = done
            .said()
            .lines()
            .find_map(|line| line.split_once("] program started after "));
        let time = line.unwrap_or_else(|| panic!("{}", done.said)).1;
        let time = time.split(':').next().expect("a time");
        let number = |unit| time.strip_suffix(unit)?.parse::<f64>().ok();
        number("ms")
            .map(|ms| ms / 1e3)
            .or(number("s"))
            .unwrap_or_else(|| panic!("{time}"))
    };
    let boots = done.iter().filter(|done| done.name == "boot").map(started);
    let boot = boots.fold(f64::MAX, f64::min);
    // Another's load is not ours.
    let boot = boot * done[0].share;
    println!("{boot:.2} s to a program's first instruction");
    assert!(boot <= BOOT, "{boot} s to a program's first instruction");
    for token in tokens {
        assert_eq!(plain(said(token)), plain(&here(&replay(token))), "{token}");
    }
}

/// Tests that run here as well: the program that has them, their names.
const SELECTED: &[(&str, &[&str])] = &[
    (
        "footprint",
        &["a_machine_is_small_whatever_memory_it_may_have"],
    ),
    (
        "translations",
        &["no_translation_outlives_what_it_came_from"],
    ),
    (
        "machine",
        &[
            "a_triple_fault_is_told_with_registers",
            "wild_accesses_are_harmless_and_named_once",
        ],
    ),
    (
        "programs",
        &[
            "signals_under_kvm",
            "memory_under_kvm",
            "futexes_under_kvm",
            "streams_and_environment",
        ],
    ),
    (
        "snapshots",
        &[
            "translations_are_forgotten",
            "pages_can_be_taken_away_and_are_missed",
        ],
    ),
    (
        "explore",
        &[
            "d1_read_is_well_under_try_in_every_layer",
            "d1_read_deadlocks_without_try",
        ],
    ),
    ("gdb", &["gdb_itself"]),
];

/// Test programs all of whose tests are run there with ABSENTIA_ALL=1, but for those with such words in their names.
/// Those of QEMU run here, as does what measures the host. Snapshots of every few milliseconds, each played to the end, are
/// many on a slow machine.
const WHOLE: &[(&str, &[&str])] = &[
    ("lab", &[]),
    ("modify", &[]),
    ("translations", &[]),
    ("rows", &["qemu"]),
    ("deadlocks", &["qemu"]),
    ("gdb", &[]),
    (
        "determinism",
        &["qemu", "a_check_compares", "the_kernel_itself"],
    ),
    (
        "snapshots",
        &[
            "any_moment",
            "what_a_restore_costs",
            "system_calls",
            "another_machine",
            "wide_registers",
        ],
    ),
    // What the emulated processor does in another way: single steps, and code of 32 bits.
    ("programs", &["qemu", "forbidden", "stepped"]),
];

/// Programs that are compared with Linux: with this host's, whose version is newer and whose processor is real.
const JUDGED: &str = "programs";

#[test]
fn whole_test_programs_pass_there() {
    if !common::all() {
        return;
    }
    Platform::Kvm.require();
    compile();
    let judge = Path::new(env!("CARGO_TARGET_TMPDIR")).join("judge");
    let steps = WHOLE.iter().filter(|(name, _)| wanted(name));
    let steps = steps.map(|(name, without)| {
        let path = built::newest(name).canonicalize().expect("a test program");
        let skips: String = without
            .iter()
            .map(|word| format!(" --skip {word}"))
            .collect();
        let command = format!("{} --test-threads 1{skips}", path.display());
        if *name != JUDGED {
            return Step::new(name, 1800, &command);
        }
        let command = format!("{}='{}' {command}", judge::VARIABLE, judge.display());
        let _ = std::fs::remove_dir_all(&judge);
        std::fs::create_dir(&judge).expect("a directory");
        // With which gate does not matter to Linux, and takes long on a host that interprets the one.
        let here = format!("{command} --skip direct");
        let here = Command::new("sh").args(["-c", &here]).output();
        let here = here.expect("sh");
        assert!(
            here.status.success(),
            "{}",
            String::from_utf8_lossy(&here.stdout)
        );
        Step::new(name, 1800, &command)
    });
    let steps: Vec<Step> = steps.collect();
    // A machine for each, which are not always quick.
    for done in steps
        .chunks(1)
        .flat_map(|steps| hardware::run(PROCESSOR, steps))
    {
        let said = done.said();
        assert!(
            said.contains("test result: ok. ") && !said.contains(" ok. 0 passed"),
            "{said}"
        );
    }
}

/// Makes here what takes a compiler.
fn compile() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests");
    let sources = std::fs::read_dir(tests.join("guest")).expect("programs");
    for source in sources {
        let path = source.expect("a source").path();
        let is_program = path.extension().is_some_and(|e| e == "c" || e == "rs");
        if let Some(name) = path
            .file_stem()
            .and_then(|name| name.to_str())
            .filter(|_| is_program)
        {
            guest_program(name);
        }
    }
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("scenarios");
    let directory = tests.join("scenarios");
    for name in scenario::names(&directory) {
        let scenario =
            scenario::find(&directory, &name).unwrap_or_else(|problem| panic!("{problem}"));
        scenario
            .image(&cache)
            .unwrap_or_else(|problem| panic!("{name}: {problem:#}"));
    }
}

/// A step that runs tests of the newest program that has the first of them.
fn tests(name: &str, tests: &[&str], seconds: u64) -> Step {
    let path: PathBuf = built::program(name, tests[0]);
    let path = path.canonicalize().expect("a test program");
    let tests = tests.join(" ");
    Step::new(
        &format!("{name}: {tests}"),
        seconds,
        &format!(
            "{} --exact {tests} --test-threads 1 --nocapture",
            path.display()
        ),
    )
}

#[test]
fn tests_that_run_here_pass_there() {
    Platform::Kvm.require();
    compile();
    let steps: Vec<Step> = SELECTED
        .iter()
        .map(|(name, list)| tests(name, list, 200))
        .collect();
    let done = hardware::run(PROCESSOR, &steps);
    for (done, (name, list)) in done.iter().zip(SELECTED) {
        let passed = format!("test result: ok. {} passed", list.len());
        assert!(done.said().contains(&passed), "{name}: {}", done.said);
    }
}

/// What the last line of a run is that does not begin, where it is the only one.
fn refused(said: &str, lacks: &str) {
    let said = plain(said);
    assert!(
        said.contains(&format!(" {lacks}, which the guest's kernel needs")),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
}

/// Processors of other makes and years, and one that lacks something. NX and 64-bit mode are what Linux itself, and its
/// KVM, need.
#[test]
fn any_processor_will_do_unless_it_lacks_something() {
    let answer = program("one-answer");
    let run = [
        step("run", 60, &format!("run -- {answer}; test $? = 138")),
        step(
            "hash",
            60,
            &format!("run --deterministic --verbose -- {answer} 2>&1 | tail -20"),
        ),
    ];
    let expected = here(&format!(
        "run --deterministic --verbose -- {answer} 2>&1 | tail -20"
    ));
    let mut models = vec![
        "EPYC,+svm,+npt",
        "max,+svm,+npt,-avx,-avx2,-fma,-f16c,-erms",
    ];
    if common::all() {
        models.extend([
            "Haswell,vendor=AuthenticAMD,+svm,+npt",
            "EPYC-Milan,+svm,+npt",
            "Westmere,+xsave,+xsaveopt,+fsgsbase,vendor=AuthenticAMD,+svm,+npt",
        ]);
    }
    for model in models.into_iter().filter(|model| wanted(model)) {
        let done = hardware::run(model, &run);
        assert!(find(&done, "run").said().contains("read back"), "{model}");
        assert_eq!(
            trace(find(&done, "hash").said()),
            trace(&expected),
            "{model}"
        );
    }
    let refusal = Step::new("run", 60, &format!("{ABSENTIA} run; test $? = 125"));
    let lacking: &[&str] = if common::all() {
        &["xsave", "fsgsbase"]
    } else {
        &["fsgsbase"]
    };
    for lacks in lacking {
        let done = hardware::run(
            &format!("{PROCESSOR},-{lacks}"),
            std::slice::from_ref(&refusal),
        );
        refused(done[0].said(), &lacks.to_uppercase());
    }
}

fn under_qemu(processor: &str, arguments: &[&str]) -> Output {
    Command::new(ABSENTIA)
        .args([
            "run",
            "--accel",
            "qemu",
            "--timeout",
            "60",
            "--qemu-arg=-cpu",
        ])
        .arg(format!("--qemu-arg={processor}"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the command")
}

/// Without what QEMU itself says of a model that it does not know all of.
fn without_warnings(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let lines = text.lines().filter(|line| !line.contains("warning: TCG "));
    lines.flat_map(|line| [line, "\n"]).collect()
}

#[test]
fn any_processor_will_do_under_qemu_unless_it_lacks_something() {
    Platform::Qemu.require();
    let answer = program("one-answer");
    let mut hashes = Vec::new();
    for model in [
        "max",
        "EPYC",
        "Icelake-Server",
        "Haswell",
        "max,-avx,-avx2,-erms,-fsrm",
        "Westmere,+xsave,+xsaveopt,+fsgsbase",
    ] {
        let output = under_qemu(model, &["--deterministic", "--verbose", "--", &answer]);
        assert_eq!(output.status.code(), Some(138), "{model}: {output:?}");
        hashes.push(trace(&String::from_utf8_lossy(&output.stderr)).to_string());
    }
    hashes.dedup();
    assert_eq!(hashes.len(), 1, "{hashes:?}");
    for (model, lacks) in [
        ("max,-xsave", "XSAVE"),
        ("qemu64", "XSAVE"),
        ("max,-fsgsbase", "FSGSBASE"),
        ("SandyBridge", "FSGSBASE"),
        ("max,-nx", "NX"),
        ("max,-lm", "64-bit mode"),
        ("qemu32", "64-bit mode"),
    ] {
        let output = under_qemu(model, &[]);
        assert_eq!(output.status.code(), Some(125), "{model}: {output:?}");
        refused(&without_warnings(&output), lacks);
    }
}

/// A scenario whose runs are twenty times as long as others'.
const LONG: &str = "requests-many";

/// Every scenario in every layer, in other orders as well.
#[test]
fn every_scenario_is_well_there() {
    if !common::all() {
        return;
    }
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/scenarios");
    let names = scenario::names(&directory);
    assert!(names.len() >= 12);
    let steps: Vec<Step> = names
        .iter()
        .filter(|name| wanted(name))
        .map(|name| {
            let limit = if name == LONG { 20 } else { 400 };
            println!("{name}: {limit} runs at most");
            step(
                name,
                900,
                &format!("explore {name} --policy try --layer pte --layer slot --layer read-only --schedules 4 --limit {limit} 2>&1 | tail -40"),
            )
        })
        .collect();
    // A machine for each: disks that are made stay in its memory.
    let machines = steps.chunks(1);
    for done in machines.flat_map(|steps| hardware::run(PROCESSOR, steps)) {
        let said = done.said();
        let last = said.trim().lines().last().unwrap_or_default();
        // Policy, points, runs, and as many that are well.
        let words: Vec<&str> = last.split_whitespace().collect();
        assert!(
            words.len() == 5 && words[3] == words[4],
            "{}: {said}",
            done.name
        );
    }
}
