//! Failures on purpose: `/proc/PID/exec-fault`. A step of an exec asks here before it is done;
//! the one that a test has named fails as if the server that does it had refused.

use crate::state::Caller;
use abi::Errno;
use core::cell::Cell;

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

    fn step(&self) -> Result<(), Errno> {
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

impl Caller {
    /// Before a step of an exec: the failure that is wanted here, if one is.
    pub fn exec_step(&self) -> Result<(), Errno> {
        self.process.exec_fault.step()
    }
}
