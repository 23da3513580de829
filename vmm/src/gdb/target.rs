//! What gdb can do with a stopped machine.

use std::num::NonZeroUsize;

use abi::kernel::{Registers, rts};
use gdbstub::common::{Signal, Tid};
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::multithread as threads;
use gdbstub::target::ext::base::reverse_exec::{
    ReverseCont, ReverseContOps, ReverseStep, ReverseStepOps,
};
use gdbstub::target::ext::breakpoints as breaks;
use gdbstub::target::ext::monitor_cmd::{ConsoleOutput, MonitorCmd, MonitorCmdOps};
use gdbstub::target::ext::thread_extra_info::{ThreadExtraInfo, ThreadExtraInfoOps};
use gdbstub::target::{Target, TargetError, TargetResult};
use kvm_bindings::kvm_regs;
use vm_memory::{Bytes, GuestAddress};

use super::registers::{Frame, X64};
use super::session::{Resume, Session};
use crate::inject::tables;
use crate::inspect::graph::Graph;
use crate::inspect::table::{self, Process};
use crate::log::complain;
use crate::memory::Ram;

/// The vCPU as it stands. Processes are their slots' numbers and one.
pub const KERNEL: Tid = NonZeroUsize::MIN;

const USER_SEGMENTS: [u32; 6] = [0x33, 0x2b, 0x2b, 0x2b, 0, 0];
const EFAULT: u8 = libc::EFAULT as u8;

fn tid(process: &Process) -> Tid {
    KERNEL.saturating_add(process.endpoint.slot())
}

/// The pieces of a range, each within a page: physical address and bytes; `None` where a page is
/// missing or the range wraps.
fn pieces(ram: &Ram, cr3: u64, start: u64, len: usize) -> Option<Vec<(u64, usize)>> {
    start.checked_add(len as u64)?;
    let (mut at, mut left) = (start, len as u64);
    let mut pieces = Vec::new();
    while left > 0 {
        let piece = left.min(abi::PAGE - at % abi::PAGE);
        pieces.push((tables::translate(ram, cr3, at)?, piece as usize));
        (at, left) = (at + piece, left - piece);
    }
    Some(pieces)
}

impl Session<'_> {
    fn process(&self, thread: Tid) -> Option<&Process> {
        self.table.processes.iter().find(|p| tid(p) == thread)
    }

    fn cr3(&mut self, thread: Tid) -> Option<u64> {
        let cr3 = if thread == KERNEL {
            self.player.machine().registers().ok()?.1.cr3
        } else {
            self.process(thread)?.cr3
        };
        (cr3 != 0).then_some(cr3)
    }
}

impl Target for Session<'_> {
    type Arch = X64;
    type Error = anyhow::Error;

    fn base_ops(&mut self) -> BaseOps<'_, X64, anyhow::Error> {
        BaseOps::MultiThread(self)
    }

    fn support_breakpoints(&mut self) -> Option<breaks::BreakpointsOps<'_, Self>> {
        Some(self)
    }

    fn support_monitor_cmd(&mut self) -> Option<MonitorCmdOps<'_, Self>> {
        Some(self)
    }
}

impl MonitorCmd for Session<'_> {
    fn handle_monitor_cmd(
        &mut self,
        command: &[u8],
        mut out: ConsoleOutput<'_>,
    ) -> anyhow::Result<()> {
        let text = self.command(&String::from_utf8_lossy(command));
        out.write_raw(text.as_bytes());
        Ok(())
    }
}

impl threads::MultiThreadBase for Session<'_> {
    fn read_registers(&mut self, frame: &mut Frame, thread: Tid) -> TargetResult<(), Self> {
        if thread == KERNEL {
            let (r, s) = self.player.machine().registers().map_err(|_| ())?;
            frame.general = [
                r.rax, r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rbp, r.rsp, r.r8, r.r9, r.r10, r.r11,
                r.r12, r.r13, r.r14, r.r15,
            ];
            (frame.rip, frame.flags) = (r.rip, r.rflags as u32);
            frame.segments =
                [s.cs, s.ss, s.ds, s.es, s.fs, s.gs].map(|segment| u32::from(segment.selector));
        } else {
            let r = self.process(thread).ok_or(())?.registers;
            frame.general = [
                r.rax, r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rbp, r.rsp, r.r8, r.r9, r.r10, r.r11,
                r.r12, r.r13, r.r14, r.r15,
            ];
            (frame.rip, frame.flags) = (r.rip, r.rflags as u32);
            frame.segments = USER_SEGMENTS;
        }
        Ok(())
    }

    fn write_registers(&mut self, frame: &Frame, thread: Tid) -> TargetResult<(), Self> {
        let [
            rax,
            rbx,
            rcx,
            rdx,
            rsi,
            rdi,
            rbp,
            rsp,
            r8,
            r9,
            r10,
            r11,
            r12,
            r13,
            r14,
            r15,
        ] = frame.general;
        let rip = frame.rip;
        if thread == KERNEL {
            let machine = self.player.machine();
            let rflags = machine.registers().map_err(|_| ())?.0.rflags;
            #[rustfmt::skip]
            let regs = kvm_regs {
                rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r13, r14, r15, rip,
                rflags: rflags & !0xffff_ffff | u64::from(frame.flags),
            };
            return Ok(machine.set_registers(&regs).map_err(|_| ())?);
        }
        let process = self.process(thread).ok_or(())?;
        let (old, at) = (process.registers, process.registers_at);
        #[rustfmt::skip]
        let registers = Registers {
            rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r13, r14, r15, rip,
            // What the kernel keeps privileged stays.
            ..old
        };
        let ram = &self.player.machine().ram().map;
        table::set_registers(ram, at, &registers).ok_or(())?;
        for process in &mut self.table.processes {
            if tid(process) == thread {
                process.registers = registers;
            }
        }
        Ok(())
    }

    fn read_addrs(&mut self, at: u64, data: &mut [u8], thread: Tid) -> TargetResult<usize, Self> {
        let cr3 = self.cr3(thread).ok_or(TargetError::Errno(EFAULT))?;
        let ram = &self.player.machine().ram().map;
        // All or nothing: the stub asks for more of a range after less than it wanted.
        let pieces = pieces(ram, cr3, at, data.len()).ok_or(TargetError::Errno(EFAULT))?;
        let mut rest = &mut data[..];
        for (physical, len) in pieces {
            let (piece, more) = rest.split_at_mut(len);
            ram.read_slice(piece, GuestAddress(physical))
                .map_err(|_| TargetError::Errno(EFAULT))?;
            rest = more;
        }
        Ok(data.len())
    }

    fn write_addrs(&mut self, at: u64, data: &[u8], thread: Tid) -> TargetResult<(), Self> {
        let cr3 = self.cr3(thread).ok_or(TargetError::Errno(EFAULT))?;
        let ram = &self.player.machine().ram().map;
        let pieces = pieces(ram, cr3, at, data.len()).ok_or(TargetError::Errno(EFAULT))?;
        let mut rest = data;
        for (physical, len) in pieces {
            let (piece, more) = rest.split_at(len);
            ram.write_slice(piece, GuestAddress(physical))
                .map_err(|_| TargetError::Errno(EFAULT))?;
            rest = more;
        }
        Ok(())
    }

    fn list_active_threads(&mut self, active: &mut dyn FnMut(Tid)) -> anyhow::Result<()> {
        active(KERNEL);
        self.table.processes.iter().for_each(|p| active(tid(p)));
        Ok(())
    }

    fn support_resume(&mut self) -> Option<threads::MultiThreadResumeOps<'_, Self>> {
        Some(self)
    }

    fn support_thread_extra_info(&mut self) -> Option<ThreadExtraInfoOps<'_, Self>> {
        Some(self)
    }
}

impl ThreadExtraInfo for Session<'_> {
    fn thread_extra_info(&self, thread: Tid, buffer: &mut [u8]) -> anyhow::Result<usize> {
        let text = match self.process(thread) {
            Some(process) => state(process, &Graph::new(&self.table)),
            None if thread == KERNEL => "kernel: the vCPU as it stands".into(),
            None => "gone".into(),
        };
        let len = text.len().min(buffer.len());
        buffer[..len].copy_from_slice(&text.as_bytes()[..len]);
        Ok(len)
    }
}

/// A process's name and what it does, in a few words.
fn state(process: &Process, graph: &Graph) -> String {
    let flags = process.flags;
    let peer = |what: &str, who| {
        if who == abi::Endpoint::ANY {
            format!("{what} anybody")
        } else {
            format!("{what} {}", graph.name(who))
        }
    };
    let what = if flags & rts::STOPPED != 0 {
        "stopped".into()
    } else if flags & rts::MEMREQ != 0 {
        "its copy waits for a page".into()
    } else if process.faults() {
        format!("page fault at {:#x}", process.fault)
    } else if flags & rts::SENDING != 0 {
        peer("sends to", process.peer)
    } else if flags & rts::AWAIT_REPLY != 0 {
        peer("awaits reply of", process.peer)
    } else if flags & rts::RECEIVING != 0 {
        peer("receives from", process.filter)
    } else if flags == 0 {
        "can run".into()
    } else {
        format!("does not run ({flags:#x})")
    };
    format!("{}: {what}", graph.name(process.endpoint))
}

impl threads::MultiThreadResume for Session<'_> {
    fn resume(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    fn clear_resume_actions(&mut self) -> anyhow::Result<()> {
        self.resume = Resume::Continue;
        Ok(())
    }

    fn set_resume_action_continue(&mut self, _: Tid, _: Option<Signal>) -> anyhow::Result<()> {
        Ok(())
    }

    fn support_single_step(&mut self) -> Option<threads::MultiThreadSingleStepOps<'_, Self>> {
        Some(self)
    }

    fn support_reverse_step(&mut self) -> Option<ReverseStepOps<'_, Tid, Self>> {
        Some(self)
    }

    fn support_reverse_cont(&mut self) -> Option<ReverseContOps<'_, Tid, Self>> {
        Some(self)
    }

    fn support_scheduler_locking(
        &mut self,
    ) -> Option<threads::MultiThreadSchedulerLockingOps<'_, Self>> {
        Some(self)
    }
}

impl threads::MultiThreadSingleStep for Session<'_> {
    fn set_resume_action_step(&mut self, _: Tid, _: Option<Signal>) -> anyhow::Result<()> {
        self.resume = Resume::Step;
        Ok(())
    }
}

impl threads::MultiThreadSchedulerLocking for Session<'_> {
    /// The guest's processes depend on each other: all go on, whatever gdb wants.
    fn set_resume_action_scheduler_lock(&mut self) -> anyhow::Result<()> {
        Ok(())
    }
}

impl ReverseStep<Tid> for Session<'_> {
    fn reverse_step(&mut self, _: Tid) -> anyhow::Result<()> {
        self.resume = Resume::Back;
        Ok(())
    }
}

impl ReverseCont<Tid> for Session<'_> {
    fn reverse_cont(&mut self) -> anyhow::Result<()> {
        self.resume = Resume::First;
        Ok(())
    }
}

impl breaks::Breakpoints for Session<'_> {
    fn support_sw_breakpoint(&mut self) -> Option<breaks::SwBreakpointOps<'_, Self>> {
        Some(self)
    }
}

/// Offered in order to be refused: gdb would write `int3` into memory itself.
impl breaks::SwBreakpoint for Session<'_> {
    fn add_sw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        complain(&format!(
            "absentia: no breakpoint at {address:#x}: int3 is the guest's own trap and hardware \
             breakpoints do not work in user mode on every host. Use `stepi` or `monitor next`, \
             `monitor until N`, `monitor message NAME`"
        ));
        Ok(false)
    }

    fn remove_sw_breakpoint(&mut self, _: u64, _: usize) -> TargetResult<bool, Self> {
        Ok(false)
    }
}
