//! What a bare kernel visit costs on this host: a trap of a task at CPL3 to a kernel at CPL3
//! in an address space of its own and back, through two CPL0 stubs of five instructions: the
//! least that the deprivileged gate can do. Measured in a scratch machine.

use std::arch::global_asm;
use std::slice;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use kvm_bindings::{kvm_segment, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use crate::memory::Ram;

/// The machine's RAM, mapped one to one.
const RAM: u64 = 0x2_0000;
/// Two address spaces, whose first entries lead to the same tables.
const TASK_SPACE: u64 = 0x1000;
const KERNEL_SPACE: u64 = 0x2000;
const PDPT: u64 = 0x3000;
const PD: u64 = 0x4000;
const PT: u64 = 0x5000;
const GDT: u64 = 0x6000;
const TSS: u64 = 0x7000;
const IDT: u64 = 0x8000;
/// Stack of the trap into the kernel.
const FRAME_TOP: u64 = 0xa000;
/// Stack of the trap out of it.
const EXIT_TOP: u64 = 0xc000;
/// Frames that lead to the kernel and, once, to the task.
const KERNEL_FRAME: u64 = 0xe000;
const TASK_FRAME: u64 = 0xe100;
/// Which space the task is in.
const TASK_CR3: u64 = 0xe200;
const TASK_STACK: u64 = 0x1_0000;
const CODE: u64 = 0x1_1000;
/// A page of no RAM: a store there ends the measurement.
const DOORBELL: u64 = 0xf_f000;

const KERNEL_CS: u16 = 0x08;
const TSS_SELECTOR: u16 = 0x38;
const USER_CS: u64 = 0x33;
const USER_SS: u64 = 0x2b;
/// No interrupts; bit 1 always reads one.
const RFLAGS: u64 = 2;
/// Present, writable, for everyone, accessed, dirty.
const PAGE: u64 = 0x67;

/// Visits of a batch, and batches, the fastest of which counts.
const VISITS: u64 = 100;
const BATCHES: u64 = 50;
/// A host on which this takes longer is not to be waited for.
const PATIENCE: Duration = Duration::from_secs(10);

global_asm!(
    ".pushsection .rodata.visit",
    "visit_start:",
    // At CPL0, rsp at the task's frame.
    "iretq",
    "visit_enter:",
    "push rax",
    "mov eax, {kernel_space}",
    "mov cr3, rax",
    "mov rsp, {kernel_frame}",
    "iretq",
    "visit_leave:",
    "mov rax, [{task_cr3}]",
    "mov cr3, rax",
    "mov rsp, {frame_top} - 48",
    "pop rax",
    "iretq",
    "visit_kernel:",
    "int 4",
    // Measures into r13.
    "visit_task:",
    "mov r12d, {batches}",
    "mov r13, -1",
    "2:",
    "rdtsc",
    "shl rdx, 32",
    "lea r14, [rax + rdx]",
    "mov ecx, {visits}",
    "3:",
    "int3",
    "dec ecx",
    "jnz 3b",
    "rdtsc",
    "shl rdx, 32",
    "add rax, rdx",
    "sub rax, r14",
    "cmp rax, r13",
    "cmovb r13, rax",
    "dec r12d",
    "jnz 2b",
    "mov rbx, {doorbell}",
    "4:",
    "mov [rbx], r13",
    "jmp 4b",
    "visit_end:",
    ".popsection",
    kernel_space = const KERNEL_SPACE,
    kernel_frame = const KERNEL_FRAME,
    task_cr3 = const TASK_CR3,
    frame_top = const FRAME_TOP,
    batches = const BATCHES,
    visits = const VISITS,
    doorbell = const DOORBELL,
);

unsafe extern "C" {
    static visit_start: u8;
    static visit_enter: u8;
    static visit_leave: u8;
    static visit_kernel: u8;
    static visit_task: u8;
    static visit_end: u8;
}

/// The guest's address of a label.
fn address(label: *const u8) -> u64 {
    CODE + (label as u64 - &raw const visit_start as u64)
}

fn code() -> &'static [u8] {
    let start = &raw const visit_start;
    let len = &raw const visit_end as usize - start as usize;
    // SAFETY: the labels are the ends of one piece of read-only data.
    unsafe { slice::from_raw_parts(start, len) }
}

/// TSC cycles of one visit.
pub fn bare() -> Result<u64> {
    let kvm = Kvm::new().context("opening /dev/kvm")?;
    let ram = Ram::from_ranges(&[(GuestAddress(0), RAM as usize)]).context("scratch RAM")?;
    fill(&ram).context("scratch RAM")?;
    let vm = kvm.create_vm().context("KVM_CREATE_VM")?;
    let region = kvm_userspace_memory_region {
        slot: 0,
        guest_phys_addr: 0,
        memory_size: RAM,
        userspace_addr: ram
            .get_host_address(GuestAddress(0))
            .context("scratch RAM")? as u64,
        flags: 0,
    };
    // SAFETY: the region is the mapping of `ram`, which is dropped after `vm`: locals are
    // dropped in reverse order.
    unsafe { vm.set_user_memory_region(region) }.context("KVM_SET_USER_MEMORY_REGION")?;
    let mut vcpu = vm.create_vcpu(0).context("KVM_CREATE_VCPU")?;
    enter(&vcpu)?;
    let begun = Instant::now();
    loop {
        ensure!(begun.elapsed() < PATIENCE, "it takes too long");
        match vcpu.run() {
            Ok(VcpuExit::MmioWrite(_, data)) => {
                let word = data.try_into().context("a result of the wrong size")?;
                return Ok(u64::from_le_bytes(word) / VISITS);
            }
            Ok(VcpuExit::Intr) => {}
            Ok(exit) => bail!("{}", crate::kvm::exits::name(&exit)),
            Err(error) if error.errno() == libc::EINTR => {}
            Err(error) => return Err(error).context("KVM_RUN"),
        }
    }
}

/// Tables, frames and code.
fn fill(ram: &Ram) -> Result<()> {
    let put = |at: u64, words: &[u64]| -> Result<()> {
        for (at, word) in (at..).step_by(8).zip(words) {
            ram.write_obj(*word, GuestAddress(at))?;
        }
        Ok(())
    };
    for space in [TASK_SPACE, KERNEL_SPACE] {
        put(space, &[PDPT | PAGE])?;
    }
    put(PDPT, &[PD | PAGE])?;
    put(PD, &[PT | PAGE])?;
    for page in (0..RAM).step_by(4096) {
        put(PT + page / 512, &[page | PAGE])?;
    }
    // RAM ends below it.
    put(PT + DOORBELL / 512, &[DOORBELL | PAGE])?;
    let code64 = |dpl: u64| 0x00af_9b00_0000_ffff | dpl << 45;
    let data = |dpl: u64| 0x00cf_9300_0000_ffff | dpl << 45;
    let tss = 0x67 | TSS << 16 | 0x8b << 40;
    put(
        GDT,
        &[0, code64(0), data(0), 0, 0, data(3), code64(3), tss, 0],
    )?;
    // rsp0 and ist1.
    for (at, stack) in [(4, FRAME_TOP), (36, EXIT_TOP)] {
        ram.write_obj(stack, GuestAddress(TSS + at))?;
    }
    let gate = |label, stack: u64| {
        let to = address(label);
        to & 0xffff | u64::from(KERNEL_CS) << 16 | stack << 32 | 0xee << 40 | (to >> 16) << 48
    };
    put(IDT + 3 * 16, &[gate(&raw const visit_enter, 0), 0])?;
    put(IDT + 4 * 16, &[gate(&raw const visit_leave, 1), 0])?;
    let frame = |label| [address(label), USER_CS, RFLAGS, TASK_STACK, USER_SS];
    put(KERNEL_FRAME, &frame(&raw const visit_kernel))?;
    put(TASK_FRAME, &frame(&raw const visit_task))?;
    put(TASK_CR3, &[TASK_SPACE])?;
    ram.write_slice(code(), GuestAddress(CODE))?;
    Ok(())
}

/// 64-bit mode at CPL0, about to leave to the task.
fn enter(vcpu: &VcpuFd) -> Result<()> {
    let mut sregs = vcpu.get_sregs().context("KVM_GET_SREGS")?;
    let segment = |selector, type_| kvm_segment {
        limit: 0xffff_ffff,
        selector,
        type_,
        present: 1,
        s: 1,
        g: 1,
        ..Default::default()
    };
    sregs.cs = kvm_segment {
        l: 1,
        ..segment(KERNEL_CS, 0xb)
    };
    let data = kvm_segment {
        db: 1,
        ..segment(0x10, 0x3)
    };
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.tr = kvm_segment {
        base: TSS,
        limit: 0x67,
        s: 0,
        g: 0,
        ..segment(TSS_SELECTOR, 0xb)
    };
    (sregs.gdt.base, sregs.gdt.limit) = (GDT, 9 * 8 - 1);
    (sregs.idt.base, sregs.idt.limit) = (IDT, 5 * 16 - 1);
    sregs.cr3 = TASK_SPACE;
    // PAE; long mode enabled and active; paging and protection.
    sregs.cr4 = 1 << 5;
    sregs.efer = 1 << 8 | 1 << 10;
    sregs.cr0 = 1 << 31 | 1 << 4 | 1;
    vcpu.set_sregs(&sregs).context("KVM_SET_SREGS")?;
    let mut regs = vcpu.get_regs().context("KVM_GET_REGS")?;
    regs.rip = address(&raw const visit_start);
    regs.rsp = TASK_FRAME;
    regs.rflags = RFLAGS;
    vcpu.set_regs(&regs).context("KVM_SET_REGS")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visit_costs_something() {
        let begun = Instant::now();
        let cycles = bare().expect("a host with /dev/kvm");
        eprintln!("{cycles} cycles, measured in {:?}", begun.elapsed());
        assert!((100..10_000_000).contains(&cycles), "{cycles}");
    }
}
