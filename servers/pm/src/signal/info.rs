//! siginfo: who raised a signal and why.

use super::set::{SIGCHLD, SIGFPE, SIGILL, SIGSEGV};
use linux_raw_sys::general as linux;

/// Bytes of Linux's siginfo_t.
pub const SIGINFO_BYTES: usize = 128;

/// si_code: raised by kill.
pub const SI_USER: i32 = linux::SI_USER as i32;
/// si_code: raised by the system.
pub const SI_KERNEL: i32 = 0x80;
/// si_code: raised by tkill, tgkill.
pub const SI_TKILL: i32 = linux::SI_TKILL;
/// si_code: a POSIX timer expired.
pub const SI_TIMER: i32 = -2;

/// The first 48 bytes of a siginfo_t, which are all that ever carry something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Info(pub [u64; 6]);

/// Why SIGCHLD is raised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChildReport {
    /// The child.
    pub pid: u32,
    /// Its real user.
    pub uid: u32,
    /// CLD_*.
    pub code: i32,
    /// Exit status or signal.
    pub status: i32,
    /// Its CPU time in clock ticks.
    pub ticks: u64,
}

impl Info {
    /// Number and code, nothing else.
    pub fn new(signal: i32, code: i32) -> Info {
        Info([signal as u32 as u64, code as u32 as u64, 0, 0, 0, 0])
    }

    /// Raised by the system without a cause to name.
    pub fn kernel(signal: i32) -> Info {
        Info::new(signal, SI_KERNEL)
    }

    /// Raised by process `pid` of user `uid`.
    pub fn from_process(signal: i32, code: i32, pid: u32, uid: u32) -> Info {
        let mut info = Info::new(signal, code);
        info.0[2] = pid as u64 | (uid as u64) << 32;
        info
    }

    /// Raised by an instruction about `address`.
    pub fn fault(signal: i32, code: i32, address: u64) -> Info {
        let mut info = Info::new(signal, code);
        info.0[2] = address;
        info
    }

    /// About a child.
    pub fn child(report: ChildReport) -> Info {
        let mut info = Info::from_process(SIGCHLD, report.code, report.pid, report.uid);
        info.0[3] = report.status as u32 as u64;
        info.0[4] = report.ticks;
        info
    }

    /// A POSIX timer expired: its id, the overruns and the user's value.
    pub fn timer(signal: i32, id: i32, overrun: i32, value: u64) -> Info {
        let mut info = Info::new(signal, SI_TIMER);
        info.0[2] = id as u32 as u64 | (overrun as u32 as u64) << 32;
        info.0[3] = value;
        info
    }

    /// si_signo.
    pub fn signal(&self) -> i32 {
        self.0[0] as i32
    }

    /// si_code.
    pub fn code(&self) -> i32 {
        self.0[1] as i32
    }

    /// The same for another signal.
    pub fn with_signal(mut self, signal: i32) -> Info {
        self.0[0] = self.0[0] & !0xffff_ffff | signal as u32 as u64;
        self
    }

    /// As siginfo_t.
    pub fn to_bytes(&self) -> [u8; SIGINFO_BYTES] {
        let mut bytes = [0; SIGINFO_BYTES];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(self.0) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }
}

/// Signal and si_code for a processor exception. SIGFPE's code is [`float_code`]'s when the
/// FPU raised it.
pub fn of_exception(vector: u64) -> (i32, i32) {
    use super::set::{SIGBUS, SIGTRAP};
    match vector {
        0 => (SIGFPE, linux::FPE_INTDIV as i32),
        1 => (SIGTRAP, 2),
        3 => (SIGTRAP, SI_KERNEL),
        4 | 5 => (SIGSEGV, SI_KERNEL),
        6 => (SIGILL, linux::ILL_ILLOPN as i32),
        11 | 12 => (SIGBUS, SI_KERNEL),
        17 => (SIGBUS, 1),
        16 | 19 => (SIGFPE, 0),
        _ => (SIGSEGV, SI_KERNEL),
    }
}

/// SIGFPE's si_code for an x87 (16) or SSE (19) exception, from the FXSAVE area: the first
/// flag that is up and not masked.
pub fn float_code(vector: u64, area: &[u8]) -> i32 {
    let half = |at: usize| match area.get(at..at + 2) {
        Some(&[low, high]) => u16::from_le_bytes([low, high]),
        _ => 0,
    };
    let raised = if vector == 16 {
        half(2) & !half(0)
    } else {
        half(24) & !(half(24) >> 7)
    };
    // Invalid, denormal, divide, overflow, underflow, precision.
    match (raised & 0x3f).trailing_zeros() {
        0 => linux::FPE_FLTINV as i32,
        1 | 4 => linux::FPE_FLTUND as i32,
        2 => linux::FPE_FLTDIV as i32,
        3 => linux::FPE_FLTOVF as i32,
        5 => linux::FPE_FLTRES as i32,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_float_exception_names_its_cause() {
        let mut area = [0; 512];
        area[0] = 0x3b; // x87 control: all masked but division by zero
        area[2] = 0x25; // status: invalid, division, precision
        assert_eq!(float_code(16, &area), linux::FPE_FLTDIV as i32);
        // MXCSR: overflow and precision up, all masked but overflow.
        area[24..26].copy_from_slice(&(0x1f80u16 & !0x400 | 0x28).to_le_bytes());
        assert_eq!(float_code(19, &area), linux::FPE_FLTOVF as i32);
        assert_eq!(float_code(19, &[]), 0);
    }
}
