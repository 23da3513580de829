//! The texts of one process, in Linux's formats.

use crate::global::TICK_NS;
use crate::source::Source;
use crate::tree::decimal;
use abi::proto::pm::{ProcessFigures, ProcessName};
use abi::proto::vm::{RegionInfo, SpaceFigures};
use abi::{Endpoint, Errno, PAGE, PAGE_SIZE};
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt::Write;
use rt::room;

const KIB: u64 = 1024;
/// Longest argument or environment text that is copied.
const STRINGS_MAX: u64 = 1 << 20;

/// [`RegionInfo::flags`] beside the protection.
mod region {
    pub const SHARED: u64 = 1 << 8;
    pub const STACK: u64 = 1 << 9;
    pub const HEAP: u64 = 1 << 10;
    pub const FILE: u64 = 1 << 11;
}

/// The program's name (comm): up to a NUL, at most 15 bytes.
pub fn comm(name: &ProcessName) -> Vec<u8> {
    let bytes = name.name.iter().take(15);
    bytes.copied().take_while(|&byte| byte != 0).collect()
}

/// The size of its memory; nothing for a zombie.
fn space(source: &impl Source, who: Endpoint) -> SpaceFigures {
    let none = SpaceFigures {
        size: 0,
        resident: 0,
        shared: 0,
        brk: 0,
    };
    if !who.is_process() {
        return none;
    }
    source.space(who).unwrap_or(none)
}

/// Its regions in address order.
fn regions(source: &impl Source, who: Endpoint) -> impl Iterator<Item = RegionInfo> {
    let last = if who.is_process() { u64::MAX } else { 0 };
    (0..last).map_while(move |index| source.region(who, index).ok())
}

/// The state's letter. Who reads it runs, although just then it waits for the answer.
pub fn state(figures: &ProcessFigures, reader: Endpoint) -> char {
    if figures.who == reader {
        return 'R';
    }
    char::from_u32(figures.session_state.1)
        .filter(char::is_ascii_alphabetic)
        .unwrap_or('S')
}

/// What stat and status say of regions.
#[derive(Default)]
struct Layout {
    code: (u64, u64),
    stack: (u64, u64),
    heap: u64,
    code_bytes: u64,
    data_bytes: u64,
}

impl Layout {
    /// What a stranger sees: only whether there is a program.
    fn hidden(program: bool) -> Layout {
        let code = if program { (1, 1) } else { (0, 0) };
        Layout {
            code,
            ..Layout::default()
        }
    }

    fn of(source: &impl Source, who: Endpoint) -> Layout {
        let mut layout = Layout::default();
        for r in regions(source, who) {
            let len = r.end.saturating_sub(r.start);
            if r.flags & region::STACK != 0 {
                layout.stack = (r.start, r.end);
            } else if r.flags & 4 != 0 {
                layout.code_bytes += len;
                if layout.code.1 == 0 {
                    layout.code = (r.start, r.end);
                }
            } else if r.flags & 2 != 0 {
                layout.data_bytes += len;
            }
            if r.flags & region::HEAP != 0 && layout.heap == 0 {
                layout.heap = r.start;
            }
        }
        layout
    }
}

/// /proc/PID/stat.
pub fn stat(source: &impl Source, pid: u32, reader: Endpoint) -> Result<Vec<u8>, Errno> {
    let (figures, name) = (source.process(pid)?, source.name(pid)?);
    let space = space(source, figures.who);
    let layout = Layout::of(source, figures.who);
    // Where things lie is for those who may look at them.
    let looks = source.may_look(pid, reader).is_ok();
    let layout = match looks {
        true => layout,
        false => Layout::hidden(figures.who.is_process()),
    };
    let strings = source.strings(figures.who).ok().filter(|_| looks);
    let strings = strings.map_or([0; 4], |s| [s.arg_start, s.arg_end, s.env_start, s.env_end]);
    let (parent, group) = figures.parent_group;
    let session = figures.session_state.0;
    let (tty, foreground) = match source.terminal(session) {
        Some(terminal) => (terminal.device, i64::from(terminal.group)),
        None => (0, -1),
    };
    let mut out = format!("{pid} (").into_bytes();
    out.extend(comm(&name));
    let mut rest = String::new();
    let _ = writeln!(
        rest,
        ") {state} {parent} {group} {session} {tty} {foreground} 0 0 0 0 0 {cpu} 0 0 0 20 0 \
         {threads} 0 {start} {size} {resident} 18446744073709551615 {code} {code_end} {stack} 0 0 \
         {pending} {blocked} {ignored} {caught} 0 0 0 17 0 0 0 0 0 0 0 0 {heap} {args} {args_end} \
         {env} {env_end} 0",
        state = state(&figures, reader),
        cpu = figures.cpu_ns / TICK_NS,
        threads = name.threads,
        start = figures.start_ns / TICK_NS,
        size = space.size,
        resident = space.resident / PAGE,
        code = layout.code.0,
        code_end = layout.code.1,
        stack = layout.stack.1,
        // The old field holds the first 31 signals.
        pending = figures.pending & 0x7fff_ffff,
        blocked = name.blocked & 0x7fff_ffff,
        ignored = name.ignored & 0x7fff_ffff,
        caught = name.caught & 0x7fff_ffff,
        heap = layout.heap,
        args = strings[0],
        args_end = strings[1],
        env = strings[2],
        env_end = strings[3],
    );
    out.extend(rest.bytes());
    Ok(out)
}

/// /proc/PID/status.
pub fn status(source: &impl Source, pid: u32, reader: Endpoint) -> Result<Vec<u8>, Errno> {
    let (figures, name) = (source.process(pid)?, source.name(pid)?);
    let who = source.credentials(pid)?;
    let ([ruid, uid, suid], [rgid, gid, sgid]) = (
        [who.users.0, who.users.1, who.saved.0],
        [who.groups.0, who.groups.1, who.saved.1],
    );
    let (queued, queued_most) = who.queued;
    let (parent, group) = figures.parent_group;
    let session = figures.session_state.0;
    let tracer = name.tracer;
    let group_id = source.pid_of(figures.who).unwrap_or(pid);
    let state = match state(&figures, reader) {
        'R' => "R (running)",
        'T' => "T (stopped)",
        't' => "t (tracing stop)",
        'Z' => "Z (zombie)",
        'D' => "D (disk sleep)",
        'X' => "X (dead)",
        _ => "S (sleeping)",
    };
    // A zombie has no files.
    let files = source.files(figures.who).ok();
    let umask = files.as_ref().map_or_else(String::new, |files| {
        format!("Umask:\t{:04o}\n", files.umask)
    });
    let descriptors = files.map_or(0, |files| files.descriptors);
    let privileges = source.privileges(pid)?;
    let (fsuid, fsgid) = privileges.file_ids;
    let groups = (0..).map_while(|index| source.group(pid, index).ok());
    let groups = groups.map(|group| format!("{group} ")).collect::<String>();
    let mut out = b"Name:\t".to_vec();
    out.extend(comm(&name));
    let mut rest = String::new();
    let _ = write!(
        rest,
        "\n{umask}State:\t{state}\nTgid:\t{group_id}\nNgid:\t0\nPid:\t{pid}\nPPid:\t{parent}\n\
         TracerPid:\t{tracer}\nUid:\t{ruid}\t{uid}\t{suid}\t{fsuid}\nGid:\t{rgid}\t{gid}\t{sgid}\t{fsgid}\n\
         FDSize:\t{descriptors}\nGroups:\t{groups}\nNStgid:\t{pid}\nNSpid:\t{pid}\nNSpgid:\t{group}\nNSsid:\t{session}\n",
    );
    if figures.who.is_process() {
        let space = space(source, figures.who);
        let layout = Layout::of(source, figures.who);
        for (key, bytes) in [
            ("VmPeak", space.size),
            ("VmSize", space.size),
            ("VmLck", 0),
            ("VmPin", 0),
            ("VmHWM", space.resident),
            ("VmRSS", space.resident),
            ("RssAnon", space.resident.saturating_sub(space.shared)),
            ("RssFile", space.shared),
            ("RssShmem", 0),
            ("VmData", layout.data_bytes),
            ("VmStk", layout.stack.1 - layout.stack.0),
            ("VmExe", layout.code_bytes),
            ("VmLib", 0),
            ("VmPTE", 0),
            ("VmSwap", 0),
        ] {
            let _ = writeln!(rest, "{key}:\t{:>8} kB", bytes / KIB);
        }
    }
    let _ = write!(
        rest,
        "Threads:\t{}\nSigQ:\t{queued}/{queued_most}\nSigPnd:\t{:016x}\nShdPnd:\t{:016x}\nSigBlk:\t{:016x}\n\
         SigIgn:\t{:016x}\nSigCgt:\t{:016x}\nCapInh:\t{:016x}\nCapPrm:\t{:016x}\n\
         CapEff:\t{:016x}\nCapBnd:\t{:016x}\nCapAmb:\t{:016x}\nNoNewPrivs:\t{}\nSeccomp:\t0\n\
         Cpus_allowed:\t1\nCpus_allowed_list:\t0\nMems_allowed:\t1\nMems_allowed_list:\t0\n\
         voluntary_ctxt_switches:\t0\nnonvoluntary_ctxt_switches:\t0\n",
        name.threads,
        0,
        figures.pending,
        name.blocked,
        name.ignored,
        name.caught,
        privileges.inheritable,
        privileges.permitted,
        privileges.effective,
        // The bounding set is full, and there are no ambient capabilities.
        abi::capability::ALL,
        0,
        u8::from(privileges.no_new),
    );
    out.extend(rest.bytes());
    Ok(out)
}

/// /proc/PID/statm.
pub fn statm(source: &impl Source, pid: u32) -> Result<Vec<u8>, Errno> {
    let who = source.process(pid)?.who;
    let space = space(source, who);
    let layout = Layout::of(source, who);
    let data = layout.data_bytes + (layout.stack.1 - layout.stack.0);
    let [size, resident, shared, code, data] = [
        space.size,
        space.resident,
        space.shared,
        layout.code_bytes,
        data,
    ]
    .map(|b| b / PAGE);
    Ok(format!("{size} {resident} {shared} {code} 0 {data} 0\n").into_bytes())
}

/// /proc/PID/comm.
pub fn comm_text(source: &impl Source, pid: u32) -> Result<Vec<u8>, Errno> {
    let mut text = comm(&source.name(pid)?);
    text.push(b'\n');
    Ok(text)
}

/// What exec left on the stack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Strings {
    /// cmdline.
    Arguments,
    /// environ.
    Environment,
    /// auxv.
    Auxiliary,
}

/// /proc/PID/cmdline, environ or auxv. What is not in memory ends it.
pub fn strings(source: &impl Source, pid: u32, what: Strings) -> Result<Vec<u8>, Errno> {
    let who = source.process(pid)?.who;
    let Ok(places) = source.strings(who) else {
        // A zombie has none.
        return Ok(Vec::new());
    };
    let (start, end) = match what {
        Strings::Arguments => (places.arg_start, places.arg_end),
        Strings::Environment => (places.env_start, places.env_end),
        Strings::Auxiliary => (places.auxv_start, places.auxv_end),
    };
    let end = end.min(start.saturating_add(STRINGS_MAX));
    let mut text = Vec::new();
    let mut at = start;
    while at < end {
        let len = (PAGE_SIZE - (at % PAGE) as usize).min((end - at) as usize);
        let mut piece = vec![0; len];
        if source.memory(who, at, &mut piece).is_err() {
            break;
        }
        room::extend(&mut text, &piece)?;
        at += len as u64;
    }
    Ok(text)
}

/// /proc/PID/maps.
pub fn maps(source: &impl Source, pid: u32) -> Result<Vec<u8>, Errno> {
    let who = source.process(pid)?.who;
    // Regions of one file stand together mostly.
    let mut last: Option<((u64, u64), Vec<u8>)> = None;
    let mut out = Vec::new();
    for r in regions(source, who) {
        let file = r.flags & region::FILE != 0;
        let letter = |bit, letter| if r.flags & bit != 0 { letter } else { '-' };
        let shared = if r.flags & region::SHARED != 0 {
            's'
        } else {
            'p'
        };
        let (dev, ino) = if file { (r.dev, r.ino) } else { (0, 0) };
        let mut line = format!(
            "{:08x}-{:08x} {}{}{}{shared} {:08x} {:02x}:{:02x} {ino} ",
            r.start,
            r.end,
            letter(1, 'r'),
            letter(2, 'w'),
            letter(4, 'x'),
            if file { r.offset } else { 0 },
            dev >> 8 & 0xfff,
            dev & 0xff | dev >> 12 & 0xf_ff00,
        )
        .into_bytes();
        if file && last.as_ref().is_none_or(|last| last.0 != (r.dev, r.ino)) {
            let path = source.mapped_path(who, r.dev, r.ino);
            last = Some(((r.dev, r.ino), path.unwrap_or_default()));
        }
        let name: &[u8] = match &last {
            Some((_, path)) if file => path,
            _ if r.flags & region::HEAP != 0 => b"[heap]",
            _ if r.flags & region::STACK != 0 => b"[stack]",
            _ => b"",
        };
        if !name.is_empty() {
            // Linux starts names in column 73.
            line.resize(line.len().max(73), b' ');
            line.extend(name);
        }
        line.push(b'\n');
        room::extend(&mut out, &line)?;
    }
    Ok(out)
}

/// /proc/PID/fdinfo/N.
pub fn descriptor_info(source: &impl Source, pid: u32, fd: i32) -> Result<Vec<u8>, Errno> {
    let who = source.process(pid)?.who;
    let found = source.next_fd(who, fd)?;
    if found.fd != fd {
        return Err(Errno::ENOENT);
    }
    let text = format!(
        "pos:\t{}\nflags:\t0{:o}\nmnt_id:\t1\n",
        found.position, found.flags
    );
    Ok(text.into_bytes())
}

/// What is written to exec-fault: the step, and the number of an error if it is not to be
/// ENOMEM.
pub fn fault(text: &[u8]) -> Option<(u32, Errno)> {
    let mut words = text.trim_ascii().split(|&b| b == b' ');
    let step = decimal(words.next()?)?;
    let errno = match words.next() {
        Some(word) => i32::try_from(decimal(word)?).ok()?,
        None => Errno::ENOMEM.0,
    };
    let valid = (1..=133).contains(&errno) && words.next().is_none();
    valid.then_some((step, Errno(errno)))
}
