//! The KVM virtual machine: one vCPU, one memory slot, the in-kernel interrupt controllers.

pub mod exits;
pub mod forget;
pub mod gate;
pub mod state;
pub mod vcpu;

use std::sync::Arc;

use anyhow::{Context, Result};
use kvm_bindings::{
    CpuId, KVM_MAX_CPUID_ENTRIES, KVM_MEM_LOG_DIRTY_PAGES, kvm_cpuid_entry2,
    kvm_userspace_memory_region, kvm_xcrs,
};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::memory::GuestRam;
use gate::{Cpl0, Gate};
use vcpu::Vcpu;

/// Three pages KVM wants for itself on some processors, in the hole below 4 GiB.
const KVM_TSS: usize = 0xfffb_d000;
/// CPUID leaf with KVM's signature and the highest hypervisor leaf.
const HYPERVISOR_LEAF: u32 = 0x4000_0000;

/// Memory slot of RAM.
const RAM_SLOT: u32 = 0;

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
        let slot = kvm_userspace_memory_region {
            slot: RAM_SLOT,
            guest_phys_addr: 0,
            memory_size: ram.size,
            userspace_addr: ram.for_kvm()?.as_ptr() as u64,
            flags: if ram.has_slot() {
                KVM_MEM_LOG_DIRTY_PAGES
            } else {
                0
            },
        };
        // SAFETY: the region is the mapping of guest RAM, `ram.size` long; the caller keeps it
        // mapped for longer than the machine (see `machine::run`).
        unsafe { fd.set_user_memory_region(slot) }.context("KVM_SET_USER_MEMORY_REGION")?;
        let cpuid = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .context("KVM_GET_SUPPORTED_CPUID")?;
        let cpl0 = Cpl0::of_host(kvm)?;
        gate::check(cpl0, &cpuid)?;
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

    /// Guest pages written by the guest since this was asked last, a bit each.
    pub fn written(&self) -> Result<Vec<u64>> {
        self.fd
            .get_dirty_log(RAM_SLOT, self.ram_size as usize)
            .context("KVM_GET_DIRTY_LOG")
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
    /// the state that nearly every processor has ([`COMMON`]), so that runs are the same elsewhere.
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
