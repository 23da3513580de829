//! The vCPU: its state at boot, running it, and describing it when it dies.

use anyhow::{Context, Result};
use kvm_bindings::{
    KVM_MP_STATE_RUNNABLE, kvm_mp_state, kvm_regs, kvm_segment, kvm_sregs, kvm_vcpu_events,
};
use kvm_ioctls::{SyncReg, VcpuExit, VcpuFd};

use super::forget::REACH;
use crate::boot::Entry;

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
/// Bit 1 of rflags always reads one.
pub(super) const RFLAGS_RESERVED: u64 = 2;

/// Where a processor starts.
const RESET_RIP: u64 = 0xfff0;
/// What is said in place of registers after a triple fault under SVM, of which the processor leaves no defined state: KVM
/// then starts the vCPU anew (KVM_EXIT_SHUTDOWN, `shutdown_interception`).
pub const STARTED_ANEW: &str = "(the processor was started anew: its registers are gone)";

/// What a run of the vCPU ended with, as far as the caller has to act on it.
#[derive(Debug)]
pub enum Exit<'a> {
    /// `in`.
    PortRead(u16, &'a mut [u8]),
    /// `out`.
    PortWrite(u16, &'a [u8]),
    /// A load outside the memory slots.
    MmioRead(u64, &'a mut [u8]),
    /// A store outside the memory slots.
    MmioWrite(u64, &'a [u8]),
    /// A signal came, or KVM wants to be called again.
    Again,
    /// The machine cannot go on; see [`Vcpu::explain`].
    Dead(Death),
}

/// Why a machine cannot go on.
#[derive(Debug)]
pub enum Death {
    /// KVM_EXIT_INTERNAL_ERROR.
    InternalError,
    /// Any other exit, by name.
    Exit(String),
    /// KVM_RUN failed.
    Errno(i32),
}

/// The one vCPU.
#[derive(Debug)]
pub struct Vcpu {
    pub(super) fd: VcpuFd,
    /// It waits for an interrupt, as far as is known.
    pub(super) may_be_halted: bool,
    /// The guest may have a translation of something that is neither memory nor a device.
    pub(super) went_beyond: bool,
}

impl Vcpu {
    /// A vCPU that has its CPUID table.
    pub fn new(fd: VcpuFd) -> Vcpu {
        Vcpu {
            fd,
            may_be_halted: true,
            went_beyond: false,
        }
    }

    /// The bare descriptor.
    pub fn into_inner(self) -> VcpuFd {
        self.fd
    }

    /// The descriptor, for what nothing here does.
    pub fn fd(&self) -> &VcpuFd {
        &self.fd
    }

    /// Frequency of the guest's time-stamp counter.
    pub fn tsc_khz(&self) -> Option<u32> {
        self.fd.get_tsc_khz().ok()
    }

    /// The state PVH prescribes: 32-bit protected mode, flat segments, no paging, interrupts
    /// off, ebx at the start info.
    pub fn enter_pvh(&self, entry: Entry) -> Result<()> {
        let mut sregs: kvm_sregs = self.fd.get_sregs().context("KVM_GET_SREGS")?;
        flat_segments(&mut sregs);
        (
            sregs.gdt.base,
            sregs.gdt.limit,
            sregs.idt.base,
            sregs.idt.limit,
        ) = (0, 0, 0, 0);
        sregs.cr0 = CR0_PE | CR0_ET;
        (sregs.cr2, sregs.cr3, sregs.cr4, sregs.efer) = (0, 0, 0, 0);
        self.fd.set_sregs(&sregs).context("KVM_SET_SREGS")?;
        let regs = kvm_regs {
            rip: entry.rip,
            rbx: entry.start_info,
            rflags: RFLAGS_RESERVED,
            ..Default::default()
        };
        self.fd.set_regs(&regs).context("KVM_SET_REGS")
    }

    /// Runs until something needs attention.
    pub fn run(&mut self) -> Exit<'_> {
        self.fd.set_kvm_immediate_exit(0);
        self.may_be_halted = true;
        self.enter()
    }

    /// Completes what the last exit left open, without running the guest. Only after
    /// [`Exit::Again`] are the registers the guest's; anything else is to be handled first and
    /// this to be called again.
    pub fn complete(&mut self) -> Exit<'_> {
        self.fd.set_kvm_immediate_exit(1);
        self.enter()
    }

    /// Sets registers and pending events for the next run, or completion.
    pub(super) fn stage(&mut self, regs: &kvm_regs, sregs: &kvm_sregs, events: &kvm_vcpu_events) {
        let staged = self.fd.sync_regs_mut();
        (staged.regs, staged.sregs, staged.events) = (*regs, *sregs, *events);
        for which in [
            SyncReg::Register,
            SyncReg::SystemRegister,
            SyncReg::VcpuEvents,
        ] {
            self.fd.set_sync_dirty_reg(which);
        }
    }

    /// Makes sure that it does not wait for an interrupt.
    pub(super) fn wake(&mut self) -> Result<()> {
        if self.may_be_halted {
            let running = kvm_mp_state {
                mp_state: KVM_MP_STATE_RUNNABLE,
            };
            self.fd.set_mp_state(running).context("KVM_SET_MP_STATE")?;
            self.may_be_halted = false;
        }
        Ok(())
    }

    fn enter(&mut self) -> Exit<'_> {
        let result = self.fd.run();
        // Only one that executes instructions has these exits.
        self.may_be_halted &= !matches!(
            result,
            Ok(VcpuExit::IoIn(..)
                | VcpuExit::IoOut(..)
                | VcpuExit::MmioRead(..)
                | VcpuExit::MmioWrite(..))
        );
        self.went_beyond |= match &result {
            Ok(VcpuExit::MmioRead(at, _) | VcpuExit::MmioWrite(at, _)) => *at >= REACH,
            Ok(VcpuExit::InternalError) => true,
            _ => false,
        };
        match result {
            Ok(VcpuExit::IoIn(port, data)) => Exit::PortRead(port, data),
            Ok(VcpuExit::IoOut(port, data)) => Exit::PortWrite(port, data),
            Ok(VcpuExit::MmioRead(at, data)) => Exit::MmioRead(at, data),
            Ok(VcpuExit::MmioWrite(at, data)) => Exit::MmioWrite(at, data),
            Ok(VcpuExit::Intr | VcpuExit::IrqWindowOpen) => Exit::Again,
            Ok(VcpuExit::InternalError) => Exit::Dead(Death::InternalError),
            Ok(exit) => Exit::Dead(Death::Exit(super::exits::name(&exit))),
            Err(error) => match error.errno() {
                libc::EINTR | libc::EAGAIN => Exit::Again,
                errno => Exit::Dead(Death::Errno(errno)),
            },
        }
    }

    /// What happened, with the registers, for a person.
    pub fn explain(&mut self, death: Death) -> String {
        let what = match death {
            Death::InternalError => self.internal_error(),
            Death::Exit(name) => name,
            Death::Errno(libc::EFAULT) => {
                "KVM_RUN: EFAULT: the guest uses a page that the host does not give it".into()
            }
            Death::Errno(errno) => {
                format!("KVM_RUN: {}", std::io::Error::from_raw_os_error(errno))
            }
        };
        format!("{what}\n{}", self.describe())
    }

    /// What KVM reports with KVM_EXIT_INTERNAL_ERROR; for an instruction it cannot emulate,
    /// the instruction's bytes.
    fn internal_error(&mut self) -> String {
        /// KVM_INTERNAL_ERROR_EMULATION.
        const EMULATION: u32 = 1;
        /// KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES.
        const HAS_BYTES: u64 = 1;
        let run = self.fd.get_kvm_run();
        // SAFETY: after KVM_EXIT_INTERNAL_ERROR the union holds `internal`: plain integers.
        let internal = unsafe { run.__bindgen_anon_1.internal };
        if internal.suberror != EMULATION {
            let len = (internal.ndata as usize).min(internal.data.len());
            return format!(
                "KVM_EXIT_INTERNAL_ERROR, suberror {}, data {:x?}",
                internal.suberror,
                &internal.data[..len]
            );
        }
        // SAFETY: with suberror 1 the same words are an `emulation_failure`: plain integers,
        // as is the instruction inside it.
        let failure = unsafe { run.__bindgen_anon_1.emulation_failure };
        let mut text = String::from("KVM_EXIT_INTERNAL_ERROR: KVM cannot emulate the instruction");
        if failure.ndata >= 1 && failure.flags & HAS_BYTES != 0 {
            // SAFETY: as above; the flag says that the bytes were filled in.
            let insn = unsafe { failure.__bindgen_anon_1.__bindgen_anon_1 };
            let len = usize::from(insn.insn_size).min(insn.insn_bytes.len());
            text += &format!(" {:02x?}", &insn.insn_bytes[..len]);
        }
        text
    }

    /// The registers, for a person.
    pub fn describe(&self) -> String {
        let (Ok(r), Ok(s)) = (self.fd.get_regs(), self.fd.get_sregs()) else {
            return "(registers are not available)".into();
        };
        if r.rip == RESET_RIP {
            return STARTED_ANEW.into();
        }
        format!(
            "rip {:016x} rsp {:016x} rflags {:08x} cs {:04x} ss {:04x} cpl {}\n\
             rax {:016x} rbx {:016x} rcx {:016x} rdx {:016x}\n\
             rsi {:016x} rdi {:016x} rbp {:016x} r8  {:016x}\n\
             r9  {:016x} r10 {:016x} r11 {:016x} r12 {:016x}\n\
             r13 {:016x} r14 {:016x} r15 {:016x}\n\
             cr0 {:08x} cr2 {:016x} cr3 {:08x} cr4 {:08x} efer {:x}\n\
             gdt {:016x}+{:x} idt {:016x}+{:x} tr {:016x} fs {:016x} gs {:016x}",
            r.rip,
            r.rsp,
            r.rflags,
            s.cs.selector,
            s.ss.selector,
            s.cs.dpl,
            r.rax,
            r.rbx,
            r.rcx,
            r.rdx,
            r.rsi,
            r.rdi,
            r.rbp,
            r.r8,
            r.r9,
            r.r10,
            r.r11,
            r.r12,
            r.r13,
            r.r14,
            r.r15,
            s.cr0,
            s.cr2,
            s.cr3,
            s.cr4,
            s.efer,
            s.gdt.base,
            s.gdt.limit,
            s.idt.base,
            s.idt.limit,
            s.tr.base,
            s.fs.base,
            s.gs.base,
        )
    }
}

/// Flat 32-bit segments, and a task register that KVM accepts.
pub(super) fn flat_segments(sregs: &mut kvm_sregs) {
    let flat = |selector, type_| kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        type_,
        present: 1,
        dpl: 0,
        db: 1,
        s: 1,
        l: 0,
        g: 1,
        ..Default::default()
    };
    let (code, data) = (flat(0x08, 0xb), flat(0x10, 0x3));
    sregs.cs = code;
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    // A busy 32-bit TSS with the smallest limit.
    sregs.tr = kvm_segment {
        limit: 0x67,
        s: 0,
        db: 0,
        g: 0,
        ..flat(0x18, 0xb)
    };
}
