//! The KVM virtual machine: one vCPU, a memory slot for each part of RAM, the in-kernel interrupt controllers.

pub mod exits;
pub mod forget;
pub mod gate;
pub mod state;
pub mod vcpu;

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use kvm_bindings::{
    CpuId, KVM_MAX_CPUID_ENTRIES, KVM_MEM_LOG_DIRTY_PAGES, kvm_cpuid_entry2,
    kvm_userspace_memory_region, kvm_xcrs,
};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::memory::GuestRam;
use crate::memory::parts::parts;
use gate::{Cpl0, Gate};
use vcpu::Vcpu;

/// Three pages KVM wants for itself on some processors, in the hole below 4 GiB.
const KVM_TSS: usize = 0xfffb_d000;
/// CPUID leaf with KVM's signature and the highest hypervisor leaf.
const HYPERVISOR_LEAF: u32 = 0x4000_0000;

/// Memory slots of RAM's parts.
const RAM_SLOTS: [u32; 2] = [0, 2];

/// A machine that has its RAM and interrupt controllers, but no vCPU yet.
#[derive(Debug)]
pub struct Vm {
    fd: Arc<VmFd>,
    cpuid: CpuId,
    cpl0: Cpl0,
    ram_size: u64,
    page: Option<forget::Page>,
}

impl Vm {
    /// Creates the machine on `kvm` with `ram` at guest-physical 0. Where the RAM has a mapping
    /// of its own for KVM, the guest's writes are followed.
    pub fn new(kvm: &Kvm, ram: &GuestRam) -> Result<Vm> {
        let fd = kvm.create_vm().context("KVM_CREATE_VM")?;
        fd.set_tss_address(KVM_TSS).context("KVM_SET_TSS_ADDR")?;
        fd.create_irq_chip().context("KVM_CREATE_IRQCHIP")?;
        let flags = match ram.has_slot() {
            true => KVM_MEM_LOG_DIRTY_PAGES,
            false => 0,
        };
        for (slot, part) in RAM_SLOTS.into_iter().zip(ram.parts_for_kvm()) {
            let (part, host) = part?;
            let slot = kvm_userspace_memory_region {
                slot,
                guest_phys_addr: part.address,
                memory_size: part.len,
                userspace_addr: host.as_ptr() as u64,
                flags,
            };
            // SAFETY: the region is the mapping of a part of guest RAM; the caller keeps it mapped for
            // longer than the machine (see `machine::run`).
            unsafe { fd.set_user_memory_region(slot) }.with_context(|| {
                format!(
                    "this host's KVM takes no guest of {} MiB: give it less (--mem)",
                    ram.size >> 20
                )
            })?;
        }
        let cpuid = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .context("KVM_GET_SUPPORTED_CPUID")?;
        let cpl0 = Cpl0::of_host(kvm)?;
        gate::check(cpl0, &cpuid)?;
        within_reach(&cpuid, ram)?;
        let mut vm = Vm {
            fd: Arc::new(fd),
            cpuid,
            cpl0,
            ram_size: ram.size,
            page: None,
        };
        if ram.has_slot() {
            let page = forget::Page::new()?;
            vm.place(&page)?;
            vm.page = Some(page);
        }
        Ok(vm)
    }

    /// Guest pages written by the guest since this was asked last, a bit each by their numbers.
    pub fn written(&self) -> Result<Vec<u64>> {
        let mut all = Vec::new();
        for (slot, part) in RAM_SLOTS.into_iter().zip(parts(self.ram_size)) {
            // All parts but the last are whole words long.
            let bits = self.fd.get_dirty_log(slot, part.len as usize);
            all.append(&mut bits.context("KVM_GET_DIRTY_LOG")?);
        }
        Ok(all)
    }

    /// The edge-triggered interrupt input `gsi`, pulsed by whoever runs the vCPU.
    pub fn line(&self, gsi: u32) -> Line {
        Line {
            vm: self.fd.clone(),
            gsi,
        }
    }

    /// An eventfd that pulses the edge-triggered interrupt input `gsi`.
    pub fn interrupt(&self, gsi: u32) -> Result<EventFd> {
        let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).context("eventfd")?;
        self.fd.register_irqfd(&event, gsi).context("KVM_IRQFD")?;
        Ok(event)
    }

    /// The vCPU, with the CPUID table that tells the guest its gate. `common`: programs get only
    /// the state that nearly every processor has (`COMMON`), so that runs are the same elsewhere.
    pub fn vcpu(&self, gate: Gate, common: bool) -> Result<Vcpu> {
        let fd = self.fd.create_vcpu(0).context("KVM_CREATE_VCPU")?;
        fd.set_cpuid2(&cpuid_with_gate(&self.cpuid, gate, self.cpl0)?)
            .context("KVM_SET_CPUID2")?;
        if self.cpl0 == Cpl0::Native {
            let states = self.user_states() & if common { COMMON } else { u64::MAX };
            set_xcr0(&fd, states)?;
        }
        Ok(Vcpu::new(fd))
    }

    /// Components of XCR0 that KVM offers its guests (CPUID leaf 0xd).
    fn user_states(&self) -> u64 {
        let leaves = self.cpuid.as_slice();
        let leaf = leaves.iter().find(|l| (l.function, l.index) == (0xd, 0));
        leaf.map_or(0, |l| u64::from(l.eax) | u64::from(l.edx) << 32)
    }
}

/// Refuses RAM at addresses that the processor does not have.
fn within_reach(cpuid: &CpuId, ram: &GuestRam) -> Result<()> {
    const SIZES: u32 = 0x8000_0008;
    let leaf = cpuid.as_slice().iter().find(|l| l.function == SIZES);
    let bits = leaf.map_or(36, |l| l.eax & 0xff);
    let end = 1u64.checked_shl(bits).unwrap_or(u64::MAX);
    ensure!(
        ram.limit() <= end,
        "a guest of {} MiB has addresses up to {:#x}, and this processor's physical addresses have {bits} bits: give it \
         less (--mem)",
        ram.size >> 20,
        ram.limit(),
    );
    Ok(())
}

/// x87, SSE and AVX.
const COMMON: u64 = 7;

/// Sets XCR0 before the first instruction. The kernel's XSETBV would do, but not every host that
/// is emulated itself tells KVM of it: QEMU's SVM does not intercept it (7.2), and KVM would go
/// on with the value it knows.
fn set_xcr0(fd: &VcpuFd, value: u64) -> Result<()> {
    let mut xcrs = kvm_xcrs {
        nr_xcrs: 1,
        ..Default::default()
    };
    xcrs.xcrs[0].value = value;
    fd.set_xcrs(&xcrs).context("KVM_SET_XCRS")
}

/// An interrupt input that is pulsed at once, in the caller's thread. An eventfd's interrupt
/// comes from a kernel thread, some time later.
#[derive(Debug)]
pub struct Line {
    vm: Arc<VmFd>,
    gsi: u32,
}

impl Line {
    /// An interrupt.
    pub fn pulse(&self) -> Result<()> {
        self.vm
            .set_irq_line(self.gsi, true)
            .and_then(|()| self.vm.set_irq_line(self.gsi, false))
            .context("KVM_IRQ_LINE")
    }
}

/// The supported CPUID with our leaf in it.
fn cpuid_with_gate(supported: &CpuId, gate: Gate, cpl0: Cpl0) -> Result<CpuId> {
    let mut entries: Vec<kvm_cpuid_entry2> = supported
        .as_slice()
        .iter()
        .copied()
        .filter(|e| e.function != abi::lab::GATE_CPUID_LEAF)
        .collect();
    match entries.iter_mut().find(|e| e.function == HYPERVISOR_LEAF) {
        Some(leaf) => leaf.eax = leaf.eax.max(abi::lab::GATE_CPUID_LEAF),
        None => entries.push(kvm_cpuid_entry2 {
            function: HYPERVISOR_LEAF,
            eax: abi::lab::GATE_CPUID_LEAF,
            ..Default::default()
        }),
    }
    entries.push(kvm_cpuid_entry2 {
        function: abi::lab::GATE_CPUID_LEAF,
        eax: if gate == Gate::Deprivileged {
            abi::lab::GATE_MAGIC
        } else {
            0
        },
        ebx: match cpl0 {
            Cpl0::Native => 0,
            Cpl0::Interpreted => abi::lab::GATE_INTERPRETED,
        },
        ..Default::default()
    });
    CpuId::from_entries(&entries).context("CPUID table")
}
