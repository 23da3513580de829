//! Exit reasons by name, and how often each occurred.

use std::fmt;

use kvm_ioctls::VcpuExit;

/// Kinds of exits that are counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Kind {
    /// `in` or `out`.
    Port,
    /// Access outside the memory slots.
    Mmio,
    /// Access to RAM that KVM handed to us.
    MmioInRam,
    /// A signal.
    Interrupted,
    /// Anything else.
    Other,
}

const KINDS: usize = Kind::Other as usize + 1;
const NAMES: [&str; KINDS] = ["port", "mmio", "mmio in RAM", "interrupted", "other"];

/// Exits by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts([u64; KINDS]);

impl Counts {
    /// One more of this kind.
    pub fn count(&mut self, kind: Kind) {
        self.0[kind as usize] += 1;
    }

    /// How many of this kind.
    pub fn of(&self, kind: Kind) -> u64 {
        self.0[kind as usize]
    }

    /// How many in all.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} exits", self.total())?;
        for (name, count) in NAMES.iter().zip(self.0).filter(|(_, count)| *count > 0) {
            write!(f, ", {count} {name}")?;
        }
        Ok(())
    }
}

/// The name of an exit that the run loop has no use for.
pub fn name(exit: &VcpuExit<'_>) -> String {
    let name = match exit {
        VcpuExit::IoOut(..) | VcpuExit::IoIn(..) => "KVM_EXIT_IO",
        VcpuExit::MmioRead(..) | VcpuExit::MmioWrite(..) => "KVM_EXIT_MMIO",
        VcpuExit::Unknown => "KVM_EXIT_UNKNOWN",
        VcpuExit::Exception => "KVM_EXIT_EXCEPTION",
        VcpuExit::Hypercall(_) => "KVM_EXIT_HYPERCALL",
        VcpuExit::Debug(_) => "KVM_EXIT_DEBUG",
        VcpuExit::Hlt => "KVM_EXIT_HLT",
        VcpuExit::IrqWindowOpen => "KVM_EXIT_IRQ_WINDOW_OPEN",
        VcpuExit::Shutdown => "KVM_EXIT_SHUTDOWN (triple fault)",
        VcpuExit::FailEntry(reason, cpu) => {
            return format!("KVM_EXIT_FAIL_ENTRY (hardware reason {reason:#x} on cpu {cpu})");
        }
        VcpuExit::Intr => "KVM_EXIT_INTR",
        VcpuExit::SetTpr => "KVM_EXIT_SET_TPR",
        VcpuExit::TprAccess => "KVM_EXIT_TPR_ACCESS",
        VcpuExit::Nmi => "KVM_EXIT_NMI",
        VcpuExit::InternalError => "KVM_EXIT_INTERNAL_ERROR",
        VcpuExit::SystemEvent(kind, _) => return format!("KVM_EXIT_SYSTEM_EVENT (type {kind})"),
        VcpuExit::IoapicEoi(vector) => return format!("KVM_EXIT_IOAPIC_EOI (vector {vector})"),
        VcpuExit::Hyperv => "KVM_EXIT_HYPERV",
        VcpuExit::X86Rdmsr(msr) => return format!("KVM_EXIT_X86_RDMSR (msr {:#x})", msr.index),
        VcpuExit::X86Wrmsr(msr) => return format!("KVM_EXIT_X86_WRMSR (msr {:#x})", msr.index),
        VcpuExit::MemoryFault { flags, gpa, size } => {
            return format!("KVM_EXIT_MEMORY_FAULT (flags {flags:#x}, {size} bytes at {gpa:#x})");
        }
        VcpuExit::Unsupported(number) => return format!("KVM exit reason {number}"),
        // What is left belongs to other processors than x86.
        other => return format!("KVM exit {other:?}"),
    };
    name.into()
}
