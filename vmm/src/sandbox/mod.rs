//! What this process gives up before a guest runs, so that a guest that takes it over has little.
//!
//! [`confine`] is for the thread that is about to start the others, and holds for them, too: no
//! new privileges, no capabilities, no file but those that are open ([`landlock`]), no network.
//! [`Sandbox::enter`] is for each thread on its own: the system calls of its [`Role`], and at any
//! other a SIGSYS ends the process ([`crate::last_words`]).
//!
//! [`landlock`]: https://docs.kernel.org/userspace-api/landlock.html
//!
//! Why so: docs/decisions/016-sandbox.md.

use std::path::Path;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use clap::ValueEnum;
use landlock::{
    ABI, Access, AccessFs, AccessNet, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs};

use crate::log::complain;

mod filter;

pub use filter::Role;

/// Whether a run gives up what it does not need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sandbox {
    /// Everything that this host can take away.
    Strict,
    /// Likewise, but for the limits of the whole process, which goes on with other things; the
    /// run has a thread of its own.
    #[value(skip)]
    Thread,
    /// Nothing.
    Off,
}

/// Descriptors there may be: their numbers stay below.
const DESCRIPTORS: u64 = 64;
/// Longest file that is written beside the disk image, bytes: a report.
const FILE_MAX: u64 = 64 << 20;
/// The newest Landlock that is asked for; an older host does what it can.
const LANDLOCK: ABI = ABI::V6;

static CONFINED: AtomicBool = AtomicBool::new(false);

/// Whether a part of this process is confined.
pub fn is_confined() -> bool {
    CONFINED.load(Ordering::Relaxed)
}

/// What a run needs from outside while the guest runs.
#[derive(Clone, Copy, Debug)]
pub struct Bounds<'a> {
    /// A directory that is written into; it is made if need be.
    pub report: Option<&'a Path>,
    /// Size of the disk image, bytes.
    pub file: u64,
    /// The process does nothing but this run, which starts no program: its limits may shrink.
    pub alone: bool,
    /// Machines are made, too: of `/dev/kvm` and the guest's images.
    pub machines: bool,
}

/// Closes descriptors that this process was started with beside the standard three.
pub fn close_inherited() {
    // SAFETY: called at the start, before any descriptor is owned by a value.
    unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0u32) };
}

/// Confines the calling thread and those that it will start. What this host lacks is said on
/// standard error, a line each.
pub fn confine(bounds: &Bounds<'_>) -> Result<()> {
    if let Some(directory) = bounds.report {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("the report directory {}", directory.display()))?;
    }
    set_no_new_privs(true).context("PR_SET_NO_NEW_PRIVS")?;
    if bounds.alone {
        limit(bounds)?;
    }
    if let Some(lack) = lack(restrict_files(bounds).context("Landlock")?) {
        missing(lack);
    }
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, none).context("dropping capabilities")?;
    if let Some(directory) = bounds.report {
        // Root could write anywhere before it gave that up.
        tempfile::tempfile_in(directory).with_context(|| {
            format!(
                "sandbox: without capabilities the report directory {} cannot be written \
                 (--sandbox off keeps them)",
                directory.display()
            )
        })?;
    }
    CONFINED.store(true, Ordering::Relaxed);
    Ok(())
}

fn limit(bounds: &Bounds<'_>) -> Result<()> {
    let at_most = |resource, most: u64| {
        let hard = getrlimit(resource)
            .maximum
            .map_or(most, |hard| hard.min(most));
        let limit = Rlimit {
            current: Some(hard),
            maximum: Some(hard),
        };
        setrlimit(resource, limit).with_context(|| format!("the limit {resource:?}"))
    };
    at_most(Resource::Nofile, DESCRIPTORS)?;
    let regular = |fd| {
        rustix::fs::fstat(fd)
            .is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file())
    };
    // The program's output may be as long as it likes.
    if !regular(rustix::stdio::stdout()) && !regular(rustix::stdio::stderr()) {
        at_most(Resource::Fsize, bounds.file.max(FILE_MAX))?;
    }
    Ok(())
}

/// Nothing can be opened any more but what [`Bounds`] names, and directories, whose names the
/// advice about missing files is made of. How much of it this host can do.
fn restrict_files(bounds: &Bounds<'_>) -> Result<RulesetStatus> {
    let mut scope = landlock::make_bitflags!(Scope::{AbstractUnixSocket});
    if bounds.alone {
        // QEMU is outside, and ended by a signal.
        scope |= Scope::Signal;
    }
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(LANDLOCK))?
        .handle_access(AccessNet::from_all(LANDLOCK))?
        .scope(scope)?
        .create()?
        .add_rule(PathBeneath::new(PathFd::new("/")?, AccessFs::ReadDir))?;
    if let Some(directory) = bounds.report {
        let all = AccessFs::from_all(LANDLOCK);
        rules = rules.add_rule(PathBeneath::new(PathFd::new(directory)?, all))?;
    }
    if bounds.machines {
        let device = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
        rules = rules.add_rule(PathBeneath::new(PathFd::new("/dev/kvm")?, device))?;
        if let Some(images) = crate::images::directory() {
            rules = rules.add_rule(PathBeneath::new(PathFd::new(images)?, AccessFs::ReadFile))?;
        }
    }
    Ok(rules.restrict_self()?.ruleset)
}

/// What a host lacks that can do so much of Landlock.
fn lack(status: RulesetStatus) -> Option<&'static str> {
    match status {
        RulesetStatus::FullyEnforced => None,
        RulesetStatus::PartiallyEnforced => {
            Some("Landlock of version 6 (Linux 6.12), but an older one that keeps from less")
        }
        RulesetStatus::NotEnforced => Some("Landlock"),
    }
}

fn missing(what: &str) {
    complain(&format!(
        "absentia: sandbox: this host has no {what}: the run goes on without"
    ));
}

impl Sandbox {
    /// Confines the whole process for machines of the laboratory, which it makes and runs from now
    /// on, and for reports in this directory. Everything else is open or in memory already.
    pub fn laboratory(self, role: Role, report: Option<&Path>) -> Result<()> {
        if self == Sandbox::Off {
            return Ok(());
        }
        // Signal handlers are set now: this one, and the C library's own at the first thread.
        crate::control::install_kick()?;
        let first = std::thread::Builder::new().spawn(|| ());
        let _ = first.context("starting a thread")?.join();
        confine(&Bounds {
            report,
            file: 0,
            // Machines are files in memory, as many as there are processors.
            alone: false,
            machines: true,
        })?;
        self.enter(role)
    }

    /// Takes from the calling thread, for good, all system calls that are not its role's.
    pub fn enter(self, role: Role) -> Result<()> {
        static SAID: Once = Once::new();
        if self == Sandbox::Off {
            return Ok(());
        }
        CONFINED.store(true, Ordering::Relaxed);
        let made = || format!("the filter of {role:?}");
        let program = filter::program(&role).with_context(made)?;
        let applied = match filter::threads_only(&role).with_context(made)? {
            Some(front) => seccompiler::apply_filter(&front),
            None => Ok(()),
        };
        match applied.and_then(|()| seccompiler::apply_filter(&program)) {
            Ok(()) => Ok(()),
            // A kernel without it knows neither call.
            Err(seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error))
                if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) =>
            {
                SAID.call_once(|| missing("seccomp"));
                Ok(())
            }
            Err(error) => Err(error).with_context(|| format!("the filter of {role:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_host_lacks_is_said() {
        assert_eq!(lack(RulesetStatus::FullyEnforced), None);
        let older = lack(RulesetStatus::PartiallyEnforced);
        assert!(older.is_some_and(|text| text.contains("older")));
        assert_eq!(lack(RulesetStatus::NotEnforced), Some("Landlock"));
    }
}
