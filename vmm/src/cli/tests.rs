use std::ffi::OsString;
use std::time::Duration;

use clap::{CommandFactory, Parser};

use super::{Arguments, Command};
use crate::kvm::gate::Gate;
use crate::machine::Accelerator;

fn run(arguments: &[&str]) -> super::run::Run {
    let all = ["absentia", "run"].iter().chain(arguments);
    match Arguments::try_parse_from(all).unwrap().command {
        Command::Run(run) => run,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_definition_is_consistent() {
    Arguments::command().debug_assert();
}

#[test]
fn options_end_where_the_program_begins() {
    let parsed = run(&["--mem", "64M", "/bin/sh", "-c", "--verbose"]);
    assert_eq!(parsed.mem, 64 << 20);
    assert!(!parsed.verbose);
    assert_eq!(
        parsed.program,
        ["/bin/sh", "-c", "--verbose"].map(OsString::from)
    );
    let parsed = run(&["--verbose", "--", "--odd-name", "--", "x"]);
    assert!(parsed.verbose);
    assert_eq!(
        parsed.program,
        ["--odd-name", "--", "x"].map(OsString::from)
    );
}

#[test]
fn everything_can_be_said() {
    let parsed = run(&[
        "--root",
        "/srv/root",
        "--timeout",
        "2.5",
        "--accel",
        "qemu",
        "--gate",
        "direct",
        "--env",
        "A=b=c",
        "--env",
        "D=",
        "--cwd",
        "/tmp",
        "--qemu-arg=-icount",
        "--qemu-arg",
        "shift=0",
        "x",
    ]);
    assert_eq!(parsed.timeout, Some(Duration::from_millis(2500)));
    assert_eq!(parsed.accel, Some(Accelerator::Qemu));
    assert_eq!(parsed.gate, Some(Gate::Direct));
    assert_eq!(parsed.env, ["A=b=c", "D="].map(OsString::from));
    assert_eq!(parsed.qemu_arg, ["-icount", "shift=0"]);
}

#[test]
fn nonsense_is_refused() {
    for bad in [
        &["--mem", "lots"][..],
        &["--timeout", "-1"],
        &["--timeout", "NaN"],
        &["--env", "novalue"],
        &["--accel", "xen"],
        &["--copy-policy", "hope"],
        &["--unknown"],
    ] {
        let all = ["absentia", "run"].iter().chain(bad);
        assert!(Arguments::try_parse_from(all).is_err(), "{bad:?}");
    }
}

#[test]
fn a_report_that_cannot_be_written_is_refused_before_the_campaign() {
    let all = [
        "absentia",
        "explore",
        "d1-read",
        "--report",
        "/proc/nowhere",
    ];
    let Command::Explore(explore) = Arguments::try_parse_from(all).unwrap().command else {
        panic!("{all:?}");
    };
    let error = format!("{:#}", explore.execute().unwrap_err());
    assert!(
        error.starts_with("the report directory /proc/nowhere: "),
        "{error}"
    );
}
