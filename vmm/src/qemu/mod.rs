//! The guest under QEMU's microvm machine: the same kernel, archive and disk, the same host
//! link on a virtio console, the kernel's log on the serial port.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use abi::lab;
use anyhow::{Context, Result, bail};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{FdFlags, fcntl_setfd};

use crate::config::{Config, Outcome};
use crate::control::{Reason, Stop, spawn};
use crate::devices::serial::Lines;
use crate::ending::{Ended, conclude, supervise};
use crate::error::{About, MachineError};
use crate::hostlink::Link;
use crate::hostlink::input::Input;
use crate::inspect::watch::{Asked, attend};
use crate::kvm::exits::Counts;
use crate::kvm::gate::{self, Gate};
use crate::log::complain;
use crate::sandbox::{self, Role, Sandbox};

pub mod attach;
pub mod watch;

use watch::Watch;

/// The program, and the Debian package that has it.
const PROGRAM: &str = "qemu-system-x86_64";
const PACKAGE: &str = "qemu-system-x86";

/// Descriptors that QEMU inherits.
struct Files {
    kernel: OwnedFd,
    archive: OwnedFd,
    disk: Option<File>,
    read_only: bool,
    snapshot: bool,
    link: OwnedFd,
    serial: OwnedFd,
    ram: Arc<File>,
}

impl Files {
    fn all(&self) -> Vec<RawFd> {
        let mut all: Vec<RawFd> = [&self.kernel, &self.archive, &self.link, &self.serial]
            .map(AsRawFd::as_raw_fd)
            .to_vec();
        all.extend(self.disk.as_ref().map(AsRawFd::as_raw_fd));
        all.push(self.ram.as_raw_fd());
        all
    }
}

/// Runs a machine under QEMU to its end.
pub fn run(config: Config) -> Result<Outcome> {
    let watch = Watch::new(config.memory, None).about(MachineError::Memory)?;
    run_watched(config, watch)
}

/// Likewise; `watch` hears what the guest says to us.
pub fn run_watched(config: Config, watch: Watch) -> Result<Outcome> {
    let begun = Instant::now();
    let log = config.log;
    if config.gate == Some(Gate::Deprivileged) {
        let what = "under QEMU the guest always uses the direct gate";
        return Err(MachineError::Configuration(what.into()).into());
    }

    let kernel = memory_file("kernel", |put| put(0, &config.kernel))?;
    let archive = memory_file("archive", |put| config.archive.write(put))?;
    rustix::fs::ftruncate(&archive, config.archive.len()).context("size of the archive")?;
    crate::images::release(config.kernel, config.archive);
    let (link_here, link_there) = UnixStream::pair().context("socket for the host link")?;
    let (serial_here, serial_there) = UnixStream::pair().context("socket for the serial log")?;
    let files = Files {
        kernel,
        archive,
        read_only: config.disk.as_ref().is_some_and(|disk| disk.read_only),
        snapshot: config.disk.as_ref().is_some_and(|disk| disk.snapshot),
        disk: config.disk.map(|disk| disk.file),
        link: link_there.into(),
        serial: serial_there.into(),
        ram: watch.ram.clone(),
    };
    let command = arguments(&files, config.memory, &config.cmdline, &config.qemu_args);
    let mut child = start(&command, &files, config.sandbox).about(MachineError::Qemu)?;
    // QEMU has them; the sockets end when it does.
    drop(files);
    let confined = config.sandbox;
    if confined != Sandbox::Off {
        let bounds = sandbox::Bounds {
            report: config.report.as_deref(),
            // The disk is QEMU's.
            file: 0,
            alone: false,
            machines: false,
        };
        sandbox::confine(&bounds).about(MachineError::Sandbox)?;
    }

    let stop = Stop::new()?;
    let input = Input::new()?;
    let ended = Arc::new(Ended::new()?);
    let mut lines = Lines::new(log.clone());
    let inspector = watch.inspector(config.report.clone())?;
    let heard = watch.clone();
    lines.listen(move |line| heard.lock().line(line));
    let started = lines.started.clone();
    let link = Link::new(config.stdout, config.stderr, input.clone(), stop.clone());
    let link = Arc::new(Mutex::new(link));
    let output_thread = {
        let (link, ended, stopping) = (link.clone(), ended.clone(), stop.clone());
        let stream = link_here.try_clone().context("host link")?;
        spawn("hostlink", move || {
            if let Err(error) = confined.enter(Role::Socket) {
                stopping.request(Reason::Failure(format!("{error:#}")));
            }
            receive(stream, &link);
            ended.set();
        })?
    };
    let serial_thread = {
        let stop = stop.clone();
        spawn("serial", move || match confined.enter(Role::Socket) {
            Ok(()) => copy_log(serial_here, lines),
            Err(error) => stop.request(Reason::Failure(format!("{error:#}"))),
        })?
    };
    let input_thread = {
        let (input, stop) = (input.clone(), stop.clone());
        spawn("stdin", move || {
            if let Err(error) = confined.enter(Role::Socket) {
                return stop.request(Reason::Failure(format!("{error:#}")));
            }
            input.pump(config.stdin, &stop, || deliver(&input, &link_here));
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
    confined
        .enter(Role::Supervisor {
            child: Some(child.id()),
            report: config.report.is_some(),
        })
        .about(MachineError::Sandbox)?;
    let exited = || link.try_lock().ok()?.exit().map(|exit| exit.at);
    let ordered = supervise(
        &stop,
        &ended,
        config.signals.as_ref(),
        config
            .timeout
            .and_then(|timeout| begun.checked_add(timeout)),
        &input,
        exited,
        || started.get().is_some(),
        || asked.report(),
    );
    asked.close();
    let reason = stop.reason();
    if reason.is_some() {
        // It may have ended meanwhile.
        let _ = child.kill();
    }
    let status = child.wait().context("waiting for QEMU")?;
    stop.request(Reason::Lingering);
    for thread in [output_thread, serial_thread, input_thread] {
        thread
            .join()
            .map_err(|_| anyhow::anyhow!("a thread panicked"))?;
    }

    let link = link.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let (exit, absent) = (link.exit(), link.absent());
    let end = match &watch.lock().lacks {
        Some(what) => gate::lacking("this virtual processor lacks", what),
        None => format!("QEMU {}", describe(status)),
    };
    Ok(Outcome {
        ending: conclude(exit, ordered, reason, end),
        gate: Some(Gate::Direct),
        exits: Counts::default(),
        counters: None,
        started: started.get().map(|at| at.duration_since(begun)),
        elapsed: begun.elapsed(),
        log: log.kept(),
        absent,
        advice: None,
    })
}

fn memory_file(
    name: &str,
    fill: impl FnOnce(&mut dyn FnMut(u64, &[u8]) -> Result<()>) -> Result<()>,
) -> Result<OwnedFd> {
    let fd = memfd_create(name, MemfdFlags::CLOEXEC).context("memfd")?;
    let file = File::from(fd);
    fill(&mut |offset, bytes| file.write_all_at(bytes, offset).context("filling a memfd"))?;
    Ok(file.into())
}

/// QEMU's arguments.
fn arguments(files: &Files, memory: u64, cmdline: &str, extra: &[String]) -> Vec<String> {
    // QEMU opens the files anew through its own descriptors.
    let path = |fd: RawFd| format!("/proc/self/fd/{fd}");
    let mut arguments: Vec<String> = [
        "-M",
        "microvm,acpi=off,x-option-roms=off,rtc=off,pit=off,pic=off,isa-serial=on,auto-kernel-cmdline=on",
        "-cpu",
        "max",
        "-no-reboot",
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-monitor",
        "none",
        // The modern interface, the only one the guest knows.
        "-global",
        "virtio-mmio.force-legacy=false",
        "-device",
        "isa-debug-exit,iobase=0xf4,iosize=0x04",
    ]
    .map(String::from)
    .into();
    let mut add = |option: &str, value: String| arguments.extend([option.into(), value]);
    if !extra
        .iter()
        .any(|argument| argument == "-accel" || argument == "-enable-kvm")
    {
        add("-accel", "tcg".into());
    }
    add("-m", format!("{}K", memory >> 10));
    let ram = path(files.ram.as_raw_fd());
    let backend = format!("memory-backend-file,id=ram,share=on,size={memory},mem-path={ram}");
    add("-object", backend);
    add("-machine", "memory-backend=ram".into());
    add("-kernel", path(files.kernel.as_raw_fd()));
    add("-initrd", path(files.archive.as_raw_fd()));
    if !cmdline.is_empty() {
        add("-append", cmdline.into());
    }
    if let Some(disk) = &files.disk {
        // Errors are the guest's to see; by default a full host disk stops the machine for good.
        add(
            "-drive",
            format!(
                "id=root,if=none,format=raw,werror=report,rerror=report,readonly={},snapshot={},file={}",
                if files.read_only { "on" } else { "off" },
                // The changes in a file without a name.
                if files.snapshot { "on" } else { "off" },
                path(disk.as_raw_fd())
            ),
        );
        add("-device", "virtio-blk-device,drive=root".into());
    }
    add(
        "-chardev",
        format!("socket,id=link,fd={}", files.link.as_raw_fd()),
    );
    add("-device", "virtio-serial-device".into());
    add("-device", "virtconsole,chardev=link".into());
    add(
        "-chardev",
        format!("socket,id=log,fd={}", files.serial.as_raw_fd()),
    );
    add("-serial", "chardev:log".into());
    arguments.extend(extra.iter().cloned());
    arguments
}

fn start(arguments: &[String], files: &Files, sandbox: Sandbox) -> Result<Child> {
    let inherited = files.all();
    let mut command = Command::new(PROGRAM);
    let strict = sandbox != Sandbox::Off;
    if strict && has_sandbox() {
        command.args(["-sandbox", SANDBOX]);
    }
    // A group of its own: a ^C at the terminal is for us to handle.
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .process_group(0);
    // SAFETY: between fork and exec the closure makes two kinds of system calls on plain
    // numbers, without allocation or locks.
    unsafe {
        command.pre_exec(move || {
            use rustix::process::{Signal, set_parent_process_death_signal};
            set_parent_process_death_signal(Some(Signal::KILL))?;
            if strict {
                rustix::thread::set_no_new_privs(true)?;
            }
            for &fd in &inherited {
                // `files` outlives this: the descriptor is open.
                let fd = rustix::fd::BorrowedFd::borrow_raw(fd);
                fcntl_setfd(fd, FdFlags::empty())?;
            }
            Ok(())
        });
    }
    match command.spawn() {
        Ok(child) => Ok(child),
        Err(error) if error.kind() == ErrorKind::NotFound => bail!(
            "running under QEMU needs the program {PROGRAM} (Debian package {PACKAGE}), which \
             is not here"
        ),
        Err(error) => Err(error).with_context(|| format!("starting {PROGRAM}")),
    }
}

/// QEMU's own filter: no old calls, no other identity, no program, no priorities.
const SANDBOX: &str = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

/// Whether this host's QEMU has such a filter.
fn has_sandbox() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| {
        let asked = Command::new(PROGRAM)
            .args(["-sandbox", SANDBOX, "-version"])
            .stdin(Stdio::null())
            .output();
        // Without the program at all, starting it says so.
        let Ok(output) = asked else { return false };
        let has = output.status.success();
        if !has {
            complain("absentia: sandbox: this QEMU has no -sandbox of its own");
        }
        has
    })
}

/// Hands what the guest writes to the link, until QEMU ends.
fn receive(mut stream: UnixStream, link: &Mutex<Link>) {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(len) => {
                link.lock()
                    .unwrap_or_else(|poisoned| poisoned.into_inner())
                    .receive(&buffer[..len]);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // QEMU was killed with input for it unread.
            Err(_) => return,
        }
    }
}

/// Hands what there is for the guest to QEMU, which buffers it: at most the credit.
fn deliver(input: &Input, mut stream: &UnixStream) {
    let mut buffer = [0; 4096];
    loop {
        let len = input.take(&mut buffer);
        // A QEMU that is gone is noticed where its output is read.
        if len == 0 || stream.write_all(&buffer[..len]).is_err() {
            return;
        }
    }
}

fn copy_log(mut stream: UnixStream, mut lines: Lines) {
    let mut buffer = [0; 1024];
    while let Ok(len @ 1..) = stream.read(&mut buffer) {
        // Log lines cannot fail to be written.
        let _ = lines.write_all(&buffer[..len]);
    }
}

/// How QEMU ended, in terms of the guest.
fn describe(status: ExitStatus) -> String {
    match status.code() {
        Some(code) if code == (lab::DEBUG_EXIT_STUCK << 1 | 1) as i32 => {
            "ended: nobody in the guest can run any more".into()
        }
        // isa-debug-exit makes 2 * n + 1 of what the guest writes.
        Some(code) if code == (lab::DEBUG_EXIT_PANIC << 1 | 1) as i32 => {
            "ended: the guest's kernel or a core server died".into()
        }
        Some(code) if code & 0x81 == 0x81 => format!(
            "ended: the guest powered off with status {} and no program's status",
            code as u32 >> 1 & !lab::DEBUG_EXIT_STATUS
        ),
        Some(code) if code & 1 == 1 && code > 1 => {
            format!(
                "ended: the guest powered off with status {} and no program's status",
                code >> 1
            )
        }
        Some(0) => "ended: the guest reset or shut down the machine".into(),
        Some(code) => format!("failed with status {code}; its message is above"),
        None => format!("ended: {status}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_names_every_file() {
        let null = || OwnedFd::from(File::open("/dev/null").unwrap());
        let files = Files {
            kernel: null(),
            archive: null(),
            disk: Some(null().into()),
            read_only: false,
            snapshot: false,
            ram: Arc::new(File::open("/dev/null").unwrap()),
            link: null(),
            serial: null(),
        };
        let line = arguments(&files, 64 << 20, "", &["-icount".into(), "shift=0".into()]).join(" ");
        for fd in [&files.kernel, &files.archive] {
            assert!(line.contains(&format!("/proc/self/fd/{}", fd.as_raw_fd())));
        }
        assert!(line.contains("-m 65536K"));
        assert!(line.contains("-accel tcg"));
        assert!(line.ends_with("-icount shift=0"));
        let line = arguments(&files, 64 << 20, "x=y", &["-accel".into(), "kvm".into()]).join(" ");
        assert!(!line.contains("tcg"));
        assert!(line.contains("-append x=y"));
    }

    #[test]
    fn exit_statuses_are_told_apart() {
        use std::os::unix::process::ExitStatusExt;
        let code = |code: i32| describe(ExitStatus::from_raw(code << 8));
        assert!(code(15).contains("status 7"));
        assert!(code(0xff).contains("died"));
        assert!(code(0x81).contains("status 0"));
        assert!(code(0x87).contains("status 3"));
        assert!(code(1).contains("failed"));
        assert!(code(2).contains("failed"));
        assert!(code(0).contains("reset"));
    }
}
