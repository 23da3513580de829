//! The VMM as others use it: its example, and what its errors are.

mod common;

#[allow(dead_code)]
#[path = "../vmm/examples/absence.rs"]
mod absence;

use std::error::Error;
use std::path::Path;

use absentia_vmm::MachineError;
use absentia_vmm::abi::trace::Control;
use absentia_vmm::inject::Applied;
use absentia_vmm::lab::{Machine, Stop};
use absentia_vmm::machine::Accelerator;
use absentia_vmm::program::{DEFAULT, Program};
use common::Platform;

#[test]
fn the_example_makes_a_page_absent_and_the_program_cannot_tell() {
    Platform::Kvm.require();
    let (applied, [with, without]) = absence::absence(Program::new([DEFAULT])).expect("a machine");
    assert!(matches!(applied, Applied::Done { .. }), "{applied:?}");
    let ended = |stop: &Stop| {
        matches!(
            stop,
            Stop::PowerOff {
                program: Some(0),
                ..
            }
        )
    };
    assert!(ended(&with.0), "{with:?}");
    assert!(with.1.stdout.starts_with(b"This is Absentia"), "{with:?}");
    assert_eq!(with, without);
}

fn refused(program: Program) -> MachineError {
    let refused = program.capture(b"");
    refused.expect_err("it is to be refused")
}

#[test]
fn what_is_wrong_with_a_configuration_has_its_kind() {
    let on_kvm = |program: Program| Program {
        accelerator: Some(Accelerator::Kvm),
        ..program
    };
    let nobody = refused(on_kvm(Program::new(["/nonexistent/program"])));
    assert!(matches!(nobody, MachineError::Program(_)), "{nobody:?}");
    assert_eq!(nobody.code(), 127);
    assert!(nobody.to_string().contains("/nonexistent/program"));

    let mut small = on_kvm(Program::new([DEFAULT]));
    small.memory = 4096;
    let small = refused(small);
    assert!(matches!(small, MachineError::Memory(_)), "{small:?}");
    assert!(small.to_string().contains("16 MiB"), "{small}");
    assert!(small.source().is_some());

    let mut root = on_kvm(Program::new::<&str>([]));
    root.root = Some(Path::new("/").into());
    let contradiction = refused(root.clone());
    assert!(
        matches!(contradiction, MachineError::Configuration(_)),
        "{contradiction:?}"
    );
    root.args = vec![DEFAULT.into()];
    root.root = Some(Path::new("/nonexistent/root").into());
    let disk = refused(root);
    assert!(matches!(disk, MachineError::Disk(_)), "{disk:?}");

    let long = Program {
        cmdline: "word ".repeat(4096),
        ..on_kvm(Program::new([DEFAULT]))
    };
    let images = refused(long);
    assert!(matches!(images, MachineError::Images(_)), "{images:?}");
}

/// A machine that has not begun has no process table: nothing of it can be made absent.
#[test]
fn a_machine_that_is_not_there_yet_says_so() {
    Platform::Kvm.require();
    let setup = Program::new([DEFAULT]).setup(0, [1; 4], Control::OFF);
    let mut machine = Machine::boot(&setup.expect("a setup")).expect("a machine");
    let early = absentia_vmm::inject::apply::pages(&mut machine, |_| true).unwrap_err();
    assert!(matches!(early, MachineError::State(_)), "{early:?}");
    assert!(early.to_string().contains("boot another"));
}
