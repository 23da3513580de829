//! Which gate the guest kernel is to use: at CPL0 where CPL0 runs natively, at CPL3 behind
//! CPL0 stubs where KVM interprets every CPL0 instruction.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use kvm_bindings::kvm_userspace_memory_region;
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

/// Instructions that are timed.
const NOPS: usize = 100;
/// Timed runs; the fastest counts, so that a busy host does not look like an interpreter.
const ROUNDS: usize = 5;
/// An interpreted instruction takes around 800 ns, a native one below 1 ns. Many of them differ
/// from an exit and re-entry (some microseconds) only when they are interpreted.
const INTERPRETED: Duration = Duration::from_nanos(100);

/// Times `nop`s at CPL0 in a scratch machine.
pub fn measure(kvm: &Kvm) -> Result<(Gate, Duration)> {
    let per_nop = nop_time(kvm)?;
    let gate = if per_nop > INTERPRETED {
        Gate::Deprivileged
    } else {
        Gate::Direct
    };
    Ok((gate, per_nop))
}

/// Time of one `nop`: a round of them between two `out`s, less a round of nothing.
fn nop_time(kvm: &Kvm) -> Result<Duration> {
    const CODE: u64 = 0x1000;
    /// out %al, $0x80
    const OUT: [u8; 2] = [0xe6, 0x80];
    const NOP: u8 = 0x90;
    let ram = Ram::from_ranges(&[(GuestAddress(0), 0x2000)]).context("scratch RAM")?;
    let mut code = Vec::new();
    for _ in 0..ROUNDS {
        code.extend(OUT);
        code.extend(OUT);
        code.extend([NOP; NOPS]);
        code.extend(OUT);
    }
    ram.write_slice(&code, GuestAddress(CODE))
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
    let fd = vm.create_vcpu(0).context("KVM_CREATE_VCPU")?;
    let setup = Vcpu::new(fd);
    setup.enter_pvh(Entry {
        rip: CODE,
        start_info: 0,
    })?;
    let mut fd = setup.into_inner();
    let mut step = || -> Result<Duration> {
        let start = Instant::now();
        loop {
            match fd.run() {
                Ok(VcpuExit::IoOut(..)) => return Ok(start.elapsed()),
                Ok(VcpuExit::Intr) => {}
                Ok(exit) => bail!("measuring CPL0: {}", super::exits::name(&exit)),
                Err(error) if error.errno() == libc::EINTR => {}
                Err(error) => return Err(error).context("measuring CPL0: KVM_RUN"),
            }
        }
    };
    // Each at its best before they are compared: an empty step that another program of the
    // host interrupted would make the instructions look free.
    let (mut empty, mut full) = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        step()?;
        empty = empty.min(step()?);
        full = full.min(step()?);
    }
    Ok(full.saturating_sub(empty) / NOPS as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_measurement_is_quick_and_agrees_with_itself() {
        let kvm = Kvm::new().expect("this test needs /dev/kvm, readable and writable");
        let start = Instant::now();
        let first = measure(&kvm).unwrap();
        eprintln!("gate {first:?}, measured in {:?}", start.elapsed());
        assert_eq!(measure(&kvm).unwrap().0, first.0);
    }
}
