//! The texts that belong to no process, in Linux's formats.

use crate::cpu;
use crate::process::state;
use crate::source::Source;
use crate::tree::Global;
use abi::endpoint::MAX_PROCESSES;
use abi::exec::ExecBackend;
use abi::kernel::Counters;
use abi::proto::pm::identity;
use abi::{Endpoint, Errno, tunable};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

const KIB: u64 = 1024;
const SECOND: u64 = 1_000_000_000;
/// Ns of one unit of CPU time in /proc (USER_HZ is 100).
pub const TICK_NS: u64 = 10_000_000;

/// The text of a global file.
pub fn text(
    source: &impl Source,
    boot_id: &[u8; 16],
    what: Global,
    reader: Endpoint,
) -> Result<Vec<u8>, Errno> {
    let text = match what {
        Global::Text(text) => text.into(),
        Global::Line(text) => format!("{text}\n"),
        Global::Meminfo => meminfo(source)?,
        Global::Cpuinfo => cpu::info(source.tsc_hz()),
        Global::Uptime => uptime(source)?,
        Global::Loadavg => loadavg(source, reader)?,
        Global::Stat => stat(source, reader)?,
        Global::Vmstat => vmstat(source)?,
        Global::Version => format!(
            "Linux version {} (absentia) (rustc) {}\n",
            identity::RELEASE,
            identity::VERSION
        ),
        Global::CommandLine => {
            let mut line = source.command_line();
            line.push(b'\n');
            return Ok(line);
        }
        Global::Uuid => {
            let mut bytes = [0; 16];
            source.random(&mut bytes);
            uuid(bytes)
        }
        Global::Randomize => format!("{}\n", if source.randomize() { 2 } else { 0 }),
        Global::BootId => uuid(*boot_id),
        Global::Counters => counters(source)?,
        Global::Frames => frames(source)?,
        // As Linux: not even root reads it.
        Global::DropCaches | Global::Crash => return Err(Errno::EACCES),
        Global::Work => work(source)?,
        Global::ExecBackend => format!("{}\n", source.exec_backend()?.name()),
        Global::Tunable(which) => format!("{}\n", source.tunable(which)?),
        Global::PtyMax => format!("{}\n", source.ptys()?.most),
        Global::PtyCount => format!("{}\n", source.ptys()?.count),
        Global::PtyReserve => format!("{}\n", source.ptys()?.reserve),
        Global::MapMax => format!("{}\n", source.map_max()?),
        Global::FileNr => format!(
            "{}\t0\t{}\n",
            source.vfs()?.files,
            source.tunable(tunable::FILE_MAX)?
        ),
        Global::ExecTrace => return source.exec_trace(),
        Global::Directory => return Err(Errno::EISDIR),
        Global::SelfLink | Global::ThreadSelf | Global::Link(_) => return Err(Errno::EINVAL),
    };
    Ok(text.into_bytes())
}

fn meminfo(source: &impl Source) -> Result<String, Errno> {
    let vm = source.vm()?;
    let used = vm.total.saturating_sub(vm.free + vm.cached);
    let mut out = String::new();
    for (name, bytes) in [
        ("MemTotal:", vm.total),
        ("MemFree:", vm.free),
        ("MemAvailable:", vm.free + vm.cached),
        ("Buffers:", 0),
        ("Cached:", vm.cached),
        ("SwapCached:", 0),
        ("Active:", used),
        ("Inactive:", vm.cached),
        ("SwapTotal:", 0),
        ("SwapFree:", 0),
        ("Dirty:", 0),
        ("Writeback:", 0),
        ("AnonPages:", used),
        ("Mapped:", 0),
        ("Shmem:", 0),
        ("Slab:", 0),
        ("SReclaimable:", 0),
        ("SUnreclaim:", 0),
        ("KernelStack:", 0),
        ("PageTables:", 0),
        ("CommitLimit:", vm.total),
        ("Committed_AS:", used),
    ] {
        let _ = writeln!(out, "{name:<16}{:>8} kB", bytes / KIB);
    }
    Ok(out)
}

/// Seconds with two decimals.
fn hundredths(ns: u64) -> String {
    format!("{}.{:02}", ns / SECOND, ns % SECOND / TICK_NS)
}

fn uptime(source: &impl Source) -> Result<String, Errno> {
    let (up, idle) = (source.uptime_ns(), source.kernel()?.idle_ns);
    Ok(format!("{} {}\n", hundredths(up), hundredths(idle)))
}

/// Processes that run, all processes, and the highest process id.
fn census(source: &impl Source, reader: Endpoint) -> (u64, u64, u32) {
    let (mut running, mut all, mut last) = (0, 0, 0);
    while let Ok(pid) = source.next_pid(last + 1) {
        last = pid;
        all += 1;
        let state = source.process(pid).map(|figures| state(&figures, reader));
        running += u64::from(state == Ok('R'));
    }
    (running, all, last)
}

fn loadavg(source: &impl Source, reader: Endpoint) -> Result<String, Errno> {
    // The load is not measured.
    let (running, all, last) = census(source, reader);
    Ok(format!("0.00 0.00 0.00 {running}/{all} {last}\n"))
}

fn stat(source: &impl Source, reader: Endpoint) -> Result<String, Errno> {
    let (kernel, pm) = (source.kernel()?, source.pm()?);
    let idle = kernel.idle_ns / TICK_NS;
    let busy = source.uptime_ns().saturating_sub(kernel.idle_ns) / TICK_NS;
    let (running, ..) = census(source, reader);
    let mut out = String::new();
    for cpu in ["cpu ", "cpu0"] {
        let _ = writeln!(out, "{cpu} {busy} 0 0 {idle} 0 0 0 0 0 0");
    }
    let _ = write!(
        out,
        "intr {}\nctxt {}\nbtime {}\nprocesses {}\nprocs_running {running}\nprocs_blocked 0\n\
         softirq 0 0 0 0 0 0 0 0 0 0 0\n",
        kernel.interrupts,
        kernel.switches,
        pm.epoch_ns / SECOND,
        pm.forks,
    );
    Ok(out)
}

fn vmstat(source: &impl Source) -> Result<String, Errno> {
    let (vm, kernel) = (source.vm()?, source.kernel()?);
    let page = abi::PAGE;
    Ok(format!(
        "nr_free_pages {}\nnr_file_pages {}\npgfault {}\npgmajfault 0\npswpin 0\npswpout 0\n",
        vm.free / page,
        vm.cached / page,
        kernel.page_faults
    ))
}

/// A random (version 4) UUID.
fn uuid(mut b: [u8; 16]) -> String {
    b[6] = b[6] & 0x0f | 0x40;
    b[8] = b[8] & 0x3f | 0x80;
    let mut out = String::new();
    for (i, byte) in b.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        let _ = write!(out, "{byte:02x}");
    }
    out.push('\n');
    out
}

/// Acts on what was written to drop_caches: 1 file pages, 2 names and inodes, 3 both.
pub fn drop_caches(source: &impl Source, text: &[u8]) -> Result<(), Errno> {
    let (data, names) = match text.trim_ascii() {
        b"1" => (true, false),
        b"2" => (false, true),
        b"3" => (true, true),
        _ => return Err(Errno::EINVAL),
    };
    source.drop_caches(data, names)
}

/// One `owner frames` a line, everything that owns frames, and last their sum.
fn frames(source: &impl Source) -> Result<String, Errno> {
    let (vm, owners) = (source.vm()?, source.frames()?);
    let mut out = String::new();
    for (name, frames) in [
        ("free", vm.free / abi::PAGE),
        ("cache", owners.cached),
        ("programs", owners.programs),
        ("tables", owners.tables),
        ("vm", owners.heap),
    ] {
        let _ = writeln!(out, "{name} {frames}");
    }
    for (name, frames) in source.services() {
        let _ = writeln!(out, "{name} {frames}");
    }
    let _ = writeln!(out, "total {}", owners.total);
    Ok(out)
}

/// The kernel's counters by name.
fn kernel_counters(kernel: &Counters) -> [(&'static str, u64); 10] {
    [
        ("kernel.visits", kernel.visits),
        ("kernel.messages", kernel.messages),
        ("kernel.copies", kernel.copies),
        ("kernel.copied_bytes", kernel.copied_bytes),
        ("kernel.soft_faults", kernel.soft_faults),
        ("kernel.memory_requests", kernel.memory_requests),
        ("kernel.page_faults", kernel.page_faults),
        ("kernel.interrupts", kernel.interrupts),
        ("kernel.switches", kernel.switches),
        ("kernel.idle_ns", kernel.idle_ns),
    ]
}

/// What was done since boot: the kernel's counters, and the processor times of the services,
/// ns. Asks nobody but the kernel, so that looking changes no cache.
fn work(source: &impl Source) -> Result<String, Errno> {
    let mut out = String::new();
    for (name, value) in kernel_counters(&source.kernel()?) {
        let _ = writeln!(out, "{name} {value}");
    }
    // Services have the first slots, without a gap.
    for slot in 1..MAX_PROCESSES {
        let Ok(info) = source.slot(slot) else {
            break;
        };
        let len = info.name.iter().position(|&b| b == 0);
        let name = &info.name[..len.unwrap_or(info.name.len())];
        let _ = writeln!(out, "cpu.{} {}", String::from_utf8_lossy(name), info.cpu_ns);
    }
    Ok(out)
}

/// A decimal number. `EINVAL`.
fn number(word: &[u8]) -> Result<u64, Errno> {
    let text = core::str::from_utf8(word).ok();
    text.and_then(|text| text.parse().ok()).ok_or(Errno::EINVAL)
}

/// Takes what was written to a file that can be written. `EINVAL` when it means nothing.
pub fn write(source: &impl Source, what: Global, text: &[u8]) -> Result<(), Errno> {
    let word = text.trim_ascii();
    match what {
        Global::DropCaches => drop_caches(source, word),
        Global::Crash => source.crash(word),
        Global::ExecBackend => {
            let backend = ExecBackend::named(word).ok_or(Errno::EINVAL)?;
            source.set_exec_backend(backend)
        }
        Global::Tunable(which) => source.set_tunable(which, number(word)?),
        Global::PtyMax => source.set_pty_max(number(word)?),
        Global::MapMax => source.set_map_max(number(word)?),
        Global::ExecTrace => match word {
            b"0" => source.set_exec_trace(false),
            b"1" => source.set_exec_trace(true),
            _ => Err(Errno::EINVAL),
        },
        _ => Err(Errno::EACCES),
    }
}

/// One `name value` a line: what leak tests compare.
fn counters(source: &impl Source) -> Result<String, Errno> {
    let (kernel, vm, vfs, pm) = (source.kernel()?, source.vm()?, source.vfs()?, source.pm()?);
    let owners = source.frames()?;
    let mut out = String::new();
    let others = [
        ("vm.total", vm.total),
        ("vm.free", vm.free),
        ("vm.cached", vm.cached),
        ("vm.spaces", vm.spaces),
        ("vm.regions", vm.regions),
        ("vm.waiting", vm.waiting),
        ("vm.used_frames", vm.used_frames),
        ("vm.heap_frames", owners.heap),
        ("vm.table_frames", owners.tables),
        ("vm.cached_frames", owners.cached),
        ("vm.service_frames", owners.services),
        ("vm.program_frames", owners.programs),
        ("vfs.files", vfs.files),
        ("vfs.vnodes", vfs.vnodes),
        ("vfs.pipes", vfs.pipes),
        ("vfs.tasks", vfs.tasks),
        ("vfs.grants", vfs.grants),
        ("vfs.processes", vfs.processes),
        ("vfs.repairs", vfs.repairs),
        ("pm.processes", pm.processes),
        ("pm.zombies", pm.zombies),
        ("pm.forks", pm.forks),
    ];
    for (name, value) in kernel_counters(&kernel).into_iter().chain(others) {
        let _ = writeln!(out, "{name} {value}");
    }
    Ok(out)
}
