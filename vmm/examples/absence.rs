//! A page that is absent when a server copies into it: a program runs once with all of its memory and once without
//! that page, and must not be able to tell.
//!
//!     cargo run -p absentia-vmm --example absence [PROGRAM [ARGUMENT]...]

use std::time::Duration;

use absentia_vmm::abi::trace::{Kind, Mode, Record};
use absentia_vmm::error::MachineError;
use absentia_vmm::inject::withdrawn::Withdrawals;
use absentia_vmm::inject::{Applied, Fault, Give, Layer, Side, Target, apply};
use absentia_vmm::lab::{Machine, Output, Stop, control};
use absentia_vmm::program::{DEFAULT, Program};

/// Nothing here takes longer.
const LIMIT: Duration = Duration::from_secs(60);

/// How a machine stopped, and what its program had written.
type End = (Stop, Output);

fn end(machine: &mut Machine) -> Result<End, MachineError> {
    Ok((machine.run(LIMIT)?, machine.output()))
}

/// What was made absent at the first copy after the program's start, and how it ends with and without.
pub fn absence(program: Program) -> Result<(Applied, [End; 2]), MachineError> {
    let setup = program.setup(0, [1, 2, 3, 4], control::traced(Mode::First, 0))?;
    let mut machine = Machine::boot(&setup)?;
    // To the program's first instruction.
    machine.run(LIMIT)?;
    let (started, boot) = (machine.snapshot()?, machine.records().len());
    let with = end(&mut machine)?;

    let mut records = machine.records()[boot..].iter();
    let copy = records.find(|record| record.kind() == Some(Kind::Copy));
    let point = copy.map_or(u64::MAX, Record::number);
    machine.restore(&started)?;
    machine.reach(point, LIMIT)?;
    let fault = Fault {
        point,
        target: Target::Side(Side::Target, 0),
        layer: Layer::Pte,
        give: Give::Asked,
    };
    let applied = apply(&mut machine, &Withdrawals::default(), &fault)?;
    Ok((applied, [with, end(&mut machine)?]))
}

fn main() -> anyhow::Result<()> {
    let mut program: Vec<_> = std::env::args_os().skip(1).collect();
    if program.is_empty() {
        program.push(DEFAULT.into());
    }
    let (applied, [with, without]) = absence(Program::new(program))?;
    println!("{applied:?}");
    println!("with it {:?}, without {:?}", with.0, without.0);
    let same = with == without && matches!(with.0, Stop::PowerOff { .. });
    println!("verdict: {}", if same { "ok" } else { "it can tell" });
    Ok(())
}
