//! What exec costs, three ways: mapped from the file, copied by the file system straight into
//! the process, and through a buffer as before. All in one guest, in turn, so that nothing
//! but the way differs.

use std::fmt::Write;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};

use crate::hostlink::input::Source;
use crate::hostlink::output::Sink;
use crate::kvm::gate::Gate;
use crate::machine::{Accelerator, Outcome};
use crate::program::{Program, Streams};
use crate::sandbox::Sandbox;

pub mod figures;
pub mod page;
pub mod project;
pub mod report;
mod root;

use figures::Figures;
pub use root::Tools;
use root::{PLACE, Root};

/// RAM of the guest: everything stays cached that is not dropped on purpose.
const MEMORY: u64 = 256 << 20;
/// A hung guest is no measurement.
const TIMEOUT: Duration = Duration::from_secs(60 * 60);
/// How often one looks whether there is something to show.
const GLANCE: Duration = Duration::from_millis(200);

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// What executes the guest.
    pub accelerator: Accelerator,
    /// How its kernel is entered, when that is not to be measured.
    pub gate: Option<Gate>,
    /// Rounds of warm execs. Cold ones and builds, which take long, get a third.
    pub rounds: u32,
    /// Whether to build the project, too: the host has [`Tools`].
    pub build: bool,
    /// Whether to show progress on standard error.
    pub progress: bool,
}

/// What was measured, and how.
#[derive(Clone, Debug)]
pub struct Report {
    /// What executed the guest.
    pub accelerator: Accelerator,
    /// How its kernel was entered.
    pub gate: Gate,
    /// Rounds of warm execs.
    pub rounds: u32,
    /// The figures.
    pub figures: Figures,
}

/// The programs: name in the plan, for a person, path and arguments.
const PROGRAMS: [(&str, &str, &[&str]); 6] = [
    ("static-50k", "50 KiB static", &["/bench/static-50k"]),
    ("static-800k", "800 KiB static", &["/bench/static-800k"]),
    ("static-4m", "4 MiB static", &["/bench/static-4m"]),
    (
        "static-4m-part",
        "4 MiB static, an eighth used",
        &["/bench/static-4m", "part"],
    ),
    ("dynamic", "dynamic (libc)", &["/bench/dynamic"]),
    ("script", "script, 800 KiB interpreter", &["/bench/script"]),
];

/// The build's name in the plan.
pub const BUILD: &str = "make";

/// What a name in the plan means to a person.
pub fn title(name: &str) -> &str {
    match PROGRAMS.iter().find(|program| program.0 == name) {
        Some((_, title, _)) => title,
        None if name == BUILD => "make, 65 C files with tcc",
        None => name,
    }
}

/// The plan for the driver, and the lines it will say.
fn plan(options: &Options, tools: Option<&Tools>) -> (String, u64) {
    let few = options.rounds.div_ceil(3);
    let (mut plan, mut lines) = (String::new(), 0);
    let mut add = |text: String, rounds: u32, each: u64| {
        plan.push_str(&text);
        plan.push('\n');
        lines += u64::from(rounds) * each;
    };
    for (name, _, command) in PROGRAMS {
        let rounds = options.rounds;
        let command = command.join("\t");
        add(
            format!("exec\t{name}\twarm\t{rounds}\t{command}"),
            rounds,
            3,
        );
        // Six stages of three backends.
        add(format!("trace\t{name}\t{few}\t{command}"), few, 18);
    }
    if let Some(tools) = tools {
        let mut line = format!("make\t{BUILD}\t{few}\t{PLACE}/project\t{}", tools.make);
        let _ = write!(line, "\t-s\t-C\t{PLACE}/project\tCC={}", tools.tcc);
        add(line, few, 3);
    }
    for (name, _, command) in PROGRAMS {
        let command = command.join("\t");
        add(format!("exec\t{name}\tcold\t{few}\t{command}"), few, 3);
    }
    (plan, lines)
}

/// Measures.
pub fn measure(options: &Options) -> Result<Report> {
    ensure!(options.rounds > 0, "no rounds, nothing to measure");
    let mut root = Root::new(options.build)?;
    let (plan, lines) = plan(options, root.tools.as_ref());
    root.file(&format!("{PLACE}/plan"), plan.into_bytes(), 0o644);
    let disk = root.disk().context("the guest's root")?;
    drop(root);

    let mut program = Program::new([format!("{PLACE}/driver"), format!("{PLACE}/plan")]);
    // A file in memory, which has a name all the same.
    program.root = Some(format!("/proc/self/fd/{}", disk.file.as_raw_fd()).into());
    program.memory = MEMORY;
    program.timeout = Some(TIMEOUT);
    program.accelerator = Some(options.accelerator);
    program.gate = options.gate;
    program.sandbox = Sandbox::Thread;
    if options.accelerator == Accelerator::Qemu {
        program.qemu_args = super::COUNTING.map(String::from).to_vec();
    }
    let (stdout, said) = Sink::capture();
    let (stderr, complaints) = Sink::capture();
    let streams = Streams {
        stdin: Source::Bytes(Vec::new()),
        stdout,
        stderr,
        terminals: 0,
        window: None,
        signals: None,
    };
    let over = Mutex::new(false);
    let (outcome, figures) = std::thread::scope(|scope| {
        let listener = scope.spawn(|| listen(&said, &over, lines, options.progress));
        // What is confined is so for good: a thread that ends with the run.
        let outcome = scope.spawn(|| program.run(streams)).join();
        *over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        (outcome, listener.join())
    });
    let Ok(outcome) = outcome else {
        bail!("the machine's thread panicked");
    };
    let outcome: Outcome = outcome?;
    let Ok(figures) = figures else {
        bail!("following the guest's output failed");
    };
    let circumstances = || {
        let complaints = complaints.lock().unwrap_or_else(PoisonError::into_inner);
        format!(
            "the measurements did not come to their end ({:?}): {}\n{}",
            outcome.ending,
            String::from_utf8_lossy(&complaints).trim(),
            outcome.log.join("\n")
        )
    };
    let mut figures = figures.with_context(circumstances)?;
    ensure!(figures.done, "{}", circumstances());
    if options.accelerator == Accelerator::Qemu {
        figures.without_idle();
    }
    Ok(Report {
        accelerator: options.accelerator,
        gate: outcome.gate.unwrap_or(Gate::Direct),
        rounds: options.rounds,
        figures,
    })
}

/// Reads the driver's lines as they come.
fn listen(
    said: &Arc<Mutex<Vec<u8>>>,
    over: &Mutex<bool>,
    lines: u64,
    progress: bool,
) -> Result<Figures> {
    let bar = match progress {
        true => bar(lines),
        false => ProgressBar::hidden(),
    };
    let plain = progress && bar.is_hidden();
    let (mut figures, mut taken, mut about) = (Figures::default(), 0, String::new());
    let mut trouble = None;
    loop {
        let last = *over.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = {
            let said = said.lock().unwrap_or_else(PoisonError::into_inner);
            let fresh = &said[taken..];
            let whole = fresh
                .iter()
                .rposition(|&b| b == b'\n')
                .map_or(0, |end| end + 1);
            taken += whole;
            String::from_utf8_lossy(&fresh[..whole]).into_owned()
        };
        for line in fresh.lines() {
            // The first thing that is wrong says most.
            if let (None, Err(error)) = (&trouble, figures.line(line)) {
                trouble = Some(error);
            }
            if line.starts_with("exec ") || line.starts_with("stage ") {
                bar.inc(1);
            }
            let now = subject(line);
            if !now.is_empty() && now != about {
                if plain {
                    crate::log::complain(&format!("absentia: measuring {now}"));
                }
                bar.set_message(now.clone());
                about = now;
            }
        }
        if last {
            break;
        }
        std::thread::sleep(GLANCE);
    }
    bar.finish_and_clear();
    match trouble {
        Some(error) => Err(error),
        None => Ok(figures),
    }
}

/// What a line is about.
fn subject(line: &str) -> String {
    let mut words = line.split_ascii_whitespace();
    match (words.next(), words.next(), words.next()) {
        (Some("exec"), Some(name), Some(heat)) => format!("{}, {heat}", title(name)),
        (Some("stage"), Some(name), _) => format!("{}, stages", title(name)),
        _ => String::new(),
    }
}

fn bar(lines: u64) -> ProgressBar {
    let bar = ProgressBar::new(lines);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {percent:>3} %  {elapsed}  {msg}") {
        bar.set_style(style);
    }
    bar.set_message("starting the guest");
    bar.enable_steady_tick(GLANCE);
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_says_how_many_lines_come() {
        let mut options = Options {
            accelerator: Accelerator::Kvm,
            gate: None,
            rounds: 4,
            build: true,
            progress: false,
        };
        let tools = Tools {
            make: "/usr/bin/make".into(),
            tcc: "/usr/bin/tcc".into(),
        };
        let (text, lines) = plan(&options, Some(&tools));
        assert_eq!(lines, 6 * (4 * 3 + 2 * 18 + 2 * 3) + 2 * 3);
        assert!(
            text.contains("\nmake\tmake\t2\t/bench/project\t/usr/bin/make\t-s\t"),
            "{text}"
        );
        options.rounds = 1;
        assert_eq!(plan(&options, None).1, 6 * (3 + 18 + 3));
        assert!(text.lines().all(|line| line.len() < 1000));
    }

    #[test]
    fn lines_have_subjects() {
        assert_eq!(
            subject("exec dynamic cold 0 map total=1"),
            "dynamic (libc), cold"
        );
        assert_eq!(subject("stage x 0 map lookup time=1"), "x, stages");
        assert_eq!(subject("done"), "");
    }
}
