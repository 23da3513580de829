//! Which step of an exec failed, and failures that a test ordered.

use abi::Errno;
use core::fmt;
use libexec::Step;

/// A step of a service's exec.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Finding its image in the boot archive.
    Find,
    /// Reading the image's header.
    Header,
    /// What the header says.
    Plan,
    /// The first contents of its stack.
    Arguments,
    /// What it may do.
    Privileges,
    /// Its scheduling priority.
    Priority,
    /// One of libexec's.
    Step(Step),
    /// Copying its arguments onto its stack.
    Stack,
    /// Its device's registers.
    Device,
    /// Its first instruction.
    Start,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stage::Find => write!(f, "finding its image in the boot archive"),
            Stage::Header => write!(f, "reading the header of its image"),
            Stage::Plan => write!(f, "placing its image"),
            Stage::Arguments => write!(f, "building its arguments"),
            Stage::Privileges => write!(f, "setting its privileges"),
            Stage::Priority => write!(f, "setting its priority"),
            Stage::Step(Step::Clear) => write!(f, "making its address space"),
            Stage::Step(
                Step::MapAnonymous { address, len, .. } | Step::MapFile { address, len, .. },
            ) => write!(f, "mapping {len} bytes at {address:#x}"),
            Stage::Step(Step::CopyIn { address, len, .. }) => {
                write!(f, "copying {len} bytes to {address:#x}")
            }
            Stage::Step(Step::Protect { address, len, .. }) => {
                write!(f, "protecting {len} bytes at {address:#x}")
            }
            Stage::Stack => write!(f, "copying its arguments"),
            Stage::Device => write!(f, "giving it its device"),
            Stage::Start => write!(f, "starting it"),
        }
    }
}

/// Why there is no service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Failure {
    /// How many steps there were up to it and with it.
    pub number: u32,
    /// Which step it was.
    pub stage: Stage,
    /// What it said.
    pub errno: Errno,
}

impl Failure {
    /// The boot archive has no such image.
    pub fn is_missing(&self) -> bool {
        (self.stage, self.errno) == (Stage::Find, Errno::ENOENT)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure {
            number,
            stage,
            errno,
        } = self;
        write!(f, "step {number} of its exec, {stage}: {errno}")
    }
}

/// A failure that a test ordered: instead of being done, a step fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    number: u32,
    errno: Errno,
}

impl Fault {
    /// What `N:ERRNO` says: the `N`th step, from 1, and a Linux error number.
    pub fn parse(text: &str) -> Option<Fault> {
        let (number, errno) = text.split_once(':')?;
        let number = number.parse().ok().filter(|&n| n > 0)?;
        let errno = errno.parse().ok().filter(|&n| n > 0).map(Errno)?;
        Some(Fault { number, errno })
    }
}

/// Counts the steps of one exec.
pub(super) struct Steps {
    number: u32,
    fault: Option<Fault>,
}

impl Steps {
    pub(super) fn new(fault: Option<Fault>) -> Steps {
        Steps { number: 0, fault }
    }

    /// Does the next step, unless it is the one to fail.
    pub(super) fn take<T>(
        &mut self,
        stage: Stage,
        step: impl FnOnce() -> Result<T, Errno>,
    ) -> Result<T, Failure> {
        self.number += 1;
        let number = self.number;
        let result = match self.fault {
            Some(fault) if fault.number == number => Err(fault.errno),
            _ => step(),
        };
        result.map_err(|errno| Failure {
            number,
            stage,
            errno,
        })
    }
}
