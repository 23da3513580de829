//! One run of one machine: from a configuration to how it ended.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use abi::kernel::Counters;
use anyhow::{Context, Result};
use kvm_ioctls::Kvm;
use vmm_sys_util::signal::Killable;

use crate::board::{Board, Drive, Interrupts, Plan, Step};
use crate::boot::Windows;
use crate::control::{self, Reason, Stop, spawn};
use crate::counters;
use crate::devices::bus::{SharedConsole, lock};
use crate::devices::console::RECEIVE;
use crate::devices::disk::CopyOnWrite;
use crate::devices::lab::Request;
use crate::ending::{Ended, Order, conclude, supervise};
use crate::error::{About, MachineError};
use crate::hostlink::input::Input;
use crate::inspect::Inspector;
use crate::inspect::watch::{Asked, attend};
use crate::kvm::Vm;
use crate::kvm::exits::Counts;
use crate::kvm::gate::{Cpl0, Gate};
use crate::log::Log;
use crate::memory::{GuestRam, footprint};
use crate::root::Disk;
use crate::sandbox::{self, Role, Sandbox};

pub use crate::config::{Accelerator, Config, Outcome};
pub use crate::ending::{DIED, Ending, FAILED};

/// Runs a machine to its end.
pub fn run(config: Config) -> Result<Outcome, MachineError> {
    match config.accelerator {
        Accelerator::Kvm => run_kvm(config),
        Accelerator::Qemu => crate::qemu::run(config),
    }
    .about(MachineError::Host)
}

/// How often a thread that is to stop is told so again: a signal that comes just before a
/// system call does not interrupt it.
const KICK_EVERY: Duration = Duration::from_millis(10);
/// How long that is tried.
const STUCK: Duration = Duration::from_millis(300);

/// The disk as a device has it.
fn drive(disk: Disk) -> Result<Drive> {
    let backing = match disk.snapshot {
        true => CopyOnWrite::new(disk.file)?.into(),
        false => disk.file.into(),
    };
    Ok(Drive {
        backing,
        read_only: disk.read_only,
    })
}

fn run_kvm(config: Config) -> Result<Outcome> {
    let begun = Instant::now();
    control::install_kick()?;
    let kvm = Kvm::new()
        .context("opening /dev/kvm")
        .about(MachineError::Kvm)?;
    let log = config.log.clone();
    let cpl0 = Cpl0::of_host(&kvm).about(MachineError::Kvm)?;
    let gate = config.gate.unwrap_or(cpl0.gate());
    log.note(&format!("CPL0 is {cpl0:?} here: {gate:?} gate"));

    // Dropped after the machine that uses it: locals are dropped in reverse order, and the
    // vCPU's thread is joined below.
    let ram = GuestRam::new(config.memory).about(MachineError::Memory)?;
    let vm = Vm::new(&kvm, &ram).about(MachineError::Kvm)?;

    let stop = Stop::new()?;
    let input = Input::new()?;
    let disk_size = match &config.disk {
        Some(disk) => {
            let facts = disk.file.metadata().context("its size");
            facts.about(MachineError::Disk)?.len()
        }
        None => 0,
    };
    let board = Board::new(
        &vm,
        &ram,
        Plan {
            kernel: &config.kernel,
            archive: &config.archive,
            cmdline: &config.cmdline,
            gate,
            disk: config
                .disk
                .map(drive)
                .transpose()
                .about(MachineError::Disk)?,
            windows: Windows::PAGES,
            interrupts: Interrupts::Events,
            stdout: config.stdout,
            stderr: config.stderr,
            input: input.clone(),
            stop: stop.clone(),
            log: log.clone(),
        },
    )?;
    let console = board.bus.console.clone();
    let inspection = board.bus.lab.inspection.clone();
    let inspector = Inspector::new(ram.map.clone(), inspection, config.report.clone());
    crate::images::release(config.kernel, config.archive);

    let ended = Arc::new(Ended::new()?);
    let started = Arc::new(OnceLock::new());
    let runner = Runner {
        board,
        stop: stop.clone(),
        begun,
        started: started.clone(),
    };
    let confined = config.sandbox;
    if confined != Sandbox::Off {
        let bounds = sandbox::Bounds {
            report: config.report.as_deref(),
            file: disk_size,
            alone: confined == Sandbox::Strict,
            machines: false,
        };
        sandbox::confine(&bounds).about(MachineError::Sandbox)?;
    }
    // The guest's first instruction waits for the last thread's filter.
    let (go, ready) = std::sync::mpsc::channel::<()>();
    let vcpu_thread = {
        let ended = ended.clone();
        spawn("vcpu", move || {
            let entered = confined.enter(Role::Vcpu);
            // Who would say so has failed.
            let _ = ready.recv();
            let result = match entered {
                Ok(()) => runner.run(),
                Err(error) => runner.refuse(format!("{error:#}")),
            };
            ended.set();
            result
        })?
    };
    let asked = Asked::new();
    {
        let (asked, stop) = (asked.clone(), stop.clone());
        let role = Role::Inspector {
            report: config.report.is_some(),
        };
        spawn("inspect", move || match confined.enter(role) {
            Ok(()) => attend(inspector, &asked, &stop),
            Err(error) => stop.request(Reason::Failure(format!("{error:#}"))),
        })?;
    }
    let input_thread = {
        let (input, stop, console, ram) = (
            input.clone(),
            stop.clone(),
            console.clone(),
            ram.map.clone(),
        );
        spawn("stdin", move || {
            if let Err(error) = confined.enter(Role::Input) {
                return stop.request(Reason::Failure(format!("{error:#}")));
            }
            input.pump(config.stdin, &stop, || {
                // A ring that lies is reported when the guest next rings the doorbell.
                let _ = lock(&console).notify(RECEIVE, &ram);
            });
        })?
    };

    confined
        .enter(Role::Supervisor {
            child: None,
            report: false,
        })
        .about(MachineError::Sandbox)?;
    let _ = go.send(());
    let exited = || lock_exit(&console);
    let ordered = supervise(
        &stop,
        &ended,
        config.signals.as_ref(),
        // A time that cannot be said is one that never comes.
        config
            .timeout
            .and_then(|timeout| begun.checked_add(timeout)),
        &input,
        exited,
        || started.get().is_some(),
        || asked.report(),
    );
    asked.close();
    let stopping = Instant::now();
    while !ended.is_set() {
        if stopping.elapsed() > STUCK {
            // It holds the machine, whose RAM must outlive it: until this process ends.
            std::mem::forget((ram, vm));
            log.note("the vCPU does not stop: it is left behind");
            return Ok(abandoned(&stop, ordered, gate, begun, &log));
        }
        // The result only says that the thread is gone.
        let _ = vcpu_thread.kill(control::kick_signal());
        ended.wait(KICK_EVERY);
    }
    let finished = vcpu_thread
        .join()
        .map_err(|_| anyhow::anyhow!("the vCPU thread panicked"))?;
    // Lets the input thread go; the machine has ended and its own reason is known.
    let reason = stop.reason();
    stop.request(Reason::Lingering);
    input_thread
        .join()
        .map_err(|_| anyhow::anyhow!("the input thread panicked"))?;

    let (exit, absent) = {
        let link = &lock(&console).device.link;
        (link.exit(), link.absent())
    };
    Ok(Outcome {
        ending: conclude(exit, ordered, reason, finished.end),
        gate: Some(gate),
        exits: finished.counts,
        counters: finished.counters,
        started: started.get().copied(),
        elapsed: begun.elapsed(),
        log: log.kept(),
        absent,
        advice: None,
    })
}

/// What is known of a run whose vCPU never came back.
fn abandoned(
    stop: &Stop,
    ordered: Option<Order>,
    gate: Gate,
    begun: Instant,
    log: &Log,
) -> Outcome {
    let reason = stop.reason().unwrap_or(Reason::Lingering);
    stop.request(reason.clone());
    Outcome {
        ending: conclude(None, ordered, Some(reason), String::new()),
        gate: Some(gate),
        exits: Counts::default(),
        counters: None,
        started: None,
        elapsed: begun.elapsed(),
        log: log.kept(),
        absent: Vec::new(),
        advice: None,
    }
}

fn lock_exit(console: &SharedConsole) -> Option<Instant> {
    // Busy means that output is being written: then the program has not ended.
    console
        .try_lock()
        .ok()?
        .device
        .link
        .exit()
        .map(|exit| exit.at)
}

/// The vCPU's thread.
struct Runner {
    board: Board,
    stop: Arc<Stop>,
    begun: Instant,
    started: Arc<OnceLock<Duration>>,
}

/// What the vCPU's thread leaves behind.
struct Finished {
    end: String,
    counts: Counts,
    counters: Option<Counters>,
}

impl Runner {
    fn run(mut self) -> Finished {
        let end = self.run_to_end();
        self.refuse(end)
    }

    /// The end, for a reason of its own.
    fn refuse(self, end: String) -> Finished {
        Finished {
            end,
            counts: self.board.counts,
            counters: self.board.counters(),
        }
    }

    fn run_to_end(&mut self) -> String {
        loop {
            if self.stop.requested() {
                return "stopped".into();
            }
            match self.board.step() {
                Step::Done => {}
                Step::Dead(death) => return self.board.vcpu.explain(death),
                Step::Request(Request::ProgramStarted) => {
                    let at = self.begun.elapsed();
                    self.started.get_or_init(|| at);
                    let counters = self.board.counters().as_ref().map(counters::describe);
                    self.board.bus.log.note(&format!(
                        "program started after {at:.3?}: {}; {}",
                        self.board.counts,
                        counters.unwrap_or_default()
                    ));
                    // What only the boot needed.
                    footprint::release_program();
                }
                Step::Request(Request::PowerOff(abi::lab::POWEROFF_PANIC)) => {
                    return format!("{DIED}\n{}", self.board.vcpu.describe());
                }
                Step::Request(Request::PowerOff(status)) => {
                    return format!(
                        "the guest powered off with status {status} and no program's status"
                    );
                }
                // Of the laboratory, whose machines are run elsewhere.
                Step::Request(
                    Request::Control(_)
                    | Request::Point(_)
                    | Request::Stuck
                    | Request::TraceFull
                    | Request::Restore(_),
                ) => {}
            }
        }
    }
}
