//! Machines of the laboratory are put back to where they were and do the same again.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use abi::kernel::HOLE;
use abi::trace::Control;
use absentia_vmm::kvm::vcpu::Vcpu;
use absentia_vmm::lab::{Absences, Machine, Output, Setup, Snapshot, Stop, disk};
use absentia_vmm::memory::GuestRam;
use absentia_vmm::memory::parts::address_of;
use absentia_vmm::program::Program;
use common::{Platform, guest_program, host_tool};
use vm_memory::{Bytes, GuestAddress};

/// Nothing here takes as long.
const LONG: Duration = Duration::from_secs(60);

/// RAM of most machines here, bytes.
const SMALL: u64 = 64 << 20;
/// With so much of it all that programs get is behind the hole.
const LARGE: u64 = HOLE.start + SMALL;

fn setup(args: &[&str]) -> Setup {
    setup_with(SMALL, args)
}

fn setup_with(memory: u64, args: &[&str]) -> Setup {
    Platform::Kvm.require();
    Program {
        memory,
        ..Program::new(args)
    }
    .setup(1_700_000_000_000_000_000, [1, 2, 3, 4], Control::OFF)
    .expect("a setup")
}

fn started(args: &[&str]) -> Machine {
    started_with(SMALL, args)
}

fn started_with(memory: u64, args: &[&str]) -> Machine {
    let mut machine = Machine::boot(&setup_with(memory, args)).expect("a machine");
    assert_eq!(machine.run(LONG).expect("a run"), Stop::Started);
    machine
}

/// How a program ends: its status, its output, a file it wrote.
type End = (Option<u32>, Output, Option<Vec<u8>>);

fn to_the_end(machine: &mut Machine) -> End {
    match machine.run(LONG).expect("a run") {
        Stop::PowerOff { program, .. } => {
            let written = disk::file(&machine.disk().expect("a disk"), "/root/written");
            (program, machine.output(), written.expect("the disk"))
        }
        other => panic!("{other:?}"),
    }
}

/// Reads and writes files, forks, execs, talks through pipes.
const BUSY: &str = "cd /root; i=0; while [ $i -lt 6 ]; do \
    echo line $i >> written; cat /bin/busybox | md5sum; ls -l /bin | wc -l; \
    sync; i=$((i+1)); done; md5sum written >&2; exit 3";

#[test]
fn a_program_runs_again_fifty_times() {
    runs_again(SMALL, 50);
}

#[test]
fn a_program_runs_again_behind_the_hole() {
    runs_again(LARGE, 5);
}

fn runs_again(memory: u64, rounds: usize) {
    let program = [
        "/bin/busybox",
        "sh",
        "-c",
        "echo out; echo $$ > /root/written",
    ];
    let mut machine = started_with(memory, &program);
    let snapshot = machine.snapshot().unwrap();
    let untouched = machine.disk().unwrap();
    let first = to_the_end(&mut machine);
    assert_eq!(first.0, Some(0));
    assert_eq!(first.1.stdout, b"out\n");
    assert!(first.2.is_some());
    for round in 0..rounds {
        machine.restore(&snapshot).unwrap();
        assert_eq!(machine.output(), Output::default());
        assert_eq!(machine.disk().unwrap().changes(), untouched.changes());
        assert_eq!(
            disk::file(&machine.disk().unwrap(), "/root/written").unwrap(),
            None
        );
        assert!(to_the_end(&mut machine) == first, "round {round}");
    }
}

/// Runs until the end and takes a snapshot every now and then, at whatever moment that is: every second is
/// forgotten when there are too many, so that a slow host has as many as a fast one.
fn moments(machine: &mut Machine, mut apart: Duration) -> Vec<Snapshot> {
    let most = if common::all() { 512 } else { 32 };
    let mut snapshots = Vec::new();
    loop {
        if snapshots.len() == most {
            snapshots = snapshots.into_iter().step_by(2).collect();
            apart *= 2;
        }
        snapshots.push(machine.snapshot().expect("a snapshot"));
        match machine.run(apart).expect("a run") {
            Stop::Hang => {}
            Stop::PowerOff { .. } => return snapshots,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn any_moment_can_be_returned_to() {
    let mut machine = started(&["/bin/busybox", "sh", "-c", BUSY]);
    let snapshots = moments(&mut machine, Duration::from_millis(40));
    let expected = to_the_end(&mut machine);
    assert_eq!(expected.0, Some(3 << 8));
    assert_eq!(expected.2.as_deref().map(|text| text.len()), Some(6 * 7));
    eprintln!("{} moments", snapshots.len());
    assert!(snapshots.len() > 3);
    // Forwards and backwards, and each a second time after it went another way.
    let count = snapshots.len();
    for index in (0..count)
        .map(|i| i * 7 % count)
        .chain((0..count).rev().step_by(3))
    {
        machine.restore(&snapshots[index]).unwrap();
        assert!(to_the_end(&mut machine) == expected, "moment {index}");
    }
}

/// A program that is in its system calls most of the time, so that the watchdog finds it on
/// its way into the kernel, where KVM does not tell the whole state.
#[test]
fn system_calls_are_neither_lost_nor_repeated() {
    let script = "i=0; while [ $i -lt 1500 ]; do i=$((i+1)); echo $i; done";
    let mut machine = started(&["/bin/busybox", "sh", "-c", script]);
    let snapshots = moments(&mut machine, Duration::from_millis(2));
    let expected = to_the_end(&mut machine);
    let lines: String = (1..=1500).map(|i| format!("{i}\n")).collect();
    assert_eq!(String::from_utf8_lossy(&expected.1.stdout), lines);
    eprintln!("{} moments", snapshots.len());
    assert!(snapshots.len() > 10);
    for (index, snapshot) in snapshots.iter().enumerate() {
        machine.restore(snapshot).unwrap();
        assert!(to_the_end(&mut machine) == expected, "moment {index}");
    }
}

#[test]
fn a_snapshot_is_good_for_another_machine() {
    let setup = setup(&["/bin/busybox", "sh", "-c", BUSY]);
    let mut machine = Machine::boot(&setup).unwrap();
    assert_eq!(machine.run(LONG).unwrap(), Stop::Started);
    let snapshots = Arc::new(moments(&mut machine, Duration::from_millis(100)));
    let expected = Arc::new(to_the_end(&mut machine));
    drop(machine);
    let workers: Vec<_> = (0..2)
        .map(|worker| {
            let mut other = Machine::boot(&setup).unwrap();
            let (snapshots, expected) = (snapshots.clone(), expected.clone());
            std::thread::spawn(move || {
                for snapshot in snapshots.iter().skip(worker).step_by(2) {
                    other.restore(snapshot).unwrap();
                    assert!(to_the_end(&mut other) == *expected);
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
}

#[test]
fn wide_registers_are_part_of_it() {
    let rounds = "20000000";
    let path = guest_program("avx");
    let path = path.to_str().unwrap();
    let host = host_tool(path, &[rounds.as_ref()]).1;
    let mut machine = started(&[path, rounds]);
    // Short enough for some to lie within the work on a fast host.
    let snapshots = moments(&mut machine, Duration::from_millis(5));
    let expected = to_the_end(&mut machine);
    assert_eq!(String::from_utf8_lossy(&expected.1.stdout), host);
    eprintln!("{} moments", snapshots.len());
    assert!(snapshots.len() > 3);
    for snapshot in snapshots.iter().rev() {
        machine.restore(snapshot).unwrap();
        assert!(to_the_end(&mut machine) == expected);
    }
}

#[test]
fn a_watchdog_is_its_machine_s_own() {
    let spin = ["/bin/busybox", "sh", "-c", "while true; do :; done"];
    let setup = setup(&spin);
    let limits = [Duration::from_millis(50), Duration::from_millis(700)];
    let threads = limits.map(|limit| {
        let mut machine = Machine::boot(&setup).unwrap();
        std::thread::spawn(move || {
            assert_eq!(machine.run(LONG).unwrap(), Stop::Started);
            let begun = Instant::now();
            assert_eq!(machine.run(limit).unwrap(), Stop::Hang);
            begun.elapsed()
        })
    });
    let elapsed = threads.map(|thread| thread.join().unwrap());
    assert!(
        elapsed[0] >= limits[0] && elapsed[1] >= limits[1],
        "{elapsed:?}"
    );
    assert!(elapsed[0] < limits[1], "{elapsed:?}");
}

/// Gives everything back as soon as something is missed.
struct AllBack(Arc<AtomicUsize>);

impl Absences for AllBack {
    fn efault(&mut self, _: &mut Vcpu, ram: &GuestRam, _: u64) -> anyhow::Result<()> {
        self.0.fetch_add(1, Ordering::Relaxed);
        ram.restrict(&Default::default())
    }

    fn restore(&mut self, ram: &GuestRam, physical: u64, _: u64) -> anyhow::Result<bool> {
        ram.give_back(physical).map(|()| true)
    }
}

#[test]
fn pages_can_be_taken_away_and_are_missed() {
    let mut machine = started(&["/bin/busybox", "echo", "there"]);
    let snapshot = machine.snapshot().unwrap();
    // The program's own pages, which are in memory as they are in its file.
    let file = std::fs::read("/bin/busybox").unwrap();
    let wanted: std::collections::HashSet<&[u8]> = file
        .chunks_exact(4096)
        .filter(|page| page.iter().any(|&byte| byte != 0))
        .collect();
    let take_away = |machine: &Machine| {
        let mut taken = 0;
        for number in 0..machine.ram().size / 4096 {
            let page = snapshot.memory().page(number as usize);
            if page.is_some_and(|page| wanted.contains(&page[..])) {
                machine.ram().withdraw(number * 4096).unwrap();
                taken += 1;
            }
        }
        taken
    };
    assert!(take_away(&machine) > 0);
    match machine.run(LONG).unwrap() {
        Stop::Died(text) => assert!(text.contains("taken away"), "{text}"),
        other => panic!("{other:?}"),
    }
    // Dead it stays, until it is put back.
    assert!(matches!(machine.run(LONG).unwrap(), Stop::Died(_)));
    machine.restore(&snapshot).unwrap();
    assert!(machine.ram().restrictions().is_empty());
    let missed = Arc::new(AtomicUsize::new(0));
    machine.absences = Box::new(AllBack(missed.clone()));
    take_away(&machine);
    let (status, output, _) = to_the_end(&mut machine);
    assert_eq!((status, output.stdout), (Some(0), b"there\n".to_vec()));
    assert_eq!(missed.load(Ordering::Relaxed), 1);
}

/// A page whose words count up from `first`.
fn frame_of(snapshot: &Snapshot, first: u64) -> u64 {
    let bytes: Vec<u8> = (first..first + 512).flat_map(u64::to_le_bytes).collect();
    let mut frames = (0..snapshot.memory().pages()).filter(|&number| {
        snapshot
            .memory()
            .page(number)
            .is_some_and(|page| page[..] == bytes)
    });
    let frame = frames.next().expect("the program's page");
    address_of(frame as u64)
}

/// Makes every user's page-table entry of one frame one of the other.
fn remap(machine: &Machine, snapshot: &Snapshot, from: u64, to: u64) -> usize {
    /// Present and the user's; whatever else is in the lowest bits, and no execution.
    const WANTED: u64 = 5;
    const FREE: u64 = 1 << 63 | 0xfff;
    let mut entries = 0;
    for number in 0..snapshot.memory().pages() {
        let Some(page) = snapshot.memory().page(number) else {
            continue;
        };
        for (index, bytes) in page.as_chunks().0.iter().enumerate() {
            let entry = u64::from_le_bytes(*bytes);
            if entry & !FREE == from && entry & WANTED == WANTED {
                let at = address_of(number as u64) + index as u64 * 8;
                let changed = (entry & FREE | to).to_le_bytes();
                let memory = &machine.ram().map;
                memory.write_slice(&changed, GuestAddress(at)).unwrap();
                entries += 1;
            }
        }
    }
    machine.ram().toggle(from).unwrap();
    entries
}

/// The processor must not go on with translations of page tables that were put back.
#[test]
fn translations_are_forgotten() {
    are_forgotten(SMALL);
}

/// Nor of tables that the code which has KVM forget them does not reach.
#[test]
fn translations_are_forgotten_behind_the_hole() {
    are_forgotten(LARGE);
}

fn are_forgotten(memory: u64) {
    let program = guest_program("page");
    let mut machine = started_with(memory, &[program.to_str().unwrap(), "200000000"]);
    while machine.output().stdout.is_empty() {
        assert_eq!(machine.run(Duration::from_millis(5)).unwrap(), Stop::Hang);
    }
    let snapshot = machine.snapshot().unwrap();
    let (one, two) = [0x1111_1111_1111_1100, 0x2222_2222_2222_2200]
        .map(|first| frame_of(&snapshot, first))
        .into();
    assert_eq!(one >= HOLE.end, memory == LARGE, "{one:#x}");
    for _ in 0..2 {
        assert!(remap(&machine, &snapshot, one, two) > 0);
        assert_eq!(machine.run(Duration::from_millis(20)).unwrap(), Stop::Hang);
        machine.restore(&snapshot).unwrap();
        let (_, output, _) = to_the_end(&mut machine);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "ready\nnone\n");
        // It would have seen the difference (and VM ends the machine when it finds its page
        // tables changed).
        machine.restore(&snapshot).unwrap();
        remap(&machine, &snapshot, one, two);
        let stop = machine.run(LONG).unwrap();
        let output = machine.output();
        assert!(output.stdout.ends_with(b"others\n"), "{stop:?} {output:?}");
        machine.restore(&snapshot).unwrap();
    }
}

/// Prints what many restores took, by parts; returns what the quickest of those took that
/// copied 64 pages at least, and what its ioctls for the processor took at the least, microseconds.
fn costs(machine: &mut Machine, snapshot: &Snapshot, run: Duration, rounds: usize) -> [f64; 2] {
    let micros = |duration: Duration| duration.as_secs_f64() * 1e6;
    let mut parts: Vec<(&str, Vec<f64>)> = Vec::new();
    let (mut totals, mut sizes, mut best) = (Vec::new(), Vec::new(), f64::MAX);
    for _ in 0..rounds {
        machine.run(run).unwrap();
        let restored = machine.restore(snapshot).unwrap();
        for (index, (name, time)) in restored.laps.iter().enumerate() {
            if parts.len() == index {
                parts.push((name, Vec::new()));
            }
            parts[index].1.push(micros(*time));
        }
        let total: Duration = restored.laps.iter().map(|lap| lap.1).sum();
        totals.push(micros(total));
        if restored.copied >= 64 {
            best = best.min(micros(total));
        }
        sizes.push((restored.dirty, restored.copied, restored.touched));
    }
    sizes.sort_unstable();
    let (dirty, copied, touched) = sizes[rounds / 2];
    eprintln!(
        "after {run:?}: {dirty} pages dirty, {copied} copied, {} touched",
        touched.map_or_else(|| "all".into(), |touched| touched.to_string())
    );
    let ioctls = parts.iter().find(|(name, _)| *name == "processor");
    let ioctls = ioctls.expect("a part").1.iter().copied();
    let ioctls = ioctls.fold(f64::MAX, f64::min);
    parts.push(("all of it", totals));
    for (name, mut times) in parts {
        times.sort_unstable_by(f64::total_cmp);
        let median = times[rounds / 2];
        eprintln!(
            "  {name:26} best {:7.2} us, median {median:7.2} us",
            times[0]
        );
    }
    [best, ioctls]
}

/// A program that writes to 64 pages and nothing else, once it has come to that.
fn writer(what: &str) -> (Machine, Snapshot) {
    let program = guest_program("dirty");
    let mut machine = started(&[program.to_str().unwrap(), "64", what]);
    while machine.output().stdout.is_empty() {
        assert_eq!(machine.run(Duration::from_millis(5)).unwrap(), Stop::Hang);
    }
    let snapshot = machine.snapshot().unwrap();
    (machine, snapshot)
}

#[test]
fn what_a_restore_costs() {
    let short = Duration::from_millis(2);
    let (mut machine, snapshot) = writer("text");
    eprintln!("A word of text in each of 64 pages");
    let [best, ioctls] = costs(&mut machine, &snapshot, short, 300);
    let (mut machine, snapshot) = writer("numbers");
    eprintln!("Numbers that look like page-table entries all over 64 pages");
    costs(&mut machine, &snapshot, short, 100);
    eprintln!("A shell and its children");
    let mut machine = started(&["/bin/busybox", "sh", "-c", BUSY]);
    // After some time the working set is there.
    assert_eq!(machine.run(Duration::from_millis(100)).unwrap(), Stop::Hang);
    let snapshot = machine.snapshot().unwrap();
    for run in [0u64, 1, 3, 10, 30] {
        costs(&mut machine, &snapshot, Duration::from_millis(run), 100);
    }
    // The goal is of a machine that does nothing else. Elsewhere the ioctls, which are a third of it there, say how
    // slow everything is.
    assert!(
        best < 100.0 || best < 4.0 * ioctls,
        "{best} us for 64 pages, {ioctls} of them ioctls"
    );
}
