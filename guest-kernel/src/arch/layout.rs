//! Where things are, in every address space and in the kernel's own.

/// Which gate this kernel runs behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum Gate {
    /// The kernel at CPL0.
    Direct = 0,
    /// The kernel at CPL3 behind stubs.
    Deprivileged = 1,
}

/// The kernel image: physical address plus this.
pub const KERNEL_BASE: u64 = 0xffff_ffff_8000_0000;
/// Physical address of the kernel image (`kernel.ld`).
pub const KERNEL_START: u64 = 0x20_0000;
/// All of physical memory up to 4 GiB (PML4 slot 510). Only in the kernel's own view.
pub const PHYSICAL_BASE: u64 = 0xffff_ff00_0000_0000;
/// The gate region: pages that every address space maps (PML4 slot 511, last 2 MiB).
pub const GATE: u64 = abi::kernel::TRAMPOLINE;
/// The deprivileged gate's CPL0 stubs.
pub const GATE_TEXT: u64 = GATE + 0x1000;
/// The interrupt descriptor table: in the deprivileged gate the kernel has one, tasks another.
pub const IDT: u64 = GATE + 0x2000;
/// GDT, TSS and the prebuilt `iretq` frames.
pub const TABLES: u64 = GATE + 0x3000;
/// The page on which the processor and the stubs push.
pub const STACKS: u64 = GATE + 0x4000;

/// The frame by which a `syscall` that arrives at CPL0 enters the deprivileged kernel, behind those of the vectors.
pub const SYSCALL_FRAME: u64 = FRAMES + VECTORS * FRAME_SIZE;
/// Bytes of a prebuilt frame.
pub const FRAME_SIZE: u64 = 40;

/// Where LSTAR leads in the deprivileged gate: to a page that no address space has. Where CPL0 is interpreted `syscall`
/// jumps there still at CPL3, and faults.
pub const LINUX_ENTRY: u64 = GATE + 0x5000;

/// TSS within [`TABLES`].
pub const TSS: u64 = TABLES + 0x100;
/// CR3 of the task to resume (deprivileged gate).
pub const TASK_CR3: u64 = TABLES + 0x1f0;
/// The prebuilt frames: five words for each vector.
pub const FRAMES: u64 = TABLES + 0x200;

/// Where the processor pushes on entry from CPL3 (rsp0): ss, rsp, rflags, cs, rip below it.
pub const FRAME_TOP: u64 = STACKS + 0x400;
/// Stack of the exit gate and of idling.
pub const EXIT_STACK_TOP: u64 = STACKS + 0x800;
/// Stack of double faults.
pub const FAULT_STACK_TOP: u64 = STACKS + 0x1000;

/// 64-bit user code and data selectors, RPL 3.
pub const USER_CS: u64 = 0x33;
/// See [`USER_CS`].
pub const USER_SS: u64 = 0x2b;
/// Kernel code selector (CPL0).
pub const KERNEL_CS: u64 = 0x08;

/// Vector of kernel calls in the deprivileged gate (`int3`, one byte, never emulated).
pub const VECTOR_CALL: u64 = 3;
/// Vector by which the deprivileged kernel leaves (`int $4`). In the tasks' table it is what it is
/// elsewhere, an exception.
pub const VECTOR_EXIT: u64 = 4;
/// First vector of interrupts: the APIC timer.
pub const VECTOR_TIMER: u64 = 32;
/// Vector of interrupt line 0.
pub const VECTOR_LINES: u64 = abi::kernel::VECTOR_LINES as u64;
/// Interrupt lines.
pub const LINES: u64 = abi::kernel::LINES as u64;
/// Spurious APIC interrupts. The low four bits are ones, as old APICs want.
pub const VECTOR_SPURIOUS: u64 = 63;
/// Vectors with a stub.
pub const VECTORS: u64 = 64;
/// Bytes between the stubs.
pub const STUB_STRIDE: u64 = 32;
/// The stub by which the deprivileged kernel leaves, behind those of the vectors.
pub const EXIT_STUB: u64 = GATE_TEXT + VECTORS * STUB_STRIDE;

/// Whether the processor pushes an error code for this exception.
pub const fn has_error_code(vector: u64) -> bool {
    matches!(vector, 8 | 10..=14 | 17 | 21 | 29 | 30)
}
