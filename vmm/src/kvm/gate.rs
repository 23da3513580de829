//! Which gate the guest kernel is to use: at CPL0 where CPL0 runs natively, at CPL3 behind
//! CPL0 stubs where KVM interprets every CPL0 instruction.
//!
//! Why so: docs/decisions/001-two-gates.md.

use std::sync::OnceLock;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use kvm_bindings::{CpuId, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use crate::boot::Entry;
use crate::kvm::vcpu::Vcpu;
use crate::memory::Ram;

/// How the guest kernel is entered and where it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Gate {
    /// The kernel at CPL0: hosts with VMX or SVM, and QEMU.
    Direct,
    /// CPL0 stubs and the kernel at CPL3: KVM without hardware virtualization.
    Deprivileged,
}

/// What executes the guest's CPL0 instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cpl0 {
    /// The processor, with VMX or SVM.
    Native,
    /// KVM's instruction emulator.
    Interpreted,
}

impl Cpl0 {
    /// What this host does. It is asked once: a host stays what it is.
    pub fn of_host(kvm: &Kvm) -> Result<Cpl0> {
        static KNOWN: OnceLock<Cpl0> = OnceLock::new();
        if let Some(known) = KNOWN.get() {
            return Ok(*known);
        }
        let found = probe(kvm)?;
        Ok(*KNOWN.get_or_init(|| found))
    }

    /// The gate that is fast there. Either works.
    pub fn gate(self) -> Gate {
        match self {
            Cpl0::Native => Gate::Direct,
            Cpl0::Interpreted => Gate::Deprivileged,
        }
    }
}

/// Has a scratch machine execute an instruction at CPL0 that every processor has and KVM's
/// emulator has not: no clock decides, so no load can.
fn probe(kvm: &Kvm) -> Result<Cpl0> {
    const CODE: u64 = 0x1000;
    const PROGRAM: [u8; 6] = [
        0xd9, 0xf0, // f2xm1
        0xe6, 0x80, // out %al, $0x80
        0xeb, 0xfe, // jmp .
    ];
    let ram = Ram::from_ranges(&[(GuestAddress(0), 0x2000)]).context("scratch RAM")?;
    ram.write_slice(&PROGRAM, GuestAddress(CODE))
        .context("scratch code")?;
    let vm = kvm.create_vm().context("KVM_CREATE_VM")?;
    let region = kvm_userspace_memory_region {
        slot: 0,
        guest_phys_addr: 0,
        memory_size: 0x2000,
        userspace_addr: ram
            .get_host_address(GuestAddress(0))
            .context("scratch RAM")? as u64,
        flags: 0,
    };
    // SAFETY: the region is the mapping of `ram`, which is dropped after `vm`: locals are
    // dropped in reverse order.
    unsafe { vm.set_user_memory_region(region) }.context("KVM_SET_USER_MEMORY_REGION")?;
    let setup = Vcpu::new(vm.create_vcpu(0).context("KVM_CREATE_VCPU")?);
    setup.enter_pvh(Entry {
        rip: CODE,
        start_info: 0,
    })?;
    let mut fd = setup.into_inner();
    loop {
        match fd.run() {
            Ok(VcpuExit::IoOut(..)) => return Ok(Cpl0::Native),
            Ok(VcpuExit::InternalError) => return Ok(Cpl0::Interpreted),
            Ok(VcpuExit::Intr) => {}
            Ok(exit) => bail!(
                "KVM cannot run an instruction at CPL0: {}",
                super::exits::name(&exit)
            ),
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {}
            Err(error) => return Err(error).context("asking what runs CPL0: KVM_RUN"),
        }
    }
}

/// What the guest kernel needs of a processor: a name, and the CPUID leaf, register (0 EAX to 3
/// EDX) and bit that tell of it.
const NEEDED: [(&str, u32, usize, u32); 4] = [
    ("XSAVE", 1, 2, 26),
    ("FSGSBASE", 7, 1, 0),
    ("NX", 0x8000_0001, 3, 20),
    ("64-bit mode", 0x8000_0001, 3, 29),
];

/// Refuses a processor that lacks what the guest kernel needs. What interprets CPL0 has a table
/// of its own and the programs the whole processor, so there the processor is asked.
pub fn check(cpl0: Cpl0, supported: &CpuId) -> Result<()> {
    for (name, function, register, bit) in NEEDED {
        let leaf = supported
            .as_slice()
            .iter()
            .find(|leaf| (leaf.function, leaf.index) == (function, 0));
        let words = match cpl0 {
            Cpl0::Native => leaf.map_or([0; 4], |l| [l.eax, l.ebx, l.ecx, l.edx]),
            Cpl0::Interpreted => {
                use std::arch::x86_64::{__cpuid, __cpuid_count};
                // Beyond the highest leaf of its range there is anything.
                match __cpuid(function & 0x8000_0000).eax >= function {
                    true => {
                        let own = __cpuid_count(function, 0);
                        [own.eax, own.ebx, own.ecx, own.edx]
                    }
                    false => [0; 4],
                }
            }
        };
        if words[register] >> bit & 1 == 0 {
            bail!("{}", lacking("this host's virtual processors lack", name));
        }
    }
    Ok(())
}

/// The line that refuses a processor for want of `what`.
pub fn lacking(who_lacks: &str, what: &str) -> String {
    format!("{who_lacks} {what}, which the guest's kernel needs")
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvm_bindings::kvm_cpuid_entry2;

    #[test]
    fn the_host_answers_the_same_however_busy_it_is() {
        let kvm = Kvm::new().expect("this test needs /dev/kvm, readable and writable");
        let busy: Vec<_> = (0..8)
            .map(|_| std::thread::spawn(|| (0..200_000_000u64).fold(0, |a, b| a ^ b)))
            .collect();
        let answers: Vec<_> = (0..20).map(|_| probe(&kvm).unwrap()).collect();
        assert!(answers.iter().all(|answer| *answer == answers[0]));
        for thread in busy {
            thread.join().unwrap();
        }
    }

    #[test]
    fn a_processor_that_lacks_something_is_refused_by_name() {
        let leaf = |function, ebx, ecx, edx| kvm_cpuid_entry2 {
            function,
            ebx,
            ecx,
            edx,
            ..Default::default()
        };
        let whole = [
            leaf(1, 0, 1 << 26, 0),
            leaf(7, 1, 0, 0),
            leaf(0x8000_0001, 0, 0, 1 << 20 | 1 << 29),
        ];
        let table = |leaves: &[_]| CpuId::from_entries(leaves).unwrap();
        check(Cpl0::Native, &table(&whole)).unwrap();
        let refused = |without: usize| {
            let mut leaves = whole;
            leaves[without] = leaf(leaves[without].function, 0, 0, 0);
            check(Cpl0::Native, &table(&leaves))
                .unwrap_err()
                .to_string()
        };
        assert!(refused(0).contains("XSAVE"));
        assert!(refused(1).contains("FSGSBASE"));
        assert!(refused(2).contains("NX"));
    }
}
