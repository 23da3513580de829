//! Machines of the laboratory are put back to where they were and do the same again.

mod common;

use std::time::{Duration, Instant};

use abi::trace::Control;
use absentia_vmm::lab::{Machine, Setup, Stop};
use absentia_vmm::program::Program;
use common::Platform;

const LONG: Duration = Duration::from_secs(60);

fn setup(args: &[&str]) -> Setup {
    Platform::Kvm.require();
    let program = Program::new(args);
    program
        .setup(1_700_000_000_000_000_000, [1, 2, 3, 4], Control::OFF)
        .expect("a setup")
}

#[test]
fn a_program_runs_again() {
    let mut machine = Machine::boot(&setup(&["/bin/busybox", "echo", "hello"])).unwrap();
    assert_eq!(machine.run(LONG).unwrap(), Stop::Started);
    let t = Instant::now();
    let snapshot = machine.snapshot().unwrap();
    eprintln!("take {:?}", t.elapsed());
    for _ in 0..5 {
        let stop = machine.run(LONG).unwrap();
        eprintln!(
            "{stop:?} {:?}",
            String::from_utf8_lossy(&machine.output().stdout)
        );
        let t = Instant::now();
        let n = machine.restore(&snapshot).unwrap();
        eprintln!("restore {n} pages {:?}", t.elapsed());
    }
}
