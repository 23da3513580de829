//! The processor's and the interrupt controllers' state, saved and put back.
//!
//! Not saved: the time-stamp counter, which goes on, and with it what the guest knows of time.
//! Not to be saved: a vCPU that has just executed `int3` or `int $4` ([`Vcpu::may_trap`]).

use anyhow::{Context, Result, ensure};
use kvm_bindings::{
    KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_MP_STATE_RUNNABLE,
    KVM_SYNC_X86_EVENTS, KVM_SYNC_X86_REGS, KVM_SYNC_X86_SREGS, Msrs, kvm_debugregs, kvm_irqchip,
    kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs,
    kvm_xsave,
};
use kvm_ioctls::{Cap, Kvm};
use vm_memory::{Bytes, GuestAddress};

use super::Vm;
use super::forget::Forgotten;
use super::vcpu::Vcpu;
use crate::memory::Ram;

/// Model-specific registers that a guest's kernel can change and that are nowhere else in the
/// state. IA32_TSC_DEADLINE comes last: it depends on the local APIC.
const MSRS: [u32; 16] = [
    0x174,       // IA32_SYSENTER_CS
    0x175,       // IA32_SYSENTER_ESP
    0x176,       // IA32_SYSENTER_EIP
    0x1a0,       // IA32_MISC_ENABLE
    0x277,       // IA32_PAT
    0x2ff,       // IA32_MTRR_DEF_TYPE
    0x48,        // IA32_SPEC_CTRL
    0xda0,       // IA32_XSS
    0xc000_0081, // STAR
    0xc000_0082, // LSTAR
    0xc000_0083, // CSTAR
    0xc000_0084, // SFMASK
    0xc000_0102, // KERNEL_GS_BASE
    0xc000_0103, // TSC_AUX
    0x4b56_4d02, // KVM's asynchronous page faults
    0x6e0,       // IA32_TSC_DEADLINE
];

/// The vCPU between two instructions.
#[derive(Debug)]
pub struct VcpuState {
    regs: kvm_regs,
    sregs: kvm_sregs,
    xsave: Box<kvm_xsave>,
    xcrs: kvm_xcrs,
    debug: kvm_debugregs,
    events: kvm_vcpu_events,
    mp: kvm_mp_state,
    lapic: Box<kvm_lapic_state>,
    msrs: Vec<kvm_msr_entry>,
}

impl VcpuState {
    /// The general registers.
    pub fn regs(&self) -> &kvm_regs {
        &self.regs
    }

    /// The special registers.
    pub(super) fn sregs(&self) -> &kvm_sregs {
        &self.sregs
    }

    /// Whether the guest has 64-bit page tables: it may not page in another way without
    /// changing EFER, which no kernel does that has come so far.
    pub(super) fn pages_in_64_bit(&self) -> bool {
        const CR0_PG: u64 = 1 << 31;
        const EFER_LMA: u64 = 1 << 10;
        self.sregs.cr0 & CR0_PG != 0 && self.sregs.efer & EFER_LMA != 0
    }

    /// The extended control register, where it is the only one of its kind.
    pub(super) fn xcr0(&self) -> Option<u64> {
        let [first, ..] = self.xcrs.xcrs;
        (self.xcrs.nr_xcrs == 1 && first.xcr == 0).then_some(first.value)
    }
}

/// The registers of `MSRS` that this host has.
pub fn saved_msrs(kvm: &Kvm) -> Result<Vec<u32>> {
    // More would need the caller's permission to use AMX, which nobody asks for.
    ensure!(
        kvm.check_extension_int(Cap::Xsave2) as usize <= size_of::<kvm_xsave>(),
        "this host's extended processor state is larger than KVM_GET_XSAVE can tell"
    );
    let all = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS;
    ensure!(
        kvm.check_extension_int(Cap::SyncRegs) as u32 & all == all,
        "this host's KVM does not take registers with KVM_RUN (KVM_CAP_SYNC_REGS)"
    );
    let list = kvm.get_msr_index_list().context("KVM_GET_MSR_INDEX_LIST")?;
    let there = |msr: &u32| list.as_slice().contains(msr);
    Ok(MSRS.into_iter().filter(there).collect())
}

impl Vcpu {
    /// Reads the state. Exits must have been completed ([`Vcpu::complete`]). `msrs` is
    /// [`saved_msrs`].
    pub fn save(&self, msrs: &[u32]) -> Result<VcpuState> {
        let fd = &self.fd;
        let entry = |&index: &u32| kvm_msr_entry {
            index,
            ..Default::default()
        };
        let entries: Vec<_> = msrs.iter().map(entry).collect();
        let mut buffer = Msrs::from_entries(&entries).context("MSR list")?;
        // A register that cannot be read ends the list.
        let read = fd.get_msrs(&mut buffer).context("KVM_GET_MSRS")?;
        ensure!(
            read == msrs.len(),
            "KVM_GET_MSRS: register {:#x} cannot be read",
            msrs[read]
        );
        Ok(VcpuState {
            regs: fd.get_regs().context("KVM_GET_REGS")?,
            sregs: fd.get_sregs().context("KVM_GET_SREGS")?,
            xsave: Box::new(fd.get_xsave().context("KVM_GET_XSAVE")?),
            xcrs: fd.get_xcrs().context("KVM_GET_XCRS")?,
            debug: fd.get_debug_regs().context("KVM_GET_DEBUGREGS")?,
            events: fd.get_vcpu_events().context("KVM_GET_VCPU_EVENTS")?,
            mp: fd.get_mp_state().context("KVM_GET_MP_STATE")?,
            lapic: Box::new(fd.get_lapic().context("KVM_GET_LAPIC")?),
            msrs: buffer.as_slice().to_vec(),
        })
    }

    /// Whether the vCPU may have executed `int3` or `int $4` and not yet arrived at the handler.
    /// KVM does not tell of such an exception (KVM_GET_VCPU_EVENTS leaves the software ones
    /// out), expecting that the instruction is repeated; kvm-pvm has passed it already. Only a
    /// signal stops a vCPU there, never an exit of its own. Exits must have been completed.
    pub fn may_trap(&self, ram: &Ram) -> Result<bool> {
        const INT3: u8 = 0xcc;
        const INT_4: [u8; 2] = [0xcd, 4];
        let rip = self.fd.get_regs().context("KVM_GET_REGS")?.rip;
        let byte = |back: u64| -> Result<Option<u8>> {
            let at = self.fd.translate_gva(rip.wrapping_sub(back));
            let at = at.context("KVM_TRANSLATE")?;
            let there = at.valid != 0;
            Ok(there
                .then(|| ram.read_obj(GuestAddress(at.physical_address)).ok())
                .flatten())
        };
        let last = byte(1)?;
        Ok(last == Some(INT3) || last == Some(INT_4[1]) && byte(2)? == Some(INT_4[0]))
    }

    /// Puts the state back, after [`Vm::forget`], which says what was `forgotten`. Registers and
    /// events are in effect from the next run or completion on.
    pub fn restore(&mut self, state: &VcpuState, forgotten: Forgotten) -> Result<()> {
        let fd = &self.fd;
        let touched = forgotten == Forgotten::Touched;
        if !touched {
            // They hold the mode of the local APIC.
            fd.set_sregs(&state.sregs).context("KVM_SET_SREGS")?;
        }
        if !touched || state.xcr0().is_none() {
            fd.set_xcrs(&state.xcrs).context("KVM_SET_XCRS")?;
        }
        // SAFETY: the state has the size that KVM reads, see `saved_msrs`.
        unsafe { fd.set_xsave(&state.xsave) }.context("KVM_SET_XSAVE")?;
        fd.set_debug_regs(&state.debug)
            .context("KVM_SET_DEBUGREGS")?;
        if !touched || state.mp.mp_state != KVM_MP_STATE_RUNNABLE {
            fd.set_mp_state(state.mp).context("KVM_SET_MP_STATE")?;
        }
        fd.set_lapic(&state.lapic).context("KVM_SET_LAPIC")?;
        let msrs = Msrs::from_entries(&state.msrs).context("MSR list")?;
        let written = fd.set_msrs(&msrs).context("KVM_SET_MSRS")?;
        ensure!(
            written == state.msrs.len(),
            "KVM_SET_MSRS: register {:#x} cannot be written",
            state.msrs[written].index
        );
        self.may_be_halted = state.mp.mp_state != KVM_MP_STATE_RUNNABLE;
        self.stage(&state.regs, &state.sregs, &state.events);
        Ok(())
    }
}

/// The in-kernel interrupt controllers beside the local APIC.
#[derive(Clone)]
pub struct Irqchips([kvm_irqchip; 3]);

impl Vm {
    /// Reads the interrupt controllers.
    pub fn save_irqchips(&self) -> Result<Irqchips> {
        let mut chips = [
            KVM_IRQCHIP_PIC_MASTER,
            KVM_IRQCHIP_PIC_SLAVE,
            KVM_IRQCHIP_IOAPIC,
        ]
        .map(|chip_id| kvm_irqchip {
            chip_id,
            ..Default::default()
        });
        for chip in &mut chips {
            self.fd.get_irqchip(chip).context("KVM_GET_IRQCHIP")?;
        }
        Ok(Irqchips(chips))
    }

    /// Puts them back; the local APIC is to come after them.
    pub fn restore_irqchips(&self, chips: &Irqchips) -> Result<()> {
        for chip in &chips.0 {
            self.fd.set_irqchip(chip).context("KVM_SET_IRQCHIP")?;
        }
        Ok(())
    }
}
