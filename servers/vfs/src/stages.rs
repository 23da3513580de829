//! Where an exec's time goes, by stage and by service. Off unless somebody measures.
//!
//! One exec at a time is traced: what others do meanwhile is counted as its own.

use crate::machine::{Machine, SERVICE_SLOTS, Sample};
use abi::Endpoint;
use alloc::string::String;
use core::cell::{Cell, RefCell};
use core::fmt::Write;

/// The stages, in their order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Path, arguments and environment are copied in, and the file is found.
    Lookup,
    /// Permissions, the first page of the file, the plan, the initial stack.
    Plan,
    /// The old program's memory goes.
    Clear,
    /// The file's contents and the zero memory behind them come.
    Fill,
    /// The stack's memory, its contents, the heap's start.
    Stack,
    /// Descriptors close, PM is told.
    Finish,
}

const STAGES: [(Stage, &str); 6] = [
    (Stage::Lookup, "lookup"),
    (Stage::Plan, "plan"),
    (Stage::Clear, "clear"),
    (Stage::Fill, "fill"),
    (Stage::Stack, "stack"),
    (Stage::Finish, "finish"),
];

/// What a stage took, ns.
#[derive(Clone, Copy, Default)]
struct Spent {
    time: u64,
    used: [u64; SERVICE_SLOTS],
    idle: u64,
}

#[derive(Default)]
struct Record {
    stages: [Spent; STAGES.len()],
    /// The stage that is on, and how things were when it began.
    open: Option<(Stage, Sample)>,
}

/// The trace of the last exec.
#[derive(Default)]
pub struct Trace {
    on: Cell<bool>,
    record: RefCell<Record>,
}

impl Trace {
    /// Traces from now on, or not.
    pub fn set(&self, on: bool) {
        self.on.set(on);
        *self.record.borrow_mut() = Record::default();
    }

    /// Whether somebody looks.
    pub fn is_on(&self) -> bool {
        self.on.get()
    }

    /// Whether this stage is on.
    pub fn is_at(&self, stage: Stage) -> bool {
        let open = self.record.borrow().open;
        open.is_some_and(|(on, _)| on == stage)
    }

    /// An exec begins.
    pub fn begin(&self, machine: &dyn Machine) {
        if self.on.get() {
            *self.record.borrow_mut() = Record::default();
            self.enter(machine, Stage::Lookup);
        }
    }

    /// A stage begins, or goes on, and the one before ends. What looking costs belongs to
    /// neither.
    pub fn enter(&self, machine: &dyn Machine, stage: Stage) {
        self.change(machine, Some(stage));
    }

    /// The exec is done.
    pub fn end(&self, machine: &dyn Machine) {
        self.change(machine, None);
    }

    fn change(&self, machine: &dyn Machine, next: Option<Stage>) {
        if !self.on.get() {
            return;
        }
        let mut record = self.record.borrow_mut();
        if record.open.map(|(stage, _)| stage) == next {
            return;
        }
        if let Some((stage, from)) = record.open.take() {
            let to = machine.sample();
            let spent = &mut record.stages[stage as usize];
            spent.time += to.before.saturating_sub(from.after);
            spent.idle += to.idle.saturating_sub(from.idle);
            for (slot, used) in spent.used.iter_mut().enumerate() {
                *used += to.used[slot].saturating_sub(from.used[slot]);
            }
        }
        record.open = next.map(|stage| (stage, machine.sample()));
    }

    /// The trace as text ([`abi::proto::vfs::ExecTrace`]).
    pub fn text(&self, machine: &dyn Machine) -> String {
        let record = self.record.borrow();
        let mut text = String::new();
        for (stage, name) in STAGES {
            let spent = &record.stages[stage as usize];
            let _ = write!(text, "{name} {}", spent.time);
            // A process's own time is known only when it stops running, and VFS runs whenever
            // somebody looks: it has what the others leave.
            let mut own = spent.time.saturating_sub(spent.idle);
            for (slot, &used) in spent.used.iter().enumerate() {
                if slot == Endpoint::VFS.slot() || used == 0 {
                    continue;
                }
                own = own.saturating_sub(used);
                let name = machine.process_name(slot);
                let len = name.iter().position(|&b| b == 0).unwrap_or(name.len());
                let name = String::from_utf8_lossy(&name[..len]);
                let _ = write!(text, " {name}={used}");
            }
            let _ = writeln!(text, " vfs={own} idle={}", spent.idle);
        }
        text
    }
}
