//! A machine of the laboratory.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use abi::trace::{Control, Record, WITHDRAWN_COMES};
use anyhow::{Context, Result, bail};
use kvm_bindings::{kvm_regs, kvm_sregs};
use kvm_ioctls::Kvm;

use super::control::{self, Trace};
use super::watchdog::Watchdog;
use super::{Absences, GiveBack};
use crate::board::{Board, Completion, Drive, Interrupts, Plan, Step};
use crate::boot::Windows;
use crate::control::{Reason, Stop as StopRequest, install_kick};
use crate::devices::bus::lock;
use crate::devices::disk::{Backing, Overlay};
use crate::devices::lab::Request;
use crate::ending::DIED;
use crate::error::{About, MachineError};
use crate::hostlink::input::Input;
use crate::hostlink::output::Sink;
use crate::images::Archive;
use crate::inspect::table;
use crate::kvm::Vm;
use crate::kvm::exits::Counts;
use crate::kvm::gate::{Cpl0, Gate};
use crate::kvm::state::saved_msrs;
use crate::kvm::vcpu::Death;
use crate::log::{KEPT, Log};
use crate::memory::GuestRam;
use crate::snapshot::memory::Tracker;
use crate::snapshot::tape::Tape;

mod save;

pub use save::Snapshot;

/// Exits that completing one exit may bring: an instruction with `rep` has as many as it has
/// elements, of which KVM does this many at most before it looks up.
const COMPLETIONS: usize = 1 << 12;

/// How often a machine that is to stop is let run a little further, because it could not be
/// saved where it is.
const ATTEMPTS: usize = 100;

/// Everything a machine needs. The same setup makes the same machine any number of times.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The kernel's ELF file.
    pub kernel: Cow<'static, [u8]>,
    /// What travels with it.
    pub archive: Archive,
    /// Added to the kernel's command line.
    pub cmdline: String,
    /// Guest RAM, bytes.
    pub memory: u64,
    /// The root disk. It is not changed.
    pub disk: Option<Overlay>,
    /// The gate, when it is not to be measured.
    pub gate: Option<Gate>,
    /// The VMM's half of the kernel's control, from the first process on.
    pub control: Control,
    /// The log.
    pub log: Arc<Log>,
}

impl Setup {
    /// The same for another machine, with a log of its own.
    pub fn again(&self) -> Setup {
        Setup {
            log: Arc::new(Log::new(self.log.verbose(), KEPT)),
            ..self.clone()
        }
    }
}

/// Why a machine stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The program's first instruction is about to run.
    Started,
    /// The point of this number is reached, and nothing after it happened.
    Point(u64),
    /// Nobody can run.
    Stuck,
    /// The guest powered off.
    PowerOff {
        /// The status it powered off with.
        status: u64,
        /// The program's status word (as wait4 reports it), when it ended before.
        program: Option<u32>,
    },
    /// The guest cannot go on; why, with registers.
    Died(String),
    /// It ran for as long as it may.
    Hang,
}

/// What the program wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// To standard output.
    pub stdout: Vec<u8>,
    /// To standard error.
    pub stderr: Vec<u8>,
}

/// What the VMM knows of a machine beside its state.
#[derive(Clone, Debug, Default)]
struct Host {
    control: Option<u64>,
    seen: u64,
    lost: u64,
    ended: Option<Stop>,
    /// Doorbells that came while an exit was completed.
    pending: Vec<Request>,
    stop: Option<Reason>,
}

/// A captured stream and the part of it that snapshots share.
#[derive(Debug)]
struct Stream {
    bytes: Arc<Mutex<Vec<u8>>>,
    tape: Tape<u8>,
}

impl Stream {
    fn new() -> (Sink, Stream) {
        let (sink, bytes) = Sink::capture();
        let tape = Tape::default();
        (sink, Stream { bytes, tape })
    }

    fn lock(bytes: &Mutex<Vec<u8>>) -> MutexGuard<'_, Vec<u8>> {
        bytes
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn bytes(&self) -> Vec<u8> {
        Stream::lock(&self.bytes).clone()
    }

    fn mark(&mut self) -> Tape<u8> {
        self.tape.mark(&Stream::lock(&self.bytes))
    }

    fn rewind(&mut self, to: &Tape<u8>) {
        self.tape.rewind(&mut Stream::lock(&self.bytes), to);
    }
}

/// See the module. The fields are dropped in this order: the vCPU before the RAM it runs on.
pub struct Machine {
    board: Board,
    vm: Vm,
    ram: GuestRam,
    /// What happens where pages are absent.
    pub absences: Box<dyn Absences>,
    request: Arc<StopRequest>,
    memory: Tracker,
    msrs: Vec<u32>,
    /// The VMM's half of the control.
    wanted: Control,
    host: Host,
    trace: Trace,
    records: Tape<Record>,
    stdout: Stream,
    stderr: Stream,
    /// The vCPU is between two instructions.
    settled: bool,
    /// And nothing is pending that KVM does not tell.
    savable: bool,
}

impl Machine {
    /// A machine that is about to run its first instruction. What its program writes is kept.
    pub fn boot(setup: &Setup) -> Result<Machine, MachineError> {
        Machine::assemble(setup, Stream::new(), Stream::new()).about(MachineError::Host)
    }

    /// Likewise; what its program writes goes to these sinks as it comes, and is not put back
    /// with the machine.
    pub fn boot_to(setup: &Setup, stdout: Sink, stderr: Sink) -> Result<Machine, MachineError> {
        let (_, kept) = Stream::new();
        let (_, kept_errors) = Stream::new();
        Machine::assemble(setup, (stdout, kept), (stderr, kept_errors)).about(MachineError::Host)
    }

    fn assemble(setup: &Setup, stdout: (Sink, Stream), stderr: (Sink, Stream)) -> Result<Machine> {
        install_kick()?;
        let kvm = Kvm::new()
            .context("opening /dev/kvm")
            .about(MachineError::Kvm)?;
        let gate = match setup.gate {
            Some(gate) => gate,
            None => Cpl0::of_host(&kvm).about(MachineError::Kvm)?.gate(),
        };
        let ram = GuestRam::with_slot(setup.memory).about(MachineError::Memory)?;
        let vm = Vm::new(&kvm, &ram).about(MachineError::Kvm)?;
        let request = StopRequest::new()?;
        let ((out, stdout), (err, stderr)) = (stdout, stderr);
        let plan = Plan {
            kernel: &setup.kernel,
            archive: &setup.archive,
            cmdline: &setup.cmdline,
            gate,
            disk: setup.disk.clone().map(|disk| Drive {
                backing: disk.into(),
                read_only: false,
            }),
            windows: Windows::MICROVM,
            interrupts: Interrupts::Lines,
            stdout: out,
            stderr: err,
            // Nothing ever feeds it.
            input: Input::new()?,
            stop: request.clone(),
            log: setup.log.clone(),
        };
        let memory = Tracker::new(&ram);
        Ok(Machine {
            board: Board::new(&vm, &ram, plan)?,
            vm,
            ram,
            absences: Box::new(GiveBack),
            request,
            memory,
            msrs: saved_msrs(&kvm).about(MachineError::Kvm)?,
            wanted: setup.control,
            host: Host::default(),
            trace: Trace::default(),
            records: Tape::default(),
            stdout,
            stderr,
            settled: true,
            savable: true,
        })
    }

    /// Runs until the guest stops, for `limit` of this thread's time at most. A machine that has ended stays as
    /// it is and says the same again.
    pub fn run(&mut self, limit: Duration) -> Result<Stop, MachineError> {
        let watchdog = Watchdog::new(limit).about(MachineError::Host)?;
        let stop = self.run_to_stop(&watchdog).about(MachineError::State)?;
        if matches!(stop, Stop::PowerOff { .. } | Stop::Died(_)) {
            self.host.ended = Some(stop.clone());
        }
        self.drain();
        Ok(stop)
    }

    fn run_to_stop(&mut self, watchdog: &Watchdog) -> Result<Stop> {
        let mut attempts = ATTEMPTS;
        loop {
            if let Some(ended) = &self.host.ended {
                return Ok(ended.clone());
            }
            if let Some(reason) = self.request.reason() {
                return Ok(Stop::Died(describe(reason)));
            }
            let step = if self.host.pending.is_empty() {
                (self.settled, self.savable) = (false, true);
                self.board.step()
            } else {
                Step::Request(self.host.pending.remove(0))
            };
            let stop = match step {
                Step::Done => None,
                Step::Request(request) => self.answer(request),
                Step::Dead(Death::Errno(libc::EFAULT)) => {
                    let now = self.now();
                    let vcpu = &mut self.board.vcpu;
                    let answered = self.absences.efault(vcpu, &self.ram, now);
                    answered.err().map(|error| {
                        Stop::Died(format!("{error:#}\n{}", self.board.vcpu.describe()))
                    })
                }
                Step::Dead(death) => Some(Stop::Died(self.board.vcpu.explain(death))),
            };
            if let Some(stop) = stop {
                return Ok(stop);
            }
            if watchdog.expired() && self.may_stop_here(&mut attempts)? {
                return Ok(Stop::Hang);
            }
        }
    }

    /// Whether what a watchdog interrupted could be saved here. A guest that makes many
    /// attempts fail is stopped all the same, and cannot be saved.
    fn may_stop_here(&mut self, attempts: &mut usize) -> Result<bool> {
        self.settle()?;
        self.savable = !self.board.vcpu.may_trap(&self.ram.map)?;
        *attempts -= 1;
        Ok(self.savable || *attempts == 0)
    }

    /// Has the guest stop at the point of this number. The machine was made for a control that is on.
    pub fn ask(&mut self, point: u64) -> Result<(), MachineError> {
        let control = self.control().context("the kernel has no control yet");
        let mut control = control.about(MachineError::State)?;
        control.ask = point;
        self.set_control(&control)
    }

    /// Runs up to this point, for `limit` at most: [`Stop::Point`], unless the guest stops before. The program
    /// has started; otherwise as for [`Machine::ask`].
    pub fn reach(&mut self, point: u64, limit: Duration) -> Result<Stop, MachineError> {
        self.ask(point)?;
        self.run(limit)
    }

    /// Does what a doorbell asks for.
    fn answer(&mut self, request: Request) -> Option<Stop> {
        match request {
            Request::ProgramStarted => return Some(Stop::Started),
            Request::Point(number) => return Some(Stop::Point(number)),
            Request::Stuck => return Some(Stop::Stuck),
            Request::PowerOff(abi::lab::POWEROFF_PANIC) => {
                return Some(Stop::Died(format!(
                    "{DIED}\n{}",
                    self.board.vcpu.describe()
                )));
            }
            Request::PowerOff(status) => {
                let exit = lock(&self.board.bus.console).device.link.exit();
                return Some(Stop::PowerOff {
                    status,
                    program: exit.map(|exit| exit.status),
                });
            }
            Request::Control(at) => {
                self.host.control = Some(at);
                if self.control().is_none() || self.write_control().is_none() {
                    self.host.control = None;
                    self.note(&format!("the kernel's control is not at {at:#x}"));
                }
            }
            Request::TraceFull => self.drain(),
            Request::Restore(physical) => {
                let physical = abi::page_down(physical);
                let now = self.now();
                match self.absences.restore(&self.ram, physical, now) {
                    Ok(true) => self.returned(physical),
                    Ok(false) => {}
                    Err(error) => self.note(&format!("giving {physical:#x} back: {error:#}")),
                }
            }
        }
        None
    }

    /// The frame is there again: the kernel must not find it among those that are not.
    fn returned(&mut self, physical: u64) {
        let Some(mut control) = self.control() else {
            return;
        };
        let count = control
            .withdrawn
            .len()
            .min(control.withdrawn_count as usize);
        let mut kept = Control::OFF.withdrawn;
        let left = control.withdrawn[..count]
            .iter()
            .filter(|&&frame| frame & !WITHDRAWN_COMES != physical);
        let places = kept.iter_mut().zip(left);
        control.withdrawn_count = places.map(|(place, &frame)| *place = frame).count() as u64;
        control.withdrawn = kept;
        self.wanted = control;
        // It was just read from there.
        let _ = self.write_control();
    }

    /// The guest's clock when it last recorded something or VM asked for a frame, ns.
    fn now(&mut self) -> u64 {
        self.drain();
        let recorded = self.trace.records.last().map_or(0, |record| record.time);
        let asked = self.control().map_or(0, |control| control.time);
        recorded.max(asked)
    }

    fn note(&self, text: &str) {
        self.board.bus.log.note(text);
    }

    fn drain(&mut self) {
        if let Some(control) = self.control() {
            self.trace.drain(&self.ram.map, &control);
        }
    }

    /// The kernel's control as it is now, once the kernel has said where it is.
    pub fn control(&self) -> Option<Control> {
        control::read(&self.ram.map, self.host.control?)
    }

    /// Sets the VMM's half of the control, now and when the kernel next announces it.
    pub fn set_control(&mut self, control: &Control) -> Result<(), MachineError> {
        self.wanted = *control;
        if self.host.control.is_some() {
            let written = self.write_control().context("the kernel's control is gone");
            written.about(MachineError::State)?;
        }
        Ok(())
    }

    fn write_control(&self) -> Option<()> {
        control::write(&self.ram.map, self.host.control?, &self.wanted)
    }

    /// The records that came since the last time. Who takes them keeps them: snapshots of the
    /// machine do not have them.
    pub fn take_records(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.trace.records)
    }

    /// Ends the run from another thread.
    pub fn stop(&self) -> Arc<StopRequest> {
        self.request.clone()
    }

    /// The trace of the run so far.
    pub fn records(&self) -> &[Record] {
        &self.trace.records
    }

    /// Records of the trace that could not be read: none, unless the kernel does not keep to
    /// the agreement.
    pub fn lost_records(&self) -> u64 {
        self.trace.lost
    }

    /// What the program wrote so far.
    pub fn output(&self) -> Output {
        Output {
            stdout: self.stdout.bytes(),
            stderr: self.stderr.bytes(),
        }
    }

    /// The process table, once the kernel has said where it is.
    pub fn inspect(&self) -> Option<table::Snapshot> {
        let at = self.board.bus.lab.save().inspection;
        if at == 0 {
            return None;
        }
        table::snapshot(&self.ram.map, &table::layout(&self.ram.map, at)?)
    }

    /// The disk as it is now, apart from the machine.
    pub fn disk(&self) -> Option<Overlay> {
        match &self.board.bus.block.as_ref()?.device.backing {
            Backing::Overlay(overlay) => Some(overlay.clone()),
            Backing::File(_) | Backing::CopyOnWrite(_) => None,
        }
    }

    /// Guest memory, and what the guest may do with it.
    pub fn ram(&self) -> &GuestRam {
        &self.ram
    }

    /// Exits so far, of this machine's whole life.
    pub fn exits(&self) -> Counts {
        self.board.counts
    }

    /// The registers, for a person.
    pub fn describe(&self) -> String {
        self.board.vcpu.describe()
    }

    /// General and special registers of the vCPU. The last exit must be complete
    /// ([`Machine::settle`]).
    pub fn registers(&self) -> Result<(kvm_regs, kvm_sregs), MachineError> {
        let fd = self.board.vcpu.fd();
        let regs = fd.get_regs().context("KVM_GET_REGS");
        let sregs = fd.get_sregs().context("KVM_GET_SREGS");
        Ok((
            regs.about(MachineError::State)?,
            sregs.about(MachineError::State)?,
        ))
    }

    /// Sets the general registers, likewise.
    pub fn set_registers(&mut self, regs: &kvm_regs) -> Result<(), MachineError> {
        let set = self.board.vcpu.fd().set_regs(regs);
        set.context("KVM_SET_REGS").about(MachineError::State)
    }

    /// Completes the last exit, so that registers can be read and written.
    pub fn settle(&mut self) -> Result<(), MachineError> {
        self.complete().about(MachineError::State)
    }

    fn complete(&mut self) -> Result<()> {
        if self.settled {
            return Ok(());
        }
        for _ in 0..COMPLETIONS {
            match self.board.complete() {
                Completion::Complete => {
                    self.settled = true;
                    return Ok(());
                }
                Completion::Another(request) => self.host.pending.extend(request),
            }
        }
        bail!("one instruction of the guest exits more than {COMPLETIONS} times")
    }
}

fn describe(reason: Reason) -> String {
    match reason {
        Reason::Failure(text) => text,
        Reason::OutputClosed => "the program wrote more than is kept".into(),
        other => format!("{other:?}"),
    }
}
