//! PTRACE_GET_SYSCALL_INFO: the call a tracee stopped at, as one structure.

use super::Why;
use crate::calls::Caller;
use crate::server::Pm;
use crate::system::System;
use abi::Errno;
use abi::kernel::Registers;
use alloc::vec::Vec;
use linux_raw_sys::ptrace as linux;

/// AUDIT_ARCH_X86_64.
const ARCH: u32 = 0xc000_003e;
/// The highest error number: results from its negation on are errors.
const MAX_ERRNO: u64 = 4095;

/// struct ptrace_syscall_info, as far as it means something.
fn encode(why: Why, r: &Registers) -> Vec<u8> {
    let op = match why {
        Why::Entry => linux::PTRACE_SYSCALL_INFO_ENTRY,
        Why::Exit => linux::PTRACE_SYSCALL_INFO_EXIT,
        _ => linux::PTRACE_SYSCALL_INFO_NONE,
    };
    let mut out = Vec::with_capacity(80);
    out.extend(op.to_le_bytes());
    out.extend(ARCH.to_le_bytes());
    out.extend(r.rip.to_le_bytes());
    out.extend(r.rsp.to_le_bytes());
    match why {
        Why::Entry => {
            for word in [r.orig_rax, r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9] {
                out.extend(word.to_le_bytes());
            }
        }
        Why::Exit => {
            out.extend(r.rax.to_le_bytes());
            out.push((r.rax > u64::MAX - MAX_ERRNO) as u8);
        }
        _ => {}
    }
    out
}

impl<S: System> Pm<S> {
    /// Writes at most `size` bytes of it; the answer is how many there are.
    pub(super) fn get_syscall_info(
        &mut self,
        caller: Caller,
        slot: usize,
        size: u64,
        place: u64,
    ) -> Result<u64, Errno> {
        let who = self.table.thread(slot).ok_or(Errno::ESRCH)?.endpoint;
        let registers = self.sys.registers(who)?;
        let trace = self.trace(slot).ok_or(Errno::ESRCH)?;
        let good = trace.has(linux::PTRACE_O_TRACESYSGOOD);
        // Without that option a call's stop cannot be told from another trap.
        let why = match trace.stop {
            Some(stop) if good => stop.why,
            _ => Why::Job,
        };
        let bytes = encode(why, &registers);
        let n = (bytes.len() as u64).min(size) as usize;
        self.write_bytes(caller.who, place, &bytes[..n])?;
        Ok(bytes.len() as u64)
    }
}
