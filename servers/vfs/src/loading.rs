//! How exec loads programs, as the server keeps it, and its failures on purpose
//! (`/proc/PID/exec-fault`), as a process does. A step of an exec asks there before it is done; the
//! one that a test has named fails as if the server that does it had refused.

use crate::stages::Trace;
use abi::Errno;
use abi::exec::ExecBackend;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

/// How programs are loaded.
#[derive(Default)]
pub struct Control {
    /// The way.
    pub backend: Cell<ExecBackend>,
    /// Where the time goes.
    pub trace: Trace,
    /// What [`ExecBackend::Buffer`] copies through, between two uses, so that none pays for getting it.
    pub buffer: RefCell<Vec<u8>>,
}

/// The step that is to fail.
#[derive(Default)]
pub struct Fault {
    /// Steps up to it; 0 for none.
    left: Cell<u32>,
    errno: Cell<i32>,
}

impl Fault {
    /// Names the step, counted from 1; 0 for none.
    pub fn set(&self, step: u32, errno: Errno) {
        self.left.set(step);
        self.errno.set(errno.0);
    }

    /// Steps that are left up to it; 0 when there is none.
    pub fn left(&self) -> u32 {
        self.left.get()
    }

    /// A step is about to be made: the failure that is wanted here, if one is.
    pub fn step(&self) -> Result<(), Errno> {
        let left = self.left.get();
        if left == 0 {
            return Ok(());
        }
        self.left.set(left - 1);
        if left == 1 {
            return Err(Errno(self.errno.get()));
        }
        Ok(())
    }
}
