//! `absentia doctor`: what this host is, and what it lacks.

use std::fmt::Write;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use kvm_bindings::{KVM_API_VERSION, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::Kvm;

use crate::explore::scenario::root::tool;
use crate::kvm::gate::{self, Cpl0};
use crate::machine::{Accelerator, Ending};
use crate::program::Program;
use crate::sandbox::Sandbox;

/// The device.
const KVM: &str = "/dev/kvm";
/// A program that has done nothing after this time never will.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The program that QEMU is.
const QEMU: &str = "qemu-system-x86_64";

#[derive(Debug, Args)]
pub struct Doctor {}

/// Something that was looked at.
struct Finding {
    /// What.
    about: &'static str,
    /// How it is, for a person.
    says: String,
    /// The command that mends it, or what else does.
    mend: Option<String>,
}

impl Finding {
    fn good(about: &'static str, says: impl Into<String>) -> Finding {
        Finding {
            about,
            says: says.into(),
            mend: None,
        }
    }

    fn bad(about: &'static str, says: impl Into<String>, mend: impl Into<String>) -> Finding {
        Finding {
            mend: Some(mend.into()),
            ..Finding::good(about, says)
        }
    }
}

impl Doctor {
    pub fn execute(self) -> Result<u8> {
        let mut findings = Vec::new();
        let usable = kvm(&mut findings);
        findings.push(qemu());
        let accelerator = match usable {
            true => Accelerator::Kvm,
            false => Accelerator::Qemu,
        };
        let (works, finding) = match runs(accelerator) {
            Ok(says) => (true, Finding::good("run", says)),
            Err(error) => (
                false,
                Finding::bad(
                    "run",
                    format!("does not work: {error:#}"),
                    "mend what is above",
                ),
            ),
        };
        findings.push(finding);
        findings.extend(tools());
        super::print(&text(&findings))?;
        Ok(u8::from(!works))
    }
}

/// The findings, a line each, and what mends them below.
fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for Finding { about, says, mend } in findings {
        let _ = writeln!(text, "{about:<9} {says}");
        if let Some(mend) = mend {
            let _ = writeln!(text, "{:<9}   -> {mend}", "");
        }
    }
    text
}

/// Looks at KVM; whether it can be used.
fn kvm(findings: &mut Vec<Finding>) -> bool {
    let kvm = match open() {
        Ok(kvm) => kvm,
        Err((says, mend)) => {
            findings.push(Finding::bad("kvm", format!("{KVM} {says}"), mend));
            findings.push(Finding::good(
                "host",
                "no KVM to ask: without it the guest runs under QEMU, through the direct gate",
            ));
            return false;
        }
    };
    findings.push(Finding::good("kvm", format!("{KVM} is usable")));
    let host = Cpl0::of_host(&kvm).and_then(|cpl0| {
        let supported = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES);
        gate::check(cpl0, &supported.context("KVM_GET_SUPPORTED_CPUID")?)?;
        Ok(cpl0)
    });
    match host {
        Ok(cpl0) => {
            let what = match cpl0 {
                Cpl0::Native => format!("KVM with hardware virtualization ({})", extension()),
                Cpl0::Interpreted => {
                    "KVM without hardware virtualization: CPL0 is interpreted".into()
                }
            };
            findings.push(Finding::good("host", what));
            let gate = match cpl0 {
                Cpl0::Native => "direct: the guest's kernel runs at CPL0",
                Cpl0::Interpreted => "deprivileged: the guest's kernel runs at CPL3, behind stubs",
            };
            findings.push(Finding::good("gate", gate));
            true
        }
        Err(error) => {
            let instead = format!(
                "run under QEMU: absentia run --accel qemu; {}",
                get(&QEMU_IS)
            );
            findings.push(Finding::bad("host", format!("{error:#}"), instead));
            false
        }
    }
}

/// The processor's extension for virtual machines, as this process sees it.
fn extension() -> &'static str {
    let (vmx, svm) = extensions();
    match (vmx, svm) {
        (true, _) => "VMX",
        (_, true) => "SVM",
        _ => "of a kind that the processor does not name",
    }
}

/// Whether the processor says that it has VMX, and SVM.
fn extensions() -> (bool, bool) {
    use std::arch::x86_64::__cpuid;
    let vmx = __cpuid(1).ecx >> 5 & 1 != 0;
    let svm = __cpuid(0x8000_0000).eax > 0x8000_0000 && __cpuid(0x8000_0001).ecx >> 2 & 1 != 0;
    (vmx, svm)
}

/// Opens KVM and makes a machine. What is wrong, and what mends it.
fn open() -> Result<Kvm, (String, String)> {
    let kvm = Kvm::new().map_err(|error| {
        let kind = std::io::Error::from_raw_os_error(error.errno()).kind();
        let loaded = Path::new("/sys/module/kvm").exists();
        (
            trouble(kind, &error.to_string()),
            mend(kind, extensions(), loaded),
        )
    })?;
    let version = kvm.get_api_version();
    if version != KVM_API_VERSION as i32 {
        return Err((
            format!("is not KVM's: it says {version} to the question for its version"),
            format!("{}rm {KVM} && {0}mknod -m 666 {KVM} c 10 232", sudo()),
        ));
    }
    match kvm.create_vm() {
        Ok(_) => Ok(kvm),
        Err(error) => Err((
            format!("makes no machine: {error}"),
            "end the other hypervisor that uses the processor".into(),
        )),
    }
}

/// What keeps the device from being opened.
fn trouble(kind: ErrorKind, error: &str) -> String {
    match kind {
        ErrorKind::NotFound => "is not there".into(),
        ErrorKind::PermissionDenied => "may not be opened by this user".into(),
        _ => format!("does not open: {error}"),
    }
}

/// What makes the device open. `extensions` are the processor's, VMX and SVM; `loaded`, whether
/// the kernel has KVM.
fn mend(kind: ErrorKind, extensions: (bool, bool), loaded: bool) -> String {
    let sudo = sudo();
    match (kind, extensions) {
        (ErrorKind::PermissionDenied, _) => match group(Path::new(KVM)) {
            Some(group) => {
                format!("{sudo}usermod -aG {group} $USER, then log in again")
            }
            None => format!("{sudo}chmod 666 {KVM}; in a container: start it with --device {KVM}"),
        },
        (ErrorKind::NotFound, _) if loaded => {
            format!(
                "{sudo}mknod -m 666 {KVM} c 10 232; in a container: start it with --device {KVM}"
            )
        }
        (_, (true, _)) => format!("{sudo}modprobe kvm_intel"),
        (_, (_, true)) => format!("{sudo}modprobe kvm_amd"),
        _ => format!(
            "switch virtualization on in the firmware, or nested virtualization in the machine \
             around this one; or run under QEMU: {}",
            get(&QEMU_IS)
        ),
    }
}

/// The group that a file belongs to, where its members may read and write it, and are not root.
fn group(path: &Path) -> Option<String> {
    let metadata = path.metadata().ok()?;
    if metadata.gid() == 0 || metadata.mode() & 0o060 != 0o060 {
        return None;
    }
    let groups = std::fs::read_to_string("/etc/group").ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let id: u32 = fields.nth(1)?.parse().ok()?;
        (id == metadata.gid()).then(|| name.to_string())
    })
}

/// Runs the embedded root's program; how that went.
fn runs(accelerator: Accelerator) -> Result<String> {
    let mut program = Program::new::<&str>([]);
    program.accelerator = Some(accelerator);
    program.timeout = Some(TIMEOUT);
    program.sandbox = Sandbox::Thread;
    // What is confined is so for good: a thread that ends with the run.
    let run = std::thread::Builder::new().spawn(move || program.capture(b""));
    let captured = run.context("starting a thread")?.join();
    let outcome = captured.map_err(|_| anyhow!("a panic"))??.outcome;
    match (&outcome.ending, outcome.started) {
        (Ending::Program(0), Some(started)) => Ok(format!(
            "works: under {} a program's first instruction came after {:.2} s",
            match accelerator {
                Accelerator::Kvm => "KVM",
                Accelerator::Qemu => "QEMU",
            },
            started.as_secs_f64()
        )),
        (ending, _) => bail!(
            "{ending:?}; {}",
            outcome.log.last().cloned().unwrap_or_default()
        ),
    }
}

/// A package by its names for [`MANAGERS`].
struct Package([&'static str; 5]);

/// Package managers: the program, and how it installs.
const MANAGERS: [(&str, &str); 5] = [
    ("apt-get", "apt-get install"),
    ("dnf", "dnf install"),
    ("zypper", "zypper install"),
    ("pacman", "pacman -S"),
    ("apk", "apk add"),
];
const QEMU_IS: Package = Package([
    "qemu-system-x86",
    "qemu-system-x86",
    "qemu-x86",
    "qemu-system-x86",
    "qemu-system-x86_64",
]);
const MKE2FS_IS: Package = Package(["e2fsprogs"; 5]);
const CC_IS: Package = Package([
    "gcc libc6-dev",
    "gcc glibc-static",
    "gcc glibc-devel-static",
    "gcc",
    "gcc musl-dev",
]);
const BUILD_IS: Package = Package([
    "make tcc libc6-dev",
    "make tcc",
    "make tcc",
    "make tcc",
    "make tcc musl-dev",
]);
const BUSYBOX_IS: Package = Package([
    "busybox-static",
    "busybox",
    "busybox-static",
    "busybox",
    "busybox-static",
]);

/// The command that installs a package on this host.
fn get(package: &Package) -> String {
    let managers = MANAGERS.iter().zip(package.0);
    let found = managers
        .into_iter()
        .find(|((name, _), _)| find(name).is_some());
    match found {
        Some(((_, install), names)) => format!("{}{install} {names}", sudo()),
        None => format!("install what Debian calls {}", package.0[0]),
    }
}

/// What a command that wants root begins with.
fn sudo() -> &'static str {
    match rustix::process::geteuid().is_root() {
        true => "",
        false => "sudo ",
    }
}

/// Where a program is, also one that an ordinary user's PATH does not lead to.
fn find(name: &str) -> Option<PathBuf> {
    let beside = ["/usr/sbin", "/sbin"].map(|place| Path::new(place).join(name));
    tool(name).or_else(|| beside.into_iter().find(|path| path.is_file()))
}

fn qemu() -> Finding {
    let what = "for --accel qemu, and where KVM is not";
    match find(QEMU) {
        Some(path) => Finding::good("qemu", format!("{}, {what}", path.display())),
        None => Finding::bad("qemu", format!("not here: {what}"), get(&QEMU_IS)),
    }
}

/// What single commands want of the host.
fn tools() -> Vec<Finding> {
    let one = |about, what: &str, package, path: Option<PathBuf>| match path {
        Some(path) => Finding::good(about, format!("{}, {what}", path.display())),
        None => Finding::bad(about, format!("not here: {what}"), get(package)),
    };
    let make_and_tcc = find("make").and(find("tcc"));
    vec![
        one(
            "mke2fs",
            "for run --root DIRECTORY",
            &MKE2FS_IS,
            find("mke2fs"),
        ),
        one("cc", "for scenarios of your own in C", &CC_IS, static_cc()),
        one(
            "tcc",
            "with make for the build in bench exec, and for the scenario compile",
            &BUILD_IS,
            make_and_tcc,
        ),
        one(
            "busybox",
            "for the scenario shell-script, and a shell: run -- busybox sh",
            &BUSYBOX_IS,
            static_busybox(),
        ),
    ]
}

/// The C compiler, if it has a static C library.
fn static_cc() -> Option<PathBuf> {
    let cc = find("cc")?;
    let asked = Command::new(&cc)
        .arg("-print-file-name=libc.a")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    // What it does not have it repeats.
    asked.stdout.starts_with(b"/").then_some(cc)
}

fn static_busybox() -> Option<PathBuf> {
    let path = find("busybox")?;
    let content = std::fs::read(&path).ok()?;
    let elf = goblin::elf::Elf::parse(&content).ok()?;
    elf.interpreter.is_none().then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_kvm_shut_has_a_remedy() {
        const NONE: (bool, bool) = (false, false);
        for (kind, extensions, loaded, remedy) in [
            (
                ErrorKind::NotFound,
                (true, false),
                false,
                "modprobe kvm_intel",
            ),
            (
                ErrorKind::NotFound,
                (false, true),
                false,
                "modprobe kvm_amd",
            ),
            (ErrorKind::NotFound, NONE, false, "nested virtualization"),
            (ErrorKind::NotFound, (true, false), true, "mknod"),
            (ErrorKind::Other, (false, true), true, "modprobe kvm_amd"),
        ] {
            let said = mend(kind, extensions, loaded);
            assert!(said.contains(remedy), "{kind:?} {extensions:?}: {said}");
        }
        assert!(trouble(ErrorKind::PermissionDenied, "").contains("may not"));
        assert!(trouble(ErrorKind::Other, "No such device").contains("No such device"));
    }

    #[test]
    fn remedies_stand_below_what_they_mend() {
        let findings = [
            Finding::good("kvm", "is usable"),
            Finding::bad("cc", "not here", "get it"),
        ];
        assert_eq!(
            text(&findings),
            "kvm       is usable\ncc        not here\n            -> get it\n"
        );
    }
}
