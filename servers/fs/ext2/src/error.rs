//! Why a disk is not what it should be.

use core::fmt;

use crate::Errno;

/// Why a disk was not mounted or made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error {
    /// The error number.
    pub errno: Errno,
    /// What is the matter.
    pub reason: &'static str,
    /// The incompatible features that are unknown here, else 0.
    pub features: u32,
}

impl Error {
    pub(crate) fn new(errno: Errno, reason: &'static str) -> Error {
        Error {
            errno,
            reason,
            features: 0,
        }
    }
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Error {
        Error::new(errno, "the operation failed")
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.reason, self.errno)?;
        if self.features != 0 {
            write!(f, ", incompatible features {:#x}", self.features)?;
        }
        Ok(())
    }
}

impl core::error::Error for Error {}
