//! A program in a run that is the same every time: virtual time, a fixed wall clock, seeded
//! entropy, no standard input, devices that are polled.

use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use abi::boot::{CMDLINE_TRACE, TRACE_RECORDS};
use abi::trace::{Mode, Record, random};
use anyhow::{Context, Result};
use rustix::fs::{MemfdFlags, memfd_create};

use crate::config::{Accelerator, Config, Outcome};
use crate::control::{Reason, Signals};
use crate::devices::disk::Overlay;
use crate::ending::{Ended, Ending, supervise};
use crate::hostlink::Streams;
use crate::hostlink::input::{Input, Source};
use crate::hostlink::output::Sink;
use crate::inspect::graph::Graph;
use crate::inspect::{render, table};
use crate::kvm::gate::Gate;
use crate::lab::{EPOCH_NS, Machine, Setup, Stop, control};
use crate::log::complain;
use crate::program::Program;
use crate::qemu::{self, watch::Watch};
use crate::root::Disk;
use crate::sandbox::{Bounds, Role, Sandbox, confine};
use crate::trace::words::{Names, describe};

pub use crate::qemu::watch::{Recorder, Trail};

/// What there is to say of the inside of a machine that says itself when nobody can run.
const BLIND: &str = "absentia: a deterministic machine on KVM cannot be looked into while it runs";

/// How long a machine runs before its records are taken and requests are looked for.
const SLICE: Duration = Duration::from_millis(100);

/// A run and its trace's hash; none when the guest did not come to its end.
pub struct Run {
    /// How it ended.
    pub outcome: Outcome,
    /// Its trace.
    pub trail: Option<Trail>,
}

/// Runs `program` with this seed of its entropy. `recorder` gets the whole trace.
pub fn run(
    program: Program,
    streams: Streams,
    seed: u64,
    recorder: Option<Recorder>,
) -> Result<Run> {
    let (accelerator, timeout, report) = (
        program.accelerator(),
        program.timeout,
        program.report.clone(),
    );
    let (gate, qemu_args) = (program.gate, program.qemu_args.clone());
    let sandbox = program.sandbox;
    let words = [1, 2, 3, 4].map(|index| random(seed, index));
    let setup = program.setup(EPOCH_NS, words, control::traced(Mode::First, 0))?;
    let run = match accelerator {
        Accelerator::Kvm => {
            let report = report.as_deref();
            on_kvm(&setup, streams, timeout, recorder, report, sandbox)?
        }
        Accelerator::Qemu => {
            let request = Qemu {
                plan: String::new(),
                timeout,
                recorder,
                gate,
                arguments: qemu_args,
                report: report.clone(),
                sandbox,
            };
            let played = under_qemu(setup, streams, request)?;
            let mut run = Run {
                outcome: played.outcome,
                trail: played.watch.lock().trail,
            };
            if played.watch.lock().stuck {
                let table = played.watch.table();
                run.outcome.ending = deadlock(table.as_ref(), report.as_deref())?;
            }
            run
        }
    };
    Ok(run)
}

fn deadlock(table: Option<&table::Snapshot>, report: Option<&Path>) -> Result<Ending> {
    let Some(table) = table else {
        let what = "who waits for whom cannot be read from the guest's memory";
        return Ok(Ending::Stopped(Reason::Deadlock(what.into())));
    };
    let graph = Graph::new(table);
    if let Some(directory) = report {
        render::write(directory, "cycle", &graph)?;
    }
    Ok(Ending::Stopped(Reason::Deadlock(render::text(&graph))))
}

fn on_kvm(
    setup: &Setup,
    streams: Streams,
    timeout: Option<Duration>,
    recorder: Option<Recorder>,
    report: Option<&Path>,
    sandbox: Sandbox,
) -> Result<Run> {
    let begun = Instant::now();
    let Streams {
        stdout,
        stderr,
        signals,
        ..
    } = streams;
    let mut machine = Machine::boot_to(setup, stdout, stderr)?;
    let stop = machine.stop();
    let ended = Ended::new()?;
    let input = Input::new()?;
    if sandbox != Sandbox::Off {
        confine(&Bounds {
            report,
            file: 0,
            alone: sandbox == Sandbox::Strict,
            machines: false,
        })?;
    }
    let (stopped, started, stuck) = std::thread::scope(|scope| -> Result<_> {
        // The guest's first instruction waits for the last thread's filter.
        let (go, ready) = std::sync::mpsc::channel::<()>();
        let (machine, ended) = (&mut machine, &ended);
        let runner = scope.spawn(move || {
            let result = sandbox.enter(Role::Laboratory).and_then(|()| {
                // Who would say so has failed.
                let _ = ready.recv();
                let (stopped, started) = to_end(machine, recorder, begun)?;
                let stuck = match stopped {
                    Stop::Stuck => Some(deadlock(machine.inspect().as_ref(), report)?),
                    _ => None,
                };
                Ok((stopped, started, stuck))
            });
            ended.set();
            result
        });
        sandbox.enter(Role::Supervisor {
            child: None,
            report: false,
        })?;
        let _ = go.send(());
        supervise(
            &stop,
            ended,
            signals.as_ref(),
            timeout.and_then(|timeout| begun.checked_add(timeout)),
            &input,
            // It says itself when it is stuck.
            || None,
            // Its disk is thrown away: there is nothing to save.
            || false,
            || complain(BLIND),
        );
        // It looks for the request after every slice.
        runner
            .join()
            .map_err(|_| anyhow::anyhow!("the machine's thread panicked"))?
    })?;
    let control = machine.control();
    let ending = match (stop.reason(), stuck, stopped) {
        (Some(reason), ..) => Ending::Stopped(reason),
        (None, Some(stuck), _) => stuck,
        (
            None,
            None,
            Stop::PowerOff {
                program: Some(status),
                ..
            },
        ) => Ending::Program(status),
        (None, None, Stop::PowerOff { status, .. }) => Ending::Guest(format!(
            "the guest powered off with status {status} and no program's status"
        )),
        (None, None, Stop::Died(what)) => Ending::Guest(what),
        (None, None, other) => Ending::Guest(format!("the machine stopped: {other:?}")),
    };
    Ok(Run {
        trail: control.map(|control| Trail {
            records: control.records,
            hash: control.hash,
        }),
        outcome: Outcome {
            ending,
            gate: setup.gate,
            exits: machine.exits(),
            counters: None,
            started,
            elapsed: begun.elapsed(),
            log: setup.log.kept(),
            absent: Vec::new(),
            advice: None,
        },
    })
}

/// Runs a machine until it stops for good, or is to.
fn to_end(
    machine: &mut Machine,
    mut recorder: Option<Recorder>,
    begun: Instant,
) -> Result<(Stop, Option<Duration>)> {
    let request = machine.stop();
    let mut started = None;
    loop {
        let stop = machine.run(SLICE)?;
        let records = machine.take_records();
        if let Some(recorder) = &mut recorder {
            records.into_iter().for_each(recorder);
        }
        match stop {
            Stop::Hang if !request.requested() => {}
            Stop::Started => {
                started.get_or_insert(begun.elapsed());
            }
            stop => return Ok((stop, started)),
        }
    }
}

/// What there is to say of a run under QEMU beside the machine's setup.
pub struct Qemu {
    /// Faults for the kernel to carry out ([`abi::boot::CMDLINE_PLAN`]).
    pub plan: String,
    /// The run ends after this time.
    pub timeout: Option<Duration>,
    /// Gets the trace.
    pub recorder: Option<Recorder>,
    /// The gate that was asked for.
    pub gate: Option<Gate>,
    /// More arguments.
    pub arguments: Vec<String>,
    /// A directory that the caller writes into afterwards.
    pub report: Option<PathBuf>,
    /// What this process gives up.
    pub sandbox: Sandbox,
}

/// A run under QEMU.
pub struct Played {
    /// How it ended.
    pub outcome: Outcome,
    /// What the kernel said, and its memory.
    pub watch: Watch,
    /// The disk as it is now, a copy.
    pub disk: Overlay,
}

/// Runs a laboratory machine's setup under QEMU, on a copy of its disk.
pub fn under_qemu(setup: Setup, streams: Streams, request: Qemu) -> Result<Played> {
    let mut cmdline = format!("{} {CMDLINE_TRACE}", setup.cmdline);
    if request.recorder.is_some() {
        cmdline += TRACE_RECORDS;
    }
    if !request.plan.is_empty() {
        cmdline += &format!(" {}{}", abi::boot::CMDLINE_PLAN, request.plan);
    }
    let watch = Watch::new(setup.memory, request.recorder)?;
    let file = copied(setup.disk.context("a root disk")?)?;
    let disk = Overlay::new(file.try_clone().context("the disk")?).context("the disk")?;
    let config = Config {
        kernel: setup.kernel,
        archive: setup.archive,
        cmdline,
        memory: setup.memory,
        disk: Some(Disk {
            snapshot: false,
            file,
            read_only: false,
        }),
        accelerator: Accelerator::Qemu,
        gate: request.gate,
        timeout: request.timeout,
        stdin: Source::Bytes(Vec::new()),
        stdout: streams.stdout,
        stderr: streams.stderr,
        signals: streams.signals,
        log: setup.log,
        report: request.report,
        qemu_args: request.arguments,
        sandbox: request.sandbox,
    };
    Ok(Played {
        outcome: qemu::run_watched(config, watch.clone())?,
        watch,
        disk,
    })
}

/// A disk as a file of its own, in memory.
fn copied(disk: Overlay) -> Result<std::fs::File> {
    use ext2::{BlockDevice, SECTOR};
    let mut disk = disk;
    let mut file: std::fs::File = memfd_create("disk", MemfdFlags::CLOEXEC)
        .context("memfd")?
        .into();
    let sectors = disk.sectors();
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while at < sectors {
        let now = (sectors - at).min(buffer.len() as u64 / SECTOR as u64);
        let bytes = &mut buffer[..now as usize * SECTOR];
        disk.read(at, bytes)
            .map_err(|errno| anyhow::anyhow!("reading the disk: {errno:?}"))?;
        if bytes.iter().all(|&byte| byte == 0) {
            file.seek_relative(bytes.len() as i64).context("memfd")?;
        } else {
            file.write_all(bytes).context("memfd")?;
        }
        at += now;
    }
    file.set_len(sectors * SECTOR as u64).context("memfd")?;
    Ok(file)
}

/// Differences of two traces that are told, record by record.
const TOLD: usize = 10;

/// Where two runs that must be one part, in words.
pub struct Difference {
    /// What differs.
    pub what: String,
}

/// One run of a check.
struct Half {
    run: Run,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

/// Runs two programs that must be the same, on whatever machines they name, and compares
/// traces, output and statuses: the first run, and what differs. The first run's output is
/// given to `show`.
pub fn check(
    programs: [&Program; 2],
    seed: u64,
    show: impl FnOnce(&[u8], &[u8]) -> Result<()>,
) -> Result<(Run, Option<Difference>)> {
    let trace = Arc::new(Mutex::new(
        tempfile::tempfile().context("a file for the trace")?,
    ));
    let half = |program: &Program, recorder: Recorder| -> Result<Half> {
        let (out, stdout) = Sink::capture();
        let (err, stderr) = Sink::capture();
        let streams = Streams {
            stdin: Source::Bytes(Vec::new()),
            stdout: out,
            stderr: err,
            terminals: 0,
            window: None,
            signals: None::<Signals>,
        };
        let mut program = program.clone();
        if program.sandbox == Sandbox::Strict {
            program.sandbox = Sandbox::Thread;
        }
        // What is confined is so for good: a thread that ends with the run.
        let whole = || run(program, streams, seed, Some(recorder));
        let run = std::thread::scope(|scope| scope.spawn(whole).join())
            .map_err(|_| anyhow::anyhow!("the machine's thread panicked"))??;
        let take = |buffer: &Mutex<Vec<u8>>| std::mem::take(&mut *lock(buffer));
        Ok(Half {
            run,
            stdout: take(&stdout),
            stderr: take(&stderr),
        })
    };
    let mut writer = std::io::BufWriter::new(lock(&trace).try_clone().context("the trace")?);
    let first = half(
        programs[0],
        Box::new(move |record| {
            // A trace that is cut short differs from the other, and says so.
            let _ = writer.write_all(&bytes(&record));
        }),
    )?;
    lock(&trace).rewind().context("the trace")?;
    let parted = Arc::new(Mutex::new(Vec::new()));
    let mut reader = std::io::BufReader::new(lock(&trace).try_clone().context("the trace")?);
    let (mut names, found, mut number) = (Names::default(), parted.clone(), 0u64);
    let second = half(
        programs[1],
        Box::new(move |record| {
            let mut other = [0; 64];
            names.learn(&record);
            let other = match reader.read_exact(&mut other) {
                Ok(()) => Some(record_of(&other)),
                Err(_) => None,
            };
            let mut found = lock(&found);
            if other != Some(record) && found.len() < TOLD {
                let before = other.map_or("the end".into(), |other| told(&other, &names));
                let after = told(&record, &names);
                found.push(format!(
                    "record {number}\n  first {before}\n  then  {after}"
                ));
            }
            number += 1;
        }),
    )?;
    show(&first.stdout, &first.stderr)?;
    let parted = std::mem::take(&mut *lock(&parted));
    let what = match parted.is_empty() {
        true => differs(&first, &second),
        false => Some(parted.join("\n")),
    };
    Ok((first.run, what.map(|what| Difference { what })))
}

fn differs(first: &Half, second: &Half) -> Option<String> {
    let trails = (first.run.trail, second.run.trail);
    if trails.0 != trails.1 {
        return Some(format!("the traces: {:?} and {:?}", trails.0, trails.1));
    }
    if first.stdout != second.stdout || first.stderr != second.stderr {
        return Some("what the program wrote, although the traces are equal".into());
    }
    let endings = (&first.run.outcome.ending, &second.run.outcome.ending);
    (endings.0 != endings.1).then(|| format!("the ends: {:?} and {:?}", endings.0, endings.1))
}

fn told(record: &Record, names: &Names) -> String {
    let words = record.words.map(|word| format!("{word:x}")).join(" ");
    format!(
        "at {} ns {} [{:x} {words}]",
        record.time,
        describe(record, names),
        record.what
    )
}

fn bytes(record: &Record) -> [u8; 64] {
    let w = record.words;
    let words = [record.time, record.what, w[0], w[1], w[2], w[3], w[4], w[5]];
    let mut bytes = [0; 64];
    for (place, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
        *place = word.to_le_bytes();
    }
    bytes
}

fn record_of(bytes: &[u8; 64]) -> Record {
    let mut words = [0; 8];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    let [time, what, words @ ..] = words;
    Record { time, what, words }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}
