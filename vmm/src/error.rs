//! What can go wrong with a machine: the errors of the library's edge.

use std::borrow::Cow;
use std::error::Error;

use crate::memory::{MAXIMUM, MINIMUM};

/// What the host or a file said, with its own causes behind it ([`Error::source`]).
pub type Cause = Box<dyn Error + Send + Sync + 'static>;

/// What goes wrong when a machine is configured, built, run or looked into. The text says what
/// to do; the reason is the [source](Error::source).
///
/// How a guest ends is no error, however it ends: see [`crate::machine::Ending`] and
/// [`crate::lab::Stop`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MachineError {
    /// The configuration contradicts itself: how.
    #[error("{0}")]
    Configuration(String),
    /// The program cannot be started; found out before there is a guest.
    #[error("{0}")]
    Program(NoSuchProgram),
    /// The root disk, or what is to be put onto it, cannot be used.
    #[error("the root disk (--root names a directory or an ext2 image)")]
    Disk(#[source] Cause),
    /// Kernel, archive and command line do not make a guest of this size.
    #[error("the guest cannot be loaded")]
    Images(#[source] Cause),
    /// The host does not give so much memory, or nobody does.
    #[error("no guest memory (from {} MiB to {} GiB: ask for less)", MINIMUM >> 20, MAXIMUM >> 30)]
    Memory(#[source] Cause),
    /// `/dev/kvm` is not there, does not answer, or lacks something.
    #[error(
        "no machine on KVM (`absentia doctor` says what is missing; --accel qemu does without)"
    )]
    Kvm(#[source] Cause),
    /// QEMU is not there, or does not start.
    #[error("no machine under QEMU (Debian's package is qemu-system-x86)")]
    Qemu(#[source] Cause),
    /// This process cannot be confined as was asked.
    #[error("this process cannot be confined (--sandbox off does without)")]
    Sandbox(#[source] Cause),
    /// The state of a machine cannot be read or written. The machine is good for nothing: boot
    /// another.
    #[error("the machine is lost: boot another")]
    State(#[source] Cause),
    /// A page that cannot be made absent: why, and what could be.
    #[error("the page cannot be made absent")]
    Page(#[source] Cause),
    /// The host refuses what every machine needs: descriptors, threads, entropy.
    #[error("the host refuses what a machine needs")]
    Host(#[source] Cause),
}

/// The program cannot be started; found out before there is a guest.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {what}")]
pub struct NoSuchProgram {
    path: String,
    what: Cow<'static, str>,
    code: u8,
}

impl NoSuchProgram {
    pub(crate) fn new(path: &str, what: impl Into<Cow<'static, str>>, code: u8) -> NoSuchProgram {
        NoSuchProgram {
            path: path.to_string(),
            what: what.into(),
            code,
        }
    }

    /// What a shell reports: 127 not found, 126 found and not executable.
    pub fn code(&self) -> u8 {
        self.code
    }
}

impl MachineError {
    /// The status the `absentia` command exits with.
    pub fn code(&self) -> u8 {
        match self {
            MachineError::Program(program) => program.code(),
            _ => crate::ending::FAILED,
        }
    }
}

/// Says of an error what it is about.
pub(crate) trait About<T> {
    /// The result, with errors of this kind. One that has its kind keeps it.
    fn about(self, kind: fn(Cause) -> MachineError) -> Result<T, MachineError>;
}

impl<T, E: Into<anyhow::Error>> About<T> for Result<T, E> {
    fn about(self, kind: fn(Cause) -> MachineError) -> Result<T, MachineError> {
        self.map_err(|error| {
            let known = error.into().downcast::<MachineError>();
            known.unwrap_or_else(|other| kind(other.into()))
        })
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn the_first_to_know_says_what_it_is() {
        let disk: Result<(), _> = Err(anyhow!("no ext2")).about(MachineError::Disk);
        let around = disk.about(MachineError::Host).unwrap_err();
        assert!(matches!(around, MachineError::Disk(_)));
        assert_eq!(around.code(), crate::ending::FAILED);
        let chain = format!("{:#}", anyhow::Error::from(around));
        assert!(chain.ends_with("image): no ext2"), "{chain}");
    }

    #[test]
    fn the_whole_chain_is_kept() {
        let refused = std::io::Error::from_raw_os_error(libc::EACCES);
        let error = Err::<(), _>(refused).context("opening /dev/kvm");
        let error = error.about(MachineError::Kvm).unwrap_err();
        let opening = error.source().unwrap();
        assert_eq!(opening.to_string(), "opening /dev/kvm");
        assert!(opening.source().unwrap().to_string().contains("denied"));
    }
}
